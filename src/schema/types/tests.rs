//! Every type: vectors, what is refused by which rule, and the properties of normal forms.

use proptest::prelude::*;

use super::accounts::samples as accounts;
use super::china::samples as china;
use super::*;

const ALL: [FieldType; 17] = [
    FieldType::Text,
    FieldType::Bytes,
    FieldType::Integer,
    FieldType::Decimal,
    FieldType::Date,
    FieldType::Json,
    FieldType::Name,
    FieldType::Address,
    FieldType::Email,
    FieldType::Phone,
    FieldType::Passport,
    FieldType::CnIdCard,
    FieldType::CnMobile,
    FieldType::CnUscc,
    FieldType::BankCard,
    FieldType::Iban,
    FieldType::Ssn,
];

fn normal(kind: FieldType, value: &str) -> String {
    String::from_utf8(kind.normal(value.as_bytes()).unwrap().to_vec()).unwrap()
}

fn rule(kind: FieldType, value: &str) -> &'static str {
    let violation = kind.check(value.as_bytes()).unwrap_err();
    assert_eq!(kind.normal(value.as_bytes()).unwrap_err(), violation);
    violation.rule
}

#[test]
fn values_have_these_normal_forms() {
    let forms = [
        (FieldType::CnIdCard, "11010519491231002x", "11010519491231002X"),
        (FieldType::CnIdCard, "１１０１０５１９４９１２３１００２ｘ", "11010519491231002X"),
        (FieldType::CnMobile, "+86 138-1234-5678", "13812345678"),
        (FieldType::CnMobile, "008613812345678", "13812345678"),
        (FieldType::CnMobile, "１３８１２３４５６７８", "13812345678"),
        (FieldType::CnUscc, "91350100m000100y43", "91350100M000100Y43"),
        (FieldType::BankCard, "4111 1111-1111 1111", "4111111111111111"),
        (FieldType::Iban, "gb82 west 1234 5698 7654 32", "GB82WEST12345698765432"),
        (FieldType::Ssn, "078-05-1120", "078051120"),
        (FieldType::Phone, "+44 (20) 7946.0958", "+442079460958"),
        (FieldType::Phone, "0044 20 7946 0958", "+442079460958"),
        (FieldType::Phone, "010-6552 9988", "01065529988"),
        (FieldType::Passport, "e12345678", "E12345678"),
        (FieldType::Email, "Zhang.San@Example.COM", "Zhang.San@example.com"),
        (FieldType::Email, "用户@例子.公司", "用户@例子.公司"),
        (FieldType::Name, "  José \u{3000} Muñoz ", "José Muñoz"),
        (FieldType::Name, "Jose\u{301}", "José"),
        (FieldType::Name, "阿里•买买提", "阿里·买买提"),
        (FieldType::Address, "北京市朝阳区\n建国路  1号", "北京市朝阳区 建国路 1号"),
        (FieldType::Integer, "+0042", "42"),
        (FieldType::Integer, "-0", "0"),
        (FieldType::Integer, "-07", "-7"),
        (FieldType::Decimal, "008500.50", "8500.5"),
        (FieldType::Decimal, "-0.00", "0"),
        (FieldType::Decimal, "12", "12"),
        (FieldType::Date, "2024-02-29", "2024-02-29"),
        (FieldType::Text, "e\u{301}", "é"),
        (FieldType::Json, "{\"a\": [1, null]}", "{\"a\": [1, null]}"),
    ];
    for (kind, value, form) in forms {
        assert_eq!(normal(kind, value), form, "{kind:?}");
    }
}

#[test]
fn a_broken_rule_is_named() {
    let broken = [
        (FieldType::CnIdCard, "110105194912310021", "check_digit"),
        (FieldType::CnIdCard, "91010519491231002X", "region"),
        (FieldType::CnIdCard, "11010519490229002X", "birth_date"),
        (FieldType::CnIdCard, "11010518991231002X", "birth_date"),
        (FieldType::CnIdCard, "110105491231002", "id_card"),
        (FieldType::CnIdCard, "1101051949123100XX", "id_card"),
        (FieldType::CnMobile, "12812345678", "mobile"),
        (FieldType::CnMobile, "1381234567", "mobile"),
        (FieldType::CnMobile, "+4413812345678", "mobile"),
        (FieldType::CnUscc, "91350100M000100Y44", "check_digit"),
        (FieldType::CnUscc, "91350100I000100Y43", "uscc"),
        (FieldType::BankCard, "4111111111111112", "luhn"),
        (FieldType::BankCard, "41111111111", "bank_card"),
        (FieldType::Iban, "GB82WEST12345698765433", "check_digit"),
        (FieldType::Iban, "XX82WEST12345698765432", "check_digit"),
        (FieldType::Ssn, "000-12-3456", "ssn"),
        (FieldType::Ssn, "666-12-3456", "ssn"),
        (FieldType::Ssn, "900-12-3456", "ssn"),
        (FieldType::Ssn, "123-00-3456", "ssn"),
        (FieldType::Ssn, "123-45-0000", "ssn"),
        (FieldType::Phone, "1234", "phone"),
        (FieldType::Phone, "+012345678", "phone"),
        (FieldType::Passport, "ABCDEFGH", "passport"),
        (FieldType::Email, "nobody", "email"),
        (FieldType::Email, "a@b", "email"),
        (FieldType::Email, "a b@example.com", "email"),
        (FieldType::Email, "\"a b\"@example.com", "email"),
        (FieldType::Email, "a@[127.0.0.1]", "email"),
        (FieldType::Email, "A <a@example.com>", "email"),
        (FieldType::Name, " \u{3000}", "empty"),
        (FieldType::Name, "a\nb", "control_character"),
        (FieldType::Address, "a\0b", "control_character"),
        (FieldType::Integer, "1e3", "integer"),
        (FieldType::Integer, "--1", "integer"),
        (FieldType::Decimal, "1.", "decimal"),
        (FieldType::Decimal, ".5", "decimal"),
        (FieldType::Decimal, "1.2.3", "decimal"),
        (FieldType::Date, "2023-02-29", "date"),
        (FieldType::Date, "0000-01-01", "date"),
        (FieldType::Date, "2023-2-09", "date"),
        (FieldType::Json, "{\"a\":}", "json"),
        (FieldType::Json, "1 2", "json"),
    ];
    for (kind, value, name) in broken {
        assert_eq!(rule(kind, value), name, "{kind:?}");
    }
}

