//! Running a question: off the async threads, bounded, stoppable.
//!
//! - A bounded number run at once ([`ANSWERS_MAX`], [`STREAMS_MAX`], [`COMMANDS_MAX`]); more wait for
//!   their turn, no longer than their deadline. So slow readers of streams can take the blocking pool
//!   neither from writers nor from short questions, and a node that answers many can still be emptied.
//! - The deadline is the caller's `grpc-timeout`, at most the node's `query-timeout`; waiting for a
//!   slow reader counts.
//! - When the caller goes away, tonic drops the future or the stream, and with it [`Stop`], which
//!   cancels the query at its next check.
//! - What a query holds is booked on the memory budget: by [`Memory`] while it computes, and
//!   [`STREAM_BYTES`] for what a stream has under way.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use rootline_engine::{Engine, QueryControl, Snapshot};
use rootline_query::Memory;
use tokio::{
    runtime::Handle,
    sync::{Semaphore, mpsc},
};
use tokio_stream::Stream;
use tonic::{Response, Status, metadata::MetadataMap};

use crate::{
    node::NodeState,
    refusal::{Refusal, RefusalKind},
    self_metrics::Protocol,
};

/// Questions with one message as answer that run at once. Each holds a thread of the blocking pool;
/// writers need theirs.
const ANSWERS_MAX: usize = 32;
/// Streams that are made at once, each as long as its reader takes.
const STREAMS_MAX: usize = 64;
/// Deletes and other commands that run at once.
const COMMANDS_MAX: usize = 8;
/// Messages of a stream that wait for their reader.
const STREAM_MESSAGES: usize = 2;
/// What a stream's messages under way may hold: those that wait, the one being made and the one being
/// sent, of about [`MESSAGE_BYTES`] each.
const STREAM_BYTES: u64 = (STREAM_MESSAGES as u64 + 2) * MESSAGE_BYTES as u64;
/// Size from which a message of a stream is sent. A single item may be larger.
pub(super) const MESSAGE_BYTES: usize = 1 << 20;
/// How long a blocked sender waits before it looks whether it should stop.
const SEND_LOOK: Duration = Duration::from_millis(20);

/// Runs questions. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Queries {
    node: Arc<NodeState>,
    answers: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    commands: Arc<Semaphore>,
}

/// What a running question has to work with.
pub(super) struct Query {
    pub(super) engine: Engine,
    pub(super) snapshot: Snapshot,
    pub(super) control: QueryControl,
    pub(super) memory: Memory,
}

/// What a running command has to work with. No snapshot: an open one would keep in memory what a
/// delete hides.
pub(super) struct Command {
    pub(super) engine: Engine,
    pub(super) control: QueryControl,
    pub(super) memory: Memory,
}

/// Cancels a query when dropped.
#[derive(Debug)]
struct Stop(QueryControl);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

impl Queries {
    pub(super) fn new(node: Arc<NodeState>) -> Self {
        Self {
            node,
            answers: Arc::new(Semaphore::new(ANSWERS_MAX)),
            streams: Arc::new(Semaphore::new(STREAMS_MAX)),
            commands: Arc::new(Semaphore::new(COMMANDS_MAX)),
        }
    }

    /// Answers with one message.
    pub(super) async fn unary<T, F>(
        &self,
        kind: &'static str,
        metadata: &MetadataMap,
        answer: F,
    ) -> Result<Response<T>, Status>
    where
        T: Send + 'static,
        F: FnOnce(&mut Query) -> Result<T, Refusal> + Send + 'static,
    {
        let answer = |engine: &Engine, control| run(engine, control, answer);
        self.on_blocking(kind, &self.answers, metadata, answer)
            .await
    }

    /// Carries out a command, without a snapshot.
    pub(super) async fn command<T, F>(
        &self,
        kind: &'static str,
        metadata: &MetadataMap,
        command: F,
    ) -> Result<Response<T>, Status>
    where
        T: Send + 'static,
        F: FnOnce(&mut Command) -> Result<T, Refusal> + Send + 'static,
    {
        self.on_blocking(kind, &self.commands, metadata, carry_out(command))
            .await
    }

    /// Carries out a command that takes long, without a snapshot. Deletes do not wait for it.
    pub(super) async fn upkeep<T, F>(
        &self,
        kind: &'static str,
        metadata: &MetadataMap,
        command: F,
    ) -> Result<Response<T>, Status>
    where
        T: Send + 'static,
        F: FnOnce(&mut Command) -> Result<T, Refusal> + Send + 'static,
    {
        let turns = Arc::clone(self.node.upkeep_turns());
        self.on_blocking(kind, &turns, metadata, carry_out(command))
            .await
    }

