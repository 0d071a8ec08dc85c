//! `tidemark demo`.

use crate::demo::scene::{SceneError, SceneOptions, Server, play};
use crate::error::{DaemonKind, Error, Result};
use clap::{Args, ValueEnum};
use tidemark_throwaway::MysqlFlavour;

/// A vendor's database, the reference CRM, live changes and the daemon, in one command.
///
/// Starts everything on loopback and in private directories, kills the daemon with SIGKILL in the middle, waits for lag
/// 0, proves that the CRM equals the database, and removes everything again.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  tidemark demo
  tidemark demo --source mariadb
  tidemark demo --keep             stay at the end, to look at the pages
  tidemark demo --seconds 20 --no-kill")]
pub struct DemoArgs {
    /// How long the application changes rows.
    #[arg(long, value_name = "S", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// Rows changed per second.
    #[arg(long, value_name = "N", default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..))]
    rate: u32,
    /// The vendor's database.
    #[arg(long, value_enum, default_value_t = Source::Postgres)]
    source: Source,
    /// Do not kill the daemon.
    #[arg(long)]
    no_kill: bool,
    /// Keep everything running at the end, until Ctrl-C.
    #[arg(long)]
    keep: bool,
    /// Seed of the application's dice.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Source {
    Postgres,
    Mysql,
    Mariadb,
    /// The simulator that the tests use: SQL Server itself is not at hand here.
    Sqlserver,
}

pub(super) async fn run(args: DemoArgs) -> Result<()> {
    let options = SceneOptions {
        server: match args.source {
            Source::Postgres => Server::Postgres,
            Source::Mysql => Server::Mysql(MysqlFlavour::MySql),
            Source::Mariadb => Server::Mysql(MysqlFlavour::MariaDb),
            Source::Sqlserver => Server::SqlServer,
        },
        seconds: args.seconds,
        per_second: args.rate,
        kill: !args.no_kill,
        keep: args.keep,
        seed: args.seed,
    };
    play(options, super::interrupted()).await.map_err(|error| {
        let kind = match error {
            SceneError::Different => DaemonKind::Different,
            SceneError::Bug(_) => DaemonKind::Bug,
            _ => DaemonKind::Failed,
        };
        Error::new(kind, error.to_string())
    })
}
