//! The head file: how far every log had come, signed and kept outside the store, so that a store that lost its end, was
//! put back, or grew while nobody served it is found out when it opens.

use data_encoding::BASE64;
use ring::digest;
use strongroom_ids::{TenantNo, VaultId};

use crate::error::LedgerError;
use crate::frontier::Frontier;
use crate::journal::JournalEnd;
use crate::note;
use crate::rules::Rules;

/// How far the vault had come.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Head {
    /// The number of the last commit.
    pub number: u64,
    /// Whether it was stopped in order: then no log has more leaves than stand here.
    pub closed: bool,
    /// How often the vault was restored before, and one: the highest that any log has.
    pub incarnation: u16,
    /// How far the journal of what restricts had come; `None` if none is kept.
    pub journal: Option<JournalEnd>,
    /// Every log.
    pub lanes: Vec<LaneState>,
}

/// How far one log had come.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LaneState {
    /// Whose log; zero is the vault's own.
    pub tenant: TenantNo,
    /// How many leaves it had.
    pub size: u64,
    /// The root of the tree over them.
    pub root: [u8; 32],
    /// [`Frontier::to_bytes`] of that tree: with it and the leaves since, a later root can be checked.
    pub frontier: Vec<u8>,
    /// The rules that were in force after them.
    pub rules: Rules,
}

/// The signed line of a vault that runs, or did not come to stop in order: its logs may have grown since.
const OPEN: &str = "state open";
/// That of one that was stopped in order.
const CLOSED: &str = "state closed";

/// What stands for the journal's end where none is kept.
const NO_JOURNAL: &str = "none";

/// The name that head files are signed under, so that no checkpoint can pass for one.
fn name(vault: VaultId) -> String {
    format!("strongroom-head/{vault}")
}

/// Writes and signs a head file. `sign` gets the bytes and returns their Ed25519 signature by the key whose public
/// half is `public`. The order of the lanes does not matter.
pub fn sign(
    head: &Head,
    vault: VaultId,
    public: &[u8; 32],
    sign: impl FnOnce(&[u8]) -> [u8; 64],
) -> Result<Vec<u8>, LedgerError> {
    let mut lanes: Vec<&LaneState> = head.lanes.iter().collect();
    lanes.sort_by_key(|lane| lane.tenant);
    let mut body = String::new();
    for lane in &lanes {
        lane.check()?;
        let (root, frontier) = (BASE64.encode(&lane.root), BASE64.encode(&lane.frontier));
        let rules = BASE64.encode(&lane.rules.to_bytes());
        body.push_str(&format!("{} {} {root} {frontier} {rules}\n", lane.tenant, lane.size));
    }
    if !lanes.is_sorted_by(|one, next| one.tenant < next.tenant) {
        return Err(LedgerError::Head("a log stands in it twice"));
    }
    let name = name(vault);
    // The lanes are signed through their hash: a note is limited in size, the number of tenants is not.
    let text = text(&name, head, lanes.len(), &body);
    let note = note::sign(&name, &text, public, sign)?;
    Ok(format!("{note}\n{body}").into_bytes())
}

/// Reads a head file of this vault, if the given key has signed it.
pub fn open(file: &[u8], vault: VaultId, public: &[u8; 32]) -> Result<Head, LedgerError> {
    open_by_any(file, vault, std::slice::from_ref(public))
}

/// The same, if one of the given keys has: a vault that stopped within a rotation left one by the key before.
pub fn open_by_any(file: &[u8], vault: VaultId, publics: &[[u8; 32]]) -> Result<Head, LedgerError> {
    const FORM: LedgerError = LedgerError::Note("a head file is a signed note, a blank line and a line a log");
    const OTHER: LedgerError =
        LedgerError::Head("its logs are not those that were signed, or its format is of another version");
    let file = std::str::from_utf8(file).map_err(|_| FORM)?;
    let signatures = file.find("\n\n").ok_or(FORM)? + 2;
    let (after, body) = file[signatures..].split_once("\n\n").ok_or(FORM)?;
    let note = &file[..signatures + after.len() + 1];
    let name = name(vault);
    let keys: Vec<String> = publics.iter().map(|public| note::vkey(&name, public)).collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let (signed, _) = note::open(note, &keys)?;
    let member = |line: usize, name: &str| signed.lines().nth(line).and_then(|line| line.strip_prefix(name));
    let number = member(2, "number ").and_then(|number| number.parse().ok()).ok_or(OTHER)?;
    let closed = signed.lines().nth(3) == Some(CLOSED);
    let incarnation = member(4, "incarnation ").and_then(|number| number.parse().ok()).ok_or(OTHER)?;
    let journal = member(5, "journal ").and_then(parse_journal).ok_or(OTHER)?;
    let head = Head { number, closed, incarnation, journal, lanes: vec![] };
    // Written again from what was read, the signed lines must come out the same: so the hash is checked as well.
    if signed != text(&name, &head, body.lines().count(), body) {
        return Err(OTHER);
    }
    let lanes = body.lines().map(LaneState::parse).collect::<Result<Vec<_>, _>>()?;
    if !lanes.is_sorted_by(|one, next| one.tenant < next.tenant) {
        return Err(LedgerError::Head("its logs are not in order"));
    }
    Ok(Head { lanes, ..head })
}

