//! What every form keeps, and what each says.

use std::collections::BTreeMap;

use bytes::Bytes;
use parquet::basic::{Encoding, EncodingMask, PageType};
use parquet::file::metadata::{
    ColumnChunkMetaDataBuilder, PageEncodingStats, ParquetMetaDataBuilder, ParquetMetaDataReader,
    ParquetMetaDataWriter, RowGroupMetaData,
};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use proptest::prelude::*;
use serde_json::Value;
use strongroom_ids::{RowId, RowVersion, SubjectHandle};
use strongroom_ledger::Timestamp;
use strongroom_ledger::leaf::{self, LeafHeader, LeafItem, ParsedItem, ParsedLeaf, Part};

use crate::{Difference, FORM_VERSION, Format, compare, convert};

const ORIGIN: &str = "strongroom/11/22/0/1";

/// Names as callers choose them: formulas, quotes, line ends, other scripts.
fn name() -> impl Strategy<Value = String> {
    prop_oneof![3 => "[a-z]{1,9}(/[a-z-]{1,9})?", 1 => "[=+@'\"\\\\,;\r\n\t\u{0}é\u{ff1d}\u{1f512}a-]{1,12}"]
}

fn leaves() -> impl Strategy<Value = Vec<Vec<u8>>> {
    use prop::option::of as some;

    let item = (some(name()), some(any::<u64>()), some(name()), some(any::<u64>()), some(any::<u32>()), any::<bool>());
    let detail = prop::collection::vec(("[a-z]{1,6}", name()), 0..3);
    let leaf = (prop::collection::vec(name(), 7), any::<[bool; 3]>(), detail, prop::collection::vec(item, 0..5));
    prop::collection::vec(leaf, 0..12).prop_map(|leaves| {
        let lines = (0..).zip(leaves).flat_map(|(number, (words, there, detail, items))| {
            let word = |there: bool, at: usize| there.then(|| words[at].as_str());
            let mut detail: Vec<(&str, &str)> = detail.iter().map(|(name, value)| (&**name, &**value)).collect();
            detail.dedup_by_key(|(name, _)| *name);
            detail.truncate(1);
            let header = LeafHeader {
                request: &[number as u8; 16],
                principal: &words[0],
                actor: word(there[0], 1),
                action: &words[2],
                purpose: word(there[1], 3),
                decision: &words[4],
                reason: word(there[2], 5),
                policy: 3,
                schema: u32::MAX,
                keys: &[("token".to_owned(), 1), ("kek/1".to_owned(), 4)],
                client: &words[6],
                detail: &detail,
            };
            let hash = [number as u8; 32];
            let items = items.iter().map(|(field, row, view, subject, version, hashed)| LeafItem {
                field: field.as_deref(),
                row: row.map(RowId),
                view: view.as_deref(),
                outcome: "ok",
                subject: subject.map(SubjectHandle),
                version: version.map(RowVersion),
                hash: hashed.then_some(&hash),
                sent: (!hashed).then_some(&hash),
            });
            let parts = leaf::prepare(&header, items);
            parts.iter().map(|part| part.finish(number, Timestamp(1_795_000_000_123_456 + number))).collect::<Vec<_>>()
        });
        lines.collect()
    })
}

/// The header of a leaf of which its items matter.
pub(crate) fn header<'h>() -> LeafHeader<'h> {
    LeafHeader {
        request: &[1; 16],
        principal: "app/a",
        action: "detokenize",
        policy: 1,
        schema: 1,
        client: "",
        ..leaf::sample::header()
    }
}

fn text(lines: &[Vec<u8>]) -> Vec<u8> {
    lines.iter().flat_map(|line| [line, &b"\n"[..]].concat()).collect()
}

fn file(format: Format, lines: &[Vec<u8>]) -> Vec<u8> {
    let (mut file, mut done) = (Vec::new(), 0);
    convert(format, ORIGIN, &text(lines)[..], &mut file, |lines| done = lines).unwrap();
    assert_eq!(done, lines.len() as u64);
    file
}

/// What a file of a form is, held against lines.
fn held(format: Format, file: &[u8], lines: &[Vec<u8>]) -> Result<(), Difference> {
    compare(format, ORIGIN, &text(lines)[..], Bytes::copy_from_slice(file), |_| {})
}

