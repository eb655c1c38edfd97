//! A tenant's own key: brought, taken away, with a provider; and what others notice of it, which is nothing.

pub mod openssl;
mod provider;

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use strongroom_proto::v1;
use strongroom_proto::v1::access_client::AccessClient;
use strongroom_proto::v1::audit_client::AuditClient;
use strongroom_proto::v1::keys_client::KeysClient;
use tokio::sync::mpsc;
use tonic::transport::Channel;
use tonic::{Code, Status};

use self::openssl::{fingerprint, random, wrapped, wrapped_by};
use crate::harness::{Told, detokenize, item, refused, tokenize, value};
use crate::house::{House, Issued};
use crate::shell::Shell;
use crate::tenants::{make, operator, proven, reads, state, store};

/// How long anything here may take that is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// A vault of two tenants: `lending`, and `savings`, which was made while it ran and whose officer is `alice`.
struct Two {
    house: House,
    alice: Issued,
    /// The token of `lending 0`.
    theirs: String,
    /// The token of `savings 0`.
    own: String,
}

impl Two {
    async fn new() -> Self {
        let house = House::lending(&["lending"]).await;
        let alice = make(&house, "savings").await;
        let theirs = store(&house, "lending", 1).await.remove(0);
        let own = store(&house, "savings", 1).await.remove(0);
        Self { house, alice, theirs, own }
    }

    async fn officer(&self) -> KeysClient<Channel> {
        KeysClient::new(self.house.connect(&self.alice).await)
    }

    async fn keys_as(&self, role: &str, name: &str) -> KeysClient<Channel> {
        KeysClient::new(self.house.channel("savings", role, name).await)
    }

    /// Both tenants are served.
    async fn both_read(&self) {
        assert_eq!(reads(&self.house, "savings", &self.own).await.unwrap(), b"savings 0");
        self.others_read().await;
    }

    async fn others_read(&self) {
        assert_eq!(reads(&self.house, "lending", &self.theirs).await.unwrap(), b"lending 0");
    }

