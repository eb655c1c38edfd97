//! Compiled policies by their text, for the whole process. Most tenants have the policies that all start with, and compiling
//! takes most of the time that opening a tenant does: those that have the same text share what was made of it. Nothing
//! else goes in, and nothing of it changes afterwards; what is decided is remembered by each tenant's `Access`.
//!
//! It is for policies that are in force. Who proposes some is not to learn from the time whether others have them.

use std::sync::{Arc, LazyLock};

use quick_cache::sync::Cache;

use crate::policies::{Policies, PolicyError};

/// How many texts are remembered: few, since what is compiled is many times as long as they are.
const MAX_TEXTS: usize = 16;

static COMPILED: LazyLock<Cache<String, Arc<Policies>>> = LazyLock::new(|| Cache::new(MAX_TEXTS));

impl Policies {
    /// The same as [`Policies::compile`], at once if this text was compiled here lately, for whichever tenant: what policies
    /// say depends on their text alone.
    pub fn shared(source: &str) -> Result<Arc<Self>, PolicyError> {
        COMPILED.get_or_insert_with(source, || Self::compile(source).map(Arc::new))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "@id(\"one\") permit (principal, action, resource);\n// shared";

    #[test]
    fn the_same_text_is_compiled_once_and_what_is_refused_is_refused_again() {
        let first = Policies::shared(ONE).unwrap();
        assert!(Arc::ptr_eq(&first, &Policies::shared(ONE).unwrap()));
        assert!(!Arc::ptr_eq(&first, &Policies::shared(&format!("{ONE}, or not")).unwrap()));
        for _ in 0..2 {
            assert!(Policies::shared("permit (principal").is_err());
        }
    }
}
