//! Data subjects that were erased, held, or took a consent back after a copy was made: it is so again in it.
//!
//! A subject's record is read once, changed as the journal says, in its order, and written once. What is erased is closed here:
//! its DEKs, and what leads from its id to it, go in the same write. Its rows are cleared after the start, as those of any erasure
//! that is under way (`erase.rs`), and a receipt is signed. That erasure has another name: the first one stands in no leaf.

use std::collections::BTreeMap;

use strongroom_ids::{SubjectHandle, TenantNo};
use strongroom_keys::{self as keys, IndexKey};
use strongroom_ledger::leaf::{self, LeafHeader, LeafItem, PreparedLeaf};
use strongroom_ledger::{Rules, Timestamp};
use strongroom_schema::Schema;
use strongroom_storage::rows::{
    Consent, Erasure, ErasureRow, ErasureStage, ErasureWork, Hold, Scope, SubjectRecord, SubjectState,
};
use strongroom_storage::{Family, Mutation, Store, keys as place};

use super::ROOT;
use super::replay::{Outcome, Restricting};
use crate::closing::{mapping, restricted, tomb};
use crate::consents;
use crate::erase::{
    Held, count, day, led_from, load_erasure, load_work, new_row, new_work, put_erasure, put_work, without,
};
use crate::error::Error;
use crate::holds;
use crate::pages::Pages;
use crate::road::Told;
use crate::source::{Source, SourceKind};
use crate::subjects::record_hash;

/// What a leaf calls the time of the one that said so first.
const SINCE: &str = "since";
/// What is said again of what was said.
const SAID: [&str; 9] = ["due", "hold", "reason", "purpose", "fields", "until", "scope", "field", "withdrawn"];

/// Subjects that the journal speaks of, as they are to be.
#[derive(Default)]
pub(super) struct Subjects {
    touched: BTreeMap<(TenantNo, SubjectHandle), Touched>,
    /// Their erasures, by name; none for one that was undone.
    erasures: BTreeMap<(TenantNo, [u8; 16]), Option<ErasureRow>>,
    /// To which subjects ids lead, by the places of their entries.
    mappings: BTreeMap<Vec<u8>, Vec<SubjectHandle>>,
    schemas: BTreeMap<TenantNo, Schema>,
    /// Marks of DEKs that are destroyed.
    marks: Vec<Mutation>,
}

/// A subject that the copy knows.
struct Touched {
    record: SubjectRecord,
    work: Option<ErasureWork>,
    changed: bool,
}

/// What is to be done again of a leaf.
enum Step {
    /// All but what is held goes, or all.
    Erase {
        held: bool,
    },
    Leave {
        due: u64,
    },
    Undo,
    Hold(Hold),
    Lift(u32),
    Withdraw {
        purpose: String,
        scopes: Vec<Scope>,
    },
    /// Of a subject's rows: they go when it is cleared. Or nothing was changed.
    Nothing,
}

