//! Leaves are written in one form and read back the same.

use proptest::prelude::*;

use super::sample::header;
use super::*;

const NOON: Timestamp = Timestamp(1_795_487_952_123_456);

fn one(header: &LeafHeader<'_>, items: &[LeafItem<'_>]) -> String {
    let leaves = prepare(header, items.iter().copied());
    assert_eq!(leaves.len(), 1);
    String::from_utf8(leaves[0].finish(12, NOON)).unwrap()
}

/// The vectors of FORMAT.md, so that the page and the code cannot drift apart.
fn vectors() -> Vec<&'static str> {
    let lines: Vec<&str> = include_str!("../FORMAT.md").lines().filter(|line| line.starts_with("{\"index\"")).collect();
    assert_eq!(lines.len(), 3);
    lines
}

#[test]
fn a_leaf_without_items_is_written_as_specified() {
    assert_eq!(one(&header(), &[]), vectors()[0]);
}

#[test]
fn a_leaf_with_everything_is_written_as_specified() {
    let keys = [("token".to_owned(), 1), ("kek/1".to_owned(), 4)];
    let header = LeafHeader {
        actor: Some("li.na"),
        action: "detokenize",
        purpose: Some("collections"),
        decision: "deny",
        reason: Some("DENIED"),
        keys: &keys,
        detail: &[("job", "7"), ("manifest", "none")],
        ..header()
    };
    let everything = LeafItem {
        field: Some("borrower.name"),
        row: Some(RowId((1 << 48) + 1)),
        view: Some("plain"),
        outcome: "ok",
        subject: Some(SubjectHandle((1 << 48) + 2)),
        version: Some(RowVersion(1)),
        hash: Some(&[0xab; 32]),
        sent: Some(&[0x01; 32]),
    };
    let nothing = LeafItem { outcome: "NOT_FOUND", ..LeafItem::default() };
    assert_eq!(one(&header, &[everything, nothing]), vectors()[1]);
}

#[test]
fn strings_are_escaped_as_specified() {
    let header = LeafHeader {
        principal: "quote \" backslash \\ slash / tab \t newline \n return \r back \u{8} feed \u{c} nul \0 del \u{7f} 张 \u{1f512}",
        ..header()
    };
    assert_eq!(one(&header, &[]), vectors()[2]);
}

#[test]
fn the_vectors_are_read_back() {
    for (line, hash) in vectors().into_iter().zip(include_str!("../FORMAT.md").split("leaf hash `").skip(1)) {
        assert_eq!(parse(line.as_bytes()).unwrap().to_line(), line.as_bytes());
        let written = data_encoding::HEXLOWER.encode(&crate::leaf_hash(line.as_bytes()));
        assert_eq!(Some(written.as_str()), hash.split('`').next());
    }
}

#[test]
fn a_long_string_is_cut_and_says_so() {
    for (text, kept) in [
        ("x".repeat(1_024), "x".repeat(1_024)),
        ("x".repeat(1_025), format!("{}\u{2026}", "x".repeat(1_018))),
        ("张".repeat(171), format!("{}\u{2026}", "张".repeat(169))),
        ("\u{1f512}".repeat(100), format!("{}\u{2026}", "\u{1f512}".repeat(84))),
    ] {
        let line = one(&LeafHeader { principal: &text, ..header() }, &[]);
        assert_eq!(parse(line.as_bytes()).unwrap().principal, kept);
    }
}

#[test]
fn too_many_keys_are_left_out_and_counted() {
    let keys: Vec<(String, u32)> = (0..5_000).map(|number| (format!("kek/{number}"), number)).collect();
    let leaf = parse(one(&LeafHeader { keys: &keys, ..header() }, &[]).as_bytes()).unwrap();
    let (last, kept) = leaf.keys.split_last().unwrap();
    assert_eq!(kept, &keys[..kept.len()]);
    assert_eq!(last, &("\u{2026}".to_owned(), u32::try_from(keys.len() - kept.len()).unwrap()));
}

