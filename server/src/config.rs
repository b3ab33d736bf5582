//! Configuration of the node: a file, the environment, flags; weakest to strongest.
//!
//! [`OPTIONS`] is the one table of options. From it come the keys of the file (`memory-limit`), the
//! environment variables (`ROOTLINE_MEMORY_LIMIT`), the flags (`--memory-limit`), the text of
//! `--help`, and the check that `docs/operations.md` explains each of them. Every layer hands text
//! to the same setter, so a value means the same wherever it stands. A key that is not in the table
//! is an error that names the nearest one; a stray `ROOTLINE_` variable only a warning, since
//! others may own it.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use rootline_engine::{Durability, QueryLimits, Settings};

use crate::memory_limit;

/// Attributes of a resource that every series carries by default.
const PROMOTED_ATTRIBUTES: &str = "service.name,service.namespace,service.instance.id,k8s.pod.name,\
                                   k8s.namespace.name,host.name,deployment.environment,\
                                   deployment.environment.name";

/// Before the key of an option in the environment.
const ENVIRONMENT_PREFIX: &str = "ROOTLINE_";
/// Variables with our prefix that are not options of the node.
const ENVIRONMENT_OTHERS: [&str; 4] = [
    "ROOTLINE_CONFIG",
    "ROOTLINE_ENDPOINT",
    "ROOTLINE_OTLP_HTTP",
    "ROOTLINE_REMOTE_WRITE",
];

/// The largest `disk-reserve`: more than any log needs, and far from where sums of sizes overflow.
const DISK_RESERVE_MAX: u64 = 1 << 40;

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Everything that can be set.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// Where the store lives. Empty until set.
    pub data_dir: PathBuf,
    /// gRPC: OTLP, `rootline.v1`, health, reflection.
    pub grpc_listen: SocketAddr,
    /// OTLP over HTTP.
    pub otlp_http_listen: SocketAddr,
    /// Remote write, health, self metrics.
    pub http_listen: SocketAddr,
    /// Whether addresses other than loopback may be listened on.
    pub insecure_allow_network: bool,
    /// Names accepted in `Host` beside loopback's own.
    pub allow_hosts: Vec<String>,
    /// Origins that browsers may query from.
    pub http_cors_origins: Vec<String>,
    /// Bytes that all of the store may hold in memory.
    pub memory_limit_bytes: u64,
    /// How long a writer waits for memory before the transient refusal.
    pub memory_wait: Duration,
    /// Bytes of one request after decompression.
    pub max_request_bytes: u64,
    /// When a write counts as durable.
    pub durability: Durability,
    /// Active series allowed.
    pub series_max: u64,
    /// Active series allowed for each value of a label.
    pub series_max_per_label: Vec<(String, u64)>,
    /// How long a window must go without a write before it is sealed.
    pub seal_idle: Duration,
    /// Bytes of log that unsealed data may hold.
    pub log_bytes_max: u64,
    /// How old samples may be; `None` keeps them for ever.
    pub retention_age: Option<Duration>,
    /// Bytes that blocks may take on disk; `None` sets no bound.
    pub retention_bytes: Option<u64>,
    /// Free disk space that writes leave alone.
    pub disk_reserve_bytes: u64,
    /// Time in which the scrub reads every block once; `None` turns it off.
    pub scrub_interval: Option<Duration>,
    /// How long a snapshot may stay open.
    pub snapshot_max_age: Duration,
    /// Resource attributes that every series carries.
    pub promote_resource_attributes: Vec<String>,
    /// Whether metric and label names of OTLP keep their UTF-8 characters.
    pub utf8_names: bool,
    /// Longest time of one query.
    pub query_timeout: Duration,
    /// What one query may touch.
    pub query_limits: QueryLimits,
    /// Writes decoded and logged at once.
    pub write_concurrency: usize,
    /// Requests that may wait for their turn.
    pub max_concurrent_requests: usize,
    /// Open connections on each port.
    pub max_connections: usize,
    /// Longest silence inside a request body.
    pub body_idle_timeout: Duration,
    /// Longest time for a request body.
    pub body_timeout: Duration,
    /// Time between HTTP/2 keepalive pings.
    pub keepalive_interval: Duration,
    /// How long a connection may stay without a request, or a client take to send request headers.
    pub idle_timeout: Duration,
    /// How long requests in flight may take to end at shutdown.
    pub drain_timeout: Duration,
    /// How long sealing may take at shutdown.
    pub shutdown_seal: Duration,
    /// Least severe level logged.
    pub log_level: tracing::Level,
    /// How log lines are written.
    pub log_format: LogFormat,
}

