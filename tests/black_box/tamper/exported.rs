//! Exported files that somebody changed: `audit verify` names the place.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::files::path;
use crate::harness::{TestVault, item, one_token, tokenize};
use crate::patience::until;

/// An export with checkpoint and key, of a log with some leaves.
struct Exported {
    lines: Vec<String>,
    file: PathBuf,
}

impl Exported {
    fn of(vault: &TestVault, name: &str) -> Self {
        let file = vault.scratch().join(name);
        vault.cli_ok(&["audit", "export", "-o", file.to_str().unwrap()]);
        let text = fs::read_to_string(&file).unwrap();
        Self { lines: text.lines().map(str::to_owned).collect(), file }
    }

    fn beside(&self, ending: &str) -> PathBuf {
        let mut name = self.file.clone().into_os_string();
        name.push(ending);
        name.into()
    }

    /// What `audit verify` says of other lines in the place of these: nothing if they hold.
    fn verify(&self, vault: &TestVault, text: &str, more: &[&str]) -> Result<(), String> {
        let changed = vault.scratch().join("changed.jsonl");
        fs::write(&changed, text).unwrap();
        fs::copy(self.beside(".proofs"), vault.scratch().join("changed.jsonl.proofs")).unwrap();
        let (note, key) = (self.beside(".checkpoint"), self.beside(".key"));
        let words = ["audit", "verify", path(&changed), "--checkpoint", path(&note), "--log-key", path(&key)];
        let output = vault.cli(&[&words[..], more].concat());
        match output.status.code() {
            Some(0) => Ok(()),
            Some(1) => Err(String::from_utf8(output.stderr).unwrap()),
            other => panic!("{other:?}: {output:?}"),
        }
    }
}

fn file(lines: &[String]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
}

#[tokio::test]
async fn verification_names_the_place_of_what_was_changed() {
    let vault = TestVault::start();
    for n in 0..3 {
        let items = (0..400).map(|m| item("borrower.name", &format!("Ann {n} {m}"), "cust-1")).collect();
        vault.vault().await.tokenize(tokenize(items)).await.unwrap();
    }
    let older = Exported::of(&vault, "older.jsonl");
    for n in 0..6 {
        one_token(&vault, "borrower.name", &format!("Bob {n}"), "cust-2").await;
    }
    // A checkpoint is up to a second old.
    let whole = until(Duration::from_secs(10), "every leaf", async || {
        let exported = Exported::of(&vault, "whole.jsonl");
        let count = exported.lines.iter().filter(|line| line.contains("\"tokenize\"")).count();
        if count < 9 { Err(count) } else { Ok(exported) }
    })
    .await;
    let lines = &whole.lines;
    let count = lines.len();
    assert!(lines.iter().any(|line| line.contains("\"part\":\"2/")), "a large request has parts");
    assert_eq!(whole.verify(&vault, &file(lines), &[]), Ok(()));
    let older_note = older.beside(".checkpoint");
    let since = ["--older", path(&older_note)];
    assert_eq!(whole.verify(&vault, &file(lines), &since), Ok(()));
    assert!(older.lines.len() < count - 5);
    let expect = |what: &str, text: String, more: &[&str], hints: &[&str]| {
        let said = whole.verify(&vault, &text, more).expect_err(what);
        for hint in hints {
            assert!(said.contains(hint), "{what}: {hint:?} is not in: {said}");
        }
    };
    // One of several leaves of the application that follow each other.
    let at = lines.iter().rposition(|line| line.contains("\"tokenize\"")).unwrap() - 1;
    assert!(lines[at].contains("\"tokenize\"") && at > older.lines.len());
    let (line, leaf) = (format!("line {}", at + 1), format!("leaf {at}"));
    let edited = |edit: &dyn Fn(&mut Vec<String>)| {
        let mut lines = lines.clone();
        edit(&mut lines);
        file(&lines)
    };

    // One letter: the form holds, the root does not. The hashes beside it say where, and older checkpoints how much else holds.
    let letter = edited(&|lines| lines[at] = lines[at].replace("\"app/app\"", "\"app/apq\""));
    assert!(letter != file(lines));
    let exactly = format!("{line}, {leaf}, was changed");
    expect(
        "a letter",
        letter.clone(),
        &[],
        &[&exactly, "do not give the signed root", &format!("from 0 to {}", count - 1)],
    );
    let narrowed = format!("from {} to {}", older.lines.len(), count - 1);
    expect("a letter, narrowed", letter.clone(), &since, &[&exactly, "do not give the signed root", &narrowed]);
    let early = edited(&|lines| lines[1] = lines[1].replace("\"officer/officer-1\"", "\"officer/officer-2\""));
    let narrowed = format!("from 0 to {}", older.lines.len() - 1);
    expect("an early letter", early, &since, &["line 2, leaf 1, was changed", &narrowed]);
    // Any single bit of a line.
    for byte in (0..lines[at].len()).step_by(7) {
        let mut flipped = file(lines).into_bytes();
        let start = lines[..at].iter().map(|line| line.len() + 1).sum::<usize>();
        flipped[start + byte] ^= 1;
        expect("a bit", String::from_utf8(flipped).unwrap(), &[], &["does not hold", &line]);
    }
    // Whoever changes the hashes along hides nothing, and blames no other line.
    let proofs = fs::read_to_string(whole.beside(".proofs")).unwrap();
    fs::write(whole.beside(".proofs"), proofs.lines().take(count).map(|line| format!("{line}\n")).collect::<String>())
        .unwrap();
    expect("a letter, and fewer hashes", letter, &[], &["the proofs end", "do not give the signed root"]);
    fs::write(whole.beside(".proofs"), proofs).unwrap();
    // What is seen in the line itself is named by its line.
    expect(
        "a space",
        edited(&|lines| lines[at] = lines[at].replacen(",\"time\"", ", \"time\"", 1)),
        &[],
        &[&line, "was changed"],
    );
    expect("no JSON", edited(&|lines| lines[at].truncate(40)), &[], &[&line, "was changed"]);
    expect("an empty line", edited(&|lines| lines.insert(at, String::new())), &[], &[&line]);
    expect("carriage returns", file(lines).replace('\n', "\r\n"), &[], &["line 1 ends with a carriage return"]);

    expect(
        "dropped",
        edited(&|lines| drop(lines.remove(at))),
        &[],
        &[&line, &format!("leaf {at} is expected"), "was removed"],
    );
    expect(
        "several dropped",
        edited(&|lines| drop(lines.drain(at - 2..at))),
        &[],
        &[&format!("leaves {} to {} were removed", at - 2, at - 1)],
    );
    expect("the first dropped", edited(&|lines| drop(lines.remove(0))), &[], &["begins with leaf 1"]);
    expect("swapped", edited(&|lines| lines.swap(at, at + 1)), &[], &[&line, &leaf, "lines were moved"]);
    expect(
        "duplicated",
        edited(&|lines| lines.insert(at, lines[at].clone())),
        &[],
        &[&format!("line {}", at + 2), &leaf, "already"],
    );
    expect(
        "appended",
        edited(&|lines| lines.push(lines[at].replacen(&format!("\"{at}\""), &format!("\"{count}\""), 1))),
        &[],
        &[&format!("line {}", count + 1)],
    );
    expect(
        "the end dropped",
        edited(&|lines| lines.truncate(at)),
        &[],
        &[&format!("ends after {at} leaves"), &format!("leaves {at} to {} are missing", count - 1)],
    );
    expect(
        "cut within a line",
        file(lines)[..file(lines).len() - 20].to_owned(),
        &[],
        &[&format!("within line {count}"), &format!("leaf {}", count - 1)],
    );
    expect("nothing", String::new(), &[], &[]);
    // Two parts of a large request are not two requests.
    let part = lines.iter().position(|line| line.contains("\"part\":\"2/")).unwrap();
    expect(
        "a part changed",
        edited(&|lines| lines[part] = lines[part].replacen("\"part\":\"2/", "\"part\":\"1/", 1)),
        &[],
        &[&format!("leaf {part}"), "part"],
    );
}