    /// Waits until the tenant is served, or is not. The other one is, all the while.
    async fn until_served(&self, served: bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let read = reads(&self.house, "savings", &self.own).await;
            self.others_read().await;
            match &read {
                Ok(value) => assert_eq!(value, b"savings 0"),
                Err(told) => assert_eq!(told.reason, "TENANT_LOCKED", "{told:?}"),
            }
            if read.is_ok() == served {
                return;
            }
            assert!(Instant::now() < deadline, "served: {served} never came");
            tokio::task::yield_now().await;
        }
    }

    /// Nothing is answered to anybody of the tenant, and the other one is served.
    async fn is_locked(&self) {
        let house = &self.house;
        let mut told = Vec::new();
        let mut app = house.vault("savings", "core").await;
        told.push(refused(app.tokenize(tokenize(vec![item("borrower.address", "new", "s-0")])).await));
        told.push(refused(app.detokenize(detokenize(&[&self.own], "loan_servicing", "plain")).await));
        let lookup = v1::LookupItem { field: "borrower.id_card".to_owned(), value: "11010519491231002X".into() };
        let request = v1::LookupRequest { items: vec![lookup], purpose: "kyc_review".to_owned() };
        told.push(refused(app.lookup(request).await));
        let mut auditor = AuditClient::new(house.channel("savings", "auditor", "eve").await);
        told.push(refused(auditor.get_checkpoint(v1::GetCheckpointRequest::default()).await));
        let exported = match auditor.export(v1::ExportRequest::default()).await {
            Ok(pages) => pages.into_inner().message().await,
            Err(status) => Err(status),
        };
        told.push(refused(exported));
        let mut officer = AccessClient::new(house.connect(&self.alice).await);
        told.push(refused(officer.get_schema(v1::GetSchemaRequest {}).await));
        told.push(refused(officer.get_policy(v1::GetPolicyRequest::default()).await));
        let mut officer = self.officer().await;
        told.push(refused(officer.list_keys(v1::ListKeysRequest {}).await));
        told.push(refused(officer.move_own_key(to("none")).await));
        let mut app = self.keys_as("app", "core").await;
        told.push(refused(app.get_own_key(v1::GetOwnKeyRequest {}).await));
        for (number, told) in told.iter().enumerate() {
            assert_eq!((told.code, told.reason.as_str()), (Code::Unavailable, "TENANT_LOCKED"), "{number}: {told:?}");
        }
        self.others_read().await;
        assert_eq!(state(house, "savings").await, "locked");
        assert_eq!(state(house, "lending").await, "serving");
    }

    /// The leaves of the tenant's log.
    async fn leaves(&self) -> Vec<Value> {
        let lines = self.house.ledger("savings").await;
        lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

fn to(kind: &str) -> v1::MoveOwnKeyRequest {
    v1::MoveOwnKeyRequest { to: kind.to_owned() }
}

/// Kind, state and fingerprint.
fn parts(own: &v1::OwnKey) -> (&str, &str, &str) {
    (&own.kind, &own.state, &own.fingerprint)
}

async fn shown(officer: &mut KeysClient<Channel>) -> v1::OwnKey {
    officer.get_own_key(v1::GetOwnKeyRequest {}).await.unwrap().into_inner()
}

/// Makes an import key.
pub async fn import_key(officer: &mut KeysClient<Channel>) -> String {
    officer.create_import_key(v1::CreateImportKeyRequest {}).await.unwrap().into_inner().pem
}

/// Brings what was wrapped.
pub async fn bring(officer: &mut KeysClient<Channel>, wrapped: Vec<u8>, replace: bool) -> Result<v1::OwnKey, Status> {
    let request = v1::ImportOwnKeyRequest { wrapped: wrapped.into(), replace };
    officer.import_own_key(request).await.map(tonic::Response::into_inner)
}

/// Takes the key away.
pub async fn remove(officer: &mut KeysClient<Channel>) -> v1::OwnKey {
    officer.remove_own_key(v1::RemoveOwnKeyRequest {}).await.unwrap().into_inner()
}

/// These actions follow each other in a log, with others between them.
#[track_caller]
fn in_order(leaves: &[Value], wanted: &[&str]) {
    let mut actions = leaves.iter().map(|leaf| leaf["action"].as_str().unwrap());
    let all: Vec<&str> = actions.clone().collect();
    for action in wanted {
        assert!(actions.any(|is| is == *action), "{action} is not in its place: {all:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_taken_away_locks_its_tenant_until_the_same_one_is_brought_again() {
    let mut two = Two::new().await;
    let (key, other) = (random(32), random(32));
    let print = fingerprint(&key);
    let mut officer = two.officer().await;
    assert_eq!(parts(&shown(&mut officer).await), ("none", "", ""));
    let pem = import_key(&mut officer).await;
    let brought = bring(&mut officer, wrapped(&pem, &key), false).await.unwrap();
    assert_eq!(parts(&brought), ("imported", "present", print.as_str()));
    assert!(brought.change_time.is_some());
    two.both_read().await;
    let later = store(&two.house, "savings", 2).await.remove(1);

    // It is there after a start.
    two.house.kill();
    proven(&two.house);
    two.house.up();
    two.both_read().await;

    let mut officer = two.officer().await;
    let removed = remove(&mut officer).await;
    assert_eq!(parts(&removed), ("imported", "removed", print.as_str()));
    assert_eq!(parts(&remove(&mut officer).await), parts(&removed), "who did not hear the answer asks again");
    two.is_locked().await;
    two.house.kill();
    let verified = two.house.command("verify").output().unwrap();
    let said = String::from_utf8_lossy(&verified.stdout).into_owned();
    assert!(verified.status.code() == Some(3) && said.contains("savings is locked"), "{said}");
    two.house.up();
    two.is_locked().await;

    let mut officer = two.officer().await;
    assert_eq!(parts(&shown(&mut officer).await), ("imported", "removed", print.as_str()));
    let pem = import_key(&mut officer).await;
    for replace in [false, true] {
        let told = refused(bring(&mut officer, wrapped(&pem, &other), replace).await);
        assert_eq!((told.code, told.reason.as_str()), (Code::FailedPrecondition, "OWN_KEY"), "{told:?}");
        assert!(told.message.contains(&print) && told.message.contains(&fingerprint(&other)), "{}", told.message);
    }
    two.is_locked().await;
    // The import key was not used up by that.
    let back = bring(&mut officer, wrapped(&pem, &key), false).await.unwrap();
    assert_eq!(parts(&back), ("imported", "present", print.as_str()));
    two.both_read().await;
    assert_eq!(reads(&two.house, "savings", &later).await.unwrap(), b"savings 1");
    assert_eq!(state(&two.house, "savings").await, "serving");

    let leaves = two.leaves().await;
    in_order(
        &leaves,
        &["get_own_key", "create_import_key", "import_own_key", "remove_own_key", "create_import_key", "unlock_tenant"],
    );
    let of = |action: &str| leaves.iter().filter(|leaf| leaf["action"] == action).collect::<Vec<_>>();
    let removal = of("remove_own_key").into_iter().find(|leaf| leaf["detail"]["stage"] == "done").unwrap();
    let detail = &removal["detail"];
    assert_eq!(
        (&detail["from"], &detail["to"], &detail["fingerprint"]),
        (&"imported".into(), &"removed".into(), &print.as_str().into())
    );
    assert!(removal["principal"].as_str().unwrap().ends_with("officer/alice"), "{removal}");
    assert!(of("import_own_key").iter().any(|leaf| leaf["reason"] == "OWN_KEY"), "the other key is told of");
    let unlocked = of("unlock_tenant");
    let unlocked = unlocked.last().unwrap();
    assert_eq!(unlocked["principal"], "vault");
    assert!(unlocked["detail"]["by"].as_str().unwrap().ends_with("officer/alice"), "{unlocked}");
    two.house.kill();
    proven(&two.house);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_load_no_read_that_begins_after_the_removal_succeeds_and_none_is_wrong() {
    let two = Two::new().await;
    let key = random(32);
    let mut officer = two.officer().await;
    let pem = import_key(&mut officer).await;
    bring(&mut officer, wrapped(&pem, &key), false).await.unwrap();

    let (asked, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (done, mut progress) = mpsc::unbounded_channel();
    let (mut readers, mut others) = (Vec::new(), Vec::new());
    for _ in 0..6 {
        let (asked, answered, done) = (Arc::clone(&asked), Arc::clone(&answered), done.clone());
        let (mut client, token) = (two.house.vault("savings", "core").await, two.own.clone());
        readers.push(tokio::spawn(async move {
            let mut turned_away = 0;
            while turned_away < 50 {
                let after = answered.load(Ordering::SeqCst);
                match client.detokenize(detokenize(&[&token], "loan_servicing", "plain")).await {
                    Ok(answer) => {
                        assert!(!after, "a read succeeds after the removal");
                        assert_eq!(value(answer.into_inner().results.remove(0)).unwrap(), b"savings 0");
                        // Whoever counts has counted enough.
                        let _ = done.send(());
                    }
                    Err(status) => {
                        assert!(asked.load(Ordering::SeqCst), "a read fails before the removal: {status}");
                        let told = Told::from(status);
                        assert_eq!((told.code, told.reason.as_str()), (Code::Unavailable, "TENANT_LOCKED"));
                        turned_away += usize::from(after);
                    }
                }
            }
        }));
    }
    let stop = Arc::new(AtomicBool::new(false));
    for _ in 0..2 {
        let (mut client, token) = (two.house.vault("lending", "core").await, two.theirs.clone());
        let stop = Arc::clone(&stop);
        others.push(tokio::spawn(async move {
            while !stop.load(Ordering::SeqCst) {
                let answer = client.detokenize(detokenize(&[&token], "loan_servicing", "plain")).await.unwrap();
                assert_eq!(value(answer.into_inner().results.remove(0)).unwrap(), b"lending 0");
            }
        }));
    }
    drop(done);
    for _ in 0..300 {
        progress.recv().await.expect("the readers have ended");
    }
    asked.store(true, Ordering::SeqCst);
    remove(&mut officer).await;
    answered.store(true, Ordering::SeqCst);
    for reader in readers {
        reader.await.unwrap();
    }
    stop.store(true, Ordering::SeqCst);
    for other in others {
        other.await.unwrap();
    }
    let pem = import_key(&mut officer).await;
    bring(&mut officer, wrapped(&pem, &key), false).await.unwrap();
    two.both_read().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_and_what_cannot_be_changes_nothing() {
    let two = Two::new().await;
    let nobody = [
        two.keys_as("app", "core").await,
        two.keys_as("auditor", "eve").await,
        two.keys_as("rotator", "nightly").await,
        KeysClient::new(two.house.connect(&operator(&two.house)).await),
    ];
    for mut nobody in nobody {
        for told in [
            refused(nobody.get_own_key(v1::GetOwnKeyRequest {}).await),
            refused(nobody.create_import_key(v1::CreateImportKeyRequest {}).await),
            refused(bring(&mut nobody, random(512), false).await),
            refused(nobody.move_own_key(to("none")).await),
            refused(nobody.remove_own_key(v1::RemoveOwnKeyRequest {}).await),
        ] {
            assert_eq!((told.code, told.reason.as_str()), (Code::PermissionDenied, "DENIED"), "{told:?}");
        }
    }

    let left_as_it_is = |told: Told, says: &str| {
        assert_eq!((told.code, told.reason.as_str()), (Code::FailedPrecondition, "OWN_KEY"), "{told:?}");
        assert!(told.message.contains(says), "{says:?} is missing in: {}", told.message);
    };
    let invalid = |told: Told| {
        assert_eq!((told.code, told.reason.as_str()), (Code::InvalidArgument, "OWN_KEY_INVALID"), "{told:?}");
    };
    let mut officer = two.officer().await;
    left_as_it_is(refused(bring(&mut officer, random(512), false).await), "no import key");
    left_as_it_is(refused(officer.remove_own_key(v1::RemoveOwnKeyRequest {}).await), "no key of its own");
    left_as_it_is(refused(officer.move_own_key(to("none")).await), "no key of its own");
    for nowhere in ["", "gold", "imported", "file"] {
        invalid(refused(officer.move_own_key(to(nowhere)).await));
    }
    let pem = import_key(&mut officer).await;
    let (first, second) = (random(32), random(32));
    for length in [0, 32, 511, 513, 4_096] {
        invalid(refused(bring(&mut officer, vec![7; length], false).await));
    }
    // Above every modulus, and below most.
    for rubbish in [vec![0xff; 512], [vec![0], random(511)].concat()] {
        left_as_it_is(refused(bring(&mut officer, rubbish, false).await), "does not open");
    }
    for length in [0, 16, 31, 33, 64] {
        let wrapped = wrapped(&pem, &vec![7; length]);
        left_as_it_is(refused(bring(&mut officer, wrapped, false).await), "32 bytes");
    }
    let of_old = ["rsa_padding_mode:pkcs1"];
    let by_default = ["rsa_padding_mode:oaep"];
    let labelled =
        ["rsa_padding_mode:oaep", "rsa_oaep_md:sha256", "rsa_mgf1_md:sha256", "rsa_oaep_label:736176696e6773"];
    for options in [&of_old[..], &by_default, &labelled] {
        let wrapped = wrapped_by(&pem, &first, options);
        left_as_it_is(refused(bring(&mut officer, wrapped, false).await), "does not open");
    }
    assert_eq!(parts(&shown(&mut officer).await), ("none", "", ""));
    two.both_read().await;

    let once = wrapped(&pem, &first);
    bring(&mut officer, once.clone(), false).await.unwrap();
    left_as_it_is(refused(bring(&mut officer, once, true).await), "no import key");
    // One that was made later takes the place of one that was made before.
    let void = import_key(&mut officer).await;
    let pem = import_key(&mut officer).await;
    left_as_it_is(refused(bring(&mut officer, wrapped(&void, &second), true).await), "does not open");
    left_as_it_is(refused(bring(&mut officer, wrapped(&pem, &second), false).await), "--replace");
    assert_eq!(shown(&mut officer).await.fingerprint, fingerprint(&first));
    two.both_read().await;
    let replaced = bring(&mut officer, wrapped(&pem, &second), true).await.unwrap();
    assert_eq!(parts(&replaced), ("imported", "present", fingerprint(&second).as_str()));
    two.both_read().await;
    let none = officer.move_own_key(to("none")).await.unwrap().into_inner();
    assert_eq!(parts(&none), ("none", "", ""));
    two.both_read().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_tenant_can_be_destroyed_and_the_receipt_holds() {
    let mut two = Two::new().await;
    let mut officer = two.officer().await;
    let pem = import_key(&mut officer).await;
    bring(&mut officer, wrapped(&pem, &random(32)), false).await.unwrap();
    remove(&mut officer).await;
    two.is_locked().await;

    let shell = Shell::of(&two.house, &operator(&two.house));
    assert!(shell.ok(&["tenant", "list"]).contains("locked"));
    let dry = shell.json(&["tenant", "destroy", "savings", "--dry-run"]);
    assert_eq!((&dry["values"], &dry["destroyed"]), (&"1".into(), &false.into()));
    let gone = shell.json(&["tenant", "destroy", "savings", "--yes", "--receipt", "savings.receipt"]);
    assert_eq!((&gone["values"], &gone["destroyed"]), (&"1".into(), &true.into()));
    let told = reads(&two.house, "savings", &two.own).await.unwrap_err();
    assert_eq!((told.code, told.reason.as_str()), (Code::Unauthenticated, "TENANT_UNKNOWN"));
    assert_eq!(refused(officer.get_own_key(v1::GetOwnKeyRequest {}).await).reason, "TENANT_UNKNOWN");
    std::fs::write(shell.path("system.key"), shell.ok(&["audit", "key", "--log", "system"])).unwrap();
    let verified = shell.json(&["tenant", "verify", "savings.receipt", "--log-key", "system.key"]);
    assert_eq!((&verified["verified"], &verified["tenant"]), (&true.into(), &"savings".into()));
    shell.ok(&["audit", "export", "-o", "ledger.jsonl", "--log", "savings"]);
    shell.ok(&["audit", "verify", "ledger.jsonl"]);
    let ledger = std::fs::read_to_string(shell.path("ledger.jsonl")).unwrap();
    assert!(ledger.trim_end().lines().last().unwrap().contains("destroy_tenant"));

    let deadline = Instant::now() + PATIENCE;
    while state(&two.house, "savings").await != "cleared" {
        assert!(Instant::now() < deadline, "it is not cleared");
        tokio::task::yield_now().await;
    }
    two.house.kill();
    proven(&two.house);
    two.house.up();
    two.others_read().await;
    assert_eq!(state(&two.house, "savings").await, "cleared");
}

/// The commands for the other side that a help text has, as one script.
fn other_side(help: &str) -> String {
    let commands = help.lines().skip_while(|line| !line.starts_with("Takes up")).filter(|line| line.starts_with("  "));
    commands.map(|line| format!("{}\n", line.trim_start())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_officer_does_all_of_it_on_the_command_line_and_with_the_commands_of_its_help() {
    let two = Two::new().await;
    let shell = Shell::of(&two.house, &two.alice);
    let none = shell.json(&["own-key", "show"]);
    assert_eq!(none, serde_json::json!({ "kind": "none", "state": "", "fingerprint": "", "change_time": null }));
    let text = shell.ok(&["own-key", "show"]);
    assert!(text.contains("none") && text.contains("strongroom own-key import-key"), "{text}");

    // On a pipe the key comes alone; the next one takes its place.
    let piped = shell.run(&["own-key", "import-key"]);
    let (out, err) = (String::from_utf8(piped.stdout).unwrap(), String::from_utf8(piped.stderr).unwrap());
    assert!(out.starts_with("-----BEGIN PUBLIC KEY-----\n") && out.ends_with("-----END PUBLIC KEY-----\n"), "{out}");
    assert!(err.contains("sha256") && err.contains("expires"), "{err}");
    let import = shell.json(&["own-key", "import-key", "--out", "import.pem"]);
    let pem = std::fs::read_to_string(shell.path("import.pem")).unwrap();
    assert!(import["pem"] == pem.as_str() && pem != out, "{import}");
    assert!(import["expire_time"].as_str().unwrap().starts_with("20"), "{import}");

    let script = other_side(&shell.ok(&["own-key", "import-key", "--help"]));
    let folder = shell.path("");
    let printed = openssl::done(Command::new("sh").args(["-e", "-u", "-c", &script]), &folder);
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(lines[0].split(' ').next(), import["sha256"].as_str(), "{script}\n{printed}");
    let key = std::fs::read(shell.path("own.key")).unwrap();
    assert_eq!(lines[1], fingerprint(&key), "{script}\n{printed}");

    std::fs::write(shell.path("long"), vec![7; 5 << 10]).unwrap();
    for (file, says) in [("long", "too long"), ("own.key", "nothing was sent"), ("nowhere", "nowhere")] {
        let (code, said) = shell.refused(&["own-key", "bring", file]);
        assert!(code == Some(1) && said.contains(says), "{said}");
    }
    assert_eq!(shell.json(&["own-key", "show"])["kind"], "none");
    let text = shell.ok(&["own-key", "bring", "own.wrapped"]);
    assert!(text.contains("imported") && text.contains("present") && text.contains(lines[1]), "{text}");
    let (code, said) = shell.refused(&["own-key", "bring", "own.wrapped"]);
    assert!(code == Some(1) && said.contains("--replace"), "{said}");

    // Nobody is there to type its fingerprint.
    let (code, said) = shell.refused(&["own-key", "remove"]);
    assert!(code == Some(2) && said.contains("--yes"), "{said}");
    two.both_read().await;
    let removed = shell.json(&["own-key", "remove", "--yes"]);
    assert_eq!((&removed["state"], &removed["fingerprint"]), (&"removed".into(), &lines[1].into()));
    assert_eq!(shell.json(&["own-key", "show"]), removed);
    let text = shell.ok(&["own-key", "show"]);
    assert!(text.contains("the tenant is locked") && text.contains("strongroom own-key bring"), "{text}");
    let (code, said) = shell.refused(&["keys", "list"]);
    assert!(code == Some(1) && said.contains("strongroom own-key show"), "{said}");
    let (code, said) = shell.refused(&["own-key", "move", "none"]);
    assert!(code == Some(1) && said.contains("locked"), "{said}");
    two.is_locked().await;
}
