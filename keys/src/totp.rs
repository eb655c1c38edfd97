//! The secret of an authenticator app (TOTP, RFC 6238): made, sealed and asked here, since it is a raw key.

use std::fmt;

use data_encoding::{BASE32_NOPAD, HEXLOWER};
use ring::digest;
use strongroom_ids::TenantId;
use subtle::ConstantTimeEq;
use totp_rs::{Algorithm, TOTP};
use zeroize::Zeroizing;

use crate::error::KeyError;
use crate::index_key::IndexKey;
use crate::random;
use crate::seal::{self, Format, SUITE};
use crate::secret::RawKey;

/// Bytes of a secret: as many as HMAC-SHA1 gives, as RFC 4226 recommends.
const SECRET: usize = 20;
/// Digits of a code.
const DIGITS: usize = 6;
/// Seconds for which a code is shown.
const STEP: u64 = 30;
/// Random bytes of a recovery code: 80 bits, which nobody guesses.
const RECOVERY: usize = 10;

/// Whose secret it is: with the format and suite, its authenticated data.
#[derive(Clone, Copy, Debug)]
pub struct TotpPlace<'a> {
    /// The tenant.
    pub tenant: TenantId,
    /// Role and name: `officer/alice`.
    pub principal: &'a str,
    /// Which of the principal's enrolments.
    pub enrolment: &'a [u8; 16],
}

impl TotpPlace<'_> {
    fn aad(&self) -> Vec<u8> {
        // A name may be longer than one byte can say.
        let name = digest::digest(&digest::SHA256, self.principal.as_bytes());
        let (format, suite) = ([Format::Totp as u8], [SUITE]);
        let parts: [&[u8]; 5] = [&format, &suite, &self.tenant.0, name.as_ref(), self.enrolment];
        let mut aad = Vec::with_capacity(5 + 1 + 1 + 16 + 32 + 16);
        for part in parts {
            // The longest has 32 bytes.
            aad.push(part.len() as u8);
            aad.extend_from_slice(part);
        }
        aad
    }
}

/// The secret that a vault shares with an authenticator app: HMAC-SHA1, 6 digits, 30 seconds, which all of them take.
/// Wiped on drop.
pub struct TotpSecret(Zeroizing<[u8; SECRET]>);

impl TotpSecret {
    /// A new random secret.
    ///
    /// # Errors
    /// [`KeyError::Random`] if the system gives no random bytes.
    pub fn new() -> Result<Self, KeyError> {
        let mut secret = Zeroizing::new([0; SECRET]);
        random::fill(secret.as_mut_slice())?;
        Ok(Self(secret))
    }

    /// Seals it for its place, in 50 bytes, under a key that only this makes of the tenant's key.
    ///
    /// # Errors
    /// [`KeyError::Random`] if the system gives no nonce.
    pub fn seal(&self, key: &IndexKey, place: &TotpPlace<'_>) -> Result<Vec<u8>, KeyError> {
        seal::seal_blob(&seal::cipher(&sealing(key)), Format::Totp, &place.aad(), self.0.as_slice())
    }

    /// Opens one that was sealed for this place.
    ///
    /// # Errors
    /// [`KeyError::CannotOpen`] if the blob was changed, or was sealed for another place or under another key.
    pub fn open(key: &IndexKey, place: &TotpPlace<'_>, sealed: &[u8]) -> Result<Self, KeyError> {
        let opened = seal::open_blob(&seal::cipher(&sealing(key)), Format::Totp, &place.aad(), sealed)?;
        let mut secret = Zeroizing::new([0; SECRET]);
        if opened.len() != secret.len() {
            return Err(KeyError::CannotOpen);
        }
        secret.copy_from_slice(opened.as_bytes());
        Ok(Self(secret))
    }

    /// The step of time that a code belongs to, counted from 1970 in 30 seconds: the one at `now`, in seconds, or the
    /// one before or after it, since clocks differ. `None`: it belongs to none of them.
    ///
    /// # Errors
    /// [`KeyError::CannotOpen`] if the secret can't be used, which one that was made here always can.
    pub fn step_of(&self, code: &str, now: u64) -> Result<Option<u64>, KeyError> {
        let step = now / STEP;
        let totp = TOTP::new(Algorithm::SHA1, DIGITS, 1, STEP, self.0.to_vec()).map_err(|_| KeyError::CannotOpen)?;
        let mut found = None;
        // All three in any case: the time of an answer tells nothing.
        for candidate in [step.saturating_sub(1), step, step.saturating_add(1)] {
            let shown = Zeroizing::new(totp.generate(candidate.saturating_mul(STEP)));
            if bool::from(shown.as_bytes().ct_eq(code.as_bytes())) {
                found = Some(candidate);
            }
        }
        Ok(found)
    }

    /// What an authenticator app reads, as text or QR code: the secret itself, shown once.
    pub fn uri(&self, issuer: &str, account: &str) -> Zeroizing<String> {
        let secret = Zeroizing::new(BASE32_NOPAD.encode(self.0.as_slice()));
        let (issuer, account) = (escaped(issuer), escaped(account));
        let secret = secret.as_str();
        Zeroizing::new(format!(
            "otpauth://totp/{issuer}:{account}?secret={secret}&issuer={issuer}\
             &algorithm=SHA1&digits={DIGITS}&period={STEP}"
        ))
    }
}

impl fmt::Debug for TotpSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TotpSecret(..)")
    }
}