/// How many rows leaves have in a form.
fn rows_of(format: Format, lines: &[Vec<u8>]) -> u64 {
    let rows = |line: &Vec<u8>| match format {
        Format::Jsonl | Format::Ocsf => 1,
        Format::Csv | Format::Parquet => leaf::parse(line).unwrap().items.len().max(1) as u64,
    };
    lines.iter().map(rows).sum()
}

/// What a file says, however it is written.
fn told(format: Format, file: &[u8]) -> Vec<Vec<u8>> {
    let lines = || file.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    match format {
        Format::Jsonl => vec![file.to_vec()],
        // Read again, members stand in the order of their names.
        Format::Ocsf => lines()
            .map(|line| {
                let event: BTreeMap<String, Value> = serde_json::from_slice(line).unwrap();
                serde_json::to_vec(&event).unwrap()
            })
            .collect(),
        Format::Csv => leaves_of(&read_csv(file)),
        Format::Parquet => leaves_of(&read_parquet(file)),
    }
}

/// A table's rows by the names of their columns, without the cells in which nothing stands.
type Table = Vec<BTreeMap<String, String>>;

fn read_csv(file: &[u8]) -> Table {
    let mut reader = csv::Reader::from_reader(file);
    let names = reader.headers().unwrap().clone();
    let cell = crate::csv::unguarded;
    let row = |row: csv::StringRecord| {
        let cells = names.iter().zip(&row).filter(|(_, text)| !text.is_empty());
        cells.map(|(name, text)| (name.to_owned(), cell(text))).collect()
    };
    reader.records().map(|one| row(one.unwrap())).collect()
}

fn read_parquet(file: &[u8]) -> Table {
    let reader = SerializedFileReader::new(Bytes::copy_from_slice(file)).unwrap();
    let cell = |field: &Field| match field {
        Field::Null => None,
        Field::Str(text) => Some(text.clone()),
        Field::ULong(number) => Some(number.to_string()),
        Field::TimestampMicros(time) => Some(Timestamp(time.cast_unsigned()).to_string()),
        other => panic!("{other}"),
    };
    let rows = reader.get_row_iter(None).unwrap().map(|row| {
        let row = row.unwrap();
        row.get_column_iter().filter_map(|(name, field)| Some((name.clone(), cell(field)?))).collect()
    });
    rows.collect()
}

