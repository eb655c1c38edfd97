//! SubjectReport: what is held of a data subject, why and until when, what it allowed, and who read it when and for what.
//! No value.
//!
//! The road decides, records that it was asked, and takes the records along. What takes long is done after that, while other
//! requests go on: values are counted, and who read it the ledger says, by the index of its leaves, from the newest on.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;

use strongroom_access::Action;
use strongroom_commit::{CommitterState, Fact, Guard};
use strongroom_ids::{FieldNo, RowId, TenantNo};
use strongroom_ledger::filter::Filter;
use strongroom_ledger::{Timestamp, leaf};
use strongroom_schema::Schema;
use strongroom_storage::keys as place;
use strongroom_storage::rows::{SubjectRecord, SubjectState, ValueRow};
use strongroom_storage::{Family, Store};

use crate::approvals::Asked;
use crate::consents::ListedConsent;
use crate::error::Error;
use crate::export::{ArchivedReads, WINDOW};
use crate::holds::ListedHold;
use crate::pages::Pages;
use crate::processing::{ReportedField, ReportedPurpose, UNREADABLE, is_told, read_actions};
use crate::resolve::expiry;
use crate::road::{Attempt, Caller, Item, Prepared, Refused, Road};
use crate::subjects::unknown;
use crate::tenant::Rules;
use crate::vault::Vault;

/// Values that are counted, at most.
const COUNTED: usize = 100_000;
/// Reads that are listed, at most.
const LISTED: usize = 1_000;

/// Asks what is held of a data subject.
pub struct SubjectReport {
    /// The caller's own id of the subject.
    pub subject: String,
    /// Reads are listed from then on, in microseconds since 1970.
    pub from: Option<u64>,
    /// Up to then, which is not in it.
    pub to: Option<u64>,
}

/// What is held of a data subject. All times are microseconds since 1970.
pub struct ReportedSubject {
    /// When it was drawn up.
    pub time: u64,
    /// The policies in force.
    pub policy_version: u32,
    /// The schema in force.
    pub schema_version: u32,
    /// How many leaves there were, in which reads were looked for.
    pub ledger_size: u64,
    /// In which of them they were not, since these are archived; none if they were looked for in all of the time.
    pub archived_reads: Option<ArchivedReads>,
    /// Since when the vault knows the subject.
    pub created: u64,
    /// What is held, by field.
    pub fields: Vec<HeldField>,
    /// Whether there are more values than are counted.
    pub more_values: bool,
    /// The purposes of these fields.
    pub purposes: Vec<ReportedPurpose>,
    /// What it allowed, and took back.
    pub consents: Vec<ListedConsent>,
    /// What must be kept of it.
    pub holds: Vec<ListedHold>,
    /// In alphabetical order.
    pub labels: Vec<String>,
    /// Erasures that have begun.
    pub erasures: Vec<ReportedErasure>,
    /// The newest reads, in the order of their time.
    pub reads: Vec<SubjectRead>,
    /// Whether there are older ones.
    pub more_reads: bool,
}

/// What is held of a field.
pub struct HeldField {
    /// The field.
    pub field: ReportedField,
    /// How many values may be read.
    pub values: u64,
    /// How many have ended, and are not removed yet.
    pub ended: u64,
    /// When the first and the last were stored.
    pub stored: (u64, u64),
    /// When the first and the last of those that may be read end; none: never.
    pub expires: (Option<u64>, Option<u64>),
}

/// An erasure that has begun.
pub struct ReportedErasure {
    /// When it was asked for.
    pub asked: u64,
    /// When it is done.
    pub due: u64,
    /// `waiting` for the end of its time of grace, or `held`: done but for what is held.
    pub state: &'static str,
}

/// One item of the ledger that told somebody something of the subject.
pub struct SubjectRead {
    /// When.
    pub time: u64,
    /// Who.
    pub principal: String,
    /// On whose behalf.
    pub actor: Option<String>,
    /// What was asked.
    pub action: String,
    /// Why.
    pub purpose: Option<String>,
    /// Of which field.
    pub field: Option<String>,
    /// How much was shown.
    pub view: Option<String>,
    /// Where in the ledger it stands.
    pub leaf: u64,
}

/// The values of one field.
#[derive(Clone, Copy, Default)]
struct Tally {
    values: u64,
    ended: u64,
    stored: Option<(u64, u64)>,
    first_end: Option<u64>,
    last_end: Option<u64>,
    /// Whether some never end.
    endless: bool,
}

impl Tally {
    fn add(&mut self, stored: u64, ends: Option<u64>, now: u64) {
        let (first, last) = self.stored.unwrap_or((stored, stored));
        self.stored = Some((first.min(stored), last.max(stored)));
        match ends {
            Some(at) if at <= now => {
                self.ended += 1;
                return;
            }
            Some(at) => {
                self.first_end = Some(self.first_end.map_or(at, |first| first.min(at)));
                self.last_end = self.last_end.max(Some(at));
            }
            None => self.endless = true,
        }
        self.values += 1;
    }
}

