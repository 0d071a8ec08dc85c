//! TLS with a client of our own: the handshake inside PRELOGIN packets, and TLS first (TDS 8.0), with tiberius speaking inside.

use std::path::Path;
use std::sync::Arc;
use tiberius::{AuthMethod, Client, Config, EncryptionLevel};
use tidemark_sqlserver_sim::{Certificate, Encryption, Framed, Options, Sim};
use tidemark_throwaway::Certificates;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::compat::TokioAsyncWriteCompatExt;

fn server(dir: &Path, encryption: Encryption) -> (Sim, Certificates) {
    let certs = Certificates::create(dir, "client").unwrap();
    let certificate = Some(Certificate { chain: certs.server_cert.clone(), key: certs.server_key.clone() });
    (Sim::start(Options { encryption, certificate, ..Options::default() }).unwrap(), certs)
}

fn connector(certs: &Certificates, strict: bool) -> tokio_rustls::TlsConnector {
    use rustls::pki_types::{CertificateDer, pem::PemObject};
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&certs.ca).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    if strict {
        config.alpn_protocols = vec![b"tds/8.0".to_vec()];
    }
    tokio_rustls::TlsConnector::from(Arc::new(config))
}

/// A PRELOGIN message with VERSION, which must come first, and ENCRYPTION.
fn prelogin(encryption: u8) -> Vec<u8> {
    let body = [0, 0, 11, 0, 6, 1, 0, 17, 0, 1, 0xFF, 0, 0, 0, 0, 0, 0, encryption];
    let mut out = vec![0x12, 1, 0, (8 + body.len()) as u8, 0, 0, 1, 0];
    out.extend(body);
    out
}

async fn packet<S: AsyncRead + Unpin>(s: &mut S) -> Vec<u8> {
    let mut header = [0; 8];
    s.read_exact(&mut header).await.unwrap();
    let mut body = vec![0; usize::from(u16::from_be_bytes([header[2], header[3]])) - 8];
    s.read_exact(&mut body).await.unwrap();
    body
}

/// Logs in with tiberius over a stream on which PRELOGIN is done already: its own is answered here.
async fn speak<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(mut stream: S) -> String {
    let (near, mut far) = tokio::io::duplex(64 << 10);
    let pump = tokio::spawn(async move {
        packet(&mut far).await;
        let mut answer = prelogin(2);
        answer[0] = 4;
        far.write_all(&answer).await.unwrap();
        let _ = tokio::io::copy_bidirectional(&mut far, &mut stream).await;
    });
    let mut config = Config::new();
    config.database("vendor");
    config.authentication(AuthMethod::sql_server("sa", "Passw0rd!"));
    config.encryption(EncryptionLevel::NotSupported);
    let mut client = Client::connect(config, near.compat_write()).await.unwrap();
    let row = client.simple_query("SELECT DB_NAME()").await.unwrap().into_row().await.unwrap().unwrap();
    let name = row.get::<&str, _>(0).unwrap().to_owned();
    drop(client);
    pump.abort();
    name
}

fn name() -> rustls::pki_types::ServerName<'static> {
    "localhost".try_into().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_inside_prelogin() {
    let dir = tempfile::tempdir().unwrap();
    let (sim, certs) = server(dir.path(), Encryption::Optional);
    let mut tcp = TcpStream::connect(sim.address()).await.unwrap();
    tcp.write_all(&prelogin(1)).await.unwrap();
    packet(&mut tcp).await;
    let mut tls = connector(&certs, false).connect(name(), Framed::new(tcp)).await.unwrap();
    tls.get_mut().0.finish();
    assert_eq!(tls.get_ref().1.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_2));
    assert_eq!(speak(tls).await, "vendor");
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_first() {
    let dir = tempfile::tempdir().unwrap();
    let (sim, certs) = server(dir.path(), Encryption::Strict);
    let tcp = TcpStream::connect(sim.address()).await.unwrap();
    let mut tls = connector(&certs, true).connect(name(), tcp).await.unwrap();
    assert_eq!(tls.get_ref().1.alpn_protocol(), Some(&b"tds/8.0"[..]));
    tls.write_all(&prelogin(1)).await.unwrap();
    packet(&mut tls).await;
    assert_eq!(speak(tls).await, "vendor");
    // Who does not begin with TLS is not answered.
    let mut tcp = TcpStream::connect(sim.address()).await.unwrap();
    tcp.write_all(&prelogin(1)).await.unwrap();
    let mut rest = Vec::new();
    assert!(tcp.read_to_end(&mut rest).await.is_err() || rest.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_somebody_else_is_seen() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (sim, _) = server(one.path(), Encryption::Strict);
    let others = Certificates::create(two.path(), "client").unwrap();
    let tcp = TcpStream::connect(sim.address()).await.unwrap();
    assert!(connector(&others, true).connect(name(), tcp).await.is_err());
}
