//! Second factors: what is kept of one, what a code does to it, and the assertion that a right one gives.
//!
//! A code is used once: its step of time must lie above the last one that was used, so neither a replay nor a clock
//! that was set back gives anything. Wrong codes lock the factor, for longer each time.

use std::fmt;

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use serde::{Deserialize, Serialize};

use crate::query::SecondFactor;

/// The format of what is stored, and of an assertion.
const FORMAT: u8 = 1;
/// Wrong codes in a row that are forgiven.
const FORGIVEN: u32 = 4;
const SECOND: u64 = 1_000_000;
/// How long the first lock lasts, in microseconds.
const FIRST_LOCK: u64 = 15 * 60 * SECOND;
/// How long a lock lasts at most, in microseconds.
const LONGEST_LOCK: u64 = 24 * 3_600 * SECOND;
/// How long an assertion is good for, in microseconds: five minutes.
pub const ASSERTION_LIFE: u64 = 5 * 60 * SECOND;
/// Recovery codes that an enrolment comes with.
pub const RECOVERY_CODES: usize = 10;

/// What kind of factor it is. Others may follow.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FactorKind {
    /// An authenticator app (RFC 6238).
    Totp,
}

impl FactorKind {
    /// The name on the wire and in the ledger.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Totp => "totp",
        }
    }
}

/// One enrolment of a factor.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Enrolment {
    /// What kind of factor it is.
    pub kind: FactorKind,
    /// 16 random bytes that name it, in lower-case hexadecimal.
    pub id: String,
    /// The sealed secret, in lower-case hexadecimal.
    pub sealed: String,
    /// When it was made, in microseconds since 1970.
    pub enrolled: u64,
    /// Keyed hashes of the recovery codes that were not used yet, in lower-case hexadecimal.
    pub recovery: Vec<String>,
}

impl Enrolment {
    /// The bytes that name it.
    pub fn id(&self) -> Option<[u8; 16]> {
        HEXLOWER.decode(self.id.as_bytes()).ok()?.try_into().ok()
    }

    /// The sealed secret.
    pub fn sealed(&self) -> Option<Vec<u8>> {
        HEXLOWER.decode(self.sealed.as_bytes()).ok()
    }
}

// Neither the secret's blob nor the hashes are of use in a log.
impl fmt::Debug for Enrolment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Enrolment").field("kind", &self.kind).field("id", &self.id).finish_non_exhaustive()
    }
}

/// What is kept of one principal's second factor.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Factor {
    format: u8,
    /// Whose it is, by role and name.
    pub principal: String,
    /// The one that counts; none before the first is confirmed.
    pub confirmed: Option<Enrolment>,
    /// One that waits for its first code, and takes the other's place then.
    pub pending: Option<Enrolment>,
    /// The step of time of the last code that was used.
    last_step: u64,
    /// Wrong codes since the last right one.
    failures: u32,
    /// Until when every code is refused, in microseconds since 1970; 0: not locked.
    locked_until: u64,
}

/// What somebody showed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Shown {
    /// A code of this step of time; `None`: of none.
    Step(Option<u64>),
    /// A recovery code, by its keyed hash in lower-case hexadecimal.
    Recovery(String),
}

/// What a code came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It is right, and used now.
    Right,
    /// It is wrong, or was used already.
    Wrong,
}

impl Factor {
    /// That of a principal, before its first enrolment.
    pub fn new(principal: &str) -> Self {
        Self {
            format: FORMAT,
            principal: principal.to_owned(),
            confirmed: None,
            pending: None,
            last_step: 0,
            failures: 0,
            locked_until: 0,
        }
    }

    /// Whether it is one that this version writes, of this principal.
    pub fn is_sound(&self, principal: &str) -> bool {
        let whole =
            |one: &Enrolment| one.id().is_some() && one.sealed().is_some() && one.recovery.len() <= RECOVERY_CODES;
        self.format == FORMAT
            && self.principal == principal
            && self.confirmed.iter().chain(&self.pending).all(whole)
            && (self.confirmed.is_some() || self.pending.is_some())
    }

    /// Until when every code is refused, if it is locked at a time, both in microseconds since 1970.
    pub fn locked(&self, now: u64) -> Option<u64> {
        // A clock that was once far ahead must not lock somebody out for longer than a lock may last.
        let until = self.locked_until.min(now.saturating_add(LONGEST_LOCK));
        (now < until).then_some(until)
    }