/// The values of a subject, by field.
#[derive(Default)]
struct Counted {
    fields: BTreeMap<FieldNo, Tally>,
    values: usize,
    more: bool,
}

/// What the road brings along.
pub(crate) struct Begun {
    records: Vec<SubjectRecord>,
    schema: Arc<Schema>,
    policy_version: u32,
    now: u64,
    ledger_size: u64,
}

impl<S: Store> Attempt<S> for SubjectReport {
    /// None if the vault does not know the subject.
    type Answer = Option<Begun>;
    const ACTION: Action = Action::SubjectReport;

    fn bound_to(&self, _rules: &Rules) -> Option<Asked> {
        let time = |time: Option<u64>| time.map_or(vec![], |time| time.to_be_bytes().to_vec());
        let parts = vec![self.subject.clone().into_bytes(), time(self.from), time(self.to)];
        Some(Asked { parts, summary: "report what is held of a data subject".to_owned() })
    }

    async fn attempt(&self, road: &Road<'_, S>) -> Result<Prepared<Self::Answer>, Refused> {
        road.decide_vault()?;
        let mut prepared: Prepared<Self::Answer> = road.prepare(None);
        prepared.detail.extend(self.from.map(|from| ("from", Timestamp(from).to_string())));
        prepared.detail.extend(self.to.map(|to| ("to", Timestamp(to).to_string())));
        let records = road.asked_records(&self.subject, &mut prepared).await?;
        if records.is_empty() {
            return Ok(prepared);
        }
        let tenant = road.tenant.number;
        for record in &records {
            let facts = [Fact::subject_labels(tenant, record.handle), Fact::subject_consents(tenant, record.handle)];
            prepared.guards.extend(facts.map(Guard::Unchanged));
            prepared.items.push(Item { outcome: "reported", subject: Some(record.handle), ..Item::default() });
        }
        prepared.answer = Some(Begun {
            records,
            schema: Arc::clone(&road.schema),
            policy_version: road.tenant.policy_version(),
            now: road.now,
            ledger_size: road.vault.committer.head(tenant).map_or(0, |head| head.size),
        });
        Ok(prepared)
    }
}

/// Counts the values of a subject. Nothing is opened; what is deleted meanwhile is not counted, and neither is what was
/// stored in a field that was declared since.
async fn count<S: Store>(vault: &Vault<S>, tenant: TenantNo, begun: &Begun) -> Result<Counted, Error> {
    let Begun { records, schema, now, .. } = begun;
    let store = &*vault.store;
    let mut counted = Counted::default();
    // A value that merged subjects share is one.
    let mut shared: HashSet<RowId> = HashSet::new();
    for record in records {
        let (from, to) = place::subject_rows_after(tenant, record.handle, RowId(0));
        let mut pages = Pages::new(Family::SubjectRows, from, to);
        while let Some(page) = pages.next(store).await? {
            let ids = page.iter().map(|(key, _)| place::decode_subject_row(key)).collect::<Result<Vec<RowId>, _>>()?;
            let keys = ids.iter().map(|id| place::row(tenant, *id)).collect();
            for (id, row) in ids.iter().zip(store.multi_get(Family::Rows, keys).await?) {
                let Some(row) = row else { continue };
                let row = ValueRow::decode(&row)?;
                if !row.subject.is_some() && !shared.insert(*id) {
                    continue;
                }
                if counted.values == COUNTED {
                    counted.more = true;
                    return Ok(counted);
                }
                let Some(field) = schema.field_no(row.field) else { continue };
                let ends = expiry(field, row.created, row.expires);
                counted.fields.entry(row.field).or_default().add(row.created, ends, *now);
                counted.values += 1;
            }
            vault.still_open()?;
            tokio::task::yield_now().await;
        }
    }
    Ok(counted)
}

fn said(begun: &Begun, counted: Counted) -> ReportedSubject {
    let Begun { records, schema, policy_version, now, ledger_size } = begun;
    let held = |(number, tally): (&FieldNo, &Tally)| {
        Some(HeldField {
            field: ReportedField::of(schema.field_no(*number)?),
            values: tally.values,
            ended: tally.ended,
            stored: tally.stored?,
            expires: (tally.first_end, if tally.endless { None } else { tally.last_end }),
        })
    };
    let fields: Vec<HeldField> = counted.fields.iter().filter_map(held).collect();
    let purposes = schema.purposes().filter(|purpose| {
        let named = |field: &HeldField| field.field.purposes.contains(&purpose.name);
        fields.iter().any(named)
    });
    let mut labels: Vec<String> = records.iter().flat_map(|record| record.labels.iter().cloned()).collect();
    labels.sort_unstable();
    labels.dedup();
    let consents = records.iter().flat_map(|record| record.consents.iter().cloned());
    let holds = records.iter().flat_map(|record| record.holds.iter().cloned());
    ReportedSubject {
        time: *now,
        policy_version: *policy_version,
        schema_version: schema.version(),
        ledger_size: *ledger_size,
        archived_reads: None,
        created: records.iter().map(|record| record.created).min().unwrap_or_default(),
        purposes: purposes.map(ReportedPurpose::of).collect(),
        more_values: counted.more,
        consents: consents.map(|one| ListedConsent::of(one, schema, *now)).collect(),
        holds: holds.map(|one| ListedHold::of(one, schema, *now)).collect(),
        erasures: records.iter().filter_map(erasure).collect(),
        labels,
        fields,
        reads: vec![],
        more_reads: false,
    }
}

