//! The counts: no window ever lets more through than its limit, and what is stored is what is counted.

use std::sync::Arc;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use strongroom_ids::{FieldNo, RowId, SubjectHandle};
use strongroom_storage::faulty::Fate;

use super::quota::Span;
use super::*;
use crate::change::CommitError;
use crate::testing::{OTHER, Rig, TENANT, leaf, put};

const FIELD: FieldNo = FieldNo(12);

fn limits(minute: u32, day: u32) -> Arc<MeterLimits> {
    let window = Window { minute: Some(minute), day: Some(day) };
    let class = ClassWindows { plain: window, masked: window, subjects: window };
    Arc::new(MeterLimits { classes: [class; 3], misses: window, token_misses: window })
}

fn charge(limits: &Arc<MeterLimits>, uses: Vec<Use>) -> Charge {
    Charge { tenant: TENANT, meter: [7; 16], limits: Arc::clone(limits), behind: None, uses }
}

/// The same for somebody behind the caller.
fn for_one(person: u8, limits: &Arc<MeterLimits>, charge: Charge) -> Charge {
    Charge { behind: Some(Behind { meter: [person; 16], limits: Arc::clone(limits) }), ..charge }
}

fn read(row: u64, subject: u64, shown: Shown) -> Use {
    Use::Read { class: 1, row: RowId(row), subject: SubjectHandle(subject), field: FIELD, shown }
}

fn missed(row: u64) -> Use {
    Use::Asked { row: Some(RowId(row)), missed: true }
}

fn matched(row: u64) -> Use {
    Use::Asked { row: Some(RowId(row)), missed: false }
}

/// Many rows of one subject, so that only the values count.
fn plain(rows: std::ops::Range<u64>) -> Vec<Use> {
    rows.map(|row| read(row, 1, Shown::Plain)).collect()
}

async fn stored(rig: &Rig) -> Meters {
    let lanes = crate::testing::stored_lanes(&*rig.disk).await;
    Meters::load(&*rig.disk, lanes.iter().map(|(tenant, head)| (*tenant, head.time))).await.unwrap()
}

async fn commit(rig: &Rig, charge: Charge) -> Result<(), CommitError> {
    let change = rig.change(vec![put(1, 1)], vec![(TENANT, leaf("detokenize"))]);
    let change = crate::Change { charge: Some(Box::new(charge)), ..change };
    rig.committer.commit(change).await.map(drop)
}

fn is_quota<T>(result: &Result<T, CommitError>) -> bool {
    matches!(result, Err(CommitError::Quota(_)))
}

#[test]
fn a_service_and_each_person_behind_it_have_limits_of_their_own() {
    let (mut meters, service, person) = (Meters::new(), limits(5, 5), limits(2, 2));
    let mut take = |who: u8, rows| meters.charge(&for_one(who, &person, charge(&service, plain(rows))), DAY);
    assert_eq!(take(1, 0..2), Ok(()));
    let told = take(1, 2..3).unwrap_err();
    assert_eq!(told.to_string(), "one person at most 2 values of class c2 in plain a day");
    // Nothing of what was refused counts, for the service neither.
    assert_eq!(take(2, 3..5), Ok(()));
    assert_eq!(take(3, 5..6), Ok(()));
    let told = take(3, 6..7).unwrap_err();
    assert_eq!(told.to_string(), "at most 5 values of class c2 in plain a day");
    assert!(meters.charge(&charge(&service, plain(7..8)), DAY).is_err(), "nobody behind it makes no difference");
}

#[test]
fn a_miss_on_a_token_counts_once_whoever_is_behind() {
    let (mut meters, limits) = (Meters::new(), limits(3, 3));
    for who in 1..=3 {
        assert_eq!(meters.charge(&for_one(who, &limits, charge(&limits, vec![missed(1)])), DAY), Ok(()), "{who}");
    }
    assert!(meters.charge(&for_one(4, &limits, charge(&limits, vec![missed(1)])), DAY).is_err());
}

