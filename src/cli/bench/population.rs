//! Whose values are measured: made-up borrowers with six values of exactly 32 bytes, and values that are nobody's.
//!
//! A borrower is a number, and so is a value without subject: values are computed from the number, so that ten million of
//! them need no memory, and every run sends the same.

use std::sync::atomic::{AtomicU64, Ordering};

/// Values of a borrower.
pub const COLUMNS: usize = 6;
/// Bytes of every value.
pub const VALUE: usize = 32;
/// The schema's fields that are measured; `measured.toml` beside this file.
pub const SCHEMA: &str = include_str!("measured.toml");

/// One column of a borrower.
pub struct Column {
    /// The field in the schema.
    pub field: &'static str,
    /// Which of the two keyrings seals it.
    pub keyring: u16,
    /// Whether it can be looked up by its value.
    pub indexed: bool,
}

/// The columns, as the schema declares them. Values without subject are of the first.
pub const FIELDS: [Column; COLUMNS] = [
    Column { field: "measured.name", keyring: 1, indexed: false },
    Column { field: "measured.id_card", keyring: 1, indexed: true },
    Column { field: "measured.mobile", keyring: 1, indexed: true },
    Column { field: "measured.bank_card", keyring: 1, indexed: false },
    Column { field: "measured.email", keyring: 2, indexed: false },
    Column { field: "measured.address", keyring: 1, indexed: false },
];

/// Whose a value is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Owner {
    /// Nobody's: it has a key of its own.
    Nobody,
    /// A borrower's.
    Borrower,
}

/// A value of the population.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Datum {
    /// Whose it is.
    pub owner: Owner,
    /// The borrower's number, or the value's own.
    pub number: u64,
    /// Which of the columns.
    pub column: usize,
}

impl Datum {
    /// The field it is stored under.
    pub fn field(&self) -> &'static Column {
        &FIELDS[self.column % COLUMNS]
    }

    /// The caller's id of the borrower; empty for a value that is nobody's.
    pub fn subject(&self) -> String {
        match self.owner {
            Owner::Nobody => String::new(),
            Owner::Borrower => format!("c-{:010}", self.number),
        }
    }

    /// Its 32 bytes: letters and digits that no other value has.
    pub fn value(&self) -> [u8; VALUE] {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let seed = self.number * COLUMNS as u64 + self.column as u64;
        let salt = if self.owner == Owner::Nobody { 0x0b0d } else { 0x5eed };
        let halves = [mix(seed ^ salt << 48), mix(mix(seed ^ salt << 48))];
        let mut value = [0; VALUE];
        for (place, byte) in value.iter_mut().enumerate() {
            let nibble = halves[place / 16] >> (4 * (place % 16));
            *byte = DIGITS[(nibble & 15) as usize];
        }
        value
    }
}

/// SplitMix64's step: one number for one number, well mixed. Sample data, nothing secret.
pub fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// What one request carries: values that are nobody's, or those of whole borrowers, of whom the last may lack columns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shape {
    /// Whose the values are.
    pub owner: Owner,
    /// Values of a request.
    pub items: usize,
}

impl Shape {
    /// What a load of this batch size carries: single values are nobody's, batches are borrowers'.
    pub fn of(items: usize) -> Self {
        Self { owner: if items == 1 { Owner::Nobody } else { Owner::Borrower }, items }
    }

    /// Numbers of the population that one request takes. No two requests share a borrower: one of two that are under way
    /// at once would make the subject in vain.
    pub fn numbers(&self) -> u64 {
        match self.owner {
            Owner::Nobody => self.items as u64,
            Owner::Borrower => self.items.div_ceil(COLUMNS) as u64,
        }
    }

    /// The values of a request, of which `first` is the first number.
    pub fn data(self, first: u64) -> impl Iterator<Item = Datum> {
        (0..self.items).map(move |place| match self.owner {
            Owner::Nobody => Datum { owner: Owner::Nobody, number: first + place as u64, column: 0 },
            Owner::Borrower => {
                Datum { owner: Owner::Borrower, number: first + (place / COLUMNS) as u64, column: place % COLUMNS }
            }
        })
    }
}

/// Numbers that one load may use, however long it goes on.
const NUMBERS_OF_A_LOAD: u64 = 1 << 27;

/// Numbers that were not given out yet.
#[derive(Default)]
pub struct Population {
    next: AtomicU64,
}

impl Population {
    /// The first of numbers that nobody had, enough for one load.
    pub fn for_a_load(&self) -> u64 {
        self.next.fetch_add(NUMBERS_OF_A_LOAD, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_value_has_32_bytes_and_no_other_has_the_same() {
        let borrowers = Shape { owner: Owner::Borrower, items: 6_000 };
        let singles = Shape { owner: Owner::Nobody, items: 6_000 };
        let all: HashSet<[u8; VALUE]> = borrowers.data(7).chain(singles.data(7)).map(|datum| datum.value()).collect();
        assert_eq!(all.len(), 12_000);
        assert!(all.iter().flatten().all(u8::is_ascii_alphanumeric));
    }

    #[test]
    fn a_batch_is_whole_borrowers_and_a_rest() {
        let shape = Shape::of(1_000);
        let data: Vec<Datum> = shape.data(10).collect();
        assert_eq!((data.len(), shape.numbers()), (1_000, 167));
        assert_eq!((data[999].number, data[999].column), (176, 3));
        assert_eq!(data[6].subject(), "c-0000000011");
        assert_eq!(Shape::of(1).data(3).map(|datum| datum.subject()).collect::<String>(), "");
    }

    #[test]
    fn no_number_is_given_out_twice() {
        let population = Population::default();
        assert!(population.for_a_load() + NUMBERS_OF_A_LOAD <= population.for_a_load());
    }

    #[test]
    fn the_columns_are_those_of_the_schema() {
        let schema: toml::Table = SCHEMA.parse().unwrap();
        let fields = schema["field"]["measured"].as_table().unwrap();
        assert_eq!(fields.len(), COLUMNS);
        let mut retentions = Vec::new();
        for column in &FIELDS {
            let field = &fields[column.field.strip_prefix("measured.").unwrap()];
            assert_eq!(field.get("lookup").is_some(), column.indexed, "{}", column.field);
            assert!(field.get("token").is_none());
            retentions.push((column.keyring, field["retention"].as_str().unwrap()));
        }
        retentions.sort_unstable();
        retentions.dedup();
        assert_eq!(retentions, [(1, "10y"), (2, "3y")]);
    }
}