    /// Uses a code of the factor that counts. Never of one that is locked.
    pub fn use_code(&mut self, shown: &Shown, now: u64) -> Outcome {
        let Some(enrolment) = &mut self.confirmed else { return self.wrong(now) };
        match shown {
            Shown::Step(Some(step)) if *step > self.last_step => {
                self.last_step = *step;
                self.right()
            }
            Shown::Recovery(hash) => match enrolment.recovery.iter().position(|kept| kept == hash) {
                Some(at) => {
                    enrolment.recovery.remove(at);
                    self.right()
                }
                None => self.wrong(now),
            },
            Shown::Step(_) => self.wrong(now),
        }
    }

    /// Confirms the enrolment that waits, by the first code of its app: from then on it is the one that counts.
    pub fn confirm(&mut self, step: Option<u64>, now: u64) -> Outcome {
        match (self.pending.take(), step) {
            (Some(pending), Some(step)) => {
                self.confirmed = Some(pending);
                self.last_step = step;
                self.right()
            }
            (pending, _) => {
                self.pending = pending;
                self.wrong(now)
            }
        }
    }

    fn right(&mut self) -> Outcome {
        self.failures = 0;
        self.locked_until = 0;
        Outcome::Right
    }

    fn wrong(&mut self, now: u64) -> Outcome {
        self.failures = self.failures.saturating_add(1);
        if let Some(doublings) = self.failures.checked_sub(FORGIVEN + 1) {
            // Seven doublings of a quarter of an hour are more than a day.
            let lock = FIRST_LOCK.saturating_mul(1 << doublings.min(7)).min(LONGEST_LOCK);
            self.locked_until = now.saturating_add(lock);
        }
        Outcome::Wrong
    }
}

/// What a right code gives: for five minutes it shows that the caller has the factor, perhaps for one request alone.
///
/// Whose it is (tenant, principal and the key of the certificate) stands in what its MAC covers, not in the text: shown
/// by anybody else, it does not hold.
#[derive(Clone, PartialEq, Eq)]
pub struct Assertion {
    /// Until when, in microseconds since 1970.
    pub expires: u64,
    /// By which enrolment.
    pub enrolment: [u8; 16],
    /// The keyed hash of the one request that it is for; none: for any.
    pub request: Option<[u8; 32]>,
    /// The MAC over all of it.
    pub mac: [u8; 32],
}

/// Who shows an assertion.
#[derive(Clone, Copy)]
pub struct Holder<'a> {
    /// The tenant's permanent id.
    pub tenant: &'a [u8; 16],
    /// Role and name.
    pub principal: &'a str,
    /// SHA-256 of the certificate's public key.
    pub certificate: &'a [u8; 32],
}

/// Bytes of an assertion that is for any request.
const SHORT: usize = 2 + 8 + 16 + 32;
/// Bytes of one that is for a request.
const LONG: usize = SHORT + 32;

impl Assertion {
    /// What the MAC covers, part by part, for [`Holder`].
    pub fn authenticated<T>(&self, holder: &Holder<'_>, mac: impl FnOnce(&[&[u8]]) -> T) -> T {
        let expires = self.expires.to_be_bytes();
        let request = self.request.as_ref().map_or(&[][..], |request| request.as_slice());
        mac(&[
            b"second factor: assertion",
            &[FORMAT],
            &expires,
            &self.enrolment,
            request,
            holder.tenant,
            holder.principal.as_bytes(),
            holder.certificate,
        ])
    }

    /// The text: format, 1 if it is for a request and else 0, expiry (8 bytes, big-endian), enrolment (16), the request
    /// if it is for one (32) and the MAC (32), in base 64 for URLs.
    pub fn to_text(&self) -> String {
        let mut bytes = Vec::with_capacity(LONG);
        bytes.extend_from_slice(&[FORMAT, u8::from(self.request.is_some())]);
        bytes.extend_from_slice(&self.expires.to_be_bytes());
        bytes.extend_from_slice(&self.enrolment);
        bytes.extend_from_slice(self.request.as_ref().map_or(&[][..], |request| request.as_slice()));
        bytes.extend_from_slice(&self.mac);
        BASE64URL_NOPAD.encode(&bytes)
    }

    /// Reads the text. Whether it holds, only who has the key can say.
    pub fn parse(text: &[u8]) -> Option<Self> {
        // Nothing longer is decoded: it comes from outside.
        if text.len() > LONG.div_ceil(3) * 4 {
            return None;
        }
        let bytes = BASE64URL_NOPAD.decode(text).ok()?;
        let (&is_bound, rest) = bytes.strip_prefix(&[FORMAT])?.split_first()?;
        let (expires, rest) = rest.split_first_chunk::<8>()?;
        let (enrolment, rest) = rest.split_first_chunk::<16>()?;
        let (request, mac) = match (is_bound, bytes.len()) {
            (0, SHORT) => (None, rest),
            (1, LONG) => rest.split_first_chunk::<32>().map(|(request, mac)| (Some(*request), mac))?,
            _ => return None,
        };
        let mac = mac.try_into().ok()?;
        Some(Self { expires: u64::from_be_bytes(*expires), enrolment: *enrolment, request, mac })
    }

