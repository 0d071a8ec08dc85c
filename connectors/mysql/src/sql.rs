//! SQL sessions, by mysql_async.
//!
//! The library is used in one way only: statements as text, one at a time, whose rows are taken one after the other as
//! they come ([`Sql::each`]), every value as the bytes that the server sent (R11). The way to the server is the one of the
//! log, made before ([`relay`]). The library's own pool is not used: see `session.rs`.
//!
//! A session that is dropped in the middle of an answer is cut off, whatever is still unread; the library by itself would
//! read on in the background, for as long as the server likes. The library's feature `tracing` stays off: it would log
//! statements, which hold keys of rows (R9). For the same reason no error of the library is kept as a cause.
//!
//! A panic of the library is bytes that it could not read ([`caught`]): it ends the session, and nothing else (R6).

use crate::MysqlConfig;
use crate::error::{ServerError, bug, undecodable, unreachable};
use crate::relay::{self, Flaw, Handed};
use crate::wire::{Connection, late};
use futures_util::FutureExt as _;
use mysql_async::prelude::Queryable;
use mysql_async::{Column, Conn, Error, IoError, Row, Value};
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::time::Duration;
use tidemark_contract::{Result, SourceError};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// One row of a result.
pub(crate) struct TextRow<'a>(&'a Row);

impl<'a> TextRow<'a> {
    /// The value in column `index`; `None` for null.
    #[inline]
    pub(crate) fn get(&self, index: usize) -> Option<&'a [u8]> {
        match self.0.as_ref(index)? {
            Value::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }
}

/// An SQL session.
pub(crate) struct Sql {
    /// Always there until the session ends.
    conn: Option<Conn>,
    relay: JoinHandle<()>,
    flaw: Flaw,
    /// The server's version as it says it.
    pub(crate) version: String,
    pub(crate) is_mariadb: bool,
    /// Whether the bytes travel encrypted.
    pub(crate) encrypted: bool,
    /// How long the server may be silent while it works on a statement.
    patience: Duration,
}

impl Sql {
    /// Connects and logs in, within the configured time.
    pub(crate) async fn open(config: &MysqlConfig) -> Result<Self> {
        let opening = async {
            let connection = Connection::open(config).await?;
            let (version, is_mariadb) = (connection.version.clone(), connection.is_mariadb);
            let encrypted = connection.encrypted;
            let Handed { conn, task, flaw } = caught(relay::hand_over(connection)).await??;
            let patience = config.statement_timeout;
            Ok(Self { conn: Some(conn), relay: task, flaw, version, is_mariadb, encrypted, patience })
        };
        timeout(config.connect_timeout, opening).await.unwrap_or_else(|_| Err(late(config)))
    }

