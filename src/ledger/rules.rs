//! The rules in force, as a log records them: which policy, schema, freezes and tiers and, in the log `system`, which
//! principals its leaves say hold.
//!
//! Like a tree's frontier they are the sum of all leaves so far, and are carried along with it: so a store whose
//! rules were put back to older ones is found out without reading the log again.

use data_encoding::HEXLOWER;

use crate::error::LedgerError;
use crate::leaf::{LeafHeader, ParsedLeaf};

const FORMAT: u8 = 1;
/// Format, and a version and a hash for each of five.
const LENGTH: usize = 1 + 5 * (4 + 32);

/// A policy, a schema, what is frozen, who the principals are, or who is in which tier.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Rule {
    /// Its version; zero for none.
    pub version: u32,
    /// SHA-256 of its row; zeros for none.
    pub hash: [u8; 32],
}

/// What is in force.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Rules {
    /// The policy.
    pub policy: Rule,
    /// The schema.
    pub schema: Rule,
    /// What is frozen and who is suspended.
    pub freezes: Rule,
    /// Tenants, officers and trust anchors: in the log `system` only.
    pub principals: Rule,
    /// The tiers of principals and their limits.
    pub tiers: Rule,
}

/// What a leaf puts in force.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NewRule {
    /// A policy.
    Policy(Rule),
    /// A schema.
    Schema(Rule),
    /// Other freezes or suspensions.
    Freezes(Rule),
    /// Other tenants, officers or trust anchors.
    Principals(Rule),
    /// What a vault begins with, in the log `system`.
    First {
        /// The vault's own policy.
        policy: Rule,
        /// The first principals.
        principals: Rule,
    },
    /// Other tiers or limits.
    Tiers(Rule),
}

impl NewRule {
    /// What a leaf that is read puts in force, if it does.
    pub fn of(leaf: &ParsedLeaf) -> Option<Self> {
        // Once a request: its first part says it.
        if leaf.part.is_some_and(|part| part.which > 1) {
            return None;
        }
        Self::recorded(&leaf.action, &leaf.decision, leaf.policy, |name| leaf.says(name))
    }

    /// What a leaf that is written puts in force, if it does.
    pub(crate) fn of_header(header: &LeafHeader<'_>) -> Option<Self> {
        let detail = |name: &str| header.detail.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
        Self::recorded(header.action, header.decision, header.policy, detail)
    }

    fn recorded<'l>(
        action: &str,
        decision: &str,
        policy: u32,
        detail: impl Fn(&str) -> Option<&'l str>,
    ) -> Option<Self> {
        if decision != "allow" {
            return None;
        }
        let hash = |name| HEXLOWER.decode(detail(name)?.as_bytes()).ok()?.try_into().ok();
        // One that was only checked has neither.
        let rule = || Some(Rule { version: detail("version")?.parse().ok()?, hash: hash("sha256")? });
        let principals = || {
            let version = detail("principals_version")?.parse().ok()?;
            Some(Self::Principals(Rule { version, hash: hash("principals_sha256")? }))
        };
        match action {
            // The first leaf of a log.
            "create_vault" | "create_tenant" if detail("policy_sha256").is_some() => {
                let policy = Rule { version: policy, hash: hash("policy_sha256")? };
                Some(match hash("principals_sha256") {
                    Some(hash) => Self::First { policy, principals: Rule { version: 1, hash } },
                    None => Self::Policy(policy),
                })
            }
            "create_tenant" | "destroy_tenant" | "enrol_officer" | "remove_officer" => principals(),
            "break_glass" => match detail("policy_version") {
                None => principals(),
                Some(version) => {
                    Some(Self::Policy(Rule { version: version.parse().ok()?, hash: hash("policy_sha256")? }))
                }
            },
            "apply_policy" => rule().map(Self::Policy),
            "apply_schema" => rule().map(Self::Schema),
            // What concerns all tenants is the vault's own rule: only the log `system` has its version and hash.
            "freeze" | "unfreeze" | "freeze_all" | "unfreeze_all" | "suspend" | "unsuspend" => {
                rule().map(Self::Freezes)
            }
            "set_tier" | "set_tier_limits" => rule().map(Self::Tiers),
            _ => None,
        }
    }
}

