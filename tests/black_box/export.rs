//! Exports of some leaves: that the right ones come, in every form, and that whoever has the files proves them.

use std::fs;
use std::fs::File;
use std::path::PathBuf;

use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use serde_json::Value;
use strongroom_proto::v1;
use tonic::Code;

use crate::files::path;
use crate::harness::{TestVault, detokenize, grow, one_token, read_one, refused};

const ID_CARD: &str = "11010519491231002X";

fn text<'a>(leaf: &'a Value, member: &str) -> &'a str {
    leaf[member].as_str().unwrap_or_else(|| panic!("{member} of {leaf}"))
}

/// A vault whose ledger has some of everything; and two tokens, of two subjects.
async fn vault() -> (TestVault, [String; 2]) {
    let vault = TestVault::start();
    let tokens = [
        one_token(&vault, "borrower.id_card", ID_CARD, "cust-1").await,
        one_token(&vault, "borrower.name", "=Ann+1", "cust-2").await,
    ];
    one_token(&vault, "borrower.name", "Bob", "").await;
    for _ in 0..3 {
        read_one(&vault, &tokens[0], "kyc_review", "last4").await.unwrap();
    }
    let both = detokenize(&[&tokens[0], &tokens[1]], "kyc_review", "masked");
    vault.vault().await.detokenize(both).await.unwrap();
    refused(vault.vault_as("auditor").await.detokenize(detokenize(&[&tokens[0]], "curiosity", "")).await);
    drop(vault.vault_as("rotator").await.detokenize(detokenize(&[&tokens[1]], "kyc_review", "")).await);
    (vault, tokens)
}

async fn asked(vault: &TestVault, filter: v1::LeafFilter) -> Vec<Value> {
    let request = v1::ExportRequest { filter: Some(filter), ..Default::default() };
    let mut pages = vault.audit().await.export(request).await.unwrap().into_inner();
    let mut leaves = Vec::new();
    while let Some(page) = pages.message().await.unwrap() {
        assert!(page.left_out.is_empty() && page.signed.is_none(), "nobody asked for proofs");
        leaves.extend(page.leaves.iter().map(|line| serde_json::from_slice::<Value>(line).unwrap()));
    }
    leaves
}

fn items(leaf: &Value) -> impl Iterator<Item = &Value> {
    leaf["items"].as_array().into_iter().flatten()
}

