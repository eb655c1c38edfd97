//! Who the officers are, how two of them change that, and what only the root key changes.

use strongroom_storage::faulty::Fate;
use strongroom_storage::{Family, Mutation, Store, keys as place};

use super::tenants::{log, operator};
use super::*;
use crate::{BreakGlass, EnrolOfficer, Fault, Kind, RemoveOfficer, is_reason};

const TENANT: TenantNo = TenantNo(1);

fn enrol(name: &str, key: u8) -> EnrolOfficer {
    EnrolOfficer { name: name.to_owned(), key: [key; 32] }
}

fn remove(name: &str) -> RemoveOfficer {
    RemoveOfficer { name: name.to_owned() }
}

fn officer(name: &str) -> Caller {
    Caller::new(Arc::new(Principal::new(TENANT, Role::Officer, name)), "test")
}

async fn enrolled(vault: &Tested, request: &EnrolOfficer) -> Result<(), Error> {
    with_approval(vault, TENANT, async || vault.enrol_officer(&caller(Role::Officer), request).await).await
}

async fn removed(vault: &Tested, request: &RemoveOfficer) -> Result<(), Error> {
    with_approval(vault, TENANT, async || vault.remove_officer(&caller(Role::Officer), request).await).await
}

async fn names(vault: &Tested) -> Vec<String> {
    let listed = vault.list_officers(&caller(Role::Auditor)).await.unwrap();
    listed.into_iter().map(|one| one.name).collect()
}

async fn row(bench: &Bench) -> Vec<u8> {
    bench.disk.get(Family::Meta, place::principals()).await.unwrap().unwrap().to_vec()
}

async fn put(bench: &Bench, row: Vec<u8>) {
    bench.disk.write(vec![Mutation::Put(Family::Meta, place::principals(), row)]).await.unwrap();
}

#[tokio::test]
async fn two_officers_enrol_a_third_and_both_logs_say_so() {
    let (bench, vault) = Bench::new().await;
    let alice = caller(Role::Officer);
    let before = vault.directory();
    for _ in 0..2 {
        let asked = vault.enrol_officer(&alice, &enrol("carol", 3)).await;
        assert!(matches!(asked, Err(Error::ApprovalRequired { have: 0, need: 1, .. })));
    }
    assert_eq!(names(&vault).await, ["alice", SECOND]);
    assert!(Arc::ptr_eq(&vault.directory(), &before));
    enrolled(&vault, &enrol("carol", 3)).await.unwrap();
    assert_eq!(names(&vault).await, ["alice", SECOND, "carol"]);
    assert!(!Arc::ptr_eq(&vault.directory(), &before), "who is connected is looked up anew");
    assert!(vault.list_keys(&officer("carol")).await.is_ok());
    let own = leaves(&vault).await;
    let leaf =
        own.iter().find(|leaf| leaf["action"] == "enrol_officer" && leaf["detail"]["officer"].is_string()).unwrap();
    assert_eq!((&leaf["detail"]["officer"], &leaf["detail"]["key"]), (&"carol".into(), &"03".repeat(32).into()));
    assert!(leaf["detail"]["approval"].is_string() && leaf["detail"]["principals_sha256"].is_null());
    let system = log(&vault, &operator(), "").await;
    let leaf = system.iter().find(|leaf| leaf["action"] == "enrol_officer").unwrap();
    assert_eq!((&leaf["principal"], &leaf["detail"]["tenant"]), (&"officer/alice".into(), &"demo".into()));
    assert_eq!(leaf["detail"]["principals_version"], "2");
    // Another key under the same name: the old one is no officer's any more.
    enrolled(&vault, &enrol("carol", 4)).await.unwrap();
    assert_eq!(vault.directory().officers.get(&(TENANT, "carol".to_owned())), Some(&[4; 32]));
    vault.close().await;
    let vault = bench.open().await;
    assert_eq!(names(&vault).await, ["alice", SECOND, "carol"]);
    vault.close().await;
    assert_eq!(findings(&bench, &[]).await, []);
}

