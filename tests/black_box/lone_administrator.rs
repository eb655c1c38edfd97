//! One administrator alone, who has all files of the machine and an officer's key: nothing is read, no rule is changed.

use std::process::{Command, Stdio};

use strongroom_proto::v1;
use strongroom_proto::v1::access_client::AccessClient;
use strongroom_rocksdb::{RocksOptions, RocksStore};
use strongroom_storage::{Family, Mutation, Store, keys as place};
use tonic::Code;

use crate::approvals::{approve, named};
use crate::files::copy;
use crate::harness::{BINARY, detokenize, item, refused, tokenize, value, vault_client};
use crate::house::{Authority, House, spiffe, start};
use crate::needles::{Needles, stored_files};
use crate::officers::{break_glass, broken, officers};
use crate::shell::Shell;
use crate::tenants::proven;

const ID_CARD: &str = "11010519491231002X";
const ALL: &str = "@id(\"all\")\n@why(\"All.\")\npermit (principal, action, resource);\n";

/// A vault that runs, with one value, and its token.
async fn loaded() -> (House, String) {
    let house = House::lending(&["lending"]).await;
    let request = tokenize(vec![item("borrower.id_card", ID_CARD, "cust-77120")]);
    let token = house.vault("lending", "core").await.tokenize(request).await.unwrap().into_inner().tokens.remove(0);
    (house, token)
}

/// Whoever has the passphrase starts it, unknowing; it does not start.
#[track_caller]
fn does_not_start(house: &House, says: &str) {
    let Err(ended) = start(&mut house.serve()) else { panic!("it serves") };
    assert_eq!(ended.code, Some(1), "{}", ended.said);
    assert!(ended.said.contains(says), "{says:?} is missing in: {}", ended.said);
    assert!(!ended.said.contains(ID_CARD), "{}", ended.said);
}

async fn principals(house: &House, put: Option<Vec<u8>>) -> Vec<u8> {
    let store = RocksStore::open(&house.dir().join("data"), RocksOptions::default()).unwrap();
    let row = store.get(Family::Meta, place::principals()).await.unwrap().unwrap().to_vec();
    if let Some(row) = put {
        store.write(vec![Mutation::Put(Family::Meta, place::principals(), row)]).await.unwrap();
    }
    row
}

#[tokio::test]
async fn with_all_files_of_a_stopped_vault_and_an_officers_key_nothing_is_read() {
    let (mut house, token) = loaded().await;
    house.kill();
    let mut needles = Needles::new();
    needles.text(ID_CARD);
    needles.text("cust-77120");
    needles.absent_from(&stored_files(&house.dir()), "in a stopped vault");

    // Without what opens the root key nothing opens, and nothing is changed.
    let guessed = house.dir().with_file_name("guessed");
    std::fs::write(&guessed, "seven clouds over ten bridges").unwrap();
    let puppet = house.authority.client(&[&spiffe("lending", "officer", "puppet")]);
    let file = house.dir().with_file_name("puppet.pem");
    std::fs::write(&file, puppet.certificate.pem()).unwrap();
    let file = file.to_str().unwrap();
    let own = Authority::new("the administrator");
    let authority = house.dir().with_file_name("own.pem");
    std::fs::write(&authority, own.pem()).unwrap();
    let authority = authority.to_str().unwrap();
    let policy = house.dir().with_file_name("all.cedar");
    std::fs::write(&policy, ALL).unwrap();
    let glass = [
        vec!["officer", "lending", "puppet", "--certificate", file],
        vec!["officer", "lending", "bob", "--remove"],
        vec!["anchor", "add", authority],
        vec!["policy", "lending", policy.to_str().unwrap()],
    ];
    for words in &glass {
        assert_eq!(break_glass(&house, words, &guessed).status.code(), Some(1), "{words:?}");
    }
    for words in [&["serve", "--listen", "127.0.0.1:0"][..], &["verify"], &["root", "move", "--to", "file"]] {
        let mut command = Command::new(BINARY);
        command.args(words).arg("--dir").arg(house.dir()).arg("--passphrase-file").arg(&guessed).stdin(Stdio::null());
        let output = command.output().unwrap();
        assert!(!output.status.success() && output.stdout.is_empty(), "{words:?}: {output:?}");
    }
    proven(&house);

    // An authority of one's own in place of the enrolled one, or beside it.
    let ca = house.dir().join("pki/ca.pem");
    let enrolled = std::fs::read(&ca).unwrap();
    for pem in [own.pem(), house.authority.pem() + &own.pem()] {
        std::fs::write(&ca, pem).unwrap();
        does_not_start(&house, "strongroom break-glass anchor add FILE");
    }
    std::fs::write(&ca, enrolled).unwrap();

    // A list of officers that the vault did not write, or wrote once.
    let newest = principals(&house, None).await;
    let text = String::from_utf8_lossy(&newest).into_owned();
    assert!(text.contains("\"bob\"") && text.contains("trust_anchors"), "it is the list: {text}");
    let at = newest.windows(5).position(|at| at == b"\"bob\"").unwrap();
    let mut edited = newest.clone();
    edited[at..at + 5].copy_from_slice(b"\"eve\"");
    principals(&house, Some(edited)).await;
    does_not_start(&house, "not one that this vault wrote");
    principals(&house, Some(newest.clone())).await;
    let older = house.dir().with_file_name("older");
    copy(&house.dir().join("data"), &older);
    broken(&house, &glass[0]);
    let with_puppet = principals(&house, None).await;
    broken(&house, &["officer", "lending", "puppet", "--remove"]);
    let newest = principals(&house, None).await;
    principals(&house, Some(with_puppet)).await;
    does_not_start(&house, "list of officers and authorities");
    principals(&house, Some(newest)).await;

    // An older folder of data under the newest head file.
    let (data, kept) = (house.dir().join("data"), house.dir().with_file_name("kept"));
    std::fs::rename(&data, &kept).unwrap();
    std::fs::rename(&older, &data).unwrap();
    does_not_start(&house, "head file");
    std::fs::remove_dir_all(&data).unwrap();
    std::fs::rename(&kept, &data).unwrap();

    proven(&house);
    house.up();
    assert_eq!(officers(&house).await, ["alice", "bob"]);
    let mut app = house.vault("lending", "core").await;
    let read = app.detokenize(detokenize(&[&token], "kyc_review", "plain")).await.unwrap().into_inner();
    assert_eq!(value(read.results.into_iter().next().unwrap()).unwrap(), ID_CARD.as_bytes());
}

