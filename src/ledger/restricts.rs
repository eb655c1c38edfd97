//! Which leaves restrict: what they say must hold for an older copy of the data as well, so they are journalled.
//!
//! One table for who writes a leaf and for who reads one. An end of something that restricts is in it, too: replayed in
//! their order, the two leave what was in force.

use strongroom_ids::TenantNo;

use crate::leaf::{LeafHeader, ParsedLeaf};
use crate::rules::NewRule;

/// The vault's own log: who is an officer, and which tenants there are, is for it alone to say.
const SYSTEM: TenantNo = TenantNo(0);

/// What a leaf of an erasure calls its `stage` that says of a page of a subject's values that they are gone, and of nothing else.
pub const CLEARING: &str = "clearing";

/// In which logs a leaf restricts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Restricts {
    Nowhere,
    InEach,
    InSystem,
}

impl Restricts {
    pub fn within(self, log: TenantNo) -> bool {
        self == Self::InEach || (self == Self::InSystem && log == SYSTEM)
    }
}

/// Whether a leaf that is read restricts, as one of this log.
pub fn restricts(leaf: &ParsedLeaf, log: TenantNo) -> bool {
    says(&leaf.action, &leaf.decision, NewRule::of(leaf), |name| leaf.says(name)).within(log)
}

/// The same of a leaf that is written.
pub(crate) fn header_restricts(header: &LeafHeader<'_>) -> Restricts {
    let detail = |name: &str| header.detail.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
    says(header.action, header.decision, NewRule::of_header(header), detail)
}

/// Whether a line may be a leaf that restricts: by its action alone, so that of a long log few lines are read as a whole.
pub fn may_restrict(line: &[u8]) -> bool {
    const NAME: &[u8] = br#","action":""#;
    // A quote within a string is escaped, so this is the member itself.
    let Some(at) = line.windows(NAME.len()).position(|window| window == NAME) else { return true };
    let rest = &line[at + NAME.len()..];
    let action = rest.split(|byte| *byte == b'"').next().unwrap_or_default();
    ACTIONS.iter().any(|known| known.as_bytes() == action)
}

/// All actions whose leaves may restrict.
pub const ACTIONS: [&str; 17] = [
    "freeze",
    "unfreeze",
    "freeze_all",
    "unfreeze_all",
    "suspend",
    "unsuspend",
    "set_key_state",
    "destroy_key_version",
    "destroy_tenant",
    "enrol_officer",
    "remove_officer",
    "break_glass",
    "erase_subject",
    "undo_erasure",
    "withdraw_consent",
    "set_hold",
    "lift_hold",
];

