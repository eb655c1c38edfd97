//! Reads a leaf without keeping it: sees that a line is a leaf in its one form, and takes no memory for what it says.
//!
//! [`super::parse()`] keeps everything, writes it again and compares, which takes several times as long. Here the form is
//! checked while it is read, member by member. It takes only what it is sure of: no escapes in strings, no list that is
//! nearly as long as one may be. A line that it does not take may be a leaf all the same, and [`super::parse()`] says; one
//! that it takes is a leaf that says the same there.

use super::write::{MAX_DETAIL, MAX_KEYS, MAX_OMISSION, MAX_STRING};
use super::{MAX_LINE, Part};
use crate::timestamp::Timestamp;

/// What a line says of a leaf as a whole, as far as a verifier counts it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Scanned<'l> {
    /// Its place in the log.
    pub index: u64,
    /// When it was committed.
    pub time: Timestamp,
    /// Which part of a large request it is.
    pub part: Option<Part>,
    /// The request's number.
    pub request: [u8; 16],
    /// What was asked for.
    pub action: &'l [u8],
    /// What was decided.
    pub decision: &'l [u8],
}

/// Reads a line (without its newline). None if it is not sure of it, and if a member of `detail` has one of these names.
pub(crate) fn scan<'l>(line: &'l [u8], unless: &[&str]) -> Option<Scanned<'l>> {
    if line.len() > MAX_LINE {
        return None;
    }
    let mut at = Cursor { rest: line };
    at.take(br#"{"index":""#)?;
    let index = at.number()?;
    at.take(br#"","time":""#)?;
    let time = at.time()?;
    at.take(br#"","#)?;
    let part = if at.takes(br#""part":""#) { Some(at.part()?) } else { None };
    at.take(br#""request":""#)?;
    let request = at.hex()?;
    at.take(br#"","principal":"#)?;
    at.string()?;
    at.string_after(br#","actor":"#)?;
    at.take(br#","action":"#)?;
    let action = at.string()?;
    at.string_after(br#","purpose":"#)?;
    at.take(br#","decision":"#)?;
    let decision = at.string()?;
    at.string_after(br#","reason":"#)?;
    at.take(br#","policy":"#)?;
    at.small()?;
    at.take(br#","schema":"#)?;
    at.small()?;
    at.take(br#","keys":"#)?;
    at.members(MAX_KEYS, |at, _| at.small().map(drop))?;
    at.take(br#","client":"#)?;
    at.string()?;
    if at.takes(br#","detail":"#) {
        let said = at.members(MAX_DETAIL, |at, name| {
            at.string()?;
            unless.iter().all(|word| word.as_bytes() != name).then_some(())
        })?;
        // One that says nothing is not written.
        if said == 0 {
            return None;
        }
    }
    if at.takes(br#","items":["#) {
        at.item()?;
        while at.takes(b",") {
            at.item()?;
        }
        at.take(b"]")?;
    }
    at.take(b"}")?;
    at.rest.is_empty().then_some(Scanned { index, time, part, request, action, decision })
}

/// What is left of a line. Whatever does not stand there as it should ends the reading.
struct Cursor<'l> {
    rest: &'l [u8],
}

impl<'l> Cursor<'l> {
    /// Goes on behind just these bytes.
    #[inline]
    fn take(&mut self, bytes: &[u8]) -> Option<()> {
        self.rest = self.rest.strip_prefix(bytes)?;
        Some(())
    }

    /// Goes on behind these bytes if they stand here.
    #[inline]
    fn takes(&mut self, bytes: &[u8]) -> bool {
        self.take(bytes).is_some()
    }

    /// A number without zeros in front.
    #[inline]
    fn number(&mut self) -> Option<u64> {
        let (mut number, mut digits) = (0_u64, 0);
        while let Some(digit) = self.rest.get(digits).map(|byte| byte.wrapping_sub(b'0')).filter(|digit| *digit <= 9) {
            number = number.checked_mul(10)?.checked_add(digit.into())?;
            digits += 1;
        }
        let (written, rest) = self.rest.split_at(digits);
        self.rest = rest;
        (digits == 1 || written.first().is_some_and(|first| *first != b'0')).then_some(number)
    }

    /// A number of 32 bits.
    fn small(&mut self) -> Option<u32> {
        u32::try_from(self.number()?).ok()
    }

    fn time(&mut self) -> Option<Timestamp> {
        let (text, rest) = self.rest.split_first_chunk::<27>()?;
        self.rest = rest;
        Timestamp::from_ascii(text)
    }

    /// `1/3",`
    fn part(&mut self) -> Option<Part> {
        let which = self.number()?;
        self.take(b"/")?;
        let of = self.number()?;
        self.take(br#"","#)?;
        Some(Part { which, of })
    }

    /// A string in quotes that needs no escapes; what is between them.
    fn string(&mut self) -> Option<&'l [u8]> {
        self.take(b"\"")?;
        let end = self.rest.iter().position(|byte| !PLAIN[usize::from(*byte)])?;
        let (text, rest) = self.rest.split_at(end);
        self.rest = rest.strip_prefix(b"\"")?;
        (text.len() <= MAX_STRING).then_some(text)
    }

    /// A string that may be missing, behind what names it.
    fn string_after(&mut self, name: &[u8]) -> Option<()> {
        if self.takes(name) { self.string().map(drop) } else { Some(()) }
    }

    /// Bytes in lower-case hexadecimal.
    fn hex<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (text, rest) = self.rest.split_at_checked(2 * N)?;
        self.rest = rest;
        let (mut bytes, mut seen) = ([0; N], 0);
        for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
            let (high, low) = (NIBBLE[usize::from(pair[0])], NIBBLE[usize::from(pair[1])]);
            seen |= high | low;
            *byte = (high << 4) | (low & 15);
        }
        (seen < 16).then_some(bytes)
    }

    /// An object whose members take fewer bytes than `room` by so much that none can have been left out; how many there are.
    fn members(&mut self, room: usize, mut value: impl FnMut(&mut Self, &'l [u8]) -> Option<()>) -> Option<usize> {
        self.take(b"{")?;
        if self.takes(b"}") {
            return Some(0);
        }
        let before = self.rest.len();
        let mut count = 0;
        loop {
            let name = self.string()?;
            self.take(b":")?;
            value(self, name)?;
            count += 1;
            if before - self.rest.len() + MAX_OMISSION > room {
                return None;
            }
            if self.takes(b"}") {
                return Some(count);
            }
            self.take(b",")?;
        }
    }

    fn item(&mut self) -> Option<()> {
        self.take(b"{")?;
        if self.takes(br#""field":"#) {
            self.string()?;
            self.take(b",")?;
        }
        if self.takes(br#""row":""#) {
            self.number()?;
            self.take(br#"","#)?;
        }
        if self.takes(br#""view":"#) {
            self.string()?;
            self.take(b",")?;
        }
        self.take(br#""outcome":"#)?;
        self.string()?;
        if self.takes(br#","subject":""#) {
            self.number()?;
            self.take(b"\"")?;
        }
        if self.takes(br#","version":"#) {
            self.small()?;
        }
        for name in [&br#","sha256":""#[..], br#","sent":""#] {
            if self.takes(name) {
                self.hex::<32>()?;
                self.take(b"\"")?;
            }
        }
        self.take(b"}")
    }
}

/// Which bytes stand in a string as they are.
const PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let mut byte = b' ';
    while byte <= b'~' {
        plain[byte as usize] = byte != b'"' && byte != b'\\';
        byte += 1;
    }
    plain
};

/// What a digit of hexadecimal means; more than 15 for what is none.
const NIBBLE: [u8; 256] = {
    let mut nibbles = [0xff; 256];
    let digits = b"0123456789abcdef";
    let mut digit = 0;
    while digit < digits.len() {
        nibbles[digits[digit] as usize] = digit as u8;
        digit += 1;
    }
    nibbles
};

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use strongroom_ids::{RowId, RowVersion, SubjectHandle};

    use super::*;
    use crate::leaf::{LeafHeader, LeafItem, parse, prepare};

    /// Lines as the vault writes them of requests like these.
    fn lines(
        (words, absent): (&[String], [bool; 3]),
        keys: &[(String, u32)],
        detail: &[(String, String)],
        items: &[(bool, u64, String, Option<[u8; 32]>)],
        (index, time): (u64, u64),
    ) -> Vec<Vec<u8>> {
        let unless = |absent: bool, word: usize| (!absent).then(|| words[word].as_str());
        let detail: Vec<(&str, &str)> = detail.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let header = LeafHeader {
            request: &[0xa5; 16],
            principal: &words[0],
            actor: unless(absent[0], 1),
            action: &words[2],
            purpose: unless(absent[1], 3),
            decision: &words[4],
            reason: unless(absent[2], 5),
            policy: 3,
            schema: u32::MAX,
            keys,
            client: &words[6],
            detail: &detail,
        };
        let leaves = prepare(
            &header,
            items.iter().map(|(named, row, outcome, hash)| LeafItem {
                field: named.then_some("borrower.name"),
                row: Some(RowId(*row)),
                view: (!named).then_some("masked"),
                outcome,
                subject: named.then_some(SubjectHandle(*row)),
                version: hash.map(|_| RowVersion(1)),
                hash: hash.as_ref(),
                sent: hash.as_ref().filter(|_| *named),
            }),
        );
        leaves.iter().map(|leaf| leaf.finish(index, Timestamp(time))).collect()
    }

    /// What is scanned is a leaf that says the same.
    fn is_sound(line: &[u8]) -> Result<bool, TestCaseError> {
        let Some(scanned) = scan(line, &["stage"]) else { return Ok(false) };
        let parsed = parse(line);
        prop_assert!(parsed.is_ok(), "{}", String::from_utf8_lossy(line));
        let leaf = parsed.unwrap();
        let said = Scanned {
            index: leaf.index,
            time: leaf.time,
            part: leaf.part,
            request: leaf.request,
            action: leaf.action.as_bytes(),
            decision: leaf.decision.as_bytes(),
        };
        prop_assert_eq!(scanned, said);
        prop_assert!(leaf.detail.iter().all(|(name, _)| name != "stage"));
        Ok(true)
    }

    #[test]
    fn the_specified_leaves_are_scanned_unless_they_have_escapes() {
        let vectors: Vec<&str> =
            include_str!("../FORMAT.md").lines().filter(|line| line.starts_with("{\"index\"")).collect();
        let scanned: Vec<bool> = vectors.iter().map(|line| is_sound(line.as_bytes()).unwrap()).collect();
        assert_eq!(scanned, [true, true, false]);
        assert_eq!(scan(vectors[1].as_bytes(), &["job"]), None);
    }

    #[test]
    fn a_line_with_one_byte_more_or_less_is_no_leaf() {
        let words = vec!["w".to_owned(); 7];
        let lines = lines((&words, [false; 3]), &[("k".to_owned(), 1)], &[], &[], (9, 1));
        let line = &lines[0];
        assert!(is_sound(line).unwrap());
        for place in 0..line.len() {
            let shorter = [&line[..place], &line[place + 1..]].concat();
            is_sound(&shorter).unwrap();
            for byte in [b' ', b'0', b'"', b',', b'}'] {
                is_sound(&[&line[..place], &[byte], &line[place..]].concat()).unwrap();
            }
            assert_eq!(scan(&line[..place], &[]), None);
        }
    }

    fn words() -> impl Strategy<Value = String> {
        prop_oneof![
            8 => "[a-z./ -]{0,12}",
            1 => "[a-z]{1020,1028}",
            1 => prop::collection::vec(any::<char>(), 0..8).prop_map(String::from_iter),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn what_is_scanned_is_what_is_parsed(
            words in prop::collection::vec(words(), 7),
            absent in any::<[bool; 3]>(),
            keys in prop::collection::vec((words(), any::<u32>()), 0..6),
            detail in prop::collection::vec((prop_oneof![words(), Just("stage".to_owned())], words()), 0..40),
            items in prop::collection::vec((any::<bool>(), any::<u64>(), words(), any::<Option<[u8; 32]>>()), 0..12),
            (index, time) in (any::<u64>(), any::<u64>()),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..3),
        ) {
            for mut line in lines((&words, absent), &keys, &detail, &items, (index, time)) {
                is_sound(&line)?;
                for (place, byte) in changes.iter().map(|(place, byte)| (place.index(line.len()), *byte)).collect::<Vec<_>>() {
                    line[place] = byte;
                    is_sound(&line)?;
                }
            }
        }

        #[test]
        fn leaves_of_usual_requests_are_scanned(
            words in prop::collection::vec("[a-z0-9:./_ -]{1,40}", 7),
            absent in any::<[bool; 3]>(),
            keys in prop::collection::vec(("[a-z/0-9]{1,12}", any::<u32>()), 0..12),
            detail in prop::collection::vec(("[a-rt-z]{1,12}", "[ -!#-\\[\\]-~]{0,40}"), 0..6),
            items in prop::collection::vec((any::<bool>(), any::<u64>(), "[A-Za-z_]{1,20}", any::<Option<[u8; 32]>>()), 0..600),
            (index, time) in (any::<u64>(), any::<u64>()),
        ) {
            for line in lines((&words, absent), &keys, &detail, &items, (index, time)) {
                prop_assert!(is_sound(&line)?, "{}", String::from_utf8_lossy(&line));
            }
        }
    }
}