#[test]
fn the_stricter_limit_of_misses_on_a_token_holds_whosever_it_is() {
    for (service, person) in [(limits(5, 5), limits(1, 1)), (limits(1, 1), limits(5, 5))] {
        let mut meters = Meters::new();
        let mut ask = |who: u8, row| meters.charge(&for_one(who, &person, charge(&service, vec![missed(row)])), DAY);
        let of_token = |told: Result<(), Quota>| told.unwrap_err().what == What::TokenMisses;
        assert_eq!(ask(1, 7), Ok(()));
        // By another person, whose own misses have room: it is the token's count.
        assert!(service.misses.day == Some(1) || of_token(ask(2, 7)));
        assert!(ask(2, 7).is_err());
    }
    // Of a minute one limit may be the stricter, and of a day the other.
    let window = |minute, day| Window { minute, day };
    assert_eq!(window(Some(1), None).stricter(window(Some(2), Some(3))), window(Some(1), Some(3)));
    assert!(Window::default().stricter(Window::default()).is_open());
}

#[test]
fn people_leave_half_of_a_tenants_room_and_of_all_room_to_services() {
    let (limits, open) = (limits(100, 100), Arc::default());
    // Each first part of a subject takes four rows.
    let one = |tenant, subject| Charge { tenant, ..charge(&limits, vec![read(subject, subject, Shown::Part(1))]) };
    let only_person = |who, tenant| for_one(who, &limits, Charge { limits: Arc::clone(&open), ..one(tenant, 1) });
    let mut meters = Meters { most: 16 * SHARE, ..Meters::new() };
    assert_eq!(meters.charge(&only_person(1, TENANT), DAY), Ok(()));
    assert_eq!(meters.charge(&only_person(2, TENANT), DAY), Ok(()));
    let told = meters.charge(&only_person(3, TENANT), DAY).unwrap_err();
    assert_eq!((told.span, told.behind), (Span::Memory, true));
    // A service has room still, and somebody who is known already counts on.
    assert_eq!(meters.charge(&one(TENANT, 1), DAY), Ok(()));
    assert_eq!(meters.charge(&only_person(1, TENANT), DAY), Ok(()));
    // What a person is refused is not left behind with the service either.
    let held = meters.rows.len();
    assert!(meters.charge(&for_one(4, &limits, one(TENANT, 9)), DAY).is_err());
    assert_eq!((meters.rows.len(), meters.held.all), (held, held));
    // People of many tenants leave half of what there is for all.
    let mut meters = Meters { most: 16, ..Meters::new() };
    meters.held.of_people = 8;
    assert_eq!(meters.charge(&one(OTHER, 1), DAY), Ok(()));
    assert!(meters.charge(&only_person(1, TENANT), DAY).is_err());
}

#[test]
fn that_there_is_little_room_left_is_told_once_an_hour() {
    let mut meters = Meters { most: 10 * SHARE, now: DAY, ..Meters::new() };
    let place = |id, of_person| Place {
        tenant: TENANT,
        meter: [1; 16],
        what: What::Subject,
        class: 0,
        id,
        field: 0,
        of_person,
    };
    let alarm = |meters: &mut Meters, place| {
        let used = meters.used(&place);
        (used, meters.alarm(&place, used))
    };
    for id in 0..7 {
        meters.insert(place(id, false), UsageRow::default());
    }
    assert_eq!(alarm(&mut meters, place(7, false)), (70, false));
    meters.insert(place(7, false), UsageRow::default());
    assert_eq!(alarm(&mut meters, place(8, false)), (80, true));
    assert_eq!(alarm(&mut meters, place(8, false)), (80, false));
    meters.now += HOUR;
    assert_eq!(alarm(&mut meters, place(8, false)), (80, true));
    // Of the half that people may have.
    let mut meters = Meters { most: 10 * SHARE, now: DAY, ..Meters::new() };
    for id in 0..4 {
        meters.insert(place(id, true), UsageRow::default());
    }
    assert_eq!(alarm(&mut meters, place(8, false)), (40, false));
    assert_eq!(alarm(&mut meters, place(8, true)), (80, true));
}

#[tokio::test]
async fn whose_rows_are_a_persons_is_known_after_a_restart() {
    let (rig, limits) = (Rig::new().await, limits(9, 9));
    let asked = for_one(3, &limits, charge(&limits, vec![read(1, 1, Shown::Part(1)), missed(1)]));
    commit(&rig, asked).await.unwrap();
    rig.committer.shutdown().await;
    let after = stored(&rig).await;
    // Subject, subjects, part, values and misses of each, and the token's misses once.
    assert_eq!((after.held.all, after.held.of_people), (11, 5));
}

