//! A set of policies, compiled and validated, and what it decides.

use std::collections::BTreeMap;

use cedar_policy::ffi::DetailedError;
use cedar_policy::{
    AuthorizationError, Authorizer, Decision as CedarDecision, Policy, PolicyId, PolicySet, ValidationMode, Validator,
};

use crate::mentions::{self, Mention};
use crate::principal::Role;
use crate::query::{Consent, MAX_APPROVALS, Query, SecondFactor};
use crate::request::{NotAQuestion, Terms};
use crate::source::{self, MAX_DEPTH, MAX_POLICIES, MAX_POLICY, MAX_SOURCE, MAX_STEPS, Piece};

/// The policies that a new tenant starts with.
pub const DEFAULT_POLICIES: &str = include_str!("../../deploy/policies/default.cedar");

/// Longest `@id` in bytes.
const MAX_ID: usize = 64;

/// Why policies do not come into force.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PolicyError {
    /// The text is too long.
    #[error("the policies have {bytes} bytes; they may have {MAX_SOURCE}")]
    TooLong {
        /// How long it is.
        bytes: usize,
    },
    /// There are too many policies.
    #[error("line {line}: this is one policy too many; there may be {MAX_POLICIES}")]
    TooMany {
        /// Of the first that is too many.
        line: usize,
    },
    /// A policy is too long.
    #[error("line {line}: the policy is too long; it may have {MAX_POLICY} bytes with its comments")]
    PolicyTooLong {
        /// Where it begins.
        line: usize,
    },
    /// Brackets are nested too deeply.
    #[error("line {line}: brackets are nested more than {MAX_DEPTH} deep; split the policy")]
    TooDeep {
        /// Of the bracket.
        line: usize,
    },
    /// A policy has too many operators.
    #[error(
        "line {line}: the policy has more than {MAX_STEPS} operators and brackets; split it, or name many things at \
         once: [\"a\", \"b\"].contains(...)"
    )]
    TooComplex {
        /// Of the first that is too many.
        line: usize,
    },
    /// The text holds a character that hides what it says.
    #[error("line {line}: there is an invisible character that changes the direction of text; remove it")]
    Direction {
        /// Of the character.
        line: usize,
    },
    /// Cedar cannot read it.
    #[error("line {line}: {what}")]
    Syntax {
        /// Where.
        line: usize,
        /// In Cedar's words.
        what: String,
    },
    /// A policy has no usable name.
    #[error("line {line}: the policy needs a name of A-Z a-z 0-9 . - _, up to 64 long: @id(\"what-it-does\")")]
    Id {
        /// Of the policy.
        line: usize,
    },
    /// Two policies have the same name.
    #[error("line {line}: the @id \"{id}\" is already that of the policy in line {first}; names must be unique")]
    SameId {
        /// Of the second.
        line: usize,
        /// Of the first.
        first: usize,
        /// The name.
        id: String,
    },
    /// It reads, but does not fit the schema or can never apply.
    #[error("line {line}: policy \"{id}\": {what}")]
    Invalid {
        /// Where.
        line: usize,
        /// The policy.
        id: String,
        /// In Cedar's words.
        what: String,
    },
    /// The shipped Cedar schema is damaged.
    #[error("the shipped Cedar schema does not read, which is a defect of this build: {0}")]
    Schema(String),
}

/// What policies say to one question.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Decision {
    /// Whether it may be done.
    pub allowed: bool,
    /// The names of the policies that decided, sorted; none if no policy applied.
    pub policies: Vec<String>,
    /// Why, in a few words, for logs.
    pub reason: String,
}

/// A decision in words, for those who write policies.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Explanation {
    /// Whether it may be done.
    pub allowed: bool,
    /// The names of the policies that decided, sorted; none if no policy applied.
    pub policies: Vec<String>,
    /// The question, the answer, and what each policy says of itself (its `@why`).
    pub text: String,
    /// What people could add, so that it would be allowed.
    pub missing: Option<Missing>,
}

/// What a request that is denied would be allowed with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Missing {
    /// The second factor, if the one that is shown would not do.
    pub second_factor: Option<SecondFactor>,
    /// How many approvals in all; 0 if none more are needed.
    pub approvals: u8,
}

