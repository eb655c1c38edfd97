//! The other side, where the own key is made and wrapped: OpenSSL, which shares no code with the vault.

use std::fs;
use std::path::Path;
use std::process::Command;

/// Wraps an own key to an import key as the vault wants it.
pub fn wrapped(pem: &str, key: &[u8]) -> Vec<u8> {
    wrapped_by(pem, key, &["rsa_padding_mode:oaep", "rsa_oaep_md:sha256", "rsa_mgf1_md:sha256"])
}

/// The same with other options.
pub fn wrapped_by(pem: &str, key: &[u8], options: &[&str]) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("import.pem"), pem).unwrap();
    fs::write(folder.path().join("own.key"), key).unwrap();
    let mut openssl = Command::new("openssl");
    openssl.args(["pkeyutl", "-encrypt", "-pubin", "-inkey", "import.pem", "-in", "own.key", "-out", "own.wrapped"]);
    for option in options {
        openssl.args(["-pkeyopt", option]);
    }
    done(&mut openssl, folder.path());
    fs::read(folder.path().join("own.wrapped")).unwrap()
}

/// Random bytes.
pub fn random(count: usize) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    done(Command::new("openssl").args(["rand", "-out", "random", &count.to_string()]), folder.path());
    fs::read(folder.path().join("random")).unwrap()
}

/// The fingerprint of an own key.
pub fn fingerprint(key: &[u8]) -> String {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("name"), "strongroom own key 1").unwrap();
    let key = format!("hexkey:{}", data_encoding::HEXLOWER.encode(key));
    let mut openssl = Command::new("openssl");
    let mac = done(openssl.args(["dgst", "-sha256", "-r", "-mac", "HMAC", "-macopt", &key, "name"]), folder.path());
    mac[..16].to_owned()
}

/// Runs a command in a folder, and returns what it printed.
pub fn done(command: &mut Command, folder: &Path) -> String {
    let output = command.current_dir(folder).output().expect("openssl is not there: apt-get install openssl");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