/// One option.
#[derive(Clone, Copy)]
pub struct OptionSpec {
    /// Its name in files and, after `--`, as a flag.
    pub key: &'static str,
    /// What kind of value it takes, for help.
    pub value: Value,
    /// Its default, as text that the setter takes; empty if it has none.
    pub default: &'static str,
    /// One or two sentences.
    pub help: &'static str,
    set: fn(&mut Config, &str) -> Result<(), String>,
}

impl std::fmt::Debug for OptionSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OptionSpec")
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

/// The kind of an option's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// `true` or `false`; the bare flag means `true`.
    Switch,
    /// One value, by its name in help.
    One(&'static str),
    /// Several, divided by commas; the flag may be repeated, the file may hold an array.
    List(&'static str),
}

macro_rules! option {
    ($key:literal, $value:expr, $default:expr, $help:expr, $set:expr) => {
        OptionSpec {
            key: $key,
            value: $value,
            default: $default,
            help: $help,
            set: $set,
        }
    };
}

/// All options, in the order of `--help`.
pub const OPTIONS: &[OptionSpec] = &[
    option!(
        "data-dir",
        Value::One("DIR"),
        "",
        "Directory of the store; made if it does not exist. One process at a time may use it. Required.",
        |c, v| {
            c.data_dir = PathBuf::from(v);
            if v.is_empty() {
                Err("must not be empty".to_owned())
            } else {
                Ok(())
            }
        }
    ),
    option!(
        "grpc-listen",
        Value::One("ADDR"),
        "127.0.0.1:4317",
        "Address of the gRPC port: OTLP, rootline.v1, health, reflection. Port 0 takes a free one.",
        |c, v| set(&mut c.grpc_listen, address(v))
    ),
    option!(
        "otlp-http-listen",
        Value::One("ADDR"),
        "127.0.0.1:4318",
        "Address of the OTLP/HTTP port. Port 0 takes a free one.",
        |c, v| set(&mut c.otlp_http_listen, address(v))
    ),
    option!(
        "http-listen",
        Value::One("ADDR"),
        "127.0.0.1:7668",
        "Address of the HTTP port: Prometheus remote write, health, self metrics. Port 0 takes a free one.",
        |c, v| set(&mut c.http_listen, address(v))
    ),
    option!(
        "insecure-allow-network",
        Value::Switch,
        "false",
        "Allow addresses other than loopback. Nothing is encrypted or authenticated: whoever reaches \
         the ports can read, write and delete.",
        |c, v| set(&mut c.insecure_allow_network, switch(v))
    ),
    option!(
        "allow-host",
        Value::List("NAME"),
        "",
        "Host names that requests to a loopback address may carry, beside localhost and loopback \
         addresses. Others are refused, so that a web page cannot reach the node by a name of its own.",
        |c, v| set(&mut c.allow_hosts, list(v))
    ),
    option!(
        "http-cors-origin",
        Value::List("ORIGIN"),
        "",
        "Origins, such as http://localhost:3000, that browsers may query from. Never opens writes or \
         admin paths.",
        |c, v| set(&mut c.http_cors_origins, list(v))
    ),
    option!(
        "memory-limit",
        Value::One("SIZE"),
        "75%",
        "Memory for requests, heads and queries together: bytes, a size such as 8GiB, or a percentage \
         of the machine's memory or the control group's limit. Past it writes get the transient \
         refusal.",
        |c, v| set(&mut c.memory_limit_bytes, memory(v))
    ),
    option!(
        "memory-wait",
        Value::One("TIME"),
        "5s",
        "How long a writer waits for memory that requests in flight hold before the transient refusal.",
        |c, v| set(&mut c.memory_wait, duration(v))
    ),
    option!(
        "max-request-bytes",
        Value::One("SIZE"),
        "64MiB",
        "Largest request after decompression; larger ones are refused for good.",
        |c, v| set(&mut c.max_request_bytes, positive(size(v)))
    ),
    option!(
        "durability",
        Value::One("MODE"),
        "sync",
        "sync: a write is acknowledged when the log is synced. interval=TIME: the log is synced every \
         TIME, and a crash of the machine may lose what was acknowledged since.",
        |c, v| set(&mut c.durability, durability(v))
    ),
    option!(
        "series-max",
        Value::One("N"),
        "50000000",
        "Active series: those written to since they were last sealed. Samples of further ones are refused for good.",
        |c, v| set(&mut c.series_max, count(v))
    ),
    option!(
        "series-max-per-label",
        Value::List("LABEL=N"),
        "",
        "Active series for each value of a label: tenant=100000 allows every value of tenant so many; \
         samples of further ones are refused for good. N must be above 0.",
        |c, v| set(&mut c.series_max_per_label, label_limits(v))
    ),
    option!(
        "seal-idle",
        Value::One("TIME"),
        "5m",
        "How long a window of two hours of samples, or spans, must go without a write before it is sealed into \
         blocks. Memory, log-bytes-max, a flush and a clean stop seal earlier.",
        |c, v| set(&mut c.seal_idle, positive(duration(v)))
    ),
    option!(
        "log-bytes-max",
        Value::One("SIZE"),
        "1GiB",
        "Log that samples, and likewise spans, not yet sealed may hold; past it they are sealed. Bounds the \
         replay at start.",
        |c, v| set(&mut c.log_bytes_max, positive(size(v)))
    ),
    option!(
        "retention-age",
        Value::One("TIME"),
        "off",
        "Samples older than this, and traces whose last span ended before it, are deleted, and refused for good \
         when they come; off keeps all.",
        |c, v| set(&mut c.retention_age, or_off(v, |v| positive(duration(v))))
    ),
    option!(
        "retention-bytes",
        Value::One("SIZE"),
        "off",
        "Disk that blocks may take, above 0; past it the oldest samples are deleted. off sets no bound.",
        |c, v| set(&mut c.retention_bytes, size_or_off(v))
    ),
    option!(
        "disk-reserve",
        Value::One("SIZE"),
        "64MiB",
        "Free disk space that is kept for sealing, deletes and the manifest: below it writes get the \
         transient refusal. At most 1TiB.",
        |c, v| set(
            &mut c.disk_reserve_bytes,
            at_most(DISK_RESERVE_MAX, size(v))
        )
    ),
    option!(
        "scrub-interval",
        Value::One("TIME"),
        "24h",
        "Time in which every block is read once in the background and its checksums verified; off never \
         does it.",
        |c, v| set(&mut c.scrub_interval, or_off(v, |v| positive(duration(v))))
    ),
    option!(
        "snapshot-max-age",
        Value::One("TIME"),
        "10m",
        "How long one query may hold its snapshot; then it ends with an error.",
        |c, v| set(&mut c.snapshot_max_age, duration(v))
    ),
    option!(
        "promote-resource-attributes",
        Value::List("KEY"),
        PROMOTED_ATTRIBUTES,
        "OTLP resource attributes that become labels of every series of the resource. Resources that \
         differ only in other attributes share their series.",
        |c, v| set(&mut c.promote_resource_attributes, list(v))
    ),
    option!(
        "utf8-names",
        Value::Switch,
        "false",
        "Keep UTF-8 characters in names of OTLP metrics and labels instead of replacing them by _.",
        |c, v| set(&mut c.utf8_names, switch(v))
    ),
    option!(
        "query-timeout",
        Value::One("TIME"),
        "1m",
        "Longest time of one query; a caller's own deadline may be shorter.",
        |c, v| set(&mut c.query_timeout, duration(v))
    ),
    option!(
        "query-series-max",
        Value::One("N"),
        "1000000",
        "Series that one query may select.",
        |c, v| set(&mut c.query_limits.series_max, count(v))
    ),
    option!(
        "query-samples-max",
        Value::One("N"),
        "200000000",
        "Samples that one query may read.",
        |c, v| set(&mut c.query_limits.samples_max, count(v))
    ),
    option!(
        "query-spans-max",
        Value::One("N"),
        "1000000000",
        "Spans that one query may read.",
        |c, v| set(&mut c.query_limits.spans_max, count(v))
    ),
    option!(
        "write-concurrency",
        Value::One("N"),
        "64",
        "Writes that are decoded and logged at once; those that come together share one sync.",
        |c, v| set(&mut c.write_concurrency, positive(number(v)))
    ),
    option!(
        "max-concurrent-requests",
        Value::One("N"),
        "1024",
        "Writes that may wait for their turn; further ones get the transient refusal. Also the number \
         of streams of one HTTP/2 connection.",
        |c, v| set(&mut c.max_concurrent_requests, positive(number(v)))
    ),
    option!(
        "max-connections",
        Value::One("N"),
        "1024",
        "Open connections on each port; further ones wait to be accepted.",
        |c, v| set(&mut c.max_connections, positive(number(v)))
    ),
    option!(
        "body-idle-timeout",
        Value::One("TIME"),
        "10s",
        "Longest silence inside a request body; then the request ends with 408.",
        |c, v| set(&mut c.body_idle_timeout, duration(v))
    ),
    option!(
        "body-timeout",
        Value::One("TIME"),
        "1m",
        "Longest time for a whole request body; then the request ends with 408.",
        |c, v| set(&mut c.body_timeout, duration(v))
    ),
    option!(
        "keepalive-interval",
        Value::One("TIME"),
        "30s",
        "Time between HTTP/2 keepalive pings; a peer that does not answer within 20s is closed.",
        |c, v| set(&mut c.keepalive_interval, duration(v))
    ),
    option!(
        "idle-timeout",
        Value::One("TIME"),
        "150s",
        "How long a connection may stay without a request, and a client take to send its headers.",
        |c, v| set(&mut c.idle_timeout, duration(v))
    ),
    option!(
        "drain-timeout",
        Value::One("TIME"),
        "10s",
        "How long requests in flight may take to end at shutdown.",
        |c, v| set(&mut c.drain_timeout, duration(v))
    ),
    option!(
        "shutdown-seal",
        Value::One("TIME"),
        "5s",
        "How long sealing may take at shutdown, after requests in flight have ended and the log is synced; \
         what is not sealed by then stays in the log. 0s seals nothing.",
        |c, v| set(&mut c.shutdown_seal, duration(v))
    ),
    option!(
        "log-level",
        Value::One("LEVEL"),
        "info",
        "Least severe level logged: error, warn, info, debug or trace.",
        |c, v| set(
            &mut c.log_level,
            v.parse()
                .map_err(|_| one_of("error, warn, info, debug, trace"))
        )
    ),
    option!(
        "log-format",
        Value::One("FORMAT"),
        "text",
        "How log lines are written to standard error: text or json.",
        |c, v| {
            c.log_format = match v {
                "text" => LogFormat::Text,
                "json" => LogFormat::Json,
                _ => return Err(one_of("text, json")),
            };
            Ok(())
        }
    ),
];

/// What can be wrong with a configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A file names an option that does not exist.
    #[error("{layer}: unknown key `{key}`; the nearest one is `{nearest}`")]
    UnknownKey {
        /// Where it stands.
        layer: String,
        /// As given.
        key: String,
        /// The option spelt most like it.
        nearest: &'static str,
    },
    /// A value that its option does not take.
    #[error("{layer}: `{key}` cannot be `{value}`: {reason}")]
    BadValue {
        /// Where it stands.
        layer: String,
        /// The option.
        key: &'static str,
        /// As given.
        value: String,
        /// What it must be.
        reason: String,
    },
    /// The file cannot be read.
    #[error("cannot read the configuration file {path}: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is no TOML.
    #[error("{path} is not valid TOML: {reason}")]
    NotToml {
        /// The file.
        path: PathBuf,
        /// What and where.
        reason: String,
    },
    /// No directory was given.
    #[error("no data directory: pass --data-dir DIR or set ROOTLINE_DATA_DIR")]
    NoDataDir,
    /// An address that others can reach.
    #[error(
        "`{key}` is {address}, which other machines can reach: nothing there is encrypted or \
         authenticated. Pass --insecure-allow-network to do it all the same, or listen on 127.0.0.1"
    )]
    NetworkAddress {
        /// The option.
        key: &'static str,
        /// Its value.
        address: SocketAddr,
    },
}

