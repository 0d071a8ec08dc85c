//! The command line's end of the admin socket.

use crate::command::{
    AdminError, CheckpointView, DeadLetterSelection, LedgerPage, Repair, RepairReceipt, ResyncPlan, ResyncRequest,
};
use crate::error::{DaemonKind, Error};
use crate::status::StatusReport;
use crate::store::DeadLetter;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

/// Longest answer taken: far above a page of dead letters or the largest report.
const MAX_ANSWER: u64 = 64 << 20;

/// Why a daemon did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens on the socket.
    #[error("the daemon is not running")]
    NotRunning,
    /// The socket is somebody else's.
    #[error("the admin socket {} may not be opened by this user", .0.display())]
    Forbidden(PathBuf),
    /// The daemon refused.
    #[error("{0}")]
    Refused(AdminError),
    /// The daemon did not answer as expected.
    #[error("the daemon's answer on {} could not be used: {why}", path.display())]
    Broken {
        /// The socket.
        path: PathBuf,
        /// What was wrong with it.
        why: String,
    },
}

impl From<ClientError> for Error {
    fn from(error: ClientError) -> Self {
        let kind = if matches!(error, ClientError::Forbidden(_)) { DaemonKind::Permission } else { DaemonKind::Admin };
        let out = Error::new(kind, error.to_string());
        match error {
            ClientError::Forbidden(_) => {
                out.hint("use the account of the daemon, or one of the group that owns the socket (tidemark-ops)")
            }
            ClientError::Refused(AdminError { hint: Some(hint), .. }) => out.hint(hint),
            ClientError::Broken { .. } => out.hint("the daemon's log says more"),
            _ => out,
        }
    }
}

/// Talks to one daemon. Each call is a connection of its own.
#[derive(Clone, Debug)]
pub struct Client {
    path: PathBuf,
    timeout: Duration,
}

impl Client {
    /// A client of the daemon that listens on `path`.
    pub fn new(path: &Path) -> Self {
        Self { path: path.into(), timeout: Duration::from_secs(60) }
    }

    /// The latest report.
    ///
    /// # Errors
    /// See [`ClientError`]; the same for every call.
    pub async fn status(&self) -> Result<StatusReport, ClientError> {
        self.get("/v1/status").await
    }

    /// Stops sending; comes back when nothing is in flight.
    pub async fn pause(&self) -> Result<(), ClientError> {
        self.post("/v1/pause", &()).await
    }

    /// Goes on.
    pub async fn resume(&self) -> Result<(), ClientError> {
        self.post("/v1/resume", &()).await
    }

    /// Reads again.
    pub async fn resync(&self, request: &ResyncRequest) -> Result<ResyncPlan, ClientError> {
        self.post("/v1/resync", request).await
    }

