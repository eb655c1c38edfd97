//! Schema and policy: the rules that every request stands on, changed while no request runs.

use std::sync::{Arc, OnceLock};

use strongroom_access::{self as access, Action, Consent, Context, Policies, Principal, Query, Resource, Role};
use strongroom_commit::Fact;
use strongroom_keys::{IndexName, KeyName};
use strongroom_schema::{Schema, SchemaFile};
use strongroom_storage::keys as place;
use strongroom_storage::{Family, Mutation, Store};

use crate::approvals::{Approvable, Asked};
use crate::error::Error;
use crate::reading::lists;
use crate::road::{Attempt, Prepared, Refused, Road};
use crate::source::{Source, SourceKind};
use crate::tenant::{KeysInUse, Tenant};
use crate::values::row_hash;
use crate::vault::Vault;

/// Bytes of a schema or policy, at most.
const SOURCE_LIMIT: usize = 1 << 20;
/// Bytes of a principal's name, at most.
const NAME_LIMIT: usize = 64;

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
            false => road.decide_approved(&Approvable::<S>::asked(self)).await?,
        };
        let schema = Arc::new(self.next(road)?);
        let version = schema.version();
        let applied = Applied { version, count: schema.fields().count() as u32 };
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
        let row = Source::new(version, body)?.encode(SourceKind::Schema, &road.tenant.fingerprints);
        let mut prepared = road.prepare(NewSchema { applied, schema: Some((schema, keys)) });
        prepared.changes.push(Fact::schema(road.tenant.number));
        prepared.detail.push(("version", version.to_string()));
        prepared.detail.push(("sha256", data_encoding::HEXLOWER.encode(&row_hash(&row))));
        let needed: Vec<String> = needed.iter().map(ToString::to_string).collect();
        prepared.detail.push(("keys", needed.join(" ")));
        prepared.mutations.push(Mutation::Put(Family::Meta, place::schema(road.tenant.number), row));
        given.map_or(Ok(()), |given| given.use_up(road, &mut prepared))?;
        Ok(prepared)
    }

    fn install(&self, _vault: &Vault<S>, tenant: &Tenant, answer: &NewSchema) {
        if let Some((schema, keys)) = &answer.schema {
            tenant.install_schema(Arc::clone(schema), keys.clone());
        }
    }
}

impl<S: Store> Approvable<S> for SchemaInTurn<'_> {
    fn asked(&self) -> Asked {
        let source = &self.request.source;
        Asked {
            parts: vec![source.clone().into_bytes()],
            summary: format!("apply the schema with SHA-256 {}", sha256(source)),
        }
    }

    fn would_be_done(&self, road: &Road<'_, S>) -> Result<(), Error> {
        within_limit("source", &self.request.source)?;
        self.next(road).map(drop)
    }
}

fn sha256(text: &str) -> String {
    data_encoding::HEXLOWER.encode(ring::digest::digest(&ring::digest::SHA256, text.as_bytes()).as_ref())
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
    tested: OnceLock<Tested>,
}

#[derive(Clone)]
struct Tested {
    policies: Arc<Policies>,
    cases: u32,
}

impl<'r> PolicyInTurn<'r> {
    pub fn new(request: &'r ApplyPolicy) -> Self {
        Self { request, tested: OnceLock::new() }
    }

