//! `strongroom import` and `strongroom export`: files in, the same files with tokens out, and back, whatever happens
//! meanwhile.

use std::collections::HashSet;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpStream};

use crate::harness::TestVault;

const BORROWER: &[&str] = &[
    "name=borrower.name",
    "id_card=borrower.id_card",
    "mobile=borrower.mobile",
    "bank_card=borrower.bank_card",
    "email=borrower.email",
    "address=borrower.address",
];

/// The words of an import.
fn import<'a>(file: &'a str, maps: &[&'a str], out: &'a str) -> Vec<&'a str> {
    let maps = maps.iter().flat_map(|map| ["--map", map]);
    ["import", file].into_iter().chain(maps).chain(["--subject", "customer", "-o", out]).collect()
}

/// The words of the way back, plain.
fn export<'a>(file: &'a str, maps: &[&'a str], out: &'a str) -> Vec<&'a str> {
    let maps = maps.iter().flat_map(|map| ["--map", map]);
    let purpose = ["--purpose", "loan_servicing", "-o", out];
    ["export", file].into_iter().chain(maps).chain(purpose).collect()
}

fn path(vault: &TestVault, name: &str) -> String {
    vault.scratch().join(name).to_str().unwrap().to_owned()
}

fn beside(path: &str, ending: &str) -> PathBuf {
    PathBuf::from(format!("{path}{ending}"))
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn luhn(body: &str) -> String {
    let digit = |(place, byte): (usize, u8)| {
        let digit = u32::from(byte - b'0') * if place.is_multiple_of(2) { 2 } else { 1 };
        digit / 10 + digit % 10
    };
    let sum: u32 = body.bytes().rev().enumerate().map(digit).sum();
    format!("{body}{}", (10 - sum % 10) % 10)
}

fn id_card(n: usize) -> String {
    const WEIGHTS: [usize; 17] = [7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2];
    let body =
        format!("110105{}{:02}{:02}{:03}", 1950 + n / 330_000 % 50, n / 27_000 % 12 + 1, n / 1_000 % 27 + 1, n % 1_000);
    let sum: usize = body.bytes().zip(WEIGHTS).map(|(digit, weight)| usize::from(digit - b'0') * weight).sum();
    format!("{body}{}", char::from(b"10X98765432"[sum % 11]))
}

/// A made-up borrower, the cells of one line of CSV.
fn borrower(n: usize) -> [String; 7] {
    [
        format!("c-{n}"),
        format!("张{n}"),
        id_card(n),
        format!("138{n:08}"),
        luhn(&format!("622202{n:09}")),
        format!("b{n}@mail.example"),
        format!("\"北京市朝阳区建国路 {n} 号, \"\"{n}\"\" 室\""),
    ]
}

fn borrowers(count: usize) -> String {
    let header = "customer,name,id_card,mobile,bank_card,email,address\n".to_owned();
    std::iter::once(header).chain((0..count).map(|n| borrower(n).join(",") + "\n")).collect()
}

#[test]
fn a_csv_file_comes_back_byte_by_byte() {
    let vault = TestVault::start();
    let [id_1, id_2] = [id_card(1), id_card(2)];
    let text = format!(
        "\u{feff}customer,\"name\",id_card,mobile,\"full \"\"address\"\"\",note\r\n\
         c-1,\"张三\",{id_1},,\"北京市朝阳区\r\n建国路 \"\"1\"\" 号, 2 室\",\"a,b\"\r\n\
         \r\n\
         c-2,  Zoë \u{1f600} O'Neill ,\"{id_2}\",+86 138 1234 5678,,\"\"\r\n\
         c-3,,,,,only what is not mapped\r\n\
         \"c-4\",\"\",{id_2},13812345678,Weg 1,no newline at the end"
    );
    let maps = [
        "name=borrower.name",
        "id_card=borrower.id_card",
        "mobile=borrower.mobile",
        "full \"address\"=borrower.address",
    ];
    let [file, tokens, back] = ["in.csv", "tokens.csv", "back.csv"].map(|name| path(&vault, name));
    fs::write(&file, &text).unwrap();
    let said = vault.cli_ok(&[&import(&file, &maps, &tokens)[..], &["--output", "json"]].concat());
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!((&said["records"], &said["values"], &said["rejected"]), (&4.into(), &9.into(), &0.into()), "{said}");

    let with_tokens = fs::read_to_string(&tokens).unwrap();
    for kept in
        ["\u{feff}customer,\"name\",", "\"a,b\"\r\n", "c-3,,,,,only", "\"c-4\",\"\",srt1_", "no newline at the end"]
    {
        assert!(with_tokens.contains(kept), "{kept:?}: {with_tokens}");
    }
    for personal in ["张三", "Zoë", id_1.as_str(), &id_2, "13812345678", "建国路", "Weg 1"] {
        assert!(!with_tokens.contains(personal), "{personal}");
    }
    vault.cli_ok(&export(&tokens, &maps, &back));
    assert_eq!(fs::read_to_string(&back).unwrap(), text);
    // Only its owner may read either file, and no other file is left.
    for file in [&tokens, &back] {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!beside(file, ".part").exists() && !beside(file, ".progress").exists());
        assert!(!beside(file, ".rejects.csv").exists());
    }

    // Another delimiter, by the file's name or by request; a masked view.
    let tabs = format!("customer\tname\tid_card\nc-1\t李四\t{id_1}\n");
    let semicolons = tabs.replace('\t', ";");
    for (name, text, extra) in [("in.tsv", &tabs, &[][..]), ("semicolons.csv", &semicolons, &["--delimiter", ";"])] {
        let [file, tokens, back, masked] =
            ["", ".tokens.tsv", ".back", ".masked"].map(|end| path(&vault, &format!("{name}{end}")));
        fs::write(&file, text).unwrap();
        vault.cli_ok(&[&import(&file, &maps[..2], &tokens)[..], extra].concat());
        vault.cli_ok(&[&export(&tokens, &maps[..2], &back)[..], extra].concat());
        assert_eq!(fs::read_to_string(&back).unwrap(), *text);
        vault.cli_ok(&[&export(&tokens, &maps[..2], &masked)[..], extra, &["--view", "masked"]].concat());
        let hidden = text.replace("李四", "李**").replace(&id_1, &format!("110105********{}", &id_1[14..]));
        assert_eq!(fs::read_to_string(&masked).unwrap(), hidden);
    }
    vault.verify_ledger();
}

