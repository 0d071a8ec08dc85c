//! One tenant's daemon: everything is opened, in an order in which nothing half-open is left when a later part fails,
//! and the river runs until a signal.

use crate::admin::{AdminState, serve_http, serve_socket};
use crate::config::Config;
use crate::error::{DaemonKind, Error, Result};
use crate::mapping::{Overlay, Pack};
use crate::metrics::Metrics;
use crate::pipeline::{self, Outlet, Parts, STOP_TIMEOUT};
use crate::status::{Board, Heartbeat, StatusReport};
use crate::store::Store;
use crate::{crm, notify, registry};
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

/// Reads the tenant's pack with the tenant's own changes laid over it.
///
/// # Errors
/// Everything that is wrong with either, at its place.
pub fn pack(config: &Config) -> Result<Pack> {
    let mut secrets = std::collections::BTreeMap::new();
    for (name, place) in &config.mapping.secrets {
        secrets.insert(name.clone(), place.read()?);
    }
    let overlay = Overlay { path: config.path.display().to_string(), text: config.mapping.file.text.clone(), secrets };
    // A path in the tenant file is relative to the tenant file; a bare name is looked up among the packs.
    let name = &config.mapping.pack;
    let is_path = name.contains('/') || name.ends_with(".toml");
    let name = if is_path { config.dir.join(name).display().to_string() } else { name.clone() };
    let packs = crate::config::directory().join("packs");
    Ok(Pack::load_from(&name, &packs, Some(&overlay))?)
}

/// Runs a tenant until SIGTERM, SIGINT, a stop command, or something that only a person can remove.
///
/// # Errors
/// As [`pipeline::run`], and whatever keeps it from starting: a held lock (75), a secret, an address in use.
pub async fn run(config: Config) -> Result<()> {
    tracing::info!("{}", config.summary());
    if !config.warnings.is_empty() {
        tracing::warn!("{}", config.warnings);
    }
    let pack = pack(&config)?;
    let dir = config.state.dir.clone();
    let store = tokio::task::spawn_blocking(move || Store::open(&dir))
        .await
        .map_err(|_| Error::new(DaemonKind::Bug, "opening the store panicked"))??;
    let config = Arc::new(config);
    let (connector, zero_dates) = registry::counting(&config.source)?;
    let crm = crm::connect(&config.crm.profile, &config.dir, config.crm.client(&config.state.dir))?;
    let wrong = |e| Error::new(DaemonKind::Bug, format!("a metric is wrong: {e}"));
    let metrics = Metrics::new().map_err(wrong)?;
    if let Some(read) = zero_dates {
        metrics.watch_zero_dates(read).map_err(wrong)?;
    }
    let outlet = Outlet {
        board: Board::new(StatusReport::starting(&config.tenant, config.source.engine.name())),
        metrics: Arc::new(metrics),
        heartbeat: Arc::new(Heartbeat::default()),
    };
    let (commands, heard) = mpsc::channel(16);
    let (stop, stopped) = watch::channel(false);
    let (end, ended) = watch::channel(false);
    let until_end = |mut ended: watch::Receiver<bool>| async move {
        let _ = ended.wait_for(|ended| *ended).await;
    };
    let store = Arc::new(store);
    let state = AdminState {
        board: outlet.board.clone(),
        metrics: outlet.metrics.clone(),
        heartbeat: outlet.heartbeat.clone(),
        commands,
        store: store.clone(),
    };
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(serve_socket(&config.observe.socket, state.clone(), until_end(ended.clone()))?);
    if let Some(listen) = config.observe.listen {
        let (server, address) = serve_http(listen, state, until_end(ended.clone())).await?;
        tracing::info!(%address, "metrics, probes and the status page");
        tasks.spawn(server);
    }
    notify::ready();
    tasks.spawn(notify::supervise(outlet.board.clone(), outlet.heartbeat.clone(), until_end(ended)));
    let signals = tokio::spawn(stop_on_signal(stop.clone()));
    let parts = Parts { config, connector, crm, store: store.clone(), pack: Arc::new(pack), outlet };
    // A panic in the pipeline unwinds here: the store below is closed in order, and the process ends with an error.
    let result = match tokio::spawn(pipeline::run(parts, heard, stopped)).await {
        Ok(result) => result,
        Err(panic) => Err(Error::new(DaemonKind::Bug, "the pipeline panicked").caused_by(panic)),
    };
    signals.abort();
    let _ = end.send(true);
    // Whoever waits for an answer gets a moment; a page that stays open does not hold up the end.
    let _ = tokio::time::timeout(std::time::Duration::from_millis(300), async {
        while tasks.join_next().await.is_some() {}
    })
    .await;
    tasks.shutdown().await;
    let closed = tokio::task::spawn_blocking(move || drop(store)).await;
    result.and(closed.map_err(|_| Error::new(DaemonKind::Bug, "closing the store panicked")))
}

/// The first signal drains (P12); a second one changes nothing: the drain is bounded.
async fn stop_on_signal(stop: watch::Sender<bool>) {
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) else {
        return tracing::error!("signals cannot be heard; only a kill will end this process");
    };
    loop {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        if !*stop.borrow() {
            notify::stopping(STOP_TIMEOUT);
            let _ = stop.send(true);
        }
    }
}
