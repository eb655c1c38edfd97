//! One cell of a record: from its bytes to the value, and back.

use std::borrow::Cow;
use std::ops::Range;

/// Why a cell, or a record, can't be used: a stable word for the file of rejects.
pub type Rule = &'static str;

/// The value of a CSV cell. A quoted one must end with its closing quote.
pub fn csv_value(raw: &[u8], quoted: bool) -> Result<Cow<'_, [u8]>, Rule> {
    if !quoted {
        return Ok(Cow::Borrowed(raw));
    }
    let inner = raw.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).ok_or("csv_quotes")?;
    if !inner.contains(&b'"') {
        return Ok(Cow::Borrowed(inner));
    }
    let mut value = Vec::with_capacity(inner.len());
    let mut bytes = inner.iter();
    while let Some(byte) = bytes.next() {
        if *byte == b'"' && bytes.next() != Some(&b'"') {
            return Err("csv_quotes");
        }
        value.push(*byte);
    }
    Ok(Cow::Owned(value))
}

/// Writes a CSV cell: with quotes where the cell that it replaces had them, or where it needs them.
pub fn write_csv(value: &[u8], quoted: bool, delimiter: u8, out: &mut Vec<u8>) {
    let needs = |byte: &u8| matches!(*byte, b'"' | b'\n' | b'\r') || *byte == delimiter;
    if !quoted && !value.iter().any(needs) {
        return out.extend_from_slice(value);
    }
    out.push(b'"');
    for byte in value {
        if *byte == b'"' {
            out.push(b'"');
        }
        out.push(*byte);
    }
    out.push(b'"');
}

/// A member of a JSON object: its name, and where its value stands.
pub struct Member {
    /// The name, decoded.
    pub name: String,
    /// The bytes of the value in the line.
    pub at: Range<usize>,
}

/// The members of a line that is one JSON object.
pub fn json_members(line: &[u8]) -> Result<Vec<Member>, Rule> {
    // The parser vouches for the line, so that the walk below meets nothing but JSON.
    serde_json::from_slice::<serde::de::IgnoredAny>(line).map_err(|_| "json")?;
    let mut walk = Walk { line, at: 0 };
    if walk.next_token() != Some(b'{') {
        return Err("json_object");
    }
    walk.at += 1;
    let mut members = Vec::new();
    while walk.next_token() == Some(b'"') {
        let name = walk.value();
        let name = serde_json::from_slice::<String>(line.get(name).unwrap_or_default()).map_err(|_| "utf8")?;
        walk.next_token();
        // The colon.
        walk.at += 1;
        walk.next_token();
        members.push(Member { name, at: walk.value() });
        if walk.next_token() == Some(b',') {
            walk.at += 1;
        }
    }
    Ok(members)
}

/// A walk over a line that is known to be JSON.
struct Walk<'a> {
    line: &'a [u8],
    at: usize,
}

impl Walk<'_> {
    /// Skips white space; the byte that follows.
    fn next_token(&mut self) -> Option<u8> {
        while self.line.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
        self.line.get(self.at).copied()
    }

    /// Skips one value; where it stands.
    fn value(&mut self) -> Range<usize> {
        let start = self.at;
        let mut depth = 0usize;
        while let Some(byte) = self.line.get(self.at) {
            match byte {
                b'"' => self.string(),
                b'{' | b'[' => depth += 1,
                b'}' | b']' if depth == 0 => break,
                b'}' | b']' => depth -= 1,
                b',' | b':' | b' ' | b'\t' | b'\r' | b'\n' if depth == 0 => break,
                _ => {}
            }
            self.at += 1;
        }
        start..self.at
    }

    /// From an opening quote to its closing one.
    fn string(&mut self) {
        self.at += 1;
        while let Some(byte) = self.line.get(self.at) {
            match byte {
                b'"' => break,
                b'\\' => self.at += 2,
                _ => self.at += 1,
            }
        }
    }
}

/// The value of a JSON member: a string's text, or a number as it is written. `null` is none.
pub fn json_value(raw: &[u8]) -> Result<Option<Cow<'_, [u8]>>, Rule> {
    match raw.first() {
        Some(b'"') => {
            let text = serde_json::from_slice::<String>(raw).map_err(|_| "utf8")?;
            Ok(Some(Cow::Owned(text.into_bytes())))
        }
        Some(b'n') => Ok(None),
        Some(b'-' | b'0'..=b'9') => Ok(Some(Cow::Borrowed(raw))),
        _ => Err("json_not_a_string"),
    }
}

/// How JSON values are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JsonStyle {
    /// Characters outside ASCII as `\uXXXX`.
    pub ascii: bool,
}

