//! What is frozen and who is suspended: a set of fields and a list of names, apart from policy.
//!
//! A freeze only takes away, and each scope is frozen and unfrozen by itself: a field that was frozen stays so when a
//! freeze of everything around it ends. So it can't be that ending one freeze ends another.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use serde::{Deserialize, Serialize};
use strongroom_ids::FieldNo;

use crate::action::Action;
use crate::principal::Role;
use crate::spiffe::check_segment;

/// The format of what is stored.
const FORMAT: u32 = 1;
/// Principals of a tenant that may be suspended at once.
const MOST_SUSPENDED: usize = 1_000;
/// Bytes of the reason of a suspension, at most.
const REASON_LIMIT: usize = 200;

/// By whom everything is frozen when an older copy of the data was put in place, and nobody can tell what was stopped since. No
/// principal is called so.
pub const RESTORE: &str = "restore";

/// What of a field is frozen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Touch {
    /// All that tells something of a value.
    Reads,
    /// All that stores, changes or deletes one.
    Writes,
}

impl Touch {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Reads, Self::Writes];

    /// What an action does to a field; `None` for what is done to no field.
    pub fn of(action: Action) -> Option<Self> {
        match action {
            Action::Detokenize | Action::Match | Action::Lookup | Action::ExportSubject => Some(Self::Reads),
            Action::Tokenize | Action::ImportToken | Action::Replace | Action::Delete => Some(Self::Writes),
            _ => None,
        }
    }

    /// The word of the ledger and of messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reads => "reads",
            Self::Writes => "writes",
        }
    }
}

/// Where something is frozen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scope {
    /// All that a tenant has; in the list of the vault itself, all that any tenant has.
    Everything,
    /// One field.
    Field(FieldNo),
}

/// Since when something holds, and by whom.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Since {
    /// In microseconds since 1970.
    pub time: u64,
    /// The principal, as the ledger names it.
    pub by: String,
}

/// How far one scope is frozen.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Frozen {
    /// Its reads.
    pub reads: Option<Since>,
    /// Its writes.
    pub writes: Option<Since>,
}

impl Frozen {
    /// Since when it is frozen for this, if it is.
    pub fn of(&self, touch: Touch) -> Option<&Since> {
        match touch {
            Touch::Reads => self.reads.as_ref(),
            Touch::Writes => self.writes.as_ref(),
        }
    }

    /// Whether it is not frozen at all.
    pub fn is_empty(&self) -> bool {
        self.reads.is_none() && self.writes.is_none()
    }

    /// Whether a restore has frozen it for this.
    pub fn is_by_restore(&self, touch: Touch) -> bool {
        self.of(touch).is_some_and(|since| since.by == RESTORE)
    }

    fn slot(&mut self, touch: Touch) -> &mut Option<Since> {
        match touch {
            Touch::Reads => &mut self.reads,
            Touch::Writes => &mut self.writes,
        }
    }
}

/// A principal that is suspended.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Suspension {
    /// Since when, and by whom.
    pub since: Since,
    /// Why.
    pub reason: String,
}

/// Why a suspension is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SuspendError {
    /// No certificate could carry the name.
    #[error(
        "a principal is named by its role and its name under it: app/loan-core; the roles are app, rotator, auditor, \
         privacy, officer, operator"
    )]
    Name,
    /// The reason is missing, too long, or can't be shown.
    #[error("a reason is given, in 1 to {REASON_LIMIT} bytes of printable text on one line")]
    Reason,
    /// There are as many as there may be.
    #[error(
        "{MOST_SUSPENDED} principals are suspended, as many as may be: end suspensions that are not needed any more, \
         or freeze the tenant"
    )]
    Full,
}

