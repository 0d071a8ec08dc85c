//! Telephone numbers, e-mail addresses and countries as CRMs want them. What is none becomes null: vendors' tables are
//! full of "see notes", and the pack says with `coalesce` what is sent instead.

use crate::mapping::expr::text::take;
use crate::mapping::expr::value::{Fault, Val};
use email_address::{EmailAddress, Options};
use phonenumber::country::Id;

/// Longer texts are no telephone numbers.
const MAX_PHONE: usize = 60;

/// `phone_e164(x [, region])`
pub(super) fn phone_e164<'a>(args: &mut [Val<'a>]) -> Result<Val<'a>, Fault> {
    let text = take(args, 0)?;
    let region = if args.len() > 1 { Some(take(args, 1)?) } else { None };
    let region = region.and_then(|r| r.trim().to_ascii_uppercase().parse::<Id>().ok());
    Ok(phone(&text, region).map_or(Val::Null, Val::string))
}

fn phone(text: &str, region: Option<Id>) -> Option<String> {
    let text = text.trim();
    let digits = text.bytes().filter(u8::is_ascii_digit).count();
    if text.len() > MAX_PHONE || !(4..=20).contains(&digits) {
        return None;
    }
    let number = phonenumber::parse(region, text).ok()?;
    let valid = phonenumber::is_valid(&number);
    valid.then(|| number.format().mode(phonenumber::Mode::E164).to_string())
}

/// `email_address(x)`
pub(super) fn email<'a>(args: &mut [Val<'a>]) -> Result<Val<'a>, Fault> {
    let text = take(args, 0)?;
    let bare = text.trim();
    let bare = bare.strip_prefix("mailto:").unwrap_or(bare);
    let options = Options::default().without_display_text().without_domain_literal().with_required_tld();
    Ok(match EmailAddress::parse_with_options(bare, options) {
        Ok(address) => Val::string(address.as_str().to_lowercase()),
        Err(_) => Val::Null,
    })
}

/// Names that the standard does not know, as letters alone.
const COUNTRIES: &[(&str, &str)] = &[
    ("america", "US"),
    ("bolivia", "BO"),
    ("bosnia", "BA"),
    ("britain", "GB"),
    ("brunei", "BN"),
    ("burma", "MM"),
    ("capeverde", "CV"),
    ("congo", "CG"),
    ("czechrepublic", "CZ"),
    ("drcongo", "CD"),
    ("england", "GB"),
    ("greatbritain", "GB"),
    ("holland", "NL"),
    ("iran", "IR"),
    ("ivorycoast", "CI"),
    ("korea", "KR"),
    ("laos", "LA"),
    ("macedonia", "MK"),
    ("micronesia", "FM"),
    ("moldova", "MD"),
    ("northernireland", "GB"),
    ("northkorea", "KP"),
    ("palestine", "PS"),
    ("republicofireland", "IE"),
    ("russia", "RU"),
    ("scotland", "GB"),
    ("southkorea", "KR"),
    ("swaziland", "SZ"),
    ("syria", "SY"),
    ("taiwan", "TW"),
    ("tanzania", "TZ"),
    ("turkey", "TR"),
    ("uae", "AE"),
    ("uk", "GB"),
    ("unitedkingdom", "GB"),
    ("unitedstates", "US"),
    ("vatican", "VA"),
    ("venezuela", "VE"),
    ("vietnam", "VN"),
    ("wales", "GB"),
];

/// `country_code(x)`
pub(super) fn country<'a>(args: &mut [Val<'a>]) -> Result<Val<'a>, Fault> {
    let text = take(args, 0)?;
    Ok(code(&text).map_or(Val::Null, Val::text))
}

fn code(text: &str) -> Option<&'static str> {
    let named = |wanted: &str| {
        let found = names().binary_search_by(|(name, _)| name.as_str().cmp(wanted)).ok()?;
        names().get(found).map(|(_, code)| *code)
    };
    if let Some(code) = named(&whole(text)) {
        return Some(code);
    }
    let letters = letters(text);
    if let Ok(index) = COUNTRIES.binary_search_by(|(name, _)| (*name).cmp(&letters)) {
        return COUNTRIES.get(index).map(|(_, code)| *code);
    }
    let upper = letters.to_uppercase();
    let found = match upper.len() {
        2 => rust_iso3166::from_alpha2(&upper),
        3 => rust_iso3166::from_alpha3(&upper),
        _ => None,
    };
    found.map(|country| country.alpha2).or_else(|| named(&letters))
}

