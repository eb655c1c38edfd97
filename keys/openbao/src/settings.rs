//! Where the server is, and what the vault says to it who it is.

use std::net::IpAddr;
use std::path::PathBuf;

use serde::Deserialize;
use strongroom_keys::RootError;
use ureq::http::Uri;

use crate::KIND;

/// `[root.openbao]` of the vault's configuration. One of `token_file` and `approle` is given.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// `https://HOST:PORT`; `http://` for the loopback only.
    pub address: String,
    /// The full path of the PEM file with the authorities that the server's certificate may come from. Needed for
    /// `https://`.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// The namespace of the engine.
    #[serde(default)]
    pub namespace: Option<String>,
    /// Where the transit engine is.
    #[serde(default = "transit")]
    pub mount: String,
    /// The transit key's name.
    pub key: String,
    /// The full path of the file that holds a token and nothing else.
    #[serde(default)]
    pub token_file: Option<PathBuf>,
    /// A role to log in with.
    #[serde(default)]
    pub approle: Option<AppRole>,
}

/// `[root.openbao.approle]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AppRole {
    /// Which role. No secret.
    pub role_id: String,
    /// The full path of the file that holds the secret id and nothing else.
    pub secret_id_file: PathBuf,
    /// Where the authentication method is.
    #[serde(default = "approle")]
    pub mount: String,
}

fn transit() -> String {
    "transit".to_owned()
}

fn approle() -> String {
    "approle".to_owned()
}

impl Settings {
    pub(crate) fn check(&self) -> Result<(), RootError> {
        self.check_address()?;
        if !is_name(&self.key) {
            return Err(KIND.settings(format!("key = {:?} is no key's name: {NAME}", self.key)));
        }
        let approle_mount = self.approle.as_ref().map(|approle| &approle.mount);
        let paths = [("mount", Some(&self.mount)), ("namespace", self.namespace.as_ref()), ("mount", approle_mount)];
        for (name, path) in paths {
            if path.is_some_and(|path| !path.split('/').all(is_name)) {
                return Err(KIND.settings(format!("{name} = {path:?} is no path: {NAME}, with / between them")));
            }
        }
        let secret_id_file = self.approle.as_ref().map(|approle| &approle.secret_id_file);
        let files = [("ca_file", &self.ca_file), ("token_file", &self.token_file)];
        let files =
            files.map(|(name, file)| (name, file.as_ref())).into_iter().chain([("secret_id_file", secret_id_file)]);
        for (name, file) in files {
            if file.is_some_and(|file| !file.is_absolute()) {
                return Err(KIND.settings(format!("{name} = {file:?} is no full path: begin it with /")));
            }
        }
        Ok(())
    }

    /// The token goes there with each call, so nobody on the way may read it.
    fn check_address(&self) -> Result<(), RootError> {
        let wrong = |why: &str| Err(KIND.settings(format!("address = {:?}: {why}", self.address)));
        let Ok(uri) = self.address.parse::<Uri>() else { return wrong("give https://HOST:PORT") };
        let Some(authority) = uri.authority() else { return wrong("give https://HOST:PORT") };
        if authority.as_str().contains('@') || !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return wrong("give https://HOST:PORT and nothing more");
        }
        match uri.scheme_str() {
            Some("https") if self.ca_file.is_none() => wrong("give ca_file, the authorities of its certificate"),
            Some("https") => Ok(()),
            Some("http") if is_loopback(authority.host()) => Ok(()),
            Some("http") => wrong("use https://; http:// is for the loopback only"),
            _ => wrong("give https://HOST:PORT"),
        }
    }
}

fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

const NAME: &str = "use 1 to 128 letters, digits and _ . -";

/// What is one part of a path for every server and proxy on the way.
fn is_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    (1..=128).contains(&name.len()) && name.bytes().all(plain) && name != "." && name != ".."
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings {
            address: "https://bao:8200".to_owned(),
            ca_file: Some("/ca.pem".into()),
            namespace: None,
            mount: transit(),
            key: "strongroom".to_owned(),
            token_file: Some("/token".into()),
            approle: None,
        }
    }

    #[test]
    fn addresses_that_would_show_the_token_are_refused() {
        let check = |address: &str| Settings { address: address.to_owned(), ..settings() }.check();
        for address in
            ["https://bao:8200", "https://bao/", "http://127.0.0.1:8100", "http://[::1]:1", "http://localhost"]
        {
            assert!(check(address).is_ok(), "{address}");
        }
        for address in [
            "http://bao:8200",
            "http://127.0.0.1.bank.example",
            "bao:8200",
            "",
            "ftp://bao",
            "https://a@bao",
            "https://bao/x",
        ] {
            assert!(matches!(check(address), Err(RootError::Settings { .. })), "{address}");
        }
        assert!(Settings { ca_file: None, ..settings() }.check().is_err());
    }

    #[test]
    fn names_cannot_lead_elsewhere() {
        assert!(settings().check().is_ok());
        for name in ["", ".", "..", "a/b", "a?b", "a b", "a%2f", "ä", &"a".repeat(129)] {
            assert!(Settings { key: name.to_owned(), ..settings() }.check().is_err(), "{name}");
        }
        for path in ["", "/a", "a/", "a/../b", "a//b"] {
            assert!(Settings { mount: path.to_owned(), ..settings() }.check().is_err(), "{path}");
            assert!(Settings { namespace: Some(path.to_owned()), ..settings() }.check().is_err(), "{path}");
        }
        assert!(Settings { mount: "bank/transit".to_owned(), ..settings() }.check().is_ok());
    }

    #[test]
    fn files_are_named_by_their_full_paths() {
        assert!(Settings { token_file: Some("token".into()), ..settings() }.check().is_err());
        assert!(Settings { ca_file: Some("ca.pem".into()), ..settings() }.check().is_err());
    }
}
