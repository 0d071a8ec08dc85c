//! A TCP proxy on loopback that can damage, cut and stall what the server says. For fixtures and fault tests.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// Damages a piece of the server's bytes; one is made for each connection, in order of arrival. `true` closes the
/// connection behind the piece: a length that lies would otherwise make the client wait for what does not come.
pub type Mangler = Box<dyn FnMut(&mut Vec<u8>) -> bool + Send>;

/// A running proxy. Dropping it cuts all connections.
pub struct Proxy {
    addr: SocketAddr,
    shared: Arc<Shared>,
    accept: JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    cut: Notify,
    closed: AtomicBool,
    /// Connections made so far, and up to which of them no bytes flow any more.
    made: AtomicU64,
    swallowed: AtomicU64,
    forwarded: AtomicU64,
    connections: Mutex<Vec<JoinHandle<()>>>,
}

impl Proxy {
    /// A proxy to `server` that changes nothing until it is told to.
    pub async fn start(server: SocketAddr) -> io::Result<Self> {
        Self::mangling(server, || Box::new(|_| false)).await
    }

    /// A proxy whose connections damage the server's bytes by a mangler of their own.
    pub async fn mangling(server: SocketAddr, make: impl Fn() -> Mangler + Send + Sync + 'static) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let addr = listener.local_addr()?;
        let shared = Arc::new(Shared::default());
        let accept = tokio::spawn({
            let shared = shared.clone();
            async move {
                while let Ok((client, _)) = listener.accept().await {
                    if shared.closed.load(Ordering::Relaxed) {
                        continue;
                    }
                    let task = tokio::spawn(serve(client, server, shared.clone(), make()));
                    let mut connections = shared.connections.lock().unwrap_or_else(PoisonError::into_inner);
                    connections.retain(|task| !task.is_finished());
                    connections.push(task);
                }
            }
        });
        Ok(Self { addr, shared, accept })
    }

    /// Where to connect.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Cuts every present connection; new ones are taken.
    pub fn cut(&self) {
        self.shared.cut.notify_waiters();
    }

    /// Whether new connections are closed at once.
    pub fn refuse(&self, refuse: bool) {
        self.shared.closed.store(refuse, Ordering::Relaxed);
    }

    /// From now on no byte gets through the present connections, which stay open (a black hole). New ones work.
    pub fn swallow(&self) {
        self.shared.swallowed.store(self.shared.made.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// Bytes that went from the server to clients so far.
    pub fn forwarded(&self) -> u64 {
        self.shared.forwarded.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accept.abort();
        for task in self.shared.connections.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            task.abort();
        }
    }
}

async fn serve(client: TcpStream, server: SocketAddr, shared: Arc<Shared>, mut mangle: Mangler) {
    let Ok(server) = TcpStream::connect(server).await else { return };
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let number = shared.made.fetch_add(1, Ordering::Relaxed) + 1;
    let flowing = async || {
        if shared.swallowed.load(Ordering::Relaxed) >= number {
            std::future::pending::<()>().await;
        }
    };
    let up = async {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(n @ 1..) = from_client.read(&mut buffer).await {
            flowing().await;
            if to_server.write_all(&buffer[..n]).await.is_err() {
                break;
            }
        }
        let _ = to_server.shutdown().await;
    };
    let down = async {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(n @ 1..) = from_server.read(&mut buffer).await {
            flowing().await;
            let mut piece = buffer[..n].to_vec();
            let last = mangle(&mut piece);
            shared.forwarded.fetch_add(n as u64, Ordering::Relaxed);
            if to_client.write_all(&piece).await.is_err() || last {
                break;
            }
        }
    };
    // The server's end ends the connection; a client that only stops sending may still read.
    tokio::select! {
        () = down => {}
        () = shared.cut.notified() => {}
        () = async { up.await; std::future::pending::<()>().await } => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::time::timeout;

    /// A server that repeats what it hears.
    async fn echo() -> SocketAddr {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let addr = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut from, mut to) = socket.split();
                    let _ = tokio::io::copy(&mut from, &mut to).await;
                });
            }
        });
        addr
    }

    async fn ask(socket: &mut TcpStream) -> io::Result<[u8; 4]> {
        let mut answer = [0; 4];
        socket.write_all(b"ping").await?;
        socket.read_exact(&mut answer).await?;
        Ok(answer)
    }

    #[tokio::test]
    async fn it_forwards_damages_cuts_refuses_and_swallows() {
        let server = echo().await;
        let proxy = Proxy::start(server).await.unwrap();
        let mut first = TcpStream::connect(proxy.addr()).await.unwrap();
        assert_eq!(ask(&mut first).await.unwrap(), *b"ping");
        assert_eq!(proxy.forwarded(), 4);
        proxy.swallow();
        assert!(timeout(Duration::from_millis(100), ask(&mut first)).await.is_err(), "a black hole answers nothing");
        let mut second = TcpStream::connect(proxy.addr()).await.unwrap();
        assert_eq!(ask(&mut second).await.unwrap(), *b"ping", "new connections work");
        proxy.cut();
        assert!(ask(&mut second).await.is_err());
        proxy.refuse(true);
        let mut third = TcpStream::connect(proxy.addr()).await.unwrap();
        assert!(ask(&mut third).await.is_err());

        let flip = || -> Mangler {
            Box::new(|piece| {
                piece[0] = b'?';
                true
            })
        };
        let proxy = Proxy::mangling(server, flip).await.unwrap();
        let mut socket = TcpStream::connect(proxy.addr()).await.unwrap();
        assert_eq!(ask(&mut socket).await.unwrap(), *b"?ing");
        assert!(ask(&mut socket).await.is_err(), "closed behind the damage");
    }
}
