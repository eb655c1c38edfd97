//! Legal holds: what must be kept of a data subject, or of some of its fields, until a day, whoever wants it gone.
//!
//! A hold stands in the subject's record. What it keeps is neither deleted, replaced nor erased, and does not go when it
//! expires; of a subject that is erased otherwise it is read for the hold's own purpose alone.

use std::collections::{BTreeSet, HashMap};

use strongroom_access::Action;
use strongroom_commit::{Fact, Guard};
use strongroom_ids::{FieldNo, SubjectHandle};
use strongroom_keys as keys;
use strongroom_ledger::leaf::MAX_STRING;
use strongroom_ledger::{Timestamp, summary};
use strongroom_schema::Schema;
use strongroom_storage::Store;
use strongroom_storage::rows::{ErasureStage, ErasureWork, Hold, SubjectRecord, SubjectState};

use crate::approvals::Asked;
use crate::erase::{erasure_fact, load_work, put_work};
use crate::error::{Error, Violation};
use crate::limits;
use crate::reading::lists;
use crate::resolve::Found;
use crate::road::{Attempt, Caller, Item, OK, Prepared, Refused, Road, Told};
use crate::subjects::unknown;
use crate::tenant::Rules;
use crate::vault::Vault;

/// Holds on a subject that stand at once, and that are remembered with those that have ended.
const MOST: usize = 20;
const REMEMBERED: usize = 40;
/// Fields that a hold names.
const FIELDS: usize = 256;
/// Characters of a case's reference.
const REASON: usize = 64;
/// The longest hold, in microseconds: thirty years.
const LONGEST: u64 = 30 * 366 * 24 * 3_600 * 1_000_000;

/// Sets a legal hold.
pub struct SetHold {
    /// The caller's own id of the subject.
    pub subject: String,
    /// The fields that are held; none for all.
    pub fields: Vec<String>,
    /// Why: the reference of a case.
    pub reason: String,
    /// What is held is read for this purpose once the rest is erased.
    pub purpose: String,
    /// When it ends by itself, in microseconds since 1970.
    pub until: u64,
}

/// Ends a legal hold.
pub struct LiftHold {
    /// The caller's own id of the subject.
    pub subject: String,
    /// The hold's number.
    pub number: u32,
}

/// Asks which holds there are on a subject.
pub struct ListHolds {
    /// The caller's own id of the subject.
    pub subject: String,
}

/// A hold, as it is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedHold {
    /// Which of the subject's holds it is.
    pub number: u32,
    /// The reference of a case.
    pub reason: String,
    /// What is held is read for this purpose once the rest is erased.
    pub purpose: String,
    /// The fields that are held; none for all.
    pub fields: Vec<String>,
    /// When it was set, in microseconds since 1970.
    pub set: u64,
    /// When it ends, or has ended.
    pub until: u64,
    /// Whether it stands.
    pub stands: bool,
}

impl ListedHold {
    /// As it is told by a schema, at a time.
    pub(crate) fn of(hold: Hold, schema: &Schema, now: u64) -> Self {
        let (stands, fields) = (hold.stands(now), field_names(schema, &hold.fields));
        let Hold { number, reason, purpose, fields: _, set, until } = hold;
        Self { number, reason, purpose, fields, set, until, stands }
    }
}

/// Fields by their names; one that the schema has no more, by its number.
pub(crate) fn field_names(schema: &Schema, fields: &[FieldNo]) -> Vec<String> {
    let name =
        |field: &FieldNo| schema.field_no(*field).map_or_else(|| field.to_string(), |it| it.full_name.to_string());
    fields.iter().map(name).collect()
}