    async fn on_blocking<T, F>(
        &self,
        kind: &'static str,
        turns: &Arc<Semaphore>,
        metadata: &MetadataMap,
        work: F,
    ) -> Result<Response<T>, Status>
    where
        T: Send + 'static,
        F: FnOnce(&Engine, QueryControl) -> Result<T, Refusal> + Send + 'static,
    {
        let control = self.node.query_control(grpc_timeout(metadata)?);
        let _stop = Stop(control.clone());
        let (node, begun) = (Arc::clone(&self.node), self.node.clock().monotonic());
        let turn = turn(turns, &control)
            .await
            .map_err(|refusal| refused(&node, &refusal))?;
        let answered = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            let engine = node.engine()?.clone();
            let answer = work(&engine, control);
            let elapsed = node.clock().monotonic().saturating_sub(begun);
            node.metrics().queried(kind, answer.is_ok(), elapsed);
            answer
        })
        .await
        .unwrap_or_else(|panic| Err(failed(kind, &panic)));
        answered
            .map(Response::new)
            .map_err(|refusal| refused(&self.node, &refusal))
    }

    /// Answers with a stream of messages, made while they are read.
    pub(super) async fn stream<T, F>(
        &self,
        kind: &'static str,
        metadata: &MetadataMap,
        answer: F,
    ) -> Result<Response<Answers<T>>, Status>
    where
        T: Send + 'static,
        F: FnOnce(&mut Query, &Sender<T>) -> Result<(), Refusal> + Send + 'static,
    {
        let control = self.node.query_control(grpc_timeout(metadata)?);
        let stop = Stop(control.clone());
        let (node, begun) = (Arc::clone(&self.node), self.node.clock().monotonic());
        let engine = node
            .engine()
            .map_err(|refusal| refused(&node, &refusal))?
            .clone();
        let turn = turn(&self.streams, &control)
            .await
            .map_err(|refusal| refused(&node, &refusal))?;
        let (messages, receiver) = mpsc::channel(STREAM_MESSAGES);
        let sender = Sender {
            messages,
            control: control.clone(),
            handle: Handle::current(),
        };
        let task = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            let answered = run(&engine, control, |query| {
                query.memory.take(STREAM_BYTES)?;
                answer(query, &sender)
            });
            let elapsed = node.clock().monotonic().saturating_sub(begun);
            node.metrics().queried(kind, answered.is_ok(), elapsed);
            if let Err(refusal) = answered {
                sender.end(refused(&node, &refusal));
            }
        });
        Ok(Response::new(Answers {
            kind,
            receiver,
            task: Some(task),
            _stop: stop,
        }))
    }
}

fn carry_out<T>(
    command: impl FnOnce(&mut Command) -> Result<T, Refusal>,
) -> impl FnOnce(&Engine, QueryControl) -> Result<T, Refusal> {
    |engine: &Engine, control: QueryControl| {
        control.check()?;
        command(&mut Command {
            memory: Memory::new(engine.budget()),
            engine: engine.clone(),
            control,
        })
    }
}

async fn turn(
    turns: &Arc<Semaphore>,
    control: &QueryControl,
) -> Result<tokio::sync::OwnedSemaphorePermit, Refusal> {
    let mut turn = std::pin::pin!(Arc::clone(turns).acquire_owned());
    loop {
        match tokio::time::timeout(SEND_LOOK, &mut turn).await {
            Ok(Ok(permit)) => return Ok(permit),
            Ok(Err(_)) => return Err(Refusal::overloaded("the node takes no more questions")),
            Err(_) => control.check()?,
        }
    }
}

fn run<T>(
    engine: &Engine,
    control: QueryControl,
    answer: impl FnOnce(&mut Query) -> Result<T, Refusal>,
) -> Result<T, Refusal> {
    control.check()?;
    let memory = Memory::new(engine.budget());
    let snapshot = engine.snapshot()?;
    answer(&mut Query {
        engine: engine.clone(),
        snapshot,
        control,
        memory,
    })
}

fn refused(node: &NodeState, refusal: &Refusal) -> Status {
    node.metrics().refused(Protocol::Api, refusal);
    refusal.to_grpc()
}

