//! Collations: which code page a `varchar` has, and how two strings compare.
//!
//! "Collation and Unicode support" describes them. Modelled: case (CI, CS), accents (AI, AS), binary (BIN, BIN2), code
//! pages, `_UTF8`, trailing blanks that do not count. The order of the linguistic collations is the simulator's own
//! approximation: punctuation, digits, letters; letters by their base letter, then accent, then case. It is *not* byte
//! order, which is what a client that compares keys itself must notice.

use encoding_rs::Encoding;
use std::cmp::Ordering;

/// How bytes of a `varchar` map to characters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CodePage {
    /// A Windows code page.
    Windows(u16),
    /// DOS code page 437 or 850.
    Dos(u16),
    /// The `_UTF8` collations.
    Utf8,
}

struct Entry {
    name: &'static str,
    lcid: u32,
    sort_id: u8,
    page: CodePage,
}

const fn entry(name: &'static str, lcid: u32, sort_id: u8, page: CodePage) -> Entry {
    Entry { name, lcid, sort_id, page }
}

use CodePage::{Dos, Utf8, Windows};

/// LCIDs and sort ids as "[MS-LCID]" and `fn_helpcollations` list them.
const TABLE: &[Entry] = &[
    entry("SQL_Latin1_General_CP1_CI_AS", 0x0409, 52, Windows(1252)),
    entry("SQL_Latin1_General_CP1_CS_AS", 0x0409, 51, Windows(1252)),
    entry("SQL_Latin1_General_CP1_CI_AI", 0x0409, 54, Windows(1252)),
    entry("SQL_Latin1_General_CP437_CI_AS", 0x0409, 32, Dos(437)),
    entry("SQL_Latin1_General_CP850_CI_AS", 0x0409, 42, Dos(850)),
    entry("SQL_Latin1_General_CP850_BIN2", 0x0409, 40, Dos(850)),
    entry("Latin1_General_CI_AS", 0x0409, 0, Windows(1252)),
    entry("Latin1_General_CS_AS", 0x0409, 0, Windows(1252)),
    entry("Latin1_General_CI_AI", 0x0409, 0, Windows(1252)),
    entry("Latin1_General_BIN", 0x0409, 0, Windows(1252)),
    entry("Latin1_General_BIN2", 0x0409, 0, Windows(1252)),
    entry("Latin1_General_100_CI_AS", 0x0409, 0, Windows(1252)),
    entry("Latin1_General_100_CS_AS", 0x0409, 0, Windows(1252)),
    entry("Latin1_General_100_BIN2", 0x0409, 0, Windows(1252)),
    entry("Latin1_General_100_CI_AS_SC", 0x0409, 0, Windows(1252)),
    entry("Latin1_General_100_CI_AS_SC_UTF8", 0x0409, 0, Utf8),
    entry("Latin1_General_100_BIN2_UTF8", 0x0409, 0, Utf8),
    entry("Modern_Spanish_CI_AS", 0x0C0A, 0, Windows(1252)),
    entry("French_CI_AS", 0x040C, 0, Windows(1252)),
    entry("German_PhoneBook_CI_AS", 0x0407, 0, Windows(1252)),
    entry("Finnish_Swedish_CI_AS", 0x040B, 0, Windows(1252)),
    entry("Danish_Norwegian_CI_AS", 0x0406, 0, Windows(1252)),
    entry("Polish_CI_AS", 0x0415, 0, Windows(1250)),
    entry("Czech_CI_AS", 0x0405, 0, Windows(1250)),
    entry("Hungarian_CI_AS", 0x040E, 0, Windows(1250)),
    entry("Cyrillic_General_CI_AS", 0x0419, 0, Windows(1251)),
    entry("Greek_CI_AS", 0x0408, 0, Windows(1253)),
    entry("Turkish_CI_AS", 0x041F, 0, Windows(1254)),
    entry("Hebrew_CI_AS", 0x040D, 0, Windows(1255)),
    entry("Arabic_CI_AS", 0x0401, 0, Windows(1256)),
    entry("Lithuanian_CI_AS", 0x0427, 0, Windows(1257)),
    entry("Vietnamese_CI_AS", 0x042A, 0, Windows(1258)),
    entry("Thai_CI_AS", 0x041E, 0, Windows(874)),
    entry("Japanese_CI_AS", 0x0411, 0, Windows(932)),
    entry("Chinese_PRC_CI_AS", 0x0804, 0, Windows(936)),
    entry("Korean_Wansung_CI_AS", 0x0412, 0, Windows(949)),
    entry("Chinese_Taiwan_Stroke_CI_AS", 0x0404, 0, Windows(950)),
];

/// One collation of the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Collation(u16);

impl Collation {
    /// `SQL_Latin1_General_CP1_CI_AS`, what a server in the United States is installed with.
    pub const DEFAULT: Self = Self(0);