/// What came of it.
enum Took {
    /// It holds again: what the leaf calls it.
    Again(&'static str),
    Held,
    Unknown,
}

/// A record that was changed.
struct Changed {
    subject: SubjectHandle,
    outcome: &'static str,
    hash: [u8; 32],
}

impl Step {
    /// What an item of a leaf says; none if nobody here knows how to do that again.
    fn of(one: &Restricting, outcome: &str) -> Option<Self> {
        let time = |name| Some(one.says(name)?.parse::<Timestamp>().ok()?.0);
        let number = |name| one.says(name)?.parse::<u32>().ok();
        let text = |name| one.says(name).map(str::to_owned);
        Some(match outcome {
            "subject_closed" | "subject_erased" => Self::Erase { held: false },
            "subject_held" => Self::Erase { held: true },
            "subject_leaving" => Self::Leave { due: time("due")? },
            "erasure_undone" => Self::Undo,
            "hold_set" => Self::Hold(Hold {
                number: number("hold")?,
                reason: text("reason")?,
                purpose: text("purpose")?,
                fields: holds::fields_told(one.says("fields")?)?,
                set: since(one),
                until: time("until")?,
            }),
            "hold_lifted" => Self::Lift(number("hold")?),
            "consent_withdrawn" => {
                let scope = consents::scope_said(one.says("scope")?)?;
                let scopes = match scope {
                    // All of the purpose: what is listed beside it is of it, and may be cut.
                    Scope::All => vec![scope],
                    _ => {
                        let mut scopes = consents::scopes_said(one.says("withdrawn")?)?;
                        scopes.insert(0, scope);
                        scopes
                    }
                };
                Self::Withdraw { purpose: text("purpose")?, scopes }
            }
            "deleted" | "released" | "unchanged" | "repeated" | "none" => Self::Nothing,
            _ => return None,
        })
    }
}

/// When it was so first, in microseconds since 1970.
fn since(one: &Restricting) -> u64 {
    let first = one.says(SINCE).and_then(|time| time.parse::<Timestamp>().ok());
    first.unwrap_or(one.leaf.time).0
}

impl Subjects {
    /// Does a leaf again, and says so in leaves.
    pub async fn replay<S: Store>(
        &mut self,
        one: &Restricting,
        (key, rules): (&IndexKey, &Rules),
        store: &S,
    ) -> Result<(Outcome, Vec<(TenantNo, PreparedLeaf)>), Error> {
        let (tenant, since) = (one.log.tenant, since(one));
        let (mut changed, mut known, mut missing, mut there) = (vec![], true, false, false);
        for item in &one.leaf.items {
            let (step, handle) = match (Step::of(one, &item.outcome), item.subject) {
                (Some(Step::Nothing), _) => continue,
                (Some(step), Some(handle)) => (step, handle),
                _ => {
                    known = false;
                    continue;
                }
            };
            let Some(mut touched) = self.touched(tenant, handle, store).await? else {
                missing = true;
                continue;
            };
            there = true;
            match self.take(step, (tenant, key), &mut touched, since, store).await? {
                Took::Again(outcome) => {
                    touched.changed = true;
                    touched.record.salt = keys::random::<16>()?;
                    changed.push(Changed { subject: handle, outcome, hash: record_hash(&touched.record) });
                }
                Took::Held => {}
                Took::Unknown => known = false,
            }
            self.touched.insert((tenant, handle), touched);
        }
        let outcome = match (known, changed.is_empty()) {
            (false, _) => one.unknown(),
            (true, false) => Outcome::Again,
            (true, true) if missing && !there => Outcome::NotHere,
            (true, true) => Outcome::Held,
        };
        let leaves = if changed.is_empty() { vec![] } else { leaves(one, rules, &changed)? };
        Ok((outcome, leaves))
    }

    /// A subject as it is by now, taken out; none if the copy does not know it.
    async fn touched<S: Store>(
        &mut self,
        tenant: TenantNo,
        handle: SubjectHandle,
        store: &S,
    ) -> Result<Option<Touched>, Error> {
        if let Some(touched) = self.touched.remove(&(tenant, handle)) {
            return Ok(Some(touched));
        }
        let Some(row) = store.get(Family::Subjects, place::subject(tenant, handle)).await? else { return Ok(None) };
        let work = load_work(store, tenant, handle).await?;
        Ok(Some(Touched { record: SubjectRecord::decode(&row)?, work, changed: false }))
    }

    async fn take<S: Store>(
        &mut self,
        step: Step,
        (tenant, key): (TenantNo, &IndexKey),
        touched: &mut Touched,
        since: u64,
        store: &S,
    ) -> Result<Took, Error> {
        match step {
            Step::Erase { held } => self.erase(tenant, touched, held, since, store).await,
            Step::Leave { due } => self.leave(tenant, touched, (since, due), store).await,
            Step::Undo => self.undo(tenant, touched, since, store).await,
            Step::Hold(hold) => Ok(touched.hold(hold, since)),
            Step::Lift(number) => Ok(touched.lift(number, since)),
            Step::Withdraw { purpose, scopes } => {
                let schema = self.schema(tenant, key, store).await?;
                Ok(touched.withdraw(&purpose, &scopes, schema, since))
            }
            Step::Nothing => Ok(Took::Held),
        }
    }

    /// What is erased stays so, and what is held of it is what was held then: what has ended since the eraser takes.
    async fn erase<S: Store>(
        &mut self,
        tenant: TenantNo,
        touched: &mut Touched,
        held: bool,
        since: u64,
        store: &S,
    ) -> Result<Took, Error> {
        match touched.record.state {
            SubjectState::Closed => return Ok(Took::Held),
            SubjectState::Held if held => return Ok(Took::Held),
            _ => {}
        }
        let held = match held {
            // The leaf's time is the ledger's, which may be ahead of the clock that ends holds: what has ended, the eraser takes.
            true => Held::of(store, tenant, &touched.record, 0).await?,
            false => None,
        };
        let (name, mut row) = self.erasure_of(tenant, touched, store).await?;
        row.due = 0;
        count(&touched.record, held.as_ref(), &mut row);
        self.erasures.insert((tenant, name), Some(row));
        let mut work = new_work(name);
        let record = &mut touched.record;
        let erasure = record.erasure.get_or_insert(Erasure { asked: since, due: since });
        if held.is_some() {
            // None is known to have ended.
            erasure.due = 0;
        }
        for dek in record.deks.iter().filter(|dek| !held.as_ref().is_some_and(|held| held.stays(dek.keyring))) {
            let (from, to) = place::dek_marks_range(tenant, record.handle, dek.keyring);
            let mut pages = Pages::new(Family::Meta, from, to);
            while let Some(page) = pages.next(store).await? {
                let gone = page.into_iter().map(|(key, _)| Mutation::Delete(Family::Meta, key.to_vec()));
                self.marks.extend(gone);
            }
        }
        let outcome = match &held {
            Some(held) => {
                *record = restricted(record, held)?;
                "subject_held"
            }
            None => {
                work.mapping = led_from(tenant, record);
                self.unmap(tenant, record, store).await?;
                *record = tomb(record)?;
                "subject_closed"
            }
        };
        touched.work = Some(work);
        Ok(Took::Again(outcome))
    }

