//! Older versions of the policies are kept, shown, proven, and come back under a new version.

use strongroom_storage::{Family, Mutation, Store, keys as place};

use super::*;
use crate::policies::{KEPT, oldest};
use crate::source::{Source, SourceKind};
use crate::{Fault, Kind, RollBackPolicy};

const TENANT: TenantNo = TenantNo(1);

/// Policies that nobody but officers is permitted anything under.
fn closed() -> String {
    let at = DEFAULT_POLICIES.find("// ---- officer").unwrap();
    DEFAULT_POLICIES[at..].to_owned()
}

async fn apply(vault: &Tested, source: &str) -> u32 {
    put_in_force(vault, &caller(Role::Officer), source).await
}

async fn roll_back(vault: &Tested, version: u32) -> Result<u32, Error> {
    let request = RollBackPolicy { version, dry_run: false };
    let roll_back = async || vault.roll_back_policy(&caller(Role::Officer), &request).await;
    Ok(with_approval(vault, TENANT, roll_back).await?.version)
}

#[tokio::test]
async fn an_older_version_comes_back_as_a_new_one_by_the_approval_of_another() {
    let (bench, vault) = Bench::new().await;
    let token = store_one(&vault, "borrower.id_card", ID_CARD, "c-1").await;
    assert_eq!(apply(&vault, &closed()).await, 2);
    assert!(read_one(&vault, &token, "plain").await.is_err());
    let (alice, dry) = (caller(Role::Officer), RollBackPolicy { version: 1, dry_run: true });
    assert_eq!(vault.roll_back_policy(&alice, &dry).await.unwrap().version, 3, "to look needs nobody");
    let request = RollBackPolicy { dry_run: false, ..dry };
    let Err(Error::ApprovalRequired { name, .. }) = vault.roll_back_policy(&alice, &request).await else {
        panic!("it needs approval");
    };
    let summary = vault.list_approvals(&second(TENANT)).await.unwrap().remove(0).approval.summary;
    assert!(summary.starts_with("roll the policies back to version 1, with SHA-256 "), "{summary}");
    // What was approved is this way back, and not the same text as if it was new.
    approve_as(&vault, &second(TENANT), &name).await.unwrap();
    let text = ApplyPolicy { source: DEFAULT_POLICIES.to_owned(), tests: String::new(), dry_run: false };
    assert!(matches!(vault.apply_policy(&alice, &text).await, Err(Error::ApprovalRequired { have: 0, .. })));
    assert_eq!(vault.roll_back_policy(&alice, &request).await.unwrap().version, 3);
    assert_eq!(read_one(&vault, &token, "plain").await.unwrap(), ID_CARD.as_bytes());

    let listed = vault.list_policies(&alice).await.unwrap();
    let told: Vec<_> = listed.iter().map(|one| (one.version, &*one.by, one.of, one.time > 0)).collect();
    assert_eq!(told, [(3, "officer/alice", Some(1), true), (2, "officer/alice", None, true), (1, "", None, false)]);
    assert_eq!(listed[0].sha256, listed[2].sha256);
    assert_ne!(listed[0].sha256, listed[1].sha256);
    for (version, source) in [(0, DEFAULT_POLICIES.to_owned()), (1, DEFAULT_POLICIES.to_owned()), (2, closed())] {
        let shown = vault.get_policy(&caller(Role::Auditor), version).await.unwrap();
        assert_eq!((shown.version, shown.source), (if version == 0 { 3 } else { version }, source));
    }
    let leaves = leaves(&vault).await;
    let applied = leaves.iter().rfind(|leaf| leaf["action"] == "apply_policy" && leaf["decision"] == "allow").unwrap();
    assert_eq!((&applied["detail"]["version"], &applied["detail"]["rolled_back_to"]), (&"3".into(), &"1".into()));
    vault.close().await;
    assert_eq!(findings(&bench, &[]).await, []);
    let vault = bench.open().await;
    assert_eq!(vault.list_policies(&alice).await.unwrap(), listed);
}

#[tokio::test]
async fn what_is_no_older_version_or_not_the_callers_to_change_stays_where_it_is() {
    let (_bench, vault) = Bench::new().await;
    apply(&vault, &closed()).await;
    for (version, why) in [(2, "is in force"), (3, "is not kept"), (0, "is not kept")] {
        assert!(matches!(roll_back(&vault, version).await, Err(Error::SourceRefused(said)) if said.contains(why)));
        let dry = RollBackPolicy { version, dry_run: true };
        let tried = vault.roll_back_policy(&caller(Role::Officer), &dry).await;
        assert!(matches!(tried, Err(Error::SourceRefused(_))), "{version}");
    }
    assert!(vault.list_approvals(&second(TENANT)).await.unwrap().is_empty(), "nobody is asked for that");
    for role in [Role::App, Role::Rotator, Role::Privacy, Role::Auditor] {
        let request = RollBackPolicy { version: 1, dry_run: true };
        assert!(matches!(vault.roll_back_policy(&caller(role), &request).await, Err(Error::Denied { .. })));
        assert!(matches!(vault.list_policies(&caller(role)).await, Err(Error::Denied { .. })));
        assert!(matches!(vault.get_policy(&caller(role), 1).await, Err(Error::Denied { .. })));
    }
    assert!(matches!(vault.get_policy(&caller(Role::Officer), 7).await, Err(Error::Invalid(_))));
}

