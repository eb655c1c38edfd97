//! The tokens of what is stored, in the order of the values: ten million of them in as few bytes as they have.

use crate::cli::output::CliError;

/// Tokens of one length, one after the other.
#[derive(Clone, Default)]
pub struct Tokens {
    text: String,
    /// Bytes of each; opaque tokens of one key version are of one length.
    length: usize,
}

impl Tokens {
    /// Takes the tokens of one more answer.
    pub fn add(&mut self, answer: &[String]) -> Result<(), CliError> {
        for token in answer {
            if self.length == 0 {
                self.length = token.len();
            }
            if token.len() != self.length || token.is_empty() || !token.is_ascii() {
                return Err(CliError::unfit("the vault gave tokens of several lengths where opaque ones were meant"));
            }
            self.text.push_str(token);
        }
        Ok(())
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.text.len().checked_div(self.length).unwrap_or(0)
    }

    /// The token at a place; empty if there is none.
    pub fn get(&self, place: usize) -> &str {
        self.text.get(place * self.length..(place + 1) * self.length).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_found_at_their_places() {
        let mut tokens = Tokens::default();
        assert_eq!((tokens.len(), tokens.get(0)), (0, ""));
        tokens.add(&["aa".to_owned(), "bb".to_owned()]).unwrap();
        tokens.add(&["cc".to_owned()]).unwrap();
        assert_eq!((tokens.len(), tokens.get(1), tokens.get(2), tokens.get(3)), (3, "bb", "cc", ""));
        assert!(tokens.add(&["ddd".to_owned()]).is_err());
    }
}
