//! The requests of the benchmark, and what an answer to one must be.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use strongroom_proto::v1;
use strongroom_proto::v1::vault_client::VaultClient;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::picks::{Picks, Spread};
use super::population::{COLUMNS, Datum, Owner, Shape};
use super::tokens::Tokens;
use crate::cli::client::Wire;
use crate::cli::output::CliError;

/// What the values are read for; every measured field lists it.
const PURPOSE: &str = "loan_servicing";
/// Values are read whole.
const VIEW: &str = "plain";

/// What a request does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Values in.
    Tokenize,
    /// Values out.
    Detokenize,
    /// Values compared with what is stored; one in two is another.
    Match,
}

/// One request.
pub enum Call {
    /// Values in.
    Tokenize(v1::TokenizeRequest),
    /// Values out.
    Detokenize(v1::DetokenizeRequest),
    /// Values compared.
    Match(v1::MatchRequest),
}

/// How a request ended that did not fail.
pub enum Answer {
    /// With an answer; the tokens, if it made any.
    Done(Vec<String>),
    /// It was turned away before anything was done, with the delay after which to try again.
    Shed(Option<Duration>),
}

impl Call {
    /// How many values it carries.
    pub fn items(&self) -> usize {
        match self {
            Self::Tokenize(request) => request.items.len(),
            Self::Detokenize(request) => request.items.len(),
            Self::Match(request) => request.items.len(),
        }
    }

    /// Sends it. Any refusal but one for want of room ends the benchmark.
    pub async fn send(self, client: &mut VaultClient<Wire>) -> Result<Answer, CliError> {
        let items = self.items();
        let answered = match self {
            Self::Tokenize(request) => client.tokenize(request).await.map(|answer| made(answer.into_inner())),
            Self::Detokenize(request) => client.detokenize(request).await.map(|answer| read(&answer.into_inner())),
            Self::Match(request) => client.r#match(request).await.map(|answer| matched(&answer.into_inner())),
        };
        match answered {
            Ok((answers, tokens)) => whole(items, answers).map(|()| Answer::Done(tokens)),
            Err(status) => shed(&status).map(Answer::Shed).ok_or_else(|| status.into()),
        }
    }
}

/// The delay of a refusal for want of room; nothing if it is another refusal.
fn shed(status: &Status) -> Option<Option<Duration>> {
    let details = status.get_error_details();
    let reason = details.error_info().map(|info| info.reason.as_str());
    (status.code() == Code::Unavailable && reason == Some("OVERLOADED"))
        .then(|| details.retry_info().and_then(|info| info.retry_delay))
}

/// Answers of a Tokenize, and its tokens.
pub fn made(answer: v1::TokenizeResponse) -> (usize, Vec<String>) {
    (answer.tokens.len(), answer.tokens)
}

/// Values that a Detokenize brought.
pub fn read(answer: &v1::DetokenizeResponse) -> (usize, Vec<String>) {
    let value = |result: &&v1::DetokenizeResult| matches!(&result.result, Some(v1::detokenize_result::Result::Value(value)) if !value.is_empty());
    (answer.results.iter().filter(value).count(), vec![])
}

fn matched(answer: &v1::MatchResponse) -> (usize, Vec<String>) {
    let said = |result: &&v1::MatchResult| matches!(result.result, Some(v1::match_result::Result::Matched(_)));
    (answer.results.iter().filter(said).count(), vec![])
}

/// Refuses an answer that lacks items.
pub fn whole(items: usize, answers: usize) -> Result<(), CliError> {
    match answers == items {
        true => Ok(()),
        false => Err(CliError::unfit(format!("{items} values were asked for and {answers} came"))),
    }
}

/// A request that stores these values.
fn tokenize(data: impl Iterator<Item = Datum>) -> v1::TokenizeRequest {
    let item = |datum: Datum| v1::TokenizeItem {
        field: datum.field().field.to_owned(),
        value: Bytes::copy_from_slice(&datum.value()),
        subject: datum.subject(),
        expire_time: None,
        token: String::new(),
    };
    v1::TokenizeRequest { items: data.map(item).collect(), idempotency_key: String::new() }
}

/// What is stored and read: single values, and the values of borrowers.
#[derive(Clone, Default)]
pub struct Stored {
    /// Tokens of values that are nobody's, whose numbers begin at `first_single`.
    pub singles: Tokens,
    /// The number of the first of them.
    pub first_single: u64,
    /// Tokens of borrowers' values, borrower after borrower.
    pub borrowers: Tokens,
    /// The number of the first of them.
    pub first_borrower: u64,
}

impl Stored {
    /// The tokens that requests of a shape read.
    pub fn of(&self, shape: Shape) -> &Tokens {
        match shape.owner {
            Owner::Nobody => &self.singles,
            Owner::Borrower => &self.borrowers,
        }
    }

    fn datum(&self, shape: Shape, place: usize) -> Datum {
        match shape.owner {
            Owner::Nobody => Datum { owner: Owner::Nobody, number: self.first_single + place as u64, column: 0 },
            Owner::Borrower => Datum {
                owner: Owner::Borrower,
                number: self.first_borrower + (place / COLUMNS) as u64,
                column: place % COLUMNS,
            },
        }
    }
}