#[tokio::test]
async fn nothing_is_read_for_who_may_not_go_back() {
    let (_bench, vault) = Bench::new().await;
    apply(&vault, &closed()).await;
    let damaged = Mutation::Put(Family::Meta, place::older_policy(TENANT, 1), b"damaged".to_vec());
    vault.store.write(vec![damaged]).await.unwrap();
    let request = RollBackPolicy { version: 1, dry_run: false };
    for role in Role::ALL.into_iter().filter(|role| *role != Role::Officer) {
        assert!(matches!(vault.roll_back_policy(&caller(role), &request).await, Err(Error::Denied { .. })), "{role}");
    }
    let suspended = crate::Suspend { principal: "officer/alice".to_owned(), reason: "a test".to_owned() };
    assert!(matches!(vault.roll_back_policy(&caller(Role::Officer), &request).await, Err(Error::DataLoss(_))));
    vault.suspend(&second(TENANT), &suspended).await.unwrap();
    assert!(matches!(vault.roll_back_policy(&caller(Role::Officer), &request).await, Err(Error::Suspended)));
}

#[tokio::test]
async fn a_way_back_that_would_lock_everybody_out_is_refused() {
    let (_bench, vault) = Bench::new().await;
    // Under the first version two approvals are needed, and there is one officer who could give any.
    let two = DEFAULT_POLICIES.replace("context.approvals >= 1", "context.approvals >= 2");
    let tenant = vault.tenant(TENANT).unwrap();
    let kept = Source::new(1, two).unwrap().encode(SourceKind::Policy, &tenant.fingerprints);
    apply(&vault, &closed()).await;
    vault.store.write(vec![Mutation::Put(Family::Meta, place::older_policy(TENANT, 1), kept)]).await.unwrap();
    assert!(matches!(roll_back(&vault, 1).await, Err(Error::SourceRefused(why)) if why.contains("2 other")));
}

#[tokio::test]
async fn the_last_of_many_versions_are_kept() {
    let (bench, vault) = Bench::new().await;
    let last = KEPT + 3;
    for version in 2..=last {
        assert_eq!(apply(&vault, &format!("// {version}\n{DEFAULT_POLICIES}")).await, version);
    }
    let officer = caller(Role::Officer);
    let listed: Vec<u32> = vault.list_policies(&officer).await.unwrap().iter().map(|one| one.version).collect();
    assert_eq!(listed, (oldest(last)..=last).rev().collect::<Vec<_>>());
    assert!(vault.get_policy(&officer, oldest(last)).await.is_ok());
    assert!(matches!(vault.get_policy(&officer, oldest(last) - 1).await, Err(Error::Invalid(_))));
    vault.close().await;
    assert_eq!(findings(&bench, &[]).await, []);
}

#[tokio::test]
async fn an_older_version_that_was_changed_removed_or_added_is_named() {
    let (bench, vault) = Bench::new().await;
    apply(&vault, &closed()).await;
    apply(&vault, DEFAULT_POLICIES).await;
    vault.close().await;
    let (first, second) = (place::older_policy(TENANT, 1), place::older_policy(TENANT, 2));
    let (third, list) = (place::older_policy(TENANT, 3), place::policy_history(TENANT));
    let row = async |key: &[u8]| bench.disk.get(Family::Meta, key.to_vec()).await.unwrap().unwrap().to_vec();
    let (one, two, listed) = (row(&first).await, row(&second).await, row(&list).await);
    let changed = [&one[..], b" "].concat();
    let put = |key: &[u8], row: &[u8]| Mutation::Put(Family::Meta, key.to_vec(), row.to_vec());
    let gone = |key: &[u8]| Mutation::Delete(Family::Meta, key.to_vec());
    let tampered = [
        (put(&first, &changed), put(&first, &one), Fault::Changed),
        // Both are rows that the vault wrote, and each stands where the other belongs.
        (put(&first, &two), put(&first, &one), Fault::Changed),
        (gone(&second), put(&second, &two), Fault::Missing),
        (put(&third, &two), gone(&third), Fault::Added),
        (gone(&list), put(&list, &listed), Fault::Missing),
        (put(&list, &one), put(&list, &listed), Fault::Unreadable),
    ];
    for (tamper, undo, fault) in tampered {
        bench.disk.write(vec![tamper]).await.unwrap();
        let found = findings(&bench, &[]).await;
        let found: Vec<_> = found.iter().map(|one| (one.kind, one.fault)).collect();
        assert_eq!(found, [(Kind::Policy, fault)]);
        bench.disk.write(vec![undo]).await.unwrap();
    }
    assert_eq!(findings(&bench, &[]).await, []);
    // Nor does a vault that runs believe what somebody wrote there.
    bench.disk.write(vec![put(&first, &changed)]).await.unwrap();
    let vault = bench.open().await;
    assert!(matches!(roll_back(&vault, 1).await, Err(Error::DataLoss(_))));
}

