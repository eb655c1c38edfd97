//! Officers: who they are, and how that changes while the vault runs. None of them changes it alone.
//!
//! All tenants' officers stand in one row of the vault's own, with the tenants and the trust anchors. A change of it is
//! one commit with a leaf in the tenant's log, which says who, and one in the log `system`, which says which row is in force
//! from then on. It changes the fact of the tenant's policy as well: so what is under way is turned back, and whoever is no
//! officer any more is told so.

use std::collections::BTreeSet;
use std::sync::Arc;

use strongroom_access::{Action, Context, Directory, Principal, Query, Role, SecondFactor};
use strongroom_commit::{Fact, Guard};
use strongroom_ledger::summary;
use strongroom_storage::Store;

use crate::approvals::{Approvable, Asked};
use crate::error::Error;
use crate::open::SYSTEM_NO;
use crate::road::{Attempt, Caller, Prepared, Refused, Road, Told};
use crate::tenant::{Rules, Tenant};
use crate::tenant_life::{NewDirectory, stored_directory};
use crate::vault::Vault;

pub use strongroom_ledger::approval::is_officer_key;

/// Officers of a tenant, at most.
const MOST: usize = 64;

/// Enrols an officer, or gives one another key.
pub struct EnrolOfficer {
    /// The name under the role.
    pub name: String,
    /// SHA-256 of the public key (SPKI) of the certificate.
    pub key: [u8; 32],
}

/// Takes an officer off the list.
pub struct RemoveOfficer {
    /// The name under the role.
    pub name: String,
}

/// An officer, as others see it.
pub struct ListedOfficer {
    /// The name under the role.
    pub name: String,
    /// SHA-256 of the public key (SPKI) of the certificate, in lower-case hexadecimal.
    pub key: String,
    /// Whether it is suspended.
    pub suspended: bool,
}

/// A change of who the officers are.
pub(crate) trait ChangeOfOfficers: Send + Sync {
    /// The action that policy decides on.
    const ACTION: Action;

    /// Makes the change in a directory, if it can be made.
    fn apply<S: Store>(&self, road: &Road<'_, S>, directory: &mut Directory) -> Result<Told, Error>;

    /// What others are to approve.
    fn asked(&self) -> Asked;
}

impl ChangeOfOfficers for EnrolOfficer {
    const ACTION: Action = Action::EnrolOfficer;

    fn apply<S: Store>(&self, road: &Road<'_, S>, directory: &mut Directory) -> Result<Told, Error> {
        let tenant = road.tenant.number;
        if approvers(road, directory, |query| road.may(query), &road.caller.principal.name) == 0 {
            return Err(Error::OfficerRefused(format!(
                "there is no other officer who could approve it, and nobody enrols officers alone: those who hold the root key \
                 do, while the vault is stopped: `strongroom break-glass officer {} NAME --certificate FILE`",
                road.tenant.name
            )));
        }
        let before = enrol(directory, tenant, &self.name, self.key)?;
        Ok(told(&self.name, Some(&self.key), before.as_ref()))
    }

    fn asked(&self) -> Asked {
        let key = data_encoding::HEXLOWER.encode(&self.key);
        Asked {
            parts: vec![self.name.clone().into_bytes(), self.key.to_vec()],
            summary: summary::enrol_officer(&self.name, &key),
        }
    }
}

impl ChangeOfOfficers for RemoveOfficer {
    const ACTION: Action = Action::RemoveOfficer;

    fn apply<S: Store>(&self, road: &Road<'_, S>, directory: &mut Directory) -> Result<Told, Error> {
        let before = remove(directory, road.tenant.number, &self.name)?;
        if !enough_are_left(road, directory) {
            return Err(Error::OfficerRefused(format!(
                "too few officers would be left to change policies and enrol others, as one needs the approval of another \
                 one: enrol another one first, or have those who hold the root key do it, while the vault is stopped: \
                 `strongroom break-glass officer {} {} --remove`",
                road.tenant.name, self.name
            )));
        }
        Ok(told(&self.name, None, Some(&before)))
    }

