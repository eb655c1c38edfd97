//! Policy text cut into single policies, with limits that hold before Cedar's parser sees it.
//!
//! Nothing is judged here: every piece goes to Cedar whole, comments and all, so a cut in the wrong place can only
//! make an error.
//!
//! The limits on nesting are what makes validation hold. Cedar's parser, validator and evaluator follow an expression
//! by recursion, and its validator, when the stack runs low, stops looking and reports nothing (cedar-policy 4.14,
//! `TypecheckAnswer::RecursionLimit`): a policy that is nested deeply enough would pass without having been checked.
//! A worker thread has 2 MiB of stack; tests hold that half of it is enough for all that the limits let through.

use crate::policies::PolicyError;

/// Longest policy text in bytes.
pub(crate) const MAX_SOURCE: usize = 256 * 1024;
/// Most policies in one text.
pub(crate) const MAX_POLICIES: usize = 1000;
/// Longest single policy in bytes, with the comments above it.
pub(crate) const MAX_POLICY: usize = 8 * 1024;
/// Deepest nesting of brackets in a policy.
pub(crate) const MAX_DEPTH: usize = 24;

/// Most steps in a policy: brackets, and operators of which one expression can chain many. No expression nests deeper
/// than it has steps, but for one comparison within each.
pub(crate) const MAX_STEPS: usize = 256;

/// A condition takes the validator more stack than an operator does.
const IF_STEPS: usize = 4;

/// Characters that make text read otherwise than it is parsed (CVE-2021-42574).
const DIRECTION: [char; 9] =
    ['\u{202a}', '\u{202b}', '\u{202c}', '\u{202d}', '\u{202e}', '\u{2066}', '\u{2067}', '\u{2068}', '\u{2069}'];

/// One policy as it was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Piece<'a> {
    /// From the end of the one before to its semicolon.
    pub text: &'a str,
    /// The line in the whole text on which `text` begins, from 1.
    pub line: usize,
}

impl Piece<'_> {
    /// The line of a byte of this piece in the whole text.
    pub fn line_at(&self, offset: usize) -> usize {
        self.line + self.text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
    }

    /// The line of the policy itself, after what blank lines and comments come first.
    pub fn first_line(&self) -> usize {
        let skipped = self.text.lines().take_while(|line| line.trim().is_empty() || line.trim().starts_with("//"));
        self.line + skipped.count()
    }
}

/// Cuts a text after each semicolon that is not in a string or a comment. The last piece is what follows the last
/// semicolon; it should hold no policy.
pub(crate) fn split(source: &str) -> Result<(Vec<Piece<'_>>, Piece<'_>), PolicyError> {
    if source.len() > MAX_SOURCE {
        return Err(PolicyError::TooLong { bytes: source.len() });
    }
    if let Some(at) = source.find(DIRECTION) {
        let whole = Piece { text: source, line: 1 };
        return Err(PolicyError::Direction { line: whole.line_at(at) });
    }
    let mut pieces = Vec::new();
    let mut rest = Piece { text: source, line: 1 };
    while let Some(end) = end_of_policy(&rest)? {
        // The end is just behind a semicolon, so both cuts are at character boundaries.
        let (text, after) = rest.text.split_at(end);
        let piece = Piece { text, line: rest.line };
        if text.len() > MAX_POLICY {
            return Err(PolicyError::PolicyTooLong { line: piece.first_line() });
        }
        if pieces.len() == MAX_POLICIES {
            return Err(PolicyError::TooMany { line: piece.first_line() });
        }
        rest = Piece { text: after, line: piece.line_at(text.len()) };
        pieces.push(piece);
    }
    Ok((pieces, rest))
}

