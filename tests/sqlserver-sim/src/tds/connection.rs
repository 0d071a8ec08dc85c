//! One connection from PRELOGIN to its end.

use super::login::{self, Login7, Plan};
use super::packet::{ATTENTION, LOGIN7, Message, PRELOGIN, Packets, RPC, read, send};
use super::response::{Tokens, attention};
use super::{request, tls};
use crate::engine::server::{Entry, Server};
use crate::engine::session::{Output, Session};
use crate::error::SqlError;
use crate::options::Encryption;
use std::io;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite, WriteHalf};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};

/// Anything that carries packets.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// What was agreed on before LOGIN7.
#[derive(Clone, Copy)]
struct Terms {
    /// TDS 8.0.
    strict: bool,
    /// LOGIN7 comes encrypted.
    secret: bool,
    /// Everything does.
    all_secret: bool,
    /// What PRELOGIN answered about FEDAUTHREQUIRED.
    federated: bool,
    /// The server is a secondary replica.
    secondary: bool,
}

/// Serves a client until it goes, is killed, or breaks the protocol. A `secondary` is the same server as a replica that may
/// only be read.
pub async fn serve(server: Arc<Server>, socket: TcpStream, secondary: bool) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let options = server.options.clone();
    let mut first = [0u8];
    socket.peek(&mut first).await?;
    let strict = options.encryption == Encryption::Strict;
    if strict {
        // A client that does not begin with TLS is not answered.
        if first[0] != 0x16 {
            return Ok(());
        }
        let certificate = options.certificate.as_ref().ok_or_else(no_certificate)?;
        let mut stream = tls::acceptor(certificate, true)?.accept(socket).await?;
        let m = read(&mut stream).await?;
        let Some(wish) = login::wish(&m.body).filter(|_| m.kind == PRELOGIN) else { return Ok(()) };
        let federated = wish.federated && server.takes_tokens();
        reply(&mut stream, &login::prelogin(login::encrypt::ON, &options.version, federated)).await?;
        let m = read(&mut stream).await?;
        let terms = Terms { strict: true, secret: true, all_secret: true, federated, secondary };
        return converse(server, Box::new(stream), m, terms).await;
    }
    let mut socket = socket;
    let m = read(&mut socket).await?;
    let Some(wish) = login::wish(&m.body).filter(|_| m.kind == PRELOGIN) else { return Ok(()) };
    let federated = wish.federated && server.takes_tokens();
    let (answer, plan) = login::negotiate(options.encryption, wish.encryption);
    reply(&mut socket, &login::prelogin(answer, &options.version, federated)).await?;
    let (secret, all_secret) = (plan != Plan::Clear, plan == Plan::Full);
    let terms = Terms { strict: false, secret, all_secret, federated, secondary };
    match plan {
        Plan::Refuse => Ok(()),
        Plan::Clear => {
            let m = read(&mut socket).await?;
            converse(server, Box::new(socket), m, terms).await
        }
        Plan::LoginOnly | Plan::Full => {
            let certificate = options.certificate.as_ref().ok_or_else(no_certificate)?;
            let mut stream = tls::acceptor(certificate, false)?.accept(tls::Framed::new(socket)).await?;
            stream.get_mut().0.finish();
            let m = read(&mut stream).await?;
            if plan == Plan::Full {
                return converse(server, Box::new(stream), m, terms).await;
            }
            // The login was under TLS; the rest is not.
            let (framed, _) = stream.into_inner();
            converse(server, Box::new(framed.into_inner()), m, terms).await
        }
    }
}

fn no_certificate() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "TLS is on and the options name no certificate")
}

async fn reply<S: AsyncWrite + Unpin>(stream: &mut S, body: &[u8]) -> io::Result<()> {
    let bytes = Packets::new(4096, 0).push(body, true);
    send(stream, &bytes).await
}

