//! The two-person rule: a request that policy allows only with the approval of others waits for theirs.
//!
//! What needs approval, policy says: it denies a request as it is, and would allow it with so many approvals. Such a request
//! opens an approval that is bound to it, officers approve that with their own signatures, and the same request by the same
//! principal then goes through, once. What waits is forgotten when the vault stops: an older list that somebody puts back then
//! brings nothing back.

use ring::digest;
use strongroom_access::{Action, Approval, Approvals, ApproveError, Query, Role, Vote};
use strongroom_commit::{Fact, Guard};
use strongroom_ids::{SubjectHandle, TenantId, VaultId};
use strongroom_ledger::{Timestamp, approval, summary};
use strongroom_storage::Store;
use strongroom_storage::keys as place;

use crate::decide::circumstances;
use crate::error::Error;
use crate::road::{Attempt, Caller, Item, OK, Prepared, Refused, Road, Told};
use crate::second_factors;
use crate::source::{Source, SourceKind};
use crate::tenant::{Rules, Tenant};
use crate::vault::Vault;

/// What a request says of itself to those who shall approve it.
pub(crate) struct Asked {
    /// All that changes what it does.
    pub parts: Vec<Vec<u8>>,
    /// The same in words, without a secret.
    pub summary: String,
}

impl Asked {
    /// What only is checked is another request than what is done.
    pub fn or_only_checked(mut self, dry_run: bool) -> Self {
        if dry_run {
            self.parts.push(b"only checked".to_vec());
        }
        self
    }
}

/// A request that may need approval.
pub(crate) trait Approvable<S: Store>: Attempt<S> {
    /// What is to be approved, as things stand: where the rest of the vault is part of what was agreed to, it is part of this.
    fn asked(&self, rules: &Rules) -> Asked;

    /// Whether somebody else has to approve it whatever policy permits.
    fn is_never_done_alone(&self, _rules: &Rules) -> bool {
        false
    }

    /// Whether it would change nothing, so that nobody needs to be asked.
    fn changes_nothing(&self, _road: &Road<'_, S>) -> bool {
        false
    }

    /// Whether it would be done if it was approved: nobody is asked for what is refused anyway. Of what has the road alone that
    /// is asked before it gets it, too.
    fn would_be_done(&self, road: &Road<'_, S>) -> Result<(), Error> {
        self.may_have_it_alone(road)
    }
}

/// An approval that was given, to be used up by the request.
pub(crate) struct Given {
    name: String,
    expires: u64,
    /// What waits without it.
    rest: Approvals,
}

