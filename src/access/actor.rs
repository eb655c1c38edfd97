//! The person on whose behalf a service calls, and the labels by which subjects are in somebody's case load.

use std::fmt;
use std::sync::Arc;

use crate::query::CaseLoad;
use crate::spiffe::check_segment;

/// Labels that an actor may have.
pub const ACTOR_LABELS: usize = 16;
/// Labels that a subject may have.
pub const SUBJECT_LABELS: usize = 8;
/// Bytes of a label.
const LABEL: usize = 32;

/// The word that policy sees where there is no actor, so no actor has it as a role.
const NO_ROLE: &str = "none";

/// What of an actor is not as it must be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ActorError {
    /// It has no name that can stand in a ledger.
    #[error("the name must be 1 to 64 of A-Z a-z 0-9 . - _")]
    Name,
    /// It has no role that policies can speak of.
    #[error("the role must be 1 to 64 of A-Z a-z 0-9 . - _, and not `none`")]
    Role,
    /// It has too many labels, or one that is none.
    #[error("there may be 16 labels, each 1 to 32 of a-z 0-9 . - _ that begins with a letter or digit")]
    Labels,
}

/// The person on whose behalf a service calls, as an issuer vouched for it.
#[derive(Clone, PartialEq, Eq)]
pub struct Actor {
    name: Arc<str>,
    role: Box<str>,
    labels: Box<[Box<str>]>,
    expires: u64,
}

impl Actor {
    /// An actor whom an issuer, by the vault's short name for it, calls `subject`. `expires`: from when on nobody vouches
    /// for it any more, in microseconds since 1970.
    pub fn new(
        issuer: &str,
        subject: &str,
        role: &str,
        labels: impl IntoIterator<Item = String>,
        expires: u64,
    ) -> Result<Self, ActorError> {
        check_segment(issuer).map_err(|_| ActorError::Name)?;
        check_segment(subject).map_err(|_| ActorError::Name)?;
        check_segment(role).map_err(|_| ActorError::Role)?;
        if role == NO_ROLE {
            return Err(ActorError::Role);
        }
        let labels: Vec<Box<str>> = labels.into_iter().take(ACTOR_LABELS + 1).map(String::into_boxed_str).collect();
        if labels.len() > ACTOR_LABELS || !labels.iter().all(|label| is_label(label)) {
            return Err(ActorError::Labels);
        }
        let name = format!("{issuer}/{subject}").into();
        Ok(Self { name, role: role.into(), labels: labels.into(), expires })
    }

    /// The issuer's short name and the subject: `hr/li.na`, as the ledger has it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The role that policy sees.
    pub fn role(&self) -> &str {
        &self.role
    }

    /// From when on nobody vouches for it, in microseconds since 1970.
    pub fn expires(&self) -> u64 {
        self.expires
    }

    /// Whose case a subject with these labels is, as seen from here.
    pub fn case_load(&self, labels: &[String]) -> CaseLoad {
        match labels {
            [] => CaseLoad::None,
            labels if labels.iter().any(|label| self.labels.iter().any(|own| **own == **label)) => CaseLoad::Own,
            _ => CaseLoad::Other,
        }
    }
}

/// Its labels say where a person works: they are nobody's business in a log.
impl fmt::Debug for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Actor").field("name", &self.name).field("role", &self.role).finish_non_exhaustive()
    }
}

/// Whether a text has the form of a label: short, and of characters in which no sentence can be written.
pub fn is_label(text: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    text.len() <= LABEL
        && text.bytes().next().is_some_and(good)
        && text.bytes().all(|byte| good(byte) || b"._-".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn actor(own: &[&str]) -> Actor {
        Actor::new("hr", "li.na", "teller", labels(own), 1).unwrap()
    }

    #[test]
    fn a_subject_is_in_the_case_load_of_who_shares_a_label() {
        let both = actor(&["branch-12", "retail"]);
        assert_eq!(both.case_load(&labels(&["retail", "gold"])), CaseLoad::Own);
        assert_eq!(both.case_load(&labels(&["branch-13"])), CaseLoad::Other);
        assert_eq!(both.case_load(&[]), CaseLoad::None);
        // Who has no labels has no cases, so what is somebody's is somebody else's.
        assert_eq!(actor(&[]).case_load(&labels(&["retail"])), CaseLoad::Other);
    }

    #[test]
    fn an_actor_has_a_name_for_the_ledger_a_role_for_policy_and_few_labels() {
        assert_eq!(actor(&[]).name(), "hr/li.na");
        let long = "x".repeat(65);
        for name in ["", "a/b", "li na", "李娜", ".", "..", &long, "a\n"] {
            assert_eq!(Actor::new("hr", name, "teller", [], 1), Err(ActorError::Name), "{name}");
        }
        for role in ["", "none", "a/b", &long] {
            assert_eq!(Actor::new("hr", "li.na", role, [], 1), Err(ActorError::Role), "{role}");
        }
        let many = |count| Actor::new("hr", "li.na", "teller", (0..count).map(|n| format!("l{n}")), 1);
        assert!(many(16).is_ok());
        assert_eq!(many(17), Err(ActorError::Labels));
        assert_eq!(Actor::new("hr", "li.na", "teller", labels(&["A"]), 1), Err(ActorError::Labels));
    }

    #[test]
    fn a_label_is_short_and_plain() {
        for good in ["a", "0", "branch-12", "a.b_c-d", &"x".repeat(32)] {
            assert!(is_label(good), "{good}");
        }
        for bad in ["", "-a", ".a", "_a", "A", "a b", "a/b", "支行", &"x".repeat(33), "a\n"] {
            assert!(!is_label(bad), "{bad}");
        }
    }
}
