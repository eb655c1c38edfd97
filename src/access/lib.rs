//! Who may: principals, policy and decisions.