#[tokio::test]
async fn whatever_policy_permits_nobody_changes_officers_alone() {
    let (_bench, vault) = Bench::new().await;
    let all = "@id(\"all\") @why(\"All.\") permit (principal, action, resource);";
    put_in_force(&vault, &caller(Role::Officer), all).await;
    let alone = vault.enrol_officer(&caller(Role::Officer), &enrol("puppet", 9)).await;
    assert!(matches!(alone, Err(Error::ApprovalRequired { have: 0, need: 1, .. })));
    let alone = vault.remove_officer(&caller(Role::Officer), &remove(SECOND)).await;
    assert!(matches!(alone, Err(Error::OfficerRefused(_))), "one would be left");
    for role in Role::ALL.into_iter().filter(|role| *role != Role::Officer) {
        assert!(matches!(vault.enrol_officer(&caller(role), &enrol("puppet", 9)).await, Err(Error::Denied { .. })));
        assert!(matches!(vault.remove_officer(&caller(role), &remove(SECOND)).await, Err(Error::Denied { .. })));
    }
    assert!(matches!(vault.enrol_officer(&operator(), &enrol("puppet", 9)).await, Err(Error::Denied { .. })));
    assert_eq!(names(&vault).await, ["alice", SECOND]);
}

#[tokio::test]
async fn what_makes_no_officer_is_refused() {
    let (_bench, vault) = Bench::new().await;
    let same = enrolled(&vault, &enrol("alice", 1)).await;
    assert!(matches!(same, Err(Error::OfficerRefused(_))), "nothing changes");
    let twice = enrolled(&vault, &enrol("alice-2", 1)).await;
    assert!(matches!(twice, Err(Error::OfficerRefused(_))), "one key is one person");
    assert!(matches!(enrolled(&vault, &enrol("a/b", 5)).await, Err(Error::Invalid(_))));
    assert!(matches!(enrolled(&vault, &enrol("", 5)).await, Err(Error::Invalid(_))));
    assert!(matches!(removed(&vault, &remove("nobody")).await, Err(Error::Invalid(_))));
    assert!(vault.list_approvals(&caller(Role::Officer)).await.unwrap().is_empty(), "nobody is asked for that");
}

#[tokio::test]
async fn one_key_under_two_names_is_one_who_could_approve() {
    let (_bench, vault) = Bench::new().await;
    // No way leads to this any more; a vault that was made before may have it.
    let with = |officers: &[(&str, u8)]| {
        let mut directory = strongroom_access::Directory::clone(&vault.directory());
        directory.officers = officers.iter().map(|(name, key)| ((TENANT, (*name).to_owned()), [*key; 32])).collect();
        vault.tenants.enrol(directory);
    };
    with(&[("alice", 1), ("alice-2", 1)]);
    let told = vault.enrol_officer(&caller(Role::Officer), &enrol("carol", 3)).await.unwrap_err().to_string();
    assert!(told.contains("no other officer who could approve it"), "{told}");
    with(&[("alice", 1), ("bob", 2), ("bob-2", 2), ("carol", 1)]);
    let asked = vault.enrol_officer(&caller(Role::Officer), &enrol("dave", 4)).await;
    assert!(matches!(asked, Err(Error::ApprovalRequired { need: 1, .. })), "bob is somebody else");
    with(&[("alice", 1), ("bob", 2), ("alice-2", 1)]);
    let told = vault.remove_officer(&caller(Role::Officer), &remove("bob")).await.unwrap_err().to_string();
    assert!(told.contains("too few officers would be left"), "{told}");
}

#[tokio::test]
async fn a_vault_is_not_made_with_one_key_under_two_names_or_one_name_twice() {
    let (name, key) = (|name: &str| name.to_owned(), |key: u8| [key; 32]);
    for officers in
        [vec![(name("alice"), key(1)), (name("bob"), key(1))], vec![(name("alice"), key(1)), (name("alice"), key(2))]]
    {
        let folder = tempfile::tempdir().unwrap();
        let made = crate::create(crate::NewVault {
            store: MemoryStore::default(),
            keystore: Keystore::create(folder.path(), VaultId([7; 16]), &root()).unwrap(),
            head_file: folder.path().join("head"),
            journal: folder.path().join("journal"),
            trust_domain: "test.example".to_owned(),
            trust_anchors: vec![[2; 32]],
            tenants: vec![crate::NewTenant { name: "demo".to_owned(), officers }],
            clock: Arc::new(|| 1_700_000_000_000_000),
        });
        let why = made.await.unwrap_err().to_string();
        assert!(why.contains("tenant `demo`") && why.contains("is named before"), "{why}");
    }
}