/// LOGIN7 and everything after it.
async fn converse(server: Arc<Server>, stream: Box<dyn Stream>, first: Message, terms: Terms) -> io::Result<()> {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let (sink, mut inbox) = mpsc::channel(4);
    if first.kind != LOGIN7 {
        return Ok(());
    }
    let Some(login) = login::parse(&first.body) else { return Ok(()) };
    // A token that comes in clear, or with another word about FEDAUTHREQUIRED than PRELOGIN's, breaks the protocol.
    if login.federated.as_ref().is_some_and(|f| !terms.secret || f.echo != terms.federated) {
        return Ok(());
    }
    let mut packets = Packets::new(4096, 0);
    let opened = {
        let (server, login) = (server.clone(), login.clone());
        tokio::task::spawn_blocking(move || open(&server, &login, terms)).await.map_err(io::Error::other)?
    };
    let session = match opened {
        Ok(s) => s,
        Err(list) => {
            let mut t = Tokens::new(&server.options.server_name, "", server.options.quirks, false, None);
            list.iter().for_each(|e| t.error(e));
            let bytes = packets.push(&t.finish(), true);
            return send(&mut writer, &bytes).await;
        }
    };
    // The listener of an availability group leads those who only read to a secondary.
    if let Some(port) = server.secondary_port().filter(|_| login.read_only && !terms.secondary) {
        let mut t = Tokens::new(&server.options.server_name, "", server.options.quirks, false, None);
        t.raw(&login::acknowledge(login.version, &server.options.version, terms.strict));
        t.raw_environment(&login::routing("127.0.0.1", port));
        return send(&mut writer, &packets.push(&t.finish(), true)).await;
    }
    let size = if (512..=32_767).contains(&login.packet_size) { login.packet_size } else { 4096 };
    packets = Packets::new(size, session.id as u16);
    send(&mut writer, &packets.push(&welcome(&server, &session, &login, size, terms.strict), true)).await?;
    let (kill, mut killed) = watch::channel(false);
    let id = session.id;
    let kill = move || {
        // Nobody listening means that the connection is gone already.
        let _ = kill.send(true);
    };
    server.enter(
        id,
        Entry {
            login: session.login.clone(),
            program: session.program.clone(),
            encrypted: session.encrypted,
            kill: Box::new(kill),
        },
    );
    let reading = tokio::spawn(async move {
        loop {
            let m = read(&mut reader).await;
            let over = m.is_err();
            if sink.send(m).await.is_err() || over {
                return;
            }
        }
    });
    // A session that was killed answers nothing more, whatever has come in meanwhile.
    let result = tokio::select! {
        biased;
        _ = killed.wait_for(|k| *k) => Ok(()),
        r = requests(&server, session, &mut inbox, &mut writer, &mut packets) => r,
    };
    server.leave(id);
    reading.abort();
    result
}

fn open(server: &Arc<Server>, login: &Login7, terms: Terms) -> Result<Session, Vec<SqlError>> {
    if login.integrated {
        return Err(vec![SqlError::new(
            18_452,
            14,
            1,
            "Login failed. The login is from an untrusted domain and cannot be used with Integrated authentication.",
        )]);
    }
    let account = match &login.federated {
        Some(federated) => server.recognise(&federated.token),
        None => server.authenticate(&login.user, &login.password),
    };
    let account = account.map_err(|e| vec![e])?;
    let session = Session::open(server, &account, &login.database);
    // A database that cannot be opened fails the login, too.
    let mut session = session
        .map_err(|e| vec![e, SqlError::new(18_456, 14, 1, format!("Login failed for user '{}'.", login.user))])?;
    if terms.secondary && session.db.id > 4 && !login.read_only {
        let name = &session.db.name;
        let text = format!(
            "The target database ('{name}') is in an availability group and is currently accessible for connections when \
             the application intent is set to read only. For more information about application intent, see SQL Server \
             Books Online."
        );
        return Err(vec![SqlError::new(978, 14, 1, text)]);
    }
    session.secondary = terms.secondary;
    session.encrypted = terms.all_secret;
    session.program = login.program.clone();
    session.host = login.host.clone();
    Ok(session)
}

