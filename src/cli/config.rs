//! `strongroom.toml`: where the vault listens, its certificates, its limits.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use strongroom_vault::Limits;

use super::layout::Layout;
use super::output::CliError;

/// A vault's configuration. Paths are relative to the vault's folder.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Address and port.
    pub listen: String,
    /// The certificates.
    pub tls: Tls,
    /// Limits of requests; they may only be lowered.
    #[serde(default)]
    pub limits: ConfiguredLimits,
    /// Memory and connections.
    #[serde(default)]
    pub capacity: Capacity,
}

/// The certificates that the vault shows and accepts.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// The vault's own chain, PEM.
    pub certificate: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
    /// The authorities whose client certificates are accepted, PEM.
    pub client_ca: PathBuf,
}

/// Limits that are set; the others are as large as they may be.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfiguredLimits {
    /// Bytes of a value.
    pub value: Option<usize>,
    /// Items of a call.
    pub items: Option<usize>,
    /// Bytes of a call's values, and of its answer.
    pub message: Option<usize>,
    /// Tokens that one item of a Lookup answers.
    pub found: Option<usize>,
}

impl ConfiguredLimits {
    /// The limits in force.
    pub fn limits(self) -> Limits {
        let most = Limits::MOST;
        Limits {
            value: self.value.unwrap_or(most.value),
            items: self.items.unwrap_or(most.items),
            message: self.message.unwrap_or(most.message),
            found: self.found.unwrap_or(most.found),
            ..most
        }
        .lowered()
    }
}

/// How much the vault may take at once.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Capacity {
    /// Mebibytes of stored blocks kept in memory.
    pub block_cache_mib: usize,
    /// DEKs of hot subjects kept in memory.
    pub hot_deks: usize,
    /// Connections at once.
    pub connections: usize,
    /// Requests in work at once, over all connections.
    pub requests: usize,
}

impl Default for Capacity {
    fn default() -> Self {
        Self { block_cache_mib: 256, hot_deks: 100_000, connections: 1_024, requests: 1_024 }
    }
}

impl Config {
    /// Reads the configuration of a vault's folder, or another file.
    pub fn read(layout: &Layout, file: Option<&Path>) -> Result<Self, CliError> {
        let path = file.map_or_else(|| layout.config(), Path::to_path_buf);
        let text = std::fs::read_to_string(&path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => CliError::Unfit {
                message: format!("there is no {}", path.display()),
                next: "make a vault with `strongroom init`, or name its folder with --dir; \
                       `strongroom dev` makes one to try things with"
                    .into(),
            },
            _ => CliError::file(&path, error),
        })?;
        toml::from_str(&text).map_err(|error| CliError::unfit(format!("{}: {error}", path.display())))
    }

    /// The text of a new vault's configuration.
    pub fn text(listen: &str) -> String {
        format!(
            "# Where the vault answers.\nlisten = \"{listen}\"\n\n\
             # Paths are relative to this folder. The certificates are read once, at start.\n\
             [tls]\ncertificate = \"pki/server.pem\"\nkey = \"pki/server.key\"\nclient_ca = \"pki/ca.pem\"\n\n\
             # Limits of requests may be lowered here: value, items, message, found.\n# [limits]\n# items = 1000\n\n\
             # [capacity]\n# block_cache_mib = 256\n# hot_deks = 100000\n# connections = 1024\n# requests = 1024\n"
        )
    }
}
