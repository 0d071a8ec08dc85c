//! How things look: colour, widths, numbers. Data goes to stdout, talk to stderr; both are readable without colour.

use std::fmt::Write as _;
use std::io::IsTerminal;

/// A colour, by meaning.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tone {
    /// Nothing special.
    Plain,
    /// Headings and names.
    Strong,
    /// What is there but matters less.
    Quiet,
    /// In order.
    Good,
    /// Works, with a cost or a risk.
    Warn,
    /// Not in order.
    Bad,
    /// Progress.
    Accent,
}

/// What the terminal (or the pipe) at the other end can show.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Look {
    /// Whether to colour.
    pub colour: bool,
    /// Whether bars may be drawn with block characters.
    pub unicode: bool,
    /// Columns.
    pub width: usize,
}

impl Look {
    /// Of stdout.
    pub fn stdout() -> Self {
        Self::of(&console::Term::stdout(), std::io::stdout().is_terminal())
    }

    /// Of stderr.
    pub fn stderr() -> Self {
        Self::of(&console::Term::stderr(), std::io::stderr().is_terminal())
    }

    /// For tests and for text that goes into files.
    pub fn plain() -> Self {
        Self { colour: false, unicode: true, width: 120 }
    }

    fn of(term: &console::Term, terminal: bool) -> Self {
        let set = |name: &str| std::env::var_os(name).is_some_and(|v| !v.is_empty());
        let locale =
            ["LC_ALL", "LC_CTYPE", "LANG"].iter().find_map(|n| std::env::var(n).ok().filter(|v| !v.is_empty()));
        // A locale that says nothing says nothing against UTF-8 either; the bare "C" of old does.
        let unicode = locale.is_none_or(|l| {
            let l = l.to_ascii_lowercase();
            l.contains("utf-8") || l.contains("utf8")
        });
        Self {
            colour: terminal && !set("NO_COLOR") && std::env::var("TERM").is_ok_and(|t| t != "dumb"),
            unicode,
            width: if terminal { usize::from(term.size().1).max(40) } else { 120 },
        }
    }

    /// `text` in a tone.
    pub fn paint(&self, tone: Tone, text: &str) -> String {
        let code = match tone {
            Tone::Plain => return text.into(),
            Tone::Strong => "1",
            Tone::Quiet => "2",
            Tone::Good => "32",
            Tone::Warn => "33",
            Tone::Bad => "1;31",
            Tone::Accent => "36",
        };
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.into() }
    }

    /// A bar of `width` columns, `ratio` of it full.
    pub fn bar(&self, ratio: f64, width: usize) -> String {
        let full = ((ratio.clamp(0.0, 1.0) * width as f64) as usize).min(width);
        let (on, off) = if self.unicode { ("█", "░") } else { ("#", ".") };
        let tone = if ratio >= 1.0 { Tone::Good } else { Tone::Accent };
        format!("{}{}", self.paint(tone, &on.repeat(full)), self.paint(Tone::Quiet, &off.repeat(width - full)))
    }
}

/// One cell of a [`Table`].
#[derive(Clone, Debug)]
pub struct Cell {
    text: String,
    tone: Tone,
    right: bool,
    /// Ready-made text with colours of its own, and how many columns it takes.
    drawn: Option<usize>,
}

/// Text, left-aligned.
pub fn left(text: impl Into<String>) -> Cell {
    Cell { text: text.into(), tone: Tone::Plain, right: false, drawn: None }
}

/// Text or a number, right-aligned.
pub fn right(text: impl Into<String>) -> Cell {
    Cell { right: true, ..left(text) }
}

/// Text that brings its own colours and takes `columns` columns.
pub fn drawn(text: impl Into<String>, columns: usize) -> Cell {
    Cell { drawn: Some(columns), ..left(text) }
}

impl Cell {
    /// In this tone.
    #[must_use]
    pub fn tone(mut self, tone: Tone) -> Self {
        self.tone = tone;
        self
    }

    fn columns(&self) -> usize {
        self.drawn.unwrap_or_else(|| console::measure_text_width(&self.text))
    }
}

/// Columns that line up, two blanks apart.
#[derive(Clone, Debug, Default)]
pub struct Table {
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// A table whose first row is a quiet heading. A heading that starts with `>` stands over right-aligned cells.
    pub fn new(headings: &[&str]) -> Self {
        let cell = |h: &&str| match h.strip_prefix('>') {
            Some(h) => right(h).tone(Tone::Quiet),
            None => left(*h).tone(Tone::Quiet),
        };
        Self { rows: vec![headings.iter().map(cell).collect()] }
    }

    /// A table without headings.
    pub fn bare() -> Self {
        Self::default()
    }

    /// Adds a row.
    pub fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Whether there is nothing below the headings.
    pub fn is_empty(&self) -> bool {
        self.rows.len() < 2
    }

