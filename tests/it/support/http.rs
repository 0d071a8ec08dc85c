//! Just enough of an HTTP/1.1 server, with the means to break off an answer.

use std::future::Future;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

pub struct Request {
    pub method: String,
    /// Without the query.
    pub path: String,
    query: String,
    headers: Vec<(String, String)>,
    /// Decompressed.
    pub body: Vec<u8>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    pub fn query(&self, name: &str) -> Option<String> {
        let pair = |pair: &str| pair.split_once('=').map(|(n, v)| (n.to_owned(), decode(v)));
        self.query.split('&').filter_map(pair).find(|(n, _)| n == name).map(|(_, v)| v)
    }

    pub fn body_hash(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (&self.path, &self.body).hash(&mut hasher);
        hasher.finish()
    }
}

fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let (mut out, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        let hex = bytes.get(at + 1..at + 3).and_then(|h| u8::from_str_radix(std::str::from_utf8(h).ok()?, 16).ok());
        match (bytes[at], hex) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 2;
            }
            (b'+', _) => out.push(b' '),
            (byte, _) => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

pub struct Answer {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    /// Break off in the middle of the body.
    pub cut: bool,
}

impl Answer {
    pub fn json(status: u16, value: &serde_json::Value) -> Self {
        Self::text(status, "application/json", &value.to_string())
    }

    pub fn text(status: u16, kind: &str, body: &str) -> Self {
        Self { status, headers: vec![("Content-Type", kind.to_owned())], body: body.into(), cut: false }
    }
}

/// Serves one connection until it ends. An answer of `None` closes it without a word.
pub async fn serve<F>(socket: TcpStream, answer: impl Fn(Request) -> F)
where
    F: Future<Output = Option<Answer>>,
{
    let _ = socket.set_nodelay(true);
    let mut socket = BufReader::new(socket);
    while let Ok(Some(request)) = read(&mut socket).await {
        let Some(answer) = answer(request).await else { return };
        let mut head = format!("HTTP/1.1 {} X\r\nContent-Length: {}\r\n", answer.status, answer.body.len());
        for (name, value) in &answer.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        let mut out = head.into_bytes();
        let sent = if answer.cut { answer.body.len() / 2 } else { answer.body.len() };
        out.extend(&answer.body[..sent]);
        if socket.get_mut().write_all(&out).await.is_err() || answer.cut {
            return;
        }
    }
}

async fn read(socket: &mut BufReader<TcpStream>) -> io::Result<Option<Request>> {
    let mut line = String::new();
    if socket.read_line(&mut line).await? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut headers = Vec::new();
    loop {
        line.clear();
        if socket.read_line(&mut line).await? == 0 {
            return Ok(None);
        }
        match line.trim_end().split_once(':') {
            Some((name, value)) => headers.push((name.to_lowercase(), value.trim().to_owned())),
            None => break,
        }
    }
    let get = |name: &str| headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone());
    let mut body = Vec::new();
    if let Some(length) = get("content-length").and_then(|v| v.parse().ok()) {
        body.resize(length, 0);
        socket.read_exact(&mut body).await?;
    } else if get("transfer-encoding").is_some_and(|v| v.contains("chunked")) {
        loop {
            line.clear();
            socket.read_line(&mut line).await?;
            let size = usize::from_str_radix(line.trim(), 16).map_err(io::Error::other)?;
            let start = body.len();
            body.resize(start + size + 2, 0);
            socket.read_exact(&mut body[start..]).await?;
            body.truncate(start + size);
            if size == 0 {
                break;
            }
        }
    }
    if get("content-encoding").is_some_and(|v| v == "gzip") {
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(&body[..]).read_to_end(&mut plain)?;
        body = plain;
    }
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    Ok(Some(Request { method, path: decode(path), query: query.into(), headers, body }))
}