fn erasure(record: &SubjectRecord) -> Option<ReportedErasure> {
    let state = match record.state {
        SubjectState::Open | SubjectState::Closed => return None,
        SubjectState::Leaving => "waiting",
        SubjectState::Held => "held",
    };
    record.erasure.map(|erasure| ReportedErasure { asked: erasure.asked, due: erasure.due, state })
}

impl<S: Store> Vault<S> {
    /// What is held of a data subject of the caller's tenant, and who read it. That it was asked is recorded.
    pub async fn subject_report(&self, caller: &Caller, request: &SubjectReport) -> Result<ReportedSubject, Error> {
        let begun = self.travel(caller, request).await?.ok_or_else(unknown)?;
        let mut report = said(&begun, count(self, caller.principal.tenant, &begun).await?);
        let filter = Filter {
            from: request.from.map(Timestamp),
            to: request.to.map(Timestamp),
            subjects: Some(begun.records.iter().map(|record| record.handle).collect()),
            actions: Some(read_actions()),
            decision: Some("allow".to_owned()),
            ..Filter::default()
        };
        let (range, _) = self.where_to_look(caller, report.ledger_size, &filter).await?;
        let untimed = Filter { from: None, to: None, ..filter.clone() };
        (report.reads, report.more_reads) = self.newest_reads(caller, range, &untimed, WINDOW).await?;
        // What was archived meanwhile, it may have passed over.
        (_, report.archived_reads) = self.where_to_look(caller, report.ledger_size, &filter).await?;
        Ok(report)
    }

    /// The newest reads among the leaves of a range that fit, in the order of their time, and whether there are older ones.
    /// It goes back through the ledger, so many leaves at a time, for no longer than it has to.
    pub(crate) async fn newest_reads(
        &self,
        caller: &Caller,
        (first, mut end): (u64, u64),
        filter: &Filter,
        window: u64,
    ) -> Result<(Vec<SubjectRead>, bool), Error> {
        let mut newest = VecDeque::new();
        while first < end && newest.len() <= LISTED {
            let from = (end - 1 - (end - 1) % window).max(first);
            let mut of_window = VecDeque::new();
            let mut pages = self.leaves_that_fit(caller, (from, end), filter.clone()).await?;
            while let Some(page) = pages.next().await? {
                self.still_open()?;
                for line in &page.leaves {
                    push_reads(line, filter, &mut of_window)?;
                }
            }
            of_window.append(&mut newest);
            newest = of_window;
            end = from;
        }
        let more = newest.len().saturating_sub(LISTED);
        Ok((newest.split_off(more).into(), more > 0))
    }

    /// Refuses to go on with what takes long once the vault is sealed.
    pub(crate) fn still_open(&self) -> Result<(), Error> {
        match self.committer.state() {
            CommitterState::Stopped => Err(Error::Sealed),
            _ => Ok(()),
        }
    }
}

/// Adds the reads of a leaf, and forgets the oldest of more than it takes to know that there are more than are listed.
fn push_reads(line: &[u8], filter: &Filter, newest: &mut VecDeque<SubjectRead>) -> Result<(), Error> {
    let of_subject = Filter { subjects: filter.subjects.clone(), ..Filter::default() };
    let leaf = leaf::parse(line).map_err(|_| UNREADABLE)?;
    for item in leaf.items.iter().filter(|item| of_subject.fits_item(&leaf, item) && is_told(item)) {
        if newest.len() > LISTED {
            newest.pop_front();
        }
        newest.push_back(SubjectRead {
            time: leaf.time.0,
            principal: leaf.principal.clone(),
            actor: leaf.actor.clone(),
            action: leaf.action.clone(),
            purpose: leaf.purpose.clone(),
            field: item.field.clone(),
            view: item.view.clone(),
            leaf: leaf.index,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_ended_is_counted_apart_and_says_nothing_of_when_the_rest_ends() {
        let mut tally = Tally::default();
        for (stored, ends) in [(5, Some(10)), (3, Some(20)), (4, Some(30))] {
            tally.add(stored, ends, 10);
        }
        assert_eq!((tally.values, tally.ended, tally.stored), (2, 1, Some((3, 5))));
        assert_eq!((tally.first_end, tally.last_end, tally.endless), (Some(20), Some(30), false));
        tally.add(9, None, 10);
        assert_eq!((tally.values, tally.first_end, tally.endless), (3, Some(20), true));
    }
}
