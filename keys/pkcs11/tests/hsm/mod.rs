//! SoftHSM with a token of the test's own, in a process of the test's own.
//!
//! SoftHSM reads the folder of its tokens from `SOFTHSM2_CONF`, once a process. So each test starts this binary again
//! for itself alone, with that variable set.

use std::path::{Path, PathBuf};
use std::process::Command;

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::Attribute;
use cryptoki::session::{Session, UserType};
use cryptoki::types::AuthPin;
use strongroom_root_pkcs11::{Pkcs11Root, Settings};

pub const PIN: &str = "73581264";
const SO_PIN: &str = "40982217";
const LABEL: &str = "strongroom test";
const KEY: &str = "root";
const FOLDER: &str = "STRONGROOM_TEST_SOFTHSM_FOLDER";

/// Makes each function a test that runs alone in its process; a text after the argument goes into SoftHSM's
/// configuration.
macro_rules! each_alone {
    ($(fn $name:ident($hsm:ident: &SoftHsm $(, $line:literal)?) $body:block)*) => {
        $(#[test]
        fn $name() {
            $crate::hsm::alone(stringify!($name), concat!($($line)?), |$hsm: &SoftHsm| $body);
        })*
    };
}
pub(crate) use each_alone;

fn module() -> PathBuf {
    let path = std::env::var_os("STRONGROOM_TEST_SOFTHSM");
    path.expect("STRONGROOM_TEST_SOFTHSM names no libsofthsm2.so: run ./run test, or install softhsm2").into()
}

pub fn alone(name: &str, line: &str, test: impl FnOnce(&SoftHsm)) {
    if let Some(folder) = std::env::var_os(FOLDER) {
        let hsm = SoftHsm { folder: folder.into() };
        hsm.make_token();
        hsm.write_pin(PIN);
        return test(&hsm);
    }
    let folder = tempfile::tempdir().unwrap();
    let tokens = folder.path().join("tokens");
    std::fs::create_dir(&tokens).unwrap();
    let config = folder.path().join("softhsm2.conf");
    let text = format!("directories.tokendir = {}\nobjectstore.backend = file\n{line}\n", tokens.display());
    std::fs::write(&config, text).unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture", "--test-threads=1"])
        .env(FOLDER, folder.path())
        .env("SOFTHSM2_CONF", config)
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

pub struct SoftHsm {
    folder: PathBuf,
}

impl SoftHsm {
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn settings(&self) -> Settings {
        Settings {
            module: module(),
            token: LABEL.to_owned(),
            serial: None,
            key: KEY.to_owned(),
            pin_file: self.folder.join("pin"),
        }
    }

    pub fn write_pin(&self, pin: &str) {
        std::fs::write(self.settings().pin_file, pin).unwrap();
    }

    /// A provider with its key made.
    pub fn with_key(&self) -> Pkcs11Root {
        let root = Pkcs11Root::new(self.settings()).unwrap();
        root.create_key().unwrap();
        root
    }

    /// Makes one more token of the same label.
    pub fn make_token(&self) {
        let output = Command::new("softhsm2-util")
            .arg("--module")
            .arg(module())
            .args(["--init-token", "--free", "--label", LABEL, "--pin", PIN, "--so-pin", SO_PIN])
            .output()
            .expect("softhsm2-util can't be started: run ./run test, or install softhsm2");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    pub fn serials(&self) -> Vec<String> {
        let pkcs11 = pkcs11();
        let infos = pkcs11.get_slots_with_token().unwrap().into_iter().map(|slot| pkcs11.get_token_info(slot).unwrap());
        infos.filter(|info| info.label() == LABEL).map(|info| info.serial_number().to_owned()).collect()
    }

    pub fn remove_token(&self) {
        std::fs::rename(self.folder.join("tokens"), self.folder.join("drawer")).unwrap();
    }

    pub fn put_token_back(&self) {
        std::fs::rename(self.folder.join("drawer"), self.folder.join("tokens")).unwrap();
    }

    /// Makes a key under the provider's label, as another program would.
    pub fn make_key(&self, attributes: &[Attribute]) {
        let mut template = vec![
            Attribute::Token(true),
            Attribute::Encrypt(true),
            Attribute::Decrypt(true),
            Attribute::ValueLen(32.into()),
            Attribute::Label(KEY.into()),
        ];
        template.extend_from_slice(attributes);
        self.logged_in().generate_key(&Mechanism::AesKeyGen, &template).unwrap();
    }

    pub fn change_key(&self, attributes: &[Attribute]) {
        let session = self.logged_in();
        let key = session.find_objects(&[Attribute::Label(KEY.into())]).unwrap().remove(0);
        session.update_attributes(key, attributes).unwrap();
    }

    pub fn destroy_key(&self) {
        let session = self.logged_in();
        let key = session.find_objects(&[Attribute::Label(KEY.into())]).unwrap().remove(0);
        session.destroy_object(key).unwrap();
    }

    fn logged_in(&self) -> Session {
        let pkcs11 = pkcs11();
        let is_ours = |slot: &_| pkcs11.get_token_info(*slot).unwrap().label() == LABEL;
        let slot = pkcs11.get_slots_with_token().unwrap().into_iter().find(is_ours).unwrap();
        let session = pkcs11.open_rw_session(slot).unwrap();
        session.login(UserType::User, Some(&AuthPin::new(PIN.into()))).unwrap();
        session
    }
}

/// The module, as another part of this process would use it.
fn pkcs11() -> Pkcs11 {
    let pkcs11 = Pkcs11::new(module()).unwrap();
    match pkcs11.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
        Ok(()) | Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => pkcs11,
        Err(error) => panic!("{error}"),
    }
}
