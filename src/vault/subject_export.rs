//! ExportSubject: all values of a data subject, a page at a time, for who hands them to it.
//!
//! Each page takes the road by itself, with a leaf that names its values as that of a Detokenize does. Policy decides on the
//! export and not on fields: a data subject is told all that is its own. Class c3 is never shown, whoever asks.

use std::sync::Arc;

use strongroom_access::Action;
use strongroom_commit::{Fact, Guard};
use strongroom_ids::{RowId, SubjectHandle};
use strongroom_keys::Plaintext;
use strongroom_schema::{Class, Field, MAX_VALUE, View};
use strongroom_storage::rows::SubjectState;
use strongroom_storage::{Family, Range, Store, keys as place};

use crate::approvals::Asked;
use crate::charge::read_of;
use crate::detokenize::release;
use crate::error::{Error, Violation};
use crate::pages::PAGE;
use crate::resolve::{Found, Resolved};
use crate::road::{Attempt, Caller, Item, OK, Prepared, Refused, Road, make_way};
use crate::subjects::unknown;
use crate::tenant::Rules;
use crate::vault::Vault;

/// The view that shows values whole.
const PLAIN: &str = "plain";
/// The outcome of a value that is held and not shown.
const WITHHELD: &str = "withheld";
/// Those of a subject of which there is nothing, and of one whose erasure has begun.
const NOTHING: &str = "nothing";
const LEAVING: &str = "leaving";
/// The outcomes of items by which nobody was told a value.
pub(crate) const UNTOLD: [&str; 3] = [WITHHELD, NOTHING, LEAVING];

/// Asks for the values of a data subject.
pub struct ExportSubject {
    /// The caller's own id of the subject.
    pub subject: String,
    /// Why: a purpose that the schema declares, and that does not rest on consent.
    pub purpose: String,
}

/// How far an export has come.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ExportedUntil {
    handle: SubjectHandle,
    row: RowId,
}

/// A value of a data subject.
pub struct ExportedValue {
    /// The name of its field.
    pub field: Arc<str>,
    /// `c1`, `c2` or `c3`.
    pub class: &'static str,
    /// What other systems have in its place.
    pub token: String,
    /// When it was first stored, in microseconds since 1970.
    pub stored: u64,
    /// When it stops being readable.
    pub expires: Option<u64>,
    /// What is shown of it, and in which view; nothing of what never is.
    pub shown: Option<(Arc<str>, Plaintext)>,
    /// Why it is not shown, or not whole; empty if it is.
    pub withheld: &'static str,
}

/// Some values of a data subject.
pub struct ExportedPage {
    /// In the order in which they were stored; may be none.
    pub values: Vec<ExportedValue>,
    /// From where to go on; none at the end.
    pub next: Option<ExportedUntil>,
}

/// What came of a page.
enum Told {
    Page(ExportedPage),
    /// The vault does not know the subject.
    Unknown,
    /// Nothing of it may be read any more.
    Leaving,
}

/// One page.
struct Page<'r> {
    asked: &'r ExportSubject,
    after: Option<ExportedUntil>,
}