/// Where the first policy ends, if one does.
fn end_of_policy(piece: &Piece<'_>) -> Result<Option<usize>, PolicyError> {
    let mut depth = 0_usize;
    let mut steps = 0_usize;
    let mut bytes = piece.text.bytes().enumerate().peekable();
    while let Some((at, byte)) = bytes.next() {
        let mut step = 0;
        match byte {
            b';' => return Ok(Some(at + 1)),
            // A string ends at the next quotation mark that no backslash precedes.
            b'"' => {
                while let Some((_, inside)) = bytes.next() {
                    match inside {
                        b'\\' => drop(bytes.next()),
                        b'"' => break,
                        _ => {}
                    }
                }
            }
            // A comment ends with its line; Cedar takes a lone carriage return for an end as well.
            b'/' if bytes.next_if(|(_, next)| *next == b'/').is_some() => {
                while bytes.next_if(|(_, inside)| !matches!(inside, b'\n' | b'\r')).is_some() {}
            }
            b'(' | b'[' | b'{' => {
                step = 1;
                depth += 1;
                if depth > MAX_DEPTH {
                    return Err(PolicyError::TooDeep { line: piece.line_at(at) });
                }
            }
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            b'&' | b'|' => {
                bytes.next_if(|(_, next)| *next == byte);
                step = 1;
            }
            b'.' | b'+' | b'-' | b'*' | b'!' => step = 1,
            b'a'..=b'z' | b'A'..=b'Z' | b'_' => {
                let mut end = at + 1;
                while bytes.next_if(|(_, next)| next.is_ascii_alphanumeric() || *next == b'_').is_some() {
                    end += 1;
                }
                step = if piece.text.get(at..end) == Some("if") { IF_STEPS } else { 0 };
            }
            _ => {}
        }
        steps += step;
        if steps > MAX_STEPS {
            return Err(PolicyError::TooComplex { line: piece.line_at(at) });
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn texts(source: &str) -> Vec<(usize, String)> {
        let (pieces, _) = split(source).unwrap();
        pieces.iter().map(|piece| (piece.first_line(), piece.text.trim().to_owned())).collect()
    }

    #[test]
    fn policies_are_cut_at_semicolons() {
        assert_eq!(texts("a;\n\nb;\n"), [(1, "a;".to_owned()), (3, "b;".to_owned())]);
    }

    #[test]
    fn semicolons_in_strings_and_comments_do_not_cut() {
        assert_eq!(texts(r#"a ";" "\";" "\\"; b;"#).len(), 2);
        assert_eq!(texts("// one; two\na // three; \"\n;\n").len(), 1);
        assert_eq!(texts("// one; \r a; // two;\n").len(), 1);
    }

    #[test]
    fn the_line_is_that_of_the_policy_not_of_its_comment() {
        assert_eq!(texts("a;\n// about b\n\nb;"), [(1, "a;".to_owned()), (4, "// about b\n\nb;".to_owned())]);
    }

    #[test]
    fn limits_hold() {
        assert!(matches!(split(&" ".repeat(MAX_SOURCE + 1)), Err(PolicyError::TooLong { .. })));
        let long = format!("\n{};", "a".repeat(MAX_POLICY));
        assert!(matches!(split(&long), Err(PolicyError::PolicyTooLong { line: 2 })));
        assert!(matches!(split(&"a;".repeat(MAX_POLICIES + 1)), Err(PolicyError::TooMany { line: 1 })));
        let deep = format!("a;\n{}", "(".repeat(MAX_DEPTH + 1));
        assert!(matches!(split(&deep), Err(PolicyError::TooDeep { line: 2 })));
        assert!(split(&"([{}]);".repeat(100)).is_ok());
        for (step, most) in [
            ("()", MAX_STEPS),
            ("[", MAX_DEPTH),
            ("a.", MAX_STEPS),
            ("1+", MAX_STEPS),
            ("1-", MAX_STEPS),
            ("1*", MAX_STEPS),
            ("!", MAX_STEPS),
            ("a&&", MAX_STEPS),
            ("a||", MAX_STEPS),
            ("if ", MAX_STEPS / IF_STEPS),
        ] {
            let within = format!("\n{};", step.repeat(most));
            assert!(split(&within).is_ok(), "{step}");
            let beyond = format!("a;\n{};", step.repeat(most + 1));
            let refused =
                matches!(split(&beyond), Err(PolicyError::TooComplex { line: 2 } | PolicyError::TooDeep { line: 2 }));
            assert!(refused, "{step}");
        }
        assert!(split(&"iffy notif a::b a == b \"a.b&&c\" ".repeat(50)).is_ok());
    }

    #[test]
    fn text_that_reads_otherwise_than_it_parses_is_refused() {
        assert!(matches!(split("a;\n// \u{202e}b;"), Err(PolicyError::Direction { line: 2 })));
    }

    proptest! {
        #[test]
        fn nothing_is_lost_in_cutting(source in "[a;\"\\\\/\n\r(){}é ]{0,80}") {
            if let Ok((pieces, rest)) = split(&source) {
                let mut together: String = pieces.iter().map(|piece| piece.text).collect();
                together.push_str(rest.text);
                prop_assert_eq!(together, source);
            }
        }
    }
}
