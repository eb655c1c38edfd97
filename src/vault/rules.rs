//! Schema and policy: the rules that every request stands on, changed while no request runs.

use std::fmt::Display;
use std::sync::{Arc, OnceLock};

use strongroom_access::{self as access, Action, Policies, Query, SecondFactor};
use strongroom_commit::Fact;
use strongroom_keys::{IndexName, KeyName};
use strongroom_ledger::summary;
use strongroom_schema::{Schema, SchemaFile};
use strongroom_storage::keys as place;
use strongroom_storage::{Family, Mutation, Store};

use crate::approvals::{Approvable, Asked};
use crate::error::Error;
use crate::names;
use crate::officers::approvers;
use crate::policies::{self, AppliedPolicy, RolledBack};
use crate::road::{Attempt, Prepared, Refused, Road};
use crate::source::{Source, SourceKind};
use crate::tenant::{KeysInUse, Rules, Tenant};
use crate::values::{self, row_hash};
use crate::vault::Vault;

/// Bytes of a schema or policy, at most.
const SOURCE_LIMIT: usize = 1 << 20;

/// Puts a schema in force.
pub struct ApplySchema {
    /// The file.
    pub source: String,
    /// Check only.
    pub dry_run: bool,
}

/// What is in force now, or would be.
pub struct Applied {
    /// The version.
    pub version: u32,
    /// The fields of a schema; the cases that were run of a policy's table.
    pub count: u32,
    /// What is right and may not be what was meant, in words.
    pub notes: Vec<String>,
}

/// A new schema, on its way into memory.
pub(crate) struct NewSchema {
    pub applied: Applied,
    schema: Option<(Arc<Schema>, KeysInUse)>,
}

/// A schema that waits for its turn, read already.
pub(crate) struct SchemaInTurn<'r> {
    request: &'r ApplySchema,
    file: OnceLock<SchemaFile>,
}

impl<'r> SchemaInTurn<'r> {
    pub fn new(request: &'r ApplySchema) -> Self {
        Self { request, file: OnceLock::new() }
    }

    /// The schema that would follow the one in force.
    fn next<S: Store>(&self, road: &Road<'_, S>) -> Result<Schema, Error> {
        let refused = |error: strongroom_schema::SchemaError| Error::SourceRefused(error.to_string());
        let file = match self.file.get() {
            Some(file) => file,
            None => {
                let file = SchemaFile::parse(&self.request.source).map_err(refused)?;
                self.file.get_or_init(|| file)
            }
        };
        let version = road.schema.version().checked_add(1).ok_or(Error::Internal("too many schema versions"))?;
        let previous = (road.schema.version() > 0).then_some(&*road.schema);
        Schema::evolve(previous, file, version).map_err(refused)
    }
}