/// The signed lines.
fn text(name: &str, head: &Head, lanes: usize, body: &str) -> String {
    let hash = BASE64.encode(digest::digest(&digest::SHA256, body.as_bytes()).as_ref());
    let Head { number, closed, incarnation, journal, .. } = head;
    let state = if *closed { CLOSED } else { OPEN };
    let journal = match journal {
        Some(end) => format!("{} {}", end.records, BASE64.encode(&end.mac)),
        None => NO_JOURNAL.to_owned(),
    };
    format!(
        "{name}\nformat 1\nnumber {number}\n{state}\nincarnation {incarnation}\njournal {journal}\nlogs {lanes}\n\
         sha256 {hash}\n"
    )
}

/// How far the journal had come, as [`text`] writes it.
fn parse_journal(text: &str) -> Option<Option<JournalEnd>> {
    if text == NO_JOURNAL {
        return Some(None);
    }
    let (records, mac) = text.split_once(' ')?;
    Some(Some(JournalEnd { records: records.parse().ok()?, mac: decode(mac)?.try_into().ok()? }))
}

impl LaneState {
    fn parse(line: &str) -> Result<Self, LedgerError> {
        const FORM: LedgerError = LedgerError::Head("a log's line is its number, size, root, frontier and rules");
        let mut words = line.split(' ');
        let mut word = || words.next().ok_or(FORM);
        let lane = Self {
            tenant: TenantNo(word()?.parse().map_err(|_| FORM)?),
            size: word()?.parse().map_err(|_| FORM)?,
            root: decode(word()?).and_then(|root| root.try_into().ok()).ok_or(FORM)?,
            frontier: decode(word()?).ok_or(FORM)?,
            rules: Rules::from_bytes(&decode(word()?).ok_or(FORM)?)?,
        };
        if words.next().is_some() {
            return Err(FORM);
        }
        lane.check()?;
        Ok(lane)
    }

    /// Size and root must be those of the frontier.
    fn check(&self) -> Result<(), LedgerError> {
        let frontier = Frontier::from_bytes(&self.frontier)?;
        if frontier.size() != self.size || frontier.root() != self.root {
            return Err(LedgerError::Head("the size and root of a log are not those of its frontier"));
        }
        Ok(())
    }
}

