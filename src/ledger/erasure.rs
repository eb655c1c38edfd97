//! Receipts of erasures: what a tenant's log key signs to say what of a data subject was erased, and what of it backups may
//! still open.
//!
//! Whoever holds a receipt knows to whom it belongs. So that it never leads from that person into the ledger, it names neither
//! a handle nor a leaf nor a request, and its time is a day.

use data_encoding::HEXLOWER;
use ring::digest;
use strongroom_ids::{TenantId, VaultId};

use crate::checkpoint;
use crate::error::LedgerError;
use crate::note;
use crate::statement::{Lines, Statement, list};
use crate::timestamp::{civil, days, days_of};

/// What nobody has said.
const UNKNOWN: &str = "unknown";

/// What was erased of a data subject.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ErasureReceipt {
    /// Values that legal holds keep; 0: all of the subject is erased.
    pub held: u64,
    /// Whose it is: what [`commitment`] makes of the salt that was given with it and the subject's id; unknown if nobody named the
    /// subject.
    pub subject: Option<[u8; 32]>,
    /// When, in days since 1970: from that day on the vault and its files hold none of the keys, but for those that are not
    /// rolled.
    pub day: u32,
    /// Values that were erased.
    pub values: u64,
    /// Shares in values that others share.
    pub shares: u64,
    /// Index entries.
    pub entries: u64,
    /// Consents.
    pub consents: u64,
    /// DEKs.
    pub deks: u64,
    /// Values of which the row, or the DEK of their own, could not be read: they are gone, but not which index entries led to them,
    /// nor which KEK wrapped their DEKs, is known.
    pub unread: u64,
    /// DEKs of a subject of whom something is held that may have sealed some of it: they are not rolled yet, and until they are,
    /// backups that are made later may open that, too.
    pub unrolled: u64,
    /// The versions of KEKs that wrapped the DEKs of what was erased, with their state: `kek/1`, 3, `enabled`. A backup that was
    /// made before dies with them.
    pub keks: Vec<(String, u32, String)>,
    /// Listed copies of the keystore that hold some of these versions.
    pub copies: Vec<String>,
    /// The day by which every backup that was made before is deleted, in days since 1970, as far as the operators say how long
    /// they keep one.
    pub backups: Option<u32>,
}

/// What a receipt says of whose it is. Without the salt nobody can try ids on it.
pub fn commitment(salt: &[u8; 32], subject: &str) -> [u8; 32] {
    let mut hashed = digest::Context::new(&digest::SHA256);
    hashed.update(salt);
    hashed.update(subject.as_bytes());
    let mut commitment = [0; 32];
    commitment.copy_from_slice(hashed.finish().as_ref());
    commitment
}

/// The name that receipts are signed under by the key of the log of this name, so that no checkpoint can pass for one.
fn name_for(log: &str) -> Option<String> {
    Some(format!("strongroom-erasure/{}", log.strip_prefix("strongroom/")?))
}

/// Signs a receipt. `sign` gets the bytes and returns their Ed25519 signature by the key of the tenant's log, whose public
/// half is `public`.
pub fn sign(
    receipt: &ErasureReceipt,
    (vault, tenant): (VaultId, TenantId),
    (lane, incarnation): (u16, u16),
    public: &[u8; 32],
    sign: impl FnOnce(&[u8]) -> [u8; 64],
) -> Result<String, LedgerError> {
    let name = name_for(&checkpoint::origin(vault, tenant, lane, incarnation)).ok_or(LedgerError::Name)?;
    receipt.sign(&name, public, sign)
}

/// Verifies a receipt against verifier keys of the tenant's log, as auditors hold them for its checkpoints.
pub fn verify(note: &str, vkeys: &[&str]) -> Result<ErasureReceipt, LedgerError> {
    let (text, names) = note::open_as(note, vkeys, name_for)?;
    ErasureReceipt::parse(&text, names.first().ok_or(LedgerError::Unsigned)?)
}