/// One layer's settings as text.
#[derive(Clone, Debug, Default)]
struct Layer {
    name: String,
    settings: Vec<(String, String)>,
}

impl Config {
    /// All defaults, in this directory.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut config = Self {
            data_dir: data_dir.into(),
            grpc_listen: any_port,
            otlp_http_listen: any_port,
            http_listen: any_port,
            insecure_allow_network: false,
            allow_hosts: Vec::new(),
            http_cors_origins: Vec::new(),
            memory_limit_bytes: 0,
            memory_wait: Duration::ZERO,
            max_request_bytes: 0,
            durability: Durability::Sync,
            series_max: 0,
            series_max_per_label: Vec::new(),
            seal_idle: Duration::ZERO,
            log_bytes_max: 0,
            retention_age: None,
            retention_bytes: None,
            disk_reserve_bytes: 0,
            scrub_interval: None,
            snapshot_max_age: Duration::ZERO,
            promote_resource_attributes: Vec::new(),
            utf8_names: false,
            query_timeout: Duration::ZERO,
            query_limits: QueryLimits::default(),
            write_concurrency: 1,
            max_concurrent_requests: 1,
            max_connections: 1,
            body_idle_timeout: Duration::ZERO,
            body_timeout: Duration::ZERO,
            keepalive_interval: Duration::ZERO,
            idle_timeout: Duration::ZERO,
            drain_timeout: Duration::ZERO,
            shutdown_seal: Duration::ZERO,
            log_level: tracing::Level::INFO,
            log_format: LogFormat::Text,
        };
        for option in OPTIONS {
            // A test sets every default; data-dir alone has none.
            if !option.default.is_empty() {
                let _ = (option.set)(&mut config, option.default);
            }
        }
        config
    }

    /// Puts the layers on top of each other: `file`, then `environment`, then `flags`. Returns
    /// warnings that are worth a log line.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
        flags: Vec<(String, String)>,
    ) -> Result<(Self, Vec<String>), ConfigError> {
        let mut config = Self::new(PathBuf::new());
        let mut warnings = Vec::new();
        let file = file.map(file_layer).transpose()?;
        let environment = environment_layer(environment, &mut warnings);
        let flags = Layer {
            name: "command line".to_owned(),
            settings: flags,
        };
        for layer in file.into_iter().chain([environment, flags]) {
            config.apply(&layer)?;
        }
        config.check()?;
        Ok((config, warnings))
    }

    /// The engine's share of the settings.
    pub fn engine_settings(&self) -> Settings {
        let mut settings = Settings::default();
        settings.durability = self.durability;
        settings.memory_limit_bytes = self.memory_limit_bytes;
        settings.memory_wait = self.memory_wait;
        settings.series_max = self.series_max;
        settings
            .series_max_per_label
            .clone_from(&self.series_max_per_label);
        settings.seal_idle = self.seal_idle;
        settings.log_bytes_max = self.log_bytes_max;
        settings.retention_age = self.retention_age;
        settings.retention_bytes = self.retention_bytes;
        settings.scrub_interval = self.scrub_interval;
        settings.disk_reserve_bytes = self.disk_reserve_bytes;
        settings.snapshot_max_age = self.snapshot_max_age;
        settings
    }

    /// Checks what concerns more than one option.
    ///
    /// # Errors
    /// No data directory, or an address beyond loopback without permission.
    pub fn check(&self) -> Result<(), ConfigError> {
        if self.data_dir.as_os_str().is_empty() {
            return Err(ConfigError::NoDataDir);
        }
        for (key, address) in self.listen_addresses() {
            if !address.ip().is_loopback() && !self.insecure_allow_network {
                return Err(ConfigError::NetworkAddress { key, address });
            }
        }
        Ok(())
    }

    /// The addresses by option.
    pub fn listen_addresses(&self) -> [(&'static str, SocketAddr); 3] {
        [
            ("grpc-listen", self.grpc_listen),
            ("otlp-http-listen", self.otlp_http_listen),
            ("http-listen", self.http_listen),
        ]
    }

    fn apply(&mut self, layer: &Layer) -> Result<(), ConfigError> {
        for (key, value) in &layer.settings {
            let Some(option) = OPTIONS.iter().find(|option| option.key == key) else {
                return Err(ConfigError::UnknownKey {
                    layer: layer.name.clone(),
                    key: key.clone(),
                    nearest: nearest_key(key),
                });
            };
            (option.set)(self, value.trim()).map_err(|reason| ConfigError::BadValue {
                layer: layer.name.clone(),
                key: option.key,
                value: value.clone(),
                reason,
            })?;
        }
        Ok(())
    }
}

