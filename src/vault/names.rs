//! Whether policies speak of what the schema in force declares. A name that it does not have is a hole in a forbid.

use strongroom_access::{Mention, Named, Policies};
use strongroom_schema::Schema;

use crate::error::Error;

/// What of the schema's policies name and the schema does not have, in words. Refused is what could leave open what
/// somebody meant to forbid, and any field or collection; a permit may list more views and purposes than there are.
pub(crate) fn checked(policies: &Policies, schema: &Schema) -> Result<Vec<String>, Error> {
    let unknown = unknown(policies, schema);
    match unknown.iter().copied().find(|one| is_wrong(one)) {
        Some(one) => {
            let next = "see `strongroom schema show`; where the next schema has it, apply that first";
            Err(Error::SourceRefused(format!("{}: {next}", said(one))))
        }
        None => Ok(unknown.into_iter().map(said).collect()),
    }
}

/// What would be refused of policies that are, or were, in force already.
pub(crate) fn noted(policies: &Policies, schema: &Schema) -> Vec<String> {
    unknown(policies, schema).into_iter().filter(|one| is_wrong(one)).map(said).collect()
}

fn is_wrong(one: &Mention) -> bool {
    one.forbids || matches!(one.named, Named::Field | Named::Collection)
}

fn said(one: &Mention) -> String {
    let Mention { line, policy, named, name, .. } = one;
    // As it would be written in Cedar: whatever else stands in it is escaped.
    format!("line {line}: policy \"{policy}\" names the {} {name:?}, which the schema does not have", named.as_str())
}

/// Without a schema there is nothing to hold them against.
fn unknown<'p>(policies: &'p Policies, schema: &Schema) -> Vec<&'p Mention> {
    let has = |one: &Mention| match one.named {
        Named::Field => schema.field(&one.name).is_some(),
        Named::Collection | Named::CollectionName => schema.fields().any(|field| one.means(&field.collection)),
        Named::FieldName => schema.fields().any(|field| one.means(&field.name)),
        Named::View if one.pattern => schema.fields().any(|field| field.views().any(|(view, _)| one.means(view))),
        Named::View => schema.fields().any(|field| field.view(&one.name).is_some()),
        Named::Purpose if one.pattern => schema.purposes().any(|purpose| one.means(&purpose.name)),
        Named::Purpose => schema.purpose(&one.name).is_some(),
        // No schema has them: certificates do.
        Named::Principal | Named::PrincipalName => true,
    };
    match schema.version() {
        0 => vec![],
        _ => policies.mentions().iter().filter(|one| !has(one)).collect(),
    }
}
