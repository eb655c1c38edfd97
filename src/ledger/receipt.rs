//! Receipts: what the vault signs to say that a tenant was destroyed, and in which copies its keys live on.

use data_encoding::{BASE64, HEXLOWER};
use strongroom_ids::{TenantId, TenantNo, VaultId};

use crate::error::LedgerError;
use crate::note;
use crate::statement::{Lines, Statement, list};
use crate::timestamp::Timestamp;

/// How far a log had come.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogHead {
    /// The log's name, as [`crate::checkpoint::origin`] writes it.
    pub origin: String,
    /// How many leaves it had.
    pub size: u64,
    /// The root of the tree over them.
    pub root: [u8; 32],
}

/// A tenant that was destroyed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Receipt {
    /// Its number.
    pub tenant: TenantNo,
    /// Its permanent identity.
    pub id: TenantId,
    /// Its name.
    pub name: String,
    /// When its keys were destroyed.
    pub time: Timestamp,
    /// The leaf of the log `system` that says so.
    pub leaf: u64,
    /// The log `system`, when this was signed: that leaf is in it.
    pub log: LogHead,
    /// The tenant's own log, which has ended.
    pub ended: LogHead,
    /// The keys, by name, and how many versions each had: all of them are destroyed.
    pub keys: Vec<(String, u32)>,
    /// Listed copies of the keystore that still hold some of them: none is dead there until these are struck off.
    pub copies: Vec<String>,
}

/// The name that receipts are signed under, so that neither a checkpoint nor a head file can pass for one.
fn name(vault: &str) -> String {
    format!("strongroom-receipt/{vault}")
}

/// Signs a receipt. `sign` gets the bytes and returns their Ed25519 signature by the key of the log `system`, whose
/// public half is `public`.
pub fn sign(
    receipt: &Receipt,
    vault: VaultId,
    public: &[u8; 32],
    sign: impl FnOnce(&[u8]) -> [u8; 64],
) -> Result<String, LedgerError> {
    receipt.sign(&name(&vault.to_string()), public, sign)
}

/// Verifies a receipt against verifier keys of the log `system`, as auditors hold them for its checkpoints.
pub fn verify(note: &str, vkeys: &[&str]) -> Result<Receipt, LedgerError> {
    let (text, names) = note::open_as(note, vkeys, name_for)?;
    let name = names.first().ok_or(LedgerError::Unsigned)?;
    let receipt = Receipt::parse(&text, name)?;
    // The key is that of this vault's own log, and of no other.
    let log = &receipt.log.origin;
    match name_for(log).as_ref() == Some(name) && vkeys.iter().any(|vkey| note::is_of(vkey.trim(), log)) {
        true => Ok(receipt),
        false => Err(LedgerError::Origin),
    }
}

/// The name that receipts of the vault are signed under whose log this is.
fn name_for(log: &str) -> Option<String> {
    Some(name(log.strip_prefix("strongroom/")?.split('/').next()?))
}

impl LogHead {
    pub(crate) fn text(&self) -> String {
        format!("{} {} {}", self.origin, self.size, BASE64.encode(&self.root))
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut words = text.splitn(3, ' ');
        let (origin, size, root) = (words.next()?, words.next()?, words.next()?);
        let root = BASE64.decode(root.as_bytes()).ok()?.try_into().ok()?;
        Some(Self { origin: origin.to_owned(), size: size.parse().ok()?, root })
    }
}

impl Statement for Receipt {
    const FORM: LedgerError = LedgerError::Note("a receipt has the lines of the ledger's FORMAT.md, section 6");

    fn lines(&self) -> String {
        let mut text = format!(
            "destroyed {} {} {}\ntime {}\nleaf {}\nlog {}\nended {}\n",
            self.tenant,
            self.id,
            self.name,
            self.time,
            self.leaf,
            self.log.text(),
            self.ended.text()
        );
        text.push_str(&list("keys ", &self.keys, |(key, versions)| format!("{key} {versions}")));
        text.push_str(&list("copies ", &self.copies, String::clone));
        text
    }

