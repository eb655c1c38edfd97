//! The provider against SoftHSM, a real PKCS#11 module. Each test is a process with tokens of its own.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod hsm;
#[path = "../../tests/provider/mod.rs"]
mod provider;

use cryptoki::object::Attribute;
use strongroom_ids::VaultId;
use strongroom_keys::{Envelope, RootProvider};
use strongroom_root_pkcs11::{Pkcs11Root, Settings};

use crate::hsm::{PIN, SoftHsm, each_alone};
use crate::provider::{VAULT, is, keeps_what_all_keep, not_opened, not_wrapped, opens, shows_nothing, wrapped};

each_alone! {
    fn it_keeps_what_all_keep(hsm: &SoftHsm) {
        keeps_what_all_keep(&hsm.with_key(), &Pkcs11Root::new(hsm.settings()).unwrap());
    }

    fn what_does_not_open_is_told_from_a_token_that_fails(hsm: &SoftHsm) {
        let root = hsm.with_key();
        let (key, envelope) = wrapped(&root);
        for at in [0, 11, 12, 43, 44, 59] {
            let mut changed = envelope.clone();
            changed.wrapped[at] ^= 1;
            is(&not_opened(&root, &changed), "other key");
        }
        for length in [0, 11, 12, 28, 59] {
            let wrapped = envelope.wrapped[..length].to_vec();
            is(&not_opened(&root, &Envelope { wrapped, ..envelope.clone() }), "other key");
        }
        assert!(opens(&root, &envelope, &key));
    }

    fn a_wrong_pin_is_a_wrong_credential_and_is_tried_once(hsm: &SoftHsm) {
        let root = hsm.with_key();
        let (key, envelope) = wrapped(&root);
        hsm.write_pin("00000000");
        let first = not_opened(&root, &envelope);
        is(&first, "credential");
        assert!(first.to_string().contains("PinIncorrect"), "{first}");
        let second = not_opened(&root, &envelope);
        is(&second, "credential");
        assert!(second.to_string().contains("would lock"), "{second}");
        hsm.write_pin(&format!("{PIN}\n"));
        assert!(opens(&root, &envelope, &key), "the file is read anew");
        std::fs::remove_file(hsm.settings().pin_file).unwrap();
        is(&not_opened(&root, &envelope), "credential");
    }

    fn a_token_or_module_that_is_not_there_is_unreachable(hsm: &SoftHsm) {
        let elsewhere = Pkcs11Root::new(Settings { token: "elsewhere".to_owned(), ..hsm.settings() }).unwrap();
        is(&not_wrapped(&elsewhere), "unreachable");
        let serial = Some("0000000000000000".to_owned());
        let other = Pkcs11Root::new(Settings { serial, ..hsm.settings() }).unwrap();
        is(&not_wrapped(&other), "unreachable");
        let module = hsm.folder().join("module.so");
        let missing = Pkcs11Root::new(Settings { module: module.clone(), ..hsm.settings() }).unwrap();
        is(&not_wrapped(&missing), "unreachable");
        // The same provider finds what came later.
        std::os::unix::fs::symlink(hsm.settings().module, module).unwrap();
        missing.create_key().unwrap();
        let (key, envelope) = wrapped(&missing);
        assert!(opens(&missing, &envelope, &key));
    }

    fn a_token_that_is_removed_is_unreachable_and_is_found_again(hsm: &SoftHsm) {
        let root = hsm.with_key();
        let (key, envelope) = wrapped(&root);
        hsm.remove_token();
        is(&not_opened(&root, &envelope), "unreachable");
        hsm.put_token_back();
        assert!(opens(&root, &envelope, &key));
    }

    fn a_serial_tells_tokens_of_one_label_apart(hsm: &SoftHsm) {
        let first = hsm.serials().pop().unwrap();
        hsm.make_token();
        let two = hsm.serials();
        assert_eq!(two.len(), 2);
        let second = two.iter().find(|serial| **serial != first).unwrap();
        is(&Pkcs11Root::new(hsm.settings()).unwrap().create_key().unwrap_err(), "settings");
        let by_serial = |serial: &String| {
            let root = Pkcs11Root::new(Settings { serial: Some(serial.clone()), ..hsm.settings() }).unwrap();
            root.create_key().unwrap();
            root
        };
        let (one, other) = (by_serial(&first), by_serial(second));
        let (key, envelope) = wrapped(&one);
        assert!(opens(&one, &envelope, &key));
        is(&not_opened(&other, &envelope), "other key");
    }

    fn a_missing_or_replaced_key_is_another_key(hsm: &SoftHsm) {
        let root = Pkcs11Root::new(hsm.settings()).unwrap();
        is(&not_wrapped(&root), "settings");
        root.create_key().unwrap();
        is(&root.create_key().unwrap_err(), "settings");
        let (_, envelope) = wrapped(&root);
        hsm.destroy_key();
        is(&not_opened(&root, &envelope), "other key");
        root.create_key().unwrap();
        is(&not_opened(&root, &envelope), "other key");
        let (key, newer) = wrapped(&root);
        assert!(opens(&root, &newer, &key));
    }

    fn two_keys_of_one_label_are_told_apart_by_what_sealed(hsm: &SoftHsm) {
        let root = hsm.with_key();
        let (key, envelope) = wrapped(&root);
        hsm.make_key(&[Attribute::Sensitive(true), Attribute::Extractable(false), Attribute::Id(vec![9])]);
        is(&root.wrap(VAULT, &key).unwrap_err(), "settings");
        assert!(opens(&root, &envelope, &key));
    }

    fn a_key_that_may_not_be_used_is_denied(hsm: &SoftHsm) {
        let root = hsm.with_key();
        let (key, envelope) = wrapped(&root);
        hsm.change_key(&[Attribute::Decrypt(false)]);
        is(&not_opened(&root, &envelope), "denied");
        hsm.change_key(&[Attribute::Encrypt(false)]);
        is(&root.wrap(VAULT, &key).unwrap_err(), "denied");
        hsm.change_key(&[Attribute::Decrypt(true)]);
        assert!(opens(&root, &envelope, &key));
    }

    fn a_key_that_could_leave_the_token_is_refused(hsm: &SoftHsm) {
        hsm.make_key(&[Attribute::Sensitive(true), Attribute::Extractable(true)]);
        let root = Pkcs11Root::new(hsm.settings()).unwrap();
        is(&not_wrapped(&root), "settings");
        hsm.destroy_key();
        hsm.make_key(&[Attribute::Sensitive(false), Attribute::Extractable(false)]);
        is(&not_wrapped(&root), "settings");
    }

    fn a_token_without_gcm_is_refused_before_a_key_is_made(hsm: &SoftHsm, "slots.mechanisms = CKM_AES_KEY_GEN,CKM_AES_CBC") {
        let root = Pkcs11Root::new(hsm.settings()).unwrap();
        let error = root.create_key().unwrap_err();
        is(&error, "settings");
        assert!(error.to_string().contains("CKM_AES_GCM"), "{error}");
        is(&not_wrapped(&root), "settings");
        hsm.make_key(&[Attribute::Sensitive(true), Attribute::Extractable(false)]);
        let error = not_wrapped(&root);
        is(&error, "settings");
        assert!(error.to_string().contains("CKM_AES_GCM"), "{error}");
    }

    fn many_threads_and_two_providers_share_a_token(hsm: &SoftHsm) {
        let roots = [hsm.with_key(), Pkcs11Root::new(hsm.settings()).unwrap()];
        std::thread::scope(|scope| {
            for at in 0..8 {
                let root = &roots[at % 2];
                scope.spawn(move || {
                    for _ in 0..4 {
                        let (key, envelope) = wrapped(root);
                        assert!(opens(root, &envelope, &key));
                    }
                });
            }
        });
    }

    fn no_error_shows_key_or_pin(hsm: &SoftHsm) {
        let root = hsm.with_key();
        let (key, envelope) = wrapped(&root);
        let mut errors = vec![root.unwrap(VaultId([8; 16]), &envelope).unwrap_err(), root.create_key().unwrap_err()];
        hsm.change_key(&[Attribute::Decrypt(false), Attribute::Encrypt(false)]);
        errors.push(not_opened(&root, &envelope));
        errors.push(root.wrap(VAULT, &key).unwrap_err());
        hsm.write_pin("98765432");
        errors.push(not_opened(&root, &envelope));
        errors.push(not_opened(&root, &envelope));
        let told = format!("{errors:?} {} {root:?}", errors.iter().map(ToString::to_string).collect::<String>());
        shows_nothing(&told, &key, &[PIN, "98765432"]);
    }
}