impl Rules {
    /// Takes what the next leaf of the log puts in force. `false`: its version is not above the one in force, and
    /// nothing changes. Versions only grow, so a leaf that somebody made can't bring an older rule back.
    pub fn put(&mut self, new: NewRule) -> bool {
        let (old, new) = match new {
            NewRule::Policy(new) => (&mut self.policy, new),
            NewRule::Schema(new) => (&mut self.schema, new),
            NewRule::Freezes(new) => (&mut self.freezes, new),
            NewRule::Principals(new) => (&mut self.principals, new),
            NewRule::First { policy, principals } => {
                return self.put(NewRule::Policy(policy)) & self.put(NewRule::Principals(principals));
            }
            NewRule::Tiers(new) => (&mut self.tiers, new),
        };
        let newer = new.version > old.version;
        if newer {
            *old = new;
        }
        newer
    }

    /// The stored form: format, then version (4 bytes, big-endian) and hash of the policy, of the schema, of the
    /// freezes, of the principals, and of the tiers.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(LENGTH);
        bytes.push(FORMAT);
        for rule in [&self.policy, &self.schema, &self.freezes, &self.principals, &self.tiers] {
            bytes.extend_from_slice(&rule.version.to_be_bytes());
            bytes.extend_from_slice(&rule.hash);
        }
        bytes
    }

    /// Reads the stored form.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, LedgerError> {
        let bytes: &[u8; LENGTH] = bytes.try_into().map_err(|_| LedgerError::Rules("of another length"))?;
        if bytes[0] != FORMAT {
            return Err(LedgerError::Rules("of another format"));
        }
        let rule = |at: usize| {
            let mut rule = Rule::default();
            let mut version = [0; 4];
            version.copy_from_slice(&bytes[at..at + 4]);
            rule.version = u32::from_be_bytes(version);
            rule.hash.copy_from_slice(&bytes[at + 4..at + 36]);
            match rule.version == 0 && rule != Rule::default() {
                true => Err(LedgerError::Rules("no rule has a hash")),
                false => Ok(rule),
            }
        };
        Ok(Self { policy: rule(1)?, schema: rule(37)?, freezes: rule(73)?, principals: rule(109)?, tiers: rule(145)? })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Timestamp;
    use crate::leaf::{self, sample::header};

    fn rule(version: u32) -> Rule {
        Rule { version, hash: [version as u8; 32] }
    }

    /// A leaf as it is written and as it is read.
    fn both(action: &str, decision: &str, detail: &[(&str, &str)]) -> [Option<NewRule>; 2] {
        let header =
            LeafHeader { principal: "officer/one", action, decision, policy: 1, schema: 0, detail, ..header() };
        let prepared = leaf::prepare(&header, std::iter::empty());
        let read = leaf::parse(&prepared[0].finish(0, Timestamp(1))).unwrap();
        [prepared[0].new_rule(), NewRule::of(&read)]
    }

    #[test]
    fn a_leaf_says_the_same_when_it_is_written_and_when_it_is_read() {
        let hash = "07".repeat(32);
        let applied = [("version", "7"), ("sha256", hash.as_str())];
        assert_eq!(both("apply_policy", "allow", &applied), [Some(NewRule::Policy(rule(7))); 2]);
        assert_eq!(both("apply_schema", "allow", &applied), [Some(NewRule::Schema(rule(7))); 2]);
        let first = Rule { version: 1, hash: [7; 32] };
        assert_eq!(both("create_vault", "allow", &[("policy_sha256", &hash)]), [Some(NewRule::Policy(first)); 2]);
        assert_eq!(both("create_tenant", "allow", &[("policy_sha256", &hash)]), [Some(NewRule::Policy(first)); 2]);
        assert_eq!(both("create_tenant", "allow", &[("tenant", "new")]), [None; 2]);
        assert_eq!(both("apply_policy", "deny", &applied), [None; 2]);
        assert_eq!(both("apply_policy", "allow", &[("dry_run", "true")]), [None; 2]);
        assert_eq!(both("apply_policy", "allow", &[("version", "7"), ("sha256", "07")]), [None; 2]);
        assert_eq!(both("tokenize", "allow", &applied), [None; 2]);
        for action in ["freeze", "unfreeze", "freeze_all", "unfreeze_all", "suspend", "unsuspend"] {
            assert_eq!(both(action, "allow", &applied), [Some(NewRule::Freezes(rule(7))); 2], "{action}");
            assert_eq!(both(action, "fail", &applied), [None; 2], "{action}");
            // What changed nothing, and what another log has in force.
            assert_eq!(both(action, "allow", &[("what", "reads")]), [None; 2], "{action}");
        }
        for action in ["set_tier", "set_tier_limits"] {
            assert_eq!(both(action, "allow", &applied), [Some(NewRule::Tiers(rule(7))); 2], "{action}");
            assert_eq!(both(action, "deny", &applied), [None; 2], "{action}");
        }
    }

    #[test]
    fn the_log_system_says_who_the_principals_are() {
        let hash = "07".repeat(32);
        let principals = [("tenant", "acme"), ("principals_version", "7"), ("principals_sha256", hash.as_str())];
        for action in ["create_tenant", "destroy_tenant", "enrol_officer", "remove_officer", "break_glass"] {
            assert_eq!(both(action, "allow", &principals), [Some(NewRule::Principals(rule(7))); 2], "{action}");
            assert_eq!(both(action, "deny", &principals), [None; 2], "{action}");
            // What changed nothing, and what the tenant's own log says of it.
            assert_eq!(both(action, "allow", &principals[..1]), [None; 2], "{action}");
            assert_eq!(both(action, "allow", &principals[..2]), [None; 2], "{action}");
        }
        assert_eq!(both("apply_schema", "allow", &principals), [None; 2]);
        let forced = [("policy_version", "7"), ("policy_sha256", hash.as_str())];
        assert_eq!(both("break_glass", "allow", &forced), [Some(NewRule::Policy(rule(7))); 2]);
        let first = [("policy_sha256", hash.as_str()), ("principals_sha256", hash.as_str())];
        let one = Rule { version: 1, hash: [7; 32] };
        let first = both("create_vault", "allow", &first);
        assert_eq!(first, [Some(NewRule::First { policy: one, principals: one }); 2]);
        let mut rules = Rules::default();
        assert!(rules.put(first[0].unwrap()) && !rules.put(first[0].unwrap()));
        assert_eq!(rules, Rules { policy: one, principals: one, ..Rules::default() });
        assert!(rules.put(NewRule::Principals(rule(2))) && !rules.put(NewRule::Principals(rule(1))));
    }

    #[test]
    fn rules_only_grow() {
        let mut rules = Rules::default();
        assert!(rules.put(NewRule::Policy(rule(1))));
        assert!(rules.put(NewRule::Schema(rule(3))));
        assert!(!rules.put(NewRule::Schema(rule(2))));
        assert!(!rules.put(NewRule::Policy(Rule { version: 1, hash: [9; 32] })));
        assert_eq!(rules, Rules { policy: rule(1), schema: rule(3), ..Rules::default() });
        assert!(rules.put(NewRule::Freezes(rule(2))));
        assert!(!rules.put(NewRule::Freezes(rule(1))));
        assert!(rules.put(NewRule::Tiers(rule(4))));
        assert!(!rules.put(NewRule::Tiers(rule(4))));
        assert!(rules.put(NewRule::Policy(rule(5))));
        let now = Rules { policy: rule(5), schema: rule(3), freezes: rule(2), tiers: rule(4), ..Rules::default() };
        assert_eq!(rules, now);
    }

    #[test]
    fn the_stored_form_is_as_specified() {
        let (freezes, principals, tiers) = (rule(3), rule(4), rule(5));
        let bytes = Rules { policy: rule(2), schema: rule(1), freezes, principals, tiers }.to_bytes();
        let written = data_encoding::HEXLOWER.encode(&bytes);
        assert!(include_str!("FORMAT.md").contains(&format!("`{written}`")), "{written}");
    }

    proptest! {
        #[test]
        fn rules_come_back_and_nothing_else_does(
            policy: u32, schema: u32, freezes: u32, principals: u32, tiers: u32, hash: [u8; 32], at in 0..LENGTH,
        ) {
            let rule = |version| if version == 0 { Rule::default() } else { Rule { version, hash } };
            let (policy, schema, freezes) = (rule(policy), rule(schema), rule(freezes));
            let rules = Rules { policy, schema, freezes, principals: rule(principals), tiers: rule(tiers) };
            let mut bytes = rules.to_bytes();
            prop_assert_eq!(Rules::from_bytes(&bytes), Ok(rules));
            prop_assert!(Rules::from_bytes(&bytes[..at]).is_err());
            bytes[at] ^= 1;
            if let Ok(other) = Rules::from_bytes(&bytes) {
                prop_assert_eq!(other.to_bytes(), &bytes[..]);
                prop_assert_ne!(other, rules);
            }
            bytes.push(0);
            prop_assert!(Rules::from_bytes(&bytes).is_err());
        }
    }
}
