//! FORMAT.md says what is on disk, with a vector each: here they are made anew and compared.

use std::collections::BTreeMap;
use std::fmt::Write;

use strongroom_ids::{
    DekVersion, FieldNo, KeyVersion, KeyringNo, RowId, RowVersion, SubjectHandle, TenantId, TenantNo, VaultId,
};

use crate::keys::{self, Counter};
use crate::rows::{
    ArchiveIntent, ArchiveRow, BlockRow, Consent, CounterRow, Erased, Erasure, ErasureRow, ErasureStage, ErasureWork,
    Hold, IdempotencyRow, IndexEntry, IndexKind, JobKind, JobRow, JobState, LaneHead, RowDek, Scope, SubjectRecord,
    SubjectState, TenantRow, UsageRow, ValueRow, VaultRow, WrappedDek,
};

const DOCUMENT: &str = include_str!("FORMAT.md");

/// Bytes that count up from `first`.
fn counting<const N: usize>(first: u8) -> [u8; N] {
    std::array::from_fn(|place| first.wrapping_add(place as u8))
}

fn vectors() -> Vec<(&'static str, Vec<u8>)> {
    let tenant = TenantNo(7);
    let row = RowId(1 << 48 | 1000);
    let subject = SubjectHandle(1 << 48 | 42);
    let (field, keyring, version, mac) = (FieldNo(12), KeyringNo(3), KeyVersion(2), counting(0xa0));
    let created = 1_795_000_000_000_000;
    let entry = |kind| IndexEntry { kind, version, mac };
    let dek =
        WrappedDek { keyring, version: DekVersion(1), kek_version: KeyVersion(5), blob: counting::<8>(0x40).into() };
    let value = ValueRow {
        field,
        version: RowVersion(1),
        token_key: KeyVersion(1),
        check: counting(0x10),
        keyring,
        dek_version: DekVersion(1),
        subject,
        salt: counting(0x20),
        created,
        expires: None,
        indexes: vec![],
        sealed_token: None,
        sealed: counting::<8>(0x30).into(),
    };
    let full = ValueRow {
        subject: SubjectHandle::NONE,
        expires: Some(created + 1_000_000),
        indexes: vec![entry(IndexKind::DeterministicTenant), entry(IndexKind::Token)],
        sealed_token: Some(counting::<4>(0x38).into()),
        ..value.clone()
    };
    let record = SubjectRecord {
        handle: subject,
        state: SubjectState::Open,
        created,
        salt: counting(0x20),
        sealed_id: counting::<8>(0x30).into(),
        id_index: entry(IndexKind::SubjectId),
        deks: vec![dek.clone()],
        labels: vec![],
        consents: vec![],
        holds: vec![],
        erasure: None,
    };
    let archived = ArchiveRow {
        end: 512,
        root: counting(0x10),
        time: created,
        said_from: 700,
        place: "vault-archive/1".to_owned(),
        manifest: counting(0x30),
        removed: true,
        intent: None,
        mac: counting(0xa0),
    };
    let intent = ArchiveIntent {
        end: 1024,
        said_from: 800,
        request: counting(0x50),
        principal: "auditor/eve".to_owned(),
        place: "vault-archive/2".to_owned(),
        manifest: counting(0x60),
        lines: counting(0x80),
    };
    let labelled = SubjectRecord { labels: vec!["branch-12".to_owned(), "retail".to_owned()], ..record.clone() };
    let consent = Consent {
        purpose: "marketing".to_owned(),
        scope: Scope::All,
        granted: created,
        given: None,
        expires: Some(created + 1_000_000),
        withdrawn: None,
        text: counting(0x50),
        version: "2".to_owned(),
        channel: "web".to_owned(),
    };
    let held = SubjectRecord {
        state: SubjectState::Held,
        consents: vec![consent.clone(), Consent { scope: Scope::Class(3), withdrawn: Some(created), ..consent }],
        holds: vec![Hold {
            number: 1,
            reason: "case-7".to_owned(),
            purpose: "litigation".to_owned(),
            fields: vec![field],
            set: created,
            until: created + 1_000_000,
        }],
        erasure: Some(Erasure { asked: created, due: created + 1_000_000 }),
        ..record.clone()
    };
    vec![
        ("key row", keys::row(tenant, row)),
        ("key row_dek", keys::row_dek(tenant, row)),
        ("key subject", keys::subject(tenant, subject)),
        ("key subject_row", keys::subject_row(tenant, subject, row)),
        ("key holder", keys::holder(tenant, row, subject)),
        ("key value_index", keys::value_index(tenant, field, version, &mac, row)),
        ("key deterministic_subject", keys::deterministic_subject(tenant, field, version, &mac, subject)),
        ("key deterministic_tenant", keys::deterministic_tenant(tenant, field, version, &mac)),
        ("key subject_id", keys::subject_id(tenant, version, &mac)),
        ("key token", keys::token(tenant, version, &mac)),
        ("key idempotency", keys::idempotency(tenant, &mac)),
        ("key leaf", keys::leaf(tenant, 1000)),
        ("key tile", keys::tile(tenant, 1, 1000)),
        ("key tiled", keys::tiled(tenant)),
        ("key leaf_index", keys::leaf_index(tenant, &counting(1), 512)),
        ("key indexed", keys::indexed(tenant)),
        ("key archived", keys::archived(tenant)),
        ("key state page", keys::state_page(tenant, 512, 3)),
        ("key vault", keys::vault()),
        ("key tenant", keys::tenant(tenant)),
        ("key principals", keys::principals()),
        ("key lane", keys::lane(tenant, 0)),
        ("key schema", keys::schema(tenant)),
        ("key policy", keys::policy(tenant)),
        ("key counter row ids", keys::counter(tenant, Counter::RowIds)),
        ("key counter subject handles", keys::counter(tenant, Counter::SubjectHandles)),
        ("key counter seals", keys::counter(tenant, Counter::Seals(keyring, KeyVersion(5)))),
        ("key dek_mark", keys::dek_mark(tenant, subject, keyring, DekVersion(1))),
        ("key key change", keys::key_change(tenant)),
        ("key keystore copies", keys::keystore_copies()),
        ("key freezes", keys::freezes(tenant)),
        ("key approvals", keys::approvals(tenant)),
        ("key tiers", keys::tiers(tenant)),
        (
            "key usage",
            keys::usage(tenant, &keys::Usage { day: 20_000, meter: [1; 16], what: 8, class: 0, id: 42, field: 12 }),
        ),
        ("key second factor", keys::second_factor(tenant, "officer/alice")),
        ("key job", keys::job(tenant, JobKind::Rewrap)),
        ("key clock", keys::clock()),
        ("key older policy", keys::older_policy(tenant, 5)),
        ("key policy history", keys::policy_history(tenant)),
        ("key witnessed", keys::witnessed(tenant)),
        ("key erasure work", keys::erasure_work(tenant, subject)),
        ("key erasure", keys::erasure(tenant, &counting(0x80))),
        ("key leftovers", keys::leftovers(tenant)),
        ("entry row id", keys::encode_row_id(row)),
        ("entry tiled", keys::encode_tiled(1000)),
        ("entry indexed", keys::encode_indexed(768)),
        ("entry handles", keys::encode_handles(&[subject, SubjectHandle(1 << 48 | 43)])),
        ("row archived", archived.encode()),
        ("row archived, decided", ArchiveRow { intent: Some(intent), ..archived }.encode()),
        ("row block", [2, 3, 255].into_iter().collect::<BlockRow>().encode()),
        ("row block, many", (0..40).collect::<BlockRow>().encode()),
        ("row value", value.encode()),
        ("row value, all parts", full.encode()),
        ("row subject", record.encode()),
        ("row subject, labelled", labelled.encode()),
        ("row subject, held", held.encode()),
        ("row dek", RowDek::from(dek).encode()),
        (
            "row erasure work",
            ErasureWork {
                erasure: counting(0x80),
                stage: ErasureStage::Clearing(row),
                mapping: keys::subject_id(tenant, version, &mac)[..10].to_vec(),
                alone: (row, RowId(row.0 + 1)),
                held: 3,
                unrolled: 2,
            }
            .encode(),
        ),
        (
            "row erasure",
            ErasureRow {
                fingerprint: mac,
                subject: None,
                open: vec![subject],
                due: created + 1_000_000,
                erased: Erased { values: 7, shares: 1, entries: 9, consents: 2, deks: 4, unread: 6 },
                keks: vec![(keyring, KeyVersion(5))],
                receipt: String::new(),
                expires: 0,
                same: None,
            }
            .encode(),
        ),
        (
            "row idempotency",
            IdempotencyRow {
                expires: created,
                fingerprint: mac,
                rows: vec![row, RowId(row.0 + 1), RowId(row.0 - 2)],
                versions: vec![RowVersion(1), RowVersion(2), RowVersion(300)],
            }
            .encode(),
        ),
        ("row vault", VaultRow { format: 1, vault: VaultId(counting(0x50)), created }.encode()),
        (
            "row tenant",
            TenantRow { number: tenant, id: TenantId(counting(0x60)), name: "bank".to_owned(), created }.encode(),
        ),
        ("row counter", CounterRow { next: 70_000 }.encode()),
        ("row usage", UsageRow { minute: 28_800_001, in_minute: 2, in_day: 300, mark: 0 }.encode()),
        (
            "row job",
            JobRow {
                number: 3,
                state: JobState::Running,
                keyring: Some(keyring),
                principal: "rotator/nightly".to_owned(),
                started: created,
                updated: created + 1_000_000,
                moved: created,
                total: 1000,
                done: 400,
                skipped: 1,
                stage: 0,
                cursor: keys::subject(tenant, subject),
                limit: None,
            }
            .encode(),
        ),
        (
            "row job, waiting",
            JobRow {
                number: 4,
                state: JobState::Waiting,
                keyring: None,
                principal: "vault".to_owned(),
                started: created,
                updated: created + 1_000_000,
                moved: 0,
                total: 1001,
                done: 0,
                skipped: 0,
                stage: 0,
                cursor: vec![],
                limit: Some(1000),
            }
            .encode(),
        ),
        (
            "row lane",
            LaneHead {
                incarnation: 1,
                size: 1000,
                time: created,
                frontier: counting::<8>(0x70).into(),
                rules: counting::<4>(0x78).into(),
            }
            .encode(),
        ),
    ]
}