    /// Compiles the policies and runs their table, once.
    fn tested(&self) -> Result<Tested, Error> {
        if let Some(tested) = self.tested.get() {
            return Ok(tested.clone());
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
    /// Sees that the caller could apply policies again, alone or with the approval of those who could give it.
    fn locks_nobody_out<S: Store>(&self, policies: &Policies, road: &Road<'_, S>) -> Result<(), Error> {
        let own = Query::on_vault(&road.caller.principal, Action::ApplyPolicy, road.now);
        if policies.decide(&own).allowed {
            return Ok(());
        }
        let Some(need) = policies.approvals_needed(&own) else {
            let why = "under these policies you could not apply any policy again: keep a permit for apply_policy";
            return Err(Error::SourceRefused(why.to_owned()));
        };
        // Who could approve then: officers who are not suspended, and whom these policies let.
        let directory = road.vault.directory();
        let others = directory.officers.keys().filter(|(tenant, name)| {
            let other = Principal::new(road.tenant.number, Role::Officer, name);
            let may = |action| policies.decide(&Query::on_vault(&other, action, road.now)).allowed;
            *tenant == road.tenant.number
                && other.name != road.caller.principal.name
                && !road.rules.freezes.is_suspended(&other.name)
                && may(Action::Approve)
                && may(Action::ListApprovals)
        });
        let others = others.count();
        match others >= usize::from(need) {
            true => Ok(()),
            false => Err(Error::SourceRefused(format!(
                "under these policies you could not apply any policy again: that needs the approval of {need} other \
                 officers, and the tenant has {others} who could give it"
            ))),
        }
    }
}

impl<S: Store> Approvable<S> for PolicyInTurn<'_> {
    fn asked(&self) -> Asked {
        let ApplyPolicy { source, tests, .. } = self.request;
        let parts = [source, tests].map(|text| text.clone().into_bytes()).to_vec();
        Asked { parts, summary: format!("apply the policies with SHA-256 {}", sha256(source)) }
    }

    fn would_be_done(&self, road: &Road<'_, S>) -> Result<(), Error> {
        Attempt::<S>::may_have_it_alone(self, road)
    }
}

impl<S: Store> Attempt<S> for PolicyInTurn<'_> {
    type Answer = NewPolicy;
    const ACTION: Action = Action::ApplyPolicy;
    const ALONE: bool = true;

    fn may_have_it_alone(&self, road: &Road<'_, S>) -> Result<(), Error> {
        road.decide_with_others()?;
        within_limit("source", &self.request.source)?;
        within_limit("tests", &self.request.tests)?;
        self.locks_nobody_out(&self.tested()?.policies, road)
    }

    async fn attempt(&self, road: &Road<'_, S>) -> Result<Prepared<NewPolicy>, Refused> {
        road.decide_with_others()?;
        let version = road.tenant.policy_version().checked_add(1).ok_or(Error::Internal("too many policy versions"))?;
        let Tested { policies, cases } = self.tested()?;
        self.locks_nobody_out(&policies, road)?;
        // What only is checked needs nobody's approval.
        let given = match self.request.dry_run {
            true => None,
            false => road.decide_approved(&Approvable::<S>::asked(self)).await?,
        };
        let applied = Applied { version, count: cases };
        if self.request.dry_run {
            let mut prepared = road.prepare(NewPolicy { applied, installed: None });
            prepared.detail.push(("dry_run", "true".to_owned()));
            return Ok(prepared);
        }
        let source = Source::new(version, self.request.source.clone())?;
        let row = source.encode(SourceKind::Policy, &road.tenant.fingerprints);
        let mut prepared = road.prepare(NewPolicy { applied, installed: Some((policies, source)) });
        prepared.changes.push(Fact::policy(road.tenant.number));
        prepared.detail.push(("version", version.to_string()));
        prepared.detail.push(("sha256", data_encoding::HEXLOWER.encode(&row_hash(&row))));
        prepared.mutations.push(Mutation::Put(Family::Meta, place::policy(road.tenant.number), row));
        given.map_or(Ok(()), |given| given.use_up(road, &mut prepared))?;
        Ok(prepared)
    }