#[tokio::test]
async fn each_filter_brings_the_leaves_that_fit_and_no_others() {
    let (vault, tokens) = vault().await;
    let all = vault.leaves().await;
    let first = |action: &str| all.iter().find(|leaf| leaf["action"] == action).unwrap();
    let stored = &first("tokenize")["items"][0];
    let (subject, row) = (stored["subject"].clone(), stored["row"].clone());
    let middle = all[all.len() / 2].clone();
    let time = {
        let at = time::OffsetDateTime::parse(text(&middle, "time"), &time::format_description::well_known::Rfc3339);
        let at = at.unwrap();
        prost_types::Timestamp { seconds: at.unix_timestamp(), nanos: at.nanosecond().try_into().unwrap() }
    };
    let since = text(&middle, "time").to_owned();
    let none = v1::LeafFilter::default;
    type Fits = Box<dyn Fn(&Value) -> bool>;
    let cases: Vec<(v1::LeafFilter, Fits)> = vec![
        (v1::LeafFilter { principal: "app/app".into(), ..none() }, Box::new(|leaf| leaf["principal"] == "app/app")),
        (v1::LeafFilter { action: "detokenize".into(), ..none() }, Box::new(|leaf| leaf["action"] == "detokenize")),
        (v1::LeafFilter { decision: "allow".into(), ..none() }, Box::new(|leaf| leaf["decision"] == "allow")),
        (v1::LeafFilter { decision: "deny".into(), ..none() }, Box::new(|leaf| leaf["decision"] == "deny")),
        (v1::LeafFilter { decision: "fail".into(), ..none() }, Box::new(|leaf| leaf["decision"] == "fail")),
        (
            v1::LeafFilter { field: "borrower.name".into(), ..none() },
            Box::new(|leaf| items(leaf).any(|item| item["field"] == "borrower.name")),
        ),
        (
            v1::LeafFilter { subject: "cust-1".into(), ..none() },
            Box::new({
                let subject = subject.clone();
                move |leaf| items(leaf).any(|item| item["subject"] == subject)
            }),
        ),
        (
            v1::LeafFilter { token: tokens[0].clone(), ..none() },
            Box::new({
                let row = row.clone();
                move |leaf| items(leaf).any(|item| item["row"] == row)
            }),
        ),
        (
            v1::LeafFilter { from_time: Some(time), ..none() },
            Box::new({
                let since = since.clone();
                move |leaf| text(leaf, "time") >= since.as_str()
            }),
        ),
        (
            v1::LeafFilter { to_time: Some(time), ..none() },
            Box::new({
                let since = since.clone();
                move |leaf| text(leaf, "time") < since.as_str()
            }),
        ),
        (
            v1::LeafFilter {
                action: "detokenize".into(),
                decision: "allow".into(),
                subject: "cust-1".into(),
                ..none()
            },
            Box::new(move |leaf| {
                leaf["action"] == "detokenize"
                    && leaf["decision"] == "allow"
                    && items(leaf).any(|item| item["subject"] == subject)
            }),
        ),
        // One and the same item must fit: nobody has this field under this token.
        (v1::LeafFilter { field: "borrower.name".into(), token: tokens[0].clone(), ..none() }, Box::new(|_| false)),
        (v1::LeafFilter { subject: "cust-99".into(), ..none() }, Box::new(|_| false)),
        (v1::LeafFilter { token: "srt1_nothing".into(), ..none() }, Box::new(|_| false)),
    ];
    for (number, (filter, fits)) in cases.into_iter().enumerate() {
        let brought = asked(&vault, filter).await;
        // What is asked later is in the ledger too, and may fit as well.
        let known: Vec<&Value> = brought.iter().filter(|leaf| all.contains(leaf)).collect();
        let expected: Vec<&Value> = all.iter().filter(|leaf| fits(leaf)).collect();
        assert_eq!(known, expected, "case {number}");
        assert!(brought.iter().all(fits), "case {number}");
    }
    vault.verify_ledger();
}