/// The leaves that a table says.
fn leaves_of(table: &Table) -> Vec<Vec<u8>> {
    let rows = table.chunk_by(|one, next| one["index"] == next["index"]);
    let leaf = |rows: &[BTreeMap<String, String>]| {
        let first = &rows[0];
        let text = |name: &str| first.get(name).cloned();
        let members = |name: &str| {
            let members: serde_json::Map<String, Value> =
                first.get(name).map(|text| serde_json::from_str(text).unwrap()).unwrap_or_default();
            members.into_iter()
        };
        let item = |row: &BTreeMap<String, String>| {
            let hash = |name: &str| {
                row.get(name).map(|hash| data_encoding::HEXLOWER.decode(hash.as_bytes()).unwrap().try_into().unwrap())
            };
            let number = |name: &str| row.get(name).map(|number| number.parse::<u64>().unwrap());
            row.contains_key("item").then(|| ParsedItem {
                field: row.get("field").cloned(),
                row: number("row").map(RowId),
                view: row.get("view").cloned(),
                outcome: row["outcome"].clone(),
                subject: number("subject").map(SubjectHandle),
                version: number("version").map(|version| RowVersion(version.try_into().unwrap())),
                hash: hash("sha256"),
                sent: hash("sent"),
            })
        };
        let part = text("part").map(|part| {
            let (which, of) = part.split_once('/').unwrap();
            Part { which: which.parse().unwrap(), of: of.parse().unwrap() }
        });
        let numbers: Vec<usize> =
            rows.iter().filter_map(|row| row.get("item")).map(|number| number.parse().unwrap()).collect();
        assert_eq!(numbers, (1..=numbers.len()).collect::<Vec<_>>());
        let leaf = ParsedLeaf {
            index: first["index"].parse().unwrap(),
            time: first["time"].parse().unwrap(),
            part,
            request: data_encoding::HEXLOWER.decode(first["request"].as_bytes()).unwrap().try_into().unwrap(),
            principal: first["principal"].clone(),
            actor: text("actor"),
            action: first["action"].clone(),
            purpose: text("purpose"),
            decision: first["decision"].clone(),
            reason: text("reason"),
            policy: first["policy"].parse().unwrap(),
            schema: first["schema"].parse().unwrap(),
            keys: members("keys").map(|(name, version)| (name, version.as_u64().unwrap() as u32)).collect(),
            client: first["client"].clone(),
            detail: members("detail").map(|(name, value)| (name, value.as_str().unwrap().to_owned())).collect(),
            items: rows.iter().filter_map(item).collect(),
        };
        leaf.to_line()
    };
    rows.map(leaf).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn every_file_says_what_its_leaves_say_and_no_other_does(
        lines in leaves(), at in any::<prop::sample::Index>(), bit in 0..8_u8,
    ) {
        for format in Format::ALL {
            let made = file(format, &lines);
            prop_assert!(held(format, &made, &lines).is_ok(), "{}", format.as_str());
            if let Some((last, fewer)) = lines.split_last() {
                let rows = rows_of(format, std::slice::from_ref(last));
                let all = rows_of(format, &lines);
                prop_assert!(matches!(held(format, &made, fewer), Err(Difference::Long(row)) if row == all - rows + 1));
                let shorter = file(format, fewer);
                prop_assert!(matches!(held(format, &shorter, &lines), Err(Difference::Short(row)) if row == all - rows));
            }
            if made.is_empty() {
                continue;
            }
            let mut changed = made.clone();
            changed[at.index(made.len())] ^= 1 << bit;
            // A change that nobody sees who reads it is none.
            if held(format, &changed, &lines).is_ok() {
                prop_assert_eq!(&told(format, &changed), &told(format, &made), "{}", format.as_str());
            }
        }
    }

    #[test]
    fn tables_say_all_that_leaves_say(lines in leaves()) {
        prop_assert_eq!(&leaves_of(&read_parquet(&file(Format::Parquet, &lines))), &lines);
        prop_assert_eq!(&leaves_of(&read_csv(&file(Format::Csv, &lines))), &lines);
    }

    #[test]
    fn every_event_has_what_its_class_requires(lines in leaves()) {
        let file = file(Format::Ocsf, &lines);
        let events: Vec<Value> =
            file.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(|line| serde_json::from_slice(line).unwrap()).collect();
        prop_assert_eq!(events.len(), lines.len());
        for (event, line) in events.iter().zip(&lines) {
            is_event(event, &leaf::parse(line).unwrap());
        }
    }
}

/// The attributes that OCSF 1.3 requires of the two classes, and their constraints.
fn is_event(event: &Value, leaf: &ParsedLeaf) {
    let number = |name: &str| event[name].as_u64().unwrap_or_else(|| panic!("{name} of {event}"));
    assert_eq!(number("category_uid"), 6);
    assert!(matches!(number("class_uid"), 6003 | 6005));
    assert_eq!(number("type_uid"), number("class_uid") * 100 + number("activity_id"));
    assert_eq!(number("time"), leaf.time.0 / 1_000);
    assert!((1..=3).contains(&number("severity_id")) && matches!(number("status_id"), 1 | 2 | 99));
    assert_eq!(event["metadata"]["version"], "1.3.0");
    assert_eq!(event["metadata"]["product"]["name"], "Strongroom");
    assert!(event["metadata"]["product"]["vendor_name"].is_string());
    let service = if leaf.actor.is_some() { &event["actor"]["app_name"] } else { &event["actor"]["user"]["name"] };
    assert_eq!(service, leaf.principal.as_str());
    assert_eq!(event["metadata"]["uid"], format!("{ORIGIN}/{}", leaf.index));
    assert!(event["src_endpoint"]["ip"].is_string() || event["src_endpoint"]["name"].is_string());
    if number("class_uid") == 6003 {
        assert_eq!(event["api"]["operation"], leaf.action.as_str());
        assert_eq!(event["activity_id"] == 99, event["activity_name"] == leaf.action.as_str());
    } else {
        assert!(event["database"]["name"].is_string() && event["database"]["type_id"].is_u64());
    }
    assert_eq!(event["unmapped"]["items"].as_array().map_or(0, Vec::len), leaf.items.len());
}

