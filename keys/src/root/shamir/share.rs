//! One share of a root key, and the text that its holder keeps.

use std::fmt;

use data_encoding::BASE32_NOPAD;
use ring::{digest, hmac};
use zeroize::{ZeroizeOnDrop, Zeroizing};

use crate::secret::{self, RawKey};

/// Bytes of a set's name.
pub(super) const SET: usize = 8;
/// Bytes of a share's fingerprint.
pub(super) const FINGERPRINT: usize = 8;

/// What the text of every share begins with.
const PREFIX: &str = "srs1";
/// Set, number, threshold, the share itself.
const BODY: usize = SET + 1 + 1 + 32;
const CHECKSUM: usize = 3;
/// Letters and digits of a share's text after its prefix: a multiple of five bytes, so that none is left over.
const LETTERS: usize = (BODY + CHECKSUM) * 8 / 5;
/// Bytes of text that are looked at. What is longer is no share, however many spaces are in it.
const LONGEST: usize = 1_024;

/// One share of a root key. Wiped on drop.
pub struct Share {
    pub(super) set: [u8; SET],
    /// Which one it is, from 1 on: where the polynomials were evaluated.
    pub(super) number: u8,
    /// How many are needed.
    pub(super) threshold: u8,
    y: RawKey,
}

impl Share {
    /// A share as the crate that splits has it: its number, and its bytes.
    pub(super) fn from_point(set: [u8; SET], threshold: u8, point: &[u8]) -> Option<Self> {
        let (&number, bytes) = point.split_first()?;
        Some(Self { set, number, threshold, y: secret::raw_key(bytes)? })
    }

    pub(super) fn point(&self) -> Vec<u8> {
        // One allocation of the exact size: growing would leave a part behind.
        let mut point = Vec::with_capacity(1 + self.y.len());
        point.push(self.number);
        point.extend_from_slice(self.y.as_slice());
        point
    }

    /// By what a changed share is told. It gives nothing away: it is a hash of 256 bits that nobody knows who has fewer
    /// shares than are needed, and the wrapped key lets guesses be tested as well.
    pub(super) fn fingerprint(&self) -> [u8; FINGERPRINT] {
        const DOMAIN: &[u8] = b"strongroom share 1";
        const { assert!(DOMAIN.len() < 256) }
        let mut mac = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, &self.set));
        for part in [DOMAIN, &[self.number], &[self.threshold], self.y.as_slice()] {
            mac.update(&[part.len() as u8]);
            mac.update(part);
        }
        mac.sign().as_ref().first_chunk().copied().unwrap_or_default()
    }

    /// Which share it is, from 1 on.
    pub fn number(&self) -> u8 {
        self.number
    }

    /// The text that its holder keeps: `srs1-` and 72 letters and digits.
    pub fn text(&self) -> Zeroizing<String> {
        let mut bytes = Zeroizing::new([0; BODY + CHECKSUM]);
        let (body, checksum) = bytes.split_at_mut(BODY);
        body[..SET].copy_from_slice(&self.set);
        body[SET] = self.number;
        body[SET + 1] = self.threshold;
        body[SET + 2..].copy_from_slice(self.y.as_slice());
        checksum.copy_from_slice(&checksum_of(body));
        let mut letters = Zeroizing::new(BASE32_NOPAD.encode(bytes.as_slice()));
        letters.make_ascii_lowercase();
        let mut text = Zeroizing::new(String::with_capacity(PREFIX.len() + 1 + LETTERS));
        text.push_str(PREFIX);
        text.push('-');
        text.push_str(&letters);
        text
    }

    /// Reads a text. Spaces, line ends, hyphens and capitals are no matter: people type it.
    pub(super) fn parse(text: &str) -> Result<Self, Misread> {
        if text.len() > LONGEST {
            return Err(Misread::NoShare);
        }
        // Room for all of it: growing would leave a part behind.
        let mut letters = Zeroizing::new(String::with_capacity(text.len()));
        let typed = text.chars().filter(|c| !c.is_whitespace() && *c != '-');
        letters.extend(typed.map(|c| c.to_ascii_uppercase()));
        let rest = letters.strip_prefix("SRS1").ok_or(Misread::NoShare)?;
        if rest.len() != LETTERS {
            return Err(Misread::Length { has: rest.chars().count() });
        }
        let mut bytes = Zeroizing::new([0; BODY + CHECKSUM]);
        BASE32_NOPAD.decode_mut(rest.as_bytes(), bytes.as_mut_slice()).map_err(|_| Misread::Letter)?;
        let (body, checksum) = bytes.split_at(BODY);
        if checksum != checksum_of(body) {
            return Err(Misread::Checksum);
        }
        let mut set = [0; SET];
        set.copy_from_slice(&body[..SET]);
        let mut y = Zeroizing::new([0; 32]);
        y.copy_from_slice(&body[SET + 2..]);
        Ok(Self { set, number: body[SET], threshold: body[SET + 1], y })
    }
}

/// Finds one letter mistyped, or two exchanged. It is no protection.
fn checksum_of(body: &[u8]) -> [u8; CHECKSUM] {
    digest::digest(&digest::SHA256, body).as_ref().first_chunk().copied().unwrap_or_default()
}

/// Why a text is no share, or not one any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Misread {
    NoShare,
    Length { has: usize },
    Letter,
    Checksum,
}

impl fmt::Display for Misread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoShare => write!(f, "this is not a share: a share begins with `{PREFIX}-`"),
            Self::Length { has } => write!(
                f,
                "the share was changed: it has {has} letters and digits after `{PREFIX}-`, and {LETTERS} are right; read \
                 it again from where it is kept"
            ),
            Self::Letter => write!(
                f,
                "the share was changed: it has a sign that no share has; they are the letters a to z and the digits 2 to 7"
            ),
            Self::Checksum => write!(
                f,
                "the share was changed: its checksum does not match, so at least one letter is mistyped; read it again \
                 from where it is kept"
            ),
        }
    }
}

impl ZeroizeOnDrop for Share {}

impl fmt::Debug for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Share({})", self.number)
    }
}
