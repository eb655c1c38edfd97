//! Collections, field types, validation, masks and token shapes.
