//! What policies name of a tenant's own schema: fields, collections, views and purposes. Cedar takes any such name, and a
//! forbid with a misspelt one forbids nothing. Besides, which principals they name: those may be allowed what others of
//! their role are not.

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
    /// What `resource.name` is compared with: a field's name within its collection.
    FieldName,
    /// What `resource.collection` is compared with.
    CollectionName,
    /// `Principal::"app/migration"`.
    Principal,
    /// What `principal.name` is compared with: a name under any role.
    PrincipalName,
}

impl Named {
    /// Its word, for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Field => "field",
            Self::Collection => "collection",
            Self::View => "view",
            Self::Purpose => "purpose",
            Self::FieldName => "field name",
            Self::CollectionName => "collection name",
            Self::Principal => "principal",
            Self::PrincipalName => "principal name",
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
    /// The name; of a pattern, its text.
    pub name: String,
    /// Whether it is the pattern of a `like`.
    pub pattern: bool,
}

impl Mention {
    /// Whether it means a name that there is.
    pub fn means(&self, name: &str) -> bool {
        if self.pattern { fits(&self.name, name) } else { self.name == name }
    }
}

/// Whether a pattern with `*` for anything fits a name. No name of a schema has a star, so one that asks for one fits none.
fn fits(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| name.strip_prefix(first)) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        match rest.split_once(part) {
            Some((_, after)) => rest = after,
            None => return false,
        }
    }
    !pattern.contains("\\*") && rest.ends_with(last)
}

/// What one policy names; `None` if Cedar can't say.
pub(crate) fn of(policy: &Policy, id: &str, line: usize) -> Option<Vec<Mention>> {
    let document = policy.to_json().ok()?;
    let forbids = document.get("effect").and_then(Value::as_str) == Some("forbid");
    let mut names = Vec::new();
    walk(&document, &mut names);
    names.sort_unstable();
    names.dedup();
    let mention = |(named, name, pattern): Name| Mention { line, policy: id.to_owned(), forbids, named, name, pattern };
    Some(names.into_iter().map(mention).collect())
}

/// What is named, how, and whether that is a pattern.
type Name = (Named, String, bool);

/// Gathers names from Cedar's JSON form of a policy: entities anywhere, strings where they are compared with what the schema
/// has names for.
fn walk(value: &Value, names: &mut Vec<Name>) {
    match value {
        Value::Array(parts) => parts.iter().for_each(|part| walk(part, names)),
        Value::Object(parts) => {
            names.extend(entity(value).map(|(named, name)| (named, name.to_owned(), false)));
            for (operator, operands) in parts {
                if matches!(operator.as_str(), "==" | "!=" | "contains" | "containsAny" | "containsAll") {
                    names.extend(compared(operands));
                }
                if operator == "like" {
                    names.extend(pattern(operands));
                }
                walk(operands, names);
            }
        }
        _ => {}
    }
}

/// A field, collection or principal that a value stands for.
fn entity(value: &Value) -> Option<(Named, &str)> {
    let named = match value.get("type")?.as_str()? {
        "Field" => Named::Field,
        "Collection" => Named::Collection,
        "Principal" => Named::Principal,
        _ => return None,
    };
    Some((named, value.get("id")?.as_str()?))
}

/// The strings that a comparison holds against what the schema has names for, on either side, by itself or in a set.
fn compared(operands: &Value) -> Vec<Name> {
    let (Some(left), Some(right)) = (operands.get("left"), operands.get("right")) else { return vec![] };
    let mut names = Vec::new();
    for (attributes, other) in [(left, right), (right, left)] {
        for named in attributes_of(attributes) {
            names.extend(strings(other).into_iter().map(|name| (named, name.to_owned(), false)));
        }
    }
    names
}

/// The pattern that a `like` holds against what the schema has names for, as it is written in Cedar.
fn pattern(operands: &Value) -> Option<Name> {
    let named = attribute(operands.get("left")?)?;
    let parts = operands.get("pattern")?.as_array()?.iter().map(|part| match part.get("Literal") {
        Some(text) => text.as_str().unwrap_or_default().replace('*', "\\*"),
        None => "*".to_owned(),
    });
    Some((named, parts.collect(), true))
}