    async fn leave<S: Store>(
        &mut self,
        tenant: TenantNo,
        touched: &mut Touched,
        (asked, due): (u64, u64),
        store: &S,
    ) -> Result<Took, Error> {
        let asked = match (touched.record.state, touched.record.erasure) {
            (SubjectState::Open, _) => asked,
            // It ends earlier than until now.
            (SubjectState::Leaving, Some(erasure)) if due < erasure.due => erasure.asked,
            _ => return Ok(Took::Held),
        };
        let (name, mut row) = self.erasure_of(tenant, touched, store).await?;
        row.due = due;
        self.erasures.insert((tenant, name), Some(row));
        touched.record.state = SubjectState::Leaving;
        touched.record.erasure = Some(Erasure { asked, due });
        touched.work = Some(ErasureWork { stage: ErasureStage::Waiting(due), ..new_work(name) });
        Ok(Took::Again("subject_leaving"))
    }

    async fn undo<S: Store>(
        &mut self,
        tenant: TenantNo,
        touched: &mut Touched,
        since: u64,
        store: &S,
    ) -> Result<Took, Error> {
        if touched.record.state != SubjectState::Leaving {
            return Ok(Took::Held);
        }
        let handle = touched.record.handle;
        if let Some(work) = touched.work.take() {
            let at = (tenant, work.erasure);
            let row = match self.erasures.remove(&at) {
                Some(row) => row,
                None => load_erasure(store, tenant, &work.erasure).await?,
            };
            let day = day(since)?;
            self.erasures.insert(at, row.map(|row| without(row, &[handle], day)));
        }
        touched.record.state = SubjectState::Open;
        touched.record.erasure = None;
        Ok(Took::Again("erasure_undone"))
    }

    /// The erasure that a subject's is: the one that is under way in the copy, or another.
    async fn erasure_of<S: Store>(
        &mut self,
        tenant: TenantNo,
        touched: &Touched,
        store: &S,
    ) -> Result<([u8; 16], ErasureRow), Error> {
        let name = match &touched.work {
            Some(work) => work.erasure,
            None => keys::random::<16>()?,
        };
        let known = match self.erasures.remove(&(tenant, name)) {
            Some(row) => row,
            None => load_erasure(store, tenant, &name).await?,
        };
        // Of no request.
        let mut row = known.unwrap_or_else(|| new_row([0; 32]));
        if !row.open.contains(&touched.record.handle) {
            row.open.push(touched.record.handle);
        }
        Ok((name, row))
    }

    /// Takes a subject out of the entry of its id.
    async fn unmap<S: Store>(&mut self, tenant: TenantNo, record: &SubjectRecord, store: &S) -> Result<(), Error> {
        let key = mapping(tenant, record);
        let mut handles = match self.mappings.remove(&key) {
            Some(handles) => handles,
            None => match store.get(Family::Index, key.clone()).await? {
                Some(entry) => place::decode_handles(&entry)?,
                None => vec![],
            },
        };
        handles.retain(|handle| *handle != record.handle);
        self.mappings.insert(key, handles);
        Ok(())
    }