impl<S: Store> Road<'_, S> {
    /// The time by which holds end for what removes, changes or erases values: what is not known to be over stands.
    pub fn holding_time(&self) -> u64 {
        self.vault.erasing_time().unwrap_or(0)
    }

    /// The time by which a hold stands for who sets or lifts one: that by which it ends, as far as that is believed.
    fn standing_time(&self) -> u64 {
        self.vault.erasing_time().map_or(self.now, |time| time.min(self.now))
    }

    /// Refuses what would remove or change a value that is held. That no hold is set meanwhile is guarded.
    pub fn not_held<A>(&self, found: &Found, prepared: &mut Prepared<A>) -> Result<(), Error> {
        let Some(record) = &found.subject else { return Ok(()) };
        prepared.guards.push(Guard::Unchanged(Fact::subject_state(self.tenant.number, record.handle)));
        match record.is_held(found.row.field, self.holding_time()) {
            true => Err(Error::LegalHold),
            false => Ok(()),
        }
    }

    /// The same of a value that subjects share, of whom these hold it.
    pub async fn not_held_by_any<A>(
        &self,
        found: &Found,
        holders: &[SubjectHandle],
        prepared: &mut Prepared<A>,
    ) -> Result<(), Error> {
        self.not_held(found, prepared)?;
        if found.subject.is_some() {
            return Ok(());
        }
        let holders: Vec<SubjectHandle> = holders.iter().copied().filter(|holder| holder.is_some()).collect();
        let records: HashMap<_, _> = self.subject_records(&holders).await?;
        let states = records.keys().map(|handle| Fact::subject_state(self.tenant.number, *handle));
        prepared.guards.extend(states.map(Guard::Unchanged));
        let now = self.holding_time();
        match records.values().any(|record| record.is_held(found.row.field, now)) {
            true => Err(Error::LegalHold),
            false => Ok(()),
        }
    }

    /// Writes a record whose holds have changed.
    fn write_holds<A>(
        &self,
        record: SubjectRecord,
        outcome: &'static str,
        prepared: &mut Prepared<A>,
    ) -> Result<(), Error> {
        let (tenant, handle) = (self.tenant.number, record.handle);
        // The record is written as a whole, so nothing of it may have changed.
        let facts = [
            Fact::subject_state(tenant, handle),
            Fact::subject_keys(tenant, handle),
            Fact::subject_consents(tenant, handle),
            Fact::subject_labels(tenant, handle),
        ];
        prepared.guards.extend(facts.map(Guard::Unchanged));
        prepared.changes.extend([Fact::subject_state(tenant, handle), Fact::subject_keys(tenant, handle)]);
        self.put_record(&SubjectRecord { salt: keys::random::<16>()?, ..record }, outcome, prepared);
        Ok(())
    }

    /// Has the eraser look again, at that time, at a subject that is erased but for what is held. Where a hold is lifted while its
    /// values are cleared it begins anew: those that were left may be held no more.
    async fn look_again<A>(
        &self,
        record: &SubjectRecord,
        at: u64,
        lifted: bool,
        prepared: &mut Prepared<A>,
    ) -> Result<(), Error> {
        if record.state != SubjectState::Held {
            return Ok(());
        }
        let tenant = self.tenant.number;
        let work = load_work(&*self.vault.store, tenant, record.handle).await?;
        let work = work.ok_or(Error::DataLoss("a subject's erasure"))?;
        let fact = erasure_fact(tenant, &work.erasure);
        prepared.guards.push(Guard::Unchanged(fact));
        let stage = match work.stage {
            ErasureStage::Kept(until) => ErasureStage::Kept(until.min(at)),
            // By a clock that is not believed nothing begins anew: what is begun goes on, and is looked at when it is signed.
            ErasureStage::Clearing(_) | ErasureStage::Cleared if lifted && self.vault.erasing_time().is_ok() => {
                ErasureStage::Kept(at)
            }
            _ => return Ok(()),
        };
        prepared.changes.push(fact);
        prepared.mutations.push(put_work(tenant, record.handle, &ErasureWork { stage, ..work }));
        Ok(())
    }
}