fn file_layer(path: &Path) -> Result<Layer, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Unreadable {
        path: path.to_owned(),
        source,
    })?;
    let not_toml = |reason: String| ConfigError::NotToml {
        path: path.to_owned(),
        reason,
    };
    let table: toml::Table = text
        .parse()
        .map_err(|e: toml::de::Error| not_toml(e.to_string()))?;
    let mut settings = Vec::new();
    for (key, value) in table {
        let text = match &value {
            toml::Value::Array(values) => values
                .iter()
                .map(scalar_text)
                .collect::<Option<Vec<_>>>()
                .map(|v| v.join(",")),
            value => scalar_text(value),
        };
        let Some(text) = text else {
            // A table or a date stands where a value should; an unknown key is told first.
            if !OPTIONS.iter().any(|option| option.key == key) {
                let (layer, nearest) = (path.display().to_string(), nearest_key(&key));
                return Err(ConfigError::UnknownKey {
                    layer,
                    key,
                    nearest,
                });
            }
            return Err(not_toml(format!(
                "`{key}` must be a string, number, boolean or array"
            )));
        };
        settings.push((key, text));
    }
    Ok(Layer {
        name: path.display().to_string(),
        settings,
    })
}

fn scalar_text(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Boolean(switch) => Some(switch.to_string()),
        _ => None,
    }
}