impl<S: Store> Attempt<S> for SchemaInTurn<'_> {
    type Answer = NewSchema;
    const ACTION: Action = Action::ApplySchema;
    const ALONE: bool = true;

    fn bound_to(&self, rules: &Rules) -> Option<Asked> {
        Some(Approvable::<S>::asked(self, rules).or_only_checked(self.request.dry_run))
    }

    fn may_have_it_alone(&self, road: &Road<'_, S>) -> Result<(), Error> {
        road.decide_with_others()?;
        within_limit("source", &self.request.source)?;
        let schema = self.next(road)?;
        // One whose last change is not known to be durable has to find that out, and others must not read keys meanwhile: that
        // is done alone.
        if !self.request.dry_run && road.vault.keystore.is_settled() {
            // Keys before the rows that need them: a key that nothing uses yet harms nobody, if the schema does not come.
            road.vault.keystore.ensure(&keys_of(road.tenant, &schema), road.now)?;
        }
        Ok(())
    }

    async fn attempt(&self, road: &Road<'_, S>) -> Result<Prepared<NewSchema>, Refused> {
        road.decide_with_others()?;
        // What only is checked needs nobody's approval.
        let given = match self.request.dry_run {
            true => None,
            false => road.decide_approved(self).await?,
        };
        let schema = Arc::new(self.next(road)?);
        let version = schema.version();
        let notes = names::noted(&road.tenant.access.policies(), &schema);
        let applied = Applied { version, count: schema.fields().count() as u32, notes };
        if self.request.dry_run {
            let mut prepared = road.prepare(NewSchema { applied, schema: None });
            prepared.detail.push(("dry_run", "true".to_owned()));
            return Ok(prepared);
        }
        // They are there, unless another schema has come meanwhile.
        let needed = keys_of(road.tenant, &schema);
        road.vault.keystore.ensure(&needed, road.now)?;
        let keys = KeysInUse::of(road.tenant.id, &schema, &road.vault.keystore)?;
        let body = String::from_utf8(schema.to_stored()).map_err(|_| Error::Internal("a schema that is not text"))?;
        let source = Source::new(version, body)?;
        let mut prepared = road.prepare(NewSchema { applied, schema: Some((schema, keys)) });
        prepared.changes.push(Fact::schema(road.tenant.number));
        road.put_rules(place::schema(road.tenant.number), SourceKind::Schema, &source, &mut prepared);
        prepared.detail.push(("text_sha256", sha256(&self.request.source)));
        let needed: Vec<String> = needed.iter().map(ToString::to_string).collect();
        prepared.detail.push(("keys", needed.join(" ")));
        road.use_up(given, &mut prepared)?;
        Ok(prepared)
    }

    fn install(&self, _vault: &Vault<S>, tenant: &Tenant, answer: &NewSchema) {
        if let Some((schema, keys)) = &answer.schema {
            tenant.install_schema(Arc::clone(schema), keys.clone());
        }
    }
}

impl<S: Store> Approvable<S> for SchemaInTurn<'_> {
    fn asked(&self, _rules: &Rules) -> Asked {
        let source = &self.request.source;
        Asked { parts: vec![source.clone().into_bytes()], summary: summary::apply_schema(&sha256(source)) }
    }

    fn would_be_done(&self, road: &Road<'_, S>) -> Result<(), Error> {
        within_limit("source", &self.request.source)?;
        self.next(road).map(drop)
    }
}

/// SHA-256 of a text, in hexadecimal.
pub(crate) fn sha256(text: &str) -> String {
    data_encoding::HEXLOWER.encode(&values::sha256(text.as_bytes()))
}

/// The keys that a schema's fields and keyrings need.
fn keys_of(tenant: &Tenant, schema: &Schema) -> Vec<KeyName> {
    let keks = schema.keyrings().map(|keyring| KeyName::Kek(tenant.id, keyring));
    let indexed = schema.fields().filter(|field| field.lookup || field.deterministic.is_some());
    keks.chain(indexed.map(|field| KeyName::Index(tenant.id, IndexName::Field(field.number)))).collect()
}

/// Puts policies in force.
pub struct ApplyPolicy {
    /// The policies, in Cedar.
    pub source: String,
    /// A table of cases that they must decide as it says, TOML; may be empty.
    pub tests: String,
    /// Check only.
    pub dry_run: bool,
}

/// New policies, on their way into memory.
pub(crate) struct NewPolicy {
    pub applied: Applied,
    installed: Option<(Arc<Policies>, Source)>,
}

/// Policies that wait for their turn, compiled and tested already.
pub(crate) struct PolicyInTurn<'r> {
    request: &'r ApplyPolicy,
    /// The older version that is put in force again, if it is that.
    rolled_back: Option<RolledBack>,
    tested: OnceLock<Tested>,
}

#[derive(Clone)]
struct Tested {
    policies: Arc<Policies>,
    cases: u32,
}

impl<'r> PolicyInTurn<'r> {
    pub fn new(request: &'r ApplyPolicy) -> Self {
        Self { request, rolled_back: None, tested: OnceLock::new() }
    }