#[test]
fn many_rows_make_groups_that_are_bounded() {
    let header = LeafHeader { client: "127.0.0.1:5", ..header() };
    let items = || (0..250).map(|row| LeafItem { row: Some(RowId(row)), outcome: "ok", ..LeafItem::default() });
    let lines: Vec<Vec<u8>> =
        (0..600).map(|index| leaf::prepare(&header, items())[0].finish(index, Timestamp(index))).collect();
    let file = file(Format::Parquet, &lines);
    let reader = SerializedFileReader::new(Bytes::from(file.clone())).unwrap();
    let groups: Vec<i64> = reader.metadata().row_groups().iter().map(|group| group.num_rows()).collect();
    assert!(groups.len() > 1 && groups.iter().all(|rows| *rows <= 65_536), "{groups:?}");
    assert_eq!(groups.iter().sum::<i64>(), 150_000);
    assert!(file.len() < text(&lines).len() / 10, "it is compressed");
    assert_eq!(leaves_of(&read_parquet(&file)), lines);
}

/// A leaf with two items, and one whose cells a spreadsheet would take for something else.
fn two_leaves() -> Vec<Vec<u8>> {
    let item = ParsedItem {
        field: Some("borrower.name".to_owned()),
        row: Some(RowId(281_474_976_710_657)),
        view: Some("plain".to_owned()),
        outcome: "ok".to_owned(),
        subject: Some(SubjectHandle(281_474_976_710_658)),
        version: Some(RowVersion(1)),
        hash: Some([0xab; 32]),
        sent: Some([1; 32]),
    };
    let bare = |row, outcome: &str| ParsedItem {
        field: None,
        row,
        view: None,
        outcome: outcome.to_owned(),
        subject: None,
        version: None,
        hash: None,
        sent: None,
    };
    let one = ParsedLeaf {
        index: 12,
        time: Timestamp(1_795_487_952_123_456),
        part: None,
        request: [0x5a; 16],
        principal: "app/loan-core".to_owned(),
        actor: Some("li.na".to_owned()),
        action: "detokenize".to_owned(),
        purpose: Some("collections".to_owned()),
        decision: "deny".to_owned(),
        reason: Some("DENIED".to_owned()),
        policy: 3,
        schema: 2,
        keys: vec![("token".to_owned(), 1), ("kek/1".to_owned(), 4)],
        client: "127.0.0.1:5".to_owned(),
        detail: vec![("job".to_owned(), "7".to_owned())],
        items: vec![item, bare(None, "NOT_FOUND")],
    };
    let other = ParsedLeaf {
        index: 13,
        part: Some(Part { which: 1, of: 2 }),
        principal: "=app/x".to_owned(),
        actor: None,
        action: "set_tier".to_owned(),
        purpose: None,
        decision: "allow".to_owned(),
        reason: None,
        keys: vec![],
        client: String::new(),
        detail: vec![],
        items: vec![bare(Some(RowId(2_000_000_000_000_001)), "ok")],
        ..one.clone()
    };
    vec![one.to_line(), other.to_line()]
}

#[test]
fn the_form_is_the_one_that_is_written_down_under_its_version() {
    let path = format!("{}/golden/form-{FORM_VERSION}.txt", env!("CARGO_MANIFEST_DIR"));
    let golden = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let lines = two_leaves();
    let text = |format| String::from_utf8(file(format, &lines)).unwrap().replace("\r\n", "\n");
    let form = format!("{}\n{}\n{}", crate::parquet::declaration(), text(Format::Csv), text(Format::Ocsf));
    assert_eq!(form, golden, "another form has another FORM_VERSION, and a file of its own");
}

#[test]
fn the_row_and_the_column_are_named() {
    let lines = two_leaves();
    let mut other = lines.clone();
    other[1] = String::from_utf8(other[1].clone()).unwrap().replace("=app/x", "=app/y").into_bytes();
    for (format, row, column) in
        [(Format::Csv, 3, "principal"), (Format::Parquet, 3, "principal"), (Format::Ocsf, 2, "actor")]
    {
        let said = held(format, &file(format, &other), &lines).unwrap_err().to_string();
        assert_eq!(said, format!("row {row} has something else in {column} than leaf 13 says"));
    }
    // Of an event whose member stands twice, some take the one and some the other.
    let event = String::from_utf8(file(Format::Ocsf, &lines)).unwrap();
    let twice = event.replacen('{', "{\"status\":\"Success\",", 1);
    assert!(held(Format::Ocsf, twice.as_bytes(), &lines).unwrap_err().to_string().starts_with("row 1 "));
    let spaced = event.replacen(',', ", ", 1);
    assert!(held(Format::Ocsf, spaced.as_bytes(), &lines).is_err());
}

