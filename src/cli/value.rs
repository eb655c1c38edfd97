//! A value on its way in: named on the command line, read from standard input, made an item of a request.

use std::convert::Infallible;
use std::fmt;
use std::io::{IsTerminal, Read};
use std::str::FromStr;

use strongroom_proto::v1::TokenizeItem;
use time::OffsetDateTime;
use zeroize::Zeroizing;

use super::expiry::to_wire;
use super::input::Input;
use super::output::CliError;

/// A value on the command line. It has no text of its own in logs.
#[derive(Clone)]
pub struct ValueArgument(Zeroizing<String>);

impl FromStr for ValueArgument {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(Zeroizing::new(text.to_owned())))
    }
}

impl fmt::Debug for ValueArgument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ValueArgument(..)")
    }
}

/// The value of an argument: itself, or for '-' what stands on standard input.
pub fn read_value(argument: &ValueArgument, input: &Input) -> Result<Vec<u8>, CliError> {
    match argument.0.as_str() {
        "-" => input.once(read_input),
        given => Ok(given.as_bytes().to_vec()),
    }
}

fn read_input() -> Result<Vec<u8>, CliError> {
    let mut input = std::io::stdin().lock();
    if input.is_terminal() {
        drop(input);
        let typed = rpassword::prompt_password("value: ").map_err(|error| CliError::file("the terminal", error))?;
        return Ok(typed.into_bytes());
    }
    let mut value = Vec::new();
    // A value has at most 64 KiB; the vault says so of anything longer, without all of it being read.
    input.by_ref().take(1 << 20).read_to_end(&mut value).map_err(|error| CliError::file("standard input", error))?;
    without_last_newline(&mut value);
    Ok(value)
}

fn without_last_newline(value: &mut Vec<u8>) {
    if value.pop_if(|byte| *byte == b'\n').is_some() {
        value.pop_if(|byte| *byte == b'\r');
    }
}

/// A value to be stored.
pub fn new_item(
    field: &str,
    value: impl Into<bytes::Bytes>,
    subject: &str,
    expires: Option<OffsetDateTime>,
) -> TokenizeItem {
    TokenizeItem {
        field: field.to_owned(),
        value: value.into(),
        subject: subject.to_owned(),
        expire_time: expires.map(to_wire),
        token: String::new(),
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn one_newline_at_the_end_is_not_part_of_the_value() {
        for (given, wanted) in [("a\n", "a"), ("a\r\n", "a"), ("a", "a"), ("a\n\n", "a\n"), ("a\r", "a\r")] {
            let mut value = given.as_bytes().to_vec();
            without_last_newline(&mut value);
            assert_eq!(value, wanted.as_bytes());
        }
    }

    #[test]
    fn the_expiry_of_an_item_is_in_seconds_since_1970() {
        let item = new_item("a.b", vec![1u8], "", Some(datetime!(1970-01-02 0:00 UTC)));
        assert_eq!(item.expire_time.unwrap().seconds, 86_400);
    }
}
