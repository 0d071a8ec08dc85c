//! Character sets of columns. Snapshot and log give a text's bytes as the column stores them; both are decoded here.
//!
//! UTF-8, ASCII and latin1 (which MySQL means as Windows-1252, the five codes without a character there as C1 controls)
//! are decoded as the server does. Others follow the WHATWG tables, with the characters in which MySQL's sjis and ujis
//! differ put right. Bytes that are no text in their column's character set come as binary values.

use encoding_rs::Encoding;
use tidemark_contract::{RowBuilder, Value};

/// How the bytes of a text column become text.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Charset {
    /// utf8mb4, utf8mb3 and ascii.
    Utf8,
    /// No text at all: the character set `binary`.
    Binary,
    /// Four bytes a character.
    Utf32,
    /// Decoded by a table. `.1` says whether bytes below 128 are ASCII.
    Table(&'static Encoding, bool),
    /// MySQL's sjis, which has other characters than Windows' for seven codes.
    Sjis,
    /// MySQL's ujis, likewise.
    Ujis,
    /// Not known here: ASCII is text, anything else stays bytes.
    Other,
}

/// Codes of JIS X 0208 that MySQL's sjis and ujis read otherwise than Windows does: (Windows', MySQL's).
const JIS: [(char, char); 6] = [
    ('\u{ff5e}', '\u{301c}'),
    ('\u{2225}', '\u{2016}'),
    ('\u{ff0d}', '\u{2212}'),
    ('\u{ffe0}', '\u{a2}'),
    ('\u{ffe1}', '\u{a3}'),
    ('\u{ffe2}', '\u{ac}'),
];

impl Charset {
    /// The character set called so by the server.
    pub(crate) fn named(name: &str) -> Self {
        use encoding_rs as e;
        match name {
            "utf8mb4" | "utf8mb3" | "utf8" | "ascii" => Self::Utf8,
            "binary" => Self::Binary,
            "latin1" => Self::Table(e::WINDOWS_1252, true),
            "latin2" => Self::Table(e::ISO_8859_2, true),
            "latin7" => Self::Table(e::ISO_8859_13, true),
            "cp1250" => Self::Table(e::WINDOWS_1250, true),
            "cp1251" => Self::Table(e::WINDOWS_1251, true),
            "cp1256" => Self::Table(e::WINDOWS_1256, true),
            "cp1257" => Self::Table(e::WINDOWS_1257, true),
            "cp866" => Self::Table(e::IBM866, true),
            "greek" => Self::Table(e::ISO_8859_7, true),
            "hebrew" => Self::Table(e::ISO_8859_8, true),
            "koi8r" => Self::Table(e::KOI8_R, true),
            "koi8u" => Self::Table(e::KOI8_U, true),
            "latin5" => Self::Table(e::WINDOWS_1254, true),
            "macroman" => Self::Table(e::MACINTOSH, true),
            "tis620" => Self::Table(e::WINDOWS_874, true),
            "gbk" | "gb2312" => Self::Table(e::GBK, true),
            "gb18030" => Self::Table(e::GB18030, true),
            "big5" => Self::Table(e::BIG5, true),
            "euckr" => Self::Table(e::EUC_KR, true),
            "cp932" => Self::Table(e::SHIFT_JIS, true),
            "sjis" => Self::Sjis,
            "ujis" => Self::Ujis,
            "eucjpms" => Self::Table(e::EUC_JP, true),
            "ucs2" | "utf16" => Self::Table(e::UTF_16BE, false),
            "utf16le" => Self::Table(e::UTF_16LE, false),
            "utf32" => Self::Utf32,
            _ => Self::Other,
        }
    }

    fn is_ascii_based(self) -> bool {
        !matches!(self, Self::Utf32 | Self::Binary | Self::Table(_, false))
    }

    /// Decodes `bytes` into `out`; `false` if they are no text.
    fn decode(self, bytes: &[u8], out: &mut String) -> bool {
        out.clear();
        let table = |encoding: &'static Encoding, out: &mut String| match encoding
            .decode_without_bom_handling_and_without_replacement(bytes)
        {
            Some(text) => {
                out.push_str(&text);
                true
            }
            None => false,
        };
        match self {
            Self::Utf8 | Self::Other | Self::Binary => false,
            Self::Table(encoding, _) => table(encoding, out),
            Self::Utf32 => {
                bytes.len().is_multiple_of(4)
                    && bytes.chunks_exact(4).all(|c| {
                        let code = c.iter().fold(0_u32, |code, byte| code << 8 | u32::from(*byte));
                        char::from_u32(code).map(|c| out.push(c)).is_some()
                    })
            }
            Self::Sjis | Self::Ujis => {
                let encoding = if self == Self::Sjis { encoding_rs::SHIFT_JIS } else { encoding_rs::EUC_JP };
                if !table(encoding, out) {
                    return false;
                }
                if out.contains(|c| JIS.iter().any(|(windows, _)| *windows == c)) {
                    let swap = |c: char| JIS.iter().find(|(windows, _)| *windows == c).map_or(c, |(_, mysql)| *mysql);
                    *out = out.chars().map(swap).collect();
                }
                true
            }
        }
    }

    /// Appends the text that `bytes` are, or the bytes themselves if they are none.
    #[inline]
    pub(crate) fn push(self, bytes: &[u8], row: &mut RowBuilder, scratch: &mut String) {
        if self == Self::Binary {
            return row.push(Value::Bytes(bytes));
        }
        if self == Self::Utf8 || (self.is_ascii_based() && bytes.is_ascii()) {
            match std::str::from_utf8(bytes) {
                Ok(text) => row.push(Value::Text(text)),
                Err(_) => row.push(Value::Bytes(bytes)),
            }
        } else if self.decode(bytes, scratch) {
            row.push(Value::Text(scratch));
        } else {
            row.push(Value::Bytes(bytes));
        }
    }

    /// The text that `bytes` are, with what cannot be read replaced: for labels and messages.
    pub(crate) fn text(self, bytes: &[u8]) -> Box<str> {
        let mut out = String::new();
        if self != Self::Utf8 && !(self.is_ascii_based() && bytes.is_ascii()) && self.decode(bytes, &mut out) {
            return out.into();
        }
        String::from_utf8_lossy(bytes).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(charset: &str, bytes: &[u8]) -> Option<String> {
        let mut row = RowBuilder::default();
        Charset::named(charset).push(bytes, &mut row, &mut String::new());
        match row.finish().get(0) {
            Value::Text(text) => Some(text.to_owned()),
            _ => None,
        }
    }

    #[test]
    fn bytes_become_text_by_their_character_set() {
        for (charset, bytes, text) in [
            ("utf8mb4", "ü€😀".as_bytes(), Some("ü€😀")),
            ("utf8mb4", b"\xff", None),
            ("latin1", b"\x80\xe9\x81", Some("€é\u{81}")),
            ("gbk", b"\xc4\xe3", Some("你")),
            ("sjis", b"\x81\x60a", Some("〜a")),
            ("cp932", b"\x81\x60a", Some("～a")),
            ("ucs2", b"\x00a\x20\xac", Some("a€")),
            ("utf32", b"\x00\x01\xf6\x00", Some("😀")),
            ("utf32", b"\x00\x01\xf6", None),
            ("cp850", b"plain", Some("plain")),
            ("cp850", b"\x81", None),
            ("binary", b"plain", None),
        ] {
            assert_eq!(shown(charset, bytes).as_deref(), text, "{charset} {bytes:?}");
        }
    }
}