impl SetHold {
    /// The fields that it names, in order.
    fn read<S: Store>(&self, road: &Road<'_, S>) -> Result<Vec<FieldNo>, Error> {
        let mut wrong = Vec::new();
        let is_reason = |c: char| c.is_ascii_alphanumeric() || ".-_/".contains(c);
        if self.reason.is_empty() || self.reason.len() > REASON || !self.reason.chars().all(is_reason) {
            let description = "the reference of a case: 1 to 64 of A-Z a-z 0-9 . - _ / , and nothing that is personal";
            wrong.push(Violation::new("reason", "reason_malformed", description));
        }
        let rests_on_consent = road.rests_on_consent(&self.purpose);
        if rests_on_consent {
            let description = "consents go with the rest of a subject: what is held could not be read for this purpose";
            wrong.push(Violation::new("purpose", "rests_on_consent", description));
        }
        let is_declared = road.schema.purpose(&self.purpose).is_some();
        if !is_declared {
            let declared: Vec<&str> = road.schema.purposes().map(|purpose| &*purpose.name).collect();
            let description = format!("the schema declares no such purpose; declared are: {}", declared.join(", "));
            wrong.push(Violation::new("purpose", "purpose_unknown", description));
        }
        if self.until <= road.now || self.until > road.now.saturating_add(LONGEST) {
            let description = "a hold ends in the future, and within thirty years";
            wrong.push(Violation::new("until_time", "until_range", description));
        }
        if self.fields.len() > FIELDS {
            wrong.push(Violation::new("fields", "too_many", format!("a hold names at most {FIELDS} fields")));
        }
        let mut fields = Vec::with_capacity(self.fields.len().min(FIELDS));
        for (index, name) in self.fields.iter().take(FIELDS).enumerate() {
            match road.schema.field(name) {
                Some(field) if is_declared && !rests_on_consent && !lists(field, &self.purpose) => {
                    let description =
                        "the schema does not list this purpose for the field: nobody could read what is held";
                    wrong.push(Violation::new(format!("fields[{index}]"), "purpose_not_listed", description));
                }
                Some(field) => fields.push(field.number),
                None => {
                    let description = "no such field in the schema; `strongroom schema show` lists the fields";
                    wrong.push(Violation::new(format!("fields[{index}]"), "field_unknown", description));
                }
            }
        }
        limits::none(wrong)?;
        fields.sort_unstable_by_key(|field| field.0);
        fields.dedup();
        if told(&fields).len() > MAX_STRING {
            // A leaf would cut it, and nobody could set the hold again in an older copy.
            return Err(Error::invalid("fields", "too_many", "name fewer fields, in more than one hold"));
        }
        Ok(fields)
    }
}

/// Of a subject that is erased but for what is held, nothing else can be held: it is gone.
fn is_there<S: Store>(road: &Road<'_, S>, record: &SubjectRecord, fields: &[FieldNo]) -> Result<(), Error> {
    if record.state != SubjectState::Held {
        return Ok(());
    }
    let now = road.standing_time();
    let of_all = || record.standing(now).any(|hold| hold.fields.is_empty());
    let there = match fields {
        [] => of_all(),
        fields => fields.iter().all(|field| record.is_held(*field, now)),
    };
    match there {
        true => Ok(()),
        false => {
            let description = "the subject is erased but for what other holds keep: name fields that they keep";
            Err(Error::invalid("fields", "erased", description))
        }
    }
}

impl<S: Store> Attempt<S> for SetHold {
    /// The hold's number; none if the vault does not know the subject.
    type Answer = Option<u32>;
    const ACTION: Action = Action::SetHold;
    /// What protects is worth the space.
    const ON_FULL_DISK: bool = true;

