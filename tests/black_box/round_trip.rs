//! Values in, tokens out, and back: the main road.

use crate::harness::{TestVault, one_token, read_one};

const ID_CARD: &str = "11010519491231002X";

#[tokio::test]
async fn a_value_comes_back_in_the_view_that_was_asked_for() {
    let vault = TestVault::start();
    let token = one_token(&vault, "borrower.id_card", ID_CARD, "cust-1").await;
    assert!(token.starts_with("srt1_") && token.len() == 27, "{token}");
    assert_eq!(read_one(&vault, &token, "kyc_review", "plain").await.unwrap(), ID_CARD);
    assert_eq!(read_one(&vault, &token, "kyc_review", "").await.unwrap(), "110105********002X");
    assert_eq!(read_one(&vault, &token, "kyc_review", "last4").await.unwrap(), "002X");
    vault.verify_ledger();
}

#[tokio::test]
async fn values_survive_a_restart() {
    let mut vault = TestVault::start();
    let token = one_token(&vault, "borrower.name", "欧阳志远", "cust-1").await;
    assert!(vault.stop().success());
    vault.up();
    assert_eq!(read_one(&vault, &token, "loan_servicing", "plain").await.unwrap(), "欧阳志远");
    vault.verify_ledger();
}
