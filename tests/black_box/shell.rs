//! The command line as somebody uses it who has a certificate of a house.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::harness::BINARY;
use crate::house::{House, Issued};

/// A folder with somebody's certificate and key, and where the vault answered when it was made.
pub struct Shell {
    folder: tempfile::TempDir,
    address: String,
}

impl Shell {
    /// The shell of whoever has this certificate.
    pub fn of(house: &House, who: &Issued) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("me.pem"), who.certificate.pem()).unwrap();
        std::fs::write(folder.path().join("me.key"), who.key.serialize_pem()).unwrap();
        std::fs::write(folder.path().join("ca.pem"), house.authority.pem()).unwrap();
        Self { folder, address: format!("https://{}", house.address()) }
    }

    /// A file in its folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs a command in its folder.
    pub fn run(&self, words: &[&str]) -> Output {
        let mut command = Command::new(BINARY);
        command.args(words).args(["--address", &self.address]).arg("--ca").arg(self.path("ca.pem"));
        // What works on files alone takes no certificate.
        command.env("STRONGROOM_KEY", self.path("me.key")).env("STRONGROOM_CERT", self.path("me.pem"));
        command.current_dir(self.folder.path()).stdin(Stdio::null()).output().unwrap()
    }

    /// The same for one that succeeds: what it printed.
    pub fn ok(&self, words: &[&str]) -> String {
        let output = self.run(words);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{words:?} ended with {}: {said}", output.status);
        String::from_utf8(output.stdout).unwrap()
    }

    /// The same as a document.
    pub fn json(&self, words: &[&str]) -> Value {
        serde_json::from_str(&self.ok(&[words, &["--output", "json"]].concat())).unwrap()
    }

    /// Runs a command that is refused: how it ended, and what it said.
    pub fn refused(&self, words: &[&str]) -> (Option<i32>, String) {
        let output = self.run(words);
        assert!(!output.status.success(), "{words:?} was not refused");
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    }
}