    /// All lines, each with a newline; nothing beyond the look's width.
    pub fn render(&self, look: &Look) -> String {
        let count = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let widths: Vec<usize> =
            (0..count).map(|i| self.rows.iter().filter_map(|r| Some(r.get(i)?.columns())).max().unwrap_or(0)).collect();
        let mut out = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (index, cell) in row.iter().enumerate() {
                if index > 0 {
                    line.push_str("  ");
                }
                let gap = " ".repeat(widths[index].saturating_sub(cell.columns()));
                let text = if cell.drawn.is_some() { cell.text.clone() } else { look.paint(cell.tone, &cell.text) };
                let _ = if cell.right { write!(line, "{gap}{text}") } else { write!(line, "{text}{gap}") };
            }
            out.push_str(&fit(line.trim_end(), look));
            out.push('\n');
        }
        out
    }
}

/// `line` cut to the look's width, colours kept whole.
pub fn fit(line: &str, look: &Look) -> String {
    console::truncate_str(line, look.width, if look.unicode { "…" } else { "~" }).into_owned()
}

/// A count of things by their name: `1 record`, `2,000 records`.
pub fn things(n: u64, one: &str) -> String {
    format!("{} {one}{}", count(n), if n == 1 { "" } else { "s" })
}

/// `1234567` as `1,234,567`.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.char_indices() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A rate, without decimals where they say nothing.
pub fn rate(per_second: f64) -> String {
    if per_second > 0.0 && per_second < 10.0 { format!("{per_second:.1}") } else { count(per_second.round() as u64) }
}

/// Bytes in binary units.
pub fn bytes(n: u64) -> String {
    let mut value = n as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1024.0 {
            return if unit == "B" { format!("{n} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}

/// A time span with two units at most.
pub fn span(seconds: f64) -> String {
    let whole = seconds.max(0.0) as u64;
    match whole {
        0..10 => format!("{:.1} s", seconds.max(0.0)),
        10..60 => format!("{whole} s"),
        60..3600 => format!("{} min {} s", whole / 60, whole % 60),
        3600..86400 => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
        _ => format!("{} d {} h", whole / 86400, whole % 86400 / 3600),
    }
}

/// A picture that is drawn over itself, with lines above it that stay.
pub struct Redraw {
    term: console::Term,
    lines: usize,
}

impl Redraw {
    /// On this terminal.
    pub fn new(term: console::Term) -> Self {
        Self { term, lines: 0 }
    }

    /// Draws `picture` (lines, each with its line break) in the place of the last one. What does not fit on the screen
    /// is left out at the bottom: a line that has scrolled away could not be drawn over.
    ///
    /// # Errors
    /// If the terminal is gone.
    pub fn draw(&mut self, picture: &str) -> std::io::Result<()> {
        let height = usize::from(self.term.size().0).saturating_sub(1).max(5);
        let mut out = String::new();
        let mut lines = 0;
        for line in picture.lines().take(height) {
            // The rest of the line below it is cleared with it.
            out.push_str(line);
            out.push_str("\x1b[K\n");
            lines += 1;
        }
        // Up, draw, clear what the last picture had more: one write, so that nothing flickers.
        let up = if self.lines > 0 { format!("\x1b[{}A\r", self.lines) } else { String::new() };
        self.term.write_str(&format!("{up}{out}\x1b[J"))?;
        self.term.flush()?;
        self.lines = lines;
        Ok(())
    }

    /// Writes a line above the picture, which has to be drawn again afterwards.
    ///
    /// # Errors
    /// If the terminal is gone.
    pub fn line(&mut self, text: &str) -> std::io::Result<()> {
        let up = if self.lines > 0 { format!("\x1b[{}A\r\x1b[J", self.lines) } else { String::new() };
        self.lines = 0;
        self.term.write_str(&format!("{up}{text}\n"))?;
        self.term.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(rate(0.0), "0");
        assert_eq!(rate(2.345), "2.3");
        assert_eq!(rate(1234.5), "1,235");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(u64::MAX), "16777216.0 TiB");
        assert_eq!(span(0.04), "0.0 s");
        assert_eq!(span(75.0), "1 min 15 s");
        assert_eq!(span(90_000.0), "1 d 1 h");
    }

    #[test]
    fn columns_line_up_whatever_their_colours() {
        let look = Look { colour: true, ..Look::plain() };
        let mut table = Table::new(&["name", ">n"]);
        table.row([left("a").tone(Tone::Bad), right("1")]);
        table.row([left("größer"), right("1,000")]);
        let text = console::strip_ansi_codes(&table.render(&look)).into_owned();
        assert_eq!(text, "name        n\na           1\ngrößer  1,000\n");
    }

    #[test]
    fn a_line_never_runs_over_the_edge() {
        let narrow = Look { width: 10, ..Look::plain() };
        let mut table = Table::bare();
        table.row([left("a rather long cell"), left("and one more")]);
        assert_eq!(table.render(&narrow), "a rather …\n");
    }

    #[test]
    fn a_bar_is_full_only_at_the_end() {
        let look = Look::plain();
        assert_eq!(look.bar(0.999, 10), "█████████░");
        assert_eq!(look.bar(1.0, 4), "████");
        assert_eq!(Look { unicode: false, ..look }.bar(0.5, 4), "##..");
    }
}