#[test]
fn ten_thousand_items_become_parts_under_the_limit() {
    let item = |number: u64| LeafItem {
        field: Some("borrower.name"),
        row: Some(RowId((1 << 48) + number)),
        outcome: "ok",
        subject: Some(SubjectHandle((1 << 48) + number)),
        version: Some(RowVersion(1)),
        hash: Some(&[0xab; 32]),
        ..LeafItem::default()
    };
    let leaves = prepare(&header(), (0..10_000).map(item));
    let mut rows = Vec::new();
    for (index, leaf) in leaves.iter().enumerate() {
        let line = leaf.finish(u64::MAX, NOON);
        assert!(line.len() <= MAX_LINE);
        assert!(index + 1 == leaves.len() || line.len() > MAX_LINE - 400, "part {index} has only {} bytes", line.len());
        let parsed = parse(&line).unwrap();
        assert_eq!(parsed.part, Some(Part { which: index as u64 + 1, of: leaves.len() as u64 }));
        rows.extend(parsed.items.iter().filter_map(|item| item.row));
    }
    assert!(rows.into_iter().eq((0..10_000).map(|number| RowId((1 << 48) + number))));
}

#[test]
fn the_longest_header_leaves_room_for_the_longest_items() {
    let long = "\u{1f512}".repeat(2_000);
    let keys: Vec<(String, u32)> = (0..100).map(|_| (long.clone(), u32::MAX)).collect();
    let detail: Vec<(&str, &str)> = (0..100).map(|_| (long.as_str(), long.as_str())).collect();
    let header = LeafHeader {
        principal: &long,
        actor: Some(&long),
        action: &long,
        purpose: Some(&long),
        decision: &long,
        reason: Some(&long),
        policy: u32::MAX,
        schema: u32::MAX,
        keys: &keys,
        client: &long,
        detail: &detail,
        ..header()
    };
    let item = LeafItem {
        field: Some(&long),
        row: Some(RowId(u64::MAX)),
        view: Some(&long),
        outcome: &long,
        subject: Some(SubjectHandle(u64::MAX)),
        version: Some(RowVersion(u32::MAX)),
        hash: Some(&[0xff; 32]),
        sent: Some(&[0xff; 32]),
    };
    for leaf in prepare(&header, std::iter::repeat_n(item, 20)) {
        let line = leaf.finish(u64::MAX, Timestamp(u64::MAX));
        assert!(line.len() <= MAX_LINE);
        assert!(parse(&line).unwrap().items.len() > 1);
    }
}

#[test]
fn what_the_vault_would_write_otherwise_is_refused() {
    let line = vectors()[1];
    let changed = [
        line.replace("\"policy\":3", "\"policy\": 3"),
        line.replace("\"policy\":3", "\"policy\":03"),
        line.replace("\"policy\":3", "\"policy\":3.0"),
        line.replace("\"index\":\"12\"", "\"index\":12"),
        line.replace("\"index\":\"12\"", "\"index\":\"012\""),
        line.replace("\"index\":\"12\"", "\"index\":\"+12\""),
        line.replace("loan-core", "loan\\u002dcore"),
        line.replace("loan-core", "loan\\u5F20core"),
        line.replace("loan-core", "loan张core"),
        line.replace("\\/", "/").replace("app/", "app\\/"),
        line.replace("\"policy\":3,\"schema\":2", "\"schema\":2,\"policy\":3"),
        line.replace("\"schema\":2", "\"schema\":2,\"schema\":2"),
        line.replace("\"schema\":2", "\"schema\":2,\"extra\":2"),
        line.replace("\"actor\":\"li.na\"", "\"actor\":null"),
        line.replace("abab", "ABAB"),
        line.replace("\"sha256\":\"abab", "\"sha256\":\"ab"),
        line.replace(".123456Z", ".123456+00:00"),
        line.replace(",\"schema\":2", ""),
        format!("{line} "),
        format!("{line}\n"),
        format!("{line}{line}"),
        format!(" {line}"),
        vectors()[0].replace("}", ",\"items\":[]}"),
        String::new(),
        "[".repeat(60_000),
        line.replace("loan-core", &"x".repeat(70_000)),
    ];
    for text in changed {
        assert_ne!(text, line);
        let error = parse(text.as_bytes()).unwrap_err();
        assert!(!error.to_string().contains("loan"), "{error}");
    }
}

