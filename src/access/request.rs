//! A question put into Cedar's terms.

use std::collections::{HashMap, HashSet};

use cedar_policy::{
    Context as CedarContext, Entities, Entity, EntityId, EntityTypeName, EntityUid, Request, RestrictedExpression,
    Schema,
};

use crate::query::{Query, Resource};

/// The Cedar schema that every set of policies is validated against.
pub const CEDAR_SCHEMA: &str = include_str!("strongroom.cedarschema");

/// The schema and the type names, read once.
#[derive(Debug)]
pub(crate) struct Terms {
    pub schema: Schema,
    action: EntityTypeName,
    principal: EntityTypeName,
    role: EntityTypeName,
    field: EntityTypeName,
    collection: EntityTypeName,
    class: EntityTypeName,
    vault: EntityTypeName,
    consent: EntityTypeName,
    second_factor: EntityTypeName,
    case_load: EntityTypeName,
}

/// A question that cannot be put: an action on the wrong thing, or a class that does not exist. It is denied. What
/// Cedar says of it is dropped, since it repeats what was asked.
pub(crate) struct NotAQuestion;

impl<E: std::error::Error> From<E> for NotAQuestion {
    fn from(_: E) -> Self {
        Self
    }
}

impl Terms {
    /// Reads the shipped schema. It can only fail if the shipped file is wrong, which a test rules out.
    pub fn new() -> Result<Self, String> {
        let (schema, _) = Schema::from_cedarschema_str(CEDAR_SCHEMA).map_err(|error| error.to_string())?;
        let name = |name: &str| name.parse::<EntityTypeName>().map_err(|error| error.to_string());
        Ok(Self {
            schema,
            action: name("Action")?,
            principal: name("Principal")?,
            role: name("Role")?,
            field: name("Field")?,
            collection: name("Collection")?,
            class: name("Class")?,
            vault: name("Vault")?,
            consent: name("Consent")?,
            second_factor: name("SecondFactor")?,
            case_load: name("CaseLoad")?,
        })
    }

    /// The question in Cedar's terms, checked against the schema: what policies were validated for is what they get.
    pub fn request(&self, query: &Query<'_>) -> Result<(Request, Entities), NotAQuestion> {
        let asker = query.principal;
        let principal = uid(&self.principal, &asker.name);
        let mut entities = vec![Entity::new(
            principal.clone(),
            HashMap::from([
                ("name".to_owned(), text(asker.short_name())),
                ("tenant".to_owned(), RestrictedExpression::new_long(asker.tenant.0.into())),
            ]),
            HashSet::from([uid(&self.role, asker.role.as_str())]),
        )?];
        let mut context = vec![
            ("tier".to_owned(), RestrictedExpression::new_long(query.context.tier.number().into())),
            ("hour".to_owned(), RestrictedExpression::new_long(query.context.hour.into())),
            ("actor_role".to_owned(), text(query.context.actor_role.unwrap_or("none"))),
            ("second_factor".to_owned(), entity(&self.second_factor, query.context.second_factor.as_str())),
        ];
        let resource = match query.resource {
            Resource::Vault => {
                let vault = uid(&self.vault, "vault");
                entities.push(Entity::with_uid(vault.clone()));
                let approvals = RestrictedExpression::new_long(query.context.approvals.into());
                context.push(("approvals".to_owned(), approvals));
                vault
            }
            Resource::Field { name, collection, class, keyring, number: _ } => {
                let field = uid(&self.field, &format!("{collection}.{name}"));
                let parent = uid(&self.collection, collection);
                entities.push(Entity::with_uid(parent.clone()));
                entities.push(Entity::new(
                    field.clone(),
                    HashMap::from([
                        ("name".to_owned(), text(name)),
                        ("collection".to_owned(), text(collection)),
                        ("class".to_owned(), entity(&self.class, class)),
                        ("keyring".to_owned(), RestrictedExpression::new_long(keyring.0.into())),
                    ]),
                    HashSet::from([parent]),
                )?);
                context.push(("class".to_owned(), entity(&self.class, query.context.class.unwrap_or(class))));
                context.push(("consent".to_owned(), entity(&self.consent, query.context.consent.as_str())));
                context.push(("case_load".to_owned(), entity(&self.case_load, query.context.case_load.as_str())));
                context.extend(query.context.purpose.map(|purpose| ("purpose".to_owned(), text(purpose))));
                context.extend(query.context.view.map(|view| ("view".to_owned(), text(view))));
                field
            }
        };
        let action = uid(&self.action, query.action.as_str());
        let context = CedarContext::from_pairs(context)?;
        let request = Request::new(principal, action, resource, context, Some(&self.schema))?;
        Ok((request, Entities::from_entities(entities, Some(&self.schema))?))
    }
}