#[test]
fn a_minute_and_a_day_hold_at_once_and_end_by_themselves() {
    let (mut meters, limits) = (Meters::new(), limits(2, 3));
    let mut take = |time| meters.charge(&charge(&limits, plain(0..1)), time);
    assert_eq!(take(DAY), Ok(()));
    assert_eq!(take(DAY + 1), Ok(()));
    let told = take(DAY + MINUTE - 1).unwrap_err();
    assert_eq!(told.retry_after, Some(Duration::from_micros(1)));
    assert_eq!(told.to_string(), "at most 2 values of class c2 in plain a minute");
    assert_eq!(take(DAY + MINUTE), Ok(()));
    let told = take(DAY + 2 * MINUTE).unwrap_err();
    assert_eq!(told.retry_after, Some(Duration::from_micros(DAY - 2 * MINUTE)));
    assert_eq!(told.to_string(), "at most 3 values of class c2 in plain a day");
    // A clock that is set back gives nothing, one that goes on a new day.
    assert!(take(1).is_err());
    assert_eq!(take(2 * DAY), Ok(()));
}

#[test]
fn what_no_window_has_room_for_is_not_told_to_wait() {
    let (mut meters, limits) = (Meters::new(), limits(2, 100));
    let told = meters.charge(&charge(&limits, plain(0..3)), DAY).unwrap_err();
    assert_eq!((told.retry_after, told.span), (None, Span::Minute));
    assert_eq!(meters.charge(&charge(&limits, plain(0..2)), DAY), Ok(()));
    assert!(meters.charge(&charge(&limits, plain(0..2)), DAY).unwrap_err().retry_after.is_some());
}

#[test]
fn two_parts_of_a_value_count_as_the_value() {
    let limits = Arc::new(MeterLimits {
        classes: [ClassWindows { plain: Window { minute: None, day: Some(1) }, ..ClassWindows::default() }; 3],
        ..MeterLimits::default()
    });
    let mut meters = Meters::new();
    let mut take = |row, shown| meters.charge(&charge(&limits, vec![read(row, 0, shown)]), DAY);
    for row in 1..4 {
        assert_eq!(take(row, Shown::Part(5)), Ok(()));
        assert_eq!(take(row, Shown::Part(5)), Ok(()));
    }
    assert_eq!(take(1, Shown::Part(6)), Ok(()));
    // The one value in plain is used up.
    assert!(take(2, Shown::Part(6)).is_err());
    assert!(take(3, Shown::Plain).is_err());
    assert_eq!(take(2, Shown::Part(5)), Ok(()));
}

#[test]
fn two_parts_count_as_the_value_under_two_tokens_of_a_subject_as_well() {
    let limits = Arc::new(MeterLimits {
        classes: [ClassWindows { plain: Window { minute: None, day: Some(0) }, ..ClassWindows::default() }; 3],
        ..MeterLimits::default()
    });
    let mut meters = Meters::new();
    let mut take = |one| meters.charge(&charge(&limits, vec![one]), DAY);
    assert_eq!(take(read(1, 7, Shown::Part(5))), Ok(()));
    assert_eq!(take(read(2, 7, Shown::Part(5))), Ok(()));
    assert!(take(read(2, 7, Shown::Part(6))).is_err());
    let elsewhere = |subject, field| Use::Read {
        class: 1,
        row: RowId(3),
        subject: SubjectHandle(subject),
        field: FieldNo(field),
        shown: Shown::Part(6),
    };
    assert_eq!(take(elsewhere(8, 12)), Ok(()), "another subject's");
    assert_eq!(take(elsewhere(7, 13)), Ok(()), "another field's");
}

#[test]
fn what_can_not_be_counted_is_refused_and_no_tenant_takes_the_room_of_the_others() {
    let limits = limits(100, 100);
    let mut meters = Meters { most: 4 * SHARE, ..Meters::new() };
    // A subject, the subjects, the values, and the part.
    meters.charge(&charge(&limits, vec![read(1, 1, Shown::Part(1))]), DAY).unwrap();
    let told = meters.charge(&charge(&limits, vec![read(2, 2, Shown::Part(1))]), DAY).unwrap_err();
    assert_eq!(told.to_string(), "the vault can count no more reads today");
    assert_eq!(meters.charge(&charge(&limits, vec![read(1, 1, Shown::Part(1))]), DAY), Ok(()));
    let other = Charge { tenant: OTHER, ..charge(&limits, vec![read(1, 1, Shown::Part(1))]) };
    assert_eq!(meters.charge(&other, DAY), Ok(()));
    // A new day has room again.
    assert_eq!(meters.charge(&charge(&limits, vec![read(2, 2, Shown::Part(1))]), 2 * DAY), Ok(()));
}

