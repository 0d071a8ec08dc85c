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

use crate::error::{bug, unreachable};
use crate::wire::{CLIENT_DEPRECATE_EOF, COLLATION, Connection, Socket};
use mysql_async::{Conn, OptsBuilder};
use ring::rand::SecureRandom;
use std::time::Duration;
use tidemark_contract::{Result, SourceError};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader, copy, copy_buf, split};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Bytes taken from the server at a time.
const BUFFER: usize = 128 << 10;
/// The largest packet taken: the server's own limit.
const LARGEST: usize = 1 << 30;
/// How long an idle connection may be; nothing depends on it, but the library would ask the server.
const IDLE: usize = 28_800;

/// Gives the connection to the library. The task passes bytes on, and ends when either side does.
pub(crate) async fn hand_over(connection: Connection) -> Result<(Conn, JoinHandle<()>)> {
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
    Ok((conn, tokio::spawn(pass_on(server, client))))
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

/// Passes bytes on until one side ends; then both are closed. A library that is gone is not waited for by its statement.
async fn pass_on(server: Box<dyn Socket>, client: UnixStream) {
    let (from_server, mut to_server) = split(server);
    let (mut from_client, mut to_client) = client.into_split();
    let mut from_server = BufReader::with_capacity(BUFFER, from_server);
    tokio::select! {
        ended = copy_buf(&mut from_server, &mut to_client) => drop(ended),
        ended = copy(&mut from_client, &mut to_server) => drop(ended),
    }
    drop(timeout(Duration::from_secs(1), to_server.shutdown()).await);
}