#[tokio::test]
async fn what_an_auditor_asks_for_is_recorded_and_names_nobody() {
    let (vault, tokens) = vault().await;
    let stored = vault.leaves().await.into_iter().find(|leaf| leaf["action"] == "tokenize").unwrap();
    let filter = v1::LeafFilter {
        principal: "app/PeterPan".into(),
        subject: "cust-1".into(),
        token: tokens[0].clone(),
        field: "borrower.id_card".into(),
        action: "detokenize".into(),
        decision: "allow".into(),
        ..Default::default()
    };
    asked(&vault, filter).await;
    let sent = "110105PeterPan";
    let filter = v1::LeafFilter {
        subject: sent.into(),
        token: "PeterPan".into(),
        field: "PeterPan.name".into(),
        action: "PeterPan".into(),
        ..Default::default()
    };
    asked(&vault, filter).await;
    let leaves = vault.leaves().await;
    let exports: Vec<&Value> = leaves.iter().filter(|leaf| leaf["action"] == "export_ledger").collect();
    let [.., known, unknown] = exports[..] else { panic!("{exports:?}") };
    assert_eq!(
        (&known["detail"]["field"], &known["detail"]["action"]),
        (&"borrower.id_card".into(), &"detokenize".into())
    );
    assert_eq!(known["detail"]["decision"], "allow");
    assert_eq!(text(&known["detail"], "principal_sent").len(), 64);
    let (subject, row) = (&stored["items"][0]["subject"], &stored["items"][0]["row"]);
    assert!(items(known).any(|item| item["subject"] == *subject && item["outcome"] == "found"), "{known}");
    assert!(items(known).any(|item| item["row"] == *row && item["outcome"] == "found"), "{known}");
    assert_eq!(text(&unknown["detail"], "field_sent").len(), 64);
    assert_eq!(text(&unknown["detail"], "action_sent").len(), 64);
    assert_eq!(items(unknown).filter(|item| item["outcome"] == "none" && item["sent"].is_string()).count(), 2);
    assert_eq!(known["decision"], "allow");
    let ledger = serde_json::to_string(&leaves).unwrap();
    for secret in ["PeterPan", "cust-1", &tokens[0]] {
        assert!(!ledger.contains(secret), "{secret} stands in the ledger");
    }

    let ask = async |principal: &str, filter: v1::LeafFilter, proofs: bool| {
        let mut client = vault.audit_as(principal).await;
        client.export(v1::ExportRequest { filter: Some(filter), proofs, ..Default::default() }).await
    };
    let none = v1::LeafFilter::default;
    assert_eq!(refused(ask("app", none(), true).await).code, Code::PermissionDenied);
    for (filter, rule) in [
        (v1::LeafFilter { decision: "maybe".into(), ..none() }, "unknown"),
        (v1::LeafFilter { principal: "a\nb".into(), ..none() }, "control_character"),
        (v1::LeafFilter { principal: "a".repeat(257), ..none() }, "too_long"),
        (v1::LeafFilter { subject: "a".repeat(129), ..none() }, "too_long"),
        (v1::LeafFilter { token: "a".repeat(257), ..none() }, "too_long"),
    ] {
        let told = refused(ask("auditor", filter, false).await);
        assert_eq!((told.code, told.violations[0].1.as_str()), (Code::InvalidArgument, rule));
    }
    vault.verify_ledger();
}

/// An export as it lies in its folder.
struct Exported<'v> {
    vault: &'v TestVault,
    out: PathBuf,
}

impl<'v> Exported<'v> {
    fn new(vault: &'v TestVault, name: &str, words: &[&str]) -> Self {
        let out = vault.scratch().join(name);
        vault.cli_ok(&[&["audit", "export", "-o", path(&out)], words].concat());
        Self { vault, out }
    }

    fn beside(&self, ending: &str) -> PathBuf {
        let mut name = self.out.clone().into_os_string();
        name.push(ending);
        name.into()
    }

    fn read(&self, ending: &str) -> String {
        fs::read_to_string(self.beside(ending)).unwrap()
    }

    fn lines(&self, ending: &str) -> Vec<String> {
        self.read(ending).lines().map(str::to_owned).collect()
    }

    fn verify(&self) -> Result<Value, String> {
        let output = self.vault.cli(&["audit", "verify", "--excerpt", path(&self.out), "--output", "json"]);
        match output.status.code() {
            Some(0) => Ok(serde_json::from_slice(&output.stdout).unwrap()),
            Some(1) => Err(String::from_utf8(output.stderr).unwrap()),
            other => panic!("{other:?}: {output:?}"),
        }
    }

    /// Changes a file, expects that verification says these things, and puts it back.
    fn expect(&self, ending: &str, change: impl FnOnce(&mut Vec<u8>), hints: &[&str]) {
        let file = self.beside(ending);
        let good = fs::read(&file).unwrap();
        let mut changed = good.clone();
        change(&mut changed);
        assert_ne!(changed, good);
        fs::write(&file, changed).unwrap();
        let said = self.verify().unwrap_err();
        fs::write(&file, good).unwrap();
        for hint in hints {
            assert!(said.contains(hint), "{hint:?} is not in: {said}");
        }
    }

    /// The same for a file's lines.
    fn expect_lines(&self, ending: &str, change: impl FnOnce(&mut Vec<String>), hints: &[&str]) {
        let mut lines = self.lines(ending);
        change(&mut lines);
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        self.expect(ending, |file| *file = text.into_bytes(), hints);
    }
}