    /// An older version, whose text is that of the request.
    pub fn rolled_back(request: &'r ApplyPolicy, to: RolledBack) -> Self {
        Self { rolled_back: Some(to), ..Self::new(request) }
    }

    /// Compiles the policies and runs their table, once.
    fn tested(&self) -> Result<Tested, Error> {
        if let Some(tested) = self.tested.get() {
            return Ok(tested.clone());
        }
        if let Some(to) = &self.rolled_back {
            to.is_kept()?;
        }
        let ApplyPolicy { source, tests, .. } = self.request;
        let policies = Policies::compile(source).map_err(|error| Error::SourceRefused(error.to_string()))?;
        let cases = match tests.is_empty() {
            true => 0,
            false => access::check(&policies, tests).map_err(|error| Error::SourceRefused(error.to_string()))?,
        };
        let tested = Tested { policies: Arc::new(policies), cases: cases as u32 };
        Ok(self.tested.get_or_init(|| tested).clone())
    }
}

impl PolicyInTurn<'_> {
    /// Sees that they speak of what there is. What was in force before comes back as it was.
    fn names<S: Store>(&self, policies: &Policies, road: &Road<'_, S>) -> Result<Vec<String>, Error> {
        match self.rolled_back {
            None => names::checked(policies, &road.schema),
            Some(_) => Ok(names::noted(policies, &road.schema)),
        }
    }

    /// Sees that the caller could apply policies again, alone or with the approval of those who could give it.
    fn locks_nobody_out<S: Store>(&self, policies: &Policies, road: &Road<'_, S>) -> Result<(), Error> {
        let mut own = road.query_on_vault(Action::ApplyPolicy);
        let mut step_up = Query { action: Action::StepUp, ..own };
        step_up.context = step_up.context.second_factor(SecondFactor::Absent);
        // Whoever shows a second factor could show it for that request too, as long as it may step up.
        own.context = match own.context.has_second_factor() && policies.decide(&step_up).allowed {
            true => own.context.second_factor(SecondFactor::Bound),
            false => step_up.context,
        };
        if policies.decide(&own).allowed {
            return Ok(());
        }
        let Some(need) = policies.approvals_needed(&own) else {
            let why = "under these policies you could not apply any policy again: keep a permit for apply_policy; if they want a \
                       second factor for it, show yours now (`strongroom second-factor step-up`); or have those who hold the \
                       root key force them: `strongroom break-glass policy TENANT FILE`";
            return Err(Error::SourceRefused(why.to_owned()));
        };
        let may = |query: &Query<'_>| policies.decide(query).allowed;
        let others = approvers(road, &road.vault.directory(), may, &road.caller.principal.name);
        match others >= usize::from(need) {
            true => Ok(()),
            false => Err(Error::SourceRefused(format!(
                "under these policies you could not apply any policy again: that needs the approval of {need} other \
                 officers, and the tenant has {others} who could give it; those who hold the root key can force them: \
                 `strongroom break-glass policy TENANT FILE`"
            ))),
        }
    }
}

impl<S: Store> Approvable<S> for PolicyInTurn<'_> {
    fn asked(&self, _rules: &Rules) -> Asked {
        let ApplyPolicy { source, tests, .. } = self.request;
        let mut parts = [source, tests].map(|text| text.clone().into_bytes()).to_vec();
        let to = self.rolled_back.as_ref().map(|to| to.version);
        parts.extend(to.into_iter().flat_map(|to| [b"roll back".to_vec(), to.to_be_bytes().to_vec()]));
        let summary = summary::apply_policy(&sha256(source), to.as_ref().map(|to| to as &dyn Display));
        Asked { parts, summary }
    }
}