    /// Runs one statement and hands each row to `row`; gives a hash of the result's description (names, types, lengths,
    /// keys of its columns). If this fails or is dropped, the session must not be used again,
    /// except after an error that the server reported.
    pub(crate) async fn each(
        &mut self,
        doing: &str,
        sql: &str,
        mut row: impl FnMut(TextRow<'_>) -> Result<()>,
    ) -> Result<u32> {
        let patience = self.patience;
        let late = |_| unreachable(format!("the server was silent for {patience:?}"));
        let conn = self.conn.as_mut().ok_or_else(|| bug("a session was used after its end"))?;
        let flaw = &self.flaw;
        let answer = timeout(patience, caught(conn.query_iter(sql))).await.map_err(late)?;
        let mut result = answer?.map_err(|e| failure(e, flaw, doing))?;
        let described = description(result.columns_ref());
        loop {
            let taken = {
                let mut next = pin!(caught(result.next()));
                // Most rows are there already: only a real wait sets a timer.
                match next.as_mut().now_or_never() {
                    Some(taken) => taken,
                    None => timeout(patience, next).await.map_err(late)?,
                }
            };
            match taken?.map_err(|e| failure(e, flaw, doing))? {
                Some(values) => row(TextRow(&values))?,
                None => return Ok(described),
            }
        }
    }

    /// All rows, as texts. For small results.
    pub(crate) async fn rows(&mut self, doing: &str, sql: &str) -> Result<Vec<Vec<Option<String>>>> {
        let mut rows = Vec::new();
        self.each(doing, sql, |row| {
            let text = |at| row.get(at).map(|b: &[u8]| String::from_utf8_lossy(b).into_owned());
            rows.push((0..row.0.len()).map(text).collect());
            Ok(())
        })
        .await?;
        Ok(rows)
    }

    /// Runs a statement that has no result worth reading.
    pub(crate) async fn run(&mut self, doing: &str, sql: &str) -> Result<()> {
        self.each(doing, sql, |_| Ok(())).await.map(drop)
    }

    /// Says goodbye.
    pub(crate) async fn quit(mut self) {
        let Some(conn) = self.conn.take() else { return };
        let goodbye = async {
            drop(caught(conn.disconnect()).await);
            drop((&mut self.relay).await);
        };
        drop(timeout(Duration::from_secs(1), goodbye).await);
    }
}

impl Drop for Sql {
    fn drop(&mut self) {
        if let Some(conn) = self.conn.take() {
            // One that has begun to take leave does not read on when it is dropped.
            drop(caught(conn.disconnect()).now_or_never());
        }
    }
}

/// A hash of what a result says about its columns.
fn description(columns: &[Column]) -> u32 {
    let mut hash = crc32fast::Hasher::new();
    for column in columns {
        for name in
            [column.schema_ref(), column.table_ref(), column.org_table_ref(), column.name_ref(), column.org_name_ref()]
        {
            hash.update(&name.len().to_le_bytes());
            hash.update(name);
        }
        hash.update(&column.character_set().to_le_bytes());
        hash.update(&column.column_length().to_le_bytes());
        hash.update(&column.flags().bits().to_le_bytes());
        hash.update(&[column.column_type() as u8, column.decimals()]);
    }
    hash.finalize()
}

/// What a call into the library gives. If it panics, the server has sent what the library cannot read; the panic's own
/// words may quote values.
async fn caught<T>(work: impl Future<Output = T>) -> Result<T> {
    let done = AssertUnwindSafe(work).catch_unwind().await;
    done.map_err(|_| undecodable("the server sent something that mysql_async could not read: it panicked"))
}

/// The library's error: what the server said, what our side of the socket said, or what the library made of the bytes.
fn failure(error: Error, flaw: &Flaw, doing: &str) -> SourceError {
    if let Some(flaw) = flaw.get() {
        return undecodable(format!("{doing}: {flaw}"));
    }
    match error {
        Error::Server(error) => ServerError::new(error.code, &error.message).into_source_error(doing),
        Error::Io(IoError::Io(error)) if !is_nonsense(&error) => {
            unreachable(format!("{doing}: the connection broke: {error}"))
        }
        error => undecodable(format!("{doing}: {error}")),
    }
}

/// Whether the library could not read a packet that did come; it says so by errors of the socket's type. If it chooses
/// other words one day, such an error counts as a broken connection.
fn is_nonsense(error: &std::io::Error) -> bool {
    use std::io::ErrorKind;
    error.raw_os_error().is_none()
        && match error.kind() {
            ErrorKind::InvalidData | ErrorKind::Other => true,
            ErrorKind::UnexpectedEof => error.to_string().starts_with("can't parse"),
            _ => false,
        }
}

/// `` `name` ``.
pub(crate) fn ident(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// A text as an SQL literal, whatever the session's modes.
pub(crate) fn literal(text: &str) -> String {
    if text.is_empty() { "''".into() } else { format!("_utf8mb4 X'{}'", hex(text.as_bytes())) }
}

/// Upper-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    bytes.iter().flat_map(|b| [DIGITS[usize::from(b >> 4)], DIGITS[usize::from(b & 15)]]).map(char::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::server_code;
    use crate::{TlsConfig, TlsMode};
    use tidemark_contract::ErrorKind;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    fn packet(sequence: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap() | u32::from(sequence) << 24;
        [&length.to_le_bytes(), payload].concat()
    }

    /// A session with a server that lets anybody in and gives one of `answers` to each statement; the task ends when the
    /// session's connection does.
    async fn session(answers: Vec<Vec<u8>>) -> (Sql, JoinHandle<()>) {
        served(answers, true).await
    }

    /// The same, but the server hangs up behind its last answer.
    async fn session_that_ends(answers: Vec<Vec<u8>>) -> (Sql, JoinHandle<()>) {
        served(answers, false).await
    }

    async fn served(answers: Vec<Vec<u8>>, stays: bool) -> (Sql, JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut config = MysqlConfig::new("127.0.0.1", listener.local_addr().unwrap().port(), "d", "u");
        config.tls = TlsConfig::new(TlsMode::Disable);
        config.statement_timeout = Duration::from_millis(300);
        let server = tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            // Protocol 4.1, secure connection, plugins, and OK in place of EOF.
            let greeting = crate::relay::welcome("9.9.9", 7, 1 << 9 | 1 << 15 | 1 << 19 | 1 << 24);
            socket.write_all(&greeting).await.unwrap();
            let ok = packet(2, &[0, 0, 0, 2, 0, 0, 0]);
            for answer in std::iter::once(ok).chain(answers) {
                let length = socket.read_u32_le().await.unwrap() & 0xff_ffff;
                socket.read_exact(&mut vec![0; length as usize]).await.unwrap();
                socket.write_all(&answer).await.unwrap();
            }
            if stays {
                let _ = socket.read_to_end(&mut Vec::new()).await;
            }
        });
        (Sql::open(&config).await.unwrap(), server)
    }

    /// The beginning of a result of one column, and one row.
    fn one_row(row: &[u8]) -> Vec<u8> {
        let column = b"\x03def\0\0\0\x01a\x01a\x0c\x2d\0\x04\0\0\0\xfd\0\0\0\0\0";
        [packet(1, &[1]), packet(2, column), packet(3, row)].concat()
    }

    #[tokio::test]
    async fn rows_come_as_they_are_and_an_error_does_no_harm() {
        let error = packet(1, b"\xff\x26\x04#23000Duplicate entry 'Alice'");
        let fine = [one_row(b"\x03x\0\xff"), packet(4, b"\xfb"), packet(5, &[0xfe, 0, 0, 2, 0, 0, 0])].concat();
        let (mut session, server) = session(vec![error, fine.clone(), fine]).await;
        assert_eq!((session.version.as_str(), session.encrypted), ("9.9.9", false));
        let refused = session.run("trying", "1").await.unwrap_err();
        assert_eq!(server_code(&refused), Some(1062));
        assert!(!format!("{refused} {refused:?}").contains("Alice"));
        let mut rows = Vec::new();
        let mut take = |row: TextRow<'_>| {
            rows.push((row.get(0).map(<[u8]>::to_vec), row.get(1).is_none()));
            Ok(())
        };
        let described = session.each("reading", "2", &mut take).await.unwrap();
        assert_eq!(rows, [(Some(b"x\0\xff".to_vec()), true), (None, true)]);
        assert_eq!(session.each("reading", "3", |_| Ok(())).await.unwrap(), described);
        session.quit().await;
        server.await.unwrap();
    }

    #[tokio::test]
    async fn a_session_dropped_in_an_answer_is_cut_off() {
        let (mut session, server) = session(vec![one_row(b"\x01x")]).await;
        let mut seen = 0;
        let waiting = session.each("reading", "1", |_| {
            seen += 1;
            Ok(())
        });
        assert!(timeout(Duration::from_millis(100), waiting).await.is_err());
        assert_eq!(seen, 1);
        drop(session);
        timeout(Duration::from_secs(5), server).await.expect("the server sees the end").unwrap();
    }

    #[tokio::test]
    async fn silence_and_nonsense_are_told_apart() {
        let (mut silent, _server) = session(vec![one_row(b"\x01x")]).await;
        assert_eq!(silent.run("reading", "1").await.unwrap_err().kind, ErrorKind::Unreachable);
        let many = b"\xfe\0\0\0\0\0\x01\0\0";
        for nonsense in [
            one_row(b"\x09x"),
            packet(7, &[0]),
            packet(1, b"\xfbfile"),
            packet(1, b""),
            packet(1, many),
            one_row(b""),
            [one_row(b"\x01x"), packet(4, &[0xfe, 0, 0, 8, 0, 0, 0]), packet(5, many)].concat(),
        ] {
            let (mut session, _server) = session(vec![nonsense.clone()]).await;
            let error = session.run("reading", "1").await.unwrap_err();
            assert_eq!(error.kind, ErrorKind::Undecodable, "{nonsense:?}: {error}");
        }
    }

    #[tokio::test]
    async fn a_panic_is_nonsense_too() {
        let work = async {
            let empty: &[u8] = std::hint::black_box(&[]);
            empty[0]
        };
        assert_eq!(caught(work).await.unwrap_err().kind, ErrorKind::Undecodable);
    }

    /// Whatever a server answers, a statement comes to an end.
    #[tokio::test]
    async fn damaged_answers_do_no_harm() {
        let column =
            |name: &[u8]| [b"\x03def\x01d\x01t\x01t", name, b"\x01a\x0c\x2d\0\x04\0\0\0\xfd\0\0\0\0\0"].concat();
        let end = packet(6, &[0xfe, 0, 0, 2, 0, 0, 0]);
        let rows = [packet(4, b"\x03abc\xfb"), packet(5, b"\x01x\xfc\x02\0yz")].concat();
        let good = [packet(1, &[2]), packet(2, &column(b"\x01a")), packet(3, &column(b"\x01b")), rows, end].concat();
        let mut random = 88_172_645_463_325_252_u64;
        let mut next = |below: usize| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            usize::try_from(random >> 33).unwrap() % below
        };
        let (mut fine, mut failed) = (0, 0);
        for _ in 0..1_000 {
            let mut answer = good.clone();
            for _ in 0..=next(3) {
                let at = next(answer.len());
                match next(4) {
                    0 => answer[at] ^= 1 << next(8),
                    1 => answer[at] = [0, 0xfb, 0xfc, 0xfd, 0xfe, 0xff][next(6)],
                    2 => answer.splice(at..at, [0xfe; 3]).for_each(drop),
                    _ => answer.drain(at..answer.len().min(at + 1 + next(4))).for_each(drop),
                }
            }
            let (mut session, server) = session_that_ends(vec![answer]).await;
            match session.run("reading", "1").await {
                Ok(()) => fine += 1,
                Err(_) => failed += 1,
            }
            drop(session);
            server.await.unwrap();
        }
        assert!(fine > 50 && failed > 50, "{fine} {failed}");
    }

    #[test]
    fn names_and_texts_are_quoted() {
        assert_eq!(ident("a`b"), "`a``b`");
        assert_eq!(literal("a'"), "_utf8mb4 X'6127'");
    }
}
