//! Reading little-endian fields from untrusted bytes: every step checks, none panics (R6).

use crate::error::undecodable;
use tidemark_contract::{Result, SourceError};

/// The bytes not read yet.
#[derive(Clone, Copy)]
pub(crate) struct Cursor<'a>(pub(crate) &'a [u8]);

/// What every short read ends in.
pub(crate) fn cut_short() -> SourceError {
    undecodable("a message from the server ends too early")
}

impl<'a> Cursor<'a> {
    /// The next `n` bytes.
    #[inline]
    pub(crate) fn take(&mut self, n: usize) -> Result<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(n).ok_or_else(cut_short)?;
        self.0 = tail;
        Ok(head)
    }

    /// The next `N` bytes as an array.
    #[inline]
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (head, tail) = self.0.split_first_chunk::<N>().ok_or_else(cut_short)?;
        self.0 = tail;
        Ok(*head)
    }

    #[inline]
    pub(crate) fn u8(&mut self) -> Result<u8> {
        Ok(self.array::<1>()?[0])
    }

    #[inline]
    pub(crate) fn u16(&mut self) -> Result<u16> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    #[inline]
    pub(crate) fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    #[inline]
    pub(crate) fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// An unsigned number of `n` bytes, at most 8, low byte first.
    #[inline]
    pub(crate) fn uint(&mut self, n: usize) -> Result<u64> {
        Ok(self.take(n)?.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    }

    /// An unsigned number of `n` bytes, at most 8, high byte first.
    #[inline]
    pub(crate) fn uint_be(&mut self, n: usize) -> Result<u64> {
        Ok(self.take(n)?.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    }

    /// A length-encoded number.
    #[inline]
    pub(crate) fn lenenc(&mut self) -> Result<u64> {
        match self.u8()? {
            first @ 0..=0xfa => Ok(u64::from(first)),
            0xfc => self.uint(2),
            0xfd => self.uint(3),
            0xfe => self.u64(),
            0xfb | 0xff => Err(undecodable("a message from the server has no length where one must be")),
        }
    }

    /// As many bytes as a length-encoded number says.
    #[inline]
    pub(crate) fn lenenc_bytes(&mut self) -> Result<&'a [u8]> {
        let length = self.lenenc()?;
        self.take(usize::try_from(length).map_err(|_| cut_short())?)
    }

    /// The bytes up to the next NUL, which is read too.
    pub(crate) fn until_nul(&mut self) -> Result<&'a [u8]> {
        let end = self.0.iter().position(|b| *b == 0).ok_or_else(cut_short)?;
        let text = self.take(end)?;
        self.take(1)?;
        Ok(text)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Everything that is left.
    pub(crate) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }
}

/// Whether bit `index` is set in a bitmap whose first bit is the lowest of its first byte.
#[inline]
pub(crate) fn bit(bitmap: &[u8], index: usize) -> bool {
    bitmap.get(index / 8).is_some_and(|byte| byte >> (index % 8) & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_all_widths() {
        let mut c = Cursor(&[1, 2, 1, 0xfa, 0xfc, 1, 2, 0xfd, 1, 2, 3, 0xfe, 1, 0, 0, 0, 0, 0, 0, 0x80, 0xfb]);
        assert_eq!(c.u16().unwrap(), 0x201);
        assert_eq!(c.uint_be(1).unwrap(), 1);
        assert_eq!(c.lenenc().unwrap(), 0xfa);
        assert_eq!(c.lenenc().unwrap(), 0x201);
        assert_eq!(c.lenenc().unwrap(), 0x30201);
        assert_eq!(c.lenenc().unwrap(), 0x8000_0000_0000_0001);
        assert!(c.lenenc().is_err());
        assert!(c.u8().is_err());
        assert!(Cursor(&[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0]).lenenc_bytes().is_err());
        assert!(Cursor(b"abc").until_nul().is_err());
        assert!(bit(&[0, 2], 9) && !bit(&[0, 2], 8) && !bit(&[], 3));
    }
}
