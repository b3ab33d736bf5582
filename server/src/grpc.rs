//! The gRPC port (4317): every service of the node behind one router.
//!
//! Calls to services that are not there (OTLP logs and profiles among them) get UNIMPLEMENTED.
//! Health says `NOT_SERVING` until the log is replayed, and again while draining.

use std::sync::Arc;

use axum::Router;
use tonic::service::Routes;
use tonic_health::{ServingStatus, server::HealthReporter};

use crate::{node::NodeState, otlp, proto};

/// The router and the switch of its health service.
pub(crate) async fn router(
    state: &Arc<NodeState>,
) -> Result<(Router, HealthReporter), tonic_reflection::server::Error> {
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter
        .set_service_status("", ServingStatus::NotServing)
        .await;
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(proto::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let mut routes = Routes::builder();
    routes
        .add_service(health)
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?);
    add_services(&mut routes, state);
    Ok((routes.routes().into_axum_router(), reporter))
}

/// The services that store and answer. One line each.
fn add_services(routes: &mut tonic::service::RoutesBuilder, state: &Arc<NodeState>) {
    routes.add_service(otlp::TraceService::new(state));
    routes.add_service(otlp::MetricsService::new(state));
    crate::api::add_services(routes, state);
}

/// Tells health checkers whether the node serves.
pub(crate) async fn set_serving(reporter: &HealthReporter, serving: bool) {
    let status = if serving {
        ServingStatus::Serving
    } else {
        ServingStatus::NotServing
    };
    reporter.set_service_status("", status).await;
}
