//! The side copy of the checkpoint, and the witness of the last commit.
//!
//! Both are files beside the database, written only after the database is durable. So neither can be ahead of it
//! unless the database lost something: that is how a database that was silently cut back is noticed.
//!
//! * `checkpoint.json`, `checkpoint.json.1`: the checkpoint alone (no marks, obligations or dead letters), two
//!   generations, written at most once a second (temporary file, fsync, rename, fsync of the directory).
//! * `witness`: number of the last commit, 16 bytes written in place after each commit. Not synced: it need not be
//!   there, it only must not lie.

use super::db::sync_dir;
use super::error::{Result, StoreError};
use super::types::Checkpoint;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use xxhash_rust::xxh3::xxh3_64;

const FORMAT: u32 = 1;
const NAMES: [&str; 2] = ["checkpoint.json", "checkpoint.json.1"];

/// What a side copy holds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct SideCopy {
    /// Number of the commit it was taken after.
    pub(super) sequence: u64,
    /// `None` if no checkpoint was saved yet.
    pub(super) checkpoint: Option<Checkpoint>,
}

#[derive(Serialize, Deserialize)]
struct Envelope<'a> {
    tidemark_checkpoint_copy: u32,
    checksum: String,
    #[serde(borrow)]
    body: &'a RawValue,
}

impl SideCopy {
    /// Writes the copy into `dir`, keeping the one before.
    pub(super) fn write(&self, dir: &Path) -> Result<()> {
        let bug = |e: serde_json::Error| StoreError::Bug(e.to_string());
        let body = serde_json::value::to_raw_value(self).map_err(bug)?;
        let text = serde_json::to_string(&Envelope {
            tidemark_checkpoint_copy: FORMAT,
            checksum: format!("{:016x}", xxh3_64(body.get().as_bytes())),
            body: &body,
        })
        .map_err(bug)?;
        let temporary = dir.join("checkpoint.json.tmp");
        OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(&temporary)
            .and_then(|mut file| {
                writeln!(file, "{text}")?;
                file.sync_all()
            })
            .map_err(StoreError::io("write", &temporary))?;
        let [newest, older] = NAMES.map(|name| dir.join(name));
        if newest.exists() {
            fs::rename(&newest, &older).map_err(StoreError::io("rename", &newest))?;
        }
        fs::rename(&temporary, &newest).map_err(StoreError::io("rename", &temporary))?;
        sync_dir(dir)
    }

    /// The newest copy in `dir` that is whole; `None` if there is none.
    pub(super) fn read(dir: &Path) -> Option<Self> {
        NAMES.iter().filter_map(|name| parse(&fs::read_to_string(dir.join(name)).ok()?)).max_by_key(|c| c.sequence)
    }
}

fn parse(text: &str) -> Option<SideCopy> {
    let envelope: Envelope<'_> = serde_json::from_str(text).ok()?;
    let sum = format!("{:016x}", xxh3_64(envelope.body.get().as_bytes()));
    if envelope.tidemark_checkpoint_copy != FORMAT || envelope.checksum != sum {
        return None;
    }
    serde_json::from_str(envelope.body.get()).ok()
}

/// The number of the last commit, beside the database.
pub(super) struct Witness(File);

impl Witness {
    pub(super) fn open(dir: &Path) -> Result<(Self, Option<u64>)> {
        let path = dir.join("witness");
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(StoreError::io("open", &path))?;
        let mut bytes = [0; 16];
        let seen = file.read_exact_at(&mut bytes, 0).ok().and_then(|()| {
            let (number, sum) = bytes.split_first_chunk::<8>()?;
            (sum == xxh3_64(number).to_le_bytes()).then_some(u64::from_le_bytes(*number))
        });
        Ok((Self(file), seen))
    }

    /// Notes a commit that is durable. Failing to note it loses nothing but the witness.
    pub(super) fn note(&self, sequence: u64) {
        let number = sequence.to_le_bytes();
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&number);
        bytes[8..].copy_from_slice(&xxh3_64(&number).to_le_bytes());
        if let Err(e) = self.0.write_all_at(&bytes, 0) {
            tracing::debug!(error = %e, "the commit witness could not be written");
        }
    }
}