/// What puts a rule in force restricts by just what makes it one (`rules.rs`): so a row that nobody without keys can write
/// answers for it.
fn says<'l>(
    action: &str,
    decision: &str,
    rule: Option<NewRule>,
    detail: impl Fn(&str) -> Option<&'l str>,
) -> Restricts {
    if decision != "allow" {
        return Restricts::Nowhere;
    }
    let of_principals = matches!(rule, Some(NewRule::Principals(_)));
    match action {
        // What changed nothing is no rule, nor is what another log has in force.
        "freeze" | "unfreeze" | "freeze_all" | "unfreeze_all" | "suspend" | "unsuspend" if rule.is_some() => {
            Restricts::InEach
        }
        "set_key_state" | "destroy_key_version" if detail("stage") == Some("done") => Restricts::InEach,
        // Gone with its decision; the log `system` says so.
        "destroy_tenant" if detail("stage") == Some("intent") && of_principals => Restricts::InSystem,
        // Who is one by another key, or no more; and who came, for without them those that are left might be too few.
        "enrol_officer" | "remove_officer" | "break_glass" if of_principals => Restricts::InSystem,
        // Of what goes once its subject is closed: a later page says that as well.
        "erase_subject" if detail("stage") == Some(CLEARING) => Restricts::Nowhere,
        // Their items say of whom.
        "erase_subject" | "undo_erasure" | "withdraw_consent" | "set_hold" | "lift_hold" => Restricts::InEach,
        _ => Restricts::Nowhere,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Timestamp;
    use crate::leaf::{self, sample::header};

    /// What is said of a leaf when it is written, when it is read, and by its action.
    fn all(action: &str, decision: &str, detail: &[(&str, &str)]) -> [bool; 3] {
        let header = LeafHeader { action, decision, detail, ..header() };
        let prepared = leaf::prepare(&header, std::iter::empty()).remove(0);
        let line = prepared.finish(7, Timestamp(1));
        [prepared.restricts(SYSTEM), restricts(&leaf::parse(&line).unwrap(), SYSTEM), may_restrict(&line)]
    }

    const HASH: &str = "0707070707070707070707070707070707070707070707070707070707070707";
    const RULE: [(&str, &str); 2] = [("version", "7"), ("sha256", HASH)];

    #[test]
    fn what_stops_something_and_what_ends_that_restricts() {
        for action in ["freeze", "unfreeze", "freeze_all", "unfreeze_all", "suspend", "unsuspend"] {
            assert_eq!(all(action, "allow", &RULE), [true; 3], "{action}");
            assert_eq!(all(action, "allow", &[("changed", "false")])[..2], [false; 2], "{action}");
            assert_eq!(all(action, "deny", &RULE)[..2], [false; 2], "{action}");
            for no_rule in [[RULE[0], ("sha256", "07")], [("version", "x"), RULE[1]], [RULE[0], ("changed", "true")]] {
                assert_eq!(all(action, "allow", &no_rule)[..2], [false; 2], "{action}");
            }
        }
        for action in ["erase_subject", "undo_erasure", "withdraw_consent", "set_hold", "lift_hold"] {
            assert_eq!(all(action, "allow", &[]), [true; 3], "{action}");
            assert_eq!(all(action, "deny", &[])[..2], [false; 2], "{action}");
        }
        assert_eq!(all("erase_subject", "allow", &[("stage", CLEARING)])[..2], [false; 2]);
    }

    #[test]
    fn a_key_a_tenant_or_an_officer_that_goes_restricts() {
        for action in ["set_key_state", "destroy_key_version"] {
            assert_eq!(all(action, "allow", &[("stage", "done")]), [true; 3]);
            assert_eq!(all(action, "allow", &[("stage", "intent")])[..2], [false; 2]);
        }
        let [version, hash] = [("principals_version", "7"), ("principals_sha256", HASH)];
        assert_eq!(all("destroy_tenant", "allow", &[("stage", "intent"), version, hash]), [true; 3]);
        assert_eq!(all("destroy_tenant", "allow", &[("stage", "intent"), version])[..2], [false; 2]);
        assert_eq!(all("destroy_tenant", "allow", &[("stage", "intent")])[..2], [false; 2]);
        assert_eq!(all("destroy_tenant", "allow", &[("stage", "dry_run")])[..2], [false; 2]);
        for action in ["enrol_officer", "remove_officer", "break_glass"] {
            assert_eq!(all(action, "allow", &[version, hash]), [true; 3], "{action}");
            assert_eq!(all(action, "allow", &[version])[..2], [false; 2], "{action}");
            // In the log of a tenant nobody could say so.
            let detail = [version, hash];
            let header = LeafHeader { action, detail: &detail, ..header() };
            let prepared = leaf::prepare(&header, std::iter::empty()).remove(0);
            let read = leaf::parse(&prepared.finish(7, Timestamp(1))).unwrap();
            assert!(!prepared.restricts(TenantNo(1)) && !restricts(&read, TenantNo(1)), "{action}");
            // The tenant's own log says it as well: once is enough.
            assert_eq!(all(action, "allow", &[("officer", "bob")])[..2], [false; 2], "{action}");
        }
        assert_eq!(
            all("break_glass", "allow", &[("change", "apply_policy"), ("policy_version", "2")])[..2],
            [false; 2]
        );
    }

    #[test]
    fn other_actions_do_not() {
        for action in ["tokenize", "detokenize", "rotate_key", "approve", "apply_policy", "restored"] {
            assert_eq!(all(action, "allow", &RULE), [false; 3], "{action}");
        }
    }

    proptest! {
        #[test]
        fn who_writes_and_who_reads_say_the_same(
            action in prop_oneof![prop::sample::select(&ACTIONS[..]).prop_map(str::to_owned), "[a-z_]{1,12}"],
            decision in prop_oneof![Just("allow"), Just("deny"), Just("fail")],
            principal in "\\PC{0,40}",
            names in prop::sample::subsequence(
                vec!["version", "sha256", "stage", "principals_version", "principals_sha256"], 0..=5),
            value in prop_oneof![Just("done"), Just("intent"), Just("clearing"), Just("7")],
            log in 0..2_u32,
        ) {
            let value_of = |name: &str| if name.ends_with("sha256") { HASH } else { value };
            let detail: Vec<(&str, &str)> = names.iter().map(|name| (*name, value_of(name))).collect();
            let header = LeafHeader { principal: &principal, action: &action, decision, detail: &detail, ..header() };
            let prepared = leaf::prepare(&header, std::iter::empty()).remove(0);
            let line = prepared.finish(7, Timestamp(1));
            let log = TenantNo(log);
            let read = restricts(&leaf::parse(&line).unwrap(), log);
            prop_assert_eq!(prepared.restricts(log), read);
            prop_assert!(!read || may_restrict(&line));
            prop_assert_eq!(may_restrict(&line), ACTIONS.contains(&action.as_str()));
        }
    }
}