fn environment_layer(
    variables: impl IntoIterator<Item = (String, String)>,
    warnings: &mut Vec<String>,
) -> Layer {
    let mut settings = Vec::new();
    for (name, value) in variables {
        let Some(rest) = name.strip_prefix(ENVIRONMENT_PREFIX) else {
            continue;
        };
        let key = rest.to_ascii_lowercase().replace('_', "-");
        if OPTIONS.iter().any(|o| o.key == key) && environment_name(&key) == name {
            settings.push((key, value));
        } else if !ENVIRONMENT_OTHERS.contains(&name.as_str()) {
            let nearest = environment_name(nearest_key(&key));
            warnings.push(format!(
                "environment variable {name} is not an option; the nearest one is {nearest}"
            ));
        }
    }
    Layer {
        name: "environment".to_owned(),
        settings,
    }
}

/// The environment variable of an option.
pub fn environment_name(key: &str) -> String {
    format!(
        "{ENVIRONMENT_PREFIX}{}",
        key.to_ascii_uppercase().replace('-', "_")
    )
}

fn nearest_key(key: &str) -> &'static str {
    let nearest = OPTIONS
        .iter()
        .map(|o| o.key)
        .min_by_key(|known| edit_distance(known, key));
    nearest.unwrap_or("data-dir")
}

