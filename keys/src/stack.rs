//! What work with raw keys leaves on the stack: moves copy, the compiler spills, and what wipes itself on drop wipes only
//! where it was last. So whatever handles a raw key does it in here, and the stack that it used is wiped after it.
//!
//! So does whatever runs a cipher: where a processor has AVX-512, AES spreads the round keys over a kilobyte of stack, four
//! times each, and the first two are the key.

/// More than expanding a key, and running a cipher with it, take.
const SHALLOW: usize = 4 << 10;
/// More than deriving the keystore's keys and opening all that is in it take.
const DEEP: usize = 64 << 10;

/// Does work on one key, and then wipes the stack that it used. What it returns must hold keys behind pointers only.
pub(crate) fn wiped<T>(work: impl FnOnce() -> T) -> T {
    let result = apart(work);
    wipe::<SHALLOW>();
    result
}

/// The same for work on a whole keystore.
pub(crate) fn wiped_deep<T>(work: impl FnOnce() -> T) -> T {
    let result = apart(work);
    wipe::<DEEP>();
    result
}

/// In a frame of its own, which ends where that of [`wipe`] begins.
#[inline(never)]
fn apart<T>(work: impl FnOnce() -> T) -> T {
    work()
}

#[inline(never)]
fn wipe<const DEPTH: usize>() {
    // What a black box is shown it may read, so the zeros must be there.
    std::hint::black_box(&mut [0_u8; DEPTH]);
}