    fn asked(&self) -> Asked {
        Asked { parts: vec![self.name.clone().into_bytes()], summary: summary::remove_officer(&self.name) }
    }
}

/// Enrols an officer in a directory; the key that it had before. One key is one person, whatever its names.
pub(crate) fn enrol(
    directory: &mut Directory,
    tenant: strongroom_ids::TenantNo,
    name: &str,
    key: [u8; 32],
) -> Result<Option<[u8; 32]>, Error> {
    match directory.officers_of(tenant).find(|(_, known)| **known == key) {
        Some((known, _)) if known == name => {
            return Err(Error::OfficerRefused(
                "the officer is enrolled with this very key: nothing changes".to_owned(),
            ));
        }
        Some(_) => {
            let why = "another officer of the tenant is enrolled with this key: each has a key of its own";
            return Err(Error::OfficerRefused(why.to_owned()));
        }
        None => {}
    }
    if directory.officer(tenant, name).is_none() && directory.officers_of(tenant).count() >= MOST {
        return Err(Error::OfficerRefused(format!("the tenant has {MOST} officers, as many as may be: remove some")));
    }
    let before = directory.officers.insert((tenant, name.to_owned()), key);
    directory.check().map_err(|_| Error::invalid("name", "officer", "no certificate can carry such a name"))?;
    Ok(before)
}

/// Takes an officer out of a directory; the key that it had.
pub(crate) fn remove(
    directory: &mut Directory,
    tenant: strongroom_ids::TenantNo,
    name: &str,
) -> Result<[u8; 32], Error> {
    let unknown = || Error::invalid("name", "officer_unknown", "the tenant has no officer of this name");
    directory.officers.remove(&(tenant, name.to_owned())).ok_or_else(unknown)
}

/// What the tenant's log says: who, by which key from now on, and by which until now.
pub(crate) fn told(name: &str, key: Option<&[u8; 32]>, before: Option<&[u8; 32]>) -> Told {
    let hex = |key: &[u8; 32]| data_encoding::HEXLOWER.encode(key);
    let mut told = vec![("officer", name.to_owned())];
    told.extend(key.map(|key| ("key", hex(key))));
    told.extend(before.map(|key| ("key_before", hex(key))));
    told
}

/// The first of a new tenant's officers who is named before, or has the key of one before, and which of these.
pub(crate) fn repeated(officers: &[(String, [u8; 32])]) -> Option<(usize, &'static str)> {
    officers.iter().enumerate().find_map(|(at, (name, key))| {
        let mut before = officers.iter().take(at);
        if before.clone().any(|(known, _)| known == name) {
            return Some((at, "an officer of this name is named before"));
        }
        before
            .any(|(_, known)| known == key)
            .then_some((at, "an officer with this key is named before: each has its own"))
    })
}

/// How many officers of a directory could approve what somebody asks for: they are not suspended, and policy lets them. One
/// key is one person, whatever its names, and the requester's own is nobody else.
pub(crate) fn approvers<S: Store>(
    road: &Road<'_, S>,
    directory: &Directory,
    may: impl Fn(&Query<'_>) -> bool,
    requester: &str,
) -> usize {
    let own = requester.strip_prefix("officer/").and_then(|name| directory.officer(road.tenant.number, name));
    let others = officers(road, directory).filter(|(other, key)| {
        let shown = within_reach(road, other, &may);
        let may = |action| shown.iter().any(|context| may(&Query::on_vault_in(other, action, *context)));
        *other.name != *requester && Some(key) != own && may(Action::Approve) && may(Action::ListApprovals)
    });
    others.map(|(_, key)| key).collect::<BTreeSet<_>>().len()
}

/// The circumstances in which somebody can ask: with a second factor too, if policy lets whoever has none get one.
fn within_reach<'p, S: Store>(
    road: &Road<'_, S>,
    who: &'p Principal,
    may: impl Fn(&Query<'_>) -> bool,
) -> Vec<Context<'p>> {
    let without = Context::new(road.now).tier(road.rules.tiers.of(&who.name));
    let mut steps = [Action::EnrolSecondFactor, Action::ConfirmSecondFactor, Action::StepUp].into_iter();
    match steps.all(|step| may(&Query::on_vault_in(who, step, without))) {
        true => SecondFactor::ALL.map(|factor| without.second_factor(factor)).to_vec(),
        false => vec![without],
    }
}

/// The tenant's officers who are not suspended, and their keys.
fn officers<'r, S: Store>(
    road: &'r Road<'_, S>,
    directory: &'r Directory,
) -> impl Iterator<Item = (Principal, [u8; 32])> + use<'r, S> {
    let own = directory.officers_of(road.tenant.number);
    let named = own.map(|(name, key)| (Principal::new(road.tenant.number, Role::Officer, name), *key));
    named.filter(|(officer, _)| !road.rules.freezes.is_suspended(&officer.name))
}

/// Whether some officer of a directory could still change policies, with the approval of others as far as it needs that,
/// and officers, which always needs it.
fn enough_are_left<S: Store>(road: &Road<'_, S>, directory: &Directory) -> bool {
    officers(road, directory).any(|(one, _)| {
        let need = |context: Context<'_>| {
            let query = Query::on_vault_in(&one, Action::ApplyPolicy, context);
            match road.may(&query) {
                true => Some(1),
                false => road.tenant.access.approvals_needed(&query),
            }
        };
        let need = within_reach(road, &one, |query| road.may(query)).into_iter().filter_map(need).min();
        need.is_some_and(|need| approvers(road, directory, |query| road.may(query), &one.name) >= usize::from(need))
    })
}

impl<S: Store> Road<'_, S> {
    /// Whether the policy in force allows something to anybody.
    fn may(&self, query: &Query<'_>) -> bool {
        self.tenant.access.decide(query).allowed
    }
}

