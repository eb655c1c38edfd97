//! Pushes the bytes of a leaf.

use super::{LeafHeader, LeafItem};
use crate::timestamp::Timestamp;

/// A string takes at most so many bytes between its quotes, escapes included.
pub const MAX_STRING: usize = 1_024;
/// How a string ends that was cut: an ellipsis, U+2026.
const CUT: &[u8] = br"\u2026";
/// The members of `keys` take at most so many bytes.
pub(super) const MAX_KEYS: usize = 16 << 10;
/// The members of `detail` take at most so many bytes.
pub(super) const MAX_DETAIL: usize = 24 << 10;
/// `,"\u2026":"`, 20 digits, `"`: says how many members were left out.
pub(super) const MAX_OMISSION: usize = 11 + 20 + 1;

const HEX: &[u8; 16] = b"0123456789abcdef";

/// `{"index":"12","time":"2026-11-24T02:39:12.123456Z",`
pub(super) fn prefix(out: &mut Vec<u8>, index: u64, time: Timestamp) {
    out.extend_from_slice(br#"{"index":""#);
    number(out, index);
    out.extend_from_slice(br#"","time":""#);
    out.extend_from_slice(&time.to_ascii());
    out.extend_from_slice(br#"","#);
}

/// `"part":"1/3",`
pub(super) fn part(out: &mut Vec<u8>, which: u64, of: u64) {
    out.extend_from_slice(br#""part":""#);
    number(out, which);
    out.push(b'/');
    number(out, of);
    out.extend_from_slice(br#"","#);
}

/// From `"request"` to `"client"` or `"detail"`, without a comma at the end.
pub(super) fn header(out: &mut Vec<u8>, header: &LeafHeader<'_>) {
    out.extend_from_slice(br#""request":""#);
    hex(out, header.request);
    out.extend_from_slice(br#"","principal":"#);
    string(out, header.principal);
    if let Some(actor) = header.actor {
        out.extend_from_slice(br#","actor":"#);
        string(out, actor);
    }
    out.extend_from_slice(br#","action":"#);
    string(out, header.action);
    if let Some(purpose) = header.purpose {
        out.extend_from_slice(br#","purpose":"#);
        string(out, purpose);
    }
    out.extend_from_slice(br#","decision":"#);
    string(out, header.decision);
    if let Some(reason) = header.reason {
        out.extend_from_slice(br#","reason":"#);
        string(out, reason);
    }
    out.extend_from_slice(br#","policy":"#);
    number(out, header.policy.into());
    out.extend_from_slice(br#","schema":"#);
    number(out, header.schema.into());
    out.extend_from_slice(br#","keys":"#);
    let version = |out: &mut Vec<u8>, version: &u32| number(out, u64::from(*version));
    members(out, MAX_KEYS, header.keys, version, number);
    out.extend_from_slice(br#","client":"#);
    string(out, header.client);
    if !header.detail.is_empty() {
        out.extend_from_slice(br#","detail":"#);
        members(out, MAX_DETAIL, header.detail, |out, value| string(out, value), quoted);
    }
}

/// The items, written and joined by commas already, and the end of the leaf.
pub(super) fn items(out: &mut Vec<u8>, items: &[u8]) {
    if !items.is_empty() {
        out.extend_from_slice(br#","items":["#);
        out.extend_from_slice(items);
        out.push(b']');
    }
    out.push(b'}');
}

/// One item.
pub(super) fn item(out: &mut Vec<u8>, item: &LeafItem<'_>) {
    out.push(b'{');
    if let Some(field) = item.field {
        out.extend_from_slice(br#""field":"#);
        string(out, field);
        out.push(b',');
    }
    if let Some(row) = item.row {
        out.extend_from_slice(br#""row":"#);
        quoted(out, row.0);
        out.push(b',');
    }
    if let Some(view) = item.view {
        out.extend_from_slice(br#""view":"#);
        string(out, view);
        out.push(b',');
    }
    out.extend_from_slice(br#""outcome":"#);
    string(out, item.outcome);
    if let Some(subject) = item.subject {
        out.extend_from_slice(br#","subject":"#);
        quoted(out, subject.0);
    }
    if let Some(version) = item.version {
        out.extend_from_slice(br#","version":"#);
        number(out, version.0.into());
    }
    if let Some(hash) = item.hash {
        out.extend_from_slice(br#","sha256":""#);
        hex(out, hash);
        out.push(b'"');
    }
    if let Some(sent) = item.sent {
        out.extend_from_slice(br#","sent":""#);
        hex(out, sent);
        out.push(b'"');
    }
    out.push(b'}');
}

/// An object with at most `room` bytes of members. If there are more, the last member is named by an ellipsis and says
/// how many were left out.
fn members<N: AsRef<str>, V>(
    out: &mut Vec<u8>,
    room: usize,
    members: &[(N, V)],
    value: impl Fn(&mut Vec<u8>, &V),
    omission: impl Fn(&mut Vec<u8>, u64),
) {
    out.push(b'{');
    let start = out.len();
    for (index, (name, content)) in members.iter().enumerate() {
        let before = out.len();
        let comma = |out: &mut Vec<u8>| {
            if index > 0 {
                out.push(b',');
            }
        };
        comma(out);
        string(out, name.as_ref());
        out.push(b':');
        value(out, content);
        let left = members.len() - index;
        let reserve = if left > 1 { MAX_OMISSION } else { 0 };
        if out.len() - start + reserve > room {
            out.truncate(before);
            comma(out);
            out.push(b'"');
            out.extend_from_slice(CUT);
            out.extend_from_slice(b"\":");
            omission(out, left as u64);
            break;
        }
    }
    out.push(b'}');
}

fn number(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// A number as a string: JSON readers that know only doubles would round it.
fn quoted(out: &mut Vec<u8>, value: u64) {
    out.push(b'"');
    number(out, value);
    out.push(b'"');
}

fn hex(out: &mut Vec<u8>, bytes: &[u8]) {
    for byte in bytes {
        out.push(HEX[usize::from(byte >> 4)]);
        out.push(HEX[usize::from(byte & 15)]);
    }
}

/// A string in quotes, escaped as RFC 8259 section 7 and cut if it is too long.
fn string(out: &mut Vec<u8>, text: &str) {
    let plain = |byte: u8| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\';
    out.push(b'"');
    if text.len() <= MAX_STRING && text.bytes().all(plain) {
        out.extend_from_slice(text.as_bytes());
    } else {
        escaped(out, text);
    }
    out.push(b'"');
}

fn escaped(out: &mut Vec<u8>, text: &str) {
    let start = out.len();
    let mut keep = start;
    for character in text.chars() {
        escape(out, character);
        if out.len() - start + CUT.len() <= MAX_STRING {
            keep = out.len();
        }
        if out.len() - start > MAX_STRING {
            out.truncate(keep);
            out.extend_from_slice(CUT);
            return;
        }
    }
}

/// The escapes that Python's `json.dumps` writes by default, so that many tools give back the same bytes.
fn escape(out: &mut Vec<u8>, character: char) {
    let short = match character {
        '"' => br#"\""#,
        '\\' => br"\\",
        '\u{8}' => br"\b",
        '\u{c}' => br"\f",
        '\n' => br"\n",
        '\r' => br"\r",
        '\t' => br"\t",
        ' '..='~' => {
            out.push(character as u8);
            return;
        }
        _ => {
            for unit in character.encode_utf16(&mut [0; 2]) {
                out.extend_from_slice(br"\u");
                hex(out, &unit.to_be_bytes());
            }
            return;
        }
    };
    out.extend_from_slice(short);
}