    /// Up to `limit` dead letters with numbers above `after`, of one entity or of all.
    pub async fn dead_letters(
        &self,
        entity: Option<&str>,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, ClientError> {
        let mut path = format!("/v1/dead-letters?limit={limit}");
        if let Some(entity) = entity {
            path.push_str("&entity=");
            path.extend(entity.bytes().map(percent_encoded));
        }
        if let Some(after) = after {
            path.push_str(&format!("&after={after}"));
        }
        self.get(&path).await
    }

    /// One dead letter by its number.
    pub async fn dead_letter(&self, id: u64) -> Result<Option<DeadLetter>, ClientError> {
        self.get(&format!("/v1/dead-letters/{id}")).await
    }

    /// A page of the ledger: of the first rule, or of `rule` after an external id.
    pub async fn ledger(&self, rule: Option<&str>, after: Option<&str>) -> Result<LedgerPage, ClientError> {
        let mut path = "/v1/ledger?limit=10000".to_owned();
        for (name, value) in [("rule", rule), ("after", after)] {
            if let Some(value) = value {
                path.push_str(&format!("&{name}="));
                path.extend(value.bytes().map(percent_encoded));
            }
        }
        self.get(&path).await
    }

    /// The checkpoint and what belongs to it.
    pub async fn checkpoint(&self) -> Result<CheckpointView, ClientError> {
        self.get("/v1/checkpoint").await
    }

    /// Tries dead letters again; how many.
    pub async fn retry_dead_letters(&self, which: &DeadLetterSelection) -> Result<u64, ClientError> {
        self.post("/v1/dead-letters/retry", which).await
    }

    /// Forgets dead letters; how many.
    pub async fn drop_dead_letters(&self, which: &DeadLetterSelection) -> Result<u64, ClientError> {
        self.post("/v1/dead-letters/drop", which).await
    }

    /// Brings records in order.
    pub async fn queue_repairs(&self, repairs: &[Repair]) -> Result<RepairReceipt, ClientError> {
        self.post("/v1/repairs", repairs).await
    }

    /// Asks the daemon to drain, save and exit.
    pub async fn stop(&self) -> Result<(), ClientError> {
        self.post("/v1/stop", &()).await
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.call("GET", path, &[]).await
    }

    async fn post<T: DeserializeOwned, B: Serialize + ?Sized>(&self, path: &str, body: &B) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).map_err(|e| self.broken(e))?;
        self.call("POST", path, &body).await
    }

    async fn call<T: DeserializeOwned>(&self, method: &str, path: &str, body: &[u8]) -> Result<T, ClientError> {
        let exchange = tokio::time::timeout(self.timeout, self.exchange(method, path, body));
        let answer = exchange.await.map_err(|_| {
            self.broken(format!("no answer within {} s; is the process stuck or stopped?", self.timeout.as_secs()))
        })??;
        let (status, body) = split_answer(&answer).ok_or_else(|| self.broken("not an HTTP answer"))?;
        if (200..300).contains(&status) {
            return serde_json::from_slice(body).map_err(|e| self.broken(e));
        }
        match serde_json::from_slice::<AdminError>(body) {
            Ok(error) => Err(ClientError::Refused(error)),
            Err(_) => Err(self.broken(format!("HTTP status {status}"))),
        }
    }

    async fn exchange(&self, method: &str, path: &str, body: &[u8]) -> Result<Vec<u8>, ClientError> {
        let mut stream = UnixStream::connect(&self.path).await.map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused => ClientError::NotRunning,
            std::io::ErrorKind::PermissionDenied => ClientError::Forbidden(self.path.clone()),
            _ => self.broken(e),
        })?;
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(&[head.as_bytes(), body].concat()).await.map_err(|e| self.broken(e))?;
        let mut answer = Vec::new();
        match stream.take(MAX_ANSWER).read_to_end(&mut answer).await {
            // A server that has answered and closes with something unread resets the connection.
            Err(error) if split_answer(&answer).is_none() => Err(self.broken(error)),
            _ => Ok(answer),
        }
    }

    fn broken(&self, why: impl ToString) -> ClientError {
        ClientError::Broken { path: self.path.clone(), why: why.to_string() }
    }
}

fn percent_encoded(byte: u8) -> String {
    if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
        char::from(byte).into()
    } else {
        format!("%{byte:02X}")
    }
}

/// Status and body of an answer whose end is the connection's; `None` if it is not complete.
fn split_answer(answer: &[u8]) -> Option<(u16, &[u8])> {
    let end = memchr::memmem::find(answer, b"\r\n\r\n")?;
    let (head, body) = (std::str::from_utf8(&answer[..end]).ok()?, &answer[end + 4..]);
    let mut lines = head.split("\r\n");
    let status = lines.next()?.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    let length: usize = lines
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))?
        .1
        .trim()
        .parse()
        .ok()?;
    (body.len() == length).then_some((status, body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_cut_short_is_no_answer() {
        let whole = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nnull";
        assert_eq!(split_answer(whole), Some((200, &b"null"[..])));
        for cut in 0..whole.len() {
            assert_eq!(split_answer(&whole[..cut]), None, "{cut}");
        }
    }
}
