//! Break-glass: what only those do who hold the root key, while nothing is served.
//!
//! It is for when nobody else can: officers are gone, policy has locked all of them out, or the authority of the callers'
//! certificates is another one. It asks no policy, since whoever has brought the root key could read everything; it is
//! in the ledger for ever, in the log `system` and in that of the tenant; an authority concerns all tenants, so it is in
//! the log of each.

use strongroom_access::Policies;
use strongroom_commit::{Change, Fact, Guard};
use strongroom_ids::TenantNo;
use strongroom_keys as keys;
use strongroom_storage::keys as place;
use strongroom_storage::{Family, Mutation, Store};

use crate::error::Error;
use crate::officers;
use crate::open::SYSTEM_NO;
use crate::own_action::OwnAction;
use crate::own_leaf::Noted;
use crate::policies::{self, AppliedPolicy};
use crate::road::Told;
use crate::rules::sha256;
use crate::source::{Source, SourceKind};
use crate::tenant_life::{NewDirectory, stored_directory};
use crate::values::row_hash;
use crate::vault::Vault;

/// The action that leaves name.
const ACTION: &str = OwnAction::BreakGlass.as_str();
/// Who acts, as leaves name principals.
const ROOT: &str = "root";
/// What is damaged, if a row of it can't be read.
const PLACE: &str = "the enrolled officers";
/// Bytes of a reason, at most.
const REASON: usize = 200;

/// What those do who hold the root key.
pub enum BreakGlass {
    /// Enrols an officer of a tenant, or gives one another key.
    EnrolOfficer {
        /// The tenant's name.
        tenant: String,
        /// The officer's, under its role.
        name: String,
        /// SHA-256 of its public key (SPKI).
        key: [u8; 32],
    },
    /// Removes an officer of a tenant, be it the last one.
    RemoveOfficer {
        /// The tenant's name.
        tenant: String,
        /// The officer's, under its role.
        name: String,
    },
    /// Lets an authority vouch for callers: SHA-256 of its certificate (DER).
    AddAnchor([u8; 32]),
    /// Lets it no longer.
    RemoveAnchor([u8; 32]),
    /// Puts policies of a tenant in force, whomever they lock out.
    Policy {
        /// The tenant's name.
        tenant: String,
        /// The policies, in Cedar.
        source: String,
    },
}

/// Whether something can stand in the ledger as the reason: 1 to 200 bytes of printable text on one line.
pub fn is_reason(reason: &str) -> bool {
    (1..=REASON).contains(&reason.len()) && !reason.trim().is_empty() && !reason.chars().any(char::is_control)
}

impl<S: Store> Vault<S> {
    /// Does it, in one commit with what the ledger says of it. That the caller brought the root key is proven by the vault's
    /// being open; nothing on the wire leads here.
    pub async fn break_glass(&self, what: &BreakGlass, reason: &str) -> Result<(), Error> {
        if !is_reason(reason) {
            let description = "a reason is 1 to 200 bytes of printable text on one line: it stays in the ledger";
            return Err(Error::invalid("reason", "reason", description));
        }
        let _changing = self.tenants.changing.lock().await;
        self.see_tenants().await?;
        let _turn = self.turn.write().await;
        let position = self.committer.position();
        let reason = ("reason", reason.to_owned());
        let change = match what {
            BreakGlass::Policy { tenant, source } => self.forced(self.number_of(tenant)?, source, reason).await?,
            other => self.other_principals(other, reason).await?,
        };
        self.committer.commit(Change { position, ..change }).await?;
        let system = self.tenant(SYSTEM_NO)?;
        let (_, directory) = stored_directory(&*self.store, &system.fingerprints).await?;
        self.tenants.enrol(directory);
        // Whoever asks next reads what is in force now.
        self.tenants.all().values().for_each(|tenant| tenant.forget_rules());
        tracing::warn!("the glass was broken: the ledger says what was changed and why");
        Ok(())
    }

    fn number_of(&self, tenant: &str) -> Result<TenantNo, Error> {
        let number = self.directory().tenants.get(tenant).copied();
        // The vault itself has no officers; its policy is as any other.
        number.ok_or_else(|| {
            Error::invalid("tenant", "tenant_unknown", "there is no tenant of this name, or it was destroyed")
        })
    }