/// A change, in its turn.
struct InTurn<'r, C>(&'r C);

impl<S: Store, C: ChangeOfOfficers> Approvable<S> for InTurn<'_, C> {
    fn asked(&self, _rules: &Rules) -> Asked {
        self.0.asked()
    }
}

impl<S: Store, C: ChangeOfOfficers> Attempt<S> for InTurn<'_, C> {
    /// Who is known from then on.
    type Answer = Directory;
    const ACTION: Action = C::ACTION;
    const ALONE: bool = true;
    /// It protects.
    const ON_FULL_DISK: bool = true;

    fn bound_to(&self, rules: &Rules) -> Option<Asked> {
        Some(Approvable::<S>::asked(self, rules))
    }

    fn may_have_it_alone(&self, road: &Road<'_, S>) -> Result<(), Error> {
        road.decide_with_others()?;
        self.0.apply(road, &mut Directory::clone(&road.vault.directory())).map(drop)
    }

    async fn attempt(&self, road: &Road<'_, S>) -> Result<Prepared<Directory>, Refused> {
        road.decide_with_others()?;
        let vault = road.vault;
        if vault.tenants.is_unsure() {
            // A tenant may have come or gone: that is found out first.
            return Err(Error::Conflict.into());
        }
        let system = vault.tenant(SYSTEM_NO)?;
        let (stored, mut directory) = stored_directory(&*vault.store, &system.fingerprints).await?;
        let told = self.0.apply(road, &mut directory)?;
        let given = road.decide_approved(self).await?;
        if given.is_none() {
            // Policy does not come to this: it is never allowed alone.
            return Err(Error::Denied { action: road.action.as_str() }.into());
        }
        let enrolled = NewDirectory::after(&stored, &directory, &system.fingerprints)?;
        let mut prepared = road.prepare(directory);
        prepared.guards.push(Guard::Unchanged(Fact::principals()));
        prepared.changes.extend([Fact::principals(), Fact::policy(road.tenant.number)]);
        let mut known: Told = vec![("tenant", road.tenant.name.clone())];
        known.extend(told.iter().cloned());
        known.extend(enrolled.detail());
        prepared.elsewhere.extend(road.leaf_for(SYSTEM_NO, &known)?);
        prepared.detail.extend(told);
        prepared.mutations.push(enrolled.mutation);
        road.use_up(given, &mut prepared)?;
        Ok(prepared)
    }

    fn install(&self, vault: &Vault<S>, _tenant: &Tenant, answer: &Directory) {
        vault.tenants.enrol(answer.clone());
    }
}

/// Asks who the officers are.
struct ListOfficers;

impl<S: Store> Attempt<S> for ListOfficers {
    type Answer = Vec<ListedOfficer>;
    const ACTION: Action = Action::ListOfficers;
    const ON_FULL_DISK: bool = true;

    async fn attempt(&self, road: &Road<'_, S>) -> Result<Prepared<Vec<ListedOfficer>>, Refused> {
        road.decide_vault()?;
        let directory: Arc<Directory> = road.vault.directory();
        let listed = directory.officers_of(road.tenant.number).map(|(name, key)| ListedOfficer {
            name: name.to_owned(),
            key: data_encoding::HEXLOWER.encode(key),
            suspended: road.rules.freezes.is_suspended(&format!("{}/{name}", Role::Officer)),
        });
        Ok(road.prepare(listed.collect()))
    }
}

impl<S: Store> Vault<S> {
    /// Enrols an officer of the caller's tenant, or gives one another key, with the approval of another officer. When this
    /// returns the old key is no officer's any more.
    pub async fn enrol_officer(&self, caller: &Caller, request: &EnrolOfficer) -> Result<(), Error> {
        self.change_officers(caller, request).await
    }

    /// Removes an officer of the caller's tenant, with the approval of another officer. When this returns nothing that it
    /// asks is done any more.
    pub async fn remove_officer(&self, caller: &Caller, request: &RemoveOfficer) -> Result<(), Error> {
        self.change_officers(caller, request).await
    }

    /// The officers of the caller's tenant, in the order of their names.
    pub async fn list_officers(&self, caller: &Caller) -> Result<Vec<ListedOfficer>, Error> {
        self.travel(caller, &ListOfficers).await
    }

    async fn change_officers<C: ChangeOfOfficers>(&self, caller: &Caller, change: &C) -> Result<(), Error> {
        let change = InTurn(change);
        self.approved(caller, &change).await?;
        match self.travel(caller, &change).await {
            // Who was given the approval may also wait until it is known which tenants there are.
            Err(Error::Conflict) if self.tenants.is_unsure() => {
                self.wait_for_tenants().await?;
                self.travel(caller, &change).await.map(drop)
            }
            changed => changed.map(drop),
        }
    }
}