    async fn attempt(&self, road: &Road<'_, S>) -> Result<Prepared<Option<u32>>, Refused> {
        road.decide_vault()?;
        let fields = self.read(road)?;
        let mut prepared: Prepared<Option<u32>> = road.prepare(None);
        let records = road.asked_records(&self.subject, &mut prepared).await?;
        if records.is_empty() {
            return Ok(prepared);
        }
        // The same number in all records of the subject. Those that have ended are remembered, so that none is used twice.
        let number = records.iter().flat_map(|record| &record.holds).map(|hold| hold.number).max().unwrap_or(0);
        let number = number.checked_add(1).ok_or(Error::Internal("too many holds"))?;
        for mut record in records {
            is_there(road, &record, &fields)?;
            if record.standing(road.now).count() >= MOST {
                let description = format!("{MOST} holds stand on the subject: lift one first");
                return Err(Error::invalid("subject", "too_many_holds", description).into());
            }
            let hold = Hold {
                number,
                reason: self.reason.clone(),
                purpose: self.purpose.clone(),
                fields: fields.clone(),
                set: road.now,
                until: self.until,
            };
            add(&mut record.holds, hold, road.now);
            road.look_again(&record, self.until, false, &mut prepared).await?;
            road.write_holds(record, "hold_set", &mut prepared)?;
        }
        prepared.detail.extend([
            ("hold", number.to_string()),
            ("reason", self.reason.clone()),
            ("purpose", self.purpose.clone()),
            ("fields", told(&fields)),
            ("until", Timestamp(self.until).to_string()),
        ]);
        prepared.answer = Some(number);
        Ok(prepared)
    }
}

/// Puts a hold with the others. Of those that have ended not all are remembered.
pub(crate) fn add(holds: &mut Vec<Hold>, hold: Hold, now: u64) {
    let at = holds.partition_point(|known| known.number < hold.number);
    holds.insert(at, hold);
    while holds.len() > REMEMBERED
        && let Some(ended) = holds.iter().position(|hold| !hold.stands(now))
    {
        holds.remove(ended);
    }
}

/// Fields as a leaf names them, by their numbers.
fn told(fields: &[FieldNo]) -> String {
    match fields {
        [] => "all".to_owned(),
        fields => fields.iter().map(FieldNo::to_string).collect::<Vec<_>>().join(" "),
    }
}

/// Reads the fields that a leaf names.
pub(crate) fn fields_told(told: &str) -> Option<Vec<FieldNo>> {
    match told {
        "all" => Some(vec![]),
        numbers => numbers.split(' ').map(|number| number.parse().ok().map(FieldNo)).collect(),
    }
}

impl LiftHold {
    /// What others are asked to approve, and what the leaf says of it then, of a hold that was set for this case, or for these.
    fn asked(&self, reason: &str, subjects: &[SubjectHandle]) -> (Asked, Told) {
        let named = summary::subjects(subjects);
        let mut parts = vec![self.number.to_be_bytes().to_vec()];
        parts.extend(subjects.iter().map(|subject| subject.0.to_be_bytes().to_vec()));
        let summary = summary::lift_hold(self.number, reason, &named);
        (Asked { parts, summary }, vec![("reason", reason.to_owned()), ("subjects", named)])
    }
}

impl<S: Store> Attempt<S> for LiftHold {
    /// Whether such a hold stood, or what its end waits for; none if the vault does not know the subject.
    type Answer = Result<Option<bool>, Error>;
    const ACTION: Action = Action::LiftHold;
    /// What it frees is cleared then.
    const ON_FULL_DISK: bool = true;

    fn bound_to(&self, _rules: &Rules) -> Option<Asked> {
        let parts = vec![self.subject.clone().into_bytes(), self.number.to_be_bytes().to_vec()];
        Some(Asked { parts, summary: "lift a legal hold".to_owned() })
    }

