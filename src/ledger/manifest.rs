//! Manifests: what the vault signs of an export, so that no line of it is left out unnoticed.
//!
//! That each line is in the log, its proofs show. That these are all that fitted, only who looked at the others can say.

use data_encoding::HEXLOWER;

use crate::error::LedgerError;
use crate::filter::Filter;
use crate::note;
use crate::receipt::LogHead;
use crate::statement::{Lines, Statement};
use crate::timestamp::Timestamp;

/// An export, as the vault sent it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Manifest {
    /// The log, as the checkpoint has it that comes with the export.
    pub log: LogHead,
    /// When the last line was sent.
    pub time: Timestamp,
    /// Index of the first leaf that was looked at.
    pub first: u64,
    /// Index after the last.
    pub end: u64,
    /// Which of them were asked for.
    pub filter: Filter,
    /// How many were sent: all that fit.
    pub lines: u64,
    /// SHA-256 over them, each line with its newline.
    pub sha256: [u8; 32],
}

/// The name that the manifests of a log are signed under, so that neither a checkpoint nor a receipt can pass for one.
fn name(origin: &str) -> Option<String> {
    origin.strip_prefix("strongroom/").map(|log| format!("strongroom-export/{log}"))
}

/// Signs a manifest. `sign` gets the bytes and returns their Ed25519 signature by the log's key, whose public half is
/// `public`.
pub fn sign(
    manifest: &Manifest,
    public: &[u8; 32],
    sign: impl FnOnce(&[u8]) -> [u8; 64],
) -> Result<String, LedgerError> {
    let name = name(&manifest.log.origin).ok_or(LedgerError::Name)?;
    manifest.sign(&name, public, sign)
}

/// Verifies a manifest against verifier keys of logs, as auditors hold them for checkpoints.
pub fn verify(note: &str, vkeys: &[&str]) -> Result<Manifest, LedgerError> {
    let (text, names) = note::open_as(note, vkeys, name)?;
    let signer = names.first().ok_or(LedgerError::Unsigned)?;
    let manifest = Manifest::parse(&text, signer)?;
    // The key is that of the log itself.
    match name(&manifest.log.origin).is_some_and(|name| names.contains(&name)) {
        true => Ok(manifest),
        false => Err(LedgerError::Origin),
    }
}

/// What a manifest says, whoever signed it: it proves nothing until a key that is known has signed it.
pub fn claimed(note: &str) -> Result<Manifest, LedgerError> {
    let text = note::claimed(note)?;
    let name = text.lines().next().unwrap_or_default().to_owned();
    let manifest = Manifest::parse(&text, &name)?;
    if self::name(&manifest.log.origin) == Some(name) { Ok(manifest) } else { Err(LedgerError::Origin) }
}

impl Statement for Manifest {
    const FORM: LedgerError = LedgerError::Note("a manifest has the lines of the ledger's FORMAT.md, section 10");

    fn lines(&self) -> String {
        format!(
            "log {}\ntime {}\nrange {} {}\nfilter {}\nlines {}\nsha256 {}\n",
            self.log.text(),
            self.time,
            self.first,
            self.end,
            self.filter.to_json(),
            self.lines,
            HEXLOWER.encode(&self.sha256)
        )
    }