#[tokio::test]
async fn who_shows_the_key_that_was_replaced_is_cut_off_under_way_too() {
    let (_bench, vault) = Bench::new().await;
    let shows = |key: u8| Caller { certificate: Some([key; 32]), ..caller(Role::Officer) };
    // As the edge found out when the request came in.
    let (old, new) = (shows(1), shows(9));
    assert!(vault.list_keys(&old).await.is_ok() && vault.still_admits(&old).is_ok());
    assert!(matches!(vault.list_keys(&new).await, Err(Error::OfficerRemoved)));
    let change = BreakGlass::EnrolOfficer { tenant: "demo".to_owned(), name: "alice".to_owned(), key: [9; 32] };
    vault.break_glass(&change, "her key was stolen").await.unwrap();
    assert!(matches!(vault.list_keys(&old).await, Err(Error::OfficerRemoved)));
    let schema = ApplySchema { source: LENDING.to_owned(), dry_run: false };
    assert!(matches!(vault.apply_schema(&old, &schema).await, Err(Error::OfficerRemoved)));
    assert!(matches!(vault.still_admits(&old), Err(Error::OfficerRemoved)), "streams too");
    assert!(vault.list_keys(&new).await.is_ok() && vault.still_admits(&new).is_ok());
}

#[tokio::test]
async fn as_many_are_left_as_approvals_need_and_who_is_gone_has_no_say() {
    let (bench, vault) = Bench::new().await;
    for name in ["alice", SECOND] {
        let told = removed(&vault, &remove(name)).await.unwrap_err().to_string();
        assert!(told.contains("strongroom break-glass officer demo"), "{told}");
    }
    enrolled(&vault, &enrol("carol", 3)).await.unwrap();
    // What carol asked for waits; then she is gone, and it does her no good.
    let carol = officer("carol");
    let asked = vault.enrol_officer(&carol, &enrol("dave", 4)).await;
    let Err(Error::ApprovalRequired { name, .. }) = asked else { panic!("it needs approval") };
    approve_as(&vault, &second(TENANT), &name).await.unwrap();
    removed(&vault, &remove("carol")).await.unwrap();
    assert!(matches!(vault.enrol_officer(&carol, &enrol("dave", 4)).await, Err(Error::OfficerRemoved)));
    assert!(matches!(vault.list_keys(&carol).await, Err(Error::OfficerRemoved)));
    assert!(matches!(vault.still_admits(&carol), Err(Error::OfficerRemoved)), "streams too");
    let own = leaves(&vault).await;
    assert!(own.iter().any(|leaf| leaf["principal"] == "officer/carol" && leaf["reason"] == "OFFICER_NOT_ENROLLED"));
    assert_eq!(names(&vault).await, ["alice", SECOND]);
    vault.close().await;
    assert_eq!(findings(&bench, &[]).await, []);
}

#[tokio::test]
async fn an_officer_who_was_removed_does_not_come_back_by_an_older_row() {
    let (bench, vault) = Bench::new().await;
    enrolled(&vault, &enrol("carol", 3)).await.unwrap();
    let with_carol = row(&bench).await;
    removed(&vault, &remove("carol")).await.unwrap();
    vault.close().await;
    let newest = row(&bench).await;
    put(&bench, with_carol).await;
    let Some(OpenError::Rules { tenant, what, stored, recorded }) = bench.try_open().await.err() else {
        panic!("it opened")
    };
    assert_eq!((&*tenant, what), ("system", "list of officers and authorities"));
    assert_eq!((&*stored, recorded), ("version 2", 3));
    let found = findings(&bench, &[]).await;
    assert!(found.iter().any(|one| one.kind == Kind::Principals && one.fault == Fault::Changed), "{found:?}");
    put(&bench, newest).await;
    assert_eq!(findings(&bench, &[]).await, []);
    bench.open().await.close().await;
}

#[tokio::test]
async fn a_change_whose_end_nobody_knows_is_looked_up_before_anybody_relies_on_it() {
    let (bench, vault) = Bench::new().await;
    let alice = caller(Role::Officer);
    let request = enrol("carol", 3);
    let Err(Error::ApprovalRequired { name, .. }) = vault.enrol_officer(&alice, &request).await else {
        panic!("it needs approval")
    };
    approve_as(&vault, &second(TENANT), &name).await.unwrap();
    // The leaf that says that it was approved is written, and the change itself fails.
    bench.faults.fail_writes_after(1, Fate::StoredAfterReopen);
    assert!(matches!(vault.enrol_officer(&alice, &request).await, Err(Error::Unknown)));
    recovered(&vault).await;
    // On disk it is; whoever asks next finds it.
    assert_eq!(names(&vault).await, ["alice", SECOND, "carol"]);
    vault.close().await;
    assert_eq!(findings(&bench, &[]).await, []);
}