impl<S: Store> Road<'_, S> {
    /// How many approvals policy wants for the action; `None` if it allows it as it is, or denies it in any case.
    fn approvals_needed(&self) -> Option<u8> {
        self.tenant.access.approvals_needed(&self.query_on_vault(self.action))
    }

    /// How many approvals a request wants: as many as policy says, and one if nobody does it alone; `None` if it is done as it is,
    /// or in no case.
    fn approvals_wanted<R: Approvable<S>>(&self, request: &R) -> Option<u8> {
        let one = request.is_never_done_alone(&self.rules) && self.allows_vault(self.action);
        self.approvals_needed().or(one.then_some(1))
    }

    /// Whether policy lets the caller act, as it is or with the approval of others, and no freeze stops it.
    pub fn decide_with_others(&self) -> Result<(), Error> {
        match self.allows_vault(self.action) || self.approvals_needed().is_some() {
            true => self.not_stopped(),
            false => Err(Error::Denied { action: self.action.as_str() }),
        }
    }

    /// Whether policy lets the caller act, with the approvals that were given to its request if it wants some.
    pub async fn decide_approved<R: Approvable<S>>(&self, request: &R) -> Result<Option<Given>, Error> {
        let need = match self.approvals_wanted(request) {
            Some(need) => need,
            None if self.allows_vault(self.action) => return self.not_stopped().map(|()| None),
            None => return Err(Error::Denied { action: self.action.as_str() }),
        };
        self.not_stopped()?;
        let mut approvals = self.approvals().await?;
        let (requester, request) = (&self.caller.principal.name, self.request_hash(&request.asked(&self.rules)));
        let Some(one) = approvals.of(requester, &request, self.now).cloned() else {
            return Err(Error::Conflict);
        };
        let have = self.standing(&one);
        if have < need {
            return Err(waits(&one, have, need));
        }
        approvals.end(&one.name(), self.now).map_err(refused)?;
        Ok(Some(Given { name: one.name(), expires: one.expires, rest: approvals }))
    }

    /// Sees that a request has the approvals that policy wants, if it wants any, and uses them up in its commit: for one that
    /// knows what it is about only once it has read that, so that it can't be asked before. Says what is missing; then nothing but
    /// that it waits may be committed, so none of its changes are in `prepared` yet. `told` is what the leaf says of what was
    /// approved, so that its words can be made again.
    pub async fn agreed<A>(
        &self,
        asked: &Asked,
        told: Told,
        prepared: &mut Prepared<A>,
    ) -> Result<Option<Error>, Error> {
        self.decide_with_others()?;
        let Some(need) = self.approvals_needed() else { return Ok(None) };
        let mut approvals = self.approvals().await?;
        let request = self.request_hash(asked);
        let one = approvals.of(&self.caller.principal.name, &request, self.now).cloned();
        let Some(one) = one.filter(|one| self.standing(one) >= need) else {
            // Where it was found given after all it would be done without being used up.
            return self
                .ask_others(approvals, asked, need, prepared)?
                .map_or(Err(Error::Conflict), |missing| Ok(Some(missing)));
        };
        approvals.end(&one.name(), self.now).map_err(refused)?;
        let given = Given { name: one.name(), expires: one.expires, rest: approvals };
        self.use_up(Some(given), prepared)?;
        prepared.detail.extend(told);
        Ok(None)
    }

    /// Opens the approval of a request, unless it has one of these, and tells the ledger how it stands. Says what is missing, if
    /// anything is.
    fn ask_others<A>(
        &self,
        mut approvals: Approvals,
        asked: &Asked,
        need: u8,
        prepared: &mut Prepared<A>,
    ) -> Result<Option<Error>, Error> {
        let (requester, request) = (&*self.caller.principal.name, self.request_hash(asked));
        // No other one gets it: whoever opens one writes a leaf.
        let number = self.vault.committer.head(self.tenant.number).map_or(0, |head| head.size);
        let there = approvals.of(requester, &request, self.now).cloned();
        let one = match &there {
            Some(there) => there.clone(),
            None => {
                let asked = [self.action.as_str(), requester, &request, &asked.summary];
                approvals.open(asked, need, number, self.now).ok_or_else(|| {
                    let why = "too many requests wait for approval, 10 of one principal and 100 of all: approve or reject some";
                    Error::ApprovalRefused(why.to_owned())
                })?
            }
        };
        let have = self.standing(&one);
        let given = have >= need;
        if there.is_none() {
            self.put_approvals(&approvals, prepared)?;
        }
        prepared.denied = (!given).then_some("APPROVAL_REQUIRED");
        prepared.detail.extend([
            ("stage", if given { "approved" } else { "pending" }.to_owned()),
            ("approval", one.name()),
            ("request", request),
            ("summary", asked.summary.clone()),
            ("need", need.to_string()),
        ]);
        Ok((!given).then(|| waits(&one, have, need)))
    }

    /// Uses an approval up in the commit of its request, if it needed one.
    pub fn use_up<A>(&self, given: Option<Given>, prepared: &mut Prepared<A>) -> Result<(), Error> {
        let Some(Given { name, expires, rest }) = given else { return Ok(()) };
        self.put_approvals(&rest, prepared)?;
        // Whoever approved still is who they were, and it is still time.
        prepared.guards.push(Guard::Unchanged(Fact::principals()));
        prepared.guards.push(Guard::Before(Timestamp(expires)));
        prepared.detail.push(("approval", name));
        Ok(())
    }

    /// How many approvals count: of officers who are still enrolled with the key that signed.
    fn standing(&self, one: &Approval) -> u8 {
        let directory = self.vault.directory();
        one.standing(|name| {
            // Who is suspended has no say, also by what it said before.
            if self.rules.freezes.is_suspended(&format!("{}/{name}", Role::Officer)) {
                return None;
            }
            directory.officer(self.tenant.number, name).map(|key| data_encoding::HEXLOWER.encode(key))
        })
    }

    /// What waits for approval in the tenant.
    async fn approvals(&self) -> Result<Approvals, Error> {
        let (at, key) = (place::approvals(self.tenant.number), &self.tenant.fingerprints);
        let stored: Option<Approvals> = Source::load(&*self.vault.store, at, SourceKind::Approvals, key).await?;
        let approvals = stored.unwrap_or_default();
        match approvals.is_sound() {
            true => Ok(approvals.since(self.tenant.leaves_at_start)),
            false => Err(Error::DataLoss("what waits for approval")),
        }
    }

    /// Commits what waits, if nobody else changes that meanwhile.
    fn put_approvals<A>(&self, approvals: &Approvals, prepared: &mut Prepared<A>) -> Result<(), Error> {
        let fact = Fact::approvals(self.tenant.number);
        prepared.guards.push(Guard::Unchanged(fact));
        prepared.changes.push(fact);
        let at = place::approvals(self.tenant.number);
        prepared.mutations.push(Source::put(approvals, at, SourceKind::Approvals, &self.tenant.fingerprints)?);
        Ok(())
    }

    /// What an approval is bound to: who asks for what, and under which policy.
    fn request_hash(&self, asked: &Asked) -> String {
        data_encoding::HEXLOWER.encode(&request_hash(self.tenant, self.caller, self.action, asked))
    }
}