#[test]
fn a_jsonl_file_comes_back_byte_by_byte() {
    let vault = TestVault::start();
    let text = "{\"customer\":\"c-1\",\"name\":\"张\\\"三\\\"\",\"home\":\"建国路\\n1\\\\2\",\"income\":8500.50,\"nested\":{\"name\":\"left alone\"},\"n\":1e3}\r\n\
                \n\
                { \"income\" : -0012e , \"customer\" : 2 }\n\
                { \"income\" : null , \"customer\" : 2, \"name\": \"\", \"a\\u0062c\" : [ 1, {} ] }\n\
                {\"customer\":\"c-3\",\"income\":\"12\",\"name\":\"😀\",\"x\":\"\\/\"}";
    let maps = ["name=borrower.name", "income=borrower.monthly_income", "home=borrower.address"];
    let [file, tokens, back] = ["in.jsonl", "tokens.jsonl", "back.jsonl"].map(|name| path(&vault, name));
    fs::write(&file, text).unwrap();
    // The third line is no JSON; without it, all is well.
    let output = vault.cli(&import(&file, &maps, &tokens));
    assert_eq!(code(&output), 3);
    assert_eq!(fs::read_to_string(beside(&tokens, ".rejects.csv")).unwrap(), "line,column,rule\n3,,json\n");
    let kept: String = text.split_inclusive('\n').enumerate().filter(|(n, _)| *n != 2).map(|(_, line)| line).collect();
    let with_tokens = fs::read_to_string(&tokens).unwrap();
    assert!(
        with_tokens.contains("\"nested\":{\"name\":\"left alone\"},\"n\":1e3}\r\n\n{ \"income\" : null"),
        "{with_tokens}"
    );
    assert!(!with_tokens.contains("8500") && !with_tokens.contains('张') && !with_tokens.contains('😀'));
    let words = [&export(&tokens, &maps, &back)[..], &["--number", "income"]].concat();
    let words: Vec<_> =
        words.iter().map(|word| if *word == "loan_servicing" { "loan_origination" } else { word }).collect();
    vault.cli_ok(&words);
    // A number that was written as a text comes back as a number where numbers are asked for; all else is the same.
    assert_eq!(fs::read_to_string(&back).unwrap(), kept.replace("\"12\"", "12"));
    vault.verify_ledger();
}

