//! `rootline.v1` over gRPC: what the node offers beyond the protocols of others. Protos:
//! `server/proto/rootline/v1/`, documented with units; `docs/api/grpc.md` is the guide.
//!
//! Every call reads one snapshot on the blocking pool ([`query`]), within the memory budget, the
//! query limits and the caller's deadline, and stops when the caller goes away. Large answers are
//! streams of bounded messages that wait for a slow reader.

mod admin;
mod dependencies;
mod metrics;
mod query;
mod request;
mod span_message;
mod spans;
mod traces;
pub(crate) mod upkeep;
mod write;

use std::sync::Arc;

use tonic::service::RoutesBuilder;

pub use write::decode_write;

use crate::node::NodeState;

/// The messages and services of `rootline.v1`, generated from the protos.
#[expect(
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    unused_qualifications,
    reason = "generated; the protos carry the documentation"
)]
pub mod v1 {
    tonic::include_proto!("rootline.v1");
}

/// Largest answer message that a client has to take: a chunk of samples, or one span with all its
/// attributes, which was no larger when it came in.
pub const ANSWER_BYTES_MAX: usize = 256 << 20;

/// Adds the services of `rootline.v1` to a gRPC server.
pub fn add_services(routes: &mut RoutesBuilder, node: &Arc<NodeState>) {
    let queries = query::Queries::new(Arc::clone(node));
    routes
        .add_service(write::WriteService::new(Arc::clone(node)))
        .add_service(compressed!(v1::metrics_server::MetricsServer::new(
            metrics::MetricsService::new(queries.clone())
        )))
        .add_service(compressed!(v1::traces_server::TracesServer::new(
            traces::TracesService::new(queries.clone())
        )))
        .add_service(compressed!(v1::admin_server::AdminServer::new(
            admin::AdminService::new(queries)
        )));
}

/// Questions are small: one larger than this is a mistake.
const QUESTION_BYTES_MAX: usize = 1 << 20;

/// A server that takes small questions and speaks gzip and zstd.
macro_rules! compressed {
    ($server:expr) => {
        $server
            .max_decoding_message_size(QUESTION_BYTES_MAX)
            .accept_compressed(tonic::codec::CompressionEncoding::Zstd)
            .accept_compressed(tonic::codec::CompressionEncoding::Gzip)
            .send_compressed(tonic::codec::CompressionEncoding::Zstd)
            .send_compressed(tonic::codec::CompressionEncoding::Gzip)
    };
}
use compressed;
