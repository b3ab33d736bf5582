//! A running node: the real binary on free ports over a directory that outlives it.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::{binary, http};

/// How long a node may take to get ready, a large replay by a debug build included.
const READY_TIMEOUT: Duration = Duration::from_mins(3);

/// A node. Killed when dropped.
#[derive(Debug)]
pub struct Node {
    child: Child,
    /// gRPC: OTLP and `rootline.v1`.
    pub grpc: SocketAddr,
    /// OTLP/HTTP.
    pub otlp_http: SocketAddr,
    /// Remote write, health, self metrics.
    pub http: SocketAddr,
    log: Arc<Log>,
}

/// What the node wrote to standard error so far.
#[derive(Debug, Default)]
struct Log {
    state: Mutex<LogState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct LogState {
    lines: Vec<String>,
    closed: bool,
}

impl Log {
    fn lock(&self) -> MutexGuard<'_, LogState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn follow(self: &Arc<Self>, stderr: impl std::io::Read + Send + 'static) {
        let log = Arc::clone(self);
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).split(b'\n') {
                let Ok(line) = line else { break };
                log.lock()
                    .lines
                    .push(String::from_utf8_lossy(&line).into_owned());
                log.changed.notify_all();
            }
            log.lock().closed = true;
            log.changed.notify_all();
        });
    }

    /// The first line of which `find` makes something; `None` if the log ended or time ran out.
    fn wait<T>(&self, timeout: Duration, find: impl Fn(&str) -> Option<T>) -> Option<T> {
        let mut found = None;
        let _ = self
            .changed
            .wait_timeout_while(self.lock(), timeout, |state| {
                found = state.lines.iter().find_map(|line| find(line));
                found.is_none() && !state.closed
            })
            .unwrap_or_else(PoisonError::into_inner);
        found
    }
}

impl Node {
    /// The command that serves `dir` on free ports.
    pub fn command(dir: &Path) -> Command {
        Self::command_on(dir, ["127.0.0.1:0"; 3])
    }

    /// The command that serves `dir` on these addresses: gRPC, OTLP/HTTP, HTTP.
    pub fn command_on(dir: &Path, addresses: [&str; 3]) -> Command {
        let mut command = binary::command();
        command.arg("serve").arg("--data-dir").arg(dir);
        let options = ["--grpc-listen", "--otlp-http-listen", "--http-listen"];
        for (option, address) in options.into_iter().zip(addresses) {
            command.args([option, address]);
        }
        command
    }

    /// Starts a node over `dir` and waits until it is ready.
    pub fn start(dir: &Path) -> Self {
        Self::start_with(dir, &[])
    }

    /// The same with more options.
    pub fn start_with(dir: &Path, options: &[&str]) -> Self {
        let mut command = Self::command(dir);
        command.args(options);
        Self::spawn(command)
    }

    /// Runs any command that ends in a ready line, such as `rootline demo`.
    ///
    /// # Panics
    /// If the node does not get ready; with what it said.
    pub fn spawn(command: Command) -> Self {
        Self::spawn_to(command, Stdio::null())
    }

    /// The same, with its standard output going somewhere.
    ///
    /// # Panics
    /// As [`spawn`](Self::spawn).
    pub fn spawn_to(mut command: Command, stdout: Stdio) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(Stdio::piped())
            .spawn()
            .expect("the node's binary runs");
        let log = Arc::new(Log::default());
        log.follow(child.stderr.take().expect("stderr is piped"));
        let Some([grpc, otlp_http, http]) = log.wait(READY_TIMEOUT, ready_line) else {
            let _ = child.kill();
            let status = child.wait();
            panic!(
                "the node did not get ready ({status:?}):\n{}",
                log.lock().lines.join("\n")
            )
        };
        Self {
            child,
            grpc,
            otlp_http,
            http,
            log,
        }
    }

    /// Runs `command` to its end, for nodes that are expected to refuse to start.
    ///
    /// # Panics
    /// If it does not run.
    pub fn fail(mut command: Command) -> Output {
        command
            .stdin(Stdio::null())
            .output()
            .expect("the node's binary runs")
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The gRPC endpoint as a URL.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.grpc)
    }

    /// What the node wrote to standard error so far.
    pub fn log(&self) -> String {
        self.log.lock().lines.join("\n")
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().expect("the node is there to be killed");
        self.child.wait().expect("the node ends");
    }

    /// Sends a signal by name, as `kill -NAME` does.
    ///
    /// # Panics
    /// If there is no `kill` command.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .arg(format!("-{name}"))
            .arg(self.pid().to_string())
            .status()
            .expect("there is a kill command");
        assert!(status.success());
    }

    /// SIGTERM; answers how the node ended, and what it wrote to standard error.
    pub fn terminate(mut self) -> (ExitStatus, String) {
        self.signal("TERM");
        let status = self.child.wait().expect("the node ends");
        self.log.wait(Duration::from_secs(10), |_| None::<()>);
        (status, self.log())
    }

    /// Whether the process still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Runs the command line against this node.
    ///
    /// # Panics
    /// If the binary does not run.
    pub fn cli(&self, args: &[&str]) -> Output {
        self.cli_command(args).output().expect("the binary runs")
    }

    /// The same command, not yet run.
    pub fn cli_command(&self, args: &[&str]) -> Command {
        let mut command = binary::command();
        command
            .args(args)
            .stdin(Stdio::null())
            .env("ROOTLINE_ENDPOINT", self.endpoint());
        command
    }

    /// The standard output of a command that must succeed, as JSON.
    ///
    /// # Panics
    /// If it does not, or does not print JSON.
    pub fn cli_json(&self, args: &[&str]) -> serde_json::Value {
        let output = self.cli(args);
        let stdout = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success(),
            "rootline {} failed:\n{stdout}\n{}",
            args.join(" "),
            String::from_utf8_lossy(&output.stderr)
        );
        serde_json::from_str(&stdout)
            .unwrap_or_else(|e| panic!("rootline {}: {e} in {stdout}", args.join(" ")))
    }

    /// Runs `rootline send` with this node's ports.
    pub fn send(&self, args: &[&str]) -> Output {
        let otlp_http = format!("http://{}", self.otlp_http);
        let remote_write = format!("http://{}/api/v1/write", self.http);
        let mut all = vec![
            "send",
            "--otlp-http",
            &otlp_http,
            "--remote-write",
            &remote_write,
        ];
        all.extend(args);
        self.cli(&all)
    }

    /// Whether the node answers its health check.
    pub fn is_healthy(&self) -> bool {
        http::get(self.http, "/health").is_ok_and(|r| r.status == 200)
    }

    /// Resident memory in bytes; `None` where there is no `/proc`.
    pub fn resident_bytes(&self) -> Option<u64> {
        self.status_bytes("VmRSS:")
    }

    /// Resident memory that no file backs; `None` where there is no `/proc`.
    pub fn anonymous_bytes(&self) -> Option<u64> {
        self.status_bytes("RssAnon:")
    }

    fn status_bytes(&self, key: &str) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).ok()?;
        let line = status.lines().find(|line| line.starts_with(key))?;
        let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
        Some(kib * 1024)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the node said:\n{}", self.log());
        }
    }
}

/// The addresses in `rootline ready grpc=ADDR otlp_http=ADDR http=ADDR`.
fn ready_line(line: &str) -> Option<[SocketAddr; 3]> {
    let rest = line.strip_prefix("rootline ready ")?;
    let mut words = rest.split(' ');
    let mut next = |key: &str| words.next()?.strip_prefix(key)?.parse().ok();
    Some([next("grpc=")?, next("otlp_http=")?, next("http=")?])
}
