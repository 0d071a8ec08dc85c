//! Tokens: "Transact-SQL syntax conventions", "Database identifiers", "Constants (Transact-SQL)".

use crate::error::{Result, SqlError};
use crate::types::format::unhex;

/// What a token is.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// A word without quotes: keyword or identifier; `@x` and `@@x` too.
    Word(String),
    /// `[x]` or `"x"` (QUOTED_IDENTIFIER is always on).
    Quoted(String),
    /// `'x'` (false) or `N'x'` (true).
    Str(String, bool),
    /// `0x…`
    Hex(Vec<u8>),
    /// A number as written.
    Number(String),
    /// An operator or punctuation.
    Op(&'static str),
    /// The end.
    End,
}

/// A token and where it begins and ends, in bytes.
#[derive(Clone, Debug)]
pub struct Token {
    /// What it is.
    pub kind: Kind,
    /// First byte.
    pub start: usize,
    /// Behind the last byte.
    pub end: usize,
}

const OPERATORS: [&str; 34] = [
    "<>", "!=", "<=", ">=", "!<", "!>", "::", "||", "+=", "-=", "*=", "/=", "%%", "(", ")", ",", ";", ".", "=", "<",
    ">", "+", "-", "*", "/", "%", "&", "|", "^", "~", ":", "{", "}", "?",
];

/// Splits a batch into tokens, the last of which is [`Kind::End`].
pub fn lex(text: &str) -> Result<Vec<Token>> {
    let b = text.as_bytes();
    let mut at = 0;
    let mut out = Vec::new();
    while at < b.len() {
        let start = at;
        let c = text[at..].chars().next().unwrap_or(' ');
        let kind = match c {
            _ if c.is_whitespace() || c == '\u{feff}' => {
                at += c.len_utf8();
                continue;
            }
            '-' if b.get(at + 1) == Some(&b'-') => {
                at = text[at..].find('\n').map_or(b.len(), |n| at + n);
                continue;
            }
            '/' if b.get(at + 1) == Some(&b'*') => {
                at = comment(text, at)?;
                continue;
            }
            '\'' => Kind::Str(quoted(text, &mut at, '\'')?, false),
            'N' | 'n' if b.get(at + 1) == Some(&b'\'') => {
                at += 1;
                Kind::Str(quoted(text, &mut at, '\'')?, true)
            }
            '[' => Kind::Quoted(quoted(text, &mut at, ']')?),
            '"' => Kind::Quoted(quoted(text, &mut at, '"')?),
            '0' if matches!(b.get(at + 1), Some(b'x' | b'X')) => {
                let digits: usize = b[at + 2..].iter().take_while(|b| b.is_ascii_hexdigit()).count();
                at += 2 + digits;
                let hex = &text[start + 2..at];
                // An odd number of digits has a zero in front.
                let hex = if digits % 2 == 1 { format!("0{hex}") } else { hex.to_owned() };
                Kind::Hex(unhex(&hex).unwrap_or_default())
            }
            _ if c.is_ascii_digit() || (c == '.' && b.get(at + 1).is_some_and(u8::is_ascii_digit)) => {
                number(b, &mut at);
                Kind::Number(text[start..at].to_owned())
            }
            _ if c.is_alphabetic() || matches!(c, '_' | '@' | '#') => {
                at += text[at..]
                    .chars()
                    .take_while(|c| c.is_alphanumeric() || matches!(c, '_' | '@' | '#' | '$'))
                    .map(char::len_utf8)
                    .sum::<usize>();
                Kind::Word(text[start..at].to_owned())
            }
            _ => match OPERATORS.iter().find(|op| text[at..].starts_with(**op)) {
                Some(op) => {
                    at += op.len();
                    Kind::Op(op)
                }
                None => return Err(SqlError::syntax(&c.to_string())),
            },
        };
        out.push(Token { kind, start, end: at });
    }
    out.push(Token { kind: Kind::End, start: b.len(), end: b.len() });
    Ok(out)
}

/// Comments nest: "Slash Star (Block Comment)".
fn comment(text: &str, mut at: usize) -> Result<usize> {
    let mut depth = 0;
    loop {
        let rest = &text[at..];
        if rest.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return Ok(at);
            }
        } else {
            match rest.chars().next() {
                Some(c) => at += c.len_utf8(),
                None => return Err(SqlError::new(113, 15, 1, "Missing end comment mark '*/'.")),
            }
        }
    }
}

fn quoted(text: &str, at: &mut usize, close: char) -> Result<String> {
    let mut out = String::new();
    let mut chars = text[*at + 1..].char_indices().peekable();
    while let Some((i, c)) = chars.next() {
        if c != close {
            out.push(c);
        } else if chars.peek().is_some_and(|(_, next)| *next == close) {
            out.push(c);
            chars.next();
        } else {
            *at += 1 + i + c.len_utf8();
            return Ok(out);
        }
    }
    let shown: String = out.chars().take(20).collect();
    Err(SqlError::new(105, 15, 1, format!("Unclosed quotation mark after the character string '{shown}'.")))
}

fn number(b: &[u8], at: &mut usize) {
    let digits = |at: &mut usize| {
        while b.get(*at).is_some_and(u8::is_ascii_digit) {
            *at += 1;
        }
    };
    digits(at);
    if b.get(*at) == Some(&b'.') {
        *at += 1;
        digits(at);
    }
    if matches!(b.get(*at), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(b.get(*at + 1), Some(b'+' | b'-')));
        if b.get(*at + 1 + sign).is_some_and(u8::is_ascii_digit) {
            *at += 1 + sign;
            digits(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(text: &str) -> Vec<Kind> {
        let mut v: Vec<_> = lex(text).unwrap().into_iter().map(|t| t.kind).collect();
        v.pop();
        v
    }

    #[test]
    fn tokens() {
        assert_eq!(
            kinds("SELECT [a]]b], N'it''s', 0x1 /* x /* y */ */ -- z\n, @p <> 1.5e-3"),
            [
                Kind::Word("SELECT".into()),
                Kind::Quoted("a]b".into()),
                Kind::Op(","),
                Kind::Str("it's".into(), true),
                Kind::Op(","),
                Kind::Hex(vec![1]),
                Kind::Op(","),
                Kind::Word("@p".into()),
                Kind::Op("<>"),
                Kind::Number("1.5e-3".into()),
            ]
        );
        assert_eq!(lex("'abc").unwrap_err().number, 105);
        assert_eq!(lex("/* abc").unwrap_err().number, 113);
    }
}
