//! A connection that is logged in, handed over to mysql_async.
//!
//! The library opens its sockets itself, and its own way to the server is narrower than the one of the log: no
//! sha256_password; no authority's certificate for any name (it recognises rustls' answer about names by words that rustls
//! no longer uses); no TLS without the roots that are compiled in, unless others are given; and a panic for an RSA key that
//! is none. So there is one way to the server ([`Connection::open`]), for SQL and for the log. Behind it the library
//! gets what is left of a connection: it is let in at a socket of this process, told what the server said of itself,
//! welcomed whatever it answers, and from then on bytes are only passed on. Packets are counted anew for each statement, so
//! nothing in them has to be changed.
//!
//! The socket has an abstract name, so there is no file; it takes one connection, of this very process. Nothing of the
//! password is sent through it.
//!
//! # What the library must not see
//!
//! It indexes into packets that may be empty, and makes room for as many columns as a result announces before it has read
//! one: the first is a panic, the second ends the process if the number lies. So the heads of the packets are looked at on
//! their way ([`Guard`]), and where they say what no server says, the connection ends and [`Flaw`] tells why. What it may
//! do to bytes that nobody thought of is caught where it is called (`sql.rs`).

use crate::error::{bug, unreachable};
use crate::wire::{CLIENT_DEPRECATE_EOF, COLLATION, Connection, Socket};
use mysql_async::{Conn, OptsBuilder};
use ring::rand::SecureRandom;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tidemark_contract::{Result, SourceError};
use tokio::io::{AsyncReadExt, AsyncWriteExt, split};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Bytes taken from the server at a time.
const BUFFER: usize = 128 << 10;
/// The largest packet taken: the server's own limit.
const LARGEST: usize = 1 << 30;
/// How long an idle connection may be; nothing depends on it, but the library would ask the server.
const IDLE: usize = 28_800;

/// The most columns that a result may have: the servers' own limit.
const COLUMNS: u64 = 4096;
/// The payload length that says that the packet goes on in the next one.
const FULL: usize = 0xff_ffff;

/// What was wrong with the server's packets, once the guard has found it.
pub(crate) type Flaw = Arc<OnceLock<&'static str>>;

/// A connection in the library's hands.
pub(crate) struct Handed {
    pub(crate) conn: Conn,
    /// Passes bytes on, and ends when either side does.
    pub(crate) task: JoinHandle<()>,
    pub(crate) flaw: Flaw,
}

/// Gives the connection to the library.
pub(crate) async fn hand_over(connection: Connection) -> Result<Handed> {
    let mut random = [0; 16];
    let filled = ring::rand::SystemRandom::new().fill(&mut random);
    filled.map_err(|_| bug("the operating system gives no random numbers"))?;
    // A name that begins with NUL is no file's.
    let name = format!("\0tidemark-{}-{:032x}", std::process::id(), u128::from_ne_bytes(random));
    let listener = UnixListener::bind(&name).map_err(failed)?;
    let settings = OptsBuilder::default()
        .socket(Some(name))
        .prefer_socket(false)
        .max_allowed_packet(Some(LARGEST))
        .wait_timeout(Some(IDLE))
        .stmt_cache_size(0);
    let flags = connection.flags;
    let welcome = welcome(&connection.version, connection.id, flags);
    let server = connection.into_socket()?;
    let library = async {
        let connected = Conn::new(settings).await;
        connected.map_err(|e| bug(format!("mysql_async was not content with the connection handed to it: {e}")))
    };
    let (client, conn) = tokio::try_join!(receive(listener, &welcome, flags), library)?;
    let flaw = Flaw::default();
    let guard = Guard::new(flags & CLIENT_DEPRECATE_EOF != 0);
    let task = tokio::spawn(pass_on(server, client, guard, flaw.clone()));
    Ok(Handed { conn, task, flaw })
}

fn failed(error: std::io::Error) -> SourceError {
    unreachable(format!("a local socket for the connection: {error}")).caused_by(error)
}

/// Lets the library in.
async fn receive(listener: UnixListener, welcome: &[u8], flags: u32) -> Result<UnixStream> {
    let mut client = loop {
        let (client, _) = listener.accept().await.map_err(failed)?;
        let pid = client.peer_cred().map_err(failed)?.pid();
        if pid.and_then(|pid| u32::try_from(pid).ok()) == Some(std::process::id()) {
            break client;
        }
    };
    client.write_all(welcome).await.map_err(failed)?;
    let head = client.read_u32_le().await.map_err(failed)?;
    let mut answer = vec![0; (head & 0xff_ffff) as usize];
    client.read_exact(&mut answer).await.map_err(failed)?;
    // Both sides must mean the same form of results.
    let theirs = answer.first_chunk::<4>().map_or(0, |bytes| u32::from_le_bytes(*bytes));
    if (theirs ^ flags) & CLIENT_DEPRECATE_EOF != 0 {
        return Err(bug("mysql_async wants results in another form than was agreed upon with the server"));
    }
    // The third packet of this exchange: OK, nothing changed, autocommit, no warnings.
    client.write_all(&[7, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0]).await.map_err(failed)?;
    Ok(client)
}

