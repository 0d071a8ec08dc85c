//! PRELOGIN and LOGIN7: "[MS-TDS] 2.2.6.5" and "2.2.6.4".

use super::packet::utf16;
use crate::options::Encryption;

/// Values of the option ENCRYPTION.
pub mod encrypt {
    /// TLS for the login alone.
    pub const OFF: u8 = 0;
    /// TLS for everything.
    pub const ON: u8 = 1;
    /// No TLS here.
    pub const NOT_SUP: u8 = 2;
    /// TLS for everything, or nothing at all.
    pub const REQ: u8 = 3;
}

/// How a connection goes on after PRELOGIN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    /// In clear.
    Clear,
    /// TLS for LOGIN7, then clear.
    LoginOnly,
    /// TLS for everything.
    Full,
    /// The two cannot agree.
    Refuse,
}

/// What a PRELOGIN message asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wish {
    /// ENCRYPTION.
    pub encryption: u8,
    /// FEDAUTHREQUIRED: a token is going to be used.
    pub federated: bool,
}

/// Reads a PRELOGIN message; `None` if it does not begin with VERSION, which "is a required token, and it MUST be the first
/// token sent in PRELOGIN".
pub fn wish(body: &[u8]) -> Option<Wish> {
    (body.first() == Some(&0)).then(|| Wish {
        encryption: option(body, 1).unwrap_or(encrypt::NOT_SUP),
        federated: option(body, 6) == Some(1),
    })
}

/// The first byte of an option of a PRELOGIN message.
fn option(body: &[u8], wanted: u8) -> Option<u8> {
    body.chunks_exact(5).take_while(|option| option[0] != 0xFF).find(|option| option[0] == wanted).and_then(|option| {
        let offset = usize::from(u16::from_be_bytes([option[1], option[2]]));
        body.get(offset).copied()
    })
}

/// The table of "2.2.6.5 PRELOGIN", encryption negotiation: (answer, what follows).
pub fn negotiate(server: Encryption, client: u8) -> (u8, Plan) {
    use encrypt::{NOT_SUP, OFF, ON, REQ};
    match (server, client) {
        // A server without TLS says so; a client that wants it goes.
        (Encryption::Off, _) => (NOT_SUP, Plan::Clear),
        (Encryption::Optional, OFF) => (OFF, Plan::LoginOnly),
        (Encryption::Optional, ON | REQ) => (ON, Plan::Full),
        (Encryption::Optional, _) => (NOT_SUP, Plan::Clear),
        (Encryption::Required, OFF) => (REQ, Plan::Full),
        (Encryption::Required, ON | REQ) => (ON, Plan::Full),
        (Encryption::Required, _) => (REQ, Plan::Refuse),
        // TDS 8.0: TLS is there already, the option is ignored.
        (Encryption::Strict, _) => (ON, Plan::Clear),
    }
}

/// The answer to PRELOGIN: version, encryption, instance, thread, MARS off; FEDAUTHREQUIRED where a server that takes tokens
/// was asked about them.
pub fn prelogin(encryption: u8, version: &str, federated: bool) -> Vec<u8> {
    let mut parts = version.split('.').map(|p| p.parse::<u16>().unwrap_or(0));
    let (major, minor, build) = (parts.next().unwrap_or(16), parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    let mut data: Vec<(u8, Vec<u8>)> = Vec::new();
    let mut v = vec![major as u8, minor as u8];
    v.extend(build.to_be_bytes());
    v.extend([0, 0]);
    data.push((0, v));
    data.push((1, vec![encryption]));
    data.push((2, vec![0]));
    data.push((3, Vec::new()));
    data.push((4, vec![0]));
    if federated {
        data.push((6, vec![1]));
    }
    let mut offset = data.len() * 5 + 1;
    let mut out = Vec::new();
    for (option, bytes) in &data {
        out.push(*option);
        out.extend((offset as u16).to_be_bytes());
        out.extend((bytes.len() as u16).to_be_bytes());
        offset += bytes.len();
    }
    out.push(0xFF);
    data.iter().for_each(|(_, b)| out.extend(b));
    out
}

/// What LOGIN7 says.
#[derive(Debug, Default, Clone)]
pub struct Login7 {
    /// TDS version the client speaks.
    pub version: u32,
    /// Packet size the client wants.
    pub packet_size: usize,
    /// Client host.
    pub host: String,
    /// SQL login.
    pub user: String,
    /// Its password.
    pub password: String,
    /// Program name.
    pub program: String,
    /// Database to open.
    pub database: String,
    /// Windows authentication is asked for.
    pub integrated: bool,
    /// TypeFlags, fReadOnlyIntent: "ApplicationIntent=ReadOnly".
    pub read_only: bool,
    /// Feature extensions asked for.
    pub features: Vec<u8>,
    /// The feature extension FEDAUTH with a security token.
    pub federated: Option<Federated>,
}

/// "2.2.6.4 LOGIN7", FEDAUTH with `bFedAuthLibrary` = SECURITYTOKEN.
#[derive(Default, Clone)]
pub struct Federated {
    /// `fFedAuthEcho`: what the server's PRELOGIN said about FEDAUTHREQUIRED.
    pub echo: bool,
    /// The token.
    pub token: String,
}

impl std::fmt::Debug for Federated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Federated").field("echo", &self.echo).finish_non_exhaustive()
    }
}

