//! Compiled policies by their text. Most tenants have the policies that all start with, and compiling takes some ten
//! milliseconds: whoever has the same ones shares them.

use std::sync::{Arc, LazyLock};

use quick_cache::sync::Cache;

use crate::policies::{Policies, PolicyError};

/// How many texts are remembered: few, since what is compiled is many times as long as they are.
const MAX_TEXTS: usize = 16;

static COMPILED: LazyLock<Cache<String, Arc<Policies>>> = LazyLock::new(|| Cache::new(MAX_TEXTS));

impl Policies {
    /// The same as [`Policies::compile`], at once if this text was compiled lately, for whomever: what policies say depends
    /// on their text alone.
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
