//! A header for tests, here and in the rooms above, that name the members which they are about. Whoever writes leaves names
//! them all.

use super::LeafHeader;

/// The header of a request that was allowed.
pub fn header<'a>() -> LeafHeader<'a> {
    LeafHeader {
        request: &[0x5a; 16],
        principal: "app/loan-core",
        actor: None,
        action: "tokenize",
        purpose: None,
        decision: "allow",
        reason: None,
        policy: 3,
        schema: 2,
        keys: &[],
        client: "127.0.0.1:5",
        detail: &[],
    }
}
