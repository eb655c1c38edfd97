//! Who the officers and the authorities are: changed by two over the wire, or by the root key while nothing is served.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use strongroom_proto::v1;
use strongroom_proto::v1::access_client::AccessClient;
use tonic::Code;
use tonic::transport::Channel;

use crate::approvals::{approve, named};
use crate::harness::{BINARY, refused};
use crate::house::{Authority, House, Issued, spiffe, start};
use crate::root_key::{SERVE, in_shares, with_shares};
use crate::shell::Shell;
use crate::tenants::{operator, proven};

const REASON: &str = "alice lost her key";

/// An officer's certificate, and a file with it.
fn officer(house: &House, name: &str, folder: &Path) -> (Issued, String) {
    let issued = house.authority.client(&[&spiffe("lending", "officer", name)]);
    let path = folder.join(format!("{name}.pem"));
    std::fs::write(&path, issued.certificate.pem()).unwrap();
    (issued, path.to_str().unwrap().to_owned())
}

async fn access(house: &House, who: &Issued) -> AccessClient<Channel> {
    AccessClient::new(house.connect(who).await)
}

/// Runs a command twice, and between has an officer approve it.
async fn with_approval(house: &House, shell: &Shell, words: &[&str], (officer, by): (&str, &Issued)) -> String {
    let (code, said) = shell.refused(words);
    assert_eq!(code, Some(3), "{said}");
    let officer = format!("officer/{officer}");
    approve(&mut access(house, by).await, (&officer, &by.key), &named(&said)).await.unwrap();
    shell.ok(words)
}

/// `break-glass` over a house's folder, with a file that holds the passphrase.
pub fn break_glass(house: &House, words: &[&str], passphrase: &Path) -> Output {
    let mut command = Command::new(BINARY);
    command.arg("break-glass").args(words).args(["--reason", REASON]);
    command.arg("--dir").arg(house.dir()).arg("--passphrase-file").arg(passphrase);
    command.stdin(Stdio::null()).output().unwrap()
}