impl Missing {
    /// In words, of a request that has so many approvals.
    fn said(self, have: u8) -> String {
        let factor = self.second_factor.map(|factor| match factor {
            SecondFactor::Bound => "a second factor for this very request".to_owned(),
            _ => "a fresh second factor".to_owned(),
        });
        let more = self.approvals.saturating_sub(have);
        let approvals = (more > 0).then(|| format!("{more} more {}", if more == 1 { "approval" } else { "approvals" }));
        factor.into_iter().chain(approvals).collect::<Vec<_>>().join(" and ")
    }
}

/// A compiled set of policies.
#[derive(Debug)]
pub struct Policies {
    set: PolicySet,
    terms: Terms,
    authorizer: Authorizer,
    mentions: Vec<Mention>,
}

impl Policies {
    /// Compiles policies: each must read as Cedar, have a unique `@id`, and pass the strict validator without so much
    /// as a warning. What the validator warns of (a policy that can never apply, look-alike letters) is a mistake in
    /// a permit and a hole in a forbid.
    pub fn compile(source: &str) -> Result<Self, PolicyError> {
        let (pieces, rest) = source::split(source)?;
        let mut set = PolicySet::new();
        let mut known: BTreeMap<String, Piece<'_>> = BTreeMap::new();
        let mut mentions = Vec::new();
        for piece in pieces {
            let (id, policy) = one(&piece)?;
            let line = piece.first_line();
            let named = mentions::of(&policy, &id, line);
            let unsaid =
                || PolicyError::Syntax { line, what: "the policy has no form that can be read back".to_owned() };
            mentions.extend(named.ok_or_else(unsaid)?);
            if let Some(first) = known.insert(id.clone(), piece) {
                return Err(PolicyError::SameId { line, first: first.first_line(), id });
            }
            set.add(policy).map_err(|error| PolicyError::Syntax { line, what: error.to_string() })?;
        }
        nothing_more(&rest)?;
        let terms = Terms::new().map_err(PolicyError::Schema)?;
        validate(&set, &terms, &known)?;
        Ok(Self { set, terms, authorizer: Authorizer::new(), mentions })
    }

    /// What they name of the tenant's own schema, and which principals, in the order of their lines.
    pub fn mentions(&self) -> &[Mention] {
        &self.mentions
    }

    /// Decides. A forbid wins over every permit; without a permit it is denied; if any policy that applies cannot be
    /// evaluated, it is denied as well, since that one could have been the forbid.
    pub fn decide(&self, query: &Query<'_>) -> Decision {
        let Ok((request, entities)) = self.terms.request(query) else {
            return NotAQuestion::decision();
        };
        let officer = query.principal.role == Role::Officer;
        if query.action.is_never_done_alone() && (!officer || query.context.approvals == 0) {
            let reason = "only officers do it, with the approval of another one, whatever policy permits".to_owned();
            return Decision { allowed: false, policies: vec![], reason };
        }
        let response = self.authorizer.is_authorized(&request, &self.set, &entities);
        let sorted = |ids: &mut dyn Iterator<Item = &PolicyId>| {
            let mut ids: Vec<String> = ids.map(PolicyId::to_string).collect();
            ids.sort_unstable();
            ids
        };
        let failed = sorted(&mut response.diagnostics().errors().map(|error| match error {
            AuthorizationError::PolicyEvaluationError(error) => error.policy_id(),
        }));
        if !failed.is_empty() {
            let reason = format!("could not be evaluated: {}", failed.join(", "));
            return Decision { allowed: false, policies: failed, reason };
        }
        let policies = sorted(&mut response.diagnostics().reason());
        let allowed = response.decision() == CedarDecision::Allow;
        if allowed && query.action.is_read() && query.context.consent == Consent::Absent {
            let reason = "the purpose rests on the data subject's consent, whatever policy permits".to_owned();
            return Decision { allowed: false, policies: vec![], reason };
        }
        let reason = match (allowed, policies.is_empty()) {
            (true, _) => format!("permitted by {}", policies.join(", ")),
            (false, false) => format!("forbidden by {}", policies.join(", ")),
            (false, true) => "no policy permits it".to_owned(),
        };
        Decision { allowed, policies, reason }
    }

    /// How many approvals a request needs in all: the fewest with which it would be allowed. None if it is allowed as
    /// it is, or if no number of approvals would help. A forbid that does not look at approvals is never outvoted.
    pub fn approvals_needed(&self, query: &Query<'_>) -> Option<u8> {
        if !query.action.is_approvable() || self.decide(query).allowed {
            return None;
        }
        (query.context.approvals + 1..=MAX_APPROVALS).find(|approvals| {
            let context = query.context.approvals(*approvals);
            self.decide(&Query { context, ..*query }).allowed
        })
    }