#[test]
fn a_subject_counts_once_in_a_window_however_much_of_it_is_read() {
    let subjects = Window { minute: Some(2), day: Some(3) };
    let class = ClassWindows { subjects, ..ClassWindows::default() };
    let limits = Arc::new(MeterLimits { classes: [class; 3], ..MeterLimits::default() });
    let mut meters = Meters::new();
    let mut take = |subject, time| meters.charge(&charge(&limits, vec![read(9, subject, Shown::Plain)]), time);
    for subject in [1, 2, 1, 2] {
        assert_eq!(take(subject, DAY), Ok(()));
    }
    assert!(take(3, DAY).is_err());
    assert_eq!(take(3, DAY + MINUTE), Ok(()));
    assert_eq!(take(1, DAY + MINUTE), Ok(()));
    assert!(take(2, DAY + MINUTE).is_err());
    assert_eq!(take(2, DAY + 2 * MINUTE), Ok(()));
    assert!(take(4, DAY + 2 * MINUTE).is_err());
    // A value without subject is one of its own.
    assert!(take(0, DAY + 3 * MINUTE).is_err());
}

#[test]
fn whether_a_question_is_refused_says_nothing_of_its_answer() {
    let limits = limits(2, 2);
    for first in [missed(1), matched(1)] {
        let mut meters = Meters::new();
        meters.charge(&charge(&limits, vec![missed(2)]), DAY).unwrap();
        // One miss is left: two questions are too many, whatever the answers.
        for second in [missed(3), matched(3)] {
            assert!(meters.charge(&charge(&limits, vec![first, second]), DAY).is_err());
        }
        assert_eq!(meters.charge(&charge(&limits, vec![first]), DAY), Ok(()));
    }
    let mut meters = Meters::new();
    meters.charge(&charge(&limits, vec![missed(1), missed(2)]), DAY).unwrap();
    let told = [missed(3), matched(3)].map(|one| meters.charge(&charge(&limits, vec![one]), DAY).unwrap_err());
    assert_eq!(told[0], told[1]);
}

#[test]
fn a_token_has_misses_of_its_own() {
    let token_misses = Window { minute: None, day: Some(1) };
    let limits = Arc::new(MeterLimits { token_misses, ..MeterLimits::default() });
    let mut meters = Meters::new();
    meters.charge(&charge(&limits, vec![missed(1)]), DAY).unwrap();
    assert!(meters.charge(&charge(&limits, vec![matched(1)]), DAY).is_err());
    assert_eq!(meters.charge(&charge(&limits, vec![matched(2), matched(3)]), DAY), Ok(()));
    let another = Charge { meter: [9; 16], ..charge(&limits, vec![matched(1)]) };
    assert!(meters.charge(&another, DAY).is_err(), "whoever asks");
}

#[tokio::test]
async fn a_refused_change_leaves_no_trace_and_the_others_of_its_group_go_on() {
    let rig = Rig::new().await;
    let limits = limits(3, 3);
    let other = Charge { tenant: OTHER, ..charge(&limits, plain(0..3)) };
    let two = || charge(&limits, plain(0..2));
    // The first write waits, so that the others become one group.
    rig.disk.shut();
    let changes = async {
        let (first, second, third, fourth, fifth) = tokio::join!(
            rig.append(TENANT, "first"),
            commit(&rig, two()),
            commit(&rig, two()),
            commit(&rig, other),
            commit(&rig, charge(&limits, plain(5..6))),
        );
        first.unwrap();
        (second, third, fourth, fifth)
    };
    let open = async {
        rig.disk.wait_for_write(1).await;
        rig.disk.open();
    };
    let ((second, third, fourth, fifth), ()) = tokio::join!(changes, open);
    assert_eq!((second, fourth, fifth), (Ok(()), Ok(()), Ok(())));
    assert!(is_quota(&third));
    assert_eq!(crate::testing::stored_leaves(&*rig.disk, TENANT).await.len(), 4);
    assert!(is_quota(&commit(&rig, charge(&limits, plain(0..1))).await));
}

