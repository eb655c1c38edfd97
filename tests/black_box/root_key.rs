//! The root key: in a passphrase or in shares, and moved from one to the other.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use strongroom_proto::v1;
use strongroom_proto::v1::system_client::SystemClient;
use strongroom_proto::v1::unseal_request::Credential;
use tempfile::TempDir;
use tonic::Code;

use crate::harness::{BINARY, detokenize, item, tokenize, value};
use crate::house::{House, PASSPHRASE, TRUST_DOMAIN, start};
use crate::needles::{Needles, stored_files};

/// What a command printed, and how it ended.
struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

fn run(command: &mut Command) -> Said {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Said { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

#[track_caller]
fn refused(command: &mut Command, code: i32, says: &[&str]) {
    let said = run(command);
    assert_eq!(said.code, Some(code), "{} {}", said.out, said.err);
    for says in says {
        assert!(said.err.contains(says), "{says:?} is missing in: {}", said.err);
    }
    assert!(!said.err.contains("srs1-") || said.err.contains("`srs1-`"), "it gives a share away: {}", said.err);
}

/// A command of the binary over a vault's folder, without any credential.
fn bare(house: &House, words: &[&str]) -> Command {
    let mut command = Command::new(BINARY);
    command.args(words).arg("--dir").arg(house.dir());
    command.env_remove("STRONGROOM_PASSPHRASE_FILE").env_remove("CREDENTIALS_DIRECTORY");
    command
}

/// The same with shares.
pub fn with_shares(house: &House, words: &[&str], shares: &[PathBuf]) -> Command {
    let mut command = bare(house, words);
    for share in shares {
        command.arg("--share-file").arg(share);
    }
    command
}

/// The same with a passphrase.
fn with_passphrase(house: &House, words: &[&str], passphrase: &Path) -> Command {
    let mut command = bare(house, words);
    command.arg("--passphrase-file").arg(passphrase);
    command
}

const ID_CARD: &str = "11010519491231002X";
pub const SERVE: [&str; 3] = ["serve", "--listen", "127.0.0.1:0"];

/// A vault whose root key is in five shares of which three open it, and the files with these.
pub fn in_shares() -> (House, TempDir, Vec<PathBuf>) {
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path().join("shares");
    let house = House::made_with(&["lending"], |init| {
        init.args(["--root", "shamir", "--shares", "5", "--threshold", "3", "--shares-to"]).arg(&folder);
    });
    let files = files_of(&folder);
    (house, scratch, files)
}

/// The files of a folder, in the order of their names.
fn files_of(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// The share in a file.
fn share(file: &Path) -> String {
    let text = fs::read_to_string(file).unwrap();
    text.lines().find(|line| line.starts_with("srs1-")).unwrap().to_owned()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_vault_in_shares_opens_with_enough_of_them_and_says_what_is_wrong_with_others() {
    let (house, scratch, files) = in_shares();
    let (_other, _scratch, foreign) = in_shares();
    assert_eq!(files.len(), 5);
    assert!(files.iter().all(|file| mode(file) == 0o600) && mode(files[0].parent().unwrap()) == 0o700);
    assert!(fs::read_to_string(&files[1]).unwrap().starts_with("# Strongroom: share 2 of 5"));
    let texts: HashSet<String> = files.iter().map(|file| share(file)).collect();
    assert_eq!(texts.len(), 5);

    let refuses = |shares: &[PathBuf], says: &[&str]| refused(&mut with_shares(&house, &SERVE, shares), 1, says);
    refuses(&[], &["0 of the 3 that are needed; 3 more", "--share-file"]);
    refuses(&files[..2], &["2 of the 3 that are needed; 1 more"]);
    let twice = [files[0].clone(), files[1].clone(), files[0].clone()];
    refuses(&twice, &["share 1 was given already", "share-1-of-5.txt"]);
    refuses(&[files[0].clone(), foreign[1].clone()], &["another set", "another vault"]);
    let changed = scratch.path().join("changed");
    let text = share(&files[2]);
    let last = if text.ends_with('a') { "b" } else { "a" };
    for (text, says) in [
        (format!("{}{last}", &text[..76]), "checksum"),
        (text[..50].to_owned(), "45 letters"),
        (PASSPHRASE.to_owned(), "not a share"),
        (String::new(), "not a share"),
    ] {
        fs::write(&changed, text).unwrap();
        refuses(std::slice::from_ref(&changed), &[says]);
    }
    // A passphrase is no way around.
    let passphrase = house.passphrase();
    refused(&mut with_passphrase(&house, &SERVE, &passphrase), 1, &["0 of the 3"]);

    for chosen in [[0, 1, 2], [4, 2, 0]] {
        let chosen = chosen.map(|place: usize| files[place].clone());
        drop(start(&mut with_shares(&house, &SERVE, &chosen)).unwrap());
    }
    // Typed by somebody, in capitals and groups.
    let typed: Vec<_> = share(&files[3]).as_bytes().chunks(5).map(|group| group.to_ascii_uppercase()).collect();
    fs::write(&changed, typed.join(&b' ')).unwrap();
    drop(start(&mut with_shares(&house, &SERVE, &[files[1].clone(), changed, files[4].clone()])).unwrap());
    let mut needles = Needles::new();
    texts.iter().for_each(|text| needles.text(&text[5..]));
    needles.absent_from(&stored_files(&house.dir()), "at the end");
}

#[test]
fn a_refused_init_leaves_no_shares_and_no_vault() {
    let house = House::new(&["lending"]);
    let scratch = tempfile::tempdir().unwrap();
    let officer = format!("lending/alice={}", house.dir().with_file_name("lending-alice.pem").display());
    let init_in = |vault: &str, words: &[&str], officer: &str| {
        let mut command = Command::new(BINARY);
        command.arg("init").arg("--dir").arg(scratch.path().join(vault)).args(["--trust-domain", TRUST_DOMAIN]);
        command.arg("--client-ca").arg(house.dir().with_file_name("authorities.pem"));
        command.arg("--passphrase-file").arg(house.passphrase());
        command.args(["--tenant", "lending", "--officer", officer]).args(words);
        command
    };
    let init = |words: &[&str], officer: &str| init_in("vault", words, officer);
    let to = scratch.path().join("shares");
    let to = to.to_str().unwrap();
    for (words, says) in [
        (&["--root", "shamir"][..], "--shares N --threshold K --shares-to DIR"),
        (&["--root", "shamir", "--shares", "5", "--threshold", "3"], "--shares-to DIR"),
        (&["--root", "shamir", "--shares", "2", "--threshold", "3", "--shares-to", to], "3 of 2 shares"),
        (&["--root", "shamir", "--shares", "5", "--threshold", "1", "--shares-to", to], "at least 2 shares"),
        (&["--root", "shamir", "--shares", "17", "--threshold", "3", "--shares-to", to], "there are 16 at most"),
        (&["--shares", "5", "--threshold", "3", "--shares-to", to], "belong to a root key in shares"),
        (&["--root", "pkcs12"], "invalid value"),
    ] {
        refused(&mut init(words, &officer), 2, &[says]);
    }
    let whole = ["--root", "shamir", "--shares", "5", "--threshold", "3", "--shares-to", to];
    refused(&mut init(&whole, "lending/alice=/nowhere.pem"), 1, &["/nowhere.pem"]);
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0, "something was left behind");
    // A store that can't be made, after the shares were written.
    fs::write(scratch.path().join("a file"), "").unwrap();
    refused(&mut init_in("a file/vault", &whole, &officer), 1, &["a file"]);
    assert_eq!(files_of(scratch.path()), [scratch.path().join("a file")]);
    // What lies in the folder is never mixed with shares.
    fs::create_dir(to).unwrap();
    fs::write(Path::new(to).join("share-1-of-5.txt"), "of another vault").unwrap();
    refused(&mut init(&whole, &officer), 1, &["is not empty"]);
    assert_eq!(fs::read_to_string(Path::new(to).join("share-1-of-5.txt")).unwrap(), "of another vault");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vault_moves_from_a_passphrase_to_shares_and_back_with_all_its_values() {
    let mut house = House::lending(&["lending"]).await;
    let request = tokenize(vec![item("borrower.id_card", ID_CARD, "c-1")]);
    let token = house.vault("lending", "core").await.tokenize(request).await.unwrap().into_inner().tokens.remove(0);
    let scratch = tempfile::tempdir().unwrap();
    let (old, new) = (house.passphrase(), scratch.path().join("new"));
    fs::write(&new, "eight clouds over ten bridges").unwrap();
    let folder = scratch.path().join("shares");
    let to_shares = |house: &House| {
        let mut command = with_passphrase(house, &["root", "move", "--to", "shamir"], &old);
        command.args(["--shares", "5", "--threshold", "3", "--shares-to"]).arg(&folder);
        command
    };
    let shown = |house: &House| -> Value {
        let said = run(&mut bare(house, &["root", "show", "--output", "json"]));
        assert_eq!(said.code, Some(0), "{}", said.err);
        serde_json::from_str(&said.out).unwrap()
    };
    // While it runs it may be asked, and not moved.
    let before = shown(&house);
    assert_eq!(
        (before["provider"].as_str(), before["argon2id"].as_str()),
        (Some("file"), Some("65536 KiB, 3 passes, 4 lanes"))
    );
    refused(&mut to_shares(&house), 1, &["a vault runs over", "stop it"]);
    house.kill();
    let mut wrong = with_passphrase(&house, &["root", "move", "--to", "shamir"], &new);
    wrong.args(["--shares", "5", "--threshold", "3", "--shares-to"]).arg(&folder);
    refused(&mut wrong, 1, &["passphrase does not open the root key"]);
    assert!(!folder.exists(), "a move that was refused leaves no shares");

    let said = run(&mut to_shares(&house));
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert!(said.out.contains("share-5-of-5.txt") && !said.out.contains("srs1-"), "{}", said.out);
    let files = files_of(&folder);
    let after = shown(&house);
    assert_eq!((after["provider"].as_str(), after["shares"].as_str()), (Some("shamir"), Some("any 3 of 5")));
    let number = |shown: &Value| shown["keystore_number"].as_str().unwrap().parse::<u64>().unwrap();
    assert_eq!(number(&after), number(&before) + 1);
    assert_eq!(after["vault_id"], before["vault_id"]);
    refused(&mut with_passphrase(&house, &SERVE, &old), 1, &["0 of the 3"]);
    let verified = run(&mut with_shares(&house, &["verify"], &files[2..]));
    assert_eq!(verified.code, Some(0), "{}{}", verified.out, verified.err);

    let mut back = bare(&house, &["root", "move", "--to", "file"]);
    back.arg("--new-passphrase-file").arg(&new);
    for file in &files[1..4] {
        back.arg("--share-file").arg(file);
    }
    let said = run(&mut back);
    assert_eq!(said.code, Some(0), "{}", said.err);
    refused(&mut with_shares(&house, &["verify"], &files[..3]), 1, &["no terminal", "--passphrase-file"]);
    refused(&mut with_passphrase(&house, &["verify"], &old), 1, &["passphrase does not open the root key"]);
    let verified = run(&mut with_passphrase(&house, &["verify"], &new));
    assert_eq!(verified.code, Some(0), "{}{}", verified.out, verified.err);

    fs::copy(&new, &old).unwrap();
    house.up();
    let mut client = house.vault("lending", "core").await;
    let request = detokenize(&[&token], "kyc_review", "plain");
    let results: Vec<v1::DetokenizeResult> = client.detokenize(request).await.unwrap().into_inner().results;
    assert_eq!(value(results.into_iter().next().unwrap()).unwrap(), ID_CARD.as_bytes());
}

#[test]
fn a_move_that_is_killed_leaves_the_old_root_key_or_the_new_one_and_never_a_mixture() {
    let house = House::new(&["lending"]);
    let scratch = tempfile::tempdir().unwrap();
    let mut passphrases = [house.passphrase(), scratch.path().join("new")];
    fs::write(&passphrases[1], "eight clouds over ten bridges").unwrap();
    let keys = house.dir().join("keystore/keys");
    let opens = |passphrase: &PathBuf| {
        let said = run(&mut with_passphrase(&house, &["verify"], passphrase));
        let wrong = said.err.contains("passphrase does not open the root key");
        assert!(said.code == Some(0) || wrong, "{}{}", said.out, said.err);
        !wrong
    };
    let mut cut_off = 0;
    // At once, when the new file is being written, and when it has taken its place.
    for moment in [0, 1, 2, 1, 2] {
        let before = fs::read(&keys).unwrap();
        let mut command = with_passphrase(&house, &["root", "move", "--to", "file"], &passphrases[0]);
        command.arg("--new-passphrase-file").arg(&passphrases[1]).stdout(Stdio::null()).stderr(Stdio::null());
        let mut moving = command.spawn().unwrap();
        let comes = || match moment {
            0 => true,
            1 => keys.with_extension("new").exists() || fs::read(&keys).unwrap() != before,
            _ => fs::read(&keys).unwrap() != before,
        };
        while !comes() && moving.try_wait().unwrap().is_none() {}
        moving.kill().unwrap();
        cut_off += u32::from(!moving.wait().unwrap().success());
        let [old, new] = [0, 1].map(|place| opens(&passphrases[place]));
        assert!(old != new, "moment {moment}: the old one {old}, the new one {new}");
        if new {
            passphrases.reverse();
        }
    }
    assert!(cut_off > 0, "no move was cut off");
    let mut whole = with_passphrase(&house, &["root", "move", "--to", "file"], &passphrases[0]);
    let said = run(whole.arg("--new-passphrase-file").arg(&passphrases[1]));
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert_eq!([opens(&passphrases[0]), opens(&passphrases[1])], [false, true]);
    assert_eq!(files_of(&house.dir().join("keystore")), [keys]);
}

#[test]
fn a_vault_for_development_that_was_moved_is_one_for_production() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("vault");
    let dev = || {
        let mut command = Command::new(BINARY);
        command.arg("dev").arg("--dir").arg(&dir).args(["--listen", "127.0.0.1:0"]);
        command
    };
    drop(start(&mut dev()).unwrap());
    let new = scratch.path().join("new");
    fs::write(&new, PASSPHRASE).unwrap();
    let mut command = Command::new(BINARY);
    command.args(["root", "move", "--to", "file", "--new-passphrase-file"]).arg(&new).arg("--dir").arg(&dir);
    let said = run(command.env_remove("STRONGROOM_PASSPHRASE_FILE"));
    assert_eq!(said.code, Some(0), "{}", said.err);
    refused(&mut dev(), 1, &["not one for development", "strongroom serve"]);
    let mut serve = Command::new(BINARY);
    serve.args(SERVE).arg("--dir").arg(&dir).arg("--passphrase-file").arg(&new);
    drop(start(&mut serve).unwrap());
}

#[tokio::test]
async fn a_sealed_vault_is_opened_share_by_share_by_different_people() {
    let (mut house, _scratch, files) = in_shares();
    let (_other, _other_scratch, foreign) = in_shares();
    let mut serve = bare(&house, &[&SERVE[..], &["--sealed"]].concat());
    house.up_by(&mut serve);
    let mut people = Vec::new();
    for name in ["sre-1", "sre-2"] {
        let person = house.authority.client(&[&format!("spiffe://{TRUST_DOMAIN}/system/operator/{name}")]);
        people.push(SystemClient::new(house.connect(&person).await));
    }
    let bring = |text: String| v1::UnsealRequest { credential: Some(Credential::Share(text.into())), reset: false };
    let given = |answer: v1::UnsealResponse| {
        let seal = answer.seal.unwrap();
        (seal.sealed, seal.shares_given, seal.shares_needed)
    };
    let one = people[0].unseal(bring(share(&files[0]))).await.unwrap().into_inner();
    assert_eq!(given(one), (true, 1, 3));
    for (wrong, says) in [
        (share(&files[0]), "given already"),
        (share(&foreign[1]), "another set"),
        (format!("{}a", share(&files[1])), "letters"),
        ("open sesame".to_owned(), "not a share"),
    ] {
        let refused = people[1].unseal(bring(wrong.clone())).await.err().unwrap();
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert!(refused.message().contains(says) && !refused.message().contains(&wrong), "{}", refused.message());
    }
    let two = people[1].unseal(bring(share(&files[3]))).await.unwrap().into_inner();
    assert_eq!(given(two), (true, 2, 3));
    // Forgotten, and from the beginning.
    let reset = v1::UnsealRequest { credential: None, reset: true };
    assert_eq!(given(people[1].unseal(reset).await.unwrap().into_inner()).1, 0);
    for (person, file) in [(0, 4), (1, 1)] {
        people[person].unseal(bring(share(&files[file]))).await.unwrap();
    }
    let open = people[0].unseal(bring(share(&files[2]))).await.unwrap().into_inner();
    assert!(!given(open).0);
    let status = people[0].status(v1::StatusRequest {}).await.unwrap().into_inner();
    assert_eq!((status.state.as_str(), status.seal.unwrap().provider.as_str()), ("serving", "shamir"));
}
