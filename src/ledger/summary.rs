//! What officers are asked to approve, in words; and the same words made again of the leaf of what was then done.
//!
//! What an officer signs has the words in it. So whoever verifies a log sees that what was done is what was approved, as far
//! as the leaf says all that the words do.

use std::fmt::Display;

use strongroom_ids::SubjectHandle;

use crate::leaf::ParsedLeaf;

/// What stands before the handles of a data subject, at the end.
const SUBJECT: &str = " the data subject ";
/// Handles that are named; of an id that leads to more it is said how many there are.
const NAMED: usize = 16;

/// Somebody is to be an officer, by this key, or by another one than until now.
pub fn enrol_officer(name: &str, key: &str) -> String {
    format!("enrol officer {name} by the public key with SHA-256 {key}")
}

/// Somebody is to be an officer no more.
pub fn remove_officer(name: &str) -> String {
    format!("remove officer {name}")
}

/// Policies are to be put in force; perhaps those of an older version.
pub fn apply_policy(text_sha256: &str, rolled_back_to: Option<&dyn Display>) -> String {
    match rolled_back_to {
        None => format!("apply the policies with SHA-256 {text_sha256}"),
        Some(version) => format!("roll the policies back to version {version}, with SHA-256 {text_sha256}"),
    }
}

/// A schema is to be put in force.
pub fn apply_schema(text_sha256: &str) -> String {
    format!("apply the schema with SHA-256 {text_sha256}")
}

/// A principal is to be put into a tier.
pub fn set_tier(principal: &str, tier: &str) -> String {
    format!("put {principal} into tier {tier}")
}

/// A tier is to have other limits.
pub fn set_tier_limits(tier: &str, limits: &str) -> String {
    format!("set the limits of tier {tier} to {limits}")
}

/// Somebody's second factor is to be taken away.
pub fn reset_second_factor(principal: &str) -> String {
    format!("reset the second factor of {principal}")
}

/// A version of a key is to be destroyed.
pub fn destroy_key_version(key: &str, version: impl Display) -> String {
    format!("destroy version {version} of key {key}")
}

/// Leaves are to leave the vault, from the first up to, but without, the end: an export of them has this manifest, and
/// is kept there.
pub fn archive_ledger(first: &str, end: &str, manifest: &str, place: &str) -> String {
    format!(
        "archive the leaves from {first} to {end}, which stays, by the manifest with SHA-256 {manifest}, kept in {place}"
    )
}

/// So many values are to be erased by retention, more than without asking.
pub fn expire_above_cap(up_to: impl Display) -> String {
    format!("erase up to {up_to} values that are due by retention")
}

/// A data subject is to be erased: `at once`, or `after` a time of grace. It is named by its handles, which say nothing
/// of who it is.
pub fn erase_subject(when: &str, subjects: &str) -> String {
    format!("erase {when}{SUBJECT}{subjects}")
}

/// A legal hold, set for that case, is to end.
pub fn lift_hold(hold: impl Display, reason: &str, subjects: &str) -> String {
    format!("lift hold {hold}, set for {reason}, on{SUBJECT}{subjects}")
}