/// The vectors of the document: lines `    name = hexadecimal`, which go on in lines of hexadecimal alone.
fn documented() -> BTreeMap<String, String> {
    let mut vectors = BTreeMap::new();
    let mut current: Option<String> = None;
    for line in DOCUMENT.lines() {
        let Some(line) = line.strip_prefix("    ") else {
            current = None;
            continue;
        };
        if let Some((name, bytes)) = line.split_once(" = ") {
            let old = vectors.insert(name.trim().to_owned(), bytes.trim().to_owned());
            assert!(old.is_none(), "{name} stands twice in FORMAT.md");
            current = Some(name.trim().to_owned());
        } else if let Some(name) = &current {
            vectors.get_mut(name).unwrap().push_str(line.trim());
        }
    }
    vectors
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

#[test]
fn what_is_written_is_what_the_document_says() {
    let mut documented = documented();
    let mut wrong = String::new();
    for (name, bytes) in vectors() {
        let bytes = hexadecimal(&bytes);
        if documented.remove(name).as_ref() != Some(&bytes) {
            let lines: Vec<&str> = bytes.as_bytes().chunks(64).map(|line| str::from_utf8(line).unwrap()).collect();
            writeln!(wrong, "    {name} = {}", lines.join("\n        ")).unwrap();
        }
    }
    assert!(wrong.is_empty(), "FORMAT.md should say:\n{wrong}");
    assert!(documented.is_empty(), "FORMAT.md also says: {:?}", documented.keys());
}