/// Insertions, deletions and replacements that make `b` of `a`.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, cb) in row.iter_mut().skip(1).zip(&b) {
            let best = (diagonal + usize::from(ca != *cb))
                .min(left + 1)
                .min(*cell + 1);
            diagonal = *cell;
            *cell = best;
            left = best;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

fn set<T>(place: &mut T, value: Result<T, String>) -> Result<(), String> {
    *place = value?;
    Ok(())
}

fn one_of(names: &str) -> String {
    format!("it must be one of {names}")
}

fn address(text: &str) -> Result<SocketAddr, String> {
    let numeric = text
        .strip_prefix("localhost:")
        .map_or_else(|| text.to_owned(), |port| format!("127.0.0.1:{port}"));
    numeric
        .parse()
        .map_err(|_| "it must be IP:PORT, such as 127.0.0.1:4317 or [::1]:0".to_owned())
}

fn switch(text: &str) -> Result<bool, String> {
    match text {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(one_of("true, false")),
    }
}

#[expect(clippy::unnecessary_wraps, reason = "setters share one shape")]
fn list(text: &str) -> Result<Vec<String>, String> {
    Ok(text
        .split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty())
        .map(str::to_owned)
        .collect())
}

fn count(text: &str) -> Result<u64, String> {
    text.replace('_', "")
        .parse()
        .map_err(|_| "it must be a whole number".to_owned())
}

fn number(text: &str) -> Result<usize, String> {
    count(text).and_then(|n| usize::try_from(n).map_err(|e| e.to_string()))
}

fn positive<T: Default + PartialOrd>(value: Result<T, String>) -> Result<T, String> {
    value.and_then(|v| {
        if v > T::default() {
            Ok(v)
        } else {
            Err("it must be above 0".to_owned())
        }
    })
}

/// A size that must not exceed `max` bytes, a whole number of TiB.
fn at_most(max: u64, value: Result<u64, String>) -> Result<u64, String> {
    value.and_then(|v| {
        if v <= max {
            Ok(v)
        } else {
            Err(format!("it must be at most {}TiB", max >> 40))
        }
    })
}

/// Splits `12.5GiB` into its number and its unit.
fn split_unit(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.' && c != '_');
    let (number, unit) = text.split_at(end.unwrap_or(text.len()));
    (number, unit.trim())
}

/// Parses a size: a plain number is bytes, units are decimal (`MB`) or binary (`MiB`).
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let wrong = || "it must be a size, such as 1048576, 64MiB or 8GiB".to_owned();
    let (number, unit) = split_unit(text);
    let factor: u64 = match unit {
        "" | "B" => 1,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        "KiB" | "K" | "k" => 1 << 10,
        "MiB" | "M" => 1 << 20,
        "GiB" | "G" => 1 << 30,
        "TiB" | "T" => 1 << 40,
        _ => return Err(wrong()),
    };
    if let Ok(whole) = count(number) {
        return whole
            .checked_mul(factor)
            .ok_or_else(|| "it is too large".to_owned());
    }
    let bytes = number.parse::<f64>().map_err(|_| wrong())? * factor as f64;
    float_to_u64(bytes).ok_or_else(wrong)
}

fn memory(text: &str) -> Result<u64, String> {
    let Some(percent) = text.strip_suffix('%') else {
        return positive(size(text));
    };
    let percent: f64 = percent
        .trim()
        .parse()
        .map_err(|_| "it must be a percentage".to_owned())?;
    if !(percent > 0.0 && percent <= 100.0) {
        return Err("it must be above 0% and at most 100%".to_owned());
    }
    let bytes = memory_limit::available_bytes() as f64 * percent / 100.0;
    float_to_u64(bytes).ok_or_else(|| "it is too large".to_owned())
}

/// Parses a time: `250ms`, `10s`, `5m`, `1h`, `7d`. A unit is required.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "it must be a time with its unit, such as 250ms, 10s, 5m or 1h".to_owned();
    let (number, unit) = split_unit(text);
    let seconds_per_unit = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        "d" => 86400.0,
        _ => return Err(wrong()),
    };
    let number: f64 = number.replace('_', "").parse().map_err(|_| wrong())?;
    Duration::try_from_secs_f64(number * seconds_per_unit).map_err(|_| wrong())
}