/// The standard's short names, as letters alone, without what stands in brackets.
fn names() -> &'static [(String, &'static str)] {
    static NAMES: std::sync::LazyLock<Vec<(String, &'static str)>> = std::sync::LazyLock::new(|| {
        let mut names: Vec<_> =
            rust_iso3166::ALL.iter().flat_map(|c| [(letters(c.name), c.alpha2), (whole(c.name), c.alpha2)]).collect();
        names.sort_unstable();
        names.dedup();
        // A name that means two countries without its brackets (Korea) means neither.
        let twice = |n: &String, all: &[(String, &str)]| all.iter().filter(|(other, _)| other == n).count() > 1;
        let all = names.clone();
        names.retain(|(name, _)| !twice(name, &all));
        names
    });
    &NAMES
}

fn letters(name: &str) -> String {
    whole(name.split('(').next().unwrap_or_default())
}

fn whole(name: &str) -> String {
    let lower: String = name.chars().filter(|c| c.is_alphabetic()).flat_map(char::to_lowercase).map(plain).collect();
    lower.strip_prefix("the").filter(|rest| rest.len() > 3).map_or(lower.clone(), str::to_owned)
}

/// Without the marks of the names in the standard.
fn plain(c: char) -> char {
    match c {
        'å' => 'a',
        'ç' => 'c',
        'é' => 'e',
        'ô' => 'o',
        'ü' => 'u',
        c => c,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn countries_are_known_by_code_and_by_name() {
        for (text, wanted) in [
            ("Germany", Some("DE")),
            (" germany ", Some("DE")),
            ("DE", Some("DE")),
            ("deu", Some("DE")),
            ("UK", Some("GB")),
            ("U.S.A.", Some("US")),
            ("United States of America", Some("US")),
            ("The Netherlands", Some("NL")),
            ("Venezuela", Some("VE")),
            ("Viet Nam", Some("VN")),
            ("Côte d'Ivoire", Some("CI")),
            ("South Korea", Some("KR")),
            ("Samoa", Some("WS")),
            ("Niger", Some("NE")),
            ("Nigeria", Some("NG")),
            ("Atlantis", None),
            ("", None),
            ("XX", None),
        ] {
            assert_eq!(code(text), wanted, "{text}");
        }
        assert!(COUNTRIES.is_sorted());
        for country in rust_iso3166::ALL {
            assert_eq!(code(country.alpha2), Some(country.alpha2));
            assert_eq!(code(country.alpha3), Some(country.alpha2));
            assert_eq!(code(country.name), Some(country.alpha2), "{}", country.name);
        }
        for (name, alpha2) in COUNTRIES {
            assert!(rust_iso3166::from_alpha2(alpha2).is_some(), "{name}");
        }
    }

    #[test]
    fn telephone_numbers_get_their_country() {
        let de = Some(Id::DE);
        assert_eq!(phone("030-0074321", de).as_deref(), Some("+49300074321"));
        assert_eq!(phone("+44 171 555 7788", de), None, "that area code is gone");
        assert_eq!(phone("+44 20 7946 0958", None).as_deref(), Some("+442079460958"));
        assert_eq!(phone("(425) 555-0100 x12", Some(Id::US)).as_deref(), Some("+14255550100"));
        assert_eq!(phone("206-555-0100", Some(Id::US)).as_deref(), Some("+12065550100"));
        assert_eq!(phone("206-555-0100", None), None);
        for none in ["", "see notes", "123", "+", "00000000000000000000000000"] {
            assert_eq!(phone(none, de), None, "{none}");
        }
    }

    proptest! {
        #[test]
        fn no_text_is_too_odd(s in "\\PC{0,40}", digits in "[+0-9() ;=a-z-]{0,30}") {
            for text in [&s, &digits] {
                let _ = phone(text, Some(Id::DE));
                let _ = phone(text, None);
                let _ = code(text);
                let _ = email(&mut [Val::text(text)]);
            }
        }
    }
}