    fn read(lines: &mut Lines<'_>) -> Option<Self> {
        let mut whom = lines.after("destroyed ")?.splitn(3, ' ');
        let tenant = TenantNo(whom.next()?.parse().ok()?);
        let id = TenantId(HEXLOWER.decode(whom.next()?.as_bytes()).ok()?.try_into().ok()?);
        Some(Self {
            tenant,
            id,
            name: whom.next()?.to_owned(),
            time: lines.value("time ")?,
            leaf: lines.value("leaf ")?,
            log: LogHead::parse(lines.after("log ")?)?,
            ended: LogHead::parse(lines.after("ended ")?)?,
            keys: lines.list("keys ", |key| {
                let (key, versions) = key.split_once(' ')?;
                Some((key.to_owned(), versions.parse().ok()?))
            })?,
            copies: lines.list("copies ", |copy| Some(copy.to_owned()))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::checkpoint::tests::{Key, is_noticed_wherever_it_is_changed, vector};
    use crate::{checkpoint, head};

    const VAULT: VaultId = VaultId([0x11; 16]);

    fn system() -> String {
        checkpoint::origin(VAULT, TenantId([0x33; 16]), 0, 1)
    }

    fn receipt() -> Receipt {
        let tenant = TenantId([0x22; 16]);
        Receipt {
            tenant: TenantNo(3),
            id: tenant,
            name: "lending".to_owned(),
            time: Timestamp(1_795_000_000_000_000),
            leaf: 41,
            log: LogHead { origin: system(), size: 43, root: [1; 32] },
            ended: LogHead { origin: checkpoint::origin(VAULT, tenant, 0, 1), size: 7, root: [2; 32] },
            keys: vec![("kek/0".to_owned(), 1), ("kek/1".to_owned(), 3), ("ledger".to_owned(), 1)],
            copies: vec!["copy/1".to_owned(), "copy/4".to_owned()],
        }
    }

    fn signed(receipt: &Receipt) -> String {
        let key = Key::new(7);
        sign(receipt, VAULT, &key.public(), |text| key.sign(text)).unwrap()
    }

    fn vkey() -> String {
        checkpoint::vkey(&system(), &Key::new(7).public())
    }

    #[test]
    fn a_receipt_is_written_as_specified() {
        assert_eq!(signed(&receipt()), vector("receipt"));
    }

    #[test]
    fn a_receipt_says_what_was_signed() {
        let none = Receipt { keys: vec![], copies: vec![], ..receipt() };
        for receipt in [receipt(), none] {
            assert_eq!(verify(&signed(&receipt), &[&vkey()]), Ok(receipt));
        }
    }

    #[test]
    fn every_changed_byte_of_a_receipt_is_noticed() {
        is_noticed_wherever_it_is_changed(&signed(&receipt()), |changed| verify(changed, &[&vkey()]).is_err());
    }

    #[test]
    fn a_receipt_of_another_vault_log_or_key_is_refused() {
        let note = signed(&receipt());
        let other = |origin: &str, seed| checkpoint::vkey(origin, &Key::new(seed).public());
        assert_eq!(verify(&note, &[&other(&system(), 8)]), Err(LedgerError::Unsigned));
        let elsewhere = checkpoint::origin(VaultId([0x12; 16]), TenantId([0x33; 16]), 0, 1);
        assert_eq!(verify(&note, &[&other(&elsewhere, 7)]), Err(LedgerError::Unsigned));
        // A tenant's own log does not speak for the vault, whatever its key is.
        assert_eq!(verify(&note, &[&other(&receipt().ended.origin, 7)]), Err(LedgerError::Origin));
        assert_eq!(verify(&note, &[]), Err(LedgerError::Unsigned));
        assert_eq!(verify(&note, &[&vkey(), "x"]), Err(LedgerError::Key { place: 2 }));
    }

    #[test]
    fn nothing_else_that_the_log_signs_passes_for_a_receipt() {
        let key = Key::new(7);
        let checkpoint = checkpoint::sign(&system(), 43, &[1; 32], &key.public(), |text| key.sign(text)).unwrap();
        let head = head::Head { number: 1, closed: false, incarnation: 1, journal: None, lanes: vec![] };
        let head = head::sign(&head, VAULT, &key.public(), |text| key.sign(text)).unwrap();
        let head = String::from_utf8(head).unwrap();
        for note in [checkpoint.as_str(), &head, head.trim_end()] {
            assert!(verify(note, &[&vkey()]).is_err());
        }
        let note = signed(&receipt());
        assert!(checkpoint::verify(&note, &[&vkey()]).is_err());
        assert!(head::open(note.as_bytes(), VAULT, &key.public()).is_err());
    }

    #[test]
    fn what_would_read_otherwise_is_not_signed() {
        let key = Key::new(7);
        let with = |change: fn(&mut Receipt)| {
            let mut receipt = receipt();
            change(&mut receipt);
            sign(&receipt, VAULT, &key.public(), |text| key.sign(text))
        };
        assert!(with(|receipt| receipt.name = "two\nlines".to_owned()).is_err());
        assert!(with(|receipt| receipt.copies.push("copy/1\ncopies 0".to_owned())).is_err());
        assert!(with(|receipt| receipt.keys.push(("kek 1".to_owned(), 1))).is_err());
        assert!(with(|receipt| receipt.log.origin.push_str(" 9")).is_err());
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(\n|\n\n|[a-z —0-9/+]){0,60}", vkey in "[a-z/+0-9=]{0,60}") {
            prop_assert!(verify(&text, &[]).is_err());
            prop_assert!(verify(&text, &[&vkey]).is_err());
            let _ = Receipt::parse(&text, "");
        }
    }
}
