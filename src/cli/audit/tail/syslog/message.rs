//! A leaf as a syslog message: RFC 5424, behind its length (RFC 5425).

use serde_json::{Map, Value};
use strongroom_ledger::leaf;
use strongroom_ledger::leaf_hash;

use crate::cli::audit::tail::form::{Form, no_leaf};
use crate::cli::output::CliError;

/// Severities: notice (refused) and informational. RFC 5424 section 6.2.1.
const REFUSED: u8 = 5;
const DONE: u8 = 6;
/// The facilities, by their numbers, under the names that syslogd has for them.
const FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp", "ntp",
    "audit", "alert", "clock", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
];
/// The number for documentation (RFC 5612): whoever has one of its own maps it at the collector.
const ENTERPRISE: u32 = 32473;
/// Members of a leaf or an event that may be long, and that a message that is too long goes without.
const LONG: [&str; 2] = ["items", "unmapped"];

/// How messages are made.
pub struct Messages {
    /// The log.
    pub origin: String,
    /// What stands in them.
    pub form: Form,
    /// Whose host they are of; `-` for nobody's.
    pub hostname: String,
    /// By number.
    pub facility: u8,
    /// The most bytes that one may have, if there is a limit.
    pub most: Option<usize>,
}

impl Messages {
    /// Writes a leaf as a message behind its length (RFC 5425 section 4.3): the leaf's own time, the action as MSGID, whose
    /// leaf it is and which, and the line. No message is split, since RFC 5424 knows no parts: one that is too long goes
    /// without its long members, or without any, and says so with the hash of the whole leaf.
    pub fn write(&self, leaf: &[u8], into: &mut Vec<u8>) -> Result<(), CliError> {
        let read = leaf::parse(leaf).map_err(|error| no_leaf(&error))?;
        let severity = if read.decision == "allow" { DONE } else { REFUSED };
        let priority = self.facility * 8 + severity;
        let (time, host, action, index) = (read.time, &self.hostname, &read.action, read.index);
        let origin = value(&self.origin);
        let head = format!(
            "<{priority}>1 {time} {host} strongroom - {action} [strongroom@{ENTERPRISE} origin=\"{origin}\" index=\"{index}\""
        );
        let line = self.form.line(&self.origin, leaf)?;
        let whole = [head.as_bytes(), b"] ", &line].concat();
        let message = match self.most {
            Some(most) if whole.len() > most => cut(&head, &line, leaf, most)?,
            _ => whole,
        };
        into.extend_from_slice(format!("{} ", message.len()).as_bytes());
        into.extend_from_slice(&message);
        Ok(())
    }
}

/// As much of a message as fits.
fn cut(head: &str, line: &[u8], leaf: &[u8], most: usize) -> Result<Vec<u8>, CliError> {
    let mut rest: Map<String, Value> = serde_json::from_slice(line).map_err(|error| no_leaf(&error))?;
    rest.retain(|name, _| !LONG.contains(&name.as_str()));
    let rest = serde_json::to_vec(&rest).map_err(|error| no_leaf(&error))?;
    let (size, hash) = (line.len(), data_encoding::HEXLOWER.encode(&leaf_hash(leaf)));
    let says = |cut: &str| format!("{head} cut=\"{cut}\" size=\"{size}\" hash=\"{hash}\"]");
    let short = [says("items").as_bytes(), b" ", &rest].concat();
    Ok(if short.len() <= most { short } else { says("all").into_bytes() })
}

/// A facility, by name or number.
pub fn facility(text: &str) -> Result<u8, String> {
    let named = (0..).zip(FACILITIES).find(|(number, name)| *name == text || number.to_string() == text);
    named.map(|(number, _)| number).ok_or_else(|| format!("a number up to 23, or one of: {}", FACILITIES.join(" ")))
}

/// What may stand as HOSTNAME (RFC 5424 section 6.2.4).
pub fn hostname(text: &str) -> Result<String, String> {
    let fits = (1..=255).contains(&text.len()) && text.chars().all(|c| c.is_ascii_graphic());
    if fits { Ok(text.to_owned()) } else { Err("1 to 255 printable ASCII characters without spaces".to_owned()) }
}

/// A value of structured data (RFC 5424 section 6.3.3).
fn value(text: &str) -> String {
    let escaped = |c| matches!(c, '"' | '\\' | ']').then_some('\\');
    text.chars().flat_map(|c| escaped(c).into_iter().chain([c])).collect()
}

#[cfg(test)]
mod tests {
    use strongroom_ledger::Timestamp;
    use strongroom_ledger::leaf::{LeafHeader, LeafItem, prepare};

