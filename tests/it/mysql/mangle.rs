//! Damage to what a MySQL or MariaDB server says, below the framing and in it.

use tidemark_conformance::{Mangler, Rng};

/// How many kinds of damage there are.
pub const KINDS: u64 = 11;

/// Bytes of an event's header.
const HEADER: usize = 19;

/// A mangler that lets the login pass and then damages about every tenth packet, in one way per seed. `checksums`: whether
/// events end with a CRC-32; half of the kinds put it right again, so that the decoder itself meets the damage.
pub fn mangler(seed: u64, checksums: bool) -> Mangler {
    let mut rng = Rng::new(seed);
    let kind = seed % KINDS;
    let mut buffer: Vec<u8> = Vec::new();
    let mut greeted = false;
    Box::new(move |piece| {
        // Whole packets are passed on, the rest waits for its end.
        buffer.append(piece);
        let mut at = 0;
        while let Some(length) = packet(&buffer[at..]) {
            let whole = &buffer[at..at + length];
            at += length;
            let (sequence, body) = (whole[3], &whole[4..]);
            let event = is_event(body);
            // Half of the kinds leave everything but the log alone.
            if greeted && (kind < 5 || event) && rng.one_in(10) {
                if kind == 10 {
                    // The frame itself lies; what follows cannot be found any more.
                    let mut whole = whole.to_vec();
                    let place = rng.index(4);
                    whole[place] ^= 1 << rng.index(8);
                    piece.extend(whole);
                    return true;
                }
                let mut body = body.to_vec();
                damage(kind, &mut body, &mut rng);
                if kind >= 5 && checksums {
                    seal(&mut body);
                }
                frame(piece, sequence, &body);
            } else {
                piece.extend(whole);
            }
            // The login ends with an OK packet that is at least the third of its exchange.
            greeted |= sequence >= 2 && body.first() == Some(&0);
        }
        buffer.drain(..at);
        false
    })
}

/// Length of the packet at the start of `bytes`, if it is whole.
fn packet(bytes: &[u8]) -> Option<usize> {
    let length = u32::from_le_bytes([*bytes.first()?, *bytes.get(1)?, *bytes.get(2)?, 0]) as usize + 4;
    (bytes.len() >= length).then_some(length)
}

/// Whether a packet's body is an OK byte and an event whose header tells its true length.
fn is_event(body: &[u8]) -> bool {
    let length = body.get(10..14).and_then(|bytes| bytes.try_into().ok()).map(u32::from_le_bytes);
    body.first() == Some(&0) && length.is_some_and(|length| length as usize == body.len() - 1)
}

fn frame(out: &mut Vec<u8>, sequence: u8, body: &[u8]) {
    let length = u32::try_from(body.len()).unwrap_or(0).to_le_bytes();
    out.extend([length[0], length[1], length[2], sequence]);
    out.extend(body);
}

fn damage(kind: u64, body: &mut Vec<u8>, rng: &mut Rng) {
    if body.is_empty() {
        return;
    }
    let place = rng.index(body.len());
    // Behind the header of an event.
    let inside = if body.len() > HEADER + 6 { HEADER + 1 + rng.index(body.len() - HEADER - 5) } else { place };
    match kind {
        0 => body[place] ^= 1 << rng.index(8),
        1 => body.truncate(place),
        2 => body.extend([0xff; 7]),
        3 => body[0] = b'?',
        4 => body.splice(place..place, [0, 0, 0, 0]).for_each(drop),
        5 => body[inside] ^= 1 << rng.index(8),
        6 => body.truncate(inside),
        7 => {
            let end = body.len().min(inside + 4);
            body[inside..end].fill(0xff);
        }
        8 => body.splice(inside..inside, [0xfe, 0xff, 0xff, 0x7f]).for_each(drop),
        // A kind of event that nobody has ever seen.
        9 => body[5] = 0xfa,
        _ => {}
    }
}

/// Makes length and checksum of an event fit what it holds now.
fn seal(body: &mut [u8]) {
    if body.len() < HEADER + 5 {
        return;
    }
    let length = u32::try_from(body.len() - 1).unwrap_or(0).to_le_bytes();
    body[10..14].copy_from_slice(&length);
    let end = body.len() - 4;
    let sum = crc32(&body[1..end]).to_le_bytes();
    body[end..].copy_from_slice(&sum);
}

fn crc32(bytes: &[u8]) -> u32 {
    let bit = |sum: u32| (sum >> 1) ^ if sum & 1 == 1 { 0xedb8_8320 } else { 0 };
    !bytes.iter().fold(!0, |sum, byte| (0..8).fold(sum ^ u32::from(*byte), |sum, _| bit(sum)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_one_that_everybody_uses() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }
}
