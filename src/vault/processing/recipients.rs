//! Recipients: who may read which field for what, as the policies in force say.
//!
//! Services are named by certificates, which the vault does not keep. So it is asked of each role, and of every name that
//! policies, officers' lists, tiers or the ledger know; one that is allowed what its role is stands in its role's line.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use strongroom_access::{
    Action, Consent, Context, Directory, Named, Principal, Query, Role, SecondFactor, parse_principal,
};
use strongroom_ids::{FieldNo, TenantNo};
use strongroom_schema::Field;

use super::Begun;
use crate::decide::resource_of;

/// Questions to policy, at most. Each takes a tenth of a millisecond or so.
const ASKED: usize = 100_000;
/// The name of a principal that no policy knows.
const ANYONE: &str = "anyone";
/// The roles of a tenant.
const ROLES: [Role; 5] = [Role::App, Role::Rotator, Role::Auditor, Role::Privacy, Role::Officer];

/// Somebody who may read a field for a purpose.
#[derive(Debug, PartialEq, Eq)]
pub struct Recipient {
    /// A role, or role and name of one that is allowed something else than its role is.
    pub principal: String,
    /// Why it may.
    pub purpose: Arc<str>,
    /// The views that it may ask for.
    pub views: Vec<Arc<str>>,
    /// Whether it may compare values.
    pub matches: bool,
    /// Whether it may look up which values are equal to one.
    pub lookups: bool,
}

/// Somebody who may export all values of a data subject, whatever their fields and purposes; or may not, while its role may.
#[derive(Debug, PartialEq, Eq)]
pub struct Exporter {
    /// A role, or role and name of one that is allowed something else than its role is.
    pub principal: String,
    /// Whether it may.
    pub allowed: bool,
}

/// What is allowed of one field for one purpose.
#[derive(Clone, PartialEq, Eq, Default)]
struct May {
    views: Vec<Arc<str>>,
    matches: bool,
    lookups: bool,
}

/// Who may read which field.
#[derive(Default)]
pub(super) struct Recipients {
    fields: BTreeMap<FieldNo, Vec<Recipient>>,
    pub exporters: Vec<Exporter>,
    /// Whether more would have had to be asked.
    pub more: bool,
}

impl Recipients {
    /// Takes out who may read a field.
    pub fn of(&mut self, field: FieldNo) -> Vec<Recipient> {
        self.fields.remove(&field).unwrap_or_default()
    }
}

/// The principals of a tenant that are known by name: role and name, each once.
pub(super) fn named(
    begun: &Begun,
    directory: &Directory,
    tenant: TenantNo,
    readers: BTreeSet<String>,
) -> Vec<(Role, String)> {
    let rules = &begun.rules;
    let mut names = readers;
    names.extend(directory.officers_of(tenant).map(|(name, _)| format!("{}/{name}", Role::Officer)));
    names.extend(rules.tiers.assigned().map(str::to_owned));
    names.extend(rules.freezes.own.suspended.keys().cloned());
    for one in begun.policies.mentions().iter().filter(|one| !one.pattern) {
        match one.named {
            Named::Principal => _ = names.insert(one.name.clone()),
            Named::PrincipalName => names.extend(ROLES.iter().map(|role| format!("{role}/{}", one.name))),
            _ => {}
        }
    }
    // Tiers of actors have three parts, and are nobody's name.
    let parsed = names.iter().filter_map(|name| parse_principal(name));
    parsed.filter(|(role, _)| ROLES.contains(role)).map(|(role, name)| (role, name.to_owned())).collect()
}