/// The keyed hash of what a caller asks: what an approval, or a second factor for one request, is bound to.
pub(crate) fn request_hash(tenant: &Tenant, caller: &Caller, action: Action, asked: &Asked) -> [u8; 32] {
    let policy = tenant.policy_version().to_be_bytes();
    let mut parts: Vec<&[u8]> =
        vec![b"approval", action.as_str().as_bytes(), caller.principal.name.as_bytes(), &policy];
    parts.extend(asked.parts.iter().map(Vec::as_slice));
    tenant.fingerprints.mac(&parts)
}

/// How an approval stands.
enum Standing {
    /// It was given, or none is needed.
    Given,
    /// It waits.
    Waits(Error),
}

/// Opens the approval that a request needs, or finds the one that it has.
struct OpenApproval<'r, R>(&'r R);

impl<S: Store, R: Approvable<S>> Attempt<S> for OpenApproval<'_, R> {
    type Answer = Standing;
    const ACTION: Action = R::ACTION;
    const ON_FULL_DISK: bool = true;

    fn bound_to(&self, rules: &Rules) -> Option<Asked> {
        self.0.bound_to(rules)
    }

    async fn attempt(&self, road: &Road<'_, S>) -> Result<Prepared<Standing>, Refused> {
        road.decide_with_others()?;
        self.0.would_be_done(road)?;
        let mut prepared = road.prepare(Standing::Given);
        if let Some(need) = road.approvals_wanted(self.0).filter(|_| !self.0.changes_nothing(road)) {
            let approvals = road.approvals().await?;
            if let Some(missing) = road.ask_others(approvals, &self.0.asked(&road.rules), need, &mut prepared)? {
                prepared.answer = Standing::Waits(missing);
            }
        }
        Ok(prepared)
    }
}

/// Approves a request of somebody else.
pub struct Approve {
    /// `approval/7`.
    pub name: String,
    /// The officer's public key, a SubjectPublicKeyInfo in DER.
    pub public_key: Vec<u8>,
    /// Its signature over the text of the approval.
    pub signature: Vec<u8>,
}

