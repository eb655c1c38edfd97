//! The credentials of one call.

use std::path::Path;

use aws_config::Region;
use aws_config::default_provider::credentials::DefaultCredentialsChain;
use aws_config::provider_config::ProviderConfig;
use aws_sdk_kms::config::{Credentials, ProvideCredentials, SharedHttpClient};
use strongroom_keys::RootError;
use strongroom_keys::root::secret_file;
use zeroize::Zeroizing;

use crate::settings::Settings;
use crate::{KIND, failure};

/// Bytes of a secret access key at most; AWS's have 40.
const LONGEST: usize = 256;

/// Looks the credentials up where the settings say.
pub(crate) async fn find(
    settings: &Settings,
    region: Region,
    http: SharedHttpClient,
) -> Result<Credentials, RootError> {
    if let (Some(id), Some(file)) = (&settings.access_key_id, &settings.secret_access_key_file) {
        let secret = read(file)?;
        return Ok(Credentials::new(id.clone(), secret.as_str(), None, None, "secret_access_key_file"));
    }
    let config = ProviderConfig::without_region().with_region(Some(region.clone())).with_http_client(http);
    let chain = DefaultCredentialsChain::builder().region(region).configure(config).build().await;
    chain.provide_credentials().await.map_err(failure::without_credentials)
}

/// Reads a file that holds the secret and nothing else; a line end after it does not count.
fn read(file: &Path) -> Result<Zeroizing<String>, RootError> {
    let failed = |what: String| KIND.credential(format!("the file {}: {what}", file.display()));
    let bytes = secret_file(file, LONGEST).map_err(|error| failed(error.to_string()))?;
    let text = std::str::from_utf8(&bytes).unwrap_or_default();
    if text.is_empty() || text.len() > LONGEST || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(failed("write the secret access key into it, in one line".to_owned()));
    }
    Ok(Zeroizing::new(text.to_owned()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn read_bytes(bytes: &[u8]) -> Result<Zeroizing<String>, RootError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        read(file.path())
    }

    #[test]
    fn a_line_end_is_no_part_of_the_secret() {
        for bytes in [b"abc/+1".as_slice(), b"abc/+1\n", b"abc/+1\r\n"] {
            assert_eq!(read_bytes(bytes).unwrap().as_str(), "abc/+1");
        }
    }

    #[test]
    fn what_is_no_secret_is_refused_without_showing_it() {
        for bytes in [b"".as_slice(), b"\n", b"abc def", b"abc\xff", b"abc\n\n", &[b'a'; LONGEST + 1]] {
            let error = read_bytes(bytes).unwrap_err();
            assert!(matches!(error, RootError::Credential { .. }));
            assert!(!error.to_string().contains("abc"));
        }
        assert!(matches!(read(Path::new("/nowhere")), Err(RootError::Credential { .. })));
    }
}