#[test]
fn it_does_not_matter_how_the_same_is_encoded_and_other_columns_are_not_called_wrong() {
    use crate::parquet::{Parquet, properties};

    let lines = two_leaves();
    let encoded = |properties: parquet::file::properties::WriterPropertiesBuilder| {
        let mut file = Vec::new();
        let mut writer = Parquet::with(&mut file, properties.build()).unwrap();
        lines.iter().for_each(|line| crate::Form::leaf(&mut writer, line).unwrap());
        crate::Form::end(&mut writer).unwrap();
        drop(writer);
        file
    };
    let plain = properties()
        .set_compression(parquet::basic::Compression::UNCOMPRESSED)
        .set_dictionary_enabled(false)
        .set_created_by("another".to_owned());
    let plain = encoded(plain);
    assert_ne!(plain, file(Format::Parquet, &lines));
    held(Format::Parquet, &plain, &lines).unwrap();
    // What an engine goes by and nobody held against the leaves.
    let statistics = properties().set_statistics_enabled(parquet::file::properties::EnabledStatistics::Chunk);
    assert!(matches!(held(Format::Parquet, &encoded(statistics), &lines), Err(Difference::Form(_))));
    let notes = vec![parquet::file::metadata::KeyValue::new("ARROW:schema".to_owned(), "x".to_owned())];
    let noted = encoded(properties().set_key_value_metadata(Some(notes)));
    assert!(matches!(held(Format::Parquet, &noted, &lines), Err(Difference::Form(_))));

    let table = String::from_utf8(file(Format::Csv, &lines)).unwrap();
    held(Format::Csv, table.replace("\r\n", "\n").as_bytes(), &lines).unwrap();
    held(Format::Csv, table.replace("app/loan-core", "\"app/loan-core\"").as_bytes(), &lines).unwrap();
    let fewer = table.replacen(",sent", "", 1);
    assert!(matches!(held(Format::Csv, fewer.as_bytes(), &lines), Err(Difference::Form(_))));
    let more = table.replacen("NOT_FOUND,,,,", "NOT_FOUND,,,,,", 1);
    assert!(matches!(held(Format::Csv, more.as_bytes(), &lines), Err(Difference::Unreadable { row: 2, .. })));
    let endless = [table.as_bytes(), &vec![b'x'; 3 << 20]].concat();
    assert!(matches!(held(Format::Csv, &endless, &lines), Err(Difference::Unreadable { row: 4, .. })));
    assert!(matches!(held(Format::Parquet, b"PAR1", &lines), Err(Difference::Unreadable { .. })));
}

/// A Parquet file with something behind its pages, and with other groups in its footer than its one; they are told
/// where that is.
fn forged(
    file: &[u8],
    behind: &[u8],
    groups: impl FnOnce(RowGroupMetaData, i64) -> Vec<RowGroupMetaData>,
) -> Result<(), Difference> {
    let there = ParquetMetaDataReader::new().parse_and_finish(&Bytes::copy_from_slice(file)).unwrap();
    let (rest, _) = file.split_last_chunk::<4>().unwrap();
    let (rest, footer) = rest.split_last_chunk::<4>().unwrap();
    let pages = &rest[..rest.len() - u32::from_le_bytes(*footer) as usize];
    let groups = groups(there.row_group(0).clone(), pages.len() as i64);
    let there = ParquetMetaDataBuilder::new_from_metadata(there).set_row_groups(groups).build();
    let mut forged = [pages, behind].concat();
    ParquetMetaDataWriter::new(&mut forged, &there).finish().unwrap();
    held(Format::Parquet, &forged, &two_leaves())
}

/// The same group with another first column.
fn another(
    group: RowGroupMetaData,
    change: impl FnOnce(ColumnChunkMetaDataBuilder) -> ColumnChunkMetaDataBuilder,
) -> Vec<RowGroupMetaData> {
    let mut columns = group.columns().to_vec();
    columns[0] = change(columns[0].clone().into_builder()).build().unwrap();
    vec![group.into_builder().set_column_metadata(columns).build().unwrap()]
}