impl Statement for ErasureReceipt {
    const FORM: LedgerError =
        LedgerError::Note("an erasure's receipt has the lines of the ledger's FORMAT.md, section 6");

    fn lines(&self) -> String {
        let Self { held, day, values, shares, entries, consents, deks, unread, unrolled, .. } = self;
        let mut text = match held {
            0 => "erased all\n".to_owned(),
            held => format!("erased but {held}\n"),
        };
        let subject = self.subject.map_or_else(|| UNKNOWN.to_owned(), |subject| HEXLOWER.encode(&subject));
        text.push_str(&format!("subject {subject}\nday {}\n", day_text(*day)));
        text.push_str(&format!(
            "values {values}\nshares {shares}\nentries {entries}\nconsents {consents}\ndeks {deks}\n"
        ));
        text.push_str(&format!("unread {unread}\nunrolled {unrolled}\n"));
        text.push_str(&list("keks ", &self.keks, |(key, version, state)| format!("{key} {version} {state}")));
        text.push_str(&list("copies ", &self.copies, String::clone));
        let backups = self.backups.map_or_else(|| UNKNOWN.to_owned(), day_text);
        text.push_str(&format!("backups {backups}\n"));
        text
    }

    fn read(lines: &mut Lines<'_>) -> Option<Self> {
        let held = match lines.after("erased ")? {
            "all" => 0,
            but => but.strip_prefix("but ")?.parse().ok()?,
        };
        Some(Self {
            held,
            subject: match lines.after("subject ")? {
                UNKNOWN => None,
                hash => Some(HEXLOWER.decode(hash.as_bytes()).ok()?.try_into().ok()?),
            },
            day: read_day(lines.after("day ")?)?,
            values: lines.value("values ")?,
            shares: lines.value("shares ")?,
            entries: lines.value("entries ")?,
            consents: lines.value("consents ")?,
            deks: lines.value("deks ")?,
            unread: lines.value("unread ")?,
            unrolled: lines.value("unrolled ")?,
            keks: lines.list("keks ", |kek| {
                let mut words = kek.splitn(3, ' ');
                let (key, version, state) = (words.next()?, words.next()?, words.next()?);
                Some((key.to_owned(), version.parse().ok()?, state.to_owned()))
            })?,
            copies: lines.list("copies ", |copy| Some(copy.to_owned()))?,
            backups: match lines.after("backups ")? {
                UNKNOWN => None,
                day => Some(read_day(day)?),
            },
        })
    }
}

/// A day, counted from 1970, as a date: 2031-12-31.
pub fn day_text(day: u32) -> String {
    let (year, month, day) = civil(u64::from(day));
    format!("{year:04}-{month:02}-{day:02}")
}

