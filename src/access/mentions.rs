//! What policies name of a tenant's own schema: fields, collections, views and purposes. Cedar takes any such name, and a
//! forbid with a misspelt one forbids nothing.

use cedar_policy::Policy;
use serde_json::Value;

/// What is named.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Named {
    /// `Field::"borrower.id_card"`.
    Field,
    /// `Collection::"borrower"`.
    Collection,
    /// What `context.view` is compared with.
    View,
    /// What `context.purpose` is compared with.
    Purpose,
}

impl Named {
    /// Its word, for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Field => "field",
            Self::Collection => "collection",
            Self::View => "view",
            Self::Purpose => "purpose",
        }
    }
}

/// One name that a policy uses.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Mention {
    /// The line that the policy begins in.
    pub line: usize,
    /// Its `@id`.
    pub policy: String,
    /// Whether it forbids.
    pub forbids: bool,
    /// What is named.
    pub named: Named,
    /// The name.
    pub name: String,
}

/// What one policy names; `None` if Cedar can't say.
pub(crate) fn of(policy: &Policy, id: &str, line: usize) -> Option<Vec<Mention>> {
    let document = policy.to_json().ok()?;
    let forbids = document.get("effect").and_then(Value::as_str) == Some("forbid");
    let mut names = Vec::new();
    walk(&document, &mut names);
    names.sort_unstable();
    names.dedup();
    let mention =
        |(named, name): (Named, &str)| Mention { line, policy: id.to_owned(), forbids, named, name: name.to_owned() };
    Some(names.into_iter().map(mention).collect())
}

/// Gathers names from Cedar's JSON form of a policy: entities anywhere, strings where they are compared with a view or
/// purpose.
fn walk<'v>(value: &'v Value, names: &mut Vec<(Named, &'v str)>) {
    match value {
        Value::Array(parts) => parts.iter().for_each(|part| walk(part, names)),
        Value::Object(parts) => {
            names.extend(entity(value));
            for (operator, operands) in parts {
                if matches!(operator.as_str(), "==" | "!=" | "contains" | "containsAny" | "containsAll") {
                    names.extend(compared(operands));
                }
                walk(operands, names);
            }
        }
        _ => {}
    }
}

/// A field or collection that a value stands for.
fn entity(value: &Value) -> Option<(Named, &str)> {
    let named = match value.get("type")?.as_str()? {
        "Field" => Named::Field,
        "Collection" => Named::Collection,
        _ => return None,
    };
    Some((named, value.get("id")?.as_str()?))
}

/// The strings that a comparison holds against the request's view or purpose.
fn compared(operands: &Value) -> Vec<(Named, &str)> {
    let (Some(left), Some(right)) = (operands.get("left"), operands.get("right")) else { return vec![] };
    let (named, other) = match (of_context(left), of_context(right)) {
        (Some(named), None) => (named, right),
        (None, Some(named)) => (named, left),
        _ => return vec![],
    };
    strings(other).into_iter().map(|name| (named, name)).collect()
}

/// Whether it is `context.view` or `context.purpose`.
fn of_context(value: &Value) -> Option<Named> {
    let access = value.get(".")?;
    if access.get("left")?.get("Var")?.as_str()? != "context" {
        return None;
    }
    match access.get("attr")?.as_str()? {
        "view" => Some(Named::View),
        "purpose" => Some(Named::Purpose),
        _ => None,
    }
}

/// A string, or those of a set.
fn strings(value: &Value) -> Vec<&str> {
    match (value.get("Value"), value.get("Set")) {
        (Some(Value::String(one)), _) => vec![one],
        (_, Some(Value::Array(many))) => many.iter().flat_map(strings).collect(),
        _ => vec![],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policies::Policies;

    #[test]
    fn every_name_of_the_schema_is_found_wherever_it_stands() {
        let policies = Policies::compile(
            r#"
            @id("one")
            permit (principal in Role::"app", action == Action::"detokenize", resource == Field::"borrower.name")
            when { context has view && ["masked", "last4"].contains(context.view) };

            @id("two")
            forbid (principal, action == Action::"detokenize", resource in Collection::"company")
            unless {
              context has purpose && (context.purpose == "kyc_review" || "audit" == context.purpose) &&
              context.purpose != "marketing" &&
              !(resource in [Field::"company.uscc"] || resource in Collection::"borrower")
            };
            "#,
        )
        .unwrap();
        let found: Vec<(bool, Named, &str, usize)> =
            policies.mentions().iter().map(|one| (one.forbids, one.named, one.name.as_str(), one.line)).collect();
        assert_eq!(
            found,
            [
                (false, Named::Field, "borrower.name", 2),
                (false, Named::View, "last4", 2),
                (false, Named::View, "masked", 2),
                (true, Named::Field, "company.uscc", 6),
                (true, Named::Collection, "borrower", 6),
                (true, Named::Collection, "company", 6),
                (true, Named::Purpose, "audit", 6),
                (true, Named::Purpose, "kyc_review", 6),
                (true, Named::Purpose, "marketing", 6),
            ]
        );
    }

    #[test]
    fn the_policies_that_ship_name_no_field() {
        let policies = Policies::compile(crate::DEFAULT_POLICIES).unwrap();
        assert!(policies.mentions().iter().all(|one| matches!(one.named, Named::View | Named::Purpose)));
        assert!(policies.mentions().iter().any(|one| one.name == "loan_origination" && !one.forbids));
    }
}