    fn install(&self, _vault: &Vault<S>, tenant: &Tenant, answer: &NewPolicy) {
        if let Some((policies, source)) = &answer.installed {
            tenant.install_policy(Arc::clone(policies), source.clone());
        }
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

/// Asks for the policies in force.
pub(crate) struct GetPolicy;

impl<S: Store> Attempt<S> for GetPolicy {
    type Answer = InForce;
    const ACTION: Action = Action::GetPolicy;

    async fn attempt(&self, road: &Road<'_, S>) -> Result<Prepared<InForce>, Refused> {
        road.decide_vault()?;
        let answer = InForce { version: road.rules.policy.version, source: road.rules.policy.body.clone() };
        Ok(road.prepare(answer))
    }
}

/// Asks how policy would decide for somebody.
pub struct Explain {
    /// The role of who would ask.
    pub role: String,
    /// Its name, if policies name principals; may be empty.
    pub name: String,
    /// What would be asked.
    pub action: String,
    /// The field; empty for actions on the vault itself.
    pub field: String,
    /// The view; may be empty.
    pub view: String,
    /// The purpose; may be empty.
    pub purpose: String,
}

/// How policy would decide, and why.
pub struct Explanation {
    /// Whether it would be allowed.
    pub allowed: bool,
    /// The policies that decide.
    pub policies: Vec<String>,
    /// In words.
    pub text: String,
    /// The views that would be allowed for that purpose.
    pub allowed_views: Vec<String>,
    /// The purposes for which it would be allowed.
    pub allowed_purposes: Vec<String>,
}

impl<S: Store> Attempt<S> for Explain {
    type Answer = Explanation;
    const ACTION: Action = Action::ExplainPolicy;

    async fn attempt(&self, road: &Road<'_, S>) -> Result<Prepared<Explanation>, Refused> {
        road.decide_vault()?;
        let unknown = |path: &str, rule, what: &str| Error::invalid(path, rule, what);
        let role: Role = self.role.parse().map_err(|_| {
            unknown("role", "role_unknown", "the roles are app, rotator, auditor, privacy, officer, operator")
        })?;
        let action: Action = self
            .action
            .parse()
            .map_err(|_| unknown("action", "action_unknown", "no such action: tokenize, detokenize, ..."))?;
        if self.name.len() > NAME_LIMIT {
            return Err(Error::invalid("name", "too_long", format!("a name has at most {NAME_LIMIT} bytes")).into());
        }
        let name = if self.name.is_empty() { "anyone" } else { &self.name };
        let principal =
            Principal { tenant: road.tenant.number, name: format!("{}/{name}", role.as_str()).into(), role };
        let field = match self.field.is_empty() {
            true => None,
            false => Some(
                road.schema
                    .field(&self.field)
                    .ok_or_else(|| unknown("field", "field_unknown", "no such field in the schema"))?,
            ),
        };
        let given = |text: &'_ str| (!text.is_empty()).then_some(text.to_owned());
        let (view, purpose) = (given(&self.view), given(&self.purpose));
        let ask = |view: Option<&str>, purpose: Option<&str>| {
            let mut context = Context::new(road.now).purpose(purpose).view(view);
            let resource = match field {
                None => Resource::Vault,
                Some(field) => {
                    let consent = purpose.is_some_and(|name| road.rests_on_consent(name));
                    context = context.class(field.class.as_str()).consent(if consent {
                        Consent::Absent
                    } else {
                        Consent::NotNeeded
                    });
                    Resource::Field {
                        name: &field.name,
                        collection: &field.collection,
                        class: field.class.as_str(),
                        keyring: field.keyring,
                        number: field.number,
                    }
                }
            };
            road.tenant.access.explain(&Query { principal: &principal, action, resource, context })
        };
        let asked = ask(view.as_deref(), purpose.as_deref());
        let listed = field.zip(purpose.as_deref()).is_none_or(|(field, purpose)| lists(field, purpose));
        let reading = action == Action::Detokenize;
        let mut answer = Explanation {
            allowed: asked.allowed && listed,
            policies: asked.policies,
            text: match listed {
                true => asked.text,
                false => "the schema does not list this purpose for the field".to_owned(),
            },
            allowed_views: vec![],
            allowed_purposes: vec![],
        };
        if let Some(field) = field.filter(|_| reading) {
            let may = |view: &str, purpose: &str| ask(Some(view), Some(purpose)).allowed;
            let views: Vec<&str> = field.views().map(|(name, _)| &**name).collect();
            if let Some(purpose) = purpose.as_deref().filter(|_| listed) {
                let allowed = views.iter().filter(|view| may(view, purpose));
                answer.allowed_views = allowed.map(|view| (*view).to_owned()).collect();
            }
            let purposes = field.purposes.iter().filter(|purpose| views.iter().any(|view| may(view, purpose)));
            answer.allowed_purposes = purposes.map(ToString::to_string).collect();
        }
        Ok(road.prepare(answer))
    }
}