/// Writes a JSON string, or with `number` a number if the value is one.
pub fn write_json(value: &[u8], number: bool, style: JsonStyle, out: &mut Vec<u8>) -> Result<(), Rule> {
    if number && is_json_number(value) {
        out.extend_from_slice(value);
        return Ok(());
    }
    let text = std::str::from_utf8(value).map_err(|_| "utf8")?;
    let quoted = serde_json::to_string(text).map_err(|_| "json")?;
    if !style.ascii {
        out.extend_from_slice(quoted.as_bytes());
        return Ok(());
    }
    let mut units = [0; 2];
    for c in quoted.chars() {
        if c.is_ascii() {
            out.push(c as u8);
            continue;
        }
        for unit in c.encode_utf16(&mut units) {
            out.extend_from_slice(format!("\\u{unit:04x}").as_bytes());
        }
    }
    Ok(())
}

fn is_json_number(value: &[u8]) -> bool {
    matches!(value.first(), Some(b'-' | b'0'..=b'9'))
        && !value.last().is_some_and(u8::is_ascii_whitespace)
        && serde_json::from_slice::<serde_json::Number>(value).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn members_are_found_in_any_layout() {
        let line = br#" { "a" : "x\"}" ,"b":{"c":[1,"]"]},"d":null , "e":-1.5e3} "#;
        let found = json_members(line).unwrap();
        let found: Vec<_> = found.iter().map(|m| (m.name.as_str(), &line[m.at.clone()])).collect();
        let expected: [(&str, &[u8]); 4] =
            [("a", br#""x\"}""#), ("b", br#"{"c":[1,"]"]}"#), ("d", b"null"), ("e", b"-1.5e3")];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_line_that_is_no_object_is_refused() {
        assert_eq!(json_members(b"[1]").err(), Some("json_object"));
        assert_eq!(json_members(b"{\"a\":1").err(), Some("json"));
        assert_eq!(json_members(b"{} {}").err(), Some("json"));
        assert!(json_members(b"{}").unwrap().is_empty());
    }

    #[test]
    fn a_cell_with_text_after_its_quotes_is_refused() {
        assert_eq!(csv_value(b"\"a\"b", true), Err("csv_quotes"));
        assert_eq!(csv_value(b"\"a", true), Err("csv_quotes"));
        assert_eq!(csv_value(b"\"a\"b\"", true), Err("csv_quotes"));
        assert_eq!(csv_value(b"\"", true), Err("csv_quotes"));
        assert_eq!(csv_value(b"\"a\"\"b\"", true).unwrap().as_ref(), b"a\"b");
    }

    #[test]
    fn escapes_of_python_come_back() {
        let mut out = Vec::new();
        write_json("张😀\n".as_bytes(), false, JsonStyle { ascii: true }, &mut out).unwrap();
        assert_eq!(out, br#""\u5f20\ud83d\ude00\n""#);
    }

    #[test]
    fn only_a_number_is_written_as_one() {
        for (value, wanted) in
            [("12.50", "12.50"), ("007", "\"007\""), ("1 ", "\"1 \""), ("-1e5", "-1e5"), ("x", "\"x\"")]
        {
            let mut out = Vec::new();
            write_json(value.as_bytes(), true, JsonStyle::default(), &mut out).unwrap();
            assert_eq!(String::from_utf8(out).unwrap(), wanted);
        }
    }

    proptest! {
        #[test]
        fn a_csv_cell_comes_back(value: Vec<u8>, quoted: bool) {
            let mut raw = Vec::new();
            write_csv(&value, quoted, b',', &mut raw);
            let quoted = raw.first() == Some(&b'"');
            let back = csv_value(&raw, quoted).unwrap();
            prop_assert_eq!(back.as_ref(), value.as_slice());
        }

        #[test]
        fn a_json_string_comes_back(value: String, ascii: bool) {
            let mut raw = Vec::new();
            write_json(value.as_bytes(), false, JsonStyle { ascii }, &mut raw).unwrap();
            let back = json_value(&raw).unwrap().unwrap();
            prop_assert_eq!(back.as_ref(), value.as_bytes());
        }

        #[test]
        fn members_are_where_the_parser_finds_them(object in prop::collection::btree_map(".{0,6}", json(), 0..5)) {
            let line = serde_json::to_vec(&object).unwrap();
            let members = json_members(&line).unwrap();
            prop_assert_eq!(members.len(), object.len());
            for member in members {
                let value: serde_json::Value = serde_json::from_slice(&line[member.at]).unwrap();
                prop_assert_eq!(&value, &object[&member.name]);
            }
        }

        #[test]
        fn no_line_makes_the_walk_panic(line: Vec<u8>) {
            let _ = json_members(&line);
        }
    }

    fn json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            ".{0,8}".prop_map(Into::into),
        ];
        leaf.prop_recursive(3, 12, 3, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Into::into),
                prop::collection::btree_map(".{0,4}", inner, 0..3)
                    .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
            ]
        })
    }
}