#[tokio::test]
async fn on_a_vault_that_runs_no_rule_is_changed_without_a_second_officer_and_the_ledger_shows_it() {
    let (mut house, token) = loaded().await;
    let alice = house.officer("lending");
    let shell = Shell::of(&house, alice);
    std::fs::write(shell.path("all.cedar"), ALL).unwrap();
    let puppet = house.authority.client(&[&spiffe("lending", "officer", "puppet")]);
    std::fs::write(shell.path("puppet.pem"), puppet.certificate.pem()).unwrap();
    // Between the first version, which has sealed something, and the newest one: nothing needs the second.
    shell.ok(&["keys", "rotate", "kek/1"]);
    shell.ok(&["keys", "rotate", "kek/1"]);
    let enrol = ["officer", "enrol", "puppet", "--certificate", "puppet.pem"];
    let mut waiting = Vec::new();
    for words in [&["policy", "apply", "all.cedar"][..], &["keys", "destroy", "kek/1", "2"], &enrol] {
        let (code, said) = shell.refused(words);
        assert_eq!(code, Some(3), "{words:?}: {said}");
        waiting.push(named(&said));
    }
    // Neither oneself, nor another name that one made up, nor somebody else's name, with the same key or a new one.
    let mut own = AccessClient::new(house.connect(alice).await);
    for name in &waiting {
        let told = refused(approve(&mut own, ("officer/alice", &alice.key), name).await);
        assert_eq!((told.code, told.reason.as_str()), (Code::FailedPrecondition, "APPROVAL_REFUSED"));
        let told = refused(approve(&mut own, ("officer/bob", &alice.key), name).await);
        assert_eq!(told.code, Code::FailedPrecondition, "{told:?}");
    }
    let key = || rcgen::KeyPair::from_pem(&alice.key.serialize_pem()).unwrap();
    let named_by = |name: &str| house.authority.issue(key(), &[&spiffe("lending", "officer", name)], |_| {});
    let new = |name: &str| house.authority.client(&[&spiffe("lending", "officer", name)]);
    let makeshift = [named_by("alice-2"), named_by("bob"), named_by("puppet"), new("bob"), new("alice"), puppet];
    for one in &makeshift {
        let mut client = AccessClient::new(house.connect(one).await);
        let told = refused(client.list_approvals(v1::ListApprovalsRequest::default()).await);
        assert_eq!((told.code, told.reason.as_str()), (Code::Unauthenticated, "OFFICER_NOT_ENROLLED"));
    }
    let (code, said) = shell.refused(&["officer", "remove", "bob"]);
    assert!(code == Some(1) && said.contains("too few officers"), "{said}");
    // Who silences the other one is alone, and can do no more for that.
    shell.ok(&["principal", "suspend", "officer/bob", "--reason", "out of the way"]);
    let (code, said) = shell.refused(&enrol);
    assert!(code == Some(1) && said.contains("nobody enrols officers alone"), "{said}");
    shell.ok(&["principal", "unsuspend", "officer/bob"]);
    assert_eq!(shell.refused(&["policy", "apply", "all.cedar"]).0, Some(3));

    // Nothing has changed, and an officer reads nothing.
    let policy = own.get_policy(v1::GetPolicyRequest::default()).await.unwrap().into_inner();
    assert_eq!(policy.version, 1);
    assert_eq!(officers(&house).await, ["alice", "bob"]);
    let mut reader = vault_client(house.connect(alice).await);
    let read = reader.detokenize(detokenize(&[&token], "kyc_review", "plain")).await;
    let read = read.map(|answer| value(answer.into_inner().results.remove(0)));
    assert!(!matches!(read, Ok(Ok(_))), "an officer has read a value");
    let keys = shell.json(&["keys", "list"]).to_string();
    assert!(!keys.contains("destroyed"), "{keys}");

    let ledger = house.ledger("lending").await;
    for action in ["apply_policy", "destroy_key_version", "enrol_officer"] {
        let action = format!("\"action\":\"{action}\"");
        let by_alice = |leaf: &&String| leaf.contains(&action) && leaf.contains("\"principal\":\"officer/alice\"");
        assert!(
            ledger.iter().filter(by_alice).any(|leaf| leaf.contains("\"reason\":\"APPROVAL_REQUIRED\"")),
            "{action}"
        );
    }
    for (action, reason) in
        [("approve", "APPROVAL_REFUSED"), ("remove_officer", "OFFICER_REFUSED"), ("enrol_officer", "OFFICER_REFUSED")]
    {
        let (action, reason) = (format!("\"action\":\"{action}\""), format!("\"reason\":\"{reason}\""));
        assert!(ledger.iter().any(|leaf| leaf.contains(&action) && leaf.contains(&reason)), "{action} {reason}");
    }
    house.kill();
    proven(&house);
}
