//! Streams: a message that is refused is answered with its problem, and the stream goes on.

use strongroom_proto::v1;
use tonic::Code;

use super::{BAD_ID_CARD, assert_invalid, id_cards, told, told_of_item};
use crate::harness::{TestVault, detokenize, item, read_one, tokenize, value};
use crate::raw;

#[tokio::test]
async fn a_bad_message_of_a_tokenize_stream_is_answered_and_the_stream_goes_on() {
    use v1::tokenize_stream_response::Result as Outcome;
    let vault = TestVault::start();
    let cards = id_cards(4);
    let good = |card: &str| tokenize(vec![item("borrower.id_card", card, "cust-1")]);
    let mixed = tokenize(vec![item("borrower.id_card", &cards[3], ""), item("borrower.id_card", BAD_ID_CARD, "")]);
    let long_key = v1::TokenizeRequest { idempotency_key: "k".repeat(129), ..good(&cards[3]) };
    let late = super::until(item("borrower.name", "Li", ""), i64::MAX, 0);
    let messages = vec![
        good(&cards[0]),
        mixed,
        good(&cards[1]),
        tokenize(vec![]),
        tokenize(vec![item("borrower.name", "Li", ""); 10_001]),
        long_key,
        tokenize(vec![late]),
        tokenize(vec![item("borrower.shoe_size", "44", "")]),
        good(&cards[2]),
    ];
    let mut answers = vault.vault().await.tokenize_stream(tokio_stream::iter(messages)).await.unwrap().into_inner();
    let mut outcomes = Vec::new();
    while let Some(answer) = answers.message().await.unwrap() {
        outcomes.push(match answer.result.unwrap() {
            Outcome::Response(response) => Ok(response.tokens),
            Outcome::Problem(problem) => Err(told_of_item(Some(problem), &[BAD_ID_CARD, &cards[3], "shoe_size"])),
        });
    }
    assert_eq!(outcomes.len(), 9);
    for (at, card) in [(0, 0), (2, 1), (8, 2)] {
        let tokens = outcomes[at].as_ref().unwrap();
        assert_eq!(read_one(&vault, &tokens[0], "kyc_review", "plain").await.unwrap(), cards[card]);
    }
    let bad = |at: usize| outcomes[at].as_ref().unwrap_err();
    assert_invalid(bad(1), "VALUE_INVALID", &[("items[1].value", "check_digit")]);
    assert_invalid(bad(3), "ITEMS_INVALID", &[("items", "empty")]);
    assert_invalid(bad(4), "ITEMS_INVALID", &[("items", "too_many")]);
    assert_invalid(bad(5), "IDEMPOTENCY_KEY_INVALID", &[("idempotency_key", "too_long")]);
    assert_invalid(bad(6), "EXPIRE_TIME_INVALID", &[("items[0].expire_time", "timestamp_range")]);
    assert_invalid(bad(7), "FIELD_UNKNOWN", &[("items[0].field", "field_unknown")]);
    super::nothing_is_found(&vault, "borrower.id_card", &cards[3..]).await;
    vault.verify_ledger();
}

#[tokio::test]
async fn a_bad_message_of_a_detokenize_stream_is_answered_and_the_stream_goes_on() {
    use v1::detokenize_stream_response::Result as Outcome;
    let vault = TestVault::start();
    let mut client = vault.vault().await;
    let card = id_cards(1).remove(0);
    let request = tokenize(vec![item("borrower.id_card", &card, "cust-1")]);
    let token = client.tokenize(request).await.unwrap().into_inner().tokens.remove(0);
    let messages = vec![
        detokenize(&[&token], "", "plain"),
        detokenize(&[&token], "kyc_review", "plain"),
        detokenize(&[], "kyc_review", "plain"),
        detokenize(&[&token], "curiosity", "plain"),
        detokenize(&["srt1_x", &token], "kyc_review", "plain"),
    ];
    let mut answers = client.detokenize_stream(tokio_stream::iter(messages)).await.unwrap().into_inner();
    let mut outcomes = Vec::new();
    while let Some(answer) = answers.message().await.unwrap() {
        outcomes.push(match answer.result.unwrap() {
            Outcome::Response(response) => Ok(response.results.into_iter().map(value).collect::<Vec<_>>()),
            Outcome::Problem(problem) => Err(told_of_item(Some(problem), &[&card, &token, "curiosity"])),
        });
    }
    assert_eq!(outcomes.len(), 5);
    assert_invalid(outcomes[0].as_ref().unwrap_err(), "PURPOSE_INVALID", &[("purpose", "required")]);
    assert_invalid(outcomes[2].as_ref().unwrap_err(), "ITEMS_INVALID", &[("items", "empty")]);
    assert_invalid(outcomes[3].as_ref().unwrap_err(), "PURPOSE_INVALID", &[("purpose", "purpose_unknown")]);
    assert_eq!(outcomes[1].as_ref().unwrap()[0].as_ref().unwrap(), card.as_bytes());
    let last = outcomes[4].as_ref().unwrap();
    assert_invalid(last[0].as_ref().unwrap_err(), "TOKEN_INVALID", &[("items[0].token", "token_malformed")]);
    assert_eq!(last[1].as_ref().unwrap(), card.as_bytes());
}

#[tokio::test]
async fn what_is_no_message_at_all_ends_a_stream_after_what_came_before() {
    let vault = TestVault::start();
    let channel = vault.channel("app").await;
    // TokenizeItem { field, value }, in a TokenizeRequest.
    let message = |field: &[u8]| raw::field(1, &[raw::field(1, field), raw::field(2, b"Li")].concat());
    let messages = vec![message(b"borrower.name"), message(b"borrower.na\xffme"), message(b"borrower.name")];
    let (answers, end) = raw::stream(&channel, "/strongroom.v1.Vault/TokenizeStream", messages).await;
    assert_eq!(answers.len(), 1, "{answers:?}");
    let end = told(end.map_or(Ok(()), Err), &["Li", "borrower.na"]);
    assert_eq!((end.code, end.reason.as_str()), (Code::InvalidArgument, "MESSAGE_MALFORMED"));
    let stored = super::leaves_of(&vault, "tokenize").await;
    assert_eq!(stored.len(), 1, "what came after the bad message was not looked at");
}
