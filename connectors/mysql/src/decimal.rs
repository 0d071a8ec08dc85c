//! DECIMAL as the log stores it: nine digits to four bytes, the rest in as few bytes as hold them, the sign in the first bit.

use crate::cursor::Cursor;
use crate::error::undecodable;
use tidemark_contract::Result;

/// Bytes that 0 to 9 digits take.
const BYTES: [usize; 10] = [0, 1, 1, 2, 2, 3, 3, 4, 4, 4];

/// Bytes that a number with so many digits takes; `None` if no column can have them.
pub(crate) fn size(precision: u8, scale: u8) -> Option<usize> {
    let (precision, scale) = (usize::from(precision), usize::from(scale));
    let whole = precision.checked_sub(scale).filter(|_| precision <= 81)?;
    Some(whole / 9 * 4 + BYTES[whole % 9] + scale / 9 * 4 + BYTES[scale % 9])
}

/// Reads a number and appends its digits, with the scale kept.
pub(crate) fn write(cursor: &mut Cursor<'_>, precision: u8, scale: u8, out: &mut String) -> Result<()> {
    let size = size(precision, scale).ok_or_else(|| undecodable("a decimal column has impossible digits"))?;
    let stored = cursor.take(size)?;
    let mut bytes = [0_u8; 40];
    let Some(bytes) = bytes.get_mut(..size) else { return Err(undecodable("a decimal column is too wide")) };
    bytes.copy_from_slice(stored);
    let negative = match bytes.first_mut() {
        // No digits at all.
        None => {
            out.push('0');
            return Ok(());
        }
        Some(first) => {
            let negative = *first & 0x80 == 0;
            *first ^= 0x80;
            negative
        }
    };
    if negative {
        bytes.iter_mut().for_each(|b| *b = !*b);
    }
    let (whole, fraction) = (usize::from(precision - scale), usize::from(scale));
    let mut rest = Cursor(bytes);
    if negative {
        out.push('-');
    }
    let begin = out.len();
    let mut group = |digits: usize, pad: bool, out: &mut String| -> Result<()> {
        let value = u32::try_from(rest.uint_be(BYTES[digits])?).unwrap_or(u32::MAX);
        let limit = 10_u32.pow(u32::try_from(digits).unwrap_or(9));
        if value >= limit {
            return Err(undecodable("a decimal in the log has digits that are none"));
        }
        if value == 0 && !pad {
            return Ok(());
        }
        let mut text = itoa::Buffer::new();
        let text = text.format(value);
        if pad {
            (text.len()..digits).for_each(|_| out.push('0'));
        }
        out.push_str(text);
        Ok(())
    };
    group(whole % 9, false, out)?;
    for _ in 0..whole / 9 {
        let pad = out.len() > begin;
        group(9, pad, out)?;
    }
    if out.len() == begin {
        out.push('0');
    }
    if fraction > 0 {
        out.push('.');
        for _ in 0..fraction / 9 {
            group(9, true, out)?;
        }
        if !fraction.is_multiple_of(9) {
            group(fraction % 9, true, out)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(bytes: &[u8], precision: u8, scale: u8) -> Result<String> {
        let mut out = String::new();
        write(&mut Cursor(bytes), precision, scale, &mut out).map(|()| out)
    }

    /// What the server does, from digits.
    fn stored(whole: &str, fraction: &str, negative: bool) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut group = |digits: &str| {
            let value: u32 = digits.parse().unwrap_or(0);
            bytes.extend_from_slice(&value.to_be_bytes()[4 - BYTES[digits.len()]..]);
        };
        let (first, rest) = whole.split_at(whole.len() % 9);
        group(first);
        rest.as_bytes().chunks(9).for_each(|c| group(std::str::from_utf8(c).unwrap()));
        fraction.as_bytes().chunks(9).for_each(|c| group(std::str::from_utf8(c).unwrap()));
        if negative {
            bytes.iter_mut().for_each(|b| *b = !*b);
        }
        bytes[0] ^= 0x80;
        bytes
    }

    #[test]
    fn numbers_of_the_manual() {
        let bytes = [0x81, 0x0d, 0xfb, 0x38, 0xd2, 0x04, 0xd2];
        assert_eq!(text(&bytes, 14, 4).unwrap(), "1234567890.1234");
        let negative: Vec<u8> = bytes.iter().map(|b| !b).collect();
        assert_eq!(text(&negative, 14, 4).unwrap(), "-1234567890.1234");
        assert_eq!(text(&[0x80], 1, 0).unwrap(), "0");
        assert_eq!(text(&[0x80, 0], 3, 1).unwrap(), "0.0");
        assert!(text(&[0x80], 14, 4).is_err());
        assert!(text(&[0xff; 40], 200, 4).is_err());
        assert!(text(&[0xff], 2, 0).is_err(), "127 is no pair of digits");
    }

    proptest! {
        #[test]
        fn digits_come_back(whole in "[0-9]{1,35}", fraction in "[0-9]{0,30}", negative: bool) {
            let bytes = stored(&whole, &fraction, negative);
            let precision = u8::try_from(whole.len() + fraction.len()).unwrap();
            let scale = u8::try_from(fraction.len()).unwrap();
            let trimmed = whole.trim_start_matches('0');
            let whole = if trimmed.is_empty() { "0" } else { trimmed };
            let sign = if negative { "-" } else { "" };
            let point = if scale > 0 { "." } else { "" };
            prop_assert_eq!(text(&bytes, precision, scale).unwrap(), format!("{sign}{whole}{point}{fraction}"));
        }
    }
}