#[tokio::test]
async fn counts_outlive_a_failed_write_and_a_restart() {
    for fate in [Fate::Lost, Fate::Stored] {
        let rig = Rig::new().await;
        let limits = limits(3, 3);
        commit(&rig, charge(&limits, plain(0..2))).await.unwrap();
        rig.disk.faults.fail_write(fate);
        assert_eq!(commit(&rig, charge(&limits, plain(2..3))).await, Err(CommitError::Unknown));
        while rig.committer.state() == crate::CommitterState::Recovering {
            tokio::task::yield_now().await;
        }
        // What was not stored was not told either.
        let one_more = commit(&rig, charge(&limits, plain(3..4))).await;
        assert_eq!(is_quota(&one_more), matches!(fate, Fate::Stored), "{one_more:?}");
        rig.committer.shutdown().await;
        let mut after = stored(&rig).await;
        assert!(after.charge(&charge(&limits, plain(4..5)), 1_000).is_err());
        assert!(after.charge(&charge(&limits, plain(4..5)), 0).is_err(), "the clock was set back");
    }
}

fn uses() -> impl Strategy<Value = Use> {
    let shown = prop_oneof![Just(Shown::Plain), (1..4_u64).prop_map(Shown::Part)];
    prop_oneof![
        (0..3_u8, 1..5_u64, 0..4_u64, shown).prop_map(|(class, row, subject, shown)| Use::Read {
            class,
            row: RowId(row),
            subject: SubjectHandle(subject),
            field: FIELD,
            shown
        }),
        (1..4_u64, any::<bool>()).prop_map(|(row, missed)| Use::Asked { row: Some(RowId(row)), missed }),
    ]
}

/// What was told in one window, counted anew by the simplest means.
#[derive(Default)]
struct Naive {
    values: [u32; 3],
    plain: [u32; 3],
    subjects: [BTreeSet<(u64, u64)>; 3],
    misses: u32,
}

impl Naive {
    fn add(&mut self, uses: &[Use]) {
        for one in uses {
            match *one {
                Use::Read { class, row, subject, shown, .. } => {
                    let class = usize::from(class);
                    self.values[class] += 1;
                    self.plain[class] += u32::from(shown == Shown::Plain);
                    self.subjects[class].insert((subject.0, if subject.is_some() { 0 } else { row.0 }));
                }
                Use::Asked { missed, .. } => self.misses += u32::from(missed),
            }
        }
    }

    fn is_within(&self, limit: u32) -> bool {
        // Masked and plain ones have the same limit here, each for itself.
        self.values.iter().all(|count| *count <= 2 * limit)
            && self.plain.iter().all(|count| *count <= limit)
            && self.subjects.iter().all(|seen| seen.len() <= limit as usize)
            && self.misses <= limit
    }
}

proptest! {
    #[test]
    fn no_window_lets_more_than_its_limit_through(
        asked in vec((vec(uses(), 1..4), 0..MINUTE / 2), 1..80), minute in 0..6_u32, day in 0..12_u32,
    ) {
        let (mut meters, limits) = (Meters::new(), limits(minute, day));
        // Across the end of a day.
        let mut time = 2 * DAY - 10 * MINUTE;
        let (mut minutes, mut days): (HashMap<u64, Naive>, HashMap<u64, Naive>) = Default::default();
        for (uses, later) in asked {
            time += later;
            let before = meters.rows.clone();
            match meters.charge(&charge(&limits, uses.clone()), time) {
                Ok(()) => {
                    minutes.entry(time / MINUTE).or_default().add(&uses);
                    days.entry(time / DAY).or_default().add(&uses);
                }
                Err(_) if time / DAY == (time - later) / DAY => prop_assert_eq!(&meters.rows, &before),
                Err(_) => prop_assert!(meters.rows.is_empty()),
            }
        }
        prop_assert!(minutes.values().all(|told| told.is_within(minute)));
        prop_assert!(days.values().all(|told| told.is_within(day)));
    }

    #[test]
    fn what_is_stored_is_what_is_counted(asked in vec(vec(uses(), 1..4), 1..12), limit in 1..8_u32) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let (rig, limits, mut meters) = (Rig::new().await, limits(limit, limit), Meters::new());
            for uses in asked {
                let counted = meters.charge(&charge(&limits, uses.clone()), 1_000).is_ok();
                let committed = commit(&rig, charge(&limits, uses)).await;
                prop_assert_eq!(committed.is_ok(), counted);
            }
            prop_assert_eq!(&stored(&rig).await.rows, &meters.rows);
            rig.committer.shutdown().await;
            Ok(())
        })?;
    }
}