    /// How policy sees it, of one that holds: `request` is the keyed hash of what is asked, if it has one.
    pub fn seen(&self, request: Option<&[u8; 32]>) -> SecondFactor {
        match (&self.request, request) {
            (None, _) => SecondFactor::Fresh,
            (Some(of), Some(asked)) if of == asked => SecondFactor::Bound,
            // It is for that request alone.
            (Some(_), _) => SecondFactor::Absent,
        }
    }
}

// It lets whoever has it and the certificate's key do something: it is no text for logs.
impl fmt::Debug for Assertion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Assertion").field("expires", &self.expires).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: u64 = 1_795_000_000_000_000;

    fn enrolment(recovery: &[&str]) -> Enrolment {
        Enrolment {
            kind: FactorKind::Totp,
            id: "02".repeat(16),
            sealed: "0701".to_owned(),
            enrolled: NOW,
            recovery: recovery.iter().map(|hash| (*hash).to_owned()).collect(),
        }
    }

    fn confirmed() -> Factor {
        let mut factor = Factor::new("officer/alice");
        factor.pending = Some(enrolment(&["aa", "bb"]));
        assert_eq!(factor.confirm(Some(100), NOW), Outcome::Right);
        factor
    }

    fn step(step: u64) -> Shown {
        Shown::Step(Some(step))
    }

    #[test]
    fn a_code_is_used_once_and_none_before_it_after() {
        let mut factor = confirmed();
        assert_eq!(factor.use_code(&step(100), NOW), Outcome::Wrong, "it confirmed the enrolment");
        assert_eq!(factor.use_code(&step(101), NOW), Outcome::Right);
        assert_eq!(factor.use_code(&step(101), NOW), Outcome::Wrong);
        assert_eq!(factor.use_code(&step(99), 0), Outcome::Wrong, "the clock was set back");
        assert_eq!(factor.use_code(&step(102), NOW), Outcome::Right);
        assert_eq!(factor.use_code(&Shown::Step(None), NOW), Outcome::Wrong);
    }

    #[test]
    fn each_recovery_code_is_used_once() {
        let mut factor = confirmed();
        for (hash, outcome) in
            [("aa", Outcome::Right), ("aa", Outcome::Wrong), ("cc", Outcome::Wrong), ("bb", Outcome::Right)]
        {
            assert_eq!(factor.use_code(&Shown::Recovery(hash.to_owned()), NOW), outcome, "{hash}");
        }
        assert!(factor.confirmed.unwrap().recovery.is_empty());
    }

    #[test]
    fn guesses_lock_it_for_longer_each_time_and_a_right_code_forgives() {
        let mut factor = confirmed();
        for _ in 0..FORGIVEN {
            factor.use_code(&Shown::Step(None), NOW);
            assert_eq!(factor.locked(NOW), None);
        }
        let mut now = NOW;
        for minutes in [15, 30, 60, 120, 240, 480, 960, 1_440, 1_440] {
            factor.use_code(&Shown::Step(None), now);
            let until = factor.locked(now).unwrap();
            assert_eq!(until - now, minutes * 60 * SECOND);
            assert!(factor.locked(until - 1).is_some());
            now = until;
            assert_eq!(factor.locked(now), None);
        }
        assert_eq!(factor.use_code(&step(200), now), Outcome::Right);
        factor.use_code(&Shown::Step(None), now);
        assert_eq!(factor.locked(now), None);
    }

    #[test]
    fn a_clock_that_was_ahead_locks_nobody_out_for_long() {
        let mut factor = confirmed();
        for _ in 0..=FORGIVEN {
            factor.use_code(&Shown::Step(None), u64::MAX / 2);
        }
        assert_eq!(factor.locked(NOW), Some(NOW + LONGEST_LOCK));
    }

    #[test]
    fn the_old_factor_counts_until_the_new_one_is_confirmed() {
        let mut factor = confirmed();
        let old = factor.confirmed.clone();
        factor.pending = Some(Enrolment { id: "03".repeat(16), ..enrolment(&["dd"]) });
        assert_eq!(factor.confirm(None, NOW), Outcome::Wrong);
        assert_eq!((factor.confirmed == old, factor.pending.is_some()), (true, true));
        assert_eq!(factor.use_code(&step(101), NOW), Outcome::Right);
        assert_eq!(factor.confirm(Some(5), NOW), Outcome::Right, "another secret has steps of its own");
        assert_eq!(factor.confirmed.as_ref().unwrap().id, "03".repeat(16));
        assert_eq!(factor.confirm(Some(6), NOW), Outcome::Wrong, "nothing waits");
        assert_eq!(factor.use_code(&Shown::Recovery("aa".to_owned()), NOW), Outcome::Wrong);
    }

    #[test]
    fn it_is_stored_as_specified() {
        let factor = confirmed();
        let stored = serde_json::to_string(&factor).unwrap();
        let page = include_str!("../storage/FORMAT.md");
        let (_, rest) = page.split_once("The document of a second factor is JSON").unwrap();
        let sample = rest.split("```json").nth(1).unwrap().split("```").next().unwrap();
        let lines: String = sample.trim().lines().map(str::trim).collect();
        assert_eq!(stored, lines);
        assert_eq!(serde_json::from_str::<Factor>(&stored).unwrap(), factor);
        assert!(factor.is_sound("officer/alice") && !factor.is_sound("officer/bob"));
        for (from, to) in [("\"format\":1", "\"format\":2"), ("\"0202", "\"zz02"), ("\"0701\"", "\"070\"")] {
            assert!(stored.contains(from), "{from}");
            let other: Factor = serde_json::from_str(&stored.replacen(from, to, 1)).unwrap();
            assert!(!other.is_sound("officer/alice"), "{to}");
        }
        assert!(serde_json::from_str::<Factor>(&stored.replacen("totp", "sms", 1)).is_err());
    }

    fn assertion(request: Option<[u8; 32]>) -> Assertion {
        Assertion { expires: NOW, enrolment: [2; 16], request, mac: [9; 32] }
    }

    #[test]
    fn an_assertion_is_for_what_it_was_given_for() {
        let (one, other) = ([1; 32], [2; 32]);
        assert_eq!(assertion(None).seen(None), SecondFactor::Fresh);
        assert_eq!(assertion(None).seen(Some(&one)), SecondFactor::Fresh);
        assert_eq!(assertion(Some(one)).seen(Some(&one)), SecondFactor::Bound);
        assert_eq!(assertion(Some(one)).seen(Some(&other)), SecondFactor::Absent);
        assert_eq!(assertion(Some(one)).seen(None), SecondFactor::Absent);
    }

    #[test]
    fn what_is_authenticated_tells_any_two_apart() {
        let parts = |assertion: &Assertion, holder: &Holder<'_>| {
            assertion.authenticated(holder, |parts| parts.iter().map(|part| part.to_vec()).collect::<Vec<_>>())
        };
        let holder = Holder { tenant: &[1; 16], principal: "officer/alice", certificate: &[3; 32] };
        let same = parts(&assertion(None), &holder);
        assert_eq!(parts(&Assertion { mac: [0; 32], ..assertion(None) }, &holder), same);
        for other in [
            parts(&Assertion { expires: NOW + 1, ..assertion(None) }, &holder),
            parts(&Assertion { enrolment: [3; 16], ..assertion(None) }, &holder),
            parts(&assertion(Some([0; 32])), &holder),
            parts(&assertion(None), &Holder { tenant: &[2; 16], ..holder }),
            parts(&assertion(None), &Holder { principal: "officer/bob", ..holder }),
            parts(&assertion(None), &Holder { certificate: &[4; 32], ..holder }),
        ] {
            assert_ne!(other, same);
        }
    }

    proptest! {
        #[test]
        fn an_assertion_reads_back_and_nothing_else_does(
            expires: u64, enrolment: [u8; 16], request: Option<[u8; 32]>, mac: [u8; 32], at: prop::sample::Index,
        ) {
            let one = Assertion { expires, enrolment, request, mac };
            let text = one.to_text();
            prop_assert_eq!(Assertion::parse(text.as_bytes()).unwrap(), one.clone());
            prop_assert!(Assertion::parse(&text.as_bytes()[..at.index(text.len())]).is_none());
            let longer = format!("{text}AAAA");
            prop_assert!(Assertion::parse(longer.as_bytes()).is_none_or(|other| other != one));
        }

        #[test]
        fn garbage_is_no_assertion_or_reads_back(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Some(one) = Assertion::parse(&bytes) {
                prop_assert_eq!(one.to_text().into_bytes(), bytes);
            }
        }

        #[test]
        fn no_code_is_ever_used_twice(steps in proptest::collection::vec(90_u64..120, 0..40)) {
            let mut factor = confirmed();
            let mut used = Vec::new();
            for one in steps {
                if factor.use_code(&step(one), NOW) == Outcome::Right {
                    prop_assert!(!used.contains(&one));
                    used.push(one);
                }
            }
        }
    }
}
