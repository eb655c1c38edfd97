//! What OpenSSL wraps, as a tenant's own people would, opens.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::process::Command;

use strongroom_key_import::{ImportError, ImportKey};

#[test]
fn what_openssl_wraps_opens_and_what_it_wraps_in_another_way_does_not() {
    let version =
        Command::new("openssl").arg("version").output().expect("openssl is not there: apt-get install openssl");
    assert!(version.status.success());
    let key = ImportKey::generate().unwrap();
    let kept = key.to_pkcs8().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("public.der"), key.public_key().unwrap()).unwrap();
    fs::write(at("own"), [0x5c; 32]).unwrap();
    for (digest, right) in [("sha256", true), ("sha1", false), ("sha512", false)] {
        let run = Command::new("openssl")
            .args(["pkeyutl", "-encrypt", "-pubin", "-keyform", "DER", "-inkey"])
            .arg(at("public.der"))
            .args(["-pkeyopt", "rsa_padding_mode:oaep", "-pkeyopt", &format!("rsa_oaep_md:{digest}")])
            .args(["-pkeyopt", &format!("rsa_mgf1_md:{digest}"), "-in"])
            .arg(at("own"))
            .arg("-out")
            .arg(at("wrapped"))
            .output()
            .unwrap();
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
        let opened = ImportKey::from_pkcs8(&kept).unwrap().open(&fs::read(at("wrapped")).unwrap());
        match right {
            true => assert_eq!(*opened.unwrap(), [0x5c; 32]),
            false => assert_eq!(opened.unwrap_err(), ImportError::CannotOpen, "{digest}"),
        }
    }
}