impl<S: Store> Attempt<S> for Page<'_> {
    type Answer = Told;
    const ACTION: Action = Action::ExportSubject;

    fn purpose(&self) -> Option<&str> {
        Some(&self.asked.purpose)
    }

    /// All pages are one request.
    fn bound_to(&self, _rules: &Rules) -> Option<Asked> {
        let ExportSubject { subject, purpose } = self.asked;
        let parts = vec![subject.clone().into_bytes(), purpose.clone().into_bytes()];
        Some(Asked { parts, summary: "export the values of a data subject".to_owned() })
    }

    async fn attempt(&self, road: &Road<'_, S>) -> Result<Prepared<Told>, Refused> {
        road.decide_vault()?;
        self.may_rest_on(road)?;
        let mut prepared = road.prepare(Told::Unknown);
        let records = road.asked_records(&self.asked.subject, &mut prepared).await?;
        let open = records.iter().filter(|record| record.state == SubjectState::Open).map(|record| record.handle);
        let open: Vec<SubjectHandle> = open.collect();
        if open.is_empty() {
            if !records.is_empty() {
                prepared.answer = Told::Leaving;
            }
            let item = |subject| Item { outcome: LEAVING, subject: Some(subject), ..Item::default() };
            prepared.items.extend(records.iter().map(|record| item(record.handle)));
            return Ok(prepared);
        }
        let tenant = road.tenant.number;
        prepared.guards.extend(open.iter().map(|handle| Guard::Unchanged(Fact::subject_rows(tenant, *handle))));
        let (rows, next) = self.rows(road, &open).await?;
        let values = self.values(road, &open, rows, &mut prepared).await?;
        if prepared.items.is_empty() {
            let item = |subject| Item { outcome: NOTHING, subject: Some(subject), ..Item::default() };
            prepared.items.extend(open.iter().map(|handle| item(*handle)));
        }
        Ok(prepared.answering(|_| Told::Page(ExportedPage { values, next })))
    }
}

impl Page<'_> {
    /// Sees that values may be read for the purpose. What rests on consent would make a right of what somebody allowed.
    fn may_rest_on<S: Store>(&self, road: &Road<'_, S>) -> Result<(), Error> {
        let purpose = &self.asked.purpose;
        road.purpose_declared(purpose)?;
        if !road.rests_on_consent(purpose) {
            return Ok(());
        }
        let may = road.schema.purposes().filter(|purpose| !purpose.consent).map(|purpose| &*purpose.name);
        let may: Vec<&str> = may.collect();
        let description =
            format!("what a data subject is told does not rest on its consent; name one of: {}", may.join(", "));
        Err(Error::invalid("purpose", "rests_on_consent", description))
    }

    /// The rows of a page, each with whose it is, and from where to go on.
    async fn rows<S: Store>(
        &self,
        road: &Road<'_, S>,
        open: &[SubjectHandle],
    ) -> Result<(Vec<(SubjectHandle, RowId)>, Option<ExportedUntil>), Error> {
        // So many that their values fit an answer, however long they are: that bounds the memory of a page, and the edge how
        // many exports there are at once.
        let most = (road.vault.limits.message / MAX_VALUE).clamp(1, PAGE);
        let begun = self.after.unwrap_or(ExportedUntil { handle: SubjectHandle::NONE, row: RowId(0) });
        let mut rows: Vec<(SubjectHandle, RowId)> = Vec::new();
        for handle in open.iter().copied().filter(|handle| *handle >= begun.handle) {
            let after = if handle == begun.handle { begun.row } else { RowId(0) };
            let (from, to) = place::subject_rows_after(road.tenant.number, handle, after);
            let range = Range { from, to, limit: most - rows.len() + 1 };
            for (key, _) in road.vault.store.scan(Family::SubjectRows, range).await? {
                if let Some((handle, row)) = rows.last().copied().filter(|_| rows.len() == most) {
                    return Ok((rows, Some(ExportedUntil { handle, row })));
                }
                rows.push((handle, place::decode_subject_row(&key)?));
            }
        }
        Ok((rows, None))
    }

    /// Opens the values of a page.
    async fn values<S: Store>(
        &self,
        road: &Road<'_, S>,
        open: &[SubjectHandle],
        rows: Vec<(SubjectHandle, RowId)>,
        prepared: &mut Prepared<Told>,
    ) -> Result<Vec<ExportedValue>, Refused> {
        let resolved = road.resolve_rows(&rows.iter().map(|(_, row)| *row).collect::<Vec<_>>()).await?;
        let found = rows.iter().zip(&resolved).filter_map(|((holder, _), resolved)| match resolved {
            Resolved::Value(found) => Some((*holder, &**found)),
            Resolved::Expired(_) | Resolved::Nothing => None,
        });
        let mut found: Vec<(SubjectHandle, &Found)> = found.collect();
        // A value that merged subjects share was told with the first of them.
        let before = |holder: SubjectHandle| open.iter().copied().take_while(move |handle| *handle < holder);
        let shared = found.iter().filter(|(_, found)| found.is_shared());
        let shared = shared.flat_map(|(holder, found)| before(*holder).map(move |handle| (found.id, handle))).collect();
        let held = road.held(shared).await?;
        found.retain(|(holder, found)| !before(*holder).any(|handle| held.contains(&(found.id, handle))));
        let shown = found.iter().map(|(_, found)| &found.field).filter(|field| most(field).is_some());
        let mut fields: Vec<Arc<Field>> = shown.cloned().collect();
        fields.sort_unstable_by_key(|field| field.number);
        fields.dedup_by_key(|field| field.number);
        road.none_frozen(&fields)?;

        let mut values = Vec::with_capacity(found.len());
        let mut size = 0_usize;
        for (index, (holder, found)) in found.into_iter().enumerate() {
            make_way(index).await;
            let value = export(road, found)?;
            size = size.saturating_add(value.shown.as_ref().map_or(0, |(_, shown)| shown.len()));
            let limit = road.vault.limits.message;
            if size > limit {
                let items = std::mem::take(&mut prepared.items);
                return Err(Refused { error: Error::AnswerTooLarge { size, limit }, items });
            }
            found.guards(road.tenant.number, &mut prepared.guards);
            if found.is_shared() {
                prepared.guards.push(Guard::Unchanged(Fact::holders(road.tenant.number, found.id)));
            }
            let item = match most(&found.field) {
                Some((name, view)) => {
                    if let Some(charge) = &mut prepared.charge {
                        charge.uses.push(read_of(found, road.shown(view), holder));
                    }
                    Item { view: Some(Arc::clone(name)), ..found.item(OK) }
                }
                None => found.item(WITHHELD),
            };
            prepared.items.push(Item { subject: Some(holder), ..item });
            values.push(value);
        }
        Ok(values)
    }
}

