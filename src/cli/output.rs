//! Writing to stdout and stderr.

use super::terminal::{Look, Tone};
use crate::error::{DaemonKind, Error, Result};
use serde::Serialize;
use std::io::{IsTerminal, Write};

/// Writes data to stdout. A reader that has gone away (`| head`) is no error.
///
/// # Errors
/// If stdout cannot be written to.
pub fn data(text: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(failed("write to stdout")(e)),
        _ => Ok(()),
    }
}

/// Writes a value as JSON to stdout, for people's eyes too.
///
/// # Errors
/// If stdout cannot be written to.
pub fn json<T: Serialize + ?Sized>(value: &T) -> Result<()> {
    let text = serde_json::to_string_pretty(value).map_err(|e| Error::new(DaemonKind::Bug, e.to_string()))?;
    data(&format!("{text}\n"))
}

/// Tells something beside the data, on stderr.
pub fn talk(text: &str) {
    // Nobody is left to be told that stderr is gone.
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// A hint beside the data, on stderr.
pub fn hint(text: &str) {
    talk(&format!("{} {text}", Look::stderr().paint(Tone::Accent, "hint:")));
}

/// An error of the operating system while doing `what`.
pub fn failed(what: &str) -> impl FnOnce(std::io::Error) -> Error {
    let message = format!("cannot {what}");
    move |error| Error::new(DaemonKind::Failed, message).caused_by(error)
}

/// An error with its causes and hints, on stderr. Control characters in a message (a server's answer may hold anything)
/// do not reach the terminal.
pub fn error(error: &Error) {
    talk(harmless(&error.report(Look::stderr().colour)).trim_end());
}

/// `text` with its line breaks and colours, and every other control character escaped.
fn harmless(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(|c: char| c.is_control() && c != '\n') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let colour = rest.strip_prefix("\x1b[").and_then(|tail| {
            let end = tail.find(|c: char| !c.is_ascii_digit() && c != ';')?;
            tail[end..].starts_with('m').then_some(end + 3)
        });
        let len = colour.unwrap_or_else(|| rest.chars().next().map_or(1, char::len_utf8));
        if colour.is_some() {
            out.push_str(&rest[..len])
        } else {
            out.extend(rest[..len].chars().flat_map(char::escape_default))
        }
        rest = &rest[len..];
    }
    out + rest
}

/// Asks before something that cannot be taken back. `--yes` answers for it; without a terminal and without `--yes` it
/// is refused.
///
/// # Errors
/// If the answer is no (1) or cannot be had (2, as any other missing argument).
pub fn confirm(question: &str, yes: bool) -> Result<()> {
    if yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        return Err(Error::new(DaemonKind::Usage, "not done: there is nobody to ask").hint("add --yes"));
    }
    let _ = write!(std::io::stderr().lock(), "{question} [y/N] ");
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).map_err(failed("read the answer"))?;
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(Error::new(DaemonKind::Failed, "not done")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_pass_and_everything_else_that_acts_on_a_terminal_does_not() {
        let text = "\x1b[1;31merror\x1b[0m: a\nb \x1b[2J \x1b]0;title\x07 \u{9b}5m é\r";
        let expected = "\x1b[1;31merror\x1b[0m: a\nb \\u{1b}[2J \\u{1b}]0;title\\u{7} \\u{9b}5m é\\r";
        assert_eq!(harmless(text), expected);
    }
}