#[tokio::test]
async fn a_filtered_export_is_proven_without_the_vault_and_every_change_is_named() {
    let (mut vault, _) = vault().await;
    let out = vault.scratch().join("reads.jsonl");
    vault.cli_ok(&["audit", "export", "-o", path(&out), "--subject", "cust-1", "--action", "detokenize"]);
    let key = vault.scratch().join("kept.key");
    fs::write(&key, vault.cli_ok(&["audit", "key"])).unwrap();
    // The vault is gone.
    vault.stop();
    let said = vault.json(&["audit", "verify", "--excerpt", path(&out), "--log-key", path(&key)]);
    assert_eq!((&said["verified"], &said["key_given"], &said["format"]), (&true.into(), &true.into(), &"jsonl".into()));
    assert_eq!(said["filter"]["action"], "detokenize");
    assert!(
        said["filter"]["subjects"].as_array().unwrap().len() == 1 && !said.to_string().contains("cust-1"),
        "{said}"
    );
    let said = vault.cli_ok(&["audit", "verify", "--excerpt", path(&out)]);
    assert!(said.contains("came with the export") && said.contains("not proven"), "{said}");

    let export = Exported { vault: &vault, out: out.clone() };
    let lines = export.lines("");
    // Three reads, one of two values, and one that was denied, by the auditor.
    assert!(lines.len() >= 4, "{lines:?}");
    let leaf = |line: usize| -> String { text(&serde_json::from_str(&lines[line]).unwrap(), "index").to_owned() };
    for byte in (0..lines[1].len()).step_by(5) {
        let start = lines[0].len() + 1;
        export.expect("", |file| file[start + byte] ^= 1, &["line 2"]);
    }
    let letter = |lines: &mut Vec<String>| lines[1] = lines[1].replace("app/app", "app/apq");
    export.expect_lines("", letter, &["line 2", &format!("leaf {}", leaf(1)), "was changed"]);
    export.expect_lines("", |lines| drop(lines.remove(1)), &["line 2", &format!("leaf {}", leaf(1)), "removed"]);
    export.expect_lines("", |lines| drop(lines.pop()), &["ends after", "removed"]);
    export.expect_lines("", |lines| lines.swap(0, 1), &["line 1", &format!("leaf {}", leaf(0)), "moved"]);
    export.expect_lines(
        "",
        |lines| lines.insert(2, lines[0].clone()),
        &["line 3", &format!("leaf {}", leaf(0)), "added"],
    );
    export.expect_lines("", |lines| lines.push(lines[0].clone()), &["added"]);

    // A line that is gone from the proofs as well: the manifest counts.
    let place =
        |lines: &[String]| lines.iter().position(|line| line.starts_with(&format!("leaf {} ", leaf(1)))).unwrap();
    let proofs = export.read(".proofs");
    let mut fewer = export.lines(".proofs");
    let at = place(&fewer);
    fewer[at] = fewer[at].replace(&format!("leaf {}", leaf(1)), &format!("tree {} 0", leaf(1)));
    fs::write(export.beside(".proofs"), fewer.join("\n") + "\n").unwrap();
    let counted = format!("counts {} lines", lines.len());
    export.expect_lines("", |lines| drop(lines.remove(1)), &[&counted]);
    fs::write(export.beside(".proofs"), &proofs).unwrap();
    export.expect_lines(".proofs", |lines| drop(lines.remove(1)), &["of the proofs"]);
    export.expect_lines(".proofs", |lines| drop(lines.pop()), &["does not hold"]);

    // A forged manifest: another number under the old signature; and one that is of nothing here.
    let forge = |from: String, to: &str| {
        let forged = export.read(".manifest").replace(&from, to);
        move |file: &mut Vec<u8>| *file = forged.into_bytes()
    };
    export.expect(
        ".manifest",
        forge(format!("lines {}\\n", lines.len()), "lines 1\\n"),
        &["the manifest does not verify"],
    );
    export.expect(".manifest", forge("\"format\": \"jsonl\"".into(), "\"format\": \"xml\""), &["form"]);
    export.expect(".manifest", forge("\"sha256\": \"".into(), "\"sha256\": \"0"), &["other hashes"]);
    export.expect(".manifest", |file| file.clear(), &["manifest"]);
    export.expect(".checkpoint", |file| file[70] ^= 1, &["the checkpoint does not verify"]);
    assert!(export.verify().is_ok());
}