#[tokio::test]
async fn the_root_key_makes_officers_authorities_and_policies_and_the_ledger_says_why() {
    let (bench, vault) = Bench::new().await;
    let demo = || "demo".to_owned();
    let break_glass = async |what: BreakGlass| vault.break_glass(&what, "both have left").await;
    let new = |name: &str, key| BreakGlass::EnrolOfficer { tenant: demo(), name: name.to_owned(), key: [key; 32] };
    for name in ["alice", SECOND] {
        break_glass(BreakGlass::RemoveOfficer { tenant: demo(), name: name.to_owned() }).await.unwrap();
    }
    assert!(names(&vault).await.is_empty());
    break_glass(new("carol", 3)).await.unwrap();
    // One alone enrols nobody on the wire, and is told what does.
    let told = vault.enrol_officer(&officer("carol"), &enrol("dave", 4)).await.unwrap_err().to_string();
    assert!(told.contains("strongroom break-glass officer demo"), "{told}");
    break_glass(new("dave", 4)).await.unwrap();
    assert_eq!(names(&vault).await, ["carol", "dave"]);
    break_glass(BreakGlass::AddAnchor([5; 32])).await.unwrap();
    assert!(vault.check_trust_anchors(&[[2; 32], [5; 32]]).is_ok());
    break_glass(BreakGlass::RemoveAnchor([2; 32])).await.unwrap();
    let told = vault.check_trust_anchors(&[[2; 32]]).unwrap_err().to_string();
    assert!(told.contains(&"02".repeat(32)) && told.contains("strongroom break-glass anchor add FILE"), "{told}");
    let source = "@id(\"none\") @why(\"None.\") forbid (principal, action, resource);".to_owned();
    break_glass(BreakGlass::Policy { tenant: demo(), source }).await.unwrap();
    assert!(matches!(vault.list_keys(&officer("carol")).await, Err(Error::Denied { .. })));
    break_glass(BreakGlass::Policy { tenant: demo(), source: DEFAULT_POLICIES.to_owned() }).await.unwrap();
    assert!(vault.list_keys(&officer("carol")).await.is_ok());

    // What can't be done, and what has no reason, changes nothing.
    let directory = vault.directory();
    let unknown = BreakGlass::RemoveOfficer { tenant: demo(), name: "alice".to_owned() };
    let nowhere = BreakGlass::EnrolOfficer { tenant: "other".to_owned(), name: "x".to_owned(), key: [8; 32] };
    let of_the_vault = BreakGlass::EnrolOfficer { tenant: "system".to_owned(), name: "x".to_owned(), key: [8; 32] };
    let broken = BreakGlass::Policy { tenant: demo(), source: "permit".to_owned() };
    let last = BreakGlass::RemoveAnchor([5; 32]);
    for wrong in [unknown, nowhere, of_the_vault, broken, last, BreakGlass::AddAnchor([5; 32]), new("carol", 3)] {
        assert!(break_glass(wrong).await.is_err());
    }
    for reason in ["", "  ", "a\nb", &"x".repeat(201)] {
        assert!(!is_reason(reason) && vault.break_glass(&new("eve", 7), reason).await.is_err());
    }
    assert_eq!(vault.directory(), directory);

    let own = leaves(&vault).await;
    let broken: Vec<_> = own.iter().filter(|leaf| leaf["action"] == "break_glass").collect();
    assert_eq!(broken.len(), 8);
    // Whoever vouches for callers vouches for this tenant's, too.
    for (leaf, change, anchor) in [(broken[4], "add_anchor", "05"), (broken[5], "remove_anchor", "02")] {
        assert_eq!((&leaf["detail"]["change"], &leaf["detail"]["anchor"]), (&change.into(), &anchor.repeat(32).into()));
        assert!(leaf["detail"]["principals_sha256"].is_null(), "that is in the log `system`");
    }
    assert!(broken.iter().all(|leaf| leaf["principal"] == "root" && leaf["detail"]["reason"] == "both have left"));
    let system = log(&vault, &operator(), "").await;
    let changes: Vec<_> = system.iter().filter(|leaf| leaf["action"] == "break_glass").collect();
    assert_eq!(changes.len(), 8);
    assert_eq!(changes[4]["detail"]["change"], "add_anchor");
    vault.close().await;
    assert_eq!(findings(&bench, &[]).await, []);
    let vault = bench.open().await;
    assert_eq!(names(&vault).await, ["carol", "dave"]);
}
