//! The rules in force, as a log records them: which policy, which schema and which freezes its leaves say hold now.
//!
//! Like a tree's frontier they are the sum of all leaves so far, and are carried along with it: so a store whose
//! policy, schema or freezes were put back to an older one is found out without reading the log again.

use data_encoding::HEXLOWER;

use crate::error::LedgerError;
use crate::leaf::{LeafHeader, ParsedLeaf};

const FORMAT: u8 = 1;
/// Format, and a version and a hash for each of three.
const LENGTH: usize = 1 + 3 * (4 + 32);

/// A policy, a schema, or what is frozen.
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
}

impl NewRule {
    /// What a leaf that is read puts in force, if it does.
    pub fn of(leaf: &ParsedLeaf) -> Option<Self> {
        // Once a request: its first part says it.
        if leaf.part.is_some_and(|part| part.which > 1) {
            return None;
        }
        let detail = |name: &str| leaf.detail.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        Self::recorded(&leaf.action, &leaf.decision, leaf.policy, detail)
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
        match action {
            // The first leaf of a log.
            "create_vault" | "create_tenant" => {
                Some(Self::Policy(Rule { version: policy, hash: hash("policy_sha256")? }))
            }
            "apply_policy" => rule().map(Self::Policy),
            "apply_schema" => rule().map(Self::Schema),
            // What concerns all tenants is the vault's own rule: only the log `system` has its version and hash.
            "freeze" | "unfreeze" | "freeze_all" | "unfreeze_all" | "suspend" | "unsuspend" => {
                rule().map(Self::Freezes)
            }
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
        };
        let newer = new.version > old.version;
        if newer {
            *old = new;
        }
        newer
    }

    /// The stored form: format, then version (4 bytes, big-endian) and hash of the policy, of the schema, and of the
    /// freezes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(LENGTH);
        bytes.push(FORMAT);
        for rule in [&self.policy, &self.schema, &self.freezes] {
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
        Ok(Self { policy: rule(1)?, schema: rule(37)?, freezes: rule(73)? })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Timestamp;
    use crate::leaf;

    fn rule(version: u32) -> Rule {
        Rule { version, hash: [version as u8; 32] }
    }

    /// A leaf as it is written and as it is read.
    fn both(action: &str, decision: &str, detail: &[(&str, &str)]) -> [Option<NewRule>; 2] {
        let header = LeafHeader {
            request: &[1; 16],
            principal: "officer/one",
            actor: None,
            action,
            purpose: None,
            decision,
            reason: None,
            policy: 1,
            schema: 0,
            keys: &[],
            client: "",
            detail,
        };
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
        assert!(rules.put(NewRule::Policy(rule(5))));
        assert_eq!(rules, Rules { policy: rule(5), schema: rule(3), freezes: rule(2) });
    }

    #[test]
    fn the_stored_form_is_as_specified() {
        let bytes = Rules { policy: rule(2), schema: rule(1), freezes: rule(3) }.to_bytes();
        let written = data_encoding::HEXLOWER.encode(&bytes);
        assert!(include_str!("FORMAT.md").contains(&format!("`{written}`")), "{written}");
    }

    proptest! {
        #[test]
        fn rules_come_back_and_nothing_else_does(
            policy: u32, schema: u32, freezes: u32, hash: [u8; 32], at in 0..LENGTH,
        ) {
            let rule = |version| if version == 0 { Rule::default() } else { Rule { version, hash } };
            let rules = Rules { policy: rule(policy), schema: rule(schema), freezes: rule(freezes) };
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