/// A code for the day on which the app is lost: 80 random bits in base 32, in four groups.
///
/// # Errors
/// [`KeyError::Random`] if the system gives no random bytes.
pub fn recovery_code() -> Result<Zeroizing<String>, KeyError> {
    let bytes = Zeroizing::new(random::random::<RECOVERY>()?);
    let plain = Zeroizing::new(BASE32_NOPAD.encode(bytes.as_slice()));
    let mut code = Zeroizing::new(String::with_capacity(19));
    for (at, letter) in plain.chars().enumerate() {
        if at > 0 && at.is_multiple_of(4) {
            code.push('-');
        }
        code.push(letter);
    }
    Ok(code)
}

/// The key that seals, of the tenant's own: HMAC-SHA256 as a key derivation, with a label that nothing else has.
fn sealing(key: &IndexKey) -> RawKey {
    Zeroizing::new(key.mac(&[b"second factor: key of secrets"]))
}

/// A text in a URI: letters, digits and `-._~` as they are (RFC 3986 section 2.3).
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            true => out.push(char::from(byte)),
            false => {
                out.push('%');
                out.push_str(&HEXLOWER.encode(&[byte]).to_ascii_uppercase());
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use strongroom_ids::KeyVersion;

    use super::*;

    const PLACE: TotpPlace<'_> =
        TotpPlace { tenant: TenantId([1; 16]), principal: "officer/alice", enrolment: &[2; 16] };

    fn key(byte: u8) -> IndexKey {
        IndexKey::new(KeyVersion(1), &Zeroizing::new([byte; 32]))
    }

    /// The secret of RFC 6238, appendix B.
    fn published() -> TotpSecret {
        TotpSecret(Zeroizing::new(*b"12345678901234567890"))
    }

    #[test]
    fn codes_are_those_of_rfc_6238() {
        // The last six of the eight digits of appendix B.
        for (now, code) in [
            (59, "287082"),
            (1_111_111_109, "081804"),
            (1_111_111_111, "050471"),
            (1_234_567_890, "005924"),
            (2_000_000_000, "279037"),
            (20_000_000_000, "353130"),
        ] {
            assert_eq!(published().step_of(code, now), Ok(Some(now / STEP)), "{now}");
            assert_eq!(published().step_of(code, now + STEP), Ok(Some(now / STEP)), "a step late, {now}");
            assert_eq!(published().step_of(code, now - STEP), Ok(Some(now / STEP)), "a step early, {now}");
            assert_eq!(published().step_of(code, now + 2 * STEP), Ok(None), "{now}");
        }
    }

    #[test]
    fn what_is_no_code_belongs_to_no_step() {
        for code in ["", "2", "28708", "2870820", "287 082", " 287082", "２８７０８２", "287083", "\0\0\0\0\0\0"]
        {
            assert_eq!(published().step_of(code, 59), Ok(None), "{code:?}");
        }
        assert!(published().step_of("287082", u64::MAX).is_ok() && published().step_of("287082", 0).is_ok());
    }

    #[test]
    fn an_app_reads_the_secret_from_the_uri() {
        assert_eq!(
            *published().uri("Strongroom demo", "officer/alice"),
            "otpauth://totp/Strongroom%20demo:officer%2Falice?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ\
             &issuer=Strongroom%20demo&algorithm=SHA1&digits=6&period=30"
        );
    }

    #[test]
    fn a_secret_opens_in_its_own_place_only() {
        let sealed = published().seal(&key(1), &PLACE).unwrap();
        assert_eq!(sealed.len(), SECRET + seal::OVERHEAD);
        assert_eq!(*TotpSecret::open(&key(1), &PLACE, &sealed).unwrap().0, *published().0);
        let elsewhere = [
            TotpPlace { tenant: TenantId([2; 16]), ..PLACE },
            TotpPlace { principal: "officer/bob", ..PLACE },
            TotpPlace { enrolment: &[3; 16], ..PLACE },
        ];
        for place in elsewhere {
            assert_eq!(TotpSecret::open(&key(1), &place, &sealed).unwrap_err(), KeyError::CannotOpen, "{place:?}");
        }
        assert!(TotpSecret::open(&key(2), &PLACE, &sealed).is_err());
    }

    /// The vector in FORMAT.md: the secret of RFC 6238 under an index key of 32 bytes 01, with the nonce 0 to 11.
    #[test]
    fn the_sealed_form_is_as_specified() {
        let mut blob = vec![Format::Totp as u8, SUITE];
        let nonce = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11];
        blob.extend_from_slice(&nonce);
        let cipher = seal::cipher(&sealing(&key(1)));
        seal::seal(&cipher, &nonce, &PLACE.aad(), published().0.as_slice(), &mut blob).unwrap();
        let written = HEXLOWER.encode(&blob);
        assert!(include_str!("../FORMAT.md").contains(&written), "{written}");
        assert!(TotpSecret::open(&key(1), &PLACE, &blob).is_ok());
    }

    #[test]
    fn recovery_codes_differ_and_have_80_bits() {
        let (one, other) = (recovery_code().unwrap(), recovery_code().unwrap());
        assert_ne!(one, other);
        assert_eq!((one.len(), one.split('-').count()), (19, 4));
        assert!(BASE32_NOPAD.decode(one.replace('-', "").as_bytes()).is_ok_and(|bytes| bytes.len() == RECOVERY));
    }

    #[test]
    fn debug_shows_nothing() {
        assert_eq!(format!("{:?}", published()), "TotpSecret(..)");
    }

    proptest! {
        #[test]
        fn any_text_is_a_code_or_none(code in "\\PC*", now: u64) {
            prop_assert!(published().step_of(&code, now).is_ok());
        }

        #[test]
        fn arbitrary_bytes_never_open(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            prop_assert!(TotpSecret::open(&key(1), &PLACE, &bytes).is_err());
        }
    }
}
