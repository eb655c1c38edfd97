//! A key that was brought: taken away, brought again, and in copies; and the import key that it comes in by.

use super::*;
use crate::own_key::OwnKeyKind;

#[test]
fn an_imported_key_is_taken_away_and_brought_again_and_nothing_opens_meanwhile() {
    let (temp, root, store, said) = two();
    let before = bytes(&temp);
    bring(&store, TENANT, &wrapped(&store, &OWN, NOW + 2), NOW + 3).unwrap();
    assert!(said.opens(&store) && said.opens(&Keystore::open(temp.path(), &root).unwrap()));
    let info = store.own_key(TENANT).unwrap();
    assert_eq!((info.kind, info.removed, info.locked, info.changed), (OwnKeyKind::Imported, false, false, NOW + 3));
    assert_eq!((store.own_key(OTHER), store.own_keys().len()), (None, 1));
    // Every key but the ledger's is wrapped anew, and no old wrapping is left.
    for entry in file::parse(&before).unwrap().prove(&store.table.load().sealing.own).unwrap().1 {
        let its = entry.name.tenant() == TENANT && !matches!(entry.name, KeyName::Ledger(_));
        assert!(!its || !holds(&bytes(&temp), &entry.wrapped.unwrap()), "{}", entry.name);
    }

    let number = store.number();
    store.remove_key(TENANT, NOW + 4).unwrap();
    assert!(!said.opens(&store));
    assert!(!said.opens(&Keystore::open(temp.path(), &root).unwrap()));
    assert_eq!((store.number(), store.own_key(TENANT).unwrap().removed), (number + 1, true));
    assert_eq!(store.unlock_tenant(TENANT, None).unwrap_err(), store.kek(TENANT, KEYRING).unwrap_err().into());

    // Another key is told apart, and refused without using the import key up.
    let public = make_import_key(&store, TENANT, NOW + 5);
    let error = bring(&store, TENANT, &import::wrap(&public.der, &WRONG).unwrap(), NOW + 6).unwrap_err();
    let KeyError::OtherOwnKey { tenant: TENANT, wanted, brought } = error else { panic!("{error}") };
    assert_eq!((Some(wanted), brought.len()), (info.fingerprint.clone(), 16));
    assert_ne!(Some(brought), info.fingerprint);
    assert!(!said.opens(&store));

    let own = import::wrap(&public.der, &OWN).unwrap();
    bring(&store, TENANT, &own, NOW + 6).unwrap();
    assert!(said.opens(&store) && said.opens(&Keystore::open(temp.path(), &root).unwrap()));
    let info_now = store.own_key(TENANT).unwrap();
    assert_eq!((info_now.fingerprint, info_now.removed, info_now.changed), (info.fingerprint, false, NOW + 6));
}

#[test]
fn an_import_key_opens_once_for_its_tenant_and_only_while_it_is_fresh() {
    let (_temp, _root, store, said) = two();
    let why = |result: Result<(), KeyError>| match result.unwrap_err() {
        KeyError::OwnKey { tenant: TENANT, why } => why,
        error => panic!("{error}"),
    };
    assert!(why(bring(&store, TENANT, &[0; 512], NOW)).contains("no import key"));
    assert_eq!(store.import_key(TENANT).unwrap(), None);
    let public = make_import_key(&store, TENANT, NOW);
    assert_eq!(store.import_key(TENANT).unwrap(), Some(public.clone()));
    assert_eq!(make_import_key(&store, TENANT, NOW), public, "made again after a crash it is the same");
    let own = import::wrap(&public.der, &OWN).unwrap();
    // A wall: what was wrapped for one tenant does not open for the other.
    assert_eq!(bring(&store, OTHER, &own, NOW).unwrap_err(), why_for(OTHER, &store, &own));
    for (bytes, now, says) in [
        (&own, NOW + ImportPublicKey::AGE + 1, "24 hours"),
        (&own, NOW - 1, "24 hours"),
        (&vec![0; 512], NOW, "does not open"),
        (&own[1..].to_vec(), NOW, "does not open"),
        (&import::wrap(&public.der, &[7; 16]).unwrap(), NOW, "not a key of 32 bytes"),
        (&import::wrap(&public.der, &[7; 33]).unwrap(), NOW, "not a key of 32 bytes"),
    ] {
        let said = why(bring(&store, TENANT, bytes, now));
        assert!(said.contains(says), "{said}");
    }
    assert!(said.opens(&store) && store.own_key(TENANT).is_none(), "nothing was changed");
    // A newer one takes its place.
    let newer = make_import_key(&store, TENANT, NOW + 1);
    assert!(why(bring(&store, TENANT, &own, NOW + 2)).contains("does not open"));
    let own = import::wrap(&newer.der, &OWN).unwrap();
    bring(&store, TENANT, &own, NOW + 1 + ImportPublicKey::AGE).unwrap();
    assert_eq!(store.import_key(TENANT).unwrap(), None);
    // It is used up.
    let number = store.number();
    assert!(why(bring(&store, TENANT, &own, NOW + 2 + ImportPublicKey::AGE)).contains("no import key"));
    assert_eq!(store.number(), number);
}

/// What the other tenant hears that brings a key without an import key of its own, and with one.
fn why_for(tenant: TenantId, store: &Keystore, own: &[u8]) -> KeyError {
    let without = bring(store, tenant, own, NOW).unwrap_err();
    make_import_key(store, tenant, NOW);
    let with = bring(store, tenant, own, NOW).unwrap_err();
    assert!(with.to_string().contains("does not open"), "{with}");
    without
}

#[test]
fn a_copy_opens_by_the_imported_key_that_was_there_when_it_was_made() {
    let (_temp, root, store, said) = two();
    let opened = |copy: &[u8]| {
        let elsewhere = tempfile::tempdir().unwrap();
        fs::write(elsewhere.path().join("keys"), copy).unwrap();
        said.opens(&Keystore::open(elsewhere.path(), &root).unwrap())
    };
    bring(&store, TENANT, &wrapped(&store, &OWN, NOW + 2), NOW + 2).unwrap();
    let with = store.copy().unwrap().bytes;
    store.remove_key(TENANT, NOW + 3).unwrap();
    let without = store.copy().unwrap().bytes;
    assert!(opened(&with), "taking the key away takes it out of no copy");
    assert!(!opened(&without));
}
