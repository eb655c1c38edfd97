//! What a caller asks leaves by, and what of it leaves know.

use std::collections::HashMap;

use data_encoding::HEXLOWER;
use strongroom_access::{Action, is_name};
use strongroom_commit::{Fact, Guard, Use};
use strongroom_ids::{RowId, SubjectHandle, TenantNo};
use strongroom_ledger::Timestamp;
use strongroom_ledger::filter::{FieldName, Filter};
use strongroom_ledger::terms;
use strongroom_schema::{Class, Named};
use strongroom_storage::keys as place;
use strongroom_storage::{Family, Range, Store};

use crate::error::{Error, Violation};
use crate::limits;
use crate::own_action::OwnAction;
use crate::resolve::Resolved;
use crate::road::{DENIALS, Item, Prepared, Road};

/// Bytes of a name that is asked for, at most.
const NAME: usize = 256;

/// Which leaves are wanted. What is empty fits every leaf.
#[derive(Default)]
pub struct LeafFilter {
    /// Not committed before this, in microseconds since 1970.
    pub from: Option<u64>,
    /// Committed before this.
    pub to: Option<u64>,
    /// Who asked, as leaves name it.
    pub principal: String,
    /// The caller's own id of a data subject.
    pub subject: String,
    /// A token.
    pub token: String,
    /// A field's full name.
    pub field: String,
    /// What was asked for.
    pub action: String,
    /// `allow`, `deny` or `fail`.
    pub decision: String,
    /// On whose behalf it was asked, as leaves name it.
    pub actor: String,
    /// Only changes of what is in force, and what officers said of them.
    pub changes: bool,
    /// `c1`, `c2` or `c3`: fields that were of this data class by the schema that was in force then.
    pub class: String,
    /// The view in which an item was shown.
    pub view: String,
    /// Only what tells a caller something of values or their subjects.
    pub reads: bool,
    /// Only requests that were denied, or of which an item was.
    pub denied: bool,
    /// Only requests that were refused for this reason, or of which an item was: what is denied, and what failed.
    pub reason: String,
    /// Only requests that were refused for whatever reason, or of which an item was.
    pub refused: bool,
    /// A data subject's handle, as leaves name it: also of one whose id leads nowhere any more.
    pub handle: Option<u64>,
    /// The number of a value's row, as leaves name it: also of one that was deleted.
    pub row: Option<u64>,
    /// Why it was asked for.
    pub purpose: String,
}

impl LeafFilter {
    /// What leaves know of it. What is asked for is recorded: a name that the vault knows as it is, any other as a keyed
    /// hash, a subject and a token as what they lead to.
    pub(super) async fn resolve<S: Store>(
        &self,
        road: &Road<'_, S>,
        log: TenantNo,
        prepared: &mut Prepared<()>,
    ) -> Result<Filter, Error> {
        self.check(road, log)?;
        self.record(road, log, prepared).await?;
        let (subjects, rows) = (self.subjects(road, prepared).await?, self.rows(road, prepared).await?);
        let given = |text: &String| (!text.is_empty()).then(|| text.clone());
        Ok(Filter {
            from: self.from.map(Timestamp),
            to: self.to.map(Timestamp),
            principal: given(&self.principal),
            action: given(&self.action),
            decision: given(&self.decision),
            field: given(&self.field),
            subjects,
            rows,
            actor: given(&self.actor),
            actions: self.actions(),
            fields: self.fields(road),
            view: given(&self.view),
            reasons: self.reasons(),
            refused: self.refused,
            purpose: given(&self.purpose),
        })
    }

    /// The reasons that are asked for.
    fn reasons(&self) -> Option<Vec<String>> {
        let all = DENIALS.iter().filter(|_| self.denied).map(|reason| (*reason).to_owned());
        match self.reason.is_empty() {
            true => self.denied.then(|| all.collect()),
            false => Some(vec![self.reason.clone()]),
        }
    }

    /// The changes, or the reads, if these are asked for.
    fn actions(&self) -> Option<Vec<String>> {
        let fits = |action: &&Action| (!self.changes || action.is_change()) && (!self.reads || action.is_read());
        let own = OwnAction::ALL.iter().filter(|own| own.is_change() && !self.reads).map(|own| own.as_str());
        let all = Action::ALL.iter().filter(fits).map(|action| action.as_str()).chain(own);
        (self.changes || self.reads).then(|| all.map(str::to_owned).collect())
    }

    /// The fields of the class that is asked for.
    fn fields<S: Store>(&self, road: &Road<'_, S>) -> Option<Vec<FieldName>> {
        let class = Class::named(&self.class)?;
        let owned =
            |named: Named<'_>| FieldName { name: named.name.to_owned(), since: named.since, until: named.until };
        Some(road.schema.names_of(class).map(owned).collect())
    }

