//! What was measured, and how it is shown.

use std::fmt::Write as _;
use std::time::Duration;

/// One measurement.
pub struct Run {
    pub name: String,
    pub rows: u64,
    pub wall: Duration,
    /// CPU of the program that reads: the limit tool or the daemon.
    pub client: Duration,
    /// CPU of the database server, all its processes.
    pub server: Duration,
    /// CPU of the reference CRM.
    pub crm: Option<Duration>,
    /// The most memory that the reading program had resident, in bytes.
    pub memory: u64,
}

impl Run {
    pub fn rate(&self) -> f64 {
        self.rows as f64 / self.wall.as_secs_f64().max(1e-9)
    }

    fn per_million(&self, time: Duration) -> f64 {
        time.as_secs_f64() * 1e6 / self.rows.max(1) as f64
    }
}

/// A number with its thousands divided.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Everything that one run of the benchmark has to say.
#[derive(Default)]
pub struct Report {
    rows: Vec<[String; 9]>,
    notes: Vec<String>,
}

const HEAD: [&str; 9] = [
    "what",
    "rows",
    "seconds",
    "rows/s",
    "of the limit",
    "client CPU s/M",
    "server CPU s/M",
    "CRM CPU s/M",
    "peak RSS MB",
];

impl Report {
    /// Adds a measurement; `limit` is the tool that shows what the server can do.
    pub fn add(&mut self, run: &Run, limit: Option<&Run>) {
        let row = [
            run.name.clone(),
            grouped(run.rows),
            format!("{:.2}", run.wall.as_secs_f64()),
            grouped(run.rate() as u64),
            limit.map_or_else(String::new, |limit| format!("{:.2}", run.rate() / limit.rate())),
            format!("{:.2}", run.per_million(run.client)),
            format!("{:.2}", run.per_million(run.server)),
            run.crm.map_or_else(String::new, |crm| format!("{:.2}", run.per_million(crm))),
            format!("{:.0}", run.memory as f64 / 1e6),
        ];
        eprintln!("  {}: {} rows/s, {} MB", row[0], row[3], row[8]);
        self.rows.push(row);
    }

    /// Adds a sentence.
    pub fn note(&mut self, text: impl Into<String>) {
        let text = text.into();
        eprintln!("  {text}");
        self.notes.push(text);
    }

    /// The table and the sentences: Markdown, or columns for a terminal.
    pub fn render(&self, markdown: bool) -> String {
        let head = HEAD.map(str::to_owned);
        let widths: Vec<usize> = (0..HEAD.len())
            .map(|at| self.rows.iter().chain([&head]).map(|row| row[at].chars().count()).max().unwrap_or(0))
            .collect();
        let (first, between, last) = if markdown { ("| ", " | ", " |") } else { ("", "  ", "") };
        let line = |row: &[String; 9]| {
            let cells = row.iter().zip(&widths).enumerate();
            let cells = cells.map(|(at, (cell, &width))| match at {
                0 => format!("{cell:width$}"),
                _ => format!("{cell:>width$}"),
            });
            format!("{first}{}{last}", cells.collect::<Vec<_>>().join(between)).trim_end().to_owned()
        };
        let mut out = line(&head);
        out.push('\n');
        if markdown {
            let dashes = widths.iter().enumerate().map(|(at, &width)| match at {
                0 => "-".repeat(width),
                _ => format!("{}:", "-".repeat(width - 1)),
            });
            let _ = writeln!(out, "{first}{}{last}", dashes.collect::<Vec<_>>().join(between));
        }
        for row in &self.rows {
            let _ = writeln!(out, "{}", line(row));
        }
        if !self.notes.is_empty() {
            out.push('\n');
        }
        for note in &self.notes {
            let _ = writeln!(out, "{}{note}", if markdown { "* " } else { "" });
        }
        out
    }
}
