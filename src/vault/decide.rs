//! Whether a caller is let onto the road at all, and what policy says to what it asks there.

use std::sync::Arc;

use strongroom_access::{Action, Context, Decision, Query, Resource, Role, SecondFactor};
use strongroom_schema::Field;
use strongroom_storage::Store;

use crate::error::Error;
use crate::open::SYSTEM_NO;
use crate::road::{Caller, Road};
use crate::standing::Relation;
use crate::tenant::Rules;

impl<S: Store> Road<'_, S> {
    /// Sees that the caller is not suspended, that an officer still is one by the key that it shows, and that what is shown
    /// as a second factor, and who stands behind the caller, hold.
    pub fn admit(&self) -> Result<(), Error> {
        self.vault.tenants.admit_under(&self.rules.freezes, self.tenant.number, self.caller)?;
        self.factor_holds()?;
        self.actor_holds()
    }

    /// Sees that the caller is an officer, whatever policy permits: policies from before there was such an action may permit
    /// services all that there is, and whom something was taken from must not take it back.
    pub fn only_officers(&self) -> Result<(), Error> {
        match self.caller.principal.role {
            Role::Officer => Ok(()),
            _ => Err(Error::Denied { action: self.action.as_str() }),
        }
    }

    /// Whether policy lets the caller act on a field, in a view, for the purpose of the request.
    pub fn decide(&self, field: &Field, view: Option<&str>, relation: impl Into<Relation>) -> Arc<Decision> {
        self.decide_action(self.action, field, view, self.purpose, relation.into())
    }

    /// Whether policy lets the caller bring a token of its own for a field.
    pub fn decide_import(&self, field: &Field, relation: impl Into<Relation>) -> Arc<Decision> {
        self.decide_action(Action::ImportToken, field, None, None, relation.into())
    }

    /// The same for any action and purpose.
    pub fn decide_action(
        &self,
        action: Action,
        field: &Field,
        view: Option<&str>,
        purpose: Option<&str>,
        relation: Relation,
    ) -> Arc<Decision> {
        self.decide_showing(self.showing.seen(), action, field, view, purpose, relation)
    }

    /// The same if the caller showed this as its second factor.
    pub fn decide_showing(
        &self,
        factor: SecondFactor,
        action: Action,
        field: &Field,
        view: Option<&str>,
        purpose: Option<&str>,
        relation: Relation,
    ) -> Arc<Decision> {
        let resource = resource_of(field);
        let context = self.circumstances().purpose(purpose).view(view).class(field.class.as_str());
        let context = context.consent(self.consent_to(purpose, relation));
        let context = context.second_factor(factor).case_load(relation.load);
        self.tenant.access.decide(&Query { principal: &self.caller.principal, action, resource, context })
    }

    /// Whether policy lets the caller act on the vault itself, and no freeze stops it.
    pub fn decide_vault(&self) -> Result<(), Error> {
        match self.allows_vault(self.action) {
            true => self.not_stopped(),
            false => Err(Error::Denied { action: self.action.as_str() }),
        }
    }

    /// The same for any action on the vault.
    pub fn allows_vault(&self, action: Action) -> bool {
        if action.is_the_vaults_own() && self.tenant.number != SYSTEM_NO {
            return false;
        }
        self.tenant.access.decide(&self.query_on_vault(action)).allowed
    }

    /// The question whether the caller may act on the vault itself.
    pub fn query_on_vault(&self, action: Action) -> Query<'_> {
        Query::on_vault_in(&self.caller.principal, action, self.circumstances())
    }

    /// What policy is told of the caller, whatever is asked.
    fn circumstances(&self) -> Context<'_> {
        circumstances(self.caller, &self.rules, self.now).second_factor(self.showing.seen())
    }
}

/// A field, as policy sees it.
pub(crate) fn resource_of(field: &Field) -> Resource<'_> {
    Resource::Field {
        name: &field.name,
        collection: &field.collection,
        class: field.class.as_str(),
        keyring: field.keyring,
        number: field.number,
    }
}

/// What policy is told of a caller, whatever is asked.
pub(crate) fn circumstances<'a>(caller: &'a Caller, rules: &Rules, now: u64) -> Context<'a> {
    let actor_role = caller.actor.as_ref().map(|actor| actor.role());
    Context::new(now).tier(rules.tiers.of(&caller.principal.name)).actor_role(actor_role)
}