#[test]
fn every_type_refuses_what_is_empty_too_long_or_no_text() {
    for kind in ALL {
        assert_eq!(rule(kind, ""), "empty");
        assert_eq!(rule(kind, &"1".repeat(MAX_VALUE + 1)), "too_long");
        if kind != FieldType::Bytes {
            assert_eq!(kind.check(&[0xff, 0xfe]).unwrap_err().rule, "utf8");
        }
    }
    assert!(FieldType::Bytes.check(&[0xff, 0xfe]).is_ok());
    assert!(FieldType::Text.check(&vec![b'x'; MAX_VALUE]).is_ok());
}

#[test]
fn deep_json_does_not_exhaust_the_stack() {
    let deep = format!("{}{}", "[".repeat(30_000), "]".repeat(30_000));
    let _ = FieldType::Json.check(deep.as_bytes());
}

#[test]
fn a_type_is_written_as_it_is_named() {
    for kind in ALL {
        assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
    }
}

/// A valid value of a type that has a check digit, and that type.
fn checked() -> impl Strategy<Value = (FieldType, String)> {
    prop_oneof![
        china::id_card().prop_map(|value| (FieldType::CnIdCard, value)),
        china::uscc().prop_map(|value| (FieldType::CnUscc, value)),
        accounts::bank_card(12..=19).prop_map(|value| (FieldType::BankCard, value)),
    ]
}

fn any_value() -> impl Strategy<Value = String> {
    prop_oneof![
        checked().prop_map(|(_, value)| value),
        china::mobile(),
        accounts::ssn(),
        "(\\+|00)?[0-9 ().-]{5,20}",
        "[+-]?[0-9]{1,45}(\\.[0-9]{0,5})?",
        "[0-9]{4}-[0-9]{2}-[0-9]{2}",
        "[A-Za-z0-9]{5,15}",
        "\\PC{1,30}@[a-zA-ZÀ-ž]{1,8}\\.[a-zA-ZΑ-ω]{2,5}",
        "(?s).{0,60}",
        "[ \u{300}-\u{320}a-eÀ-ü·•\u{3000}]{1,20}",
    ]
}

proptest! {
    #[test]
    fn a_generated_identifier_is_valid((kind, value) in checked(), mobile in china::mobile(), ssn in accounts::ssn()) {
        prop_assert!(kind.check(value.as_bytes()).is_ok());
        prop_assert!(FieldType::CnMobile.check(mobile.as_bytes()).is_ok());
        prop_assert!(FieldType::Ssn.check(ssn.as_bytes()).is_ok());
    }

    #[test]
    fn one_wrong_digit_is_noticed((kind, value) in checked(), place: prop::sample::Index, by in 1u8..10) {
        let mut bytes = value.into_bytes();
        let place = place.index(bytes.len());
        if bytes[place].is_ascii_digit() {
            bytes[place] = b'0' + (bytes[place] - b'0' + by) % 10;
            prop_assert!(kind.check(&bytes).is_err());
        }
    }

    #[test]
    fn two_neighbours_changed_over_are_noticed_in_an_identity_number(value in china::id_card(), place in 0usize..17) {
        let mut bytes = value.into_bytes();
        if bytes[place] != bytes[place + 1] {
            bytes.swap(place, place + 1);
            prop_assert!(FieldType::CnIdCard.check(&bytes).is_err());
        }
    }

    #[test]
    fn a_normal_form_is_valid_and_its_own_normal_form(value in any_value()) {
        for kind in ALL {
            if let Ok(form) = kind.normal(value.as_bytes()) {
                prop_assert_eq!(&kind.normal(&form).unwrap(), &form, "{:?}", kind);
            }
        }
    }

    #[test]
    fn what_can_be_checked_can_be_normalised(value in any_value()) {
        for kind in ALL {
            prop_assert_eq!(kind.check(value.as_bytes()).err(), kind.normal(value.as_bytes()).err(), "{:?}", kind);
        }
    }

    #[test]
    fn no_bytes_make_a_type_panic(value in proptest::collection::vec(any::<u8>(), 0..200)) {
        for kind in ALL {
            let _ = kind.check(&value);
        }
    }

    #[test]
    fn no_message_repeats_a_value(value in "[0-9]{6,24}") {
        for kind in ALL {
            if let Err(violation) = kind.check(value.as_bytes()) {
                prop_assert!(!violation.to_string().contains(&value));
            }
        }
    }
}