#[tokio::test]
async fn another_exports_manifest_is_not_this_ones() {
    let (vault, _) = vault().await;
    let export = Exported::new(&vault, "one.jsonl", &["--action", "tokenize"]);
    let other = TestVault::start();
    let foreign = Exported::new(&other, "other.jsonl", &["--action", "tokenize"]);
    let (own, theirs) = (export.read(".manifest"), foreign.read(".manifest"));
    assert_ne!(own, theirs);
    export.expect(".manifest", |file| *file = theirs.into_bytes(), &["the manifest is of"]);
    export.expect(".key", |file| *file = foreign.read(".key").into_bytes(), &["the checkpoint does not verify"]);
    // A whole export takes what spoke of another away.
    vault.cli_ok(&["audit", "export", "-o", path(&export.out)]);
    assert!(!export.beside(".manifest").exists());
    assert_eq!(export.lines(".proofs").len(), export.lines("").len() + 1, "a hash for each leaf, and the first line");
    vault.cli_ok(&["audit", "verify", path(&export.out)]);
    // Nothing that fits is an export as well.
    let nobody = Exported::new(&vault, "nobody.jsonl", &["--subject", "cust-99"]);
    let said = nobody.verify().unwrap();
    assert_eq!((&said["leaves"], &said["filter"]["subjects"]), (&"0".into(), &Value::Array(vec![])));
}

#[tokio::test]
async fn a_genuine_excerpt_does_not_pass_for_the_whole_ledger() {
    let (vault, _) = vault().await;
    let ledger = Exported::new(&vault, "ledger.jsonl", &[]);
    let words = ["audit", "verify", path(&ledger.out)];
    let said = vault.json(&words);
    assert_eq!((&said["whole"], &said["verified"]), (&true.into(), &true.into()));
    // Whoever hands it over puts a signed export of nobody's leaves in its place.
    let nobody = Exported::new(&vault, "nobody.jsonl", &["--subject", "cust-99"]);
    for ending in ["", ".proofs", ".manifest", ".checkpoint", ".key"] {
        fs::copy(nobody.beside(ending), ledger.beside(ending)).unwrap();
    }
    let output = vault.cli(&words);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        output.status.code() == Some(1) && said.contains("no whole ledger") && said.contains("--excerpt"),
        "{said}"
    );
    let said = ledger.verify().unwrap();
    assert_eq!((&said["whole"], &said["leaves"]), (&false.into(), &"0".into()));
    let said = vault.cli_ok(&["audit", "verify", "--excerpt", path(&ledger.out)]);
    let at = |word: &str| said.find(word).unwrap_or_else(|| panic!("{word} is not in {said}"));
    assert!(at("whole") < at("filter") && at("filter") < at("range") && at("range") < at("verified"), "{said}");
    let all = Exported::new(&vault, "all.csv", &["--format", "csv"]);
    assert_eq!(all.verify().unwrap()["whole"], true, "every leaf is in it");
}

