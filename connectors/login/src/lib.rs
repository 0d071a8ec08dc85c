//! How connectors log in to servers: the password, TLS around the connection, and the few sessions that are kept. The same
//! settings mean the same for every vendor; what a protocol says about when TLS begins and how the password travels is the
//! connector's own.

mod pool;
mod tls;

pub use pool::{Lease, Pool, Session};
pub use tls::{TlsConfig, TlsMode, advice};

use std::fmt;

/// A password. Does not show itself.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(Box<str>);

impl Password {
    /// Wraps a password.
    pub fn new(password: impl Into<Box<str>>) -> Self {
        Self(password.into())
    }

    /// The password itself, for the login alone.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}