#[tokio::test]
async fn names_that_the_schema_does_not_have_are_refused_where_they_leave_something_open() {
    let (_bench, vault) = Bench::new().await;
    let check = async |more: &str| {
        let source = format!("{DEFAULT_POLICIES}\n@id(\"more\") @why(\"more\")\n{more}");
        let policy = ApplyPolicy { source, tests: String::new(), dry_run: true };
        vault.apply_policy(&caller(Role::Officer), &policy).await.map(|applied| applied.notes)
    };
    let read = |effect: &str, resource: &str, when: &str| {
        format!("{effect} (principal, action == Action::\"detokenize\", {resource}) when {{ {when} }};")
    };
    for (wrong, named) in [
        (read("forbid", "resource == Field::\"borrower.idcard\"", "true"), "field \"borrower.idcard\""),
        (read("permit", "resource in Collection::\"borrowers\"", "context has view"), "collection \"borrowers\""),
        (read("forbid", "resource", "context has view && context.view == \"plane\""), "view \"plane\""),
        (
            read("forbid", "resource", "context has purpose && [\"kyc_reveiw\"].contains(context.purpose)"),
            "purpose \"kyc_reveiw\"",
        ),
        (read("forbid", "resource", "resource.name == \"idcard\""), "field name \"idcard\""),
        (read("forbid", "resource", "[\"borrowers\"].contains(resource.collection)"), "collection name \"borrowers\""),
        (read("forbid", "resource", "context has view && [context.view].contains(\"plane\")"), "view \"plane\""),
        (read("forbid", "resource", "context has view && context.view like \"plane*\""), "view \"plane*\""),
        (read("forbid", "resource", "context has purpose && context.purpose like \"kyx_*\""), "purpose \"kyx_*\""),
        (read("forbid", "resource", "resource.name like \"*_crad\""), "field name \"*_crad\""),
    ] {
        let told = check(&wrong).await;
        let named = format!("policy \"more\" names the {named}, which the schema does not have");
        assert!(matches!(&told, Err(Error::SourceRefused(why)) if why.contains(&named)), "{:?}", told.err());
    }
    let right =
        read("forbid", "resource == Field::\"borrower.id_card\"", "context has view && context.view == \"plain\"");
    assert_eq!(check(&right).await.unwrap(), [""; 0]);
    for right in [
        "resource.name == \"id_card\" && resource.collection == \"borrower\"",
        "context has purpose && context.purpose like \"kyc_*\" && resource.name like \"*_card\"",
        "context has view && context.view like \"pl*n\" && resource.collection like \"b*\"",
    ] {
        assert_eq!(check(&read("forbid", "resource", right)).await.unwrap(), [""; 0], "{right}");
    }
    // What permits no more than was meant is said, and goes on.
    let odd = read("permit", "resource", "context has view && context.view == \"plane\"");
    let notes = check(&odd).await.unwrap();
    assert!(notes.len() == 1 && notes[0].contains("view \"plane\""), "{notes:?}");
}

#[tokio::test]
async fn a_schema_that_loses_what_the_policies_forbid_says_so() {
    let (_bench, vault) = Bench::new().await;
    let forbid = "@id(\"f\") @why(\"f\") forbid (principal, action, resource == Field::\"borrower.email\");";
    apply(&vault, &format!("{DEFAULT_POLICIES}\n{forbid}")).await;
    let apply_schema = async |source: String| {
        let schema = ApplySchema { source, dry_run: true };
        vault.apply_schema(&caller(Role::Officer), &schema).await.unwrap().notes
    };
    assert_eq!(apply_schema(LENDING.to_owned()).await, [""; 0]);
    let renamed = LENDING.replacen("[field.borrower.email]", "[field.borrower.mail]", 1);
    assert_ne!(renamed, LENDING);
    let notes = apply_schema(renamed).await;
    assert!(notes.iter().any(|note| note.contains("borrower.email")), "{notes:?}");
}