/// The server's greeting once more, with what was agreed upon.
pub(crate) fn welcome(version: &str, id: u32, flags: u32) -> Vec<u8> {
    let flags = flags.to_le_bytes();
    let mut out = vec![0, 0, 0, 0, 10];
    out.extend_from_slice(version.as_bytes());
    out.push(0);
    out.extend_from_slice(&id.to_le_bytes());
    // Challenge and plugin mean nothing here.
    out.extend_from_slice(&[b'-'; 8]);
    out.extend_from_slice(&[0, flags[0], flags[1], COLLATION, 2, 0, flags[2], flags[3], 21]);
    out.extend_from_slice(&[0; 10]);
    out.extend_from_slice(&[b'-'; 12]);
    out.extend_from_slice(b"\0mysql_native_password\0");
    let length = u32::try_from(out.len() - 4).unwrap_or(0).to_le_bytes();
    out[..3].copy_from_slice(&length[..3]);
    out
}

/// Passes bytes on until one side ends or the server says what no server says; then both are closed. A library that is
/// gone is not waited for by its statement.
async fn pass_on(server: Box<dyn Socket>, client: UnixStream, mut guard: Guard, flaw: Flaw) {
    let (mut from_server, mut to_server) = split(server);
    let (mut from_client, mut to_client) = client.into_split();
    let asked = AtomicBool::new(false);
    let up = async {
        let mut buffer = vec![0; 8 << 10];
        while let Ok(n @ 1..) = from_client.read(&mut buffer).await {
            asked.store(true, Ordering::Relaxed);
            if to_server.write_all(&buffer[..n]).await.is_err() || to_server.flush().await.is_err() {
                break;
            }
        }
    };
    let down = async {
        let mut buffer = vec![0; BUFFER];
        while let Ok(n @ 1..) = from_server.read(&mut buffer).await {
            if asked.swap(false, Ordering::Relaxed) {
                guard.begin();
            }
            if let Err(what) = guard.look(&buffer[..n]) {
                let _ = flaw.set(what);
                break;
            }
            if to_client.write_all(&buffer[..n]).await.is_err() {
                break;
            }
        }
    };
    tokio::select! {
        () = down => {}
        () = up => {}
    }
    drop(timeout(Duration::from_secs(1), to_server.shutdown()).await);
}

/// Follows the packets of a server's answers, by their heads and first bytes.
struct Guard {
    /// How many packets that begin with 0xfe a result has: one at its end, and in the old form one behind its columns.
    ends: u8,
    seen_ends: u8,
    /// The next packet is an answer's first.
    first: bool,
    head: [u8; 4],
    head_length: usize,
    /// Bytes of the present packet that are still to come.
    left: usize,
    /// The packet goes on where the one before it ended.
    continued: bool,
    /// The beginning of a packet, as much as is needed to judge it.
    start: [u8; 9],
    start_length: usize,
    start_wanted: usize,
    length: usize,
}

impl Guard {
    fn new(deprecate_eof: bool) -> Self {
        Self {
            ends: if deprecate_eof { 1 } else { 2 },
            seen_ends: 0,
            first: true,
            head: [0; 4],
            head_length: 0,
            left: 0,
            continued: false,
            start: [0; 9],
            start_length: 0,
            start_wanted: 0,
            length: 0,
        }
    }

    /// A statement was sent: an answer comes next.
    fn begin(&mut self) {
        self.first = true;
        self.seen_ends = 0;
    }