    async fn attempt(&self, road: &Road<'_, S>) -> Result<Prepared<Self::Answer>, Refused> {
        road.decide_with_others()?;
        let mut prepared: Prepared<Self::Answer> = road.prepare(Ok(None));
        // By the clock that what is erased goes by, as far as that is believed: the ledger may be ahead.
        let ends = road.standing_time();
        let records = road.asked_records(&self.subject, &mut prepared).await?;
        prepared.answer = Ok((!records.is_empty()).then_some(false));
        let unchanged = |subject| Item { outcome: "unchanged", subject: Some(subject), ..Item::default() };
        let is_it = |hold: &Hold| hold.number == self.number && hold.stands(ends);
        let (held, rest): (Vec<_>, Vec<_>) = records.into_iter().partition(|record| record.holds.iter().any(is_it));
        prepared.items.extend(rest.iter().map(|record| unchanged(record.handle)));
        // It has the same number on all of them, and where subjects were merged not always the same case.
        let reasons = held.iter().flat_map(|record| &record.holds).filter(|hold| is_it(hold));
        let reasons: BTreeSet<&str> = reasons.map(|hold| hold.reason.as_str()).collect();
        if reasons.is_empty() {
            return Ok(prepared);
        }
        let reasons = Vec::from_iter(reasons).join(" and ");
        let handles: Vec<SubjectHandle> = held.iter().map(|record| record.handle).collect();
        let (asked, told) = self.asked(&reasons, &handles);
        if let Some(missing) = road.agreed(&asked, told, &mut prepared).await? {
            prepared.items.extend(handles.into_iter().map(unchanged));
            prepared.answer = Err(missing);
            return Ok(prepared);
        }
        for mut record in held {
            record.holds.iter_mut().filter(|hold| is_it(hold)).for_each(|hold| hold.until = ends);
            road.look_again(&record, ends, true, &mut prepared).await?;
            road.write_holds(record, "hold_lifted", &mut prepared)?;
        }
        prepared.answer = Ok(Some(true));
        prepared.detail.push(("hold", self.number.to_string()));
        Ok(prepared)
    }
}

impl<S: Store> Attempt<S> for ListHolds {
    /// None if the vault does not know the subject.
    type Answer = Option<Vec<ListedHold>>;
    const ACTION: Action = Action::ListHolds;

    async fn attempt(&self, road: &Road<'_, S>) -> Result<Prepared<Self::Answer>, Refused> {
        road.decide_vault()?;
        let mut prepared: Prepared<Self::Answer> = road.prepare(None);
        for record in road.asked_records(&self.subject, &mut prepared).await? {
            prepared.items.push(Item { outcome: OK, subject: Some(record.handle), ..Item::default() });
            let listed = record.holds.into_iter().map(|hold| ListedHold::of(hold, &road.schema, road.now));
            prepared.answer.get_or_insert_default().extend(listed);
        }
        if let Some(holds) = &mut prepared.answer {
            // Merged subjects have the same.
            holds.sort_by_key(|hold| hold.number);
            holds.dedup();
        }
        Ok(prepared)
    }
}

impl<S: Store> Vault<S> {
    /// Sets a legal hold on a data subject of the caller's tenant, and says which number it has. From then on nothing removes
    /// what it keeps.
    pub async fn set_hold(&self, caller: &Caller, request: &SetHold) -> Result<u32, Error> {
        self.travel(caller, request).await?.ok_or_else(unknown)
    }

    /// Ends a legal hold. What was erased but for it is erased now.
    pub async fn lift_hold(&self, caller: &Caller, request: &LiftHold) -> Result<(), Error> {
        let lifted = self.travel(caller, request).await??.ok_or_else(unknown)?;
        self.erasures_left.notify_one();
        match lifted {
            true => Ok(()),
            false => {
                let description =
                    "no hold of that number stands on the subject: `strongroom subject holds ID` lists them";
                Err(Error::NotFoundAt(vec![Violation::new("number", "hold_unknown", description)]))
            }
        }
    }

    /// All holds on a data subject of the caller's tenant, those that have ended too.
    pub async fn list_holds(&self, caller: &Caller, request: &ListHolds) -> Result<Vec<ListedHold>, Error> {
        self.travel(caller, request).await?.ok_or_else(unknown)
    }
}
