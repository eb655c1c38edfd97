//! What keys are called, and what the state of a key allows.

use std::fmt;
use std::str::FromStr;

use strongroom_ids::{FieldNo, KeyringNo, TenantId};
use thiserror::Error;

/// Which blind index a key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IndexName {
    /// The values of one field.
    Field(FieldNo),
    /// The callers' ids of subjects.
    SubjectId,
    /// Tokens that are not opaque.
    Token,
    /// What callers sent and the ledger must not show: requests, unknown tokens.
    Fingerprint,
}

/// A key of the keystore, without its version. Displayed without its tenant: `kek/1`, `index/field/2`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyName {
    /// The key encryption key of a keyring.
    Kek(TenantId, KeyringNo),
    /// The key of a blind index.
    Index(TenantId, IndexName),
    /// The key of opaque tokens.
    Token(TenantId),
    /// The key that signs a tenant's log. The vault's own log has the system tenant's.
    Ledger(TenantId),
}

/// Bytes of an encoded name: tenant, kind, number.
pub(crate) const NAME: usize = 16 + 1 + 4;

impl KeyName {
    /// Whose key it is.
    pub fn tenant(&self) -> TenantId {
        match self {
            Self::Kek(tenant, _) | Self::Index(tenant, _) | Self::Token(tenant) | Self::Ledger(tenant) => *tenant,
        }
    }

    /// The kind, and the keyring's or field's number; zero for kinds without one.
    fn kind(&self) -> (u8, u32) {
        match self {
            Self::Kek(_, keyring) => (1, u32::from(keyring.0)),
            Self::Index(_, IndexName::Field(field)) => (2, field.0),
            Self::Index(_, IndexName::SubjectId) => (3, 0),
            Self::Index(_, IndexName::Token) => (4, 0),
            Self::Index(_, IndexName::Fingerprint) => (5, 0),
            Self::Token(_) => (6, 0),
            Self::Ledger(_) => (7, 0),
        }
    }

    pub(crate) fn encode(&self) -> [u8; NAME] {
        let (kind, number) = self.kind();
        let mut bytes = [0; NAME];
        bytes[..16].copy_from_slice(&self.tenant().0);
        bytes[16] = kind;
        bytes[17..].copy_from_slice(&number.to_be_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8; NAME]) -> Option<Self> {
        let (tenant, rest) = bytes.split_first_chunk::<16>()?;
        let ([kind], number) = rest.split_first_chunk::<1>()?;
        let number = u32::from_be_bytes(number.try_into().ok()?);
        let tenant = TenantId(*tenant);
        let name = match kind {
            1 => Self::Kek(tenant, KeyringNo(u16::try_from(number).ok()?)),
            2 => Self::Index(tenant, IndexName::Field(FieldNo(number))),
            3 => Self::Index(tenant, IndexName::SubjectId),
            4 => Self::Index(tenant, IndexName::Token),
            5 => Self::Index(tenant, IndexName::Fingerprint),
            6 => Self::Token(tenant),
            7 => Self::Ledger(tenant),
            _ => return None,
        };
        // One name has one encoding: kinds without a number have zero there.
        (name.kind().1 == number).then_some(name)
    }
}

impl KeyName {
    /// A tenant's key by the name that it is displayed with: `kek/1`.
    pub fn parse(tenant: TenantId, name: &str) -> Option<Self> {
        let index = |index| Some(Self::Index(tenant, index));
        match name {
            "index/subject-id" => return index(IndexName::SubjectId),
            "index/token" => return index(IndexName::Token),
            "index/fingerprint" => return index(IndexName::Fingerprint),
            "token" => return Some(Self::Token(tenant)),
            "ledger" => return Some(Self::Ledger(tenant)),
            _ => {}
        }
        // One key has one name: no sign, and no zero in front.
        fn number<T: FromStr + fmt::Display>(text: &str) -> Option<T> {
            text.parse().ok().filter(|number: &T| number.to_string() == text)
        }
        match name.strip_prefix("kek/") {
            Some(keyring) => number(keyring).map(|keyring| Self::Kek(tenant, KeyringNo(keyring))),
            None => index(IndexName::Field(FieldNo(number(name.strip_prefix("index/field/")?)?))),
        }
    }
}

