//! `regexp_replace`, compiled once and matched in linear time.

use super::text::MAX_TEXT;
use super::value::{Fault, fault};
use regex::Regex;

/// Compiles a pattern; the only flag is `i`.
pub(crate) fn pattern(pattern: &str, flags: &str) -> Result<Regex, String> {
    if let Some(flag) = flags.chars().find(|flag| *flag != 'i') {
        return Err(format!("the flag `{flag}` is not supported (supported: i)"));
    }
    let mut builder = regex::RegexBuilder::new(pattern);
    // Bounds what a pattern may cost; matching itself is linear.
    builder.size_limit(1 << 20).dot_matches_new_line(true).case_insensitive(!flags.is_empty());
    builder.build().map_err(|e| match e {
        regex::Error::Syntax(text) => text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned(),
        _ => "the pattern is too large".to_owned(),
    })
}

/// A compiled `regexp_replace`.
#[derive(Clone, Debug)]
pub(crate) struct RegexReplace {
    regex: Regex,
    /// Literal text and group numbers, in order.
    replacement: Vec<(String, Option<usize>)>,
    global: bool,
}

impl RegexReplace {
    /// Reads a pattern, a replacement with `\1` and `\&`, and the flags `g` and `i`.
    pub(crate) fn parse(pattern: &str, replacement: &str, flags: &str) -> Result<RegexReplace, String> {
        if let Some(flag) = flags.chars().find(|flag| !matches!(flag, 'g' | 'i')) {
            return Err(format!("the flag `{flag}` is not supported (supported: g, i)"));
        }
        let global = flags.contains('g');
        let regex = self::pattern(pattern, &flags.replace('g', ""))?;
        let mut parts = vec![(String::new(), None)];
        let mut chars = replacement.chars();
        while let Some(c) = chars.next() {
            let group = match c {
                '\\' => match chars.next() {
                    Some('&') => Some(0),
                    Some(d @ '1'..='9') => Some(d as usize - '0' as usize),
                    Some(other) => {
                        if let Some(last) = parts.last_mut() {
                            last.0.push(other);
                        }
                        continue;
                    }
                    None => None,
                },
                _ => {
                    if let Some(last) = parts.last_mut() {
                        last.0.push(c);
                    }
                    continue;
                }
            };
            if let Some(last) = parts.last_mut() {
                last.1 = group;
            }
            parts.push((String::new(), None));
        }
        Ok(RegexReplace { regex, replacement: parts, global })
    }

    /// The text with matches replaced.
    pub(crate) fn apply(&self, text: &str) -> Result<Option<String>, Fault> {
        let mut out = String::new();
        let mut from = 0;
        for found in self.regex.captures_iter(text).take(if self.global { usize::MAX } else { 1 }) {
            let Some(whole) = found.get(0) else { break };
            out.push_str(&text[from..whole.start()]);
            for (literal, group) in &self.replacement {
                out.push_str(literal);
                out.push_str(group.and_then(|n| found.get(n)).map_or("", |m| m.as_str()));
            }
            from = whole.end();
            if out.len() > MAX_TEXT {
                return fault("text_too_long", "the result is longer than any text may be here");
            }
        }
        if from == 0 && out.is_empty() {
            return Ok(None);
        }
        out.push_str(&text[from..]);
        Ok(Some(out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replacements_refer_to_groups() {
        let run = |p, r, f, s: &str| {
            RegexReplace::parse(p, r, f).expect("a pattern").apply(s).expect("short").unwrap_or(s.into())
        };
        assert_eq!(run("[^0-9]+", "", "g", "030-00 74"), "0300074");
        assert_eq!(run("(\\w+) (\\w+)", "\\2 \\1", "", "Maria Anders x"), "Anders Maria x");
        assert_eq!(run("b", "<\\&>", "", "abb"), "a<b>b");
        assert_eq!(run("B", "", "i", "abb"), "ab");
        assert!(RegexReplace::parse("(", "", "").is_err());
        assert!(RegexReplace::parse("a", "", "x").is_err());
    }
}
