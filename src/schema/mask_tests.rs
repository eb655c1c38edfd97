//! Masks: the customary ones, and that none shows more than it says.

use proptest::prelude::*;

use super::*;
use crate::types::{accounts, china};

fn shown(kind: FieldType, mask: Mask, value: &str) -> String {
    let shown = View::new(kind, mask).apply(value.as_bytes()).unwrap();
    String::from_utf8(shown.to_vec()).unwrap()
}

#[test]
fn each_type_has_its_customary_mask() {
    let masks = [
        (FieldType::CnIdCard, "11010519491231002X", "110105********002X"),
        (FieldType::CnIdCard, "11010519491231002x", "110105********002X"),
        (FieldType::CnMobile, "13812345678", "138****5678"),
        (FieldType::CnMobile, "+86 138 1234 5678", "138****5678"),
        (FieldType::BankCard, "4111 1111 1111 1111", "411111******1111"),
        (FieldType::BankCard, "378282246310005", "378282*****0005"),
        (FieldType::BankCard, "30569309025904", "**********5904"),
        (FieldType::CnUscc, "91350100M000100Y43", "9135**********0Y43"),
        (FieldType::Iban, "GB82 WEST 1234 5698 7654 32", "GB****************5432"),
        (FieldType::Ssn, "078-05-1120", "***-**-1120"),
        (FieldType::Phone, "+442079460958", "*********0958"),
        (FieldType::Phone, "55512", "******"),
        (FieldType::Passport, "E12345678", "E******78"),
        (FieldType::Name, "张三", "张**"),
        (FieldType::Name, "张三丰", "张**"),
        (FieldType::Name, "欧阳修", "欧阳**"),
        (FieldType::Name, "欧阳", "欧**"),
        (FieldType::Name, "张", "**"),
        (FieldType::Name, "\u{3000}张三", "张**"),
        (FieldType::Name, "𠮷田", "𠮷**"),
        (FieldType::Name, "E\u{301}mile Zola", "É**"),
        (FieldType::Email, "alice@Example.com", "a***@example.com"),
        (FieldType::Email, "a@example.com", "***@example.com"),
        (FieldType::Address, "北京市朝阳区建国门外大街1号院", "北京市朝阳区******"),
        (FieldType::Address, "上海市徐汇区1号", "******"),
        (FieldType::Address, "12 Main Street, Springfield", "******"),
        (FieldType::Date, "1988-04-05", "******"),
        (FieldType::Decimal, "8500.50", "******"),
        (FieldType::Integer, "7", "******"),
        (FieldType::Text, "hello", "******"),
        (FieldType::Json, "{}", "******"),
    ];
    for (kind, value, mask) in masks {
        assert_eq!(shown(kind, Mask::Customary, value), mask, "{kind:?}");
    }
    assert_eq!(&*View::new(FieldType::Bytes, Mask::Customary).apply(&[0xff]).unwrap(), b"******");
}

#[test]
fn other_views_show_what_they_say() {
    let last4 = Mask::Keep(Keep::new(0, 4));
    assert_eq!(shown(FieldType::CnIdCard, last4, "11010519491231002x"), "**************002X");
    assert_eq!(shown(FieldType::Text, last4, "6222020200012345678"), "******5678");
    let filled = Mask::Keep(Keep { first: 1, last: 1, fill: '#' });
    assert_eq!(shown(FieldType::Text, filled, "abc"), "a######c");
    assert_eq!(shown(FieldType::Text, filled, "ab"), "######");
    assert_eq!(shown(FieldType::CnIdCard, Mask::Year, "11010519491231002X"), "1949");
    assert_eq!(shown(FieldType::Date, Mask::Year, "1988-04-05"), "1988");
    assert_eq!(shown(FieldType::Text, Mask::Hidden, "hello"), "****");
    assert_eq!(shown(FieldType::BankCard, Mask::Plain, "4111 1111 1111 1111"), "4111 1111 1111 1111");
}

