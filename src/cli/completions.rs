//! `tidemark completions`.

use super::{Cli, output};
use crate::error::Result;
use clap::{Args, CommandFactory};
use clap_complete::Shell;

/// Completions for a shell, to stdout.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  tidemark completions bash > /etc/bash_completion.d/tidemark
  tidemark completions zsh > \"${fpath[1]}/_tidemark\"
  tidemark completions fish > ~/.config/fish/completions/tidemark.fish")]
pub struct CompletionsArgs {
    /// The shell.
    shell: Shell,
}

pub(super) fn run(args: &CompletionsArgs) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "tidemark", &mut script);
    output::data(&String::from_utf8_lossy(&script))
}