#[tokio::test]
async fn no_word_of_the_manifest_makes_a_changed_table_hold_and_one_of_another_form_is_made_anew() {
    let (vault, _) = vault().await;
    let export = Exported::new(&vault, "old.csv", &["--format", "csv"]);
    let (good, frame) = (export.read(""), export.read(".manifest"));
    let sum = |text: &str| {
        data_encoding::HEXLOWER.encode(ring::digest::digest(&ring::digest::SHA256, text.as_bytes()).as_ref())
    };
    // Whoever changes a table changes the unsigned list along.
    let put = |text: &str| {
        fs::write(&export.out, text).unwrap();
        fs::write(export.beside(".manifest"), frame.replace(&sum(&good), &sum(text))).unwrap();
    };
    put(&good.replace("\r\n", "\n"));
    assert_eq!(export.verify().unwrap()["verified"], true, "another encoder wrote the same");
    put(&good.replacen("app/app", "app/apq", 1));
    let said = export.verify().unwrap_err();
    assert!(said.contains("row ") && said.contains("in principal than leaf"), "{said}");
    // A word of who made it, which was believed once.
    let versioned = export.read(".manifest").replacen('{', "{ \"tool\": \"0.0.1\",", 1);
    fs::write(export.beside(".manifest"), versioned).unwrap();
    assert!(export.verify().unwrap_err().contains("does not hold"));

    // Other columns can't be compared, which is no success.
    put(&good.replacen("index,", "number,", 1));
    let said = export.verify().unwrap_err();
    assert!(said.contains("is not proven") && said.contains("other columns") && said.contains("--anew"), "{said}");
    vault.cli_ok(&["audit", "verify", "--excerpt", path(&export.out), "--anew"]);
    assert_eq!((export.read(""), export.read(".manifest")), (good.clone(), frame.clone()));
    // Nothing is made of lines that do not hold.
    put(&good.replacen("index,", "number,", 1));
    let lines = export.read(".leaves");
    fs::write(export.beside(".leaves"), lines.replacen("app/app", "app/apq", 1)).unwrap();
    let output = vault.cli(&["audit", "verify", "--excerpt", path(&export.out), "--anew"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(export.read("").starts_with("number,"));
}

#[tokio::test]
async fn a_range_of_time_is_proven_from_tiles() {
    let (vault, _) = vault().await;
    // More than two tiles, of which the range begins and ends within one.
    grow(&vault, "Ann", 600).await;
    let all = vault.leaves().await;
    let (from, to) = (text(&all[270], "time"), text(&all[580], "time"));
    let export = Exported::new(&vault, "range.csv", &["--from", from, "--to", to, "--format", "csv"]);
    let said = export.verify().unwrap();
    let between = all.iter().filter(|leaf| (from..to).contains(&text(leaf, "time"))).count();
    assert_eq!(said["leaves"], between.to_string());
    assert!(export.lines(".proofs").len() < between + 50, "what lies beside the range is a few hashes");
}

#[tokio::test]
async fn tables_and_events_say_what_the_lines_say() {
    let (vault, _) = vault().await;
    let csv = Exported::new(&vault, "all.csv", &["--format", "csv"]);
    let columns = Exported::new(&vault, "all.parquet", &["--format", "parquet"]);
    let events = Exported::new(&vault, "all.ocsf.jsonl", &["--format", "ocsf"]);
    for (export, format) in [(&csv, "csv"), (&columns, "parquet"), (&events, "ocsf")] {
        assert_eq!(export.verify().unwrap()["format"], format);
    }

    // A row for each item, one for a leaf without any.
    let rows = |leaves: &[Value]| -> Vec<Vec<(String, String)>> {
        let mut rows = Vec::new();
        for leaf in leaves {
            let said = |value: &Value, names: &[&str]| -> Vec<(String, String)> {
                let cells = names.iter().filter_map(|name| match &value[*name] {
                    Value::Null => None,
                    Value::String(text) => Some(((*name).to_owned(), text.clone())),
                    other => Some(((*name).to_owned(), other.to_string())),
                });
                cells.collect()
            };
            let whole = ["index", "time", "request", "principal", "action", "purpose", "decision", "reason", "policy"];
            let whole = [&whole[..], &["schema", "keys", "client", "detail"]].concat();
            let of_item = ["field", "row", "view", "outcome", "subject", "version", "sha256", "sent"];
            let count = items(leaf).count();
            for item in items(leaf) {
                rows.push([said(leaf, &whole), said(item, &of_item)].concat());
            }
            if count == 0 {
                rows.push(said(leaf, &whole));
            }
        }
        rows
    };
    let leaves = |export: &Exported<'_>| -> Vec<Value> {
        export.lines(".leaves").iter().map(|line| serde_json::from_str(line).unwrap()).collect()
    };

    let mut reader = csv::Reader::from_path(&csv.out).unwrap();
    let names = reader.headers().unwrap().clone();
    let read: Vec<Vec<(String, String)>> = reader
        .records()
        .map(|row| {
            let row = row.unwrap();
            let cells = names.iter().zip(&row).filter(|(name, cell)| *name != "item" && !cell.is_empty());
            cells.map(|(name, cell)| (name.to_owned(), cell.to_owned())).collect()
        })
        .collect();
    // A cell can't say whether nothing stands in it or it is not there.
    let mut said = rows(&leaves(&csv));
    said.iter_mut().for_each(|row| row.retain(|(_, text)| !text.is_empty()));
    assert_eq!(read, said);

    let reader = SerializedFileReader::new(File::open(&columns.out).unwrap()).unwrap();
    let read: Vec<Vec<(String, String)>> = reader
        .get_row_iter(None)
        .unwrap()
        .map(|row| {
            let row = row.unwrap();
            let cells = row.get_column_iter().filter(|(name, _)| *name != "item").filter_map(|(name, cell)| {
                let text = match cell {
                    Field::Null => return None,
                    Field::Str(text) => text.clone(),
                    Field::ULong(number) => number.to_string(),
                    Field::TimestampMicros(micros) => {
                        let at = time::OffsetDateTime::from_unix_timestamp_nanos(i128::from(*micros) * 1_000).unwrap();
                        let form = time::macros::format_description!(
                            "[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z"
                        );
                        at.format(form).unwrap()
                    }
                    other => panic!("{other}"),
                };
                Some((name.clone(), text))
            });
            cells.collect()
        })
        .collect();
    assert_eq!(read, rows(&leaves(&columns)));

    let said: Vec<Value> = events.lines("").iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let leaves = leaves(&events);
    assert_eq!(said.len(), leaves.len());
    let required = ["activity_id", "category_uid", "class_uid", "metadata", "severity_id", "time", "type_uid"];
    for (event, leaf) in said.iter().zip(&leaves) {
        for attribute in required.iter().chain(&["actor", "src_endpoint"]) {
            assert!(!event[*attribute].is_null(), "{attribute} of {event}");
        }
        match event["class_uid"].as_u64() {
            Some(6003) => assert_eq!(event["api"]["operation"], leaf["action"]),
            Some(6005) => assert!(event["database"]["type_id"].is_u64(), "{event}"),
            other => panic!("{other:?}"),
        }
        assert_eq!(event["actor"]["user"]["name"], leaf["principal"]);
        let uid = format!("{}/{}", text(&event["metadata"], "log_name"), text(leaf, "index"));
        assert_eq!(event["metadata"]["uid"], uid);
    }
    assert!(
        said.iter().any(|event| event["type_uid"] == 600_501) && said.iter().any(|event| event["class_uid"] == 6003)
    );

    // A file of another form that was changed, or whose lines were.
    csv.expect("", |file| file.truncate(file.len() - 1), &["other hashes"]);
    let rows = csv.read("");
    let rows: Vec<&str> = rows.split("\r\n").collect();
    let with = |rows: Vec<&str>| rows.join("\r\n").into_bytes();
    let denied = rows[3].replacen("allow", "deny", 1);
    csv.expect("", |file| *file = with([&rows[..3], &[denied.as_str()], &rows[4..]].concat()), &["row 3", "decision"]);
    csv.expect("", |file| *file = with([&rows[..2], &rows[3..]].concat()), &["row 2 "]);
    columns.expect("", |file| file.truncate(file.len() - 1), &["no Parquet"]);
    events.expect("", |file| file.truncate(file.len() - 1), &["breaks off"]);
    events.expect(".leaves", |file| file.truncate(file.len() / 2), &["does not hold"]);
}
