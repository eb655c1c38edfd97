//! What a module's answers mean for the vault.

use cryptoki::error::{Error, RvError};
use strongroom_keys::RootError;

use crate::KIND;

/// Sorts an error of the module. Its names say enough, and its calls never name a PIN or a key's bytes.
pub(crate) fn classify(error: Error) -> RootError {
    let Error::Pkcs11(code, function) = error else {
        return match error {
            Error::LibraryLoading(error) => KIND.unreachable(format!("the module can't be loaded: {error}")),
            Error::MissingSymbol(_) | Error::NullFunctionPointer => {
                KIND.settings(format!("the module is no PKCS#11 library, or lacks a call: {error}"))
            }
            error => KIND.unreachable(format!("the module gives an answer that makes no sense: {error}")),
        };
    };
    let said = format!("C_{function:?} answers {code:?}");
    match code {
        RvError::PinIncorrect | RvError::PinInvalid | RvError::PinLenRange => {
            KIND.credential(format!("{said}: write the token's user PIN into pin_file"))
        }
        RvError::PinLocked | RvError::PinExpired | RvError::UserPinNotInitialized => {
            KIND.credential(format!("{said}: the token's security officer has to set the user PIN anew"))
        }
        RvError::KeyFunctionNotPermitted
        | RvError::ActionProhibited
        | RvError::FunctionRejected
        | RvError::UserNotLoggedIn => {
            KIND.denied(format!("{said}: allow the token's user to encrypt and decrypt with the key"))
        }
        RvError::TokenWriteProtected | RvError::SessionReadOnly => {
            KIND.settings(format!("{said}: no key can be made in this token; make it with its vendor's tools"))
        }
        RvError::MechanismInvalid
        | RvError::MechanismParamInvalid
        | RvError::FunctionNotSupported
        | RvError::KeySizeRange
        | RvError::KeyTypeInconsistent => {
            KIND.settings(format!("{said}: CKM_AES_GCM with AAD and an AES-256 key is needed; use a token that has it"))
        }
        // Among them handles that are no more: what became of the key, the next call finds.
        _ => KIND.unreachable(said),
    }
}

#[cfg(test)]
mod tests {
    use cryptoki::context::Function;

    use super::*;

    #[test]
    fn each_answer_is_of_the_kind_that_the_vault_acts_on() {
        let kind = |code, function| match classify(Error::Pkcs11(code, function)) {
            RootError::Credential { .. } => "credential",
            RootError::Denied { .. } => "denied",
            RootError::Unreachable { .. } => "unreachable",
            RootError::OtherKey { .. } => "other key",
            RootError::Settings { .. } => "settings",
            _ => "else",
        };
        assert_eq!(kind(RvError::PinIncorrect, Function::Login), "credential");
        assert_eq!(kind(RvError::PinLocked, Function::Login), "credential");
        assert_eq!(kind(RvError::KeyFunctionNotPermitted, Function::DecryptInit), "denied");
        assert_eq!(kind(RvError::DeviceRemoved, Function::Decrypt), "unreachable");
        assert_eq!(kind(RvError::TokenNotPresent, Function::OpenSession), "unreachable");
        assert_eq!(kind(RvError::SessionHandleInvalid, Function::Login), "unreachable");
        assert_eq!(kind(RvError::GeneralError, Function::Login), "unreachable");
        assert_eq!(kind(RvError::MechanismInvalid, Function::EncryptInit), "settings");
        assert_eq!(kind(RvError::KeyHandleInvalid, Function::EncryptInit), "unreachable");
    }
}