/// Asks policy of every field, purpose and view: first for each role, then for those who are known by name.
pub(super) async fn of(begun: &Begun, tenant: TenantNo, named: Vec<(Role, String)>) -> Recipients {
    let mut recipients = Recipients::default();
    let mut asking = Asking { begun, asked: 0 };
    let mut of_roles: BTreeMap<(FieldNo, Arc<str>, Role), May> = BTreeMap::new();
    let mut exporting: BTreeSet<Role> = BTreeSet::new();
    let roles = ROLES.map(|role| (role, ANYONE.to_owned(), true));
    let named = named.into_iter().map(|(role, name)| (role, name, false));
    for (role, name, is_role) in roles.into_iter().chain(named) {
        let principal = Principal::new(tenant, role, &name);
        let listed_name = if is_role { role.to_string() } else { principal.name.to_string() };
        let allowed = asking.may_export(&principal).await;
        if allowed != (!is_role && exporting.contains(&role)) {
            recipients.exporters.push(Exporter { principal: listed_name.clone(), allowed });
        }
        if is_role && allowed {
            exporting.insert(role);
        }
        for field in begun.rules.schema.fields() {
            for purpose in &field.purposes {
                if asking.asked >= ASKED {
                    recipients.more = true;
                    return recipients;
                }
                let may = asking.may(&principal, field, purpose).await;
                let key = (field.number, Arc::clone(purpose), role);
                let is_listed = match is_role {
                    true => may != May::default(),
                    false => of_roles.get(&key).cloned().unwrap_or_default() != may,
                };
                if is_listed {
                    recipients.fields.entry(field.number).or_default().push(Recipient {
                        principal: listed_name.clone(),
                        purpose: Arc::clone(purpose),
                        views: may.views.clone(),
                        matches: may.matches,
                        lookups: may.lookups,
                    });
                }
                if is_role {
                    of_roles.insert(key, may);
                }
            }
        }
    }
    recipients
}

struct Asking<'b> {
    begun: &'b Begun,
    asked: usize,
}

impl Asking<'_> {
    /// What somebody may do with a field for a purpose: with the subject's consent where that is needed, and with a second
    /// factor if it is a person.
    async fn may(&mut self, principal: &Principal, field: &Field, purpose: &str) -> May {
        if self.begun.rules.freezes.is_suspended(&principal.name) {
            return May::default();
        }
        let mut views = Vec::new();
        for (view, _) in field.views() {
            if self.is_allowed(principal, Action::Detokenize, field, Some(view), purpose).await {
                views.push(Arc::clone(view));
            }
        }
        let matches = self.is_allowed(principal, Action::Match, field, None, purpose).await;
        let lookups = field.lookup && self.is_allowed(principal, Action::Lookup, field, None, purpose).await;
        May { views, matches, lookups }
    }

    /// Whether somebody may export all values of a data subject: with a second factor if it is a person.
    async fn may_export(&mut self, principal: &Principal) -> bool {
        let Begun { rules, now, .. } = self.begun;
        if rules.freezes.is_suspended(&principal.name) {
            return false;
        }
        let context = Context::new(*now).tier(rules.tiers.of(&principal.name));
        self.is_allowed_with(principal, |factor| {
            Query::on_vault_in(principal, Action::ExportSubject, context.second_factor(factor))
        })
        .await
    }

    async fn is_allowed(
        &mut self,
        principal: &Principal,
        action: Action,
        field: &Field,
        view: Option<&str>,
        purpose: &str,
    ) -> bool {
        let Begun { rules, now, .. } = self.begun;
        let consent = match rules.schema.purpose(purpose).is_some_and(|purpose| purpose.consent) {
            true => Consent::Standing,
            false => Consent::NotNeeded,
        };
        let context = Context::new(*now).tier(rules.tiers.of(&principal.name)).purpose(Some(purpose)).view(view);
        let context = context.class(field.class.as_str()).consent(consent);
        self.is_allowed_with(principal, |factor| {
            let context = context.second_factor(factor);
            Query { principal, action, resource: resource_of(field), context }
        })
        .await
    }

    /// Whether it is allowed with any second factor that the principal can have.
    async fn is_allowed_with<'q>(&mut self, principal: &Principal, query: impl Fn(SecondFactor) -> Query<'q>) -> bool {
        let factors: &[SecondFactor] = match principal.role {
            Role::Privacy | Role::Officer => &[SecondFactor::Absent, SecondFactor::Fresh],
            _ => &[SecondFactor::Absent],
        };
        for factor in factors {
            self.asked += 1;
            // Policy takes the thread's time, and others want it.
            if self.asked.is_multiple_of(4) {
                tokio::task::yield_now().await;
            }
            if self.begun.policies.decide(&query(*factor)).allowed {
                return true;
            }
        }
        false
    }
}
