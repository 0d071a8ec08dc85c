//! Damage to what a SQL Server says, below the framing of TDS and in it.

use tidemark_conformance::{Mangler, Rng};

/// How many kinds of damage there are.
pub const KINDS: u64 = 8;

/// Bytes of a packet's header: type, status, length, session, number, window.
const HEADER: usize = 8;

/// A mangler that lets the login pass and then damages about every fifth packet, in one way per seed.
pub fn mangler(seed: u64) -> Mangler {
    let mut rng = Rng::new(seed);
    let kind = seed % KINDS;
    let mut buffer: Vec<u8> = Vec::new();
    // The answers to PRELOGIN and LOGIN7.
    let mut greetings = 2;
    Box::new(move |piece| {
        // Whole packets are passed on, the rest waits for its end.
        buffer.append(piece);
        let mut at = 0;
        while let Some(length) = packet(&buffer[at..]) {
            let whole = &buffer[at..at + length];
            at += length;
            if greetings > 0 {
                // The last packet of an answer says so.
                greetings -= u32::from(whole[1] & 1);
                piece.extend(whole);
            } else if !rng.one_in(5) {
                piece.extend(whole);
            } else if kind == 7 {
                // The frame itself lies; what follows cannot be found any more.
                let mut whole = whole.to_vec();
                let place = rng.index(HEADER / 2);
                whole[place] ^= 1 << rng.index(8);
                piece.extend(whole);
                return true;
            } else {
                let mut body = whole[HEADER..].to_vec();
                damage(kind, &mut body, &mut rng);
                let length = u16::try_from(HEADER + body.len()).unwrap_or(u16::MAX).to_be_bytes();
                piece.extend([whole[0], whole[1], length[0], length[1]]);
                piece.extend(&whole[4..HEADER]);
                piece.extend(&body[..usize::from(u16::from_be_bytes(length)) - HEADER]);
            }
        }
        buffer.drain(..at);
        false
    })
}

/// Length of the packet at the start of `bytes`, if it is whole.
fn packet(bytes: &[u8]) -> Option<usize> {
    let length = usize::from(u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?]));
    (length >= HEADER && bytes.len() >= length).then_some(length)
}

fn damage(kind: u64, body: &mut Vec<u8>, rng: &mut Rng) {
    if body.is_empty() {
        return;
    }
    let place = rng.index(body.len());
    match kind {
        0 => body[place] ^= 1 << rng.index(8),
        1 => body.truncate(place),
        2 => body.extend([0xff; 7]),
        // The first token is none.
        3 => body[0] = b'?',
        4 => body.splice(place..place, [0, 0, 0, 0]).for_each(drop),
        5 => {
            let end = body.len().min(place + 4);
            body[place..end].fill(0xff);
        }
        _ => {
            // Columns of another type than the values behind them.
            for byte in body.iter_mut().take(60).skip(3).step_by(7) {
                *byte = 0x26 + u8::try_from(rng.index(0x80)).unwrap_or(0);
            }
        }
    }
}