#[test]
fn what_can_not_be_stored_is_named_by_line_and_rule_and_the_rest_goes_on() {
    let vault = TestVault::start();
    let rows: Vec<[String; 7]> = (0..8).map(borrower).collect();
    let mut lines: Vec<String> = rows.iter().map(|row| row.join(",") + "\n").collect();
    // Each of these is on line index + 2, as long as no cell has a line break.
    let mistyped = format!("{}{}", &rows[1][2][..17], if rows[1][2].ends_with('7') { '8' } else { '7' });
    lines[1] = lines[1].replace(&rows[1][2], &mistyped);
    lines[2] = lines[2].replace(&rows[2][4], "6222020000000021").replace(&rows[2][5], "nobody");
    lines[3] = lines[3].replace("c-3,", ",");
    lines[4] = "c-4,too,few\n".to_owned();
    lines[5] = lines[5].replace(&rows[5][1], "\"quoted\"badly");
    let text = borrowers(0) + &lines.concat();
    let [file, tokens, back] = ["in.csv", "tokens.csv", "back.csv"].map(|name| path(&vault, name));
    fs::write(&file, &text).unwrap();
    let output = vault.cli(&import(&file, BORROWER, &tokens));
    assert_eq!(code(&output), 3, "{output:?}");
    let rejects = fs::read_to_string(beside(&tokens, ".rejects.csv")).unwrap();
    let expected = "line,column,rule\n3,id_card,check_digit\n4,bank_card,luhn\n4,email,email\n5,customer,subject_empty\n\
                    6,,csv_columns\n7,name,csv_quotes\n";
    assert_eq!(rejects, expected);
    let told = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(told.contains("5 records") && told.contains("tokens.csv.rejects.csv"), "{told}");
    for value in [mistyped.as_str(), "6222020000000021", "nobody", "quoted", &rows[2][2], &rows[3][3]] {
        assert!(!rejects.contains(value) && !told.contains(value), "{value}");
    }
    // The others went in.
    vault.cli_ok(&export(&tokens, BORROWER, &back));
    let stored = borrowers(0) + &lines[0] + &lines[6] + &lines[7];
    assert_eq!(fs::read_to_string(&back).unwrap(), stored);

    // Of the way back: a token that never was, one of another field, and what is no token.
    let mut with_tokens = fs::read_to_string(&tokens).unwrap();
    let cells: Vec<String> = with_tokens.lines().last().unwrap().split(',').map(str::to_owned).collect();
    let row = |name: &str, id_card: &str| format!("c-9,{name},{id_card},,,,\n");
    with_tokens += &row("never-was", &cells[2]);
    with_tokens += &row(&cells[2], &cells[1]);
    with_tokens += &row("srt1_short", "");
    with_tokens += &row(&cells[1], &cells[2]);
    let [broken, back] = ["broken.csv", "rest.csv"].map(|name| path(&vault, name));
    fs::write(&broken, &with_tokens).unwrap();
    let output = vault.cli(&export(&broken, BORROWER, &back));
    assert_eq!(code(&output), 3, "{output:?}");
    let rejects = fs::read_to_string(beside(&back, ".rejects.csv")).unwrap();
    let expected =
        "line,column,rule\n5,name,not_found\n6,name,other_field\n6,id_card,other_field\n7,name,token_invalid\n";
    assert_eq!(rejects, expected);
    assert_eq!(fs::read_to_string(&back).unwrap(), stored + &row(&rows[7][1], &rows[7][2]));
}