    use super::*;

    fn line(decision: &str, items: usize) -> Vec<u8> {
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
        let items = (0..items).map(|_| LeafItem { outcome: "ok", ..LeafItem::default() });
        prepare(&header, items).remove(0).finish(7, Timestamp(1_795_000_000_000_000))
    }

    fn messages() -> Messages {
        let (origin, hostname) = ("strongroom/1/2/0/1".to_owned(), "-".to_owned());
        Messages { origin, form: Form::Jsonl, hostname, facility: facility("audit").unwrap(), most: None }
    }

    /// The message of a leaf: what stands before its line, and the line.
    fn sent(messages: &Messages, leaf: &[u8]) -> (String, String) {
        let mut sent = Vec::new();
        messages.write(leaf, &mut sent).unwrap();
        let text = String::from_utf8(sent).unwrap();
        let (length, rest) = text.split_once(' ').unwrap();
        assert_eq!(length.parse::<usize>().unwrap(), rest.len());
        let (head, line) = rest.split_at(rest.find('{').unwrap_or(rest.len()));
        (head.to_owned(), line.to_owned())
    }

    const WHOSE: &str = r#"[strongroom@32473 origin="strongroom/1/2/0/1" index="7""#;

    #[test]
    fn a_leaf_is_a_message_with_its_length_before_it() {
        for (decision, priority) in [("allow", 110), ("deny", 109)] {
            let (head, leaf) = sent(&messages(), &line(decision, 0));
            assert_eq!(leaf.as_bytes(), line(decision, 0));
            assert_eq!(head, format!("<{priority}>1 2026-11-18T11:06:40.000000Z - strongroom - detokenize {WHOSE}] "));
        }
        assert!(messages().write(b"no leaf", &mut Vec::new()).is_err());
    }

    #[test]
    fn host_facility_and_form_are_as_asked() {
        let (hostname, facility) = (hostname("vault-1.bank.example").unwrap(), facility("local3").unwrap());
        let (head, event) = sent(&Messages { hostname, facility, form: Form::Ocsf, ..messages() }, &line("allow", 1));
        let expected = "<158>1 2026-11-18T11:06:40.000000Z vault-1.bank.example strongroom - detokenize ";
        assert_eq!(head, format!("{expected}{WHOSE}] "));
        let event: Value = serde_json::from_str(&event).unwrap();
        assert_eq!(
            (event["class_uid"].as_u64(), &event["metadata"]["uid"]),
            (Some(6005), &"strongroom/1/2/0/1/7".into())
        );
    }

    #[test]
    fn what_is_no_host_and_no_facility_is_refused() {
        for wrong in ["", "a b", "käse", &"a".repeat(256)] {
            assert!(hostname(wrong).is_err(), "{wrong}");
        }
        let known = ["kern", "13", "audit", "local7"].map(|text| facility(text).unwrap());
        assert_eq!(known, [0, 13, 13, 23]);
        assert!(["", "24", "-1", "local8"].iter().all(|text| facility(text).is_err()));
    }

    #[test]
    fn a_message_that_is_too_long_goes_without_items_and_names_the_leaf() {
        let long = line("allow", 300);
        let hash = data_encoding::HEXLOWER.encode(&leaf_hash(&long));
        for form in [Form::Jsonl, Form::Ocsf] {
            let whole = sent(&Messages { form, ..messages() }, &long);
            let most = Some(2_048);
            let (head, rest) = sent(&Messages { form, most, ..messages() }, &long);
            assert!(head.len() + rest.len() <= 2_048);
            assert!(
                head.ends_with(&format!(r#"{WHOSE} cut="items" size="{}" hash="{hash}"] "#, whole.1.len())),
                "{head}"
            );
            let rest: Map<String, Value> = serde_json::from_str(&rest).unwrap();
            let all: Map<String, Value> = serde_json::from_str(&whole.1).unwrap();
            assert!(rest.iter().all(|(name, value)| all[name] == *value) && rest.len() + 1 == all.len(), "{rest:?}");
            // One that fits stays as it is.
            let most = Some(whole.0.len() + whole.1.len());
            assert_eq!(sent(&Messages { form, most, ..messages() }, &long), whole);
        }
        let (head, rest) = sent(&Messages { most: Some(250), ..messages() }, &long);
        assert!(head.contains(r#" cut="all""#) && head.ends_with(&format!(r#"hash="{hash}"]"#)) && rest.is_empty());
    }

    #[test]
    fn no_origin_breaks_out_of_its_value() {
        assert_eq!(value(r#"a"b\c]d"#), r#"a\"b\\c\]d"#);
    }
}
