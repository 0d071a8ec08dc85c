//! placeholder: owned by the store helper