/// The same with the right one, which does it; what it prints.
pub fn broken(house: &House, words: &[&str]) -> String {
    let output = break_glass(house, words, &house.passphrase());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

/// The names of a tenant's officers, as its auditor sees them.
pub async fn officers(house: &House) -> Vec<String> {
    let channel = house.channel("lending", "auditor", "eve").await;
    let listed = AccessClient::new(channel).list_officers(v1::ListOfficersRequest {}).await.unwrap().into_inner();
    listed.officers.into_iter().map(|one| one.name).collect()
}

#[tokio::test]
async fn two_enrol_a_third_who_approves_and_one_who_is_removed_is_cut_off_where_it_stands() {
    let mut house = House::lending(&["lending"]).await;
    let shell = Shell::of(&house, house.officer("lending"));
    let (carol, file) = officer(&house, "carol", &house.dir().join("pki"));
    let mut early = access(&house, &carol).await;
    let told = refused(early.list_officers(v1::ListOfficersRequest {}).await);
    assert_eq!((told.code, told.reason.as_str()), (Code::Unauthenticated, "OFFICER_NOT_ENROLLED"));
    // Only a certificate of this officer will do.
    let (code, said) = shell.refused(&["officer", "enrol", "dave", "--certificate", &file]);
    assert!(code == Some(1) && said.contains("/officer/NAME"), "{said}");

    let enrol = ["officer", "enrol", "carol", "--certificate", &file];
    let done = with_approval(&house, &shell, &enrol, ("bob", house.second("lending"))).await;
    assert!(done.contains("carol is enrolled"), "{done}");
    assert_eq!(officers(&house).await, ["alice", "bob", "carol"]);
    early.list_officers(v1::ListOfficersRequest {}).await.expect("she is known where she stands");
    let mut bob = access(&house, house.second("lending")).await;
    bob.list_officers(v1::ListOfficersRequest {}).await.unwrap();

    let done = with_approval(&house, &shell, &["officer", "remove", "bob"], ("carol", &carol)).await;
    assert!(done.contains("bob is no officer any more"), "{done}");
    let told = refused(bob.list_officers(v1::ListOfficersRequest {}).await);
    assert_eq!((told.code, told.reason.as_str()), (Code::Unauthenticated, "OFFICER_NOT_ENROLLED"));
    let (code, said) = shell.refused(&["officer", "remove", "carol"]);
    assert!(code == Some(1) && said.contains("strongroom break-glass officer lending carol --remove"), "{said}");
    let listed = shell.json(&["officer", "list"]);
    assert_eq!(listed["officers"].as_array().unwrap().len(), 2, "{listed}");
    let app = house.authority.client(&[&spiffe("lending", "app", "core")]);
    let told = refused(access(&house, &app).await.list_officers(v1::ListOfficersRequest {}).await);
    assert_eq!(told.reason, "DENIED");

    let ledger = house.ledger("lending").await;
    for action in ["enrol_officer", "remove_officer"] {
        let of = |decision: &str| {
            let (action, decision) = (format!("\"action\":\"{action}\""), format!("\"decision\":\"{decision}\""));
            ledger.iter().filter(|leaf| leaf.contains(&action) && leaf.contains(&decision)).count()
        };
        assert_eq!((of("allow"), of("deny")), (2, 1), "{action}: it waited, was approved, and was done");
    }
    let auditor = Shell::of(&house, &house.authority.client(&[&spiffe("lending", "auditor", "eve")]));
    auditor.ok(&["audit", "export", "-o", "ledger.jsonl"]);
    auditor.ok(&["audit", "verify", "ledger.jsonl"]);
    house.kill();
    proven(&house);
    house.up();
    assert_eq!(officers(&house).await, ["alice", "carol"]);
}

#[tokio::test]
async fn another_authority_is_refused_until_the_root_key_enrols_it() {
    let mut house = House::new(&["lending"]);
    let other = Authority::new("the new house");
    let sha256 = ring::digest::digest(&ring::digest::SHA256, &other.der());
    let sha256 = data_encoding::HEXLOWER.encode(sha256.as_ref());
    let file = house.dir().with_file_name("new.pem");
    std::fs::write(&file, other.pem()).unwrap();
    let file = file.to_str().unwrap();
    std::fs::write(house.dir().join("pki/ca.pem"), house.authority.pem() + &other.pem()).unwrap();
    let refuses = || {
        let Err(ended) = start(&mut house.serve()) else { panic!("it serves under an authority of somebody else") };
        assert_eq!(ended.code, Some(1));
        assert!(ended.said.contains(&sha256), "{}", ended.said);
        assert!(ended.said.contains("strongroom break-glass anchor add FILE"), "{}", ended.said);
    };
    refuses();
    let done = broken(&house, &["anchor", "add", file]);
    assert!(done.contains(&sha256) && done.contains(REASON) && done.contains("for ever"), "{done}");
    house.up();
    let app = other.client(&[&spiffe("lending", "app", "core")]);
    let told = refused(access(&house, &app).await.list_officers(v1::ListOfficersRequest {}).await);
    assert_eq!(told.reason, "DENIED", "it is known who calls");
    let system = Shell::of(&house, &operator(&house));
    system.ok(&["audit", "export", "-o", "system.jsonl"]);
    let leaves = std::fs::read_to_string(system.path("system.jsonl")).unwrap();
    assert!(leaves.contains("\"action\":\"break_glass\"") && leaves.contains(&sha256), "{leaves}");
    // Every tenant's auditor sees it, and the tenant's log holds with it.
    let auditor = Shell::of(&house, &house.authority.client(&[&spiffe("lending", "auditor", "eve")]));
    auditor.ok(&["audit", "export", "-o", "ledger.jsonl"]);
    auditor.ok(&["audit", "verify", "ledger.jsonl"]);
    let leaves = std::fs::read_to_string(auditor.path("ledger.jsonl")).unwrap();
    assert!(leaves.contains("\"add_anchor\"") && leaves.contains(&sha256), "{leaves}");
    // One that runs can't be changed so.
    let output = break_glass(&house, &["anchor", "remove", file], &house.passphrase());
    assert!(String::from_utf8_lossy(&output.stderr).contains("a vault runs over"), "{output:?}");
    house.kill();
    broken(&house, &["anchor", "remove", file]);
    let refuses = || {
        let Err(ended) = start(&mut house.serve()) else { panic!("it serves under one that was removed") };
        assert!(ended.said.contains(&sha256), "{}", ended.said);
    };
    refuses();
    std::fs::write(house.dir().join("pki/ca.pem"), house.authority.pem()).unwrap();
    proven(&house);
    house.up();
}

#[tokio::test]
async fn a_tenant_without_officers_gets_one_from_as_many_shares_as_open_the_vault() {
    let (mut house, _scratch, shares) = in_shares();
    let (carol, file) = officer(&house, "carol", &house.dir().join("pki"));
    let glass = |words: &[&str], shares: &[std::path::PathBuf]| {
        let words = [&["break-glass"][..], words, &["--reason", REASON]].concat();
        with_shares(&house, &words, shares).stdin(Stdio::null()).output().unwrap()
    };
    let enrol = ["officer", "lending", "carol", "--certificate", &file];
    let few = glass(&enrol, &shares[..2]);
    assert_eq!(few.status.code(), Some(1), "{few:?}");
    assert!(String::from_utf8_lossy(&few.stderr).contains("2 of the 3 that are needed"), "{few:?}");
    for name in ["alice", "bob"] {
        let gone = glass(&["officer", "lending", name, "--remove"], &shares[1..4]);
        assert!(gone.status.success(), "{gone:?}");
    }
    let done = glass(&enrol, &shares[2..]);
    assert!(done.status.success(), "{done:?}");
    let wrong = glass(&["officer", "savings", "carol", "--certificate", &file], &shares[2..]);
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("savings"), "{wrong:?}");
    let silent = with_shares(&house, &["break-glass", "officer", "lending", "carol", "--remove"], &shares).output();
    assert_eq!(silent.unwrap().status.code(), Some(2), "without a reason");

    let mut serve = with_shares(&house, &SERVE, &shares[..3]);
    house.up_by(&mut serve);
    assert_eq!(officers(&house).await, ["carol"]);
    let listed = access(&house, &carol).await.list_officers(v1::ListOfficersRequest {}).await.unwrap().into_inner();
    assert_eq!(listed.officers.len(), 1);
    let told =
        refused(access(&house, house.officer("lending")).await.get_policy(v1::GetPolicyRequest::default()).await);
    assert_eq!(told.reason, "OFFICER_NOT_ENROLLED");
    let ledger = house.ledger("lending").await;
    let broken: Vec<_> = ledger.iter().filter(|leaf| leaf.contains("\"action\":\"break_glass\"")).collect();
    assert_eq!(broken.len(), 3, "as many as were done");
    assert!(broken.iter().all(|leaf| leaf.contains(REASON) && leaf.contains("\"principal\":\"root\"")), "{broken:?}");
    house.kill();
    let verified = with_shares(&house, &["verify"], &shares[..3]).stdin(Stdio::null()).output().unwrap();
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
}

