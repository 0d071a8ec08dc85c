//! The demo scene: a vendor's database with an application that keeps changing it, the reference CRM, and the daemon in
//! between, which is killed in the middle. At the end both sides are compared.
//!
//! Everything runs on loopback and in one private directory, and is gone when the scene ends: in order, by Ctrl-C, or
//! with this process (each server and the daemon have a watcher that waits for our death).

mod daemon;
mod database;
mod traffic;

use crate::cli::{Look, Redraw, Tone, render_status};
use crate::demo::crm::{DevCrmError, DevCrmOptions, Handle, serve};
use crate::status::{State, StatusReport};
use daemon::Daemon;
use database::Database;
pub use database::Server;
use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::sync::{oneshot, watch};
use traffic::Tally;

/// What to show.
#[derive(Clone, Debug)]
pub struct SceneOptions {
    /// The vendor's database.
    pub server: Server,
    /// How long the application changes rows.
    pub seconds: u32,
    /// Rows it changes per second.
    pub per_second: u32,
    /// Whether to kill the daemon with SIGKILL in the middle.
    pub kill: bool,
    /// Whether to keep everything running at the end, until Ctrl-C.
    pub keep: bool,
    /// Seed of the application's dice.
    pub seed: u64,
}

/// Why the scene could not be played to its end.
#[derive(Debug, thiserror::Error)]
pub enum SceneError {
    /// A database server could not be started.
    #[error(transparent)]
    Server(#[from] tidemark_throwaway::Error),
    /// The application's connection.
    #[error("the scene's database: {}", chain(.0))]
    Database(#[from] tokio_postgres::Error),
    /// The application's SQL client.
    #[error("the scene's database refused a statement: {0}")]
    Statement(String),
    /// The CRM.
    #[error("the scene's CRM: {0}")]
    Crm(#[from] DevCrmError),
    /// The operating system.
    #[error("cannot {what}: {source}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// The refusal.
        source: std::io::Error,
    },
    /// The daemon gave up.
    #[error("the daemon ended by itself ({status}); its log ends with:\n{log}")]
    DaemonEnded {
        /// How.
        status: ExitStatus,
        /// Its last words.
        log: String,
    },
    /// It took too long.
    #[error("{what} after {seconds} s; the daemon's log ends with:\n{log}")]
    TooSlow {
        /// What did not happen.
        what: &'static str,
        /// How long we waited.
        seconds: u64,
        /// The daemon's last words.
        log: String,
    },
    /// The two sides differ.
    #[error("the CRM differs from the source")]
    Different,
    /// A task of the scene failed.
    #[error("the scene stopped because of a bug: {0}")]
    Bug(String),
}

impl SceneError {
    fn io(what: &'static str, source: std::io::Error) -> Self {
        SceneError::Io { what, source }
    }
}

/// An error of the database driver says what happened in its cause.
fn chain(error: &tokio_postgres::Error) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

/// Plays the scene. Ends early, in order, when `interrupted` is ready.
///
/// # Errors
/// If a part could not be started, the daemon gave up, or the CRM is not equal to the source at the end.
pub async fn play(options: SceneOptions, interrupted: impl Future<Output = ()>) -> Result<(), SceneError> {
    tokio::pin!(interrupted);
    let mut stage = Stage::new(&options);
    let result = tokio::select! {
        result = stage.play(&options) => result,
        () = &mut interrupted => {
            stage.say(Tone::Quiet, "interrupted; cleaning up");
            Ok(())
        }
    };
    // Differences are what one would want to look at.
    if options.keep && matches!(result, Ok(()) | Err(SceneError::Different)) && stage.daemon.is_some() {
        stage.say(Tone::Strong, "everything keeps running; Ctrl-C ends it");
        interrupted.as_mut().await;
    }
    stage.end().await;
    result
}

struct Stage {
    look: Look,
    screen: Option<Redraw>,
    begun: Instant,
    said: Instant,
    kill: bool,
    dir: Option<tempfile::TempDir>,
    database: Option<Database>,
    crm: Option<(Handle, oneshot::Sender<()>)>,
    daemon: Option<Daemon>,
    tally: Arc<Tally>,
}

impl Stage {
    fn new(options: &SceneOptions) -> Self {
        let terminal = std::io::stderr().is_terminal();
        Self {
            look: Look::stderr(),
            screen: terminal.then(|| Redraw::new(console::Term::stderr())),
            begun: Instant::now(),
            said: Instant::now(),
            kill: options.kill,
            dir: None,
            database: None,
            crm: None,
            daemon: None,
            tally: Arc::default(),
        }
    }

    /// A line that stays.
    fn say(&mut self, tone: Tone, text: &str) {
        let stamp = self.look.paint(Tone::Quiet, &format!("{:>5.1} s", self.begun.elapsed().as_secs_f64()));
        let line = format!("{stamp}  {}", self.look.paint(tone, text));
        match &mut self.screen {
            // A terminal that is gone stops the show, not the scene.
            Some(screen) => drop(screen.line(&line)),
            None => eprintln!("{line}"),
        }
    }

    async fn play(&mut self, options: &SceneOptions) -> Result<(), SceneError> {
        let server = options.server;
        self.say(Tone::Plain, &format!("starting a {} of our own and filling it with Northwind …", server.name()));
        let database = tokio::task::spawn_blocking(move || Database::start(server)).await;
        let database = self.database.insert(database.map_err(|e| SceneError::Bug(e.to_string()))??);
        let port = database.port();
        let owner = database.fill().await?;
        self.say(
            Tone::Plain,
            &format!("the vendor's database: 127.0.0.1:{port}, {} orders more than usual", database::ORDERS),
        );

        let (stop_crm, stopped) = oneshot::channel::<()>();
        let crm =
            serve(DevCrmOptions { listen: SocketAddr::from(([127, 0, 0, 1], 0)), ..DevCrmOptions::default() }, async {
                let _ = stopped.await;
            })
            .await?;
        let crm_url = crm.url();
        self.crm = Some((crm, stop_crm));
        self.say(Tone::Strong, &format!("the CRM:               {crm_url}/   (watch the records arrive)"));

        let dir = tempfile::Builder::new().prefix("tidemark-demo-").tempdir();
        let dir = self.dir.insert(dir.map_err(|e| SceneError::io("make a directory for the scene", e))?);
        let listen = free_port()?;
        let daemon = Daemon::new(dir.path(), server, port, &crm_url, listen)?;
        let daemon = self.daemon.insert(daemon);
        let pid = daemon.start()?;
        self.say(Tone::Strong, &format!("the daemon's status:   http://127.0.0.1:{listen}/   (pid {pid})"));

        let (stop, stopping) = watch::channel(false);
        let application =
            tokio::spawn(traffic::run(owner, options.seed, options.per_second, self.tally.clone(), stopping));
        let seconds = Duration::from_secs(options.seconds.into());
        self.say(Tone::Plain, &format!("an application changes rows for the next {} s", options.seconds));
        let result = self.middle(seconds).await;
        stop.send_replace(true);
        let application = application.await.map_err(|e| SceneError::Bug(e.to_string()))?;
        result?;
        application?;
        self.settle().await?;
        self.prove().await?;
        self.farewell(options, &crm_url, listen);
        Ok(())
    }

    /// The application's time: watch, and kill the daemon in the middle.
    async fn middle(&mut self, seconds: Duration) -> Result<(), SceneError> {
        let begun = Instant::now();
        while begun.elapsed() < seconds {
            let left = seconds.saturating_sub(begun.elapsed());
            if self.kill && left < seconds / 2 {
                self.kill = false;
                self.kill_and_restart().await?;
            }
            self.look_once(&format!("{:.0} s of changes left", left.as_secs_f64())).await?;
        }
        Ok(())
    }

    async fn kill_and_restart(&mut self) -> Result<(), SceneError> {
        let Some(daemon) = &mut self.daemon else { return Ok(()) };
        daemon.kill().await?;
        self.say(Tone::Warn, "the daemon was killed with SIGKILL (kill -9): nothing was flushed, nothing said goodbye");
        // The application does not stop for that.
        let end = Instant::now() + Duration::from_secs(3);
        while Instant::now() < end {
            self.look_once("no daemon").await?;
        }
        let Some(daemon) = &mut self.daemon else { return Ok(()) };
        let pid = daemon.start()?;
        self.say(Tone::Good, &format!("the daemon was started again (pid {pid}) and goes on from its checkpoint"));
        Ok(())
    }

    /// Waits until everything that was changed is in the CRM.
    async fn settle(&mut self) -> Result<(), SceneError> {
        const PATIENCE: Duration = Duration::from_secs(90);
        let changes = self.tally.changes();
        self.say(Tone::Plain, &format!("the application stopped after {changes} changed rows; waiting for lag 0"));
        let begun = Instant::now();
        // Two reports in a row: the first may be older than the last change.
        let mut quiet = 0;
        while quiet < 3 {
            if begun.elapsed() > PATIENCE {
                let log = self.daemon.as_ref().map(|d| daemon::last_lines(&d.log(), 15)).unwrap_or_default();
                return Err(SceneError::TooSlow { what: "the lag is not 0", seconds: PATIENCE.as_secs(), log });
            }
            let report = self.look_once("waiting for lag 0").await?;
            quiet = if report.is_some_and(|r| is_settled(&r)) { quiet + 1 } else { 0 };
        }
        self.say(Tone::Good, &format!("lag 0 after {:.1} s", begun.elapsed().as_secs_f64()));
        Ok(())
    }

    /// Compares the two sides with the command that operators use.
    async fn prove(&mut self) -> Result<(), SceneError> {
        self.say(Tone::Plain, "comparing every mapped field of every record on both sides: tidemark verify");
        let Some(daemon) = &self.daemon else { return Ok(()) };
        let mut command = tokio::process::Command::from(daemon.command(&["verify"])?);
        let status = command.kill_on_drop(true).status().await.map_err(|e| SceneError::io("run tidemark verify", e))?;
        if status.success() { Ok(()) } else { Err(SceneError::Different) }
    }

    fn farewell(&mut self, options: &SceneOptions, crm_url: &str, listen: u16) {
        let t = &self.tally;
        let n = |count: &std::sync::atomic::AtomicU64| count.load(Ordering::Relaxed);
        let summary = format!(
            "{} rows inserted, {} updated, {} deleted, {} with a new key, in {} transactions{}",
            n(&t.inserted),
            n(&t.updated),
            n(&t.deleted),
            n(&t.rekeyed),
            n(&t.transactions),
            if options.kill { "; the daemon was killed once" } else { "" },
        );
        self.say(Tone::Strong, &summary);
        self.say(Tone::Good, "the CRM equals the database");
        if options.keep {
            self.say(Tone::Strong, &format!("look at {crm_url}/ (records, histories) and http://127.0.0.1:{listen}/"));
        } else {
            self.say(Tone::Plain, "to look around afterwards: make demo ARGS=--keep   (or: tidemark demo --keep)");
        }
    }

    /// Shows how it stands, for a quarter of a second.
    async fn look_once(&mut self, what: &str) -> Result<Option<StatusReport>, SceneError> {
        let Some(daemon) = &mut self.daemon else { return Ok(None) };
        daemon.check_alive()?;
        let report = daemon.status().await;
        let head = format!("{what} · {} rows changed so far", self.tally.changes());
        match (&mut self.screen, &report) {
            (Some(screen), Some(report)) => {
                let head = self.look.paint(Tone::Accent, &head);
                drop(screen.draw(&format!("\n{head}\n\n{}", render_status(report, &self.look))));
            }
            (Some(screen), None) => drop(screen.draw(&format!("\n{head}\n"))),
            (None, Some(report)) if self.said.elapsed() > Duration::from_secs(5) => {
                self.said = Instant::now();
                self.say(Tone::Plain, &format!("{head} · {}", crate::notify::status_line(report)));
            }
            (None, _) => {}
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
        Ok(report)
    }

    /// Takes everything down, in order.
    async fn end(&mut self) {
        if let Some(mut daemon) = self.daemon.take()
            && let Ok(Some((took, well))) = daemon.stop().await
        {
            let how = if well { "drained, saved and exited 0" } else { "did not exit in order" };
            self.say(
                if well { Tone::Plain } else { Tone::Bad },
                &format!("SIGTERM: the daemon {how} in {:.1} s", took.as_secs_f64()),
            );
        }
        if let Some((crm, stop)) = self.crm.take() {
            drop(stop);
            crm.stopped().await;
        }
        if let Some(database) = self.database.take() {
            // Stopping the server blocks; a runtime thread must not.
            let _ = tokio::task::spawn_blocking(move || drop(database)).await;
        }
        self.dir = None;
        self.say(Tone::Quiet, "everything is stopped and removed");
    }
}

/// Nothing is on its way, and nothing is left to read.
fn is_settled(report: &StatusReport) -> bool {
    report.state == State::Live
        && report.lag.seconds == Some(0.0)
        && report.lag.pending_changes == 0
        && report.delivery.rereads == 0
        && report.entities.iter().all(|e| e.parked == 0)
}

fn free_port() -> Result<u16, SceneError> {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).map_err(|e| SceneError::io("find a free port", e))?;
    Ok(listener.local_addr().map_err(|e| SceneError::io("find a free port", e))?.port())
}
