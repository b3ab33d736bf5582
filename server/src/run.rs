//! A running node: bind, open, serve, drain, close.
//!
//! 1. [`RunningNode::start`] binds all ports, so that addresses are known and senders queue or are
//!    told to come back, and begins to open the engine on a thread of its own.
//! 2. [`RunningNode::ready`] waits until the log is replayed.
//! 3. [`RunningNode::stop`] refuses new requests, lets those in flight end (for at most
//!    `drain-timeout`), syncs and closes the log.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use rootline_engine::{Clock, Engine, EngineStats, Error, ErrorKind};
use tokio::{
    sync::watch,
    task::{JoinHandle, JoinSet},
};
use tonic_health::server::HealthReporter;

use crate::{
    config::Config,
    grpc, http,
    listen::{Port, Wire},
    node::{Addresses, NodeState},
    watch::{Figures, Watcher},
};

/// What keeps a node from running.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// A port could not be taken.
    #[error(
        "cannot listen on {address} (option {option}): {source}. Is another node running? Choose \
         another address, or port 0 for a free one"
    )]
    Bind {
        /// The option.
        option: &'static str,
        /// Its value.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The store could not be opened.
    #[error("cannot open the store in {dir}: {source}. {advice}")]
    Open {
        /// The data directory.
        dir: String,
        /// What to do.
        advice: String,
        /// Why.
        source: Box<Error>,
    },
    /// The store could not be closed.
    #[error("cannot close the store: {0}. What was acknowledged is in the log")]
    Close(#[source] Box<Error>),
    /// A broken invariant.
    #[error("{0}")]
    Internal(String),
}

/// A node that listens. Dropping it ends it as a crash would: what was acknowledged is in the log.
#[derive(Debug)]
pub struct RunningNode {
    state: Arc<NodeState>,
    addresses: Addresses,
    stop: watch::Sender<bool>,
    listeners: JoinSet<()>,
    opening: Option<JoinHandle<Result<Engine, Error>>>,
    health: HealthReporter,
    /// Once the store is open.
    watcher: Option<Watcher>,
}

impl RunningNode {
    /// Binds the ports of `config` and begins to open its store.
    ///
    /// # Errors
    /// [`RunError::Bind`]; nothing is left behind.
    pub async fn start(config: Config, clock: Arc<dyn Clock>) -> Result<Self, RunError> {
        let mut ports = Vec::new();
        for (option, address) in config.listen_addresses() {
            let port = Port::bind(address).await;
            ports.push(port.map_err(|source| RunError::Bind {
                option,
                address,
                source,
            })?);
        }
        let Ok([grpc_port, otlp_http_port, http_port]) = <[Port; 3]>::try_from(ports) else {
            return Err(RunError::Internal("three ports were asked for".to_owned()));
        };
        let addresses = Addresses {
            grpc: grpc_port.address,
            otlp_http: otlp_http_port.address,
            http: http_port.address,
        };
        let state = NodeState::new(config, clock);
        state.set_addresses(addresses);

        let (grpc_router, health) = grpc::router(&state)
            .await
            .map_err(|e| RunError::Internal(e.to_string()))?;
        let (stop, stopped) = watch::channel(false);
        let mut listeners = JoinSet::new();
        for (port, wire, router) in [
            (grpc_port, Wire::Grpc, grpc_router),
            (otlp_http_port, Wire::Http, http::otlp_router(&state)),
            (http_port, Wire::Http, http::router(&state)),
        ] {
            listeners.spawn(port.serve(wire, router, Arc::clone(&state), stopped.clone()));
        }

        let opening = {
            let state = Arc::clone(&state);
            tokio::task::spawn_blocking(move || {
                Engine::builder(&state.config().data_dir)
                    .settings(state.config().engine_settings())
                    .clock(Arc::clone(state.clock()))
                    .progress(Arc::clone(state.progress()))
                    .open()
            })
        };
        Ok(Self {
            state,
            addresses,
            stop,
            listeners,
            opening: Some(opening),
            health,
            watcher: None,
        })
    }

    /// Waits until reads and writes are served.
    ///
    /// # Errors
    /// [`RunError::Open`] with advice; health then says so too.
    pub async fn ready(&mut self) -> Result<(), RunError> {
        let Some(opening) = &mut self.opening else {
            return Ok(());
        };
        let opened = opening.await;
        self.opening = None;
        let opened = opened.map_err(|e| RunError::Internal(format!("opening failed: {e}")))?;
        match opened {
            Ok(engine) => {
                let stats = engine.stats();
                report_replay(&engine, &stats);
                self.state.set_ready(engine);
                let known = Figures::damage_known(&stats);
                self.watcher = Some(Watcher::start(Arc::clone(&self.state), known));
                grpc::set_serving(&self.health, true).await;
                Ok(())
            }
            Err(source) => {
                let error = RunError::Open {
                    dir: self.state.config().data_dir.display().to_string(),
                    advice: advice(&source, &self.state),
                    source: Box::new(source),
                };
                self.state.set_open_error(error.to_string());
                Err(error)
            }
        }
    }

    /// Where the node listens, with real port numbers.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// What the listeners share.
    pub fn state(&self) -> &Arc<NodeState> {
        &self.state
    }

    /// Drains, syncs, seals for as long as it may, and closes.
    ///
    /// # Errors
    /// [`RunError::Close`] if the last sync fails.
    pub async fn stop(mut self) -> Result<(), RunError> {
        self.state.set_stopping();
        grpc::set_serving(&self.health, false).await;
        let _ = self.stop.send(true);
        let drain = self.state.config().drain_timeout;
        let drained = tokio::time::timeout(drain, async {
            while self.listeners.join_next().await.is_some() {}
        });
        if drained.await.is_err() {
            tracing::warn!(
                after_s = drain.as_secs_f64(),
                "requests in flight were cut off"
            );
            self.listeners.abort_all();
        }
        // A replay under way cannot be interrupted; it has acknowledged nothing.
        if self.opening.is_some() {
            return Ok(());
        }
        let Some(engine) = self.state.engine_opened().cloned() else {
            return Ok(());
        };
        let seal_for = self.state.config().shutdown_seal;
        let closed = tokio::task::spawn_blocking(move || engine.close_within(seal_for)).await;
        // What sealing met on the way out is said, too.
        if let Some(watcher) = self.watcher.take() {
            watcher.end().await;
        }
        match closed {
            Ok(closed) => closed.map_err(|e| RunError::Close(Box::new(e))),
            Err(panic) => Err(RunError::Internal(format!("closing failed: {panic}"))),
        }
    }
}

/// Says what start-up found: nothing is lost silently.
fn report_replay(engine: &Engine, stats: &EngineStats) {
    let log = &stats.replayed.log;
    for damage in &log.corrupt {
        tracing::error!(
            file = %damage.path.display(),
            offset_bytes = damage.offset_bytes,
            reason = damage.reason,
            lost = ?damage.lost,
            "the log is damaged here; everything else was read, nothing was deleted"
        );
    }
    for damage in &stats.damage {
        tracing::error!(
            file = %damage.path.display(),
            offset_bytes = damage.offset_bytes,
            reason = damage.reason,
            "this file is damaged here; everything else is served, nothing was deleted"
        );
    }
    if let Some(reason) = &stats.read_only {
        tracing::error!(
            reason,
            "the store is read-only: questions are answered, writes are refused"
        );
    }
    if stats.replayed.orphaned_samples > 0 {
        let samples = stats.replayed.orphaned_samples;
        tracing::error!(
            samples,
            "samples were lost with the definitions of their series"
        );
    }
    tracing::info!(
        dir = %engine.dir().display(),
        records = log.records,
        bytes = log.bytes,
        torn_bytes = log.torn_bytes,
        blocks = stats.blocks,
        samples_in_blocks = stats.block_samples,
        series = stats.metrics.series,
        spans = stats.spans.spans,
        "replayed the log"
    );
}

/// What a person does about a store that does not open.
fn advice(error: &Error, state: &NodeState) -> String {
    match error.kind() {
        ErrorKind::LimitExceeded => format!(
            "Raise --memory-limit (now {} bytes); nothing was changed on disk",
            state.config().memory_limit_bytes
        ),
        ErrorKind::Retry => {
            "Stop the other process or choose another --data-dir; if the disk is full, make room"
                .to_owned()
        }
        ErrorKind::Corrupted => {
            "Nothing was deleted. Keep a copy of the directory; if it was written \
                                 by a newer release, use that one (docs/operations.md)"
                .to_owned()
        }
        _ => "Check that the directory exists, is writable and belongs to this node".to_owned(),
    }
}

/// Polls `check` until it holds or `timeout` has passed; for tests and programs that start a node.
pub async fn wait_until(timeout: Duration, mut check: impl FnMut() -> bool) -> bool {
    let step = Duration::from_millis(10);
    let mut left = timeout;
    while !check() {
        if left.is_zero() {
            return false;
        }
        tokio::time::sleep(step).await;
        left = left.saturating_sub(step);
    }
    true
}
