//! A leaf as a syslog message: RFC 5424, behind its length (RFC 5425).

use strongroom_ledger::leaf;

use crate::cli::output::CliError;

/// Facility 13 (log audit), severities 5 (notice: refused) and 6 (informational): RFC 5424 section 6.2.1.
const REFUSED: u8 = 13 * 8 + 5;
const DONE: u8 = 13 * 8 + 6;
/// The number for documentation (RFC 5612): whoever has one of its own maps it at the collector.
const ENTERPRISE: u32 = 32473;

/// Writes a leaf as a message behind its length (RFC 5425 section 4.3): the leaf's own time, the action as MSGID, whose leaf
/// it is and which, and the line as it is.
pub fn message(origin: &str, line: &[u8], into: &mut Vec<u8>) -> Result<(), CliError> {
    let read =
        leaf::parse(line).map_err(|error| CliError::unfit(format!("the vault sent what is no leaf: {error}")))?;
    let priority = if read.decision == "allow" { DONE } else { REFUSED };
    let (time, action, origin, index) = (read.time, &read.action, value(origin), read.index);
    let head = format!(
        "<{priority}>1 {time} - strongroom - {action} [strongroom@{ENTERPRISE} origin=\"{origin}\" index=\"{index}\"] "
    );
    into.extend_from_slice(format!("{} {head}", head.len() + line.len()).as_bytes());
    into.extend_from_slice(line);
    Ok(())
}

/// A value of structured data (RFC 5424 section 6.3.3).
fn value(text: &str) -> String {
    let escaped = |c| matches!(c, '"' | '\\' | ']').then_some('\\');
    text.chars().flat_map(|c| escaped(c).into_iter().chain([c])).collect()
}

#[cfg(test)]
mod tests {
    use strongroom_ledger::Timestamp;
    use strongroom_ledger::leaf::{LeafHeader, prepare};

    use super::*;

    fn line(decision: &str) -> Vec<u8> {
        let header = LeafHeader {
            request: &[1; 16],
            principal: "app/loan-core",
            actor: None,
            action: "detokenize",
            purpose: None,
            decision,
            reason: (decision == "deny").then_some("DENIED"),
            policy: 1,
            schema: 1,
            keys: &[],
            client: "",
            detail: &[],
        };
        prepare(&header, std::iter::empty()).remove(0).finish(7, Timestamp(1_795_000_000_000_000))
    }

    #[test]
    fn a_leaf_is_a_message_with_its_length_before_it() {
        for (decision, priority) in [("allow", 110), ("deny", 109)] {
            let mut sent = Vec::new();
            message("strongroom/1/2/0/1", &line(decision), &mut sent).unwrap();
            let text = String::from_utf8(sent).unwrap();
            let (length, rest) = text.split_once(' ').unwrap();
            assert_eq!(length.parse::<usize>().unwrap(), rest.len());
            let (head, leaf) = rest.split_at(rest.find('{').unwrap());
            assert_eq!(leaf.as_bytes(), line(decision));
            let whose = r#"[strongroom@32473 origin="strongroom/1/2/0/1" index="7"]"#;
            let expected = format!("<{priority}>1 2026-11-18T11:06:40.000000Z - strongroom - detokenize {whose} ");
            assert_eq!(head, expected);
        }
        assert!(message("log", b"no leaf", &mut Vec::new()).is_err());
    }

    #[test]
    fn no_origin_breaks_out_of_its_value() {
        assert_eq!(value(r#"a"b\c]d"#), r#"a\"b\\c\]d"#);
    }
}