#[tokio::test]
async fn policies_that_lock_everybody_out_are_refused_and_forced_by_the_root_key_alone() {
    let mut house = House::open(&["lending"]);
    let shell = Shell::of(&house, house.officer("lending"));
    let none = "@id(\"none\")\n@why(\"None.\")\nforbid (principal, action, resource);\n";
    std::fs::write(shell.path("none.cedar"), none).unwrap();
    let (code, said) = shell.refused(&["policy", "apply", "none.cedar"]);
    assert!(code == Some(1) && said.contains("strongroom break-glass policy TENANT FILE"), "{said}");
    house.kill();
    let file = shell.path("none.cedar");
    let done = broken(&house, &["policy", "lending", file.to_str().unwrap()]);
    assert!(done.contains("are in force for lending"), "{done}");
    house.up();
    let mut alice = access(&house, house.officer("lending")).await;
    let told = refused(alice.get_policy(v1::GetPolicyRequest::default()).await);
    assert_eq!((told.code, told.reason.as_str()), (Code::PermissionDenied, "DENIED"));
    house.kill();
    // The way back is the same.
    broken(&house, &["policy", "lending", concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/policies/default.cedar")]);
    proven(&house);
    house.up();
    let mut alice = access(&house, house.officer("lending")).await;
    assert_eq!(alice.get_policy(v1::GetPolicyRequest::default()).await.unwrap().into_inner().version, 3);
    let ledger = house.ledger("lending").await;
    assert_eq!(ledger.iter().filter(|leaf| leaf.contains("\"action\":\"break_glass\"")).count(), 2);
}
