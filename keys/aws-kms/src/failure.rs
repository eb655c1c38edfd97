//! What KMS's answers mean for the vault.

use std::error::Error;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_kms::config::http::HttpResponse;
use aws_sdk_kms::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kms::operation::decrypt::DecryptError;
use aws_sdk_kms::operation::encrypt::EncryptError;
use strongroom_keys::RootError;

use crate::KIND;

/// Characters that are kept of what KMS says at most.
const SAID: usize = 400;

type Failure<E> = SdkError<E, HttpResponse>;

/// Sorts what went wrong while wrapping. A key that is not there is a matter of the settings: nothing was sealed by it.
pub(crate) fn while_wrapping(error: Failure<EncryptError>) -> RootError {
    sort(&error, |said| KIND.settings(format!("{said}: make the key, or correct key, region or endpoint")))
}

/// Sorts what went wrong while unwrapping. A key that sealed and is not there any more was deleted.
pub(crate) fn while_unwrapping(error: Failure<DecryptError>) -> RootError {
    sort(&error, |said| {
        KIND.denied(format!("{said}: the key that sealed was deleted, or endpoint is another account's"))
    })
}

/// Sorts why there are no credentials.
pub(crate) fn without_credentials(error: CredentialsError) -> RootError {
    let said = whole(&error);
    match error {
        CredentialsError::CredentialsNotLoaded(_) | CredentialsError::InvalidConfiguration(_) => KIND.credential(format!(
            "there are no credentials ({said}): give access_key_id and secret_access_key_file, or the machine a role"
        )),
        _ => KIND.unreachable(format!("the credentials can't be had: {said}")),
    }
}

fn sort<E: ProvideErrorMetadata + Error + 'static>(
    error: &Failure<E>,
    missing: impl FnOnce(&str) -> RootError,
) -> RootError {
    match error {
        SdkError::ServiceError(answer) => {
            let metadata = answer.err().meta();
            by_code(
                metadata.code().unwrap_or_default(),
                metadata.message().unwrap_or_default(),
                answer.raw().status().as_u16(),
                missing,
            )
        }
        SdkError::ConstructionFailure(_) => KIND.settings(whole(error)),
        _ => KIND.unreachable(whole(error)),
    }
}

fn by_code(code: &str, message: &str, status: u16, missing: impl FnOnce(&str) -> RootError) -> RootError {
    let said = one_line(&if message.is_empty() { code.to_owned() } else { format!("{code}: {message}") });
    match code {
        "AccessDeniedException" | "AccessDenied" | "NotAuthorized" => KIND.denied(format!(
            "{said}; the credentials need kms:Encrypt and kms:Decrypt, by IAM and by the key's policy"
        )),
        "DisabledException" => KIND.denied(format!("{said}; the key is disabled: enable it")),
        "KMSInvalidStateException" => {
            KIND.denied(format!("{said}; the key is to be deleted, or cut off from its key material: cancel that"))
        }
        "NotFoundException" => missing(&said),
        "IncorrectKeyException" => KIND.other_key(format!("{said}; it was sealed by another key")),
        "InvalidCiphertextException" => {
            KIND.other_key(format!("{said}; it was sealed by another key, for another vault, or was changed"))
        }
        "UnrecognizedClientException"
        | "InvalidClientTokenId"
        | "InvalidAccessKeyId"
        | "MissingAuthenticationToken"
        | "MissingAuthenticationTokenException"
        | "ExpiredToken"
        | "ExpiredTokenException" => KIND.credential(format!("{said}; give credentials that are known and in force")),
        "InvalidSignatureException"
        | "SignatureDoesNotMatch"
        | "IncompleteSignature"
        | "IncompleteSignatureException"
        | "RequestExpired" => KIND.credential(format!("{said}; correct the secret access key, or set the clock")),
        "ValidationException"
        | "InvalidArnException"
        | "InvalidKeyUsageException"
        | "UnsupportedOperationException" => {
            KIND.settings(format!("{said}; key is to name a symmetric key for encrypting and decrypting"))
        }
        // Throttling, time limits within KMS, faults, and what is no answer of KMS's.
        "" => KIND.unreachable(format!("it answers {status} with what is no answer of KMS's: check endpoint")),
        _ => KIND.unreachable(said),
    }
}

/// An error with all that is below it.
fn whole(error: &(dyn Error + 'static)) -> String {
    let (mut chain, mut below) = (vec![error.to_string()], error.source());
    while let Some(error) = below {
        chain.push(error.to_string());
        below = error.source();
    }
    one_line(&chain.join(": "))
}

fn one_line(said: &str) -> String {
    let words = said.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join(" ").chars().take(SAID).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_says_becomes_one_short_line() {
        assert_eq!(one_line("a\n\tb  \u{1b}[31mc"), "a b [31mc");
        assert_eq!(one_line(&"x".repeat(1_000)).len(), SAID);
    }

    #[test]
    fn an_error_is_told_with_what_is_below_it() {
        let error = std::io::Error::other(std::fmt::Error);
        assert_eq!(whole(&error), std::fmt::Error.to_string());
    }
}