    fn check<S: Store>(&self, road: &Road<'_, S>, log: TenantNo) -> Result<(), Error> {
        let mut wrong = Vec::new();
        let names = [
            ("principal", &self.principal, NAME),
            ("field", &self.field, NAME),
            ("action", &self.action, NAME),
            ("actor", &self.actor, NAME),
            ("view", &self.view, NAME),
            ("purpose", &self.purpose, NAME),
        ];
        let limits = &road.vault.limits;
        let sent = [("subject", &self.subject, limits.subject), ("token", &self.token, limits.token)];
        for (name, text, most) in names.into_iter().chain(sent) {
            if text.len() > most {
                let description = format!("a {name} has at most {most} bytes");
                wrong.push(Violation::new(format!("filter.{name}"), "too_long", description));
            }
        }
        for (name, text, _) in names {
            // Leaves have such names escaped; a manifest could not be signed for them.
            if text.chars().any(char::is_control) {
                wrong.push(Violation::new(
                    format!("filter.{name}"),
                    "control_character",
                    "write a name as leaves have it",
                ));
            }
        }
        let both = [("handle", self.handle, "subject", &self.subject), ("row", self.row, "token", &self.token)];
        for (number, given, name, text) in both {
            if given.is_some() && !text.is_empty() {
                let description = format!("ask by a {name} or by a {number}");
                wrong.push(Violation::new(format!("filter.{number}"), "not_both", description));
            }
        }
        if !matches!(&*self.decision, "" | "allow" | "deny" | "fail") {
            wrong.push(Violation::new("filter.decision", "unknown", "write allow, deny or fail"));
        }
        if self.reason.len() > NAME || !self.reason.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_') {
            wrong.push(Violation::new(
                "filter.reason",
                "unknown",
                "write a reason as leaves have it: DENIED, NOT_FOUND, ...",
            ));
        }
        if self.denied && !self.reason.is_empty() && !DENIALS.contains(&&*self.reason) {
            let description = "what is refused for this reason failed and was not denied: ask for it alone";
            wrong.push(Violation::new("filter.reason", "not_denied", description));
        }
        if !matches!(&*self.class, "" | "c1" | "c2" | "c3") {
            wrong.push(Violation::new("filter.class", "unknown", "write c1, c2 or c3"));
        }
        if log != road.tenant.number {
            if !self.class.is_empty() {
                let description = "the schema that says so went with the tenant: name fields";
                wrong.push(Violation::new("filter.class", "tenant_destroyed", description));
            }
            for (name, ..) in sent.into_iter().filter(|(_, text, _)| !text.is_empty()) {
                let description =
                    "what it stood for went with the tenant: ask by the handle or the row that leaves name";
                wrong.push(Violation::new(format!("filter.{name}"), "tenant_destroyed", description));
            }
        }
        limits::none(wrong)
    }

    async fn record<S: Store>(
        &self,
        road: &Road<'_, S>,
        log: TenantNo,
        prepared: &mut Prepared<()>,
    ) -> Result<(), Error> {
        let given = |text: &String| (!text.is_empty()).then(|| text.clone());
        let principal = Filter { principal: given(&self.principal), ..Filter::default() };
        let is_officer = || {
            let name = self.principal.strip_prefix("officer/");
            name.is_some_and(|name| road.vault.directory().officers.contains_key(&(log, name.to_owned())))
        };
        // ROLE/NAME, and ISSUER/NAME.
        let is_pair = |text: &str| text.split_once('/').is_some_and(|(one, other)| is_name(one) && is_name(other));
        let is_principal = is_pair(&self.principal) && (is_officer() || is_in_index(road, log, &principal).await?);
        let actor = Filter { actor: given(&self.actor), ..Filter::default() };
        let is_actor = is_pair(&self.actor) && is_in_index(road, log, &actor).await?;
        let reason = Filter { reasons: Some(vec![self.reason.clone()]), ..Filter::default() };
        let is_reason =
            !self.reason.is_empty() && (DENIALS.contains(&&*self.reason) || is_in_index(road, log, &reason).await?);
        let handles = Filter { subjects: self.handle.map(|handle| vec![SubjectHandle(handle)]), ..Filter::default() };
        let rows = Filter { rows: self.row.map(|row| vec![RowId(row)]), ..Filter::default() };
        let (is_handle, is_row) = (is_in_index(road, log, &handles).await?, is_in_index(road, log, &rows).await?);
        let detail = &mut prepared.detail;
        let hash = |text: &str| HEXLOWER.encode(&road.fingerprint(text.as_bytes()));
        detail.extend(self.from.map(|from| ("from", Timestamp(from).to_string())));
        detail.extend(self.to.map(|to| ("to", Timestamp(to).to_string())));
        if !self.principal.is_empty() {
            detail.push(match is_principal {
                true => ("principal", self.principal.clone()),
                false => ("principal_sent", hash(&self.principal)),
            });
        }
        if !self.field.is_empty() {
            detail.push(match road.schema.field(&self.field) {
                Some(field) => ("field", field.full_name.to_string()),
                None => ("field_sent", hash(&self.field)),
            });
        }
        if !self.action.is_empty() {
            detail.push(match self.action.parse::<Action>() {
                Ok(action) => ("action", action.as_str().to_owned()),
                Err(_) => ("action_sent", hash(&self.action)),
            });
        }
        detail.extend((!self.decision.is_empty()).then(|| ("decision", self.decision.clone())));
        if !self.actor.is_empty() {
            detail.push(match is_actor {
                true => ("actor", self.actor.clone()),
                false => ("actor_sent", hash(&self.actor)),
            });
        }
        detail.extend(self.changes.then(|| ("changes", "true".to_owned())));
        detail.extend(self.reads.then(|| ("reads", "true".to_owned())));
        detail.extend(self.handle.map(|handle| match is_handle {
            true => ("handle", handle.to_string()),
            false => ("handle_sent", hash(&handle.to_string())),
        }));
        detail.extend(self.row.map(|row| match is_row {
            true => ("row", row.to_string()),
            false => ("row_sent", hash(&row.to_string())),
        }));
        if !self.purpose.is_empty() {
            detail.push(match road.schema.purpose(&self.purpose) {
                Some(_) => ("purpose", self.purpose.clone()),
                None => ("purpose_sent", hash(&self.purpose)),
            });
        }
        detail.extend(self.denied.then(|| ("denied", "true".to_owned())));
        detail.extend(self.refused.then(|| ("any_reason", "true".to_owned())));
        if !self.reason.is_empty() {
            detail.push(match is_reason {
                true => ("reason", self.reason.clone()),
                false => ("reason_sent", hash(&self.reason)),
            });
        }
        detail.extend((!self.class.is_empty()).then(|| ("class", self.class.clone())));
        if !self.view.is_empty() {
            let known = road.schema.fields().any(|field| field.view(&self.view).is_some());
            detail.push(match known {
                true => ("view", self.view.clone()),
                false => ("view_sent", hash(&self.view)),
            });
        }
        Ok(())
    }

    /// The handles of the subject that is asked for.
    async fn subjects<S: Store>(
        &self,
        road: &Road<'_, S>,
        prepared: &mut Prepared<()>,
    ) -> Result<Option<Vec<SubjectHandle>>, Error> {
        if self.subject.is_empty() {
            return Ok(self.handle.map(|handle| vec![SubjectHandle(handle)]));
        }
        let ids = std::iter::once(self.subject.as_str());
        let mut found: HashMap<&str, Vec<SubjectHandle>> = road.handles(ids, &mut prepared.guards).await?;
        let handles = found.remove(self.subject.as_str()).unwrap_or_default();
        for handle in &handles {
            prepared.items.push(Item { outcome: "found", subject: Some(*handle), ..Item::default() });
        }
        if handles.is_empty() {
            prepared.items.push(nobody(road, &self.subject));
        }
        charge(road, prepared, handles.is_empty());
        Ok(Some(handles))
    }

    /// The row of the token that is asked for.
    async fn rows<S: Store>(
        &self,
        road: &Road<'_, S>,
        prepared: &mut Prepared<()>,
    ) -> Result<Option<Vec<RowId>>, Error> {
        if self.token.is_empty() {
            return Ok(self.row.map(|row| vec![RowId(row)]));
        }
        let resolved = road.resolve(&[self.token.as_str()]).await?;
        let rows = match resolved.first() {
            Some(Resolved::Value(found) | Resolved::Expired(found)) => {
                prepared.guards.push(Guard::Unchanged(Fact::row(road.tenant.number, found.id)));
                prepared.items.push(found.item("found"));
                vec![found.id]
            }
            _ => {
                prepared.items.push(nobody(road, &self.token));
                vec![]
            }
        };
        charge(road, prepared, rows.is_empty());
        Ok(Some(rows))
    }
}

/// Whether leaves of the log have a name, as far as they are in the index: what stands in leaves may stand in another. Two
/// names of one term would have to be the same in 64 bits of their hash.
async fn is_in_index<S: Store>(road: &Road<'_, S>, log: TenantNo, name: &Filter) -> Result<bool, Error> {
    let size = road.vault.committer.head(log).map_or(0, |head| head.size);
    for term in terms::of_filter(name).into_iter().flatten() {
        let (from, to) = place::leaf_index_range(log, &term.to_bytes(), 0, size);
        if !road.vault.store.scan(Family::LeafIndex, Range { from, to, limit: 1 }).await?.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The item of what the vault does not know.
fn nobody<S: Store>(road: &Road<'_, S>, sent: &str) -> Item {
    Item { outcome: "none", sent: Some(road.fingerprint(sent.as_bytes())), ..Item::default() }
}

/// Counts a question, so that nobody finds out by guessing whom the vault knows.
fn charge<S: Store>(road: &Road<'_, S>, prepared: &mut Prepared<()>, missed: bool) {
    if prepared.charge.is_none() {
        prepared.charge = road.charge();
    }
    if let Some(charge) = &mut prepared.charge {
        charge.uses.push(Use::Asked { row: None, missed });
    }
}