#[test]
fn a_command_that_makes_no_sense_begins_nothing() {
    let vault = TestVault::start();
    let [file, out] = ["in.csv", "out.csv"].map(|name| path(&vault, name));
    fs::write(&file, borrowers(2)).unwrap();
    let unknown_field = import(&file, &["name=borrower.nickname"], &out);
    let unknown_column = import(&file, &["nickname=borrower.name"], &out);
    let twice = import(&file, &["name=borrower.name", "name=borrower.id_card"], &out);
    let unknown_form = [&import(&file, BORROWER, &out)[..], &["--format", "xml"]].concat();
    let purpose = ["export", &file, "--map", "name=borrower.name", "--purpose", "curiosity", "-o", &out];
    for (words, expected, hint) in [
        (&unknown_field[..], 1, "strongroom schema show"),
        (&unknown_column, 2, "customer"),
        (&twice, 2, "twice"),
        (&unknown_form, 2, "jsonl"),
        (&purpose, 1, "loan_servicing"),
    ] {
        let output = vault.cli(words);
        let told = String::from_utf8(output.stderr.clone()).unwrap();
        assert_eq!(code(&output), expected, "{words:?}: {told}");
        assert!(told.contains(hint), "{words:?}: {told}");
        let left: Vec<_> = fs::read_dir(vault.scratch()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(!left.iter().any(|name| name.to_string_lossy().starts_with("out.csv")), "{words:?}: {left:?}");
    }
    // What is there already stays.
    fs::write(&out, "mine").unwrap();
    let output = vault.cli(&import(&file, BORROWER, &out));
    assert_eq!((code(&output), fs::read_to_string(&out).unwrap().as_str()), (1, "mine"));
}

/// A file of which every hundredth record can't be stored.
fn with_bad_rows(count: usize) -> (String, usize, String) {
    let mut text = borrowers(0);
    let (mut good, mut rejects) = (0, "line,column,rule\n".to_owned());
    for n in 0..count {
        let mut cells = borrower(n);
        if n % 100 == 37 {
            cells[3] = "12345".to_owned();
            rejects += &format!("{},mobile,mobile\n", n + 2);
        } else {
            good += 1;
        }
        text += &(cells.join(",") + "\n");
    }
    (text, good, rejects)
}

/// Checks what an import made, however often it was interrupted: every record once, every value stored once, every
/// token good for its value.
async fn came_through_whole(vault: &TestVault, text: &str, good: usize, rejects: &str, maps: &[&str], tokens: &str) {
    assert_eq!(fs::read_to_string(beside(tokens, ".rejects.csv")).unwrap(), rejects);
    let with_tokens = fs::read_to_string(tokens).unwrap();
    assert_eq!(with_tokens.lines().count(), good + 1);
    let distinct: HashSet<&str> = with_tokens.lines().skip(1).map(|line| line.split(',').nth(1).unwrap()).collect();
    assert_eq!(distinct.len(), good);
    let back = path(vault, "back.csv");
    vault.cli_ok(&export(tokens, maps, &back));
    let bad: HashSet<usize> =
        rejects.lines().skip(1).map(|line| line.split(',').next().unwrap().parse().unwrap()).collect();
    let kept: String =
        text.split_inclusive('\n').enumerate().filter(|(n, _)| !bad.contains(&(n + 1))).map(|(_, line)| line).collect();
    assert!(fs::read_to_string(&back).unwrap() == kept, "what came back is not what went in");

    let leaves = vault.leaves().await;
    let items = leaves.iter().filter(|leaf| leaf["action"] == "tokenize").flat_map(|leaf| leaf["items"].as_array());
    let stored: Vec<_> = items.flatten().filter(|item| item["outcome"] == "ok").collect();
    let rows: HashSet<&str> = stored.iter().map(|item| item["row"].as_str().unwrap()).collect();
    assert_eq!((stored.len(), rows.len()), (good * maps.len(), good * maps.len()), "values were stored twice");
    vault.verify_ledger();
    let mobiles = text.lines().skip(1).step_by(9).map(|line| line.split(',').nth(3).unwrap());
    vault.hides(mobiles.filter(|mobile| mobile.len() == 11));
}

/// Waits until a file has other content than it had, or the process has ended; says whether it runs on.
fn runs_until_noted(child: &mut Child, progress: &Path, notes: usize) -> bool {
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut last = fs::read(progress).unwrap_or_default();
    let mut seen = 0;
    // Whether or not there was a run before this one, its file is there before anything is sent.
    while seen < notes || !progress.exists() {
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        assert!(Instant::now() < deadline, "the import does not get on");
        let now = fs::read(progress).unwrap_or_default();
        if now != last && !now.is_empty() {
            (last, seen) = (now, seen + 1);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    true
}

#[tokio::test]
async fn an_import_that_is_killed_again_and_again_makes_no_token_twice() {
    let vault = TestVault::start();
    let (text, good, rejects) = with_bad_rows(3_000);
    let maps = &["name=borrower.name", "mobile=borrower.mobile"];
    let [file, tokens] = ["in.csv", "tokens.csv"].map(|name| path(&vault, name));
    fs::write(&file, &text).unwrap();
    let words = [&import(&file, maps, &tokens)[..], &["--batch", "20"]].concat();
    let mut kills = 0;
    let last = loop {
        let mut child = vault.cli_command(&words).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        // At once, after the first note, after some more.
        if kills < 12 && runs_until_noted(&mut child, &beside(&tokens, ".progress"), kills % 4) {
            child.kill().unwrap();
            child.wait().unwrap();
            kills += 1;
            continue;
        }
        break child.wait_with_output().unwrap();
    };
    assert!(kills >= 8, "only {kills} runs were killed");
    assert_eq!(code(&last), 3, "{}", String::from_utf8_lossy(&last.stderr));
    came_through_whole(&vault, &text, good, &rejects, maps, &tokens).await;
}

/// A door with an address that stays, before a server that comes and goes on another port each time.
struct Door {
    address: SocketAddr,
    behind: Arc<Mutex<SocketAddr>>,
}

impl Door {
    async fn before(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let door = Self { address: listener.local_addr().unwrap(), behind: Arc::new(Mutex::new(server)) };
        let behind = Arc::clone(&door.behind);
        tokio::spawn(async move {
            while let Ok((mut caller, _)) = listener.accept().await {
                let server = *behind.lock().unwrap();
                tokio::spawn(async move {
                    // While there is no server, the caller finds a closed door.
                    let Ok(mut server) = TcpStream::connect(server).await else { return };
                    drop(tokio::io::copy_bidirectional(&mut caller, &mut server).await);
                });
            }
        });
        door
    }

    fn leads_to(&self, vault: &TestVault) {
        *self.behind.lock().unwrap() = address(vault);
    }
}

fn address(vault: &TestVault) -> SocketAddr {
    vault.url().strip_prefix("https://").unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_import_outlives_a_server_that_is_killed_and_started_again() {
    let mut vault = TestVault::start();
    let door = Door::before(address(&vault)).await;
    let url = format!("https://{}", door.address);
    let (text, good, rejects) = with_bad_rows(2_000);
    let maps = &["name=borrower.name", "mobile=borrower.mobile"];
    let [file, tokens] = ["in.csv", "tokens.csv"].map(|name| path(&vault, name));
    fs::write(&file, &text).unwrap();
    let words = [&import(&file, maps, &tokens)[..], &["--batch", "20"]].concat();
    let start = |vault: &TestVault| {
        let mut command = std::process::Command::new(crate::harness::BINARY);
        command.args(&words).arg("--dir").arg(vault.dir()).args(["--address", &url]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let mut child = start(&vault);
    let mut kills = 0;
    while kills < 3 && runs_until_noted(&mut child, &beside(&tokens, ".progress"), 2) {
        vault.kill();
        kills += 1;
        // The second time the command goes as well, as with a machine that loses its power.
        if kills == 2 {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        vault.up();
        door.leads_to(&vault);
        if kills == 2 {
            child = start(&vault);
        }
    }
    assert_eq!(kills, 3, "the import ended before all kills");
    let last = child.wait_with_output().unwrap();
    assert_eq!(code(&last), 3, "{}", String::from_utf8_lossy(&last.stderr));
    came_through_whole(&vault, &text, good, &rejects, maps, &tokens).await;
}

#[test]
fn a_run_is_taken_up_only_with_the_same_command_and_the_same_file() {
    let vault = TestVault::start();
    let (text, ..) = with_bad_rows(3_000);
    let [file, tokens] = ["in.csv", "tokens.csv"].map(|name| path(&vault, name));
    fs::write(&file, &text).unwrap();
    let words = [&import(&file, &BORROWER[..1], &tokens)[..], &["--batch", "20"]].concat();
    let mut child = vault.cli_command(&words).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    assert!(runs_until_noted(&mut child, &beside(&tokens, ".progress"), 3), "it ended too soon");
    child.kill().unwrap();
    child.wait().unwrap();
    let other = [&import(&file, &BORROWER[..2], &tokens)[..], &["--batch", "20"]].concat();
    let output = vault.cli(&other);
    assert_eq!(code(&output), 1, "{output:?}");
    fs::write(&file, text.replacen("张1,", "李1,", 1)).unwrap();
    let output = vault.cli(&words);
    assert_eq!(code(&output), 1, "{output:?}");
    assert!(!Path::new(&tokens).exists());
    // Put back, it goes on.
    fs::write(&file, &text).unwrap();
    assert_eq!(code(&vault.cli(&words)), 0);
    assert_eq!(fs::read_to_string(&tokens).unwrap().lines().count(), 3_001);
}

#[test]
fn twenty_thousand_borrowers_come_back_byte_by_byte() {
    let vault = TestVault::start();
    let text = borrowers(20_000);
    let [file, tokens, back] = ["in.csv", "tokens.csv", "back.csv"].map(|name| path(&vault, name));
    fs::write(&file, &text).unwrap();
    vault.cli_ok(&import(&file, BORROWER, &tokens));
    vault.cli_ok(&export(&tokens, BORROWER, &back));
    assert!(fs::read_to_string(&back).unwrap() == text, "what came back is not what went in");
    vault.verify_ledger();
    // Of each hundred borrowers one, without the ids and names that are too short to be told from chance.
    let some = (0..20_000).step_by(100).map(borrower);
    vault.hides(
        some.flat_map(|cells| cells.into_iter().skip(2)).map(|cell| cell.trim_matches('"').replace("\"\"", "\"")),
    );
}