    /// The schema of the copy, by which scopes are read.
    async fn schema<S: Store>(&mut self, tenant: TenantNo, key: &IndexKey, store: &S) -> Result<&Schema, Error> {
        use std::collections::btree_map::Entry;
        Ok(match self.schemas.entry(tenant) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place_of) => {
                let schema = match store.get(Family::Meta, place::schema(tenant)).await? {
                    Some(row) => {
                        let stored = Source::decode(&row, SourceKind::Schema, key)?;
                        Schema::from_stored(stored.body.as_bytes()).map_err(|_| Error::DataLoss("a schema"))?
                    }
                    None => Schema::empty(),
                };
                place_of.insert(schema)
            }
        })
    }

    /// The rows of what was done.
    pub fn written(self) -> Vec<Mutation> {
        let mut rows = self.marks;
        for ((tenant, handle), touched) in self.touched.into_iter().filter(|(_, touched)| touched.changed) {
            rows.push(Mutation::Put(Family::Subjects, place::subject(tenant, handle), touched.record.encode()));
            rows.push(match touched.work {
                Some(work) => put_work(tenant, handle, &work),
                None => Mutation::Delete(Family::Meta, place::erasure_work(tenant, handle)),
            });
        }
        rows.extend(self.erasures.into_iter().map(|((tenant, name), row)| match row {
            Some(row) => put_erasure(tenant, &name, &row),
            None => Mutation::Delete(Family::Meta, place::erasure(tenant, &name)),
        }));
        rows.extend(self.mappings.into_iter().map(|(key, handles)| match handles.is_empty() {
            true => Mutation::Delete(Family::Index, key),
            false => Mutation::Put(Family::Index, key, place::encode_handles(&handles)),
        }));
        rows
    }
}

impl Touched {
    /// Another hold. A number that stands already is that of the same one, whatever became of it since.
    fn hold(&mut self, hold: Hold, since: u64) -> Took {
        if self.record.state == SubjectState::Closed {
            return Took::Held;
        }
        if let Some(known) = self.record.holds.iter().find(|known| known.number == hold.number) {
            let of = |hold: &Hold| (hold.reason.clone(), hold.purpose.clone(), hold.fields.clone());
            return if of(known) == of(&hold) { Took::Held } else { Took::Unknown };
        }
        holds::add(&mut self.record.holds, hold, since);
        let until = self.record.standing(since).map(|hold| hold.until).min().unwrap_or(0);
        self.look_again(until);
        Took::Again("hold_set")
    }

    /// The end of a hold.
    fn lift(&mut self, number: u32, since: u64) -> Took {
        let hold = self.record.holds.iter_mut().find(|hold| hold.number == number && hold.stands(since));
        let Some(hold) = hold else { return Took::Held };
        hold.until = since;
        self.look_again(since);
        Took::Again("hold_lifted")
    }

    /// Has the eraser look again at what is held of a subject that is erased otherwise.
    fn look_again(&mut self, until: u64) {
        if self.record.state == SubjectState::Held
            && let Some(work) = &mut self.work
            && let ErasureStage::Kept(known) = work.stage
        {
            work.stage = ErasureStage::Kept(known.min(until));
        }
    }

    /// Takes consents back. Of a field that the copy does not know nobody can tell which consents reached it: all to its purpose go.
    fn withdraw(&mut self, purpose: &str, scopes: &[Scope], schema: &Schema, since: u64) -> Took {
        let before = self.record.consents.clone();
        let asked = scopes.first().copied();
        for scope in scopes {
            if Some(*scope) < asked {
                // Wider than what was asked for: it went alone, for want of room.
                let own = |one: &&mut Consent| one.purpose == purpose && one.scope == *scope && !one.is_withdrawn();
                for one in self.record.consents.iter_mut().filter(own) {
                    one.withdrawn = Some(since.max(one.granted));
                }
                continue;
            }
            let scope = match scope {
                Scope::Field(field) if schema.field_no(*field).is_none() => Scope::All,
                known => *known,
            };
            consents::withdraw(&mut self.record.consents, purpose, scope, schema, since);
        }
        if self.record.consents == before { Took::Held } else { Took::Again("consent_withdrawn") }
    }
}

/// What is said of it: the action that it was, by whoever holds the root key.
fn leaves(one: &Restricting, rules: &Rules, changed: &[Changed]) -> Result<Vec<(TenantNo, PreparedLeaf)>, Error> {
    let mut told: Told = SAID.into_iter().filter_map(|name| Some((name, one.says(name)?.to_owned()))).collect();
    told.push((SINCE, Timestamp(since(one)).to_string()));
    told.extend(one.origin());
    let detail: Vec<(&str, &str)> = told.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let request = keys::random::<16>()?;
    let header = LeafHeader {
        request: &request,
        principal: ROOT,
        actor: None,
        action: &one.leaf.action,
        purpose: None,
        decision: "allow",
        reason: None,
        policy: rules.policy.version,
        schema: rules.schema.version,
        keys: &[],
        client: "",
        detail: &detail,
    };
    let items = changed.iter().map(|one| LeafItem {
        subject: Some(one.subject),
        outcome: one.outcome,
        hash: Some(&one.hash),
        ..LeafItem::default()
    });
    let leaves = leaf::prepare(&header, items);
    Ok(leaves.into_iter().map(|leaf| (one.log.tenant, leaf)).collect())
}