    /// Finds a collation by name.
    pub fn named(name: &str) -> Option<Self> {
        let at = TABLE.iter().position(|e| e.name.eq_ignore_ascii_case(name))?;
        u16::try_from(at).ok().map(Self)
    }

    /// All collations.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..TABLE.len()).filter_map(|i| u16::try_from(i).ok()).map(Self)
    }

    /// Number in the table.
    pub fn index(self) -> u16 {
        self.0
    }

    /// By number; the default if there is none.
    pub fn from_index(index: u16) -> Self {
        if usize::from(index) < TABLE.len() { Self(index) } else { Self::DEFAULT }
    }

    fn entry(self) -> &'static Entry {
        &TABLE[usize::from(self.0)]
    }

    /// Name.
    pub fn name(self) -> &'static str {
        self.entry().name
    }

    /// Code page of its `varchar`s.
    pub fn page(self) -> CodePage {
        self.entry().page
    }

    fn has(self, part: &str) -> bool {
        self.name().split('_').any(|p| p == part)
    }

    fn binary(self) -> bool {
        self.has("BIN") || self.has("BIN2")
    }

    fn ignores_case(self) -> bool {
        self.has("CI")
    }

    /// The five bytes of "[MS-TDS] Collation Rule Definition": LCID (20 bits), flags (8), version (4), sort id (8).
    pub fn wire(self) -> [u8; 5] {
        let e = self.entry();
        let mut flags = 0u32;
        for (bit, on) in [
            (0, self.ignores_case()),
            (1, self.has("AI")),
            (2, !self.binary()),
            (3, !self.binary()),
            (4, self.has("BIN")),
            (5, self.has("BIN2")),
            (6, e.page == Utf8),
        ] {
            flags |= u32::from(on) << bit;
        }
        let version = if self.has("100") { 2u32 } else { 0 };
        let word = e.lcid | flags << 20 | version << 28;
        let b = word.to_le_bytes();
        [b[0], b[1], b[2], b[3], e.sort_id]
    }

    /// From the five bytes of a parameter; the default if the simulator does not know them.
    pub fn from_wire(bytes: [u8; 5]) -> Self {
        Self::all().find(|c| c.wire() == bytes).unwrap_or(Self::DEFAULT)
    }

    /// Compares as the server does; blanks at the end do not count ("Trailing spaces" of `=`).
    pub fn compare(self, a: &str, b: &str) -> Ordering {
        let (a, b) = (a.trim_end_matches(' '), b.trim_end_matches(' '));
        if self.binary() {
            return a.encode_utf16().cmp(b.encode_utf16());
        }
        let primary = a.chars().map(|c| weight(c).0).cmp(b.chars().map(|c| weight(c).0));
        if primary != Ordering::Equal {
            return primary;
        }
        if !self.has("AI") {
            let accents = a.chars().map(|c| weight(c).1).cmp(b.chars().map(|c| weight(c).1));
            if accents != Ordering::Equal {
                return accents;
            }
        }
        if self.ignores_case() {
            return Ordering::Equal;
        }
        a.chars().map(char::is_uppercase).cmp(b.chars().map(char::is_uppercase))
    }

    /// Equality of single characters under the collation, for `LIKE`.
    pub fn same(self, a: char, b: char) -> bool {
        let mut one = [0; 4];
        let mut two = [0; 4];
        a == b
            || (a != ' '
                && b != ' '
                && self.compare(a.encode_utf8(&mut one), b.encode_utf8(&mut two)) == Ordering::Equal)
    }

    /// Bytes of a `varchar`; characters the code page lacks become `?`.
    pub fn encode(self, text: &str) -> Vec<u8> {
        match self.page() {
            Utf8 => text.as_bytes().to_vec(),
            Dos(page) => text.chars().map(|c| dos_byte(page, c).unwrap_or(b'?')).collect(),
            Windows(page) => {
                let encoding = windows(page);
                let mut out = Vec::with_capacity(text.len());
                for c in text.chars() {
                    let mut buffer = [0; 4];
                    let (bytes, _, failed) = encoding.encode(c.encode_utf8(&mut buffer));
                    if failed { out.push(b'?') } else { out.extend_from_slice(&bytes) }
                }
                out
            }
        }
    }

    /// Characters of a `varchar`.
    pub fn decode(self, bytes: &[u8]) -> String {
        match self.page() {
            Utf8 => String::from_utf8_lossy(bytes).into_owned(),
            Dos(page) => bytes.iter().map(|b| dos_char(page, *b)).collect(),
            Windows(page) => windows(page).decode_without_bom_handling(bytes).0.into_owned(),
        }
    }

    /// What is left of a text when it is stored in a `varchar` of this collation.
    pub fn through_page(self, text: &str) -> String {
        if text.is_ascii() || self.page() == Utf8 { text.to_owned() } else { self.decode(&self.encode(text)) }
    }
}