/// `off` and `0` are `None`; else what `parse` says.
fn or_off<T>(
    text: &str,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Result<Option<T>, String> {
    match text {
        "off" | "0" => Ok(None),
        text => parse(text)
            .map(Some)
            .map_err(|reason| format!("{reason}, or off")),
    }
}

/// `off` is `None`. Unlike `or_off`, 0 is refused: of a bound on size it could as well mean that nothing
/// is to be kept.
fn size_or_off(text: &str) -> Result<Option<u64>, String> {
    match text {
        "off" => Ok(None),
        text => positive(size(text))
            .map(Some)
            .map_err(|reason| format!("{reason}, or off")),
    }
}

/// `label=N, ...`; the last of two limits on one label holds.
fn label_limits(text: &str) -> Result<Vec<(String, u64)>, String> {
    let mut limits: Vec<(String, u64)> = Vec::new();
    for item in list(text)? {
        // A label name may hold `=` itself; the number after the last one cannot.
        let (label, max) = item
            .rsplit_once('=')
            .ok_or_else(|| format!("{item:?} is not of the form label=N"))?;
        let (label, max) = (label.trim(), count(max.trim())?);
        if label.is_empty() {
            return Err(format!("{item:?} names no label"));
        }
        if max == 0 {
            return Err(format!(
                "{item:?} would refuse every series with the label: N must be above 0"
            ));
        }
        limits.retain(|(known, _)| known != label);
        limits.push((label.to_owned(), max));
    }
    Ok(limits)
}

fn durability(text: &str) -> Result<Durability, String> {
    match text.split_once('=') {
        None if text == "sync" => Ok(Durability::Sync),
        None if text == "interval" => Ok(Durability::Interval(Duration::from_millis(100))),
        Some(("interval", time)) => positive(duration(time)).map(Durability::Interval),
        _ => Err("it must be sync or interval=TIME, such as interval=100ms".to_owned()),
    }
}

fn float_to_u64(value: f64) -> Option<u64> {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "range checked; fractions of a byte do not matter"
    )]
    (value >= 0.0 && value < u64::MAX as f64).then_some(value as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    }

    fn load_file(text: &str) -> Result<Config, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rootline.toml");
        std::fs::write(&path, text).unwrap();
        Config::load(Some(&path), [], flags(&[("data-dir", "d")])).map(|(config, _)| config)
    }

    #[test]
    fn every_default_is_accepted_by_its_own_setter() {
        for option in OPTIONS
            .iter()
            .filter(|o| !o.default.is_empty() || o.key != "data-dir")
        {
            let mut config = Config::new("d");
            let set = (option.set)(&mut config, option.default);
            assert_eq!(set, Ok(()), "{}", option.key);
        }
    }

    #[test]
    fn flags_beat_the_environment_which_beats_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rootline.toml");
        std::fs::write(
            &path,
            "memory-limit = \"1GiB\"\nseries-max = 1\nquery-timeout = \"3s\"\nutf8-names = true\n\
             allow-host = [\"a\", \"b\"]\n",
        )
        .unwrap();
        let environment = flags(&[
            ("ROOTLINE_SERIES_MAX", "2"),
            ("ROOTLINE_QUERY_TIMEOUT", "4s"),
        ]);
        let given = flags(&[("query-timeout", "5s"), ("data-dir", "d")]);
        let (config, warnings) = Config::load(Some(&path), environment, given).unwrap();
        assert_eq!(warnings, Vec::<String>::new());
        assert_eq!(config.memory_limit_bytes, 1 << 30);
        assert_eq!(config.series_max, 2);
        assert_eq!(config.query_timeout, Duration::from_secs(5));
        assert!(config.utf8_names);
        assert_eq!(config.allow_hosts, ["a", "b"]);
    }

    #[test]
    fn an_unknown_key_is_named_with_its_nearest_match() {
        let error = load_file("memory-limt = 1").unwrap_err().to_string();
        assert!(
            error.contains("`memory-limt`") && error.contains("`memory-limit`"),
            "{error}"
        );
        let error = load_file("[querry-timeout]\nx = 1")
            .unwrap_err()
            .to_string();
        assert!(error.contains("`query-timeout`"), "{error}");
    }

    #[test]
    fn a_stray_variable_is_a_warning() {
        let environment = flags(&[("ROOTLINE_SERIES_MXA", "2"), ("ROOTLINE_ENDPOINT", "x")]);
        let (_, warnings) = Config::load(None, environment, flags(&[("data-dir", "d")])).unwrap();
        assert_eq!(warnings.len(), 1);
        assert!(warnings[0].contains("ROOTLINE_SERIES_MAX"), "{warnings:?}");
    }

    #[test]
    fn a_bad_value_names_option_layer_and_what_it_must_be() {
        let error = load_file("max-request-bytes = \"64 gallons\"")
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("rootline.toml") && error.contains("such as"),
            "{error}"
        );
        assert!(load_file("max-request-bytes = 0").is_err());
        assert!(load_file("durability = \"never\"").is_err());
        assert!(load_file("memory-limit = \"101%\"").is_err());
    }

    #[test]
    fn addresses_beyond_loopback_need_permission() {
        let network = ("http-listen", "0.0.0.0:0");
        let error = Config::load(None, [], flags(&[("data-dir", "d"), network])).unwrap_err();
        assert!(error.to_string().contains("--insecure-allow-network"));
        let allowed = flags(&[
            ("data-dir", "d"),
            network,
            ("insecure-allow-network", "true"),
        ]);
        assert!(Config::load(None, [], allowed).is_ok());
    }

    #[test]
    fn sizes_and_times_are_read_as_people_write_them() {
        assert_eq!(size("1_048_576"), Ok(1 << 20));
        assert_eq!(size("1.5GiB"), Ok(3 << 29));
        assert_eq!(size("64 MB"), Ok(64_000_000));
        assert!(size("-1").is_err() && size("1e400GiB").is_err() && size("").is_err());
        assert_eq!(duration("100ms"), Ok(Duration::from_millis(100)));
        assert!(duration("10").is_err() && duration("1e99d").is_err());
        assert_eq!(
            durability("interval=250ms"),
            Ok(Durability::Interval(Duration::from_millis(250)))
        );
        assert_eq!(address("localhost:0"), address("127.0.0.1:0"));
    }

    #[test]
    fn what_can_be_off_is_off_by_word_or_nought() {
        for text in ["off", "0"] {
            let age = ("retention-age", text);
            let given = flags(&[("data-dir", "d"), age, ("scrub-interval", text)]);
            let (config, _) = Config::load(None, [], given).unwrap();
            assert_eq!((config.retention_age, config.scrub_interval), (None, None));
        }
        let given = flags(&[
            ("data-dir", "d"),
            ("retention-age", "30d"),
            ("retention-bytes", "2GiB"),
        ]);
        let (config, _) = Config::load(None, [], given).unwrap();
        assert_eq!(config.retention_age, Some(Duration::from_hours(720)));
        assert_eq!(config.retention_bytes, Some(2 << 30));
        let error = load_file("retention-age = \"never\"").unwrap_err();
        assert!(error.to_string().contains("or off"), "{error}");
    }

    #[test]
    fn limits_by_label_are_a_list_of_pairs() {
        assert_eq!(
            label_limits("tenant=100_000, job = 5,tenant=7"),
            Ok(vec![("job".to_owned(), 5), ("tenant".to_owned(), 7)])
        );
        assert_eq!(label_limits(""), Ok(Vec::new()));
        for wrong in ["tenant", "=5", "tenant=", "tenant=many", "tenant=0"] {
            assert!(label_limits(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_bound_on_bytes_of_nought_is_refused() {
        for text in ["0", "0B", "0.0GiB"] {
            let error = load_file(&format!("retention-bytes = \"{text}\"")).unwrap_err();
            assert!(
                error.to_string().contains("above 0, or off"),
                "{text}: {error}"
            );
        }
        assert_eq!(
            load_file("retention-bytes = \"off\"")
                .unwrap()
                .retention_bytes,
            None
        );
    }

    #[test]
    fn the_disk_reserve_has_an_upper_bound() {
        let reserve = |text: &str| {
            load_file(&format!("disk-reserve = \"{text}\"")).map(|c| c.disk_reserve_bytes)
        };
        assert_eq!(reserve("1TiB").unwrap(), 1 << 40);
        assert_eq!(reserve("0").unwrap(), 0);
        for text in ["1025GiB", "18446744073709551615"] {
            let error = reserve(text).unwrap_err();
            assert!(error.to_string().contains("at most 1TiB"), "{error}");
        }
    }

    #[test]
    fn a_directory_is_required() {
        assert!(matches!(
            Config::load(None, [], vec![]),
            Err(ConfigError::NoDataDir)
        ));
    }

    /// The page that explains the options, and the row of each in it.
    #[test]
    fn the_operations_page_explains_every_option_as_help_does() {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/operations.md");
        let page = std::fs::read_to_string(page).unwrap();
        for option in OPTIONS {
            let value = match option.value {
                Value::Switch => "true or false".to_owned(),
                Value::One(name) => name.to_owned(),
                Value::List(name) => format!("{name}, ..."),
            };
            let default = match option.default {
                "" => String::new(),
                default => format!("`{}`", default.replace(',', ", ")),
            };
            let row = format!(
                "| `{}` | {value} | {default} | {} |",
                option.key, option.help
            );
            assert!(
                page.lines().any(|line| line == row),
                "docs/operations.md lacks: {row}"
            );
        }
    }
}
