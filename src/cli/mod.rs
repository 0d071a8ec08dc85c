//! The command line: arguments in, text and exit codes out. One file per command; what they have in common is beside
//! them (`tenant`, `output`, `terminal`). All formatting for people lives here.

mod check;
mod checkpoint;
mod completions;
mod dead_letters;
mod demo;
mod dev_crm;
mod drop_slot;
mod init;
mod output;
mod pause;
mod plan;
mod progress;
mod resync;
mod run;
mod sides;
mod status;
mod status_view;
mod tenant;
mod terminal;
mod test_pack;
mod verify;

pub use status_view::render as render_status;
pub use terminal::{Look, Redraw, Table, Tone};

use crate::error::{DaemonKind, Error, ExitCode, Result};
use clap::{Parser, Subcommand};

/// Keeps a CRM equal to the database of the vendor software a customer uses.
#[derive(Parser, Debug)]
#[command(name = "tidemark", version, arg_required_else_help = true, max_term_width = 110)]
#[command(
    after_help = "Exit codes: 0 done; 1 failed; 2 usage; 75 another instance holds the tenant; 77 a right is missing; \
78 configuration or mapping; 255 a bug.
Data goes to stdout, logs and talk to stderr. NO_COLOR is honoured; TIDEMARK_LOG sets the log level.

Start here:  tidemark demo"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    Run(run::RunArgs),
    Check(check::CheckArgs),
    Plan(plan::PlanArgs),
    Status(status::StatusArgs),
    Pause(pause::PauseArgs),
    Resume(pause::ResumeArgs),
    Resync(resync::ResyncArgs),
    Checkpoint(checkpoint::CheckpointArgs),
    DeadLetters(dead_letters::DeadLettersArgs),
    Verify(verify::VerifyArgs),
    DropSlot(drop_slot::DropSlotArgs),
    Init(init::InitArgs),
    Test(test_pack::TestArgs),
    DevCrm(dev_crm::DevCrmArgs),
    Demo(demo::DemoArgs),
    Completions(completions::CompletionsArgs),
}

/// Runs the program with the process's arguments; everything is said when it returns.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    // One provider of cryptography for the process, before anything can want one. It fails only if there is one already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match std::panic::catch_unwind(move || run(cli)) {
        Ok(Ok(())) => ExitCode::Done,
        Ok(Err(error)) => {
            output::error(&error);
            error.exit_code()
        }
        // The panic's own message is on stderr already.
        Err(_) => {
            output::error(&Error::new(DaemonKind::Bug, "the program stopped because of a bug"));
            ExitCode::Bug
        }
    }
}

fn run(cli: Cli) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(output::failed("start the runtime"))?;
    let result = runtime.block_on(dispatch(cli.command));
    // A blocking call that hangs (a dead file system, a name server) does not hold up the end.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    result
}

async fn dispatch(command: Command) -> Result<()> {
    match command {
        Command::Run(args) => run::run(args).await,
        Command::Check(args) => check::run(args).await,
        Command::Plan(args) => plan::run(args).await,
        Command::Status(args) => status::run(args).await,
        Command::Pause(args) => pause::pause(args).await,
        Command::Resume(args) => pause::resume(args).await,
        Command::Resync(args) => resync::run(args).await,
        Command::Checkpoint(args) => checkpoint::run(args).await,
        Command::DeadLetters(args) => dead_letters::run(args).await,
        Command::Verify(args) => verify::run(args).await,
        Command::DropSlot(args) => drop_slot::run(args).await,
        Command::Init(args) => init::run(args).await,
        Command::Test(args) => test_pack::run(&args),
        Command::DevCrm(args) => dev_crm::run(args).await,
        Command::Demo(args) => demo::run(args).await,
        Command::Completions(args) => completions::run(&args),
    }
}

/// Ends when the process is asked to end: SIGINT or SIGTERM.
pub(crate) async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else { return std::future::pending().await };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_arguments_are_consistent_and_every_command_has_examples() {
        Cli::command().debug_assert();
        for command in Cli::command().get_subcommands() {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("Examples:"), "{} has no examples", command.get_name());
            assert!(help.contains(&format!("tidemark {}", command.get_name())), "{}: {help}", command.get_name());
        }
    }

    #[test]
    fn a_tenant_or_a_file_is_wanted() {
        assert!(Cli::try_parse_from(["tidemark", "status"]).is_err());
        assert!(Cli::try_parse_from(["tidemark", "status", "acme"]).is_ok());
        assert!(Cli::try_parse_from(["tidemark", "status", "--config", "x.toml"]).is_ok());
        assert!(Cli::try_parse_from(["tidemark", "resync", "acme"]).is_err(), "no scope");
        assert!(Cli::try_parse_from(["tidemark", "resync", "acme", "--key", "1"]).is_err(), "a key needs an entity");
    }
}