/// Makes requests by their numbers.
#[derive(Clone)]
pub struct Source {
    /// What they do, each kind as often as it stands here.
    pub kinds: Vec<Kind>,
    /// What one carries.
    pub shape: Shape,
    /// Which values are read.
    pub picks: Picks,
    /// The values that are there.
    pub stored: Arc<Stored>,
    /// The number of the population from which new values come.
    pub first: u64,
}

impl Source {
    /// Lets requests of single values read the values of borrowers, each as often as any other.
    pub fn read_borrowers(&mut self) {
        let stored = Stored { singles: self.stored.borrowers.clone(), ..Stored::default() };
        self.picks = Picks::new(self.shape, stored.singles.len().max(1), Spread::Uniform);
        self.stored = Arc::new(stored);
    }

    /// The request of a number.
    pub fn call(&self, number: u64) -> Call {
        let kind = self.kinds.get((number % self.kinds.len().max(1) as u64) as usize).copied();
        match kind.unwrap_or(Kind::Tokenize) {
            Kind::Tokenize => Call::Tokenize(self.tokenize(number)),
            Kind::Detokenize => Call::Detokenize(self.detokenize(number)),
            Kind::Match => Call::Match(self.compare(number)),
        }
    }

    /// A request that stores values that nobody had.
    pub fn tokenize(&self, number: u64) -> v1::TokenizeRequest {
        tokenize(self.shape.data(self.first + number * self.shape.numbers()))
    }

    /// A request that reads stored values.
    pub fn detokenize(&self, number: u64) -> v1::DetokenizeRequest {
        let tokens = self.stored.of(self.shape);
        let item = |place| v1::DetokenizeItem { token: tokens.get(place).to_owned(), ..Default::default() };
        let items = self.picks.of(number).into_iter().map(item).collect();
        v1::DetokenizeRequest { items, purpose: PURPOSE.to_owned(), view: VIEW.to_owned() }
    }

    fn compare(&self, number: u64) -> v1::MatchRequest {
        let tokens = self.stored.of(self.shape);
        let item = |(nth, place): (usize, usize)| {
            let mut datum = self.stored.datum(self.shape, place);
            datum.number += (number + nth as u64) % 2;
            v1::MatchItem {
                token: tokens.get(place).to_owned(),
                value: Bytes::copy_from_slice(&datum.value()),
                subject: String::new(),
            }
        };
        let items = self.picks.of(number).into_iter().enumerate().map(item).collect();
        v1::MatchRequest { items, purpose: PURPOSE.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic_types::ErrorDetails;

    fn source(items: usize) -> Source {
        let shape = Shape::of(items);
        let mut stored = Stored { first_borrower: 50, ..Stored::default() };
        stored.borrowers.add(&(0..600).map(|place| format!("{place:04}")).collect::<Vec<_>>()).unwrap();
        stored.singles.add(&(0..600).map(|place| format!("{place:04}")).collect::<Vec<_>>()).unwrap();
        Source {
            kinds: vec![Kind::Tokenize, Kind::Detokenize, Kind::Match],
            shape,
            picks: Picks::new(shape, 600, Spread::Uniform),
            stored: Arc::new(stored),
            first: 0,
        }
    }

    #[test]
    fn kinds_take_turns_and_carry_as_many_values() {
        for items in [1, 10, 100, 1_000] {
            let source = source(items);
            let kinds = [0, 1, 2, 3].map(|number| match source.call(number) {
                Call::Tokenize(_) => "in",
                Call::Detokenize(_) => "out",
                Call::Match(_) => "compared",
            });
            assert_eq!(kinds, ["in", "out", "compared", "in"]);
            assert!((0..3).all(|number| source.call(number).items() == items));
        }
    }

    #[test]
    fn one_in_two_compared_values_is_the_stored_one() {
        let Call::Match(request) = source(100).call(2) else { panic!("match") };
        let place = |token: &str| token.parse::<usize>().unwrap();
        let right = request.items.iter().filter(|item| {
            let place = place(&item.token);
            let datum = Datum { owner: Owner::Borrower, number: 50 + (place / 6) as u64, column: place % 6 };
            datum.value()[..] == item.value[..]
        });
        assert_eq!(right.count(), 50);
    }

    #[test]
    fn only_a_refusal_for_want_of_room_is_not_an_error() {
        let status = |code, reason: &str, delay| {
            let mut details = ErrorDetails::with_error_info(reason, "strongroom", std::collections::HashMap::new());
            details.set_retry_info(delay);
            Status::with_error_details(code, "no", details)
        };
        let second = Some(Duration::from_secs(1));
        assert_eq!(shed(&status(Code::Unavailable, "OVERLOADED", second)), Some(second));
        assert_eq!(shed(&status(Code::Unavailable, "RECOVERING", second)), None);
        assert_eq!(shed(&status(Code::PermissionDenied, "DENIED", None)), None);
        assert_eq!(shed(&Status::unavailable("the connection broke")), None);
    }
}