    /// What people could add to a request that is denied, so that it would be allowed: the least second factor, and with
    /// it the fewest approvals. None if it is allowed as it is, or if neither would help.
    pub fn missing(&self, query: &Query<'_>) -> Option<Missing> {
        if self.decide(query).allowed {
            return None;
        }
        let shown = query.context.second_factor;
        let more = [SecondFactor::Fresh, SecondFactor::Bound].into_iter().filter(|factor| *factor != shown);
        std::iter::once(shown).chain(more).find_map(|factor| {
            let other = Query { context: query.context.second_factor(factor), ..*query };
            let approvals = match self.decide(&other).allowed {
                true => 0,
                false => self.approvals_needed(&other)?,
            };
            Some(Missing { second_factor: (factor != shown).then_some(factor), approvals })
        })
    }

    /// Decides and says why in words.
    pub fn explain(&self, query: &Query<'_>) -> Explanation {
        let Decision { allowed, policies, reason } = self.decide(query);
        let verdict = if allowed { "allowed" } else { "denied" };
        let mut text = format!("{query}: {verdict}, {reason}.");
        for id in &policies {
            if let Some(why) = self.set.annotation(&PolicyId::new(id), "why") {
                text.push_str(&format!("\n{id}: {why}"));
            }
        }
        let missing = if allowed { None } else { self.missing(query) };
        if let Some(missing) = missing {
            text.push_str(&format!("\nIt would be allowed with {}.", missing.said(query.context.approvals)));
        }
        Explanation { allowed, policies, text, missing }
    }
}

impl NotAQuestion {
    fn decision() -> Decision {
        let reason = "the action cannot be done to this, or its class is unknown".to_owned();
        Decision { allowed: false, policies: vec![], reason }
    }
}

/// Reads one policy and gives it its name.
fn one(piece: &Piece<'_>) -> Result<(String, Policy), PolicyError> {
    let policy = Policy::parse(None, piece.text).map_err(|errors| {
        let first = errors.iter().next().map(DetailedError::from).unwrap_or_default();
        PolicyError::Syntax { line: line_of(&first, piece), what: words(&first) }
    })?;
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    let id = policy
        .annotation("id")
        .filter(|id| !id.is_empty() && id.len() <= MAX_ID && id.bytes().all(allowed))
        .ok_or(PolicyError::Id { line: piece.first_line() })?
        .to_owned();
    let policy = policy.new_id(PolicyId::new(&id));
    Ok((id, policy))
}

/// After the last semicolon only comments may follow.
fn nothing_more(rest: &Piece<'_>) -> Result<(), PolicyError> {
    let unfinished = PolicyError::Syntax {
        line: rest.first_line(),
        what: "the policy is not finished; it must end with a semicolon".to_owned(),
    };
    match rest.text.parse::<PolicySet>() {
        Ok(set) if set.is_empty() => Ok(()),
        _ => Err(unfinished),
    }
}

fn validate(set: &PolicySet, terms: &Terms, known: &BTreeMap<String, Piece<'_>>) -> Result<(), PolicyError> {
    let result = Validator::new(terms.schema.clone()).validate(set, ValidationMode::Strict);
    let found = |id: &PolicyId, error: DetailedError| {
        let id = id.to_string();
        let line = known.get(&id).map_or(1, |piece| line_of(&error, piece));
        (line, id, words(&error))
    };
    let errors = result.validation_errors().map(|error| found(error.policy_id(), error.into()));
    let warnings = result.validation_warnings().map(|warning| found(warning.policy_id(), warning.into()));
    // The first in the text, so that the same text always gets the same answer. Warnings follow from errors.
    match errors.min().or_else(|| warnings.min()) {
        None => Ok(()),
        Some((line, id, what)) => Err(PolicyError::Invalid { line, id, what }),
    }
}

/// The line that an error is about; that of the policy if the error does not say.
fn line_of(error: &DetailedError, piece: &Piece<'_>) -> usize {
    error.source_locations.first().map_or(piece.first_line(), |label| piece.line_at(label.loc.start))
}

fn words(error: &DetailedError) -> String {
    let labels = error.source_locations.iter().find_map(|label| label.label.as_deref());
    let more = error.help.as_deref().or(labels).map(|help| format!(" ({help})")).unwrap_or_default();
    format!("{}{more}", error.message)
}

#[cfg(test)]
mod tests;
