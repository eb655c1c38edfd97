//! Key management: the only code that sees a raw key.