impl<S: Store> Attempt<S> for Approve {
    type Answer = ListedApproval;
    const ACTION: Action = Action::Approve;
    const ON_FULL_DISK: bool = true;

    async fn attempt(&self, road: &Road<'_, S>) -> Result<Prepared<ListedApproval>, Refused> {
        let officer = officer(road)?;
        let key = digest::digest(&digest::SHA256, &self.public_key);
        let directory = road.vault.directory();
        if directory.officer(road.tenant.number, officer).is_none_or(|pinned| pinned != key.as_ref()) {
            let description = "it is not the key that you are enrolled with";
            return Err(Error::invalid("public_key", "officer_key", description).into());
        }
        let mut approvals = road.approvals().await?;
        let vote = Vote {
            officer: road.caller.principal.name.to_string(),
            key: data_encoding::HEXLOWER.encode(key.as_ref()),
            time: road.now,
        };
        let one = approvals.approve(&self.name, vote).map_err(refused)?.clone();
        let signed = approval::Approval {
            vault: road.vault.id,
            tenant: road.tenant.id,
            name: &self.name,
            request: &one.request,
            action: &one.action,
            requester: &one.requester,
            summary: &one.summary,
            officer: &road.caller.principal.name,
        };
        signed
            .verify(&self.public_key, &self.signature)
            .map_err(|error| Error::invalid("signature", "signature", error.to_string()))?;
        let mut prepared = road.prepare(road.listed(&one));
        road.put_approvals(&approvals, &mut prepared)?;
        prepared.guards.push(Guard::Unchanged(Fact::principals()));
        let base64 = |bytes: &[u8]| data_encoding::BASE64.encode(bytes);
        prepared.detail.extend([
            ("approval", one.name()),
            ("asked", one.action.clone()),
            ("requester", one.requester.clone()),
            ("request", one.request.clone()),
            ("summary", one.summary.clone()),
            ("public_key", base64(&self.public_key)),
            ("signature", base64(&self.signature)),
        ]);
        Ok(prepared)
    }
}

/// Rejects a request, which ends its approval.
pub struct Reject {
    /// `approval/7`.
    pub name: String,
}

impl<S: Store> Attempt<S> for Reject {
    type Answer = ListedApproval;
    const ACTION: Action = Action::Reject;
    const ON_FULL_DISK: bool = true;

    async fn attempt(&self, road: &Road<'_, S>) -> Result<Prepared<ListedApproval>, Refused> {
        officer(road)?;
        let mut approvals = road.approvals().await?;
        let one = approvals.end(&self.name, road.now).map_err(refused)?;
        let mut prepared = road.prepare(road.listed(&one));
        road.put_approvals(&approvals, &mut prepared)?;
        prepared.detail.extend([
            ("approval", one.name()),
            ("asked", one.action.clone()),
            ("requester", one.requester.clone()),
            ("request", one.request),
            ("summary", one.summary),
        ]);
        Ok(prepared)
    }
}

/// A request that waits for approval, as officers see it.
pub struct ListedApproval {
    /// The approval.
    pub approval: Approval,
    /// How many approvals count now.
    pub have: u8,
}

/// Asks what waits: all of it, or what is about a data subject, by the caller's own id of that.
struct ListApprovals<'r> {
    subject: Option<&'r str>,
}