    /// Looks at the next bytes. Every packet is judged before its last byte has been passed on.
    fn look(&mut self, mut bytes: &[u8]) -> Result<(), &'static str> {
        while !bytes.is_empty() {
            if self.left == 0 {
                let take = bytes.len().min(4 - self.head_length);
                self.head[self.head_length..self.head_length + take].copy_from_slice(&bytes[..take]);
                self.head_length += take;
                bytes = &bytes[take..];
                if self.head_length < 4 {
                    break;
                }
                self.head_length = 0;
                self.length =
                    usize::from(self.head[0]) | usize::from(self.head[1]) << 8 | usize::from(self.head[2]) << 16;
                self.left = self.length;
                self.start_length = 0;
                self.start_wanted = if self.continued { 0 } else { self.length.min(9) };
                if self.length == 0 && !self.continued {
                    return Err("the server sent an empty packet");
                }
                self.continued = self.length == FULL;
                continue;
            }
            if self.start_length < self.start_wanted {
                let take = bytes.len().min(self.start_wanted - self.start_length);
                self.start[self.start_length..self.start_length + take].copy_from_slice(&bytes[..take]);
                self.start_length += take;
                if self.start_length == self.start_wanted {
                    self.judge()?;
                }
            }
            let take = bytes.len().min(self.left);
            self.left -= take;
            bytes = &bytes[take..];
        }
        Ok(())
    }

    fn judge(&mut self) -> Result<(), &'static str> {
        let number = |width: usize| {
            let mut bytes = [0; 8];
            bytes[..width].copy_from_slice(&self.start[1..=width]);
            u64::from_le_bytes(bytes)
        };
        if !self.first {
            // A row that begins with this byte is longer than a packet.
            if self.start[0] == 0xfe && self.length < FULL {
                self.seen_ends += 1;
                if self.seen_ends >= self.ends {
                    // Another result may follow.
                    self.begin();
                }
            }
            return Ok(());
        }
        let columns = match self.start[0] {
            // Done, or an error; another result may follow the one, nothing the other.
            0x00 | 0xff => return Ok(()),
            0xfb => return Err("the server asks for a file instead of giving a result"),
            0xfc if self.start_wanted >= 3 => number(2),
            0xfd if self.start_wanted >= 4 => number(3),
            0xfe if self.start_wanted >= 9 => number(8),
            0xfc..=0xfe => return Err("the server begins a result with half a number"),
            small => u64::from(small),
        };
        if columns > COLUMNS {
            return Err("the server announces a result of more columns than there can be");
        }
        self.first = false;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(sequence: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap() | u32::from(sequence) << 24;
        [&length.to_le_bytes(), payload].concat()
    }

    fn judged(bytes: &[u8], piece: usize, deprecate_eof: bool) -> bool {
        let mut guard = Guard::new(deprecate_eof);
        bytes.chunks(piece).all(|piece| guard.look(piece).is_ok())
    }

    #[test]
    fn packets_are_judged_however_the_bytes_come() {
        let ok = packet(1, &[0, 0, 0, 2, 0, 0, 0]);
        let end = packet(4, &[0xfe, 0, 0, 2, 0]);
        // A result; behind it, another one with a value whose length takes three bytes.
        let long = [&[0xfd_u8, 0x40, 0x42, 0x0f][..], &[b'x'; 1_000_000]].concat();
        let result = |count: &[u8]| {
            [packet(1, count), packet(2, b"\x03def"), packet(3, b"\x01x"), packet(3, &long), end.clone()].concat()
        };
        let huge = [packet(1, &vec![1; FULL]), packet(2, &[])].concat();
        for (bytes, is_good) in [
            (ok.clone(), true),
            ([result(&[1]), result(&[1])].concat(), true),
            (result(&[0xfc, 0, 16]), true),
            (result(&[0xfc, 1, 16]), false),
            (result(&[0xfe, 0, 0, 0, 0, 0, 1, 0, 0]), false),
            (result(&[0xfd, 1, 0]), false),
            (packet(1, b"\xfb/etc/passwd"), false),
            (packet(1, &[]), false),
            ([result(&[1]), result(&[0xfd, 0, 0, 16])].concat(), false),
            ([ok, result(&[0xfd, 0, 0, 16])].concat(), false),
            ([&packet(1, &[1])[..], &packet(2, b"\x03def"), &packet(3, &[])].concat(), false),
            // A row as large as a packet, and what is left of it: nothing.
            ([&packet(1, &[1])[..], &packet(2, b"\x03def"), &huge, &end].concat(), true),
        ] {
            for piece in [1, 3, 5, 7, 1 << 20] {
                if piece > 5 || bytes.len() < 100 {
                    assert_eq!(judged(&bytes, piece, true), is_good, "{piece} {:?}", &bytes[..bytes.len().min(40)]);
                }
            }
        }
    }

    #[test]
    fn a_result_of_the_old_form_has_a_mark_behind_its_columns() {
        let mark = packet(3, &[0xfe, 0, 0, 2, 0]);
        let rows = packet(4, &[&[0xfd_u8, 0x40, 0x42, 0x0f][..], &[b'x'; 1_000_000]].concat());
        let result = [packet(1, &[1]), packet(2, b"\x03def"), mark.clone(), rows, mark].concat();
        assert!(judged(&result, 4096, false));
        assert!(!judged(&[result, packet(1, &[0xfd, 0, 0, 16])].concat(), 4096, false));
    }
}
