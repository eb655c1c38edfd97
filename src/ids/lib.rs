//! The permanent numbers by which every room names the same place.
//!
//! They stand in additional authenticated data, in row keys and in ledger leaves, so none of them is ever
//! reused and none says anything about a person. Names (of tenants, fields, keyrings) are for people and may
//! change; these may not.

use std::fmt;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

number! {
    /// A tenant's short number inside one vault: the first part of every row key. Zero is the vault itself.
    TenantNo(u32)
}
number! {
    /// A field's permanent number within its tenant.
    FieldNo(u32)
}
number! {
    /// A keyring's permanent number within its tenant: the fields of one data class and one retention.
    KeyringNo(u16)
}
number! {
    /// A value's number within its tenant: a 16-bit incarnation and a 48-bit counter.
    RowId(u64)
}
number! {
    /// A data subject's number within its tenant: a 16-bit incarnation and a 48-bit counter. Zero: no subject.
    SubjectHandle(u64)
}
number! {
    /// Which writing of a row this is; the first is 1.
    RowVersion(u32)
}
number! {
    /// Which version of a DEK; the first is 1.
    DekVersion(u32)
}
number! {
    /// Which version of a KEK, index key, token key or ledger key; the first is 1.
    KeyVersion(u32)
}

impl SubjectHandle {
    /// The handle of a value that belongs to no subject, or to several (tenant-wide deterministic values).
    pub const NONE: Self = Self(0);

    /// Whether this names a subject at all.
    pub fn is_some(self) -> bool {
        self != Self::NONE
    }
}

/// How many low bits of a [`RowId`] or [`SubjectHandle`] are its counter; the bits above are the incarnation.
pub const COUNTER_BITS: u32 = 48;

/// A tenant's permanent identity: 128 random bits, part of every sealing's authenticated data.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TenantId(pub [u8; 16]);

/// A vault's permanent identity: 128 random bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct VaultId(pub [u8; 16]);

macro_rules! hexadecimal {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }
    };
}

hexadecimal!(TenantId);
hexadecimal!(VaultId);