/// The view that shows most of a field: the whole, where it has such a view, else a part; none of what is never shown.
fn most(field: &Field) -> Option<(&Arc<str>, &View)> {
    let named = |wanted: &str| field.views().find(|(name, _)| ***name == *wanted);
    match field.class {
        // JR/T 0171-2020: such a field has no views anyway.
        Class::C3 => None,
        Class::C1 | Class::C2 => named(PLAIN).or_else(|| named("masked")),
    }
}

fn export<S: Store>(road: &Road<'_, S>, found: &Found) -> Result<ExportedValue, Error> {
    let field = &found.field;
    let (shown, withheld) = match most(field) {
        Some((name, _)) => {
            let withheld = if **name == *PLAIN { "" } else { "no_plain_view" };
            (Some((Arc::clone(name), release(road, found, name)?.value)), withheld)
        }
        None if field.class == Class::C3 => (None, "class_c3"),
        None => (None, "field_retired"),
    };
    Ok(ExportedValue {
        field: Arc::clone(&field.full_name),
        class: field.class.as_str(),
        token: road.token_of(found)?,
        stored: found.row.created,
        expires: found.expires,
        shown,
        withheld,
    })
}

impl<S: Store> Vault<S> {
    /// The next values of a data subject of the caller's tenant: the first ones, or those after what was exported.
    pub async fn export_subject(
        &self,
        caller: &Caller,
        request: &ExportSubject,
        after: Option<ExportedUntil>,
    ) -> Result<ExportedPage, Error> {
        match self.travel(caller, &Page { asked: request, after }).await? {
            Told::Page(page) => Ok(page),
            Told::Unknown => Err(unknown()),
            Told::Leaving => {
                let description = "the subject's erasure has begun, so its values can't be read: `strongroom subject report` \
                                   says what is still held";
                Err(Error::NotFoundAt(vec![Violation::new("subject", "subject_leaving", description)]))
            }
        }
    }
}