/// The answer to a good login.
fn welcome(server: &Server, session: &Session, login: &Login7, size: usize, strict: bool) -> Vec<u8> {
    let mut t = Tokens::new(&server.options.server_name, &session.db.name, server.options.quirks, false, None);
    t.database("master", &session.db.name);
    let mut body = vec![7, 5];
    body.extend(session.db.collation.wire());
    body.push(0);
    t.raw_environment(&body);
    t.environment(2, "us_english", "");
    t.info(&SqlError::new(5703, 0, 1, "Changed language setting to us_english."));
    t.raw(&login::acknowledge(login.version, &server.options.version, strict));
    t.environment(4, &size.to_string(), "4096");
    if !login.features.is_empty() {
        // FEATUREEXTACK: UTF-8 support (0x0A), and FEDAUTH (0x02) without a nonce, are granted.
        let mut ack = vec![0xAE];
        if login.federated.is_some() {
            ack.extend([0x02, 0, 0, 0, 0]);
        }
        if login.features.contains(&0x0A) {
            ack.extend([0x0A, 1, 0, 0, 0, 1]);
        }
        ack.push(0xFF);
        t.raw(&ack);
    }
    t.finish()
}

/// Messages as they come in. Reading is a task of its own: a read that is dropped half-way would lose bytes.
type Inbox = mpsc::Receiver<io::Result<Message>>;
type Writer = WriteHalf<Box<dyn Stream>>;

/// Stops the running statement when the connection is killed; harmless when nothing runs.
struct StopOnDrop(rusqlite::InterruptHandle);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.interrupt();
    }
}

/// Requests, one at a time; an attention may come while one runs.
async fn requests(
    server: &Arc<Server>,
    session: Session,
    inbox: &mut Inbox,
    writer: &mut Writer,
    packets: &mut Packets,
) -> io::Result<()> {
    let mut session = session;
    let mut next = None;
    loop {
        let m = match next.take() {
            Some(m) => m,
            None => match inbox.recv().await {
                Some(Ok(m)) => m,
                Some(Err(e)) if e.kind() != io::ErrorKind::UnexpectedEof => return Err(e),
                _ => return Ok(()),
            },
        };
        if m.kind == ATTENTION {
            send(writer, &packets.push(&attention(), true)).await?;
            continue;
        }
        // A message that was taken back has no body and no answer but an empty DONE.
        let interrupt = StopOnDrop(session.c.get_interrupt_handle());
        let (sink, mut parts) = mpsc::channel::<Vec<u8>>(4);
        let (name, quirks) = (server.options.server_name.clone(), server.options.quirks);
        let mut work = tokio::task::spawn_blocking(move || {
            let mut tokens = Tokens::new(&name, &session.db.name.clone(), quirks, m.kind == RPC, Some(sink));
            request::run(&mut session, &m, &mut tokens);
            (session, tokens.finish())
        });
        let mut cancelled = false;
        let mut closed = false;
        let (back, last) = loop {
            tokio::select! {
                Some(part) = parts.recv() => {
                    if !cancelled && !closed {
                        send(writer, &packets.push(&part, false)).await?;
                    }
                }
                done = &mut work => break done.map_err(io::Error::other)?,
                m = inbox.recv(), if !cancelled && !closed && next.is_none() => match m {
                    Some(Ok(m)) if m.kind == ATTENTION => {
                        cancelled = true;
                        interrupt.0.interrupt();
                    }
                    // A client that sends the next request before it has read the answer.
                    Some(Ok(m)) => next = Some(m),
                    _ => {
                        closed = true;
                        interrupt.0.interrupt();
                    }
                },
            }
        };
        session = back;
        if closed {
            return Ok(());
        }
        // Parts may still lie in the channel.
        while let Ok(part) = parts.try_recv() {
            if !cancelled {
                send(writer, &packets.push(&part, false)).await?;
            }
        }
        if cancelled {
            send(writer, &packets.push(&attention(), true)).await?;
        } else {
            send(writer, &packets.push(&last, true)).await?;
        }
    }
}