impl fmt::Display for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kek(_, keyring) => write!(f, "kek/{keyring}"),
            Self::Index(_, IndexName::Field(field)) => write!(f, "index/field/{field}"),
            Self::Index(_, IndexName::SubjectId) => f.write_str("index/subject-id"),
            Self::Index(_, IndexName::Token) => f.write_str("index/token"),
            Self::Index(_, IndexName::Fingerprint) => f.write_str("index/fingerprint"),
            Self::Token(_) => f.write_str("token"),
            Self::Ledger(_) => f.write_str("ledger"),
        }
    }
}

/// What is done with a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Apply protection: wrap, sign, make a new index entry or token.
    Protect,
    /// Process what was protected: unwrap, verify, follow an index entry or token.
    Process,
}

/// The state of one version of a key (SP 800-57 part 1, section 7).
///
/// | state | protect | process | SP 800-57 |
/// | --- | --- | --- | --- |
/// | enabled | yes | yes | active |
/// | decrypt-only | no | yes | deactivated |
/// | disabled | no | no | suspended |
/// | compromised | no | yes | compromised |
/// | destroyed | no | no | destroyed |
///
/// A compromised key still processes: what it protected must be opened once more to be protected anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyState {
    /// Protects and processes.
    Enabled,
    /// Replaced by a newer version.
    DecryptOnly,
    /// Stopped for now; the key is kept, but not in memory.
    Disabled,
    /// Known to others, or suspected to be.
    Compromised,
    /// The key is gone; its name, version and dates are kept.
    Destroyed,
}

impl KeyState {
    /// All states, in the order of their numbers on disk, which start at 1.
    pub const ALL: [Self; 5] = [Self::Enabled, Self::DecryptOnly, Self::Disabled, Self::Compromised, Self::Destroyed];

    /// Whether the state allows the operation.
    pub fn allows(self, operation: Operation) -> bool {
        match (self, operation) {
            (Self::Enabled, Operation::Protect | Operation::Process) => true,
            (Self::DecryptOnly | Self::Compromised, Operation::Process) => true,
            (Self::DecryptOnly | Self::Compromised, Operation::Protect) => false,
            (Self::Disabled | Self::Destroyed, Operation::Protect | Operation::Process) => false,
        }
    }

    /// Whether a version of a key may go from this state to another.
    ///
    /// | from | to |
    /// | --- | --- |
    /// | enabled | decrypt-only, disabled, compromised, destroyed |
    /// | decrypt-only | compromised, destroyed |
    /// | disabled | enabled, decrypt-only, compromised, destroyed |
    /// | compromised | destroyed |
    /// | destroyed | |
    pub fn may_become(self, next: Self) -> bool {
        match self {
            Self::Enabled => next != Self::Enabled,
            Self::DecryptOnly => matches!(next, Self::Compromised | Self::Destroyed),
            Self::Disabled => next != Self::Disabled,
            Self::Compromised => next == Self::Destroyed,
            Self::Destroyed => false,
        }
    }

    /// The state's name, as people see it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Enabled => "enabled",
            Self::DecryptOnly => "decrypt-only",
            Self::Disabled => "disabled",
            Self::Compromised => "compromised",
            Self::Destroyed => "destroyed",
        }
    }

    pub(crate) fn encode(self) -> u8 {
        match self {
            Self::Enabled => 1,
            Self::DecryptOnly => 2,
            Self::Disabled => 3,
            Self::Compromised => 4,
            Self::Destroyed => 5,
        }
    }

    pub(crate) fn decode(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.encode() == number)
    }
}

impl FromStr for KeyState {
    type Err = UnknownState;

    fn from_str(name: &str) -> Result<Self, UnknownState> {
        Self::ALL.into_iter().find(|state| state.as_str() == name).ok_or(UnknownState)
    }
}

/// A word that is no state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the states are enabled, decrypt-only, disabled, compromised, destroyed")]
pub struct UnknownState;

