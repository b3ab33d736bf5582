//! `rootline demo`: a node in a temporary directory, with a small shop's last ten minutes in it.

use std::{path::Path, process::ExitCode, sync::Arc, time::Duration};

use rootline_engine::{Clock, SystemClock};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{
    config::Config,
    demo::{FAULT, HISTORY, Loaded, SEED_DEFAULT, Shop, names},
    logging,
    node::Addresses,
    run::{RunError, RunningNode},
    send::{Delivery, error_chain},
};

/// How far behind the clock the shop stays, so that nothing in it lies ahead of now.
const BEHIND_NOW_NS: u64 = 2_000_000_000;
/// How often it is looked whether the next step is over.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Where the commands look for a node without being told.
const GRPC_PORT_DEFAULT: u16 = 4317;
/// Ports that may turn out to be taken.
const PORTS: usize = 3;

/// Run a node with ten minutes of a small shop's metrics and traces, and one fault to find.
///
/// The node lives in a temporary directory that is removed at the end. It takes the default ports, or
/// free ones where these are taken.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct DemoArgs {
    /// What the shop is made up from: the same seed gives the same shop.
    #[arg(long, default_value_t = SEED_DEFAULT)]
    seed: u64,
    /// End as soon as all is loaded.
    #[arg(long)]
    exit_after_load: bool,
}

/// Runs the demo until a signal.
pub(crate) fn run(args: &DemoArgs) -> ExitCode {
    let result = tokio::runtime::Runtime::new()
        .map_err(|e| format!("cannot start the runtime: {e}"))
        .and_then(|runtime| {
            let result = runtime.block_on(demo(args));
            runtime.shutdown_background();
            result
        });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn demo(args: &DemoArgs) -> Result<(), String> {
    let signals = |e| format!("cannot handle signals: {e}");
    let mut interrupt = signal(SignalKind::interrupt()).map_err(signals)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(signals)?;
    // Removed when it is dropped, so this function only ever returns.
    let dir = tempfile::Builder::new()
        .prefix("rootline-demo-")
        .tempdir()
        .map_err(|e| format!("cannot make a temporary directory: {e}"))?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let mut node = start(dir.path(), &clock).await?;
    let ran = tokio::select! {
        ran = serve(args, &mut node, clock.as_ref()) => ran,
        () = either(&mut interrupt, &mut terminate) => Ok(()),
    };
    let stopped = tokio::select! {
        stopped = node.stop() => stopped.map_err(|e| error_chain(&e)),
        // A second signal: what is in the directory goes away anyhow.
        () = either(&mut interrupt, &mut terminate) => Ok(()),
    };
    ran.and(stopped)
}

async fn either(one: &mut Signal, other: &mut Signal) {
    tokio::select! {
        _ = one.recv() => {}
        _ = other.recv() => {}
    }
}

/// A node over `dir`; a port that is taken is replaced by a free one.
async fn start(dir: &Path, clock: &Arc<dyn Clock>) -> Result<RunningNode, String> {
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let flags = vec![
        ("data-dir".to_owned(), dir.to_string_lossy().into_owned()),
        ("log-level".to_owned(), "warn".to_owned()),
        // The directory goes away with the demo.
        ("shutdown-seal".to_owned(), "0s".to_owned()),
    ];
    let (mut config, _) = Config::load(None, environment, flags).map_err(|e| error_chain(&e))?;
    logging::init(&config);
    for _ in 0..PORTS {
        match RunningNode::start(config.clone(), Arc::clone(clock)).await {
            Err(RunError::Bind { address, .. }) => {
                for listen in [
                    &mut config.grpc_listen,
                    &mut config.otlp_http_listen,
                    &mut config.http_listen,
                ] {
                    if *listen == address {
                        listen.set_port(0);
                    }
                }
            }
            started => return started.map_err(|e| error_chain(&e)),
        }
    }
    RunningNode::start(config, Arc::clone(clock))
        .await
        .map_err(|e| error_chain(&e))
}

async fn serve(args: &DemoArgs, node: &mut RunningNode, clock: &dyn Clock) -> Result<(), String> {
    node.ready().await.map_err(|e| error_chain(&e))?;
    let addresses = node.addresses();
    let delivery =
        Delivery::new(&format!("http://{}", addresses.grpc)).map_err(|e| error_chain(&e))?;
    let now_ns = |clock: &dyn Clock| {
        u64::try_from(clock.wall_ns())
            .unwrap_or(0)
            .saturating_sub(BEHIND_NOW_NS)
    };
    let began = clock.monotonic();
    let mut shop = Shop::new(args.seed, now_ns(clock));
    let loaded = shop.load(&delivery).await.map_err(|e| error_chain(&e))?;
    let took = clock.monotonic().saturating_sub(began);
    print!("{}", welcome(loaded, took, addresses));
    // Programs that start the demo wait for the same line as with `serve`.
    eprintln!(
        "rootline ready grpc={} otlp_http={} http={}",
        addresses.grpc, addresses.otlp_http, addresses.http
    );
    if args.exit_after_load {
        return Ok(());
    }
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        while shop.next_end_ns() <= now_ns(clock) {
            if let Err(error) = shop.advance(&delivery).await {
                tracing::warn!("the shop could not report: {}", error_chain(&error));
            }
        }
    }
}

/// What was loaded, and three commands that show something.
fn welcome(loaded: Loaded, took: Duration, addresses: Addresses) -> String {
    let program = std::env::args().next().filter(|p| p.contains('/'));
    let program = program.as_deref().unwrap_or("rootline");
    let endpoint = if addresses.grpc.port() == GRPC_PORT_DEFAULT {
        String::new()
    } else {
        format!(" --endpoint http://{}", addresses.grpc)
    };
    let minutes = HISTORY.as_secs() / 60;
    let fault = FAULT.as_secs() / 60;
    format!(
        "A small shop's last {minutes} minutes are in this node: {} spans and {} data points, loaded in \
         {:.1} s.\n\
         Some {fault} minutes ago checkouts began to fail. To find out why, ask in another terminal:\n\
         \n\
         1. Which requests fail, and where do they lose their time? (Then: query trace ID)\n   \
         {program} query find --service {caller} --status error --since {fault}m --limit 5{endpoint}\n\
         2. Who calls whom, how often does it fail, how long does it take?\n   \
         {program} query dependencies --since {fault}m{endpoint}\n\
         3. Is it a database?\n   \
         {program} query stats {gauge} --by service_name --since {fault}m{endpoint}\n\
         \n\
         The shop stays open. Ctrl-C ends the demo and removes its data.\n",
        loaded.spans,
        loaded.points,
        took.as_secs_f64(),
        caller = names::CALLER,
        gauge = names::GAUGE,
    )
}
