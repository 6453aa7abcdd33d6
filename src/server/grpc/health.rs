//! `grpc.health.v1`: asked about the daemon as a whole or about its service, the answer is the same.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, BoxStream, StreamExt};
use tokio::sync::watch;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::Health;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use super::{Context, stopped};
use crate::proto::ebpf_metrics_server::SERVICE_NAME;

/// How soon a watcher learns of a change. Nothing is asked while nobody watches.
const WATCH: Duration = Duration::from_secs(5);

pub(super) struct Service {
    context: Arc<Context>,
    stop: watch::Receiver<bool>,
}

impl Service {
    pub(super) fn new(context: Arc<Context>, stop: watch::Receiver<bool>) -> Service {
        Service { context, stop }
    }
}

fn known(service: &str) -> bool {
    service.is_empty() || service == SERVICE_NAME
}

async fn serving(context: &Context) -> ServingStatus {
    if context.probe.report().await.ready { ServingStatus::Serving } else { ServingStatus::NotServing }
}

#[tonic::async_trait]
impl Health for Service {
    type WatchStream = BoxStream<'static, Result<HealthCheckResponse, Status>>;

    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        let service = request.into_inner().service;
        if !known(&service) {
            return Err(Status::not_found(format!("there is no service {service:?}")));
        }
        Ok(Response::new(HealthCheckResponse { status: serving(&self.context).await.into() }))
    }

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let known = known(&request.into_inner().service);
        let changes = stream::unfold((Arc::clone(&self.context), None), move |(context, last)| async move {
            loop {
                // The protocol wants an answer for unknown services too: they might appear one day.
                let status = if known { serving(&context).await } else { ServingStatus::ServiceUnknown };
                if last != Some(status) {
                    return Some((Ok(HealthCheckResponse { status: status.into() }), (context, Some(status))));
                }
                tokio::time::sleep(WATCH).await;
            }
        });
        Ok(Response::new(changes.take_until(stopped(self.stop.clone())).boxed()))
    }
}
