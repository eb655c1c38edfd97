//! Which key, where, and with whose credentials.

use std::net::IpAddr;
use std::path::PathBuf;

use serde::Deserialize;
use strongroom_keys::RootError;

use crate::KIND;

/// `[root.aws-kms]` of the vault's configuration.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The ARN or id of a symmetric key, or an alias.
    pub key: String,
    /// The region. Needed where `key` is no ARN.
    #[serde(default)]
    pub region: Option<String>,
    /// The URL of KMS, if it is not the region's own. `http://` for the loopback only.
    #[serde(default)]
    pub endpoint: Option<String>,
    /// An access key's id, if there is a key for the vault. No secret.
    #[serde(default)]
    pub access_key_id: Option<String>,
    /// The full path of the file that holds that access key's secret and nothing else.
    #[serde(default)]
    pub secret_access_key_file: Option<PathBuf>,
}

impl Settings {
    pub(crate) fn check(&self) -> Result<(), RootError> {
        // KMS takes no longer one, and an ARN has to fit an envelope.
        if self.key.is_empty() || self.key.len() > 512 || !self.key.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(KIND.settings(format!("key = {:?}: give a key's ARN or id, or an alias", self.key)));
        }
        match (self.region(), &self.region) {
            (None, _) => return Err(KIND.settings("give region, or a key's ARN, which names its region")),
            (Some(is), Some(given)) if is != given => {
                return Err(KIND.settings(format!("key is of region {is}, and region says {given}: leave one out")));
            }
            _ => {}
        }
        if let Some(endpoint) = &self.endpoint {
            check_endpoint(endpoint)?;
        }
        match (&self.access_key_id, &self.secret_access_key_file) {
            (None, None) => Ok(()),
            (Some(_), Some(file)) if file.is_absolute() => Ok(()),
            (Some(_), Some(file)) => {
                Err(KIND.settings(format!("secret_access_key_file = {file:?} is no full path: begin it with /")))
            }
            _ => Err(KIND.settings("give access_key_id and secret_access_key_file, both or none")),
        }
    }

    /// The region: the ARN's own, or what was given.
    pub(crate) fn region(&self) -> Option<&str> {
        arn_region(&self.key).or(self.region.as_deref()).filter(|region| !region.is_empty())
    }
}

/// `arn:PARTITION:kms:REGION:ACCOUNT:RESOURCE`.
fn arn_region(key: &str) -> Option<&str> {
    let mut parts = key.split(':');
    let is_kms = parts.next() == Some("arn") && parts.nth(1) == Some("kms");
    parts.next().filter(|_| is_kms)
}

/// Whether it is the ARN of a key, and not of an alias.
pub(crate) fn is_key_arn(text: &str) -> bool {
    arn_region(text).is_some() && text.splitn(6, ':').nth(5).is_some_and(|resource| resource.starts_with("key/"))
}

/// The keystore key goes there in clear, under TLS.
fn check_endpoint(endpoint: &str) -> Result<(), RootError> {
    let host = |rest: &str| rest.split(['/', '?', '#']).next().unwrap_or_default().to_owned();
    let is_fine = match endpoint.split_once("://") {
        Some(("https", rest)) => !host(rest).is_empty() && !host(rest).contains('@'),
        Some(("http", rest)) => !host(rest).contains('@') && is_loopback(&host(rest)),
        _ => false,
    };
    if is_fine {
        return Ok(());
    }
    Err(KIND.settings(format!("endpoint = {endpoint:?}: give https://HOST; http:// is for the loopback only")))
}

fn is_loopback(authority: &str) -> bool {
    let host = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, _)) => host,
        None => authority.split_once(':').map_or(authority, |(host, _)| host),
    };
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARN: &str = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd";

    fn settings() -> Settings {
        Settings {
            key: ARN.to_owned(),
            region: None,
            endpoint: None,
            access_key_id: None,
            secret_access_key_file: None,
        }
    }

    #[test]
    fn an_arn_names_its_region_and_nothing_else_does() {
        assert_eq!(settings().region(), Some("eu-central-1"));
        assert!(settings().check().is_ok());
        for key in ["alias/strongroom", "1234abcd", "arn:aws:s3:eu-central-1:1:key/1", "arn:aws:kms"] {
            assert!(Settings { key: key.to_owned(), ..settings() }.check().is_err(), "{key}");
            let region = Some("eu-central-1".to_owned());
            assert!(Settings { key: key.to_owned(), region, ..settings() }.check().is_ok(), "{key}");
        }
        assert!(Settings { region: Some("us-east-1".to_owned()), ..settings() }.check().is_err());
        for key in ["", "a key", &"a".repeat(513)] {
            assert!(Settings { key: key.to_owned(), ..settings() }.check().is_err(), "{key}");
        }
    }

    #[test]
    fn a_keys_arn_is_told_from_an_aliass() {
        assert!(is_key_arn(ARN));
        assert!(is_key_arn("arn:aws-cn:kms:cn-north-1:1:key/mrk-1"));
        for other in ["arn:aws:kms:eu-central-1:1:alias/x", "alias/x", "1234abcd", "", "arn:aws:kms:eu-central-1:1:"] {
            assert!(!is_key_arn(other), "{other}");
        }
    }

    #[test]
    fn endpoints_that_would_show_the_key_are_refused() {
        let check = |endpoint: &str| Settings { endpoint: Some(endpoint.to_owned()), ..settings() }.check();
        for endpoint in ["https://kms.example", "http://127.0.0.1:4566", "http://[::1]:1/", "http://localhost:1"] {
            assert!(check(endpoint).is_ok(), "{endpoint}");
        }
        for endpoint in [
            "http://kms.example",
            "http://127.0.0.1.bank.example",
            "http://127.0.0.1@bank.example",
            "http://127.0.0.1:80@bank.example",
            "https://kms.example@bank.example",
            "kms",
            "",
            "https://",
        ] {
            assert!(check(endpoint).is_err(), "{endpoint}");
        }
    }

    #[test]
    fn an_access_key_has_both_its_halves() {
        let id = Some("AKIA".to_owned());
        assert!(Settings { access_key_id: id.clone(), ..settings() }.check().is_err());
        assert!(Settings { secret_access_key_file: Some("/secret".into()), ..settings() }.check().is_err());
        let file = Some("secret".into());
        assert!(Settings { access_key_id: id.clone(), secret_access_key_file: file, ..settings() }.check().is_err());
        let file = Some("/secret".into());
        assert!(Settings { access_key_id: id, secret_access_key_file: file, ..settings() }.check().is_ok());
    }
}