impl<S: Store> Attempt<S> for ListApprovals<'_> {
    type Answer = Vec<ListedApproval>;
    const ACTION: Action = Action::ListApprovals;
    const ON_FULL_DISK: bool = true;

    async fn attempt(&self, road: &Road<'_, S>) -> Result<Prepared<Vec<ListedApproval>>, Refused> {
        road.decide_vault()?;
        let mut prepared = road.prepare(vec![]);
        let about = match self.subject {
            None => None,
            Some(id) => {
                let records = road.asked_records(id, &mut prepared).await?;
                let handles: Vec<SubjectHandle> = records.iter().map(|record| record.handle).collect();
                let item = |handle: &SubjectHandle| Item { outcome: OK, subject: Some(*handle), ..Item::default() };
                prepared.items.extend(handles.iter().map(item));
                Some(handles)
            }
        };
        let approvals = road.approvals().await?;
        let fits = |one: &&Approval| about.as_ref().is_none_or(|handles| is_about(one, handles));
        prepared.answer = approvals.waiting(road.now).filter(fits).map(|one| road.listed(one)).collect();
        Ok(prepared)
    }
}

/// Whether what waits is about a data subject. Other actions' words may be anything.
fn is_about(one: &Approval, handles: &[SubjectHandle]) -> bool {
    let of_subjects = [Action::EraseSubject, Action::LiftHold].map(Action::as_str);
    of_subjects.contains(&&*one.action) && summary::is_about(&one.summary, handles)
}

impl<S: Store> Road<'_, S> {
    fn listed(&self, one: &Approval) -> ListedApproval {
        ListedApproval { approval: one.clone(), have: self.standing(one) }
    }
}

/// The name under the role of a caller who may approve: whatever policy permits, it is an officer, whose key is pinned.
fn officer<'r, S: Store>(road: &'r Road<'_, S>) -> Result<&'r str, Error> {
    road.decide_vault()?;
    road.only_officers()?;
    Ok(road.caller.principal.short_name())
}

fn waits(one: &Approval, have: u8, need: u8) -> Error {
    Error::ApprovalRequired { name: one.name(), have, need, expires: one.expires }
}

fn refused(error: ApproveError) -> Error {
    Error::ApprovalRefused(error.to_string())
}

impl<S: Store> Vault<S> {
    /// Sees that a request has the approvals that policy wants, if it wants any: else one is opened, or waits already.
    pub(crate) async fn approved<R: Approvable<S>>(&self, caller: &Caller, request: &R) -> Result<(), Error> {
        let tenant = self.tenant(caller.principal.tenant)?;
        let now = self.now();
        let rules = tenant.rules();
        let asked = || request_hash(&tenant, caller, R::ACTION, &request.asked(&rules));
        let factor = second_factors::claimed(&tenant, caller, asked, now);
        let context = circumstances(caller, &rules, now).second_factor(factor);
        let query = Query::on_vault_in(&caller.principal, R::ACTION, context);
        if tenant.access.approvals_needed(&query).is_none() && !request.is_never_done_alone(&rules) {
            // Allowed as it is, or not at all: the request itself is told.
            return Ok(());
        }
        match self.travel(caller, &OpenApproval(request)).await? {
            Standing::Given => Ok(()),
            Standing::Waits(error) => Err(error),
        }
    }

    /// The permanent identities of the vault and of the caller's tenant.
    pub fn ids(&self, caller: &Caller) -> Result<(VaultId, TenantId), Error> {
        Ok((self.id, self.tenant(caller.principal.tenant)?.id))
    }

    /// What waits for approval in the caller's tenant.
    pub async fn list_approvals(&self, caller: &Caller) -> Result<Vec<ListedApproval>, Error> {
        self.travel(caller, &ListApprovals { subject: None }).await
    }

    /// What waits that is about a data subject, so that an officer knows whom a handle stands for.
    pub async fn list_approvals_about(&self, caller: &Caller, subject: &str) -> Result<Vec<ListedApproval>, Error> {
        self.travel(caller, &ListApprovals { subject: Some(subject) }).await
    }

    /// Approves what somebody else asked for.
    pub async fn approve(&self, caller: &Caller, request: &Approve) -> Result<ListedApproval, Error> {
        self.travel(caller, request).await
    }

    /// Rejects what somebody asked for.
    pub async fn reject(&self, caller: &Caller, request: &Reject) -> Result<ListedApproval, Error> {
        self.travel(caller, request).await
    }
}