impl fmt::Display for KeyState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn key_name() -> impl Strategy<Value = KeyName> {
        (any::<[u8; 16]>(), 0..7, any::<u32>()).prop_map(|(tenant, kind, number)| {
            let tenant = TenantId(tenant);
            match kind {
                0 => KeyName::Kek(tenant, KeyringNo(number as u16)),
                1 => KeyName::Index(tenant, IndexName::Field(FieldNo(number))),
                2 => KeyName::Index(tenant, IndexName::SubjectId),
                3 => KeyName::Index(tenant, IndexName::Token),
                4 => KeyName::Index(tenant, IndexName::Fingerprint),
                5 => KeyName::Token(tenant),
                _ => KeyName::Ledger(tenant),
            }
        })
    }

    #[test]
    fn names_read_as_paths() {
        let tenant = TenantId([0; 16]);
        let shown = |name: KeyName| name.to_string();
        assert_eq!(shown(KeyName::Kek(tenant, KeyringNo(1))), "kek/1");
        assert_eq!(shown(KeyName::Index(tenant, IndexName::Field(FieldNo(2)))), "index/field/2");
        assert_eq!(shown(KeyName::Index(tenant, IndexName::SubjectId)), "index/subject-id");
        assert_eq!(shown(KeyName::Index(tenant, IndexName::Token)), "index/token");
        assert_eq!(shown(KeyName::Index(tenant, IndexName::Fingerprint)), "index/fingerprint");
        assert_eq!(shown(KeyName::Token(tenant)), "token");
        assert_eq!(shown(KeyName::Ledger(tenant)), "ledger");
    }

    #[test]
    fn each_state_allows_what_the_table_says() {
        let allowed = KeyState::ALL
            .map(|state| (state.as_str(), state.allows(Operation::Protect), state.allows(Operation::Process)));
        let table = [
            ("enabled", true, true),
            ("decrypt-only", false, true),
            ("disabled", false, false),
            ("compromised", false, true),
            ("destroyed", false, false),
        ];
        assert_eq!(allowed, table);
        let word = |allowed| if allowed { "yes" } else { "no" };
        for (state, protect, process) in table {
            let row = format!("\n| {state} | {} | {} | ", word(protect), word(process));
            assert!(include_str!("../FORMAT.md").contains(&row), "the manual has no row {row}");
        }
    }

    #[test]
    fn the_ways_between_states_are_those_of_the_manual() {
        for from in KeyState::ALL {
            let to: Vec<&str> =
                KeyState::ALL.into_iter().filter(|to| from.may_become(*to)).map(KeyState::as_str).collect();
            let row = format!("\n| {from} | {} |\n", to.join(", ")).replace("|  |", "| |");
            assert!(include_str!("../FORMAT.md").contains(&row), "the manual has no row {row}");
        }
    }

    #[test]
    fn a_state_reads_back_from_its_name() {
        for state in KeyState::ALL {
            assert_eq!(state.as_str().parse(), Ok(state));
        }
        assert_eq!("Enabled".parse::<KeyState>(), Err(UnknownState));
    }

    #[test]
    fn states_have_the_numbers_one_to_five() {
        for number in 0..=255 {
            let state = KeyState::decode(number);
            assert_eq!(state.is_some(), (1..=5).contains(&number));
            assert!(state.is_none_or(|state| state.encode() == number));
        }
    }

    proptest! {
        #[test]
        fn a_name_reads_back_as_it_is_displayed(name in key_name()) {
            prop_assert_eq!(KeyName::parse(name.tenant(), &name.to_string()), Some(name));
        }

        #[test]
        fn no_other_text_is_a_name(text in "(kek/|index/field/|token)?[+0-9a-z/-]{0,12}") {
            let name = KeyName::parse(TenantId([0; 16]), &text);
            prop_assert!(name.is_none_or(|name| name.to_string() == text));
        }

        #[test]
        fn a_name_survives_its_encoding(name in key_name()) {
            prop_assert_eq!(KeyName::decode(&name.encode()), Some(name));
        }

        #[test]
        fn a_name_has_one_encoding(tenant: [u8; 16], kind in 0..10u8, number in prop_oneof![Just(0), any::<u32>()]) {
            let bytes: Vec<u8> = [&tenant[..], &[kind], &number.to_be_bytes()].concat();
            let bytes: [u8; NAME] = bytes.try_into().unwrap();
            let name = KeyName::decode(&bytes);
            prop_assert!(name.is_none_or(|name| name.encode() == bytes));
        }
    }
}
