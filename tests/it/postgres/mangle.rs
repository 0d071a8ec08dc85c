//! Damage to what a PostgreSQL server says, below the framing and in it.

use tidemark_conformance::{Mangler, Rng};

/// How many kinds of damage there are.
pub const KINDS: u64 = 9;

/// A mangler that lets the login pass and then damages about every tenth message, in one way per seed.
pub fn mangler(seed: u64) -> Mangler {
    let mut rng = Rng::new(seed);
    let kind = seed % KINDS;
    let mut buffer: Vec<u8> = Vec::new();
    let mut greeted = false;
    Box::new(move |piece| {
        // Whole messages are passed on, the rest waits for its end.
        buffer.append(piece);
        let mut at = 0;
        while let Some(length) = message(&buffer[at..]) {
            let whole = &buffer[at..at + length];
            at += length;
            let letter = whole[0];
            let target = match kind {
                0..=3 => letter == b'd',
                4..=6 => letter == b'D' || letter == b'd',
                _ => true,
            };
            if greeted && target && rng.one_in(10) {
                let mut body = whole[5..].to_vec();
                if damage(kind, &mut body, &mut rng) {
                    frame(piece, letter, &body);
                } else {
                    // The frame itself lies; what follows cannot be found any more.
                    let mut whole = whole.to_vec();
                    let end = whole.len().min(5);
                    let place = rng.index(end);
                    whole[place] ^= 1 << rng.index(8);
                    piece.extend(whole);
                    return true;
                }
            } else {
                piece.extend(whole);
            }
            greeted |= letter == b'Z';
        }
        buffer.drain(..at);
        false
    })
}

/// Length of the message at the start of `bytes`, if it is whole.
fn message(bytes: &[u8]) -> Option<usize> {
    let length = u32::from_be_bytes(bytes.get(1..5)?.try_into().ok()?) as usize + 1;
    (length >= 5 && bytes.len() >= length).then_some(length)
}

fn frame(out: &mut Vec<u8>, letter: u8, body: &[u8]) {
    out.push(letter);
    out.extend((body.len() as u32 + 4).to_be_bytes());
    out.extend(body);
}

/// Damages a message's body; `false` asks for damage to the frame instead.
fn damage(kind: u64, body: &mut Vec<u8>, rng: &mut Rng) -> bool {
    if body.is_empty() {
        return false;
    }
    let place = rng.index(body.len());
    match kind {
        0 | 4 => body[place] ^= 1 << rng.index(8),
        1 | 5 => body.truncate(place),
        2 => body.extend([0xff; 7]),
        3 => body[0] = b'?',
        6 => {
            let end = body.len().min(place + 4);
            body[place..end].fill(0xff);
        }
        7 => body.splice(place..place, [0, 0, 0, 0]).for_each(drop),
        _ => return false,
    }
    true
}
