//! The vault's main job: tokenize, detokenize, match, lookup, replace, delete.