#[test]
fn a_mark_does_not_join_the_fill() {
    let keep = Mask::Keep(Keep::new(0, 2));
    assert_eq!(shown(FieldType::Text, keep, "abcx\u{323}d"), "******d");
    assert_eq!(shown(FieldType::Text, Mask::Keep(Keep::new(0, 3)), "abcx\u{5b0}d"), "******x\u{5b0}d");
}

#[test]
fn a_value_of_another_type_is_refused_not_shown() {
    for mask in [Mask::Customary, Mask::Year, Mask::Keep(Keep::new(6, 4))] {
        assert!(View::new(FieldType::CnIdCard, mask).apply(b"not an identity number").is_err());
        assert!(View::new(FieldType::CnIdCard, mask).apply(&[0xff; 18]).is_err());
    }
}

/// How many characters of the value show, at both ends, given what stands for the others.
fn kept_count(shown: &str, fill: char) -> usize {
    shown.chars().filter(|character| *character != fill).count()
}

proptest! {
    #[test]
    fn a_partial_view_shows_no_more_than_declared_and_never_all(
        value in "[^#]{1,40}", first in 0usize..20, last in 0usize..20,
    ) {
        let shown = shown(FieldType::Text, Mask::Keep(Keep { first, last, fill: '#' }), &value);
        prop_assert!(kept_count(&shown, '#') <= first + last);
        prop_assert!(kept_count(&shown, '#') < nfc(&value).chars().count());
        prop_assert!(shown.contains('#'));
    }

    #[test]
    fn a_partial_view_of_an_identifier_hides_four_characters(
        (kind, value) in prop_oneof![
            china::samples::id_card().prop_map(|value| (FieldType::CnIdCard, value)),
            china::samples::uscc().prop_map(|value| (FieldType::CnUscc, value)),
            china::samples::mobile().prop_map(|value| (FieldType::CnMobile, value)),
            accounts::samples::bank_card(12..=19).prop_map(|value| (FieldType::BankCard, value)),
            accounts::samples::ssn().prop_map(|value| (FieldType::Ssn, value)),
            "[A-Z][0-9]{4,14}".prop_map(|value| (FieldType::Passport, value)),
            "\\+[1-9][0-9]{4,14}".prop_map(|value| (FieldType::Phone, value)),
        ],
        first in 0usize..20, last in 0usize..20,
    ) {
        let normal = kind.normal_text(&value).unwrap();
        let characters = normal.chars().count();
        for mask in [Mask::Customary, Mask::Keep(Keep::new(first, last))] {
            let shown = shown(kind, mask, &value);
            let hidden = shown.chars().filter(|character| *character == '*').count();
            prop_assert!(hidden >= HIDDEN_OF_IDENTIFIER);
            prop_assert!(kept_count(&shown.replace('-', ""), '*') + HIDDEN_OF_IDENTIFIER <= characters);
        }
    }

    #[test]
    fn no_customary_mask_shows_a_whole_value(value in "[^*]{1,40}") {
        for kind in [FieldType::Name, FieldType::Address, FieldType::Text] {
            let shown = shown(kind, Mask::Customary, &value);
            prop_assert!(kept_count(&shown, '*') < value.trim().chars().count().max(1));
        }
    }

    #[test]
    fn the_mask_of_an_email_shows_one_character_before_the_at(local in "[a-z]{1,20}", domain in "[a-z]{1,9}\\.com") {
        let mask = shown(FieldType::Email, Mask::Customary, &format!("{local}@{domain}"));
        let first = if local.len() > 1 { &local[..1] } else { "" };
        prop_assert_eq!(mask, format!("{first}***@{domain}"));
    }

    #[test]
    fn no_bytes_make_a_view_panic(value in proptest::collection::vec(any::<u8>(), 0..80), first in 0usize..70) {
        for kind in [FieldType::Text, FieldType::Name, FieldType::Email, FieldType::Address, FieldType::Ssn, FieldType::CnIdCard] {
            for mask in [Mask::Customary, Mask::Year, Mask::Keep(Keep::new(first, 4))] {
                let _ = View::new(kind, mask).apply(&value);
            }
        }
    }
}