#[tokio::test]
async fn another_vaults_key_or_checkpoint_proves_nothing() {
    let (vault, other) = (TestVault::start(), TestVault::start());
    one_token(&vault, "borrower.name", "Ann", "cust-1").await;
    let (own, foreign) = (Exported::of(&vault, "own.jsonl"), Exported::of(&other, "foreign.jsonl"));
    let verify = |export: &Path, note: PathBuf, key: PathBuf| {
        let words = ["audit", "verify", path(export), "--checkpoint", path(&note), "--log-key", path(&key)];
        let output = vault.cli(&words);
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    assert_eq!(verify(&own.file, own.beside(".checkpoint"), own.beside(".key")).0, 0);
    let (code, said) = verify(&own.file, own.beside(".checkpoint"), foreign.beside(".key"));
    assert!(code == 1 && said.contains("the checkpoint does not verify"), "{said}");
    let (code, said) = verify(&own.file, foreign.beside(".checkpoint"), own.beside(".key"));
    assert!(code == 1 && said.contains("the checkpoint does not verify"), "{said}");
    // All three from elsewhere hold among themselves; only the key that one keeps tells the difference.
    assert_eq!(verify(&foreign.file, foreign.beside(".checkpoint"), foreign.beside(".key")).0, 0);
    let (code, said) = verify(&foreign.file, own.beside(".checkpoint"), own.beside(".key"));
    assert!(code == 1 && said.contains("does not hold"), "{said}");
    // A forged checkpoint: other numbers under the old signature.
    let note = fs::read_to_string(own.beside(".checkpoint")).unwrap();
    let mut parts: Vec<&str> = note.lines().collect();
    let size = (parts[1].parse::<u64>().unwrap() - 1).to_string();
    parts[1] = &size;
    let forged = vault.scratch().join("forged.checkpoint");
    fs::write(&forged, parts.join("\n") + "\n").unwrap();
    let (code, said) = verify(&own.file, forged, own.beside(".key"));
    assert!(code == 1 && said.contains("the checkpoint does not verify"), "{said}");
    // Without the key that was kept, the command says what that is worth.
    let said = vault.cli_ok(&["audit", "verify", path(&own.file)]);
    assert!(said.contains("came with the export"), "{said}");
}
