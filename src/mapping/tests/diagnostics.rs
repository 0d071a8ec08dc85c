//! Rendered diagnostics.
