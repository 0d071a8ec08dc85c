//! What the values of a column look like. Only counts and formats are kept, no values.

use tidemark_contract::Value;

/// What a column's values in the rows looked at have in common.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Look {
    /// Rows looked at.
    pub rows: usize,
    /// Rows in which it is null.
    pub nulls: usize,
    /// Text values.
    pub texts: usize,
    /// Of these, in each format.
    pub formats: [usize; FORMATS.len()],
    /// Text values with blanks at an end.
    pub padded: usize,
    /// Whole numbers that are neither 0 nor 1.
    pub beyond_bit: usize,
    /// Whole numbers.
    pub integers: usize,
}

/// A format that texts can have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// `a@b.c`.
    Email,
    /// `http…` or `www.…`.
    Url,
    /// Digits, blanks and `+-()./`.
    Phone,
    /// `YYYY-MM-DD`.
    Date,
    /// A name or code of a country.
    Country,
}

/// A format, its word, and whether a text has it.
type Test = (Format, &'static str, fn(&str) -> bool);

/// All formats.
pub const FORMATS: [Test; 5] = [
    (Format::Email, "e-mail addresses", is_email),
    (Format::Url, "web addresses", |s| s.starts_with("http://") || s.starts_with("https://") || s.starts_with("www.")),
    (Format::Date, "dates", |s| s.len() == 10 && s.parse::<jiff::civil::Date>().is_ok()),
    (Format::Phone, "phone numbers", is_phone),
    (Format::Country, "countries", |s| COUNTRIES.iter().any(|c| c.eq_ignore_ascii_case(s))),
];

const COUNTRIES: &[&str] = &[
    "Argentina",
    "Australia",
    "Austria",
    "Belgium",
    "Brazil",
    "Bulgaria",
    "Canada",
    "Chile",
    "China",
    "Croatia",
    "Czech Republic",
    "Denmark",
    "Egypt",
    "Finland",
    "France",
    "Germany",
    "Greece",
    "Hungary",
    "India",
    "Indonesia",
    "Ireland",
    "Israel",
    "Italy",
    "Japan",
    "Mexico",
    "Netherlands",
    "New Zealand",
    "Norway",
    "Poland",
    "Portugal",
    "Romania",
    "Russia",
    "Singapore",
    "South Africa",
    "South Korea",
    "Spain",
    "Sweden",
    "Switzerland",
    "Thailand",
    "Turkey",
    "UK",
    "Ukraine",
    "United Kingdom",
    "United States",
    "USA",
    "Venezuela",
    "Vietnam",
    "DE",
    "US",
    "FR",
    "GB",
    "AT",
    "CH",
    "IT",
    "ES",
    "NL",
    "PL",
];

fn is_email(s: &str) -> bool {
    let Some((name, host)) = s.split_once('@') else { return false };
    !name.is_empty() && host.contains('.') && !s.contains(char::is_whitespace) && !host.contains('@')
}

fn is_phone(s: &str) -> bool {
    let digits = s.bytes().filter(u8::is_ascii_digit).count();
    (6..=15).contains(&digits) && s.bytes().all(|b| b.is_ascii_digit() || b" +-()./".contains(&b)) && s.len() <= 24
}

impl Look {
    /// Looks at one more value.
    pub fn add(&mut self, value: Value<'_>) {
        self.rows += 1;
        match value {
            Value::Null => self.nulls += 1,
            Value::Int(n) => {
                self.integers += 1;
                self.beyond_bit += usize::from(n != 0 && n != 1);
            }
            Value::Text(text) => {
                let bare = text.trim();
                self.padded += usize::from(bare.len() != text.len());
                if bare.is_empty() {
                    return;
                }
                self.texts += 1;
                for (count, (_, _, is)) in self.formats.iter_mut().zip(FORMATS) {
                    *count += usize::from(is(bare));
                }
            }
            _ => {}
        }
    }

    /// The format that nearly all texts have, if there are a few.
    pub fn format(&self) -> Option<(Format, &'static str)> {
        let most = |count: usize| self.texts >= 3 && count * 10 >= self.texts * 8;
        let found = self.formats.iter().zip(FORMATS).find(|(count, _)| most(**count));
        found.map(|(_, (format, word, _))| (format, word))
    }

    /// Whether all whole numbers seen are 0 or 1.
    pub fn is_bit(&self) -> bool {
        self.integers > 0 && self.beyond_bit == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(values: &[&str]) -> Look {
        let mut look = Look::default();
        values.iter().for_each(|v| look.add(Value::Text(v)));
        look
    }

    #[test]
    fn formats_are_told_by_most_of_the_values() {
        let format = |values: &[&str]| look(values).format().map(|(format, _)| format);
        assert_eq!(format(&["a@b.de", "c.d@e.com", "x@y.org"]), Some(Format::Email));
        assert_eq!(format(&["(171) 555-7788", "030-0074321", "+49 711 020361", ""]), Some(Format::Phone));
        assert_eq!(format(&["2024-01-31", "1999-12-01", "2000-02-29"]), Some(Format::Date));
        assert_eq!(format(&["Germany", "UK", "Brazil"]), Some(Format::Country));
        assert_eq!(format(&["https://a.b", "www.c.d", "http://e"]), Some(Format::Url));
        assert_eq!(format(&["a@b.de", "no", "nor this"]), None);
        assert_eq!(format(&["a@b.de"]), None, "one says nothing");
        assert!(look(&["ALFKI ", "X"]).padded == 1);
    }
}