    /// Other officers or trust anchors.
    async fn other_principals(&self, what: &BreakGlass, reason: (&'static str, String)) -> Result<Change, Error> {
        let system = self.tenant(SYSTEM_NO)?;
        let (stored, mut directory) = stored_directory(&*self.store, &system.fingerprints).await?;
        let (of, mut told) = match what {
            BreakGlass::EnrolOfficer { tenant, name, key } => {
                let number = self.officers_of(tenant)?;
                let before = officers::enrol(&mut directory, number, name, *key)?;
                (Some((number, tenant)), with("enrol_officer", officers::told(name, Some(key), before.as_ref())))
            }
            BreakGlass::RemoveOfficer { tenant, name } => {
                let number = self.officers_of(tenant)?;
                let before = officers::remove(&mut directory, number, name)?;
                (Some((number, tenant)), with("remove_officer", officers::told(name, None, Some(&before))))
            }
            BreakGlass::AddAnchor(anchor) => {
                if !directory.trust_anchors.insert(*anchor) {
                    return Err(anchor_refused("the authority is enrolled already: nothing changes"));
                }
                (None, with("add_anchor", vec![("anchor", data_encoding::HEXLOWER.encode(anchor))]))
            }
            BreakGlass::RemoveAnchor(anchor) => {
                if !directory.trust_anchors.remove(anchor) {
                    return Err(anchor_refused("no such authority is enrolled"));
                }
                if directory.trust_anchors.is_empty() {
                    return Err(anchor_refused(
                        "it is the last authority, without which nobody calls: add another first",
                    ));
                }
                (None, with("remove_anchor", vec![("anchor", data_encoding::HEXLOWER.encode(anchor))]))
            }
            BreakGlass::Policy { .. } => return Err(Error::Internal("policies are no principals")),
        };
        told.push(reason);
        let enrolled = NewDirectory::after(&stored, &directory, &system.fingerprints)?;
        let mut known: Told = of.map(|(_, tenant)| ("tenant", tenant.clone())).into_iter().collect();
        known.extend(told.iter().cloned());
        known.extend(enrolled.detail());
        let request = data_encoding::HEXLOWER.encode(&keys::random::<16>()?);
        let mut leaves = self.broken_leaf(&request, SYSTEM_NO, &known)?;
        let mut changes = vec![Fact::principals()];
        match of {
            Some((number, _)) => {
                leaves.extend(self.broken_leaf(&request, number, &told)?);
                changes.push(Fact::policy(number));
            }
            // An authority vouches for callers of every tenant, so each tenant's auditors must see that it came or went.
            None => {
                for number in directory.tenants.values().filter(|number| **number != SYSTEM_NO) {
                    leaves.extend(self.broken_leaf(&request, *number, &told)?);
                }
            }
        }
        let guards = vec![Guard::Unchanged(Fact::principals())];
        let position = self.committer.position();
        Ok(Change { position, guards, changes, mutations: vec![enrolled.mutation], leaves, charge: None })
    }

    /// Policies that nobody is asked about.
    async fn forced(&self, number: TenantNo, source: &str, reason: (&'static str, String)) -> Result<Change, Error> {
        // A locked tenant has no key that could vouch for the row.
        let tenant = self.tenant(number)?;
        Policies::compile(source).map_err(|error| Error::SourceRefused(error.to_string()))?;
        let version = self.rules_in_force(number)?.policy.version;
        let version = version.checked_add(1).ok_or(Error::Internal("too many policy versions"))?;
        let row = Source::new(version, source.to_owned())?.encode(SourceKind::Policy, &tenant.fingerprints);
        let hash = data_encoding::HEXLOWER.encode(&row_hash(&row));
        let told = with("apply_policy", vec![reason]);
        let request = data_encoding::HEXLOWER.encode(&keys::random::<16>()?);
        let mut own = told.clone();
        own.extend([("policy_version", version.to_string()), ("policy_sha256", hash)]);
        let mut leaves = self.broken_leaf(&request, number, &own)?;
        if number != SYSTEM_NO {
            let mut known = vec![("tenant", tenant.name.clone())];
            known.extend(told);
            leaves.extend(self.broken_leaf(&request, SYSTEM_NO, &known)?);
        }
        let next = AppliedPolicy { version, sha256: sha256(source), time: self.now(), by: ROOT.to_owned(), of: None };
        let mut mutations = policies::keep(&*self.store, &tenant, &tenant.rules().policy, next).await?;
        mutations.push(Mutation::Put(Family::Meta, place::policy(number), row));
        let changed = Fact::policy(number);
        Ok(Change {
            position: self.committer.position(),
            guards: vec![Guard::Unchanged(changed)],
            changes: vec![changed],
            mutations,
            leaves,
            charge: None,
        })
    }

    fn officers_of(&self, tenant: &str) -> Result<TenantNo, Error> {
        match self.number_of(tenant)? {
            SYSTEM_NO => {
                Err(Error::invalid("tenant", "tenant_system", "the vault itself is no tenant: it has no officers"))
            }
            number => Ok(number),
        }
    }

    fn broken_leaf(
        &self,
        request: &str,
        number: TenantNo,
        told: &Told,
    ) -> Result<Vec<(TenantNo, strongroom_ledger::leaf::PreparedLeaf)>, Error> {
        // As its log says: a locked tenant's rules can't be read.
        let rules = self.rules_in_force(number)?;
        let noted = Noted { request, principal: ROOT, action: ACTION, failed: None, place: PLACE };
        noted.leaf(number, (rules.policy.version, rules.schema.version, &[]), told)
    }
}

fn with(change: &str, told: Told) -> Told {
    [vec![("change", change.to_owned())], told].concat()
}

fn anchor_refused(why: &str) -> Error {
    Error::invalid("anchor", "anchor", why)
}
