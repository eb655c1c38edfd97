//! Messages that are no messages: broken protobuf, text that is no UTF-8, and more than anybody takes.

use strongroom_proto::v1;
use tonic::{Code, Request};

use super::{ID_CARD, assert_invalid, leaves_of, nothing_is_found, told};
use crate::harness::{TestVault, item, tokenize, vault_client};
use crate::raw::{self, field};

const TOKENIZE: &str = "/strongroom.v1.Vault/Tokenize";

#[tokio::test]
async fn a_string_that_is_no_utf8_is_refused() {
    let vault = TestVault::start();
    let channel = vault.channel("app").await;
    let item = |parts: &[Vec<u8>]| field(1, &parts.concat());
    let name = || field(1, b"borrower.id_card");
    let value = || field(2, ID_CARD.as_bytes());
    let bad = b"cust-\xff\xfe-1";
    let messages = [
        (TOKENIZE, item(&[field(1, b"borrower.\xc3\x28"), value()])),
        (TOKENIZE, item(&[name(), value(), field(3, bad)])),
        (TOKENIZE, item(&[name(), value(), field(5, bad)])),
        (TOKENIZE, [item(&[name(), value()]), field(2, bad)].concat()),
        ("/strongroom.v1.Vault/Detokenize", [item(&[field(1, bad)]), field(2, b"kyc_review")].concat()),
        ("/strongroom.v1.Vault/Detokenize", [item(&[field(1, b"t")]), field(2, bad)].concat()),
        ("/strongroom.v1.Vault/Lookup", [item(&[field(1, bad), value()]), field(2, b"kyc_review")].concat()),
        ("/strongroom.v1.Vault/Delete", item(&[field(1, bad)])),
        ("/strongroom.v1.Access/ApplySchema", field(1, bad)),
        ("/strongroom.v1.Audit/GetCheckpoint", field(1, bad)),
    ];
    for (path, message) in messages {
        let told = told(raw::call(&channel, path, &message).await, &[ID_CARD, "cust-"]);
        assert_eq!((told.code, told.reason.as_str()), (Code::InvalidArgument, "MESSAGE_MALFORMED"), "{path}");
    }
    nothing_is_found(&vault, "borrower.id_card", &[ID_CARD.to_owned()]).await;
    assert!(leaves_of(&vault, "tokenize").await.is_empty(), "what can't be read is not recorded");
    // The same with text is taken.
    raw::call(&channel, TOKENIZE, &item(&[name(), value(), field(3, b"cust-1")])).await.unwrap();
}

#[tokio::test]
async fn bytes_that_are_no_protobuf_are_refused() {
    let vault = TestVault::start();
    let channel = vault.channel("app").await;
    let good = field(1, &[field(1, b"borrower.id_card"), field(2, ID_CARD.as_bytes())].concat());
    let deep = (0..40).fold(vec![], |inner: Vec<u8>, _| field(1, &inner));
    let messages = [
        good[..good.len() - 1].to_vec(),
        vec![0xff; 64],
        vec![0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
        vec![0x0a, 0x80],
        vec![0x00],
        // A wire type that there is not, and a group that never ends.
        vec![0x0f],
        vec![0x0b],
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        [&b"\x0a"[..], &[0x7f], &deep[..]].concat(),
    ];
    for message in messages {
        let told = told(raw::call(&channel, TOKENIZE, &message).await, &[ID_CARD]);
        assert_eq!((told.code, told.reason.as_str()), (Code::InvalidArgument, "MESSAGE_MALFORMED"), "{message:02x?}");
    }
    // No bytes are a message: one without items.
    assert_invalid(&told(raw::call(&channel, TOKENIZE, &[]).await, &[]), "ITEMS_INVALID", &[("items", "empty")]);
    // A field of a later version is passed over.
    let later = [good.clone(), field(15, b"what is this")].concat();
    raw::call(&channel, TOKENIZE, &later).await.unwrap();
    let unknown = told(raw::call(&channel, "/strongroom.v1.Vault/Steal", &good).await, &[ID_CARD]);
    assert_eq!((unknown.code, unknown.reason.as_str()), (Code::Unimplemented, "METHOD_UNKNOWN"));
}

#[tokio::test]
async fn a_compressed_message_is_refused_as_such() {
    let vault = TestVault::start();
    let channel = vault.channel("app").await;
    let good = field(1, &[field(1, b"borrower.id_card"), field(2, ID_CARD.as_bytes())].concat());
    let mut request = Request::new(good);
    request.metadata_mut().insert("grpc-encoding", "gzip".parse().unwrap());
    let told = told(raw::call_with(&channel, TOKENIZE, request).await, &[ID_CARD]);
    assert_eq!((told.code, told.reason.as_str()), (Code::Unimplemented, "COMPRESSION_UNSUPPORTED"), "{told:?}");
    nothing_is_found(&vault, "borrower.id_card", &[ID_CARD.to_owned()]).await;
}

#[tokio::test]
async fn a_message_that_is_too_large_is_refused_before_it_is_read() {
    let vault = TestVault::start();
    let channel = vault.channel("app").await;
    let mut client = vault_client(channel.clone());
    let value = "7".repeat(65_536);
    // 21 MB; the last message that is read has 20 MiB.
    let large = tokenize(vec![item("borrower.address", &value, ""); 321]);
    let refused = told(client.tokenize(large).await, &["77777777"]);
    assert_eq!((refused.code, refused.reason.as_str()), (Code::ResourceExhausted, "MESSAGE_TOO_LARGE"), "{refused:?}");
    // Two bytes each, and more than 10,000.
    let many = tokenize(vec![v1::TokenizeItem::default(); 200_000]);
    assert_invalid(&told(client.tokenize(many).await, &[]), "ITEMS_INVALID", &[("items", "too_many")]);
    assert!(leaves_of(&vault, "tokenize").await.is_empty(), "what is not read is not recorded");
    // The connection is as good as before.
    client.tokenize(tokenize(vec![item("borrower.address", &value, "")])).await.unwrap();
}