/// How a data subject is named: by its handle, or by several if subjects were merged.
pub fn subjects(handles: &[SubjectHandle]) -> String {
    let named: Vec<String> = handles.iter().take(NAMED).map(|handle| handle.0.to_string()).collect();
    let named = named.join(" ");
    match handles.len().saturating_sub(NAMED) {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}

/// Whether what is asked for in these words is about one of these handles.
pub fn is_about(asked: &str, handles: &[SubjectHandle]) -> bool {
    let named = asked.rsplit_once(SUBJECT).map_or("", |(_, named)| named);
    let mut handles = handles.iter().map(|handle| handle.0.to_string());
    handles.any(|handle| named.split(' ').any(|one| one == handle))
}

/// Somebody's suspension is to end; since when it is stands behind that.
pub fn unsuspend(principal: &str) -> String {
    format!("end the suspension of {principal}")
}

/// A freeze is to end; since when it is stands behind that.
pub fn unfreeze(touches: &str, of: &str) -> String {
    format!("end the freeze of {touches} of {of}")
}

/// How a field is named whose freeze is to end.
pub fn frozen_field(name: &str, number: impl Display) -> String {
    format!("{name} (field {number})")
}

/// Who began what is to end, and when.
pub fn since(by: &str, at: impl Display) -> String {
    format!("{SINCE}{by} began at {at}")
}

/// What stands before that.
const SINCE: &str = ", which ";

/// What a leaf says was done, in words, if it is not what was asked for in these words. None as well for an action whose leaf
/// does not say what was done.
///
/// # Errors
/// Which detail the leaf lacks.
pub fn differs(leaf: &ParsedLeaf, asked: &str) -> Result<Option<String>, &'static str> {
    let said = |name: &'static str| leaf.says(name).ok_or(name);
    let ends = |rest: &str| rest.is_empty() || rest.starts_with(SINCE);
    let (done, same) = match leaf.action.as_str() {
        "unsuspend" => {
            let done = unsuspend(said("suspended")?);
            let same = asked.strip_prefix(&done).is_some_and(ends);
            (done, same)
        }
        "unfreeze" => {
            let (what, field) = (said("what")?.replace(' ', " and "), leaf.says("field"));
            // Leaves of earlier builds do not have the field's number.
            let of = field.map_or("everything".to_owned(), |field| format!("{field} (field "));
            let is_so = |rest: &str| match field {
                Some(_) => {
                    rest.trim_start_matches(|digit: char| digit.is_ascii_digit()).strip_prefix(')').is_some_and(ends)
                }
                None => ends(rest),
            };
            // What was not frozen is not named.
            let mut touches = std::iter::once(what.as_str()).chain(what.split(" and "));
            let same = touches.any(|touch| asked.strip_prefix(&unfreeze(touch, &of)).is_some_and(is_so));
            (unfreeze(&what, field.unwrap_or("everything")), same)
        }
        _ => return Ok(of(leaf)?.filter(|done| done != asked)),
    };
    Ok((!same).then_some(done))
}

/// What a leaf says was done, in the words in which it is asked for; none for an action whose leaf does not say all of it.
///
/// # Errors
/// Which detail the leaf lacks.
fn of(leaf: &ParsedLeaf) -> Result<Option<String>, &'static str> {
    let said = |name: &'static str| leaf.says(name).ok_or(name);
    Ok(Some(match leaf.action.as_str() {
        "enrol_officer" => enrol_officer(said("officer")?, said("key")?),
        "remove_officer" => remove_officer(said("officer")?),
        "apply_policy" => {
            let older = leaf.says("rolled_back_to");
            apply_policy(said("text_sha256")?, older.as_ref().map(|version| version as &dyn Display))
        }
        "apply_schema" => apply_schema(said("text_sha256")?),
        "set_tier" => set_tier(said("assigned")?, said("tier")?),
        "set_tier_limits" => set_tier_limits(said("tier")?, said("limits")?),
        "reset_second_factor" => reset_second_factor(said("factor")?),
        "archive_ledger" => archive_ledger(said("first")?, said("end")?, said("manifest")?, said("place")?),
        "destroy_key_version" => destroy_key_version(said("key")?, said("version")?),
        "expire_above_cap" => expire_above_cap(said("up_to")?),
        "erase_subject" => erase_subject(said("when")?, said("subjects")?),
        "lift_hold" => lift_hold(said("hold")?, said("reason")?, said("subjects")?),
        _ => return Ok(None),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_of_a_data_subject_is_found_by_each_of_its_handles_and_no_other() {
        let handles: Vec<SubjectHandle> = (1..=20).map(|number| SubjectHandle((1 << 48) + number)).collect();
        let of = |handles: &[SubjectHandle]| erase_subject("at once", &subjects(handles));
        assert_eq!(of(&handles[..2]), "erase at once the data subject 281474976710657 281474976710658");
        assert!(handles[..2].iter().all(|handle| is_about(&of(&handles[..2]), &[*handle])));
        assert!(!is_about(&of(&handles[..2]), &handles[2..]) && !is_about(&of(&handles[..2]), &[]));
        assert!(!is_about(&of(&handles[..1]), &[SubjectHandle(1)]), "a part of a handle is none");
        let hold = lift_hold(281_474_976_710_657_u64, "281474976710657", &subjects(&handles[1..2]));
        assert!(!is_about(&hold, &handles[..1]) && is_about(&hold, &handles[1..2]), "nor is what stands before");
        let many = of(&handles);
        assert!(many.ends_with(" 281474976710672 and 4 more") && is_about(&many, &handles), "{many}");
    }
}
