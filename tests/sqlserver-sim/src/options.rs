//! How a simulated server is set up.

use std::path::PathBuf;
use std::time::Duration;

/// Encryption the server offers: "[MS-TDS] PRELOGIN", option ENCRYPTION.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Encryption {
    /// No TLS at all (ENCRYPT_NOT_SUP).
    #[default]
    Off,
    /// TLS is there for those who ask; the login packet is always encrypted (ENCRYPT_OFF, or ENCRYPT_ON if asked).
    Optional,
    /// TLS is demanded for everything (ENCRYPT_REQ, "Force Encryption").
    Required,
    /// TLS before the first TDS byte (TDS 8.0, "Force Strict Encryption").
    Strict,
}

/// Certificate and key, PEM files.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// Certificate chain.
    pub chain: PathBuf,
    /// Private key.
    pub key: PathBuf,
}

/// Settings of a server.
#[derive(Clone, Debug)]
pub struct Options {
    /// Port on 127.0.0.1; 0 picks a free one.
    pub port: u16,
    /// Databases to make, beside the system's.
    pub databases: Vec<String>,
    /// Password of `sa`.
    pub sa_password: String,
    /// See [`Encryption`].
    pub encryption: Encryption,
    /// Certificate for TLS.
    pub certificate: Option<Certificate>,
    /// ALLOW_SNAPSHOT_ISOLATION of the databases made at start. OFF in the product.
    pub snapshot_isolation: bool,
    /// Pause between two scans of the capture job. The product's default is five seconds; `msdb.dbo.cdc_jobs` says so
    /// whatever stands here.
    pub poll: Duration,
    /// A commit rings the capture job instead of waiting for its next scan, so that tests need not. The product's job
    /// sleeps its pause out.
    pub prompt_capture: bool,
    /// The capture job scans only when the control handle says so.
    pub manual_capture: bool,
    /// Time without changes after which the capture job writes an empty row into `cdc.lsn_time_mapping`: five minutes in
    /// the product.
    pub heartbeat: Duration,
    /// `SERVERPROPERTY('ProductVersion')`
    pub version: String,
    /// `SERVERPROPERTY('Edition')`
    pub edition: String,
    /// `SERVERPROPERTY('EngineEdition')`
    pub engine_edition: i64,
    /// `@@SERVERNAME`
    pub server_name: String,
    /// Assumptions about the product that only a real server can prove.
    pub quirks: Quirks,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            port: 0,
            databases: vec!["vendor".into()],
            sa_password: "Passw0rd!".into(),
            encryption: Encryption::Off,
            certificate: None,
            snapshot_isolation: false,
            poll: Duration::from_millis(50),
            prompt_capture: true,
            manual_capture: false,
            heartbeat: Duration::from_secs(300),
            version: "16.0.4135.4".into(),
            edition: "Developer Edition (64-bit)".into(),
            engine_edition: 3,
            server_name: "SIMULATOR".into(),
            quirks: Quirks::default(),
        }
    }
}

impl Options {
    /// `@@VERSION`
    pub fn banner(&self) -> String {
        format!("Microsoft SQL Server 2022 (simulated) - {} (X64) {} on Linux", self.version, self.edition)
    }
}

/// What is believed about the product and could not be proven without one. Each is a case for a real server; a report
/// that says otherwise changes one line here.
#[derive(Clone, Copy, Debug)]
pub struct Quirks {
    /// `__$update_mask`: the bit of column 1 is the lowest bit of the *last* byte.
    pub mask_from_the_right: bool,
    /// An update of columns that an instance does not capture leaves no rows in its change table.
    pub skip_uncaptured_updates: bool,
    /// In rows with `__$operation` 4, a `(max)` column that did not change is NULL.
    pub unchanged_max_is_null_after: bool,
    /// Enabling a table leaves a row in `cdc.lsn_time_mapping` when the log reader passes it.
    pub enabling_is_mapped: bool,
    /// The sizes of rows from which NBCROW replaces ROW: at least this many columns and one NULL. 0 never.
    pub null_bitmap_from: usize,
}

impl Default for Quirks {
    fn default() -> Self {
        Self {
            mask_from_the_right: true,
            skip_uncaptured_updates: true,
            unchanged_max_is_null_after: false,
            enabling_is_mapped: true,
            null_bitmap_from: 8,
        }
    }
}
