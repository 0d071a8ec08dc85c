//! How far long work is: comparing and planning.

use super::output;
use super::terminal::count;
use crate::verify::Progress;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Bars on a terminal, a line now and then otherwise.
pub struct Bars {
    bar: ProgressBar,
    plain: bool,
    state: Mutex<BarState>,
}

#[derive(Default)]
struct BarState {
    what: String,
    said: Option<Instant>,
    rows: BTreeMap<String, u64>,
}

impl Bars {
    /// Bars of a work that begins now.
    pub fn new() -> Self {
        let plain = !std::io::stderr().is_terminal();
        let target = if plain { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        Self { bar: ProgressBar::with_draw_target(None, target), plain, state: Mutex::default() }
    }

    fn show(&self, what: String, done: u64, total: Option<u64>) {
        let mut state = self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if state.what != what {
            let template = match total {
                Some(_) => "{msg:<38} {bar:20.cyan/dim} {human_pos} / ~{human_len}  {per_sec}  {eta}",
                None => "{msg:<38} {spinner} {human_pos}  {per_sec}",
            };
            if let Ok(style) = ProgressStyle::with_template(template) {
                self.bar.set_style(style.progress_chars("█▌░"));
            }
            self.bar.reset();
            self.bar.set_message(what.clone());
            state.what.clone_from(&what);
        }
        state.rows.insert(what.clone(), done);
        if let Some(total) = total {
            self.bar.set_length(total.max(done));
        }
        self.bar.set_position(done);
        if self.plain && state.said.is_none_or(|at| at.elapsed() > Duration::from_secs(5)) {
            // The first line only after a while: short work needs none.
            if state.said.is_some() {
                output::talk(&format!("{what}: {}", count(done)));
            }
            state.said = Some(Instant::now());
        }
    }

    /// Takes them off the terminal.
    pub fn end(&self) {
        self.bar.finish_and_clear();
    }
}

impl Progress for Bars {
    fn reading(&self, table: &str, rows: u64, estimate: Option<u64>) {
        self.show(format!("reading {table}"), rows, estimate);
    }

    fn comparing(&self, entity: &str, records: u64) {
        self.show(format!("comparing {entity}"), records, None);
    }

    fn looking_again(&self, entity: &str, left: usize) {
        self.show(format!("looking again at {entity}"), left as u64, None);
    }
}