/// Reads what [`day_text`] wrote; what it would not have written is refused where the whole receipt is written again.
fn read_day(text: &str) -> Option<u32> {
    let mut parts = text.splitn(3, '-');
    let mut part = || parts.next()?.parse::<u64>().ok();
    let (year, month, day) = (part()?, part()?, part()?);
    let exists =
        (1970..100_000_000).contains(&year) && (1..=12).contains(&month) && (1..=days_of(year, month)).contains(&day);
    if exists { u32::try_from(days(year, month, day)).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::checkpoint::tests::{Key, is_noticed_wherever_it_is_changed, vector};
    use crate::receipt;

    const VAULT: VaultId = VaultId([0x11; 16]);
    const TENANT: TenantId = TenantId([0x22; 16]);

    fn log() -> String {
        checkpoint::origin(VAULT, TENANT, 0, 1)
    }

    fn receipt() -> ErasureReceipt {
        ErasureReceipt {
            held: 0,
            subject: Some(commitment(&[9; 32], "customer-4711")),
            day: 20_775,
            values: 7,
            shares: 1,
            entries: 9,
            consents: 2,
            deks: 4,
            unread: 0,
            unrolled: 0,
            keks: vec![
                ("kek/0".to_owned(), 1, "enabled".to_owned()),
                ("kek/2".to_owned(), 3, "decrypt-only".to_owned()),
            ],
            copies: vec!["copy/1".to_owned(), "copy/4".to_owned()],
            backups: Some(20_810),
        }
    }

    fn signed(receipt: &ErasureReceipt) -> Result<String, LedgerError> {
        let key = Key::new(7);
        sign(receipt, (VAULT, TENANT), (0, 1), &key.public(), |text| key.sign(text))
    }

    fn vkey() -> String {
        checkpoint::vkey(&log(), &Key::new(7).public())
    }

    #[test]
    fn a_receipt_of_an_erasure_is_written_as_specified() {
        assert_eq!(signed(&receipt()).unwrap(), vector("erasure"));
    }

    #[test]
    fn a_receipt_says_what_was_signed() {
        let part = ErasureReceipt {
            held: 3,
            subject: None,
            unread: 1,
            unrolled: 2,
            keks: vec![],
            copies: vec![],
            backups: None,
            ..receipt()
        };
        for receipt in [receipt(), part] {
            assert_eq!(verify(&signed(&receipt).unwrap(), &[&vkey()]), Ok(receipt));
        }
    }

    #[test]
    fn every_changed_byte_of_a_receipt_is_noticed() {
        is_noticed_wherever_it_is_changed(&signed(&receipt()).unwrap(), |changed| verify(changed, &[&vkey()]).is_err());
    }

    #[test]
    fn a_receipt_of_another_log_or_key_and_what_else_the_log_signs_is_refused() {
        let note = signed(&receipt()).unwrap();
        let other = |origin: &str, seed| checkpoint::vkey(origin, &Key::new(seed).public());
        assert_eq!(verify(&note, &[&other(&log(), 8)]), Err(LedgerError::Unsigned));
        let elsewhere = checkpoint::origin(VAULT, TenantId([0x33; 16]), 0, 1);
        assert_eq!(verify(&note, &[&other(&elsewhere, 7)]), Err(LedgerError::Unsigned));
        assert_eq!(verify(&note, &[]), Err(LedgerError::Unsigned));
        let key = Key::new(7);
        let checkpoint = checkpoint::sign(&log(), 43, &[1; 32], &key.public(), |text| key.sign(text)).unwrap();
        assert!(verify(&checkpoint, &[&vkey()]).is_err());
        assert!(checkpoint::verify(&note, &[&vkey()]).is_err());
        assert!(receipt::verify(&note, &[&vkey()]).is_err());
    }

    #[test]
    fn what_would_read_otherwise_is_not_signed() {
        let two_lines = ErasureReceipt { copies: vec!["copy/1\nbackups unknown".to_owned()], ..receipt() };
        let a_space = ErasureReceipt { keks: vec![("kek 1".to_owned(), 1, "enabled".to_owned())], ..receipt() };
        assert!(signed(&two_lines).is_err() && signed(&a_space).is_err());
    }

    #[test]
    fn days_are_dates() {
        for (day, text) in [(0, "1970-01-01"), (59, "1970-03-01"), (11_016, "2000-02-29"), (20_775, "2026-11-18")] {
            assert_eq!((day_text(day).as_str(), read_day(text)), (text, Some(day)));
        }
        for text in
            ["", "2026-11", "2026-00-01", "2026-13-01", "2026-02-29", "2026-11-00", "1969-12-31", "99999999999-01-01"]
        {
            assert_eq!(read_day(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_day_reads_back(day in 0..20_000_000_u32) {
            prop_assert_eq!(read_day(&day_text(day)), Some(day));
        }

        #[test]
        fn no_text_panics(text in "(\n|\n\n|[a-z —0-9/+-]){0,80}", vkey in "[a-z/+0-9=]{0,60}") {
            prop_assert!(verify(&text, &[]).is_err());
            prop_assert!(verify(&text, &[&vkey]).is_err());
            let _ = ErasureReceipt::parse(&text, "");
        }
    }
}
