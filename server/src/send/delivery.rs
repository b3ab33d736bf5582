//! One file's requests, sent in order and tried again where that helps.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::{Mutex, mpsc},
    task::JoinSet,
    time::Instant,
};

use super::{
    Options,
    answer::Answer,
    error::{Error, chain},
    grpc::OtlpGrpc,
    http::HttpPost,
    kind::Kind,
    source::{Request, Source},
    tally::Tally,
    target::{HttpTarget, OtlpProtocol},
};

/// Requests read ahead of the one being sent: enough to keep decompression off the path.
const QUEUE_REQUESTS: usize = 2;
/// First wait before another try; it doubles up to the largest.
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
/// Largest wait, also of one that the other side asks for.
const BACKOFF_MAX: Duration = Duration::from_secs(10);

/// Where each kind goes, and how patiently.
pub(crate) struct Targets {
    grpc: OtlpGrpc,
    traces: HttpTarget,
    metrics: HttpTarget,
    remote_write: HttpTarget,
    protocol: OtlpProtocol,
    retry_for: Duration,
    timeout: Duration,
    request_bytes_max: u64,
}

impl Targets {
    pub(crate) fn new(options: &Options) -> Result<Self, Error> {
        let otlp_http = |suffix| HttpTarget::parse("--otlp-http", &options.otlp_http, suffix);
        Ok(Self {
            grpc: OtlpGrpc::new(&options.endpoint, options.timeout)?,
            traces: otlp_http("/v1/traces")?,
            metrics: otlp_http("/v1/metrics")?,
            remote_write: HttpTarget::parse("--remote-write", &options.remote_write, "")?,
            protocol: options.protocol,
            retry_for: options.retry_for,
            timeout: options.timeout,
            request_bytes_max: options.request_bytes_max,
        })
    }
}

/// Sends all of `file`, with `workers` requests in flight.
pub(crate) async fn send_file(
    file: &str,
    shift_ns: Option<i64>,
    targets: &Arc<Targets>,
    tally: &Arc<Tally>,
    workers: usize,
) -> Result<(), Error> {
    let (queue, requests) = mpsc::channel(QUEUE_REQUESTS);
    let reader = tokio::task::spawn_blocking({
        let (file, tally, max) = (
            file.to_owned(),
            Arc::clone(tally),
            targets.request_bytes_max,
        );
        move || read(&file, shift_ns, max, &tally, &queue)
    });
    let requests = Arc::new(Mutex::new(requests));
    let mut sending = JoinSet::new();
    for _ in 0..workers {
        let (requests, file) = (Arc::clone(&requests), file.to_owned());
        let mut worker = Worker {
            file,
            clients: Clients::new(targets),
            tally: Arc::clone(tally),
        };
        sending.spawn(async move {
            loop {
                let request = requests.lock().await.recv().await;
                let Some(request) = request else {
                    return Ok(());
                };
                if let Err(error) = worker.send(request).await {
                    // The reader and the other workers of this file stop as well.
                    requests.lock().await.close();
                    return Err(error);
                }
            }
        });
    }
    let mut first_error = Ok(());
    while let Some(joined) = sending.join_next().await {
        let sent = joined.unwrap_or_else(|_| {
            Err(Error::ReaderLost {
                file: file.to_owned(),
            })
        });
        if first_error.is_ok() {
            first_error = sent;
        }
    }
    // What was read before the damage is sent; the damage is reported after that.
    let read = reader.await.unwrap_or_else(|_| {
        Err(Error::ReaderLost {
            file: file.to_owned(),
        })
    });
    first_error.and(read)
}

fn read(
    file: &str,
    shift_ns: Option<i64>,
    request_bytes_max: u64,
    tally: &Tally,
    queue: &mpsc::Sender<Request>,
) -> Result<(), Error> {
    let mut source = Source::open(file, request_bytes_max, Arc::clone(&tally.read_bytes))?;
    while let Some(mut request) = source.next_request()? {
        if let Some(shift_ns) = shift_ns {
            request.shift(shift_ns);
        }
        if queue.blocking_send(request).is_err() {
            break;
        }
    }
    Ok(())
}

/// Connections of one worker.
struct Clients {
    targets: Arc<Targets>,
    traces: HttpPost,
    metrics: HttpPost,
    remote_write: HttpPost,
    snappy: snap::raw::Encoder,
}

impl Clients {
    fn new(targets: &Arc<Targets>) -> Self {
        let post = |target: &HttpTarget| HttpPost::new(target.clone(), targets.timeout);
        Self {
            traces: post(&targets.traces),
            metrics: post(&targets.metrics),
            remote_write: post(&targets.remote_write),
            snappy: snap::raw::Encoder::new(),
            targets: Arc::clone(targets),
        }
    }

    /// The HTTP side for `kind`; `None` if it goes over gRPC.
    fn http(&mut self, kind: Kind) -> Option<&mut HttpPost> {
        match (kind, self.targets.protocol) {
            (Kind::Traces | Kind::Metrics, OtlpProtocol::Grpc) => None,
            (Kind::Traces | Kind::TracesJson, _) => Some(&mut self.traces),
            (Kind::Metrics | Kind::MetricsJson, _) => Some(&mut self.metrics),
            (Kind::RemoteWrite, _) => Some(&mut self.remote_write),
        }
    }