fn decode(text: &str) -> Option<Vec<u8>> {
    BASE64.decode(text.as_bytes()).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::checkpoint::tests::{Key, vector};
    use crate::rules::Rule;

    const VAULT: VaultId = VaultId([0x11; 16]);

    fn lane(tenant: u32, size: u64) -> LaneState {
        let mut tree = Frontier::new();
        (0..size).for_each(|number| tree.push(&number.to_be_bytes()));
        let rule = |version: u64| Rule { version: version as u32, hash: [version as u8; 32] };
        let rules = Rules {
            policy: rule(size),
            schema: rule(size / 2),
            freezes: rule(size / 3),
            principals: rule(size / 4),
            tiers: rule(size / 5),
        };
        LaneState { tenant: TenantNo(tenant), size, root: tree.root(), frontier: tree.to_bytes(), rules }
    }

    fn signed(head: &Head) -> Vec<u8> {
        let key = Key::new(1);
        sign(head, VAULT, &key.public(), |text| key.sign(text)).unwrap()
    }

    fn head() -> Head {
        let journal = Some(JournalEnd { records: 9, mac: [3; 32] });
        Head { number: 42, closed: false, incarnation: 2, journal, lanes: vec![lane(0, 7), lane(1, 0), lane(5, 100)] }
    }

    #[test]
    fn a_head_is_read_back_as_it_was_signed() {
        let closed = Head { closed: true, ..head() };
        let without = Head { journal: None, ..head() };
        for head in [head(), closed, without, Head { number: 0, lanes: vec![], ..head() }] {
            assert_eq!(open(&signed(&head), VAULT, &Key::new(1).public()), Ok(head));
        }
    }

    #[test]
    fn a_head_file_is_written_as_specified() {
        let mut tree = Frontier::new();
        [b"a", b"b", b"c"].iter().for_each(|leaf| tree.push(*leaf));
        let (root, frontier) = (tree.root(), tree.to_bytes());
        let of_tree = LaneState { tenant: TenantNo(0), size: 3, root, frontier, rules: Rules::default() };
        let mac = BASE64.decode(b"SkhMWql/6RceFs2FNo1/ww7QLHu3uvM9118Oj9Fak74=").unwrap();
        let journal = Some(JournalEnd { records: 2, mac: mac.try_into().unwrap() });
        let head = Head { number: 3, closed: true, incarnation: 1, journal, lanes: vec![of_tree] };
        let key = Key::new(7);
        let file = sign(&head, VAULT, &key.public(), |text| key.sign(text)).unwrap();
        assert_eq!(String::from_utf8(file).unwrap(), vector("head"));
    }

    #[test]
    fn whether_it_was_stopped_in_order_is_signed() {
        for closed in [false, true] {
            let file = String::from_utf8(signed(&Head { closed, ..head() })).unwrap();
            let (from, to) = if closed { (CLOSED, OPEN) } else { (OPEN, CLOSED) };
            assert!(file.contains(from));
            assert!(open(file.replace(from, to).as_bytes(), VAULT, &Key::new(1).public()).is_err());
        }
    }

    #[test]
    fn the_order_in_which_lanes_are_given_does_not_matter() {
        let mut turned = head();
        turned.lanes.reverse();
        assert_eq!(signed(&turned), signed(&head()));
    }

    #[test]
    fn three_thousand_tenants_fit() {
        let lanes = (0..3_000).map(|tenant| lane(tenant, 1_023)).collect();
        let head = Head { number: u64::MAX, lanes, ..head() };
        let file = signed(&head);
        assert!(file.len() > 1_000_000);
        assert_eq!(open(&file, VAULT, &Key::new(1).public()), Ok(head));
    }

    #[test]
    fn every_changed_byte_is_noticed() {
        let file = signed(&head());
        for at in 0..file.len() {
            let mut changed = file.clone();
            changed[at] ^= 1;
            assert!(open(&changed, VAULT, &Key::new(1).public()).is_err(), "byte {at}");
        }
    }

    #[test]
    fn every_cut_is_noticed() {
        let file = signed(&head());
        for end in 0..file.len() {
            assert!(open(&file[..end], VAULT, &Key::new(1).public()).is_err(), "cut to {end} bytes");
        }
    }

    #[test]
    fn a_log_cannot_be_added_or_removed() {
        let file = String::from_utf8(signed(&head())).unwrap();
        let (rest, last) = file.trim_end().rsplit_once('\n').unwrap();
        for changed in [format!("{rest}\n"), format!("{file}{last}\n"), format!("{file}\n")] {
            assert!(open(changed.as_bytes(), VAULT, &Key::new(1).public()).is_err());
        }
    }

    #[test]
    fn the_head_of_another_vault_or_by_another_key_is_refused() {
        let file = signed(&head());
        assert_eq!(open(&file, VaultId([0x12; 16]), &Key::new(1).public()), Err(LedgerError::Unsigned));
        assert_eq!(open(&file, VAULT, &Key::new(2).public()), Err(LedgerError::Unsigned));
    }

    #[test]
    fn a_head_that_contradicts_itself_is_not_signed() {
        let key = Key::new(1);
        let mut size = head();
        size.lanes[0].size += 1;
        let mut root = head();
        root.lanes[0].root[0] ^= 1;
        let twice = Head { lanes: vec![lane(1, 1), lane(1, 2)], ..head() };
        for head in [size, root, twice] {
            assert!(sign(&head, VAULT, &key.public(), |text| key.sign(text)).is_err());
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(file in prop::collection::vec(any::<u8>(), 0..300), text in "(\n|\n\n|[a-z —0-9]){0,40}") {
            prop_assert!(open(&file, VAULT, &[1; 32]).is_err());
            prop_assert!(open(text.as_bytes(), VAULT, &[1; 32]).is_err());
        }
    }
}