impl<S: Store> Attempt<S> for PolicyInTurn<'_> {
    type Answer = NewPolicy;
    const ACTION: Action = Action::ApplyPolicy;
    const ALONE: bool = true;

    fn bound_to(&self, rules: &Rules) -> Option<Asked> {
        Some(Approvable::<S>::asked(self, rules).or_only_checked(self.request.dry_run))
    }

    fn may_have_it_alone(&self, road: &Road<'_, S>) -> Result<(), Error> {
        road.decide_with_others()?;
        within_limit("source", &self.request.source)?;
        within_limit("tests", &self.request.tests)?;
        let tested = self.tested()?;
        self.names(&tested.policies, road)?;
        self.locks_nobody_out(&tested.policies, road)
    }

    async fn attempt(&self, road: &Road<'_, S>) -> Result<Prepared<NewPolicy>, Refused> {
        road.decide_with_others()?;
        let version = road.tenant.policy_version().checked_add(1).ok_or(Error::Internal("too many policy versions"))?;
        let Tested { policies, cases } = self.tested()?;
        self.locks_nobody_out(&policies, road)?;
        // What only is checked needs nobody's approval.
        let given = match self.request.dry_run {
            true => None,
            false => road.decide_approved(self).await?,
        };
        let applied = Applied { version, count: cases, notes: self.names(&policies, road)? };
        let to = self.rolled_back.as_ref().map(|to| to.version);
        if self.request.dry_run {
            let mut prepared = road.prepare(NewPolicy { applied, installed: None });
            prepared.detail.push(("dry_run", "true".to_owned()));
            return Ok(prepared);
        }
        let source = Source::new(version, self.request.source.clone())?;
        let mut prepared = road.prepare(NewPolicy { applied, installed: None });
        prepared.changes.push(Fact::policy(road.tenant.number));
        road.put_rules(place::policy(road.tenant.number), SourceKind::Policy, &source, &mut prepared);
        prepared.answer.installed = Some((policies, source));
        let text_sha256 = sha256(&self.request.source);
        prepared.detail.push(("text_sha256", text_sha256.clone()));
        prepared.detail.extend(to.map(|to| ("rolled_back_to", to.to_string())));
        let by = road.caller.principal.name.to_string();
        let next = AppliedPolicy { version, sha256: text_sha256, time: road.now, by, of: to };
        prepared.mutations.extend(policies::keep(&*road.vault.store, road.tenant, &road.rules.policy, next).await?);
        road.use_up(given, &mut prepared)?;
        Ok(prepared)
    }

    fn install(&self, _vault: &Vault<S>, tenant: &Tenant, answer: &NewPolicy) {
        if let Some((policies, source)) = &answer.installed {
            tenant.install_policy(Arc::clone(policies), source.clone());
        }
    }
}

impl<S: Store> Road<'_, S> {
    /// Commits a row of the rules in force. The log names its version and hash: by that it is known to be the newest.
    pub fn put_rules<A>(&self, at: Vec<u8>, kind: SourceKind, rules: &Source, prepared: &mut Prepared<A>) {
        let row = rules.encode(kind, &self.tenant.fingerprints);
        prepared.detail.push(("version", rules.version.to_string()));
        prepared.detail.push(("sha256", data_encoding::HEXLOWER.encode(&row_hash(&row))));
        prepared.mutations.push(Mutation::Put(Family::Meta, at, row));
    }
}

fn within_limit(path: &str, source: &str) -> Result<(), Error> {
    if source.len() <= SOURCE_LIMIT {
        return Ok(());
    }
    Err(Error::invalid(path, "too_long", format!("at most {SOURCE_LIMIT} bytes")))
}

/// What is in force, as it was applied.
pub struct InForce {
    /// Its version; 0 if there is none.
    pub version: u32,
    /// Its text.
    pub source: String,
}

/// Asks for the schema in force.
pub(crate) struct GetSchema;

impl<S: Store> Attempt<S> for GetSchema {
    type Answer = InForce;
    const ACTION: Action = Action::GetSchema;

    async fn attempt(&self, road: &Road<'_, S>) -> Result<Prepared<InForce>, Refused> {
        road.decide_vault()?;
        let answer = InForce { version: road.schema.version(), source: road.schema.source().to_owned() };
        Ok(road.prepare(answer))
    }
}
