//! The sizes that a request may have, refused before any work is done.

use strongroom_schema::MAX_VALUE;
use strongroom_schema::token::MAX_TOKEN;

use crate::error::{Error, Violation};

/// The limits of one vault. The configuration may lower them.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of a value.
    pub value: usize,
    /// Bytes of a token.
    pub token: usize,
    /// Bytes of a subject id.
    pub subject: usize,
    /// Bytes of an idempotency key.
    pub idempotency_key: usize,
    /// Items of a call.
    pub items: usize,
    /// Bytes of a call's values, and of its answer.
    pub message: usize,
    /// Tokens that one item of a Lookup answers.
    pub found: usize,
    /// Tenants at once.
    pub tenants: usize,
}

impl Limits {
    /// The most that any vault allows.
    pub const MOST: Self = Self {
        value: MAX_VALUE,
        token: MAX_TOKEN,
        subject: 128,
        idempotency_key: 128,
        items: 10_000,
        message: 16 << 20,
        found: 1_000,
        tenants: 1_000,
    };

    /// Every limit by its name, as the configuration has it.
    fn by_name(&mut self) -> [(&'static str, &mut usize); 8] {
        [
            ("value", &mut self.value),
            ("token", &mut self.token),
            ("subject", &mut self.subject),
            ("idempotency_key", &mut self.idempotency_key),
            ("items", &mut self.items),
            ("message", &mut self.message),
            ("found", &mut self.found),
            ("tenants", &mut self.tenants),
        ]
    }

    /// Lowers the limit of a name. One that is not known, nothing at all and more than it was are refused, in words.
    pub fn lower(&mut self, name: &str, to: usize) -> Result<(), String> {
        let mut limits = self.by_name();
        let Some((_, limit)) = limits.iter_mut().find(|(known, _)| *known == name) else {
            let known = limits.map(|(known, _)| known).join(", ");
            return Err(format!("there is no such limit; there are {known}"));
        };
        if !(1..=**limit).contains(&to) {
            return Err(format!("write 1 to {limit}"));
        }
        **limit = to;
        Ok(())
    }

    /// Refuses a call without items or with too many.
    pub(crate) fn items(&self, count: usize) -> Result<(), Error> {
        match count {
            0 => Err(Error::invalid("items", "empty", "a call has at least one item")),
            n if n > self.items => Err(Error::invalid(
                "items",
                "too_many",
                format!("a call has at most {} items; this one has {n}", self.items),
            )),
            _ => Ok(()),
        }
    }

    /// Refuses a call whose values are too large together.
    pub(crate) fn message(&self, bytes: usize) -> Result<(), Error> {
        if bytes <= self.message {
            return Ok(());
        }
        Err(Error::invalid("items", "too_long", format!("a call carries at most {} bytes of values", self.message)))
    }

    pub(crate) fn value(&self, index: usize, value: &[u8], into: &mut Vec<Violation>) {
        at_least_one_at_most(index, "value", value.len(), self.value, into);
    }

    pub(crate) fn token(&self, index: usize, token: &str, into: &mut Vec<Violation>) {
        at_least_one_at_most(index, "token", token.len(), self.token, into);
    }

    pub(crate) fn subject(&self, index: usize, subject: &str, into: &mut Vec<Violation>) {
        if subject.len() > self.subject {
            into.push(too_long(index, "subject", self.subject));
        }
    }

    pub(crate) fn idempotency_key(&self, key: &str) -> Result<(), Error> {
        if key.len() <= self.idempotency_key {
            return Ok(());
        }
        let description = format!("an idempotency key has at most {} bytes", self.idempotency_key);
        Err(Error::invalid("idempotency_key", "too_long", description))
    }
}

fn at_least_one_at_most(index: usize, part: &str, len: usize, most: usize, into: &mut Vec<Violation>) {
    if len == 0 {
        into.push(Violation::new(format!("items[{index}].{part}"), "empty", format!("a {part} has at least one byte")));
    } else if len > most {
        into.push(too_long(index, part, most));
    }
}

fn too_long(index: usize, part: &str, most: usize) -> Violation {
    Violation::new(format!("items[{index}].{part}"), "too_long", format!("a {part} has at most {most} bytes"))
}

/// Refuses if anything was found wrong.
pub(crate) fn none(violations: Vec<Violation>) -> Result<(), Error> {
    if violations.is_empty() { Ok(()) } else { Err(Error::Invalid(violations)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_lowered_by_name_and_never_raised() {
        let mut limits = Limits::MOST;
        for (name, most) in limits.by_name().map(|(name, most)| (name, *most)) {
            assert_eq!(limits.lower(name, 0).unwrap_err(), format!("write 1 to {most}"));
            assert_eq!(limits.lower(name, most + 1).unwrap_err(), format!("write 1 to {most}"));
            limits.lower(name, most).unwrap();
            limits.lower(name, 1).unwrap();
            assert!(limits.lower(name, 2).is_err());
        }
        assert!(limits.by_name().into_iter().all(|(_, limit)| *limit == 1));
        assert!(limits.lower("itmes", 1).unwrap_err().contains("items"));
    }
}