/// (class and base letter, accent): the first two levels of a linguistic comparison.
fn weight(c: char) -> ((u8, char), char) {
    let lower = c.to_lowercase().next().unwrap_or(c);
    if c.is_alphabetic() {
        let base = base_letter(lower);
        return ((3, base), if base == lower { '\0' } else { lower });
    }
    let class = if c.is_numeric() { 2 } else { u8::from(!c.is_whitespace()) };
    ((class, lower), '\0')
}

fn base_letter(c: char) -> char {
    match c {
        'à'..='å' | 'ā' | 'ă' | 'ą' => 'a',
        'ç' | 'ć' | 'č' => 'c',
        'ď' => 'd',
        'è'..='ë' | 'ē' | 'ę' | 'ě' => 'e',
        'ì'..='ï' | 'ī' => 'i',
        'ñ' | 'ń' | 'ň' => 'n',
        'ò'..='ö' | 'ō' | 'ő' => 'o',
        'ř' => 'r',
        'ś' | 'š' | 'ş' => 's',
        'ť' => 't',
        'ù'..='ü' | 'ū' | 'ů' | 'ű' => 'u',
        'ý' | 'ÿ' => 'y',
        'ź' | 'ż' | 'ž' => 'z',
        other => other,
    }
}

fn windows(page: u16) -> &'static Encoding {
    use encoding_rs as e;
    match page {
        1250 => e::WINDOWS_1250,
        1251 => e::WINDOWS_1251,
        1253 => e::WINDOWS_1253,
        1254 => e::WINDOWS_1254,
        1255 => e::WINDOWS_1255,
        1256 => e::WINDOWS_1256,
        1257 => e::WINDOWS_1257,
        1258 => e::WINDOWS_1258,
        874 => e::WINDOWS_874,
        932 => e::SHIFT_JIS,
        936 => e::GBK,
        949 => e::EUC_KR,
        950 => e::BIG5,
        _ => e::WINDOWS_1252,
    }
}

/// The upper halves of the two DOS code pages, from 0x80.
const CP437: &str = "ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒáíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐└┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■\u{a0}";
const CP850: &str = "ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜø£Ø×ƒáíóúñÑªº¿®¬½¼¡«»░▒▓│┤ÁÂÀ©╣║╗╝¢¥┐└┴┬├─┼ãÃ╚╔╩╦╠═╬¤ðÐÊËÈıÍÎÏ┘┌█▄¦Ì▀ÓßÔÒõÕµþÞÚÛÙýÝ¯´\u{ad}±‗¾¶§÷¸°¨·¹³²■\u{a0}";

fn upper_half(page: u16) -> &'static str {
    if page == 437 { CP437 } else { CP850 }
}

fn dos_char(page: u16, b: u8) -> char {
    if b < 0x80 { char::from(b) } else { upper_half(page).chars().nth(usize::from(b) - 0x80).unwrap_or('?') }
}

fn dos_byte(page: u16, c: char) -> Option<u8> {
    if c.is_ascii() {
        return u8::try_from(c).ok();
    }
    upper_half(page).chars().position(|x| x == c).and_then(|i| u8::try_from(i + 0x80).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wire_form_of_the_usual_collation() {
        // The bytes any capture of a default installation shows.
        assert_eq!(Collation::DEFAULT.wire(), [0x09, 0x04, 0xD0, 0x00, 0x34]);
        for c in Collation::all() {
            assert_eq!(c.wire(), Collation::from_wire(c.wire()).wire());
        }
    }

    #[test]
    fn order_is_not_byte_order() {
        let c = Collation::DEFAULT;
        assert_eq!(c.compare("a", "A  "), Ordering::Equal);
        assert_eq!(c.compare("b", "A"), Ordering::Greater);
        assert_eq!(c.compare("é", "f"), Ordering::Less);
        assert_eq!(c.compare("é", "e"), Ordering::Greater);
        assert_eq!(c.compare("_", "0"), Ordering::Less);
        let bin = Collation::named("Latin1_General_BIN2").unwrap();
        assert_eq!(bin.compare("b", "A"), Ordering::Greater);
        assert_eq!(bin.compare("a", "B"), Ordering::Greater);
    }

    #[test]
    fn code_pages() {
        assert_eq!(Collation::DEFAULT.encode("é€ж"), [0xE9, 0x80, b'?']);
        let c = Collation::named("SQL_Latin1_General_CP850_CI_AS").unwrap();
        assert_eq!(c.encode("é"), [0x82]);
        assert_eq!(c.decode(&[0x82, 0xFF]), "é\u{a0}");
        assert_eq!(CP437.chars().count(), 128);
        assert_eq!(CP850.chars().count(), 128);
        assert_eq!(Collation::named("Cyrillic_General_CI_AS").unwrap().through_page("жé"), "жe".replace('e', "?"));
    }
}
