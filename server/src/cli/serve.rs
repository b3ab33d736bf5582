//! `rootline serve`: run a node until a signal.

use std::{path::PathBuf, process::ExitCode, sync::Arc};

use clap::{
    Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, error::ErrorKind as UsageErrorKind,
};
use rootline_engine::SystemClock;
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    config::{Config, ConfigError, OPTIONS, Value, environment_name},
    logging,
    run::{RunError, RunningNode},
};

/// Exit code of an error.
const EXIT_ERROR: u8 = 1;
/// Exit code of a wrong command line or configuration.
const EXIT_USAGE: u8 = 2;
/// Exit code of a second signal: 128 + SIGINT, as shells have it.
const EXIT_INTERRUPTED: i32 = 130;

/// The flags of `serve`, made from the table of options.
#[derive(Clone, Debug, Default)]
pub(crate) struct ServeArgs {
    /// `--config`.
    config: Option<PathBuf>,
    /// Options that were given, by key.
    given: Vec<(String, String)>,
}

impl Args for ServeArgs {
    fn augment_args(command: Command) -> Command {
        let config = Arg::new("config").long("config").value_name("FILE").help(
            "TOML file of options, one `key = value` a line with the keys of the flags. Flags are \
             stronger than the environment, which is stronger than the file. [env: ROOTLINE_CONFIG=]",
        );
        let command = command.arg(config).arg_required_else_help(false);
        OPTIONS.iter().fold(command, |command, option| {
            let mut help = format!("{} [env: {}=]", option.help, environment_name(option.key));
            if !option.default.is_empty() && option.value != Value::Switch {
                help = format!("{help} [default: {}]", option.default);
            }
            let arg = Arg::new(option.key).long(option.key).help(help);
            let arg = match option.value {
                Value::Switch => arg
                    .num_args(0..=1)
                    .require_equals(true)
                    .default_missing_value("true")
                    .value_name("true|false"),
                Value::One(name) => arg.value_name(name),
                Value::List(name) => arg.value_name(name).action(ArgAction::Append),
            };
            command.arg(arg)
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for ServeArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut args = Self::default();
        args.update_from_arg_matches(matches)?;
        Ok(args)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.config = matches.get_one::<String>("config").map(PathBuf::from);
        for option in OPTIONS {
            if let Some(values) = matches.get_many::<String>(option.key) {
                let values: Vec<&str> = values.map(String::as_str).collect();
                self.given.push((option.key.to_owned(), values.join(",")));
            }
        }
        Ok(())
    }
}

impl ServeArgs {
    fn load(self) -> Result<(Config, Vec<String>), ConfigError> {
        let file = self
            .config
            .or_else(|| std::env::var_os("ROOTLINE_CONFIG").map(PathBuf::from));
        let environment = std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        });
        Config::load(file.as_deref(), environment, self.given)
    }
}

/// Runs a node until SIGTERM or SIGINT.
pub(crate) fn run(args: ServeArgs) -> ExitCode {
    let (config, warnings) = match args.load() {
        Ok(loaded) => loaded,
        Err(error) => {
            let kind = UsageErrorKind::InvalidValue;
            let _ = clap::Error::raw(kind, format!("{error}\n")).print();
            return ExitCode::from(EXIT_USAGE);
        }
    };
    logging::init(&config);
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    rootline_engine::allocator::share_heaps();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start the runtime: {error}");
            return ExitCode::from(EXIT_ERROR);
        }
    };
    let served = runtime.block_on(serve(config));
    // A replay or query that cannot be interrupted must not hold the process.
    runtime.shutdown_background();
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(EXIT_ERROR)
        }
    }
}

async fn serve(config: Config) -> Result<(), RunError> {
    for (option, address) in config.listen_addresses() {
        if !address.ip().is_loopback() {
            tracing::warn!(
                option,
                %address,
                "listening beyond this machine without encryption or authentication: whoever reaches \
                 the port can read, write and delete"
            );
        }
    }
    let internal = |e: std::io::Error| RunError::Internal(format!("cannot handle signals: {e}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(internal)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(internal)?;

    let mut node = RunningNode::start(config, Arc::new(SystemClock::new())).await?;
    let stop_early = tokio::select! {
        ready = node.ready() => { ready?; false }
        _ = terminate.recv() => true,
        _ = interrupt.recv() => true,
    };
    if !stop_early {
        let addresses = node.addresses();
        // The one line that programs wait for; logs go round it.
        eprintln!(
            "rootline ready grpc={} otlp_http={} http={}",
            addresses.grpc, addresses.otlp_http, addresses.http
        );
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    }
    tracing::info!("stopping: a second signal ends the process at once");
    tokio::select! {
        stopped = node.stop() => stopped,
        _ = terminate.recv() => std::process::exit(EXIT_INTERRUPTED),
        _ = interrupt.recv() => std::process::exit(EXIT_INTERRUPTED),
    }
}