fn failed(kind: &'static str, panic: &tokio::task::JoinError) -> Refusal {
    tracing::error!(error = %panic, question = kind, "a query failed in an unexpected way");
    Refusal::new(
        RefusalKind::Internal,
        "the query failed in an unexpected way",
    )
}

/// The stream's end that makes messages. Blocks while its reader is slow.
#[derive(Debug)]
pub(super) struct Sender<T> {
    messages: mpsc::Sender<Result<T, Status>>,
    control: QueryControl,
    handle: Handle,
}

impl<T> Sender<T> {
    /// Sends a message; waits for room.
    ///
    /// # Errors
    /// When the reader is gone or the deadline has passed.
    pub(super) fn send(&self, message: T) -> Result<(), Refusal> {
        self.handle.block_on(async {
            loop {
                match tokio::time::timeout(SEND_LOOK, self.messages.reserve()).await {
                    Ok(Ok(place)) => {
                        place.send(Ok(message));
                        return Ok(());
                    }
                    Ok(Err(_)) => {
                        return Err(Refusal::new(RefusalKind::Cancelled, "the reader is gone"));
                    }
                    Err(_) => self.control.check()?,
                }
            }
        })
    }

    /// Ends the stream with an error, if there is anybody to read it in the next moments: a reader
    /// that is still behind finds out by the missing end.
    fn end(self, status: Status) {
        let sent = self.messages.reserve();
        self.handle.block_on(async {
            if let Ok(Ok(place)) = tokio::time::timeout(Duration::from_secs(1), sent).await {
                place.send(Err(status));
            }
        });
    }
}

/// The stream's end that tonic reads. Dropping it stops the query.
#[derive(Debug)]
pub(super) struct Answers<T> {
    kind: &'static str,
    receiver: mpsc::Receiver<Result<T, Status>>,
    task: Option<tokio::task::JoinHandle<()>>,
    _stop: Stop,
}

impl<T> Stream for Answers<T> {
    type Item = Result<T, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if let Some(message) = std::task::ready!(this.receiver.poll_recv(cx)) {
            return Poll::Ready(Some(message));
        }
        // All messages are out. A query that failed in an unexpected way must not look whole.
        let Some(task) = &mut this.task else {
            return Poll::Ready(None);
        };
        let ended = std::task::ready!(Pin::new(task).poll(cx));
        this.task = None;
        Poll::Ready(
            ended
                .err()
                .map(|panic| Err(failed(this.kind, &panic).to_grpc())),
        )
    }
}

/// The caller's deadline: `grpc-timeout` is at most eight digits and a unit.
fn grpc_timeout(metadata: &MetadataMap) -> Result<Option<Duration>, Status> {
    let Some(value) = metadata.get("grpc-timeout") else {
        return Ok(None);
    };
    let parsed = value.to_str().ok().and_then(parse_timeout);
    match parsed {
        Some(timeout) => Ok(Some(timeout)),
        None => Err(Status::invalid_argument(
            "grpc-timeout is not up to 8 digits and one of HMSmun",
        )),
    }
}

fn parse_timeout(text: &str) -> Option<Duration> {
    let unit = text.chars().next_back()?;
    let digits = text.strip_suffix(unit)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let n: u64 = digits.parse().ok()?;
    Some(match unit {
        'H' => Duration::from_hours(n),
        'M' => Duration::from_mins(n),
        'S' => Duration::from_secs(n),
        'm' => Duration::from_millis(n),
        'u' => Duration::from_micros(n),
        'n' => Duration::from_nanos(n),
        _ => return None,
    })
}

impl From<rootline_query::Error> for Refusal {
    fn from(error: rootline_query::Error) -> Self {
        match error {
            rootline_query::Error::Engine(error) => error.into(),
            // How many there are is a matter of the data.
            error @ rootline_query::Error::TooManySpanGroups { .. } => {
                Self::new(RefusalKind::LimitExceeded, error.to_string())
            }
            // Everything else of the query layer is about the question itself.
            error => Self::invalid(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_are_read_as_grpc_writes_them() {
        assert_eq!(parse_timeout("1500m"), Some(Duration::from_millis(1500)));
        assert_eq!(parse_timeout("10S"), Some(Duration::from_secs(10)));
        assert_eq!(
            parse_timeout("99999999H"),
            Some(Duration::from_hours(99_999_999))
        );
        for wrong in ["", "S", "10", "10x", "123456789S", "-1S", "1 S", "1é"] {
            assert_eq!(parse_timeout(wrong), None, "{wrong}");
        }
    }
}