fn uid(name: &EntityTypeName, id: &str) -> EntityUid {
    EntityUid::from_type_name_and_id(name.clone(), EntityId::new(id))
}

fn text(text: &str) -> RestrictedExpression {
    RestrictedExpression::new_string(text.to_owned())
}

fn entity(name: &EntityTypeName, id: &str) -> RestrictedExpression {
    RestrictedExpression::new_entity_uid(uid(name, id))
}

#[cfg(test)]
mod tests {
    use strongroom_ids::{FieldNo, KeyringNo, TenantNo};

    use super::*;
    use crate::action::Action;
    use crate::principal::{Principal, Role};
    use crate::query::{CaseLoad, Consent, Context, SecondFactor, Tier};

    fn field(class: &str) -> Resource<'_> {
        Resource::Field {
            name: "id_card",
            collection: "borrower",
            class,
            keyring: KeyringNo(u16::MAX),
            number: FieldNo(u32::MAX),
        }
    }

    #[test]
    fn every_action_can_be_asked_by_every_role() {
        let terms = Terms::new().unwrap();
        for role in Role::ALL {
            let principal = Principal::new(TenantNo(u32::MAX), role, "x");
            for &action in Action::ALL {
                for consent in [Consent::NotNeeded, Consent::Standing, Consent::Absent] {
                    let resource = if action.is_on_field() { field("c2") } else { Resource::Vault };
                    let context = Context::new(u64::MAX).purpose(Some("p")).view(Some("v")).consent(consent);
                    let query = Query { principal: &principal, action, resource, context };
                    assert!(terms.request(&query).is_ok(), "{query}");
                    let query = Query { context: Context::new(0), ..query };
                    assert!(terms.request(&query).is_ok(), "{query}");
                    for which in 0..3 {
                        let context = Context::new(0)
                            .tier(Tier::ALL[which])
                            .case_load(CaseLoad::ALL[which])
                            .second_factor(SecondFactor::ALL[which])
                            .actor_role(Some("clerk"));
                        let query = Query { context, ..query };
                        assert!(terms.request(&query).is_ok(), "{query}");
                    }
                }
            }
        }
    }

    #[test]
    fn an_action_on_the_wrong_thing_cannot_be_asked() {
        let terms = Terms::new().unwrap();
        let principal = Principal::new(TenantNo(1), Role::App, "x");
        for &action in Action::ALL {
            let resource = if action.is_on_field() { Resource::Vault } else { field("c2") };
            let query = Query { principal: &principal, action, resource, context: Context::new(0) };
            assert!(terms.request(&query).is_err(), "{query}");
        }
    }

    #[test]
    fn a_class_that_does_not_exist_cannot_be_asked() {
        let terms = Terms::new().unwrap();
        let principal = Principal::new(TenantNo(1), Role::App, "x");
        let context = Context::new(0);
        let query = Query { principal: &principal, action: Action::Tokenize, resource: field("c4"), context };
        assert!(terms.request(&query).is_err());
        let query = Query { resource: field("c1"), context: context.class(""), ..query };
        assert!(terms.request(&query).is_err());
    }
}