/// Strings that try to break out of a line: quotes, escapes, controls, other scripts, beyond the basic plane.
fn hostile() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[a-z./-]{0,20}",
        2 => prop::collection::vec(prop_oneof![any::<char>(), Just('"'), Just('\\'), Just('\n'), Just('\u{2028}')], 0..30)
            .prop_map(String::from_iter),
        1 => prop::collection::vec(any::<char>(), 150..1_200).prop_map(String::from_iter),
    ]
}

/// A string that fits, so that it must come back as it was.
fn is_kept(text: &str) -> bool {
    text.chars().all(|character| character != '\u{2026}') && text.len() < 170
}

type Item =
    (Option<String>, Option<u64>, Option<String>, String, Option<u64>, Option<u32>, Option<[u8; 32]>, Option<[u8; 32]>);

fn items() -> impl Strategy<Value = Vec<Item>> {
    use prop::option::of as some;

    let item = (
        some(hostile()),
        some(any::<u64>()),
        some(hostile()),
        hostile(),
        some(any::<u64>()),
        some(any::<u32>()),
        some(any::<[u8; 32]>()),
        some(any::<[u8; 32]>()),
    );
    prop::collection::vec(item, 0..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn every_leaf_is_ascii_within_the_limit_and_read_back_as_it_was(
        request in any::<[u8; 16]>(),
        words in prop::collection::vec(hostile(), 7),
        absent in any::<[bool; 3]>(),
        versions in any::<[u32; 2]>(),
        keys in prop::collection::vec((hostile(), any::<u32>()), 0..30),
        detail in prop::collection::vec((hostile(), hostile()), 0..30),
        items in items(),
        index in any::<u64>(),
        time in 0..253_402_300_799_999_999_u64,
    ) {
        let unless = |absent: bool, word: usize| (!absent).then(|| words[word].as_str());
        let detail: Vec<(&str, &str)> = detail.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let header = LeafHeader {
            request: &request,
            principal: &words[0],
            actor: unless(absent[0], 1),
            action: &words[2],
            purpose: unless(absent[1], 3),
            decision: &words[4],
            reason: unless(absent[2], 5),
            policy: versions[0],
            schema: versions[1],
            keys: &keys,
            client: &words[6],
            detail: &detail,
        };
        let leaves = prepare(&header, items.iter().map(|item| LeafItem {
            field: item.0.as_deref(),
            row: item.1.map(RowId),
            view: item.2.as_deref(),
            outcome: &item.3,
            subject: item.4.map(SubjectHandle),
            version: item.5.map(RowVersion),
            hash: item.6.as_ref(),
            sent: item.7.as_ref(),
        }));
        let mut read = Vec::new();
        for (number, leaf) in leaves.iter().enumerate() {
            let line = leaf.finish(index, Timestamp(time));
            prop_assert!(line.len() <= MAX_LINE && line.len() <= leaf.max_len());
            prop_assert!(line.iter().all(|byte| matches!(byte, b' '..=b'~')));
            let parsed = parse(&line).unwrap();
            prop_assert_eq!((parsed.index, parsed.time, parsed.request), (index, Timestamp(time), request));
            let part = (leaves.len() > 1).then_some(Part { which: number as u64 + 1, of: leaves.len() as u64 });
            prop_assert_eq!(parsed.part, part);
            if is_kept(&words[0]) {
                prop_assert_eq!(&parsed.principal, &words[0]);
            }
            prop_assert_eq!(parsed.actor.is_none(), absent[0]);
            read.extend(parsed.items);
        }
        prop_assert_eq!(read.len(), items.len());
        for (read, item) in read.iter().zip(&items) {
            prop_assert_eq!((read.row, read.subject), (item.1.map(RowId), item.4.map(SubjectHandle)));
            prop_assert_eq!((read.version, read.hash, read.sent), (item.5.map(RowVersion), item.6, item.7));
            if is_kept(&item.3) {
                prop_assert_eq!(&read.outcome, &item.3);
            }
        }
    }

    #[test]
    fn no_bytes_panic_and_no_other_bytes_pass(mut line in Just(vectors()[1].as_bytes().to_vec()), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let at = at.index(line.len());
        line[at] = byte;
        if let Ok(leaf) = parse(&line) {
            prop_assert_eq!(leaf.to_line(), line);
        }
    }
}