/// What of the schema's an attribute stands for, in a set perhaps.
fn attributes_of(value: &Value) -> Vec<Named> {
    match value.get("Set") {
        Some(Value::Array(many)) => many.iter().flat_map(attributes_of).collect(),
        _ => attribute(value).into_iter().collect(),
    }
}

/// What of the schema's an attribute stands for, or a principal's name.
fn attribute(value: &Value) -> Option<Named> {
    let access = value.get(".")?;
    match (access.get("left")?.get("Var")?.as_str()?, access.get("attr")?.as_str()?) {
        ("context", "view") => Some(Named::View),
        ("context", "purpose") => Some(Named::Purpose),
        ("resource", "name") => Some(Named::FieldName),
        ("resource", "collection") => Some(Named::CollectionName),
        ("principal", "name") => Some(Named::PrincipalName),
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

    fn found(policies: &Policies) -> Vec<(Named, &str, bool)> {
        policies.mentions().iter().map(|one| (one.named, one.name.as_str(), one.pattern)).collect()
    }

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
    fn names_are_found_in_sets_on_either_side_of_fields_and_in_patterns() {
        let policies = Policies::compile(
            r#"
            @id("one")
            forbid (principal, action == Action::"detokenize", resource)
            when {
              resource.name == "id_card" && "borrower" == resource.collection && context has view &&
              [context.view].contains("plain") && ["masked"].containsAll([context.view]) &&
              ["mobile", "email"].contains(resource.name) && context has purpose && context.purpose like "kyc_*" &&
              resource.name like "a\*b*c" && principal.name == "loan-core" && context.actor_role like "cl*"
            };
            "#,
        )
        .unwrap();
        assert_eq!(
            found(&policies),
            [
                (Named::View, "masked", false),
                (Named::View, "plain", false),
                (Named::Purpose, "kyc_*", true),
                (Named::FieldName, "a\\*b*c", true),
                (Named::FieldName, "email", false),
                (Named::FieldName, "id_card", false),
                (Named::FieldName, "mobile", false),
                (Named::CollectionName, "borrower", false),
                (Named::PrincipalName, "loan-core", false),
            ]
        );
    }

    #[test]
    fn principals_are_found_by_whole_names_and_by_those_under_their_role() {
        let policies = Policies::compile(
            r#"
            @id("one")
            permit (principal == Principal::"app/migration", action == Action::"import_token", resource);

            @id("two")
            permit (principal in Role::"app", action == Action::"detokenize", resource)
            unless {
              principal in [Principal::"app/a", Principal::"app/b"] || ["c", "d"].contains(principal.name) ||
              principal.name like "e*"
            };
            "#,
        )
        .unwrap();
        assert_eq!(
            found(&policies),
            [
                (Named::Principal, "app/migration", false),
                (Named::Principal, "app/a", false),
                (Named::Principal, "app/b", false),
                (Named::PrincipalName, "c", false),
                (Named::PrincipalName, "d", false),
                (Named::PrincipalName, "e*", true),
            ]
        );
    }

    #[test]
    fn a_pattern_means_the_names_that_it_fits() {
        for (pattern, name) in [
            ("*", ""),
            ("*", "a"),
            ("kyc_*", "kyc_review"),
            ("*_review", "kyc_review"),
            ("k*c*w", "kyc_review"),
            ("a*a", "aa"),
            ("a**a", "aba"),
            ("plain", "plain"),
        ] {
            assert!(fits(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("plain", "plainer"),
            ("a*a", "a"),
            ("kyc_*", "kyb_review"),
            ("k*x*w", "kyc_review"),
            ("", "a"),
            ("a\\*", "a"),
        ] {
            assert!(!fits(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn the_policies_that_ship_name_no_field() {
        let policies = Policies::compile(crate::DEFAULT_POLICIES).unwrap();
        let no_field = |named| matches!(named, Named::View | Named::Purpose | Named::Principal);
        assert!(policies.mentions().iter().all(|one| no_field(one.named)));
        assert!(policies.mentions().iter().any(|one| one.name == "loan_origination" && !one.forbids));
    }
}