/// The data of FEDAUTH: options, length of the token, the token in UTF-16; a nonce is not asked for here.
fn federated(data: &[u8]) -> Option<Federated> {
    let [options, a, b, c, d, token @ ..] = data else { return None };
    let length = u32::from_le_bytes([*a, *b, *c, *d]) as usize;
    (options >> 1 == 1 && token.len() == length).then(|| Federated { echo: options & 1 == 1, token: utf16(token) })
}

/// Reads LOGIN7; `None` if it is cut off.
pub fn parse(b: &[u8]) -> Option<Login7> {
    let u32_at = |at: usize| b.get(at..at + 4).map(|x| u32::from_le_bytes([x[0], x[1], x[2], x[3]]));
    let u16_at = |at: usize| b.get(at..at + 2).map(|x| usize::from(u16::from_le_bytes([x[0], x[1]])));
    let raw = |at: usize| -> Option<&[u8]> {
        let (offset, length) = (u16_at(at)?, u16_at(at + 2)?);
        b.get(offset..offset + length * 2)
    };
    let text = |at: usize| raw(at).map(utf16);
    // Each byte has its halves swapped and is xored with 0xA5.
    let password: Vec<u8> = raw(44)?.iter().map(|x| (x ^ 0xA5).rotate_left(4)).collect();
    let mut features = Vec::new();
    let mut by_token = None;
    let flags3 = *b.get(27)?;
    if flags3 & 0x10 != 0 {
        // The extension field holds the offset of the offset of the list.
        let mut at = u32_at(u16_at(56)?)? as usize;
        while let Some(id) = b.get(at) {
            if *id == 0xFF {
                break;
            }
            features.push(*id);
            let length = u32_at(at + 1)? as usize;
            if *id == 2 {
                by_token = Some(federated(b.get(at + 5..at + 5 + length)?)?);
            }
            at += 5 + length;
        }
    }
    Some(Login7 {
        version: u32_at(4)?,
        packet_size: u32_at(8)? as usize,
        host: text(36)?,
        user: text(40)?,
        password: utf16(&password),
        program: text(48)?,
        database: text(68)?,
        integrated: *b.get(25)? & 0x80 != 0,
        read_only: *b.get(26)? & 0x20 != 0,
        features,
        federated: by_token,
    })
}

/// LOGINACK.
pub fn acknowledge(client: u32, version: &str, strict: bool) -> Vec<u8> {
    let mut parts = version.split('.').map(|p| p.parse::<u16>().unwrap_or(0));
    let (major, minor, build) = (parts.next().unwrap_or(16), parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    let mut body = vec![1];
    // TDS 7.4 is what is spoken; an older client is answered in its version, one that says 8.0 under strict encryption in that.
    let spoken = if strict && client == 0x0800_0000 { client } else { client.min(0x7400_0004) };
    body.extend(spoken.to_be_bytes());
    super::types::short_text("Microsoft SQL Server", &mut body);
    body.extend([major as u8, minor as u8]);
    body.extend(build.to_be_bytes());
    let mut out = vec![0xAD];
    out.extend((body.len() as u16).to_le_bytes());
    out.extend(body);
    out
}

/// ENVCHANGE type 20, "Sends routing information to client": protocol TCP, port, name; no old value.
pub fn routing(host: &str, port: u16) -> Vec<u8> {
    let name: Vec<u8> = host.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let mut out = vec![20];
    out.extend(((5 + name.len()) as u16).to_le_bytes());
    out.push(0);
    out.extend(port.to_le_bytes());
    out.extend(((name.len() / 2) as u16).to_le_bytes());
    out.extend(name);
    out.extend([0, 0]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encryption_is_negotiated_by_the_table() {
        use Encryption::{Off, Optional, Required};
        assert_eq!(negotiate(Off, encrypt::ON), (encrypt::NOT_SUP, Plan::Clear));
        assert_eq!(negotiate(Optional, encrypt::OFF), (encrypt::OFF, Plan::LoginOnly));
        assert_eq!(negotiate(Optional, encrypt::ON).1, Plan::Full);
        assert_eq!(negotiate(Required, encrypt::OFF), (encrypt::REQ, Plan::Full));
        assert_eq!(negotiate(Required, encrypt::NOT_SUP).1, Plan::Refuse);
    }

    #[test]
    fn the_answer_can_be_read_like_a_question() {
        let answer = |federated| wish(&prelogin(encrypt::REQ, "16.0.1", federated));
        assert_eq!(answer(false), Some(Wish { encryption: encrypt::REQ, federated: false }));
        assert_eq!(answer(true), Some(Wish { encryption: encrypt::REQ, federated: true }));
        assert_eq!(wish(&[0xFF]), None);
        assert!(parse(&[0; 40]).is_none());
    }
}