#[test]
fn rows_that_are_not_counted_do_not_hold() {
    let file = file(Format::Parquet, &two_leaves());
    forged(&file, &[], |group, _| vec![group]).unwrap();
    let uncounted = |group: RowGroupMetaData, _| {
        let more = group.clone().into_builder().set_num_rows(0).build().unwrap();
        vec![group, more]
    };
    assert!(matches!(forged(&file, &[], uncounted), Err(Difference::Unreadable { row: 0, .. })));
    let valued = forged(&file, &[], |group, _| another(group, |column| column.set_num_values(8)));
    assert!(valued.unwrap_err().to_string().contains("another number of values"));
}

#[test]
fn pages_are_where_the_footer_says_and_are_encoded_so() {
    let file = file(Format::Parquet, &two_leaves());
    let elsewhere =
        forged(&file, &[0; 64], |group, behind| another(group, |column| column.set_data_page_offset(behind)));
    assert!(elsewhere.unwrap_err().to_string().contains("something else of its pages"));
    let plain = EncodingMask::new_from_encodings([Encoding::PLAIN].iter());
    let counts = vec![PageEncodingStats { page_type: PageType::DATA_PAGE, encoding: Encoding::PLAIN, count: 1 }];
    let counted = forged(&file, &[], |group, _| another(group, |column| column.set_page_encoding_stats(counts)));
    assert!(counted.unwrap_err().to_string().contains("something else of its pages"));
    let otherwise = forged(&file, &[], |group, _| another(group, |column| column.set_encodings_mask(plain)));
    assert!(otherwise.unwrap_err().to_string().contains("something else of its pages"));
}

#[test]
fn pages_that_would_fill_the_memory_are_not_read() {
    let file = file(Format::Parquet, &two_leaves());
    let with = |page: &[u8]| {
        let length = page.len() as i64;
        forged(&file, page, |group, behind| {
            another(group, |column| {
                let column = column.set_dictionary_page_offset(None).set_data_page_offset(behind);
                column.set_total_compressed_size(length).set_total_uncompressed_size(length)
            })
        })
    };
    let too_large = |page: &[u8]| with(page).unwrap_err().to_string().contains("is larger than");
    const MOST: [u8; 5] = [0xfe, 0xff, 0xff, 0xff, 0x0f];
    // Three rows in two gigabytes; as many entries of a dictionary in a page of one byte; and a page of 40 MiB twice.
    let data = [0x2c, 0x15, 6, 0x15, 0, 0x15, 6, 0x15, 6, 0, 0];
    assert!(too_large(&[&[0x15, 0, 0x15][..], &MOST, &[0x15, 0], &data].concat()));
    assert!(too_large(&[&[0x15, 4, 0x15, 2, 0x15, 0, 0x4c, 0x15][..], &MOST, &[0x15, 0, 0, 0]].concat()));
    let page = [&[0x15, 0, 0x15, 0x80, 0x80, 0x80, 0x28, 0x15, 0][..], &data].concat();
    assert!(!too_large(&page) && too_large(&[&page[..], &page].concat()));
}

#[test]
fn no_file_says_which_version_of_the_tool_wrote_it() {
    let lines = [leaf::prepare(&header(), std::iter::empty())[0].finish(0, Timestamp(1))];
    let event: Value = serde_json::from_slice(&file(Format::Ocsf, &lines)).unwrap();
    assert_eq!(event["metadata"]["product"]["version"], "1");
    let reader = SerializedFileReader::new(Bytes::from(file(Format::Parquet, &lines))).unwrap();
    assert_eq!(reader.metadata().file_metadata().created_by(), Some("strongroom form 1"));
    for format in Format::ALL {
        let version = env!("CARGO_PKG_VERSION").as_bytes();
        assert!(!file(format, &lines).windows(version.len()).any(|bytes| bytes == version), "{}", format.as_str());
    }
}

#[test]
fn a_line_that_is_no_leaf_is_named() {
    let mut file = Vec::new();
    for format in [Format::Csv, Format::Parquet, Format::Ocsf] {
        let error = convert(format, ORIGIN, &b"secret\n"[..], &mut file, |_| {}).unwrap_err().to_string();
        assert!(error.starts_with("line 1: ") && !error.contains("secret"), "{error}");
    }
    assert_eq!(Format::ALL.map(|format| Format::named(format.as_str())), Format::ALL.map(Some));
}
