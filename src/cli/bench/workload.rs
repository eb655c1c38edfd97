//! The requests of the benchmark: made-up borrowers of the lending schema, six values each.
//!
//! A value's place is its borrower's number times six and its column. One value a request: all borrowers' first values
//! come first, then all their second ones, so that no two requests in flight are about one borrower, who would then
//! be made twice and once in vain. In batches: whole borrowers.

use bytes::Bytes;
use strongroom_proto::v1;
use strongroom_proto::v1::vault_client::VaultClient;
use tonic::transport::Channel;

use crate::cli::demo::borrowers::Borrower;
use crate::cli::output::CliError;

/// Values of a borrower.
pub const VALUES: usize = 6;
/// What the values are read for; every field of a borrower lists it.
const PURPOSE: &str = "loan_servicing";
/// Values are read whole.
const VIEW: &str = "plain";
/// A prime that spreads reads over what was written.
const STRIDE: usize = 1_000_003;

/// One request.
pub enum Call {
    /// Values in.
    Tokenize(v1::TokenizeRequest),
    /// Values out.
    Detokenize(v1::DetokenizeRequest),
}

impl Call {
    /// How many values it carries.
    pub fn items(&self) -> usize {
        match self {
            Self::Tokenize(request) => request.items.len(),
            Self::Detokenize(request) => request.items.len(),
        }
    }

    /// Sends it; returns the tokens that were made. Any refusal ends the benchmark.
    pub async fn send(self, client: &mut VaultClient<Channel>) -> Result<Vec<String>, CliError> {
        let items = self.items();
        let (answers, tokens) = match self {
            Self::Tokenize(request) => {
                let tokens = client.tokenize(request).await?.into_inner().tokens;
                (tokens.len(), tokens)
            }
            Self::Detokenize(request) => {
                let results = client.detokenize(request).await?.into_inner().results;
                let read = |result: &&v1::DetokenizeResult| matches!(&result.result, Some(v1::detokenize_result::Result::Value(value)) if !value.is_empty());
                (results.iter().filter(read).count(), vec![])
            }
        };
        match answers == items {
            true => Ok(tokens),
            false => Err(CliError::unfit(format!("{items} values were asked for and {answers} came"))),
        }
    }
}

fn item(borrower: &Borrower, column: usize) -> v1::TokenizeItem {
    let (field, value) = borrower.values()[column % VALUES];
    v1::TokenizeItem {
        field: field.to_owned(),
        value: Bytes::copy_from_slice(value.as_bytes()),
        subject: borrower.customer.clone(),
        expire_time: None,
        token: String::new(),
    }
}

/// Tokenize, one value a request.
pub fn tokenize_unary(borrowers: &[Borrower]) -> Vec<Call> {
    let one = |column, borrower| tokenize(vec![item(borrower, column)]);
    (0..VALUES).flat_map(|column| borrowers.iter().map(move |borrower| one(column, borrower))).collect()
}

/// The place of the value that the request of this number carries.
pub fn place_of_unary(request: usize, borrowers: usize) -> usize {
    (request % borrowers) * VALUES + request / borrowers
}

/// Tokenize, this many borrowers a request.
pub fn tokenize_batches(borrowers: &[Borrower], together: usize) -> Vec<Call> {
    let batch = |borrowers: &[Borrower]| {
        tokenize(borrowers.iter().flat_map(|one| (0..VALUES).map(move |column| item(one, column))).collect())
    };
    borrowers.chunks(together).map(batch).collect()
}

fn tokenize(items: Vec<v1::TokenizeItem>) -> Call {
    Call::Tokenize(v1::TokenizeRequest { items, idempotency_key: String::new() })
}

/// Detokenize, one token a request, each token once.
pub fn detokenize_unary(tokens: &[String]) -> Vec<Call> {
    scattered(tokens.len()).map(|place| detokenize(&tokens[place..=place])).collect()
}

/// Detokenize, all tokens of this many borrowers a request, each token once.
pub fn detokenize_batches(tokens: &[String], together: usize) -> Vec<Call> {
    let borrowers: Vec<&[String]> = tokens.chunks(VALUES).collect();
    let order: Vec<usize> = scattered(borrowers.len()).collect();
    order
        .chunks(together)
        .map(|batch| detokenize(&batch.iter().flat_map(|place| borrowers[*place]).cloned().collect::<Vec<_>>()))
        .collect()
}

fn detokenize(tokens: &[String]) -> Call {
    let item = |token: &String| v1::DetokenizeItem { token: token.clone(), ..Default::default() };
    let items = tokens.iter().map(item).collect();
    Call::Detokenize(v1::DetokenizeRequest { items, purpose: PURPOSE.to_owned(), view: VIEW.to_owned() })
}

/// All numbers below `count`, out of order: neighbours in a file are seldom read together.
pub fn scattered(count: usize) -> impl Iterator<Item = usize> {
    let stride = if count.is_multiple_of(STRIDE) { 1 } else { STRIDE };
    (0..count).map(move |number| number * stride % count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::demo::borrowers;

    #[test]
    fn every_value_is_written_once_and_found_at_its_place() {
        let sample = borrowers::sample(10);
        let mut seen = [false; 10 * VALUES];
        for (number, call) in tokenize_unary(&sample).into_iter().enumerate() {
            let Call::Tokenize(request) = call else { panic!("tokenize") };
            let place = place_of_unary(number, 10);
            let (field, value) = sample[place / VALUES].values()[place % VALUES];
            assert_eq!((request.items[0].field.as_str(), &request.items[0].value[..]), (field, value.as_bytes()));
            assert!(!std::mem::replace(&mut seen[place], true));
        }
        assert!(seen.iter().all(|seen| *seen));
        assert_eq!(tokenize_batches(&sample, 4).iter().map(Call::items).collect::<Vec<_>>(), [24, 24, 12]);
    }

    #[test]
    fn every_token_is_read_once() {
        for count in [1, 7, 60, STRIDE] {
            let mut all: Vec<usize> = scattered(count).collect();
            all.sort_unstable();
            assert!(all.into_iter().eq(0..count));
        }
        let tokens: Vec<String> = (0..60).map(|number| number.to_string()).collect();
        assert_eq!(detokenize_unary(&tokens).len(), 60);
        assert_eq!(detokenize_batches(&tokens, 4).iter().map(Call::items).sum::<usize>(), 60);
    }
}