    fn url(&mut self, kind: Kind) -> String {
        match self.http(kind) {
            Some(http) => http.target.url.clone(),
            None => self.targets.grpc.url.clone(),
        }
    }

    async fn send(&mut self, kind: Kind, body: Bytes) -> Answer {
        match self.http(kind) {
            Some(http) => http.post(kind, body).await,
            None => self.targets.grpc.export(kind, body).await,
        }
    }
}

struct Worker {
    file: String,
    clients: Clients,
    tally: Arc<Tally>,
}

impl Worker {
    async fn send(&mut self, request: Request) -> Result<(), Error> {
        let Request {
            kind,
            body,
            offset_bytes,
            found,
        } = request;
        let body_bytes = body.len() as u64;
        let body = match kind {
            Kind::RemoteWrite => {
                let compressed = self.clients.snappy.compress_vec(&body);
                compressed.map_err(|e| Error::Unrecognised {
                    file: self.file.clone(),
                    offset_bytes,
                    reason: chain(&e),
                })?
            }
            _ => body,
        };
        let body = Bytes::from(body);
        let mut patience = Patience::new(self.clients.targets.retry_for);
        loop {
            match self.clients.send(kind, body.clone()).await {
                Answer::Stored => {
                    self.tally.stored(found.counts, body_bytes, 0, "");
                    return Ok(());
                }
                Answer::Partial { rejected, reason } => {
                    self.tally
                        .stored(found.counts, body_bytes, rejected, &reason);
                    return Ok(());
                }
                Answer::Refused { reason } => {
                    self.tally.refused(body_bytes, &reason);
                    return Ok(());
                }
                Answer::NotTaken { reason } => {
                    return Err(Error::NotTaken {
                        file: self.file.clone(),
                        url: self.clients.url(kind),
                        kind: kind.name(),
                        reason,
                    });
                }
                Answer::Later { reason, wait } => {
                    if !patience.wait(wait).await {
                        return Err(Error::GaveUp {
                            file: self.file.clone(),
                            offset_bytes,
                            url: self.clients.url(kind),
                            after: patience.spent(),
                            answered: wait.is_some(),
                            reason,
                        });
                    }
                    self.tally.retries.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }
}

/// How much longer a request is tried again.
struct Patience {
    began: Instant,
    limit: Duration,
    backoff: Duration,
}

impl Patience {
    fn new(limit: Duration) -> Self {
        Self {
            began: Instant::now(),
            limit,
            backoff: BACKOFF_FIRST,
        }
    }

    fn spent(&self) -> Duration {
        self.began.elapsed()
    }

    /// Waits for as long as asked, or else a little longer each time; `false` if that is too long.
    async fn wait(&mut self, asked: Option<Duration>) -> bool {
        let wait = asked.unwrap_or(self.backoff).min(BACKOFF_MAX);
        if self.spent() + wait > self.limit {
            return false;
        }
        tokio::time::sleep(wait).await;
        self.backoff = (self.backoff * 2).min(BACKOFF_MAX);
        true
    }
}

/// A connection for requests that are made on the spot: OTLP/gRPC with the same patience.
pub struct Delivery {
    grpc: OtlpGrpc,
    retry_for: Duration,
}

impl Delivery {
    /// To the node at `endpoint`; connects when it is first used. Must be called within a tokio
    /// runtime.
    ///
    /// # Errors
    /// [`Error::BadUrl`].
    pub fn new(endpoint: &str) -> Result<Self, Error> {
        let grpc = OtlpGrpc::new(endpoint, Options::TIMEOUT_DEFAULT)?;
        Ok(Self {
            grpc,
            retry_for: Options::RETRY_FOR_DEFAULT,
        })
    }

    /// Sends a serialized `ExportTraceServiceRequest`; all of it must be stored.
    ///
    /// # Errors
    /// If it was not.
    pub async fn traces(&self, body: Bytes) -> Result<(), Error> {
        self.export(Kind::Traces, body).await
    }

    /// Sends a serialized `ExportMetricsServiceRequest`; all of it must be stored.
    ///
    /// # Errors
    /// If it was not.
    pub async fn metrics(&self, body: Bytes) -> Result<(), Error> {
        self.export(Kind::Metrics, body).await
    }

    async fn export(&self, kind: Kind, body: Bytes) -> Result<(), Error> {
        let mut patience = Patience::new(self.retry_for);
        let file = "a request made on the spot";
        loop {
            match self.grpc.export(kind, body.clone()).await {
                Answer::Stored => return Ok(()),
                Answer::Later { reason, wait } => {
                    if !patience.wait(wait).await {
                        return Err(Error::GaveUp {
                            file: file.to_owned(),
                            offset_bytes: 0,
                            url: self.grpc.url.clone(),
                            after: patience.spent(),
                            answered: wait.is_some(),
                            reason,
                        });
                    }
                }
                Answer::Partial { reason, .. }
                | Answer::Refused { reason }
                | Answer::NotTaken { reason } => {
                    return Err(Error::NotTaken {
                        file: file.to_owned(),
                        url: self.grpc.url.clone(),
                        kind: kind.name(),
                        reason,
                    });
                }
            }
        }
    }
}
