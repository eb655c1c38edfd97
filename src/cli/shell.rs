//! Words as a POSIX shell takes them, for commands that are printed to be pasted.

use std::borrow::Cow;

/// A word that a shell reads as it is: in quotes where it needs them.
pub fn quoted(word: &str) -> Cow<'_, str> {
    let plain = |c: char| c.is_alphanumeric() || "%+,-./:=@_".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => Cow::Borrowed(word),
        // Between single quotes nothing means anything but the quote itself.
        false => Cow::Owned(format!("'{}'", word.replace('\'', r"'\''"))),
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_shell_reads_back_every_word() {
        for word in ["", "a b", "it's", "$HOME", "`id`", "a\\b", "~", "*", "a\nb", "!", "\"", "#x", "/tmp/ü-1.csv"] {
            let output = Command::new("sh").arg("-c").arg(format!("printf %s {}", quoted(word))).output().unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), word);
        }
    }

    #[test]
    fn a_word_that_needs_no_quotes_has_none() {
        for word in ["tokenize", "borrower.id_card", "name=borrower.name", "https://127.0.0.1:7443", "./a-b_c.csv"] {
            assert_eq!(quoted(word), word);
        }
    }
}