/// What a tenant has frozen, and whom it has suspended.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Freezes {
    /// All that it has.
    pub everything: Frozen,
    /// Fields by their permanent numbers; none of them is empty.
    pub fields: BTreeMap<FieldNo, Frozen>,
    /// Suspended principals by role and name.
    pub suspended: BTreeMap<String, Suspension>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    format: u32,
    everything: Frozen,
    fields: Vec<StoredField>,
    suspended: Vec<StoredSuspension>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredField {
    number: u32,
    frozen: Frozen,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredSuspension {
    principal: String,
    why: Suspension,
}

/// Why stored freezes are none.
#[derive(Debug, thiserror::Error)]
pub enum FreezesError {
    /// It is no JSON of the known form.
    #[error("the stored freezes do not read as JSON of the known form: {0}")]
    Form(#[from] serde_json::Error),
    /// It says what this version would not have written.
    #[error("the stored freezes are not right: {0}")]
    Wrong(&'static str),
}

impl Freezes {
    /// Whether nothing is frozen and nobody suspended.
    pub fn is_empty(&self) -> bool {
        self.everything.is_empty() && self.fields.is_empty() && self.suspended.is_empty()
    }

    /// Freezes a scope. What was frozen before stays frozen since then. Returns whether anything changed.
    pub fn freeze(&mut self, scope: Scope, touches: &[Touch], since: &Since) -> bool {
        let frozen = match scope {
            _ if touches.is_empty() => return false,
            Scope::Everything => &mut self.everything,
            Scope::Field(field) => self.fields.entry(field).or_default(),
        };
        let mut changed = false;
        for touch in touches {
            let slot = frozen.slot(*touch);
            if slot.is_none() {
                *slot = Some(since.clone());
                changed = true;
            }
        }
        changed
    }

    /// Freezes everything in the name of a restore, at this time, in microseconds since 1970. Whoever had frozen it before can't
    /// end that alone any more.
    pub fn freeze_after_restore(&mut self, time: u64) {
        let since = || Some(Since { time, by: RESTORE.to_owned() });
        self.everything = Frozen { reads: since(), writes: since() };
    }

    /// Ends the freeze of a scope, and of no other. Returns whether anything changed.
    pub fn unfreeze(&mut self, scope: Scope, touches: &[Touch]) -> bool {
        let take = |frozen: &mut Frozen| {
            let taken = touches.iter().filter(|touch| frozen.slot(**touch).take().is_some());
            taken.count() > 0
        };
        match scope {
            Scope::Everything => take(&mut self.everything),
            Scope::Field(field) => {
                let Entry::Occupied(mut entry) = self.fields.entry(field) else { return false };
                let changed = take(entry.get_mut());
                if entry.get().is_empty() {
                    entry.remove();
                }
                changed
            }
        }
    }

    /// Whether a field is frozen for this, by itself or with everything.
    pub fn is_frozen(&self, field: FieldNo, touch: Touch) -> bool {
        let of = |frozen: &Frozen| frozen.of(touch).is_some();
        of(&self.everything) || self.fields.get(&field).is_some_and(of)
    }

    /// Suspends a principal. One that is suspended stays so since then, for the reason that was given then. Returns
    /// whether anything changed.
    pub fn suspend(&mut self, principal: &str, reason: &str, since: Since) -> Result<bool, SuspendError> {
        parse_principal(principal).ok_or(SuspendError::Name)?;
        if !is_reason(reason) {
            return Err(SuspendError::Reason);
        }
        if self.suspended.contains_key(principal) {
            return Ok(false);
        }
        if self.suspended.len() >= MOST_SUSPENDED {
            return Err(SuspendError::Full);
        }
        self.suspended.insert(principal.to_owned(), Suspension { since, reason: reason.to_owned() });
        Ok(true)
    }

    /// Ends a suspension. Returns whether anything changed.
    pub fn unsuspend(&mut self, principal: &str) -> bool {
        self.suspended.remove(principal).is_some()
    }

    /// Whether a principal, named by role and name, is suspended.
    pub fn is_suspended(&self, principal: &str) -> bool {
        !self.suspended.is_empty() && self.suspended.contains_key(principal)
    }

    /// As the vault keeps it: JSON with a fixed order.
    pub fn to_stored(&self) -> Result<String, FreezesError> {
        let fields = self.fields.iter();
        let suspended = self.suspended.iter();
        let stored = Stored {
            format: FORMAT,
            everything: self.everything.clone(),
            fields: fields.map(|(number, frozen)| StoredField { number: number.0, frozen: frozen.clone() }).collect(),
            suspended: suspended
                .map(|(principal, why)| StoredSuspension { principal: principal.clone(), why: why.clone() })
                .collect(),
        };
        Ok(serde_json::to_string(&stored)?)
    }

    /// Reads what [`Freezes::to_stored`] wrote.
    pub fn from_stored(text: &str) -> Result<Self, FreezesError> {
        let stored: Stored = serde_json::from_str(text)?;
        if stored.format != FORMAT {
            return Err(FreezesError::Wrong("they are of another format than this version knows"));
        }
        let mut freezes = Self { everything: stored.everything, ..Self::default() };
        for StoredField { number, frozen } in stored.fields {
            if frozen.is_empty() || freezes.fields.insert(FieldNo(number), frozen).is_some() {
                return Err(FreezesError::Wrong("a field is listed twice, or is not frozen"));
            }
        }
        for StoredSuspension { principal, why } in stored.suspended {
            if parse_principal(&principal).is_none() || !is_reason(&why.reason) {
                return Err(FreezesError::Wrong("a suspension names nobody, or gives no reason"));
            }
            if freezes.suspended.insert(principal, why).is_some() {
                return Err(FreezesError::Wrong("a principal is suspended twice"));
            }
        }
        match freezes.suspended.len() > MOST_SUSPENDED {
            true => Err(FreezesError::Wrong("more principals are suspended than may be")),
            false => Ok(freezes),
        }
    }
}

/// The role and the name under it, if a certificate can carry them.
pub fn parse_principal(principal: &str) -> Option<(Role, &str)> {
    let (role, name) = principal.split_once('/')?;
    check_segment(name).ok()?;
    Some((role.parse().ok()?, name))
}

/// Whether a text can be shown on one line and is not empty.
fn is_reason(reason: &str) -> bool {
    // Marks that turn the direction of writing would let a reason pass for something else.
    let turns =
        |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}');
    let shows = |c: char| !c.is_control() && !turns(c);
    !reason.trim().is_empty() && reason.len() <= REASON_LIMIT && reason.chars().all(shows)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn since(time: u64) -> Since {
        Since { time, by: "officer/alice".to_owned() }
    }

    fn scopes() -> impl Strategy<Value = Scope> {
        prop_oneof![Just(Scope::Everything), (1..5_u32).prop_map(|number| Scope::Field(FieldNo(number)))]
    }

    fn touches() -> impl Strategy<Value = Vec<Touch>> {
        prop_oneof![Just(vec![Touch::Reads]), Just(vec![Touch::Writes]), Just(Touch::ALL.to_vec())]
    }

    fn freezes() -> impl Strategy<Value = Freezes> {
        let changes = proptest::collection::vec((scopes(), touches(), any::<u64>()), 0..6);
        let suspended = proptest::collection::btree_map("app/[a-z]{1,5}", "[a-z ]{0,9}[a-z]", 0..4);
        (changes, suspended).prop_map(|(changes, suspended)| {
            let mut freezes = Freezes::default();
            for (scope, touches, time) in changes {
                freezes.freeze(scope, &touches, &since(time));
            }
            for (principal, reason) in suspended {
                freezes.suspend(&principal, &reason, since(1)).unwrap();
            }
            freezes
        })
    }

    fn all_frozen(freezes: &Freezes) -> Vec<(u32, &'static str)> {
        let fields = 0..6_u32;
        fields
            .flat_map(|number| Touch::ALL.map(|touch| (number, touch)))
            .filter(|(number, touch)| freezes.is_frozen(FieldNo(*number), *touch))
            .map(|(number, touch)| (number, touch.as_str()))
            .collect()
    }

    proptest! {
        #[test]
        fn what_is_frozen_and_unfrozen_is_as_before(before in freezes(), scope in scopes(), touches in touches()) {
            let mut blank = before.clone();
            blank.unfreeze(scope, &touches);
            let mut after = blank.clone();
            prop_assert!(after.freeze(scope, &touches, &since(7)));
            prop_assert!(after.unfreeze(scope, &touches));
            prop_assert!(!after.unfreeze(scope, &touches));
            prop_assert_eq!(after, blank);
        }

        #[test]
        fn a_freeze_only_takes_away_and_twice_is_once(before in freezes(), scope in scopes(), touches in touches()) {
            let mut after = before.clone();
            after.freeze(scope, &touches, &since(7));
            let frozen = all_frozen(&after);
            prop_assert!(all_frozen(&before).iter().all(|one| frozen.contains(one)));
            let mut twice = after.clone();
            prop_assert!(!twice.freeze(scope, &touches, &since(9)));
            prop_assert_eq!(twice, after);
        }

        #[test]
        fn a_wider_freeze_includes_the_narrower(before in freezes(), number in 1..5_u32, touches in touches()) {
            let (mut narrow, mut wide, mut widest) = (before.clone(), before.clone(), before);
            narrow.freeze(Scope::Field(FieldNo(number)), &touches, &since(7));
            wide.freeze(Scope::Everything, &touches, &since(7));
            widest.freeze(Scope::Everything, &Touch::ALL, &since(7));
            let (narrow, wide, widest) = (all_frozen(&narrow), all_frozen(&wide), all_frozen(&widest));
            prop_assert!(narrow.iter().all(|one| wide.contains(one)));
            prop_assert!(wide.iter().all(|one| widest.contains(one)));
        }

        #[test]
        fn what_a_restore_freezes_stays_its_own_and_leaves_the_rest(before in freezes(), touches in touches()) {
            let mut after = before.clone();
            after.freeze_after_restore(9);
            after.freeze(Scope::Everything, &touches, &since(10));
            prop_assert!(Touch::ALL.iter().all(|touch| after.everything.is_by_restore(*touch)));
            prop_assert!(parse_principal(RESTORE).is_none());
            prop_assert_eq!((after.fields, after.suspended), (before.fields, before.suspended));
        }

        #[test]
        fn the_end_of_one_freeze_ends_no_other(before in freezes(), touches in touches()) {
            let mut after = before.clone();
            after.freeze(Scope::Everything, &touches, &since(7));
            after.unfreeze(Scope::Everything, &Touch::ALL);
            prop_assert_eq!(after.fields, before.fields);
            prop_assert_eq!(after.suspended, before.suspended);
        }

        #[test]
        fn stored_freezes_read_back(freezes in freezes()) {
            let stored = freezes.to_stored().unwrap();
            prop_assert_eq!(Freezes::from_stored(&stored).unwrap(), freezes);
        }

        #[test]
        fn any_text_is_read_or_refused(text in "\\PC*") {
            let _ = Freezes::from_stored(&text);
        }
    }

    #[test]
    fn every_action_on_a_field_reads_or_writes_it() {
        for action in Action::ALL {
            // An export is asked of policy as a whole, and reads fields.
            let touches = action.is_on_field() || *action == Action::ExportSubject;
            assert_eq!(Touch::of(*action).is_some(), touches, "{action}");
        }
    }

    #[test]
    fn who_is_suspended_is_so_by_its_whole_name() {
        let mut freezes = Freezes::default();
        assert_eq!(freezes.suspend("app/loan", "a key leaked", since(1)), Ok(true));
        assert_eq!(freezes.suspend("app/loan", "again", since(2)), Ok(false));
        assert_eq!(freezes.suspended["app/loan"].since.time, 1);
        assert!(freezes.is_suspended("app/loan"));
        for other in ["app/loan-core", "auditor/loan", "loan", "app/"] {
            assert!(!freezes.is_suspended(other), "{other}");
        }
        assert!(freezes.unsuspend("app/loan") && !freezes.unsuspend("app/loan"));
        assert!(freezes.is_empty());
    }

    #[test]
    fn names_and_reasons_that_can_not_be_are_refused() {
        let mut freezes = Freezes::default();
        for name in ["", "app", "app/", "/x", "root/x", "App/x", "app/a/b", "app/a b", "app/.."] {
            assert_eq!(freezes.suspend(name, "why", since(1)), Err(SuspendError::Name), "{name}");
        }
        let long = "x".repeat(REASON_LIMIT + 1);
        for reason in ["", "  ", "a\nb", "a\u{202e}b", "\u{7}", &long] {
            assert_eq!(freezes.suspend("app/x", reason, since(1)), Err(SuspendError::Reason), "{reason:?}");
        }
        assert_eq!(freezes.suspend("app/x", "密钥泄露", since(1)), Ok(true));
        for number in 1..MOST_SUSPENDED {
            assert_eq!(freezes.suspend(&format!("app/{number}"), "why", since(1)), Ok(true));
        }
        assert_eq!(freezes.suspend("app/one-more", "why", since(1)), Err(SuspendError::Full));
    }

    #[test]
    fn the_stored_form_is_as_specified() {
        let page = include_str!("../storage/FORMAT.md");
        let (_, rest) = page.split_once("The document of the freezes is JSON").unwrap();
        let sample = rest.split("```json").nth(1).unwrap().split("```").next().unwrap();
        let at = |time| Since { time, by: "officer/alice".to_owned() };
        let (time, mut freezes) = (1_795_000_000_000_000, Freezes::default());
        freezes.freeze(Scope::Everything, &[Touch::Writes], &at(time));
        freezes.freeze(Scope::Field(FieldNo(3)), &[Touch::Reads], &at(time));
        freezes.suspend("app/loan-core", "its key leaked", at(time)).unwrap();
        assert_eq!(Freezes::from_stored(sample).unwrap(), freezes);
        let lines: String = sample.trim().lines().map(str::trim).collect();
        assert_eq!(freezes.to_stored().unwrap(), lines);
    }

    #[test]
    fn stored_freezes_that_this_version_would_not_write_are_refused() {
        let mut freezes = Freezes::default();
        freezes.freeze(Scope::Field(FieldNo(3)), &[Touch::Reads], &since(5));
        freezes.suspend("app/x", "why", since(6)).unwrap();
        let good = freezes.to_stored().unwrap();
        for (from, to) in [
            ("\"format\":1", "\"format\":2"),
            ("\"number\":3", "\"number\":-3"),
            ("\"reads\":{\"time\":5,\"by\":\"officer/alice\"},\"writes\":null}}", "\"reads\":null,\"writes\":null}}"),
            ("app/x", "x"),
            ("\"why\"}", "\"\"}"),
            ("\"fields\"", "\"field\""),
            ("]}", "]"),
        ] {
            assert!(good.contains(from), "{from} in {good}");
            assert!(Freezes::from_stored(&good.replacen(from, to, 1)).is_err(), "{from} -> {to}");
        }
    }
}
