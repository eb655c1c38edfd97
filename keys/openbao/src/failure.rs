//! What the server's answers mean for the vault.

use strongroom_keys::RootError;

use crate::KIND;

/// Sorts a refusal of the transit engine, other than of the token. OpenBao and Vault have no codes for it, so their words
/// count; these have been the same for years.
pub(crate) fn classify(status: u16, said: &str) -> RootError {
    let has = |words: &[&str]| words.iter().any(|word| said.contains(word));
    match status {
        400 if has(&["encryption key not found"]) => {
            KIND.denied(format!("{said}: the key was deleted, or key names another than there is"))
        }
        400 if has(&["disallowed by policy", "too old"]) => {
            KIND.denied(format!("{said}: the key's min_decryption_version forbids the version that sealed"))
        }
        400 if has(&["non-AEAD", "context", "not supported", "unsupported"]) => {
            KIND.settings(format!("{said}: use a key of type aes256-gcm96 that is not derived"))
        }
        400 => KIND.other_key(format!(
            "{said}: it was sealed by another key, for another vault, or was changed; if the key was deleted and made \
             anew, it is another"
        )),
        404 => {
            KIND.denied(format!("{said}: the engine was removed, or mount or namespace names another than there is"))
        }
        300..=399 => {
            KIND.unreachable(format!("it answers {status}, a redirect, which is not followed: name the right address"))
        }
        _ => KIND.unreachable(format!("it answers {status}: {said}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_answer_is_of_the_kind_that_the_vault_acts_on() {
        let kind = |status, said| match classify(status, said) {
            RootError::Denied { .. } => "denied",
            RootError::Unreachable { .. } => "unreachable",
            RootError::OtherKey { .. } => "other key",
            RootError::Settings { .. } => "settings",
            _ => "else",
        };
        assert_eq!(kind(400, "encryption key not found"), "denied");
        assert_eq!(kind(400, "ciphertext or signature version is disallowed by policy (too old)"), "denied");
        assert_eq!(kind(404, "no handler for route"), "denied");
        assert_eq!(kind(400, "cipher: message authentication failed"), "other key");
        assert_eq!(kind(400, "invalid ciphertext: no prefix"), "other key");
        assert_eq!(kind(400, "'[0].associated_data' provided for non-AEAD cipher suite rsa-2048"), "settings");
        assert_eq!(kind(400, "missing 'context' for key derivation"), "settings");
        for status in [301, 307, 412, 429, 472, 473, 500, 502, 503] {
            assert_eq!(kind(status, "Vault is sealed"), "unreachable");
        }
    }
}