    fn read(lines: &mut Lines<'_>) -> Option<Self> {
        let log = LogHead::parse(lines.after("log ")?)?;
        let time = lines.value("time ")?;
        let (first, end) = lines.after("range ")?.split_once(' ')?;
        let (first, end): (u64, u64) = (first.parse().ok()?, end.parse().ok()?);
        let filter = Filter::from_json(lines.after("filter ")?)?;
        let count = lines.value("lines ")?;
        let sha256 = HEXLOWER.decode(lines.after("sha256 ")?.as_bytes()).ok()?.try_into().ok()?;
        let within = first <= end && end <= log.size;
        within.then_some(Self { log, time, first, end, filter, lines: count, sha256 })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;
    use strongroom_ids::{SubjectHandle, TenantId, VaultId};

    use super::*;
    use crate::checkpoint::tests::{Key, is_noticed_wherever_it_is_changed, log, vector};
    use crate::{checkpoint, receipt};

    pub(crate) fn manifest() -> Manifest {
        Manifest {
            log: LogHead { origin: log(), size: 43, root: [1; 32] },
            time: Timestamp(1_795_000_000_000_000),
            first: 0,
            end: 40,
            filter: Filter {
                action: Some("detokenize".to_owned()),
                subjects: Some(vec![SubjectHandle(281_474_976_710_658)]),
                ..Filter::default()
            },
            lines: 3,
            sha256: [2; 32],
        }
    }

    pub(crate) fn signed(manifest: &Manifest) -> String {
        let key = Key::new(7);
        sign(manifest, &key.public(), |text| key.sign(text)).unwrap()
    }

    fn vkey() -> String {
        checkpoint::vkey(&log(), &Key::new(7).public())
    }

    #[test]
    fn a_manifest_is_written_as_specified() {
        assert_eq!(signed(&manifest()), vector("manifest"));
    }

    #[test]
    fn a_manifest_says_what_was_signed() {
        let whole = Manifest { filter: Filter::default(), end: 43, ..manifest() };
        for manifest in [manifest(), whole] {
            assert_eq!(verify(&signed(&manifest), &[&vkey()]), Ok(manifest));
        }
    }

    #[test]
    fn every_changed_byte_of_a_manifest_is_noticed() {
        is_noticed_wherever_it_is_changed(&signed(&manifest()), |changed| verify(changed, &[&vkey()]).is_err());
    }

    #[test]
    fn nothing_else_that_the_log_signs_passes_for_a_manifest_and_no_other_log_signs_one() {
        let key = Key::new(7);
        let note = signed(&manifest());
        let checkpoint = checkpoint::sign(&log(), 43, &[1; 32], &key.public(), |text| key.sign(text)).unwrap();
        assert!(verify(&checkpoint, &[&vkey()]).is_err());
        assert!(checkpoint::verify(&note, &[&vkey()]).is_err());
        assert!(receipt::verify(&note, &[&vkey()]).is_err());
        // Another tenant's log under the same key, and another key.
        let other = checkpoint::origin(VaultId([0x11; 16]), TenantId([0x23; 16]), 0, 1);
        assert_eq!(verify(&note, &[&checkpoint::vkey(&other, &key.public())]), Err(LedgerError::Unsigned));
        assert_eq!(verify(&note, &[&checkpoint::vkey(&log(), &Key::new(8).public())]), Err(LedgerError::Unsigned));
        assert_eq!(verify(&note, &[&vkey(), "x"]), Err(LedgerError::Key { place: 2 }));
    }

    #[test]
    fn what_would_read_otherwise_is_not_signed() {
        let key = Key::new(7);
        let with = |change: fn(&mut Manifest)| {
            let mut manifest = manifest();
            change(&mut manifest);
            sign(&manifest, &key.public(), |text| key.sign(text))
        };
        assert!(with(|manifest| manifest.log.origin.push_str(" 9")).is_err());
        assert!(with(|manifest| manifest.log.origin = "elsewhere".to_owned()).is_err());
        assert!(with(|manifest| manifest.first = 41).is_err());
        assert!(with(|manifest| manifest.end = 44).is_err());
        assert!(with(|manifest| manifest.filter.principal = Some("a\u{85}\n\u{2028}".to_owned())).is_ok());
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(\n|\n\n|[a-z —0-9/+{}\"]){0,60}", vkey in "[a-z/+0-9=]{0,60}") {
            prop_assert!(verify(&text, &[]).is_err());
            prop_assert!(verify(&text, &[&vkey]).is_err());
            let _ = Manifest::parse(&text, "");
        }
    }
}
