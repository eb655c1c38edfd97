//! What lies where in a vault's folder.

use std::path::{Path, PathBuf};

/// A vault's folder.
#[derive(Clone, Debug)]
pub struct Layout(PathBuf);

impl Layout {
    /// The layout of a folder.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self(dir.into())
    }

    /// The folder itself.
    pub fn dir(&self) -> &Path {
        &self.0
    }

    /// Values, wrapped DEKs, subjects, ledger: RocksDB's files.
    pub fn data(&self) -> PathBuf {
        self.0.join("data")
    }

    /// The keystore, which no backup of the data may contain.
    pub fn keystore(&self) -> PathBuf {
        self.0.join("keystore")
    }

    /// The signed head of all logs, by which a store that lost its end is noticed.
    pub fn head(&self) -> PathBuf {
        self.0.join("head")
    }

    /// The journal of what restricts, unless the configuration names another folder.
    pub fn journal(&self) -> PathBuf {
        self.0.join("journal")
    }

    /// The configuration.
    pub fn config(&self) -> PathBuf {
        self.0.join("strongroom.toml")
    }

    /// Certificates and their keys.
    pub fn pki(&self) -> PathBuf {
        self.0.join("pki")
    }

    /// The passphrase of a vault for development. A vault in production has no such file.
    pub fn dev_passphrase(&self) -> PathBuf {
        self.0.join("dev-passphrase")
    }
}
