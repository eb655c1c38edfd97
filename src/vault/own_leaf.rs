//! Leaves that no request writes on its road: those that the vault writes by itself, and those for the logs of others.

use strongroom_commit::Change;
use strongroom_ids::TenantNo;
use strongroom_keys as keys;
use strongroom_ledger::leaf::{self, LeafHeader, PreparedLeaf};
use strongroom_storage::{Mutation, Store};

use crate::error::Error;
use crate::own_action::OwnAction;
use crate::road::{Road, Told};
use crate::vault::Vault;

impl<S: Store> Vault<S> {
    /// The rules in force of a tenant, which may be locked: as its log records them.
    pub(crate) fn rules_in_force(&self, tenant: TenantNo) -> Result<strongroom_ledger::Rules, Error> {
        Ok(self.committer.head(tenant).ok_or(Error::Internal("a tenant without a log"))?.rules)
    }

    /// Records in a log what the vault does by itself, in one commit with what there is to note.
    pub(crate) async fn record_by_itself(
        &self,
        tenant: TenantNo,
        action: OwnAction,
        detail: &[(&str, &str)],
        mutations: Vec<Mutation>,
    ) -> Result<(), Error> {
        let (request, rules) = (keys::random::<16>()?, self.rules_in_force(tenant)?);
        let header = LeafHeader {
            request: &request,
            principal: "vault",
            actor: None,
            action: action.as_str(),
            purpose: None,
            decision: "allow",
            reason: None,
            policy: rules.policy.version,
            schema: rules.schema.version,
            keys: &[],
            client: "",
            detail,
        };
        self.append(tenant, &header, mutations).await
    }

    /// Appends a leaf without items to a tenant's log, in one commit with what there is to note.
    pub(crate) async fn append(
        &self,
        tenant: TenantNo,
        header: &LeafHeader<'_>,
        mutations: Vec<Mutation>,
    ) -> Result<(), Error> {
        let leaves = leaf::prepare(header, std::iter::empty());
        self.commit_unguarded(mutations, leaves.into_iter().map(|leaf| (tenant, leaf)).collect()).await
    }

    /// Commits what rests on nothing that others change.
    pub(crate) async fn commit_unguarded(
        &self,
        mutations: Vec<Mutation>,
        leaves: Vec<(TenantNo, PreparedLeaf)>,
    ) -> Result<(), Error> {
        let position = self.committer.position();
        let (guards, changes) = (vec![], vec![]);
        self.committer.commit(Change { position, guards, changes, mutations, leaves, charge: None }).await?;
        Ok(())
    }
}

impl<S: Store> Road<'_, S> {
    /// A leaf for the log of another tenant, which a request concerns too. That one may be locked: its rules are those that its
    /// log records.
    pub fn leaf_for(&self, tenant: TenantNo, told: &Told) -> Result<Vec<(TenantNo, PreparedLeaf)>, Error> {
        let rules = self.vault.rules_in_force(tenant)?;
        let request = data_encoding::HEXLOWER.encode(&self.request);
        let (principal, action) = (&*self.caller.principal.name, self.action.as_str());
        let noted = Noted { request: &request, principal, action, failed: None, place: "a request" };
        noted.leaf(tenant, (rules.policy.version, rules.schema.version, &[]), told)
    }
}

/// What was asked for in a request whose end comes later, so that it was noted: leaves that tell of it say the same.
pub(crate) struct Noted<'a> {
    /// The request, in hexadecimal.
    pub request: &'a str,
    /// Whose.
    pub principal: &'a str,
    pub action: &'a str,
    /// Why nothing came of it, if nothing did.
    pub failed: Option<&'static str>,
    /// Where it is noted, should it be damaged.
    pub place: &'static str,
}

/// Under what a leaf was written: versions of policy and schema, and those of the keys in use.
pub(crate) type Rules<'a> = (u32, u32, &'a [(String, u32)]);

impl Noted<'_> {
    /// A leaf without items for a tenant's log.
    pub fn leaf(
        &self,
        tenant: TenantNo,
        (policy, schema, keys): Rules<'_>,
        detail: &[(&str, String)],
    ) -> Result<Vec<(TenantNo, PreparedLeaf)>, Error> {
        let request = data_encoding::HEXLOWER.decode(self.request.as_bytes()).ok();
        let request: [u8; 16] = request.and_then(|id| id.try_into().ok()).ok_or(Error::DataLoss(self.place))?;
        let detail: Vec<(&str, &str)> = detail.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let header = LeafHeader {
            request: &request,
            principal: self.principal,
            actor: None,
            action: self.action,
            purpose: None,
            decision: if self.failed.is_some() { "fail" } else { "allow" },
            reason: self.failed,
            policy,
            schema,
            keys,
            client: "",
            detail: &detail,
        };
        Ok(leaf::prepare(&header, std::iter::empty()).into_iter().map(|leaf| (tenant, leaf)).collect())
    }
}
