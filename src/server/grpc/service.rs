//! The calls of `EBPFMetrics`.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::events;
use super::stream::{self, Subscription};
use crate::connections::{ListError, Query, QueryError};
use crate::exposition::event_filter::Filter as EventFilter;
use crate::exposition::filter::{Filter, FilterError};
use crate::exposition::{connections, proto as encoder};
use crate::proto::ebpf_metrics_server::EbpfMetrics;
use crate::proto::{
    GetHealthRequest, GetHealthResponse, GetMetricsRequest, GetMetricsResponse, ListConnectionsRequest,
    ListConnectionsResponse, ListModulesRequest, ListModulesResponse, MetricFilter, StreamEventsRequest,
    StreamEventsResponse, StreamMetricsRequest, StreamMetricsResponse,
};
use crate::sampler::{ConnectionsError, SampleError};
use crate::server::Context;
use crate::snapshot::Snapshot;

/// Milliseconds that a client may ask for between the messages of a stream.
const INTERVAL_MS: std::ops::RangeInclusive<u32> = 100..=3_600_000;

pub(super) struct Service {
    context: Arc<Context>,
    stream_interval: Duration,
    stop: watch::Receiver<bool>,
}

impl Service {
    pub(super) fn new(context: Arc<Context>, stream_interval: Duration, stop: watch::Receiver<bool>) -> Service {
        Service { context, stream_interval, stop }
    }

    /// A snapshot, and the filter checked against it.
    async fn snapshot(&self, filter: Option<MetricFilter>) -> Result<(Arc<Snapshot>, Filter), Status> {
        let snapshot = self.context.snapshot().await?;
        let filter = Filter::new(filter.unwrap_or_default(), &snapshot)?;
        Ok((snapshot, filter))
    }

    fn interval(&self, asked_ms: u32) -> Result<Duration, Status> {
        match asked_ms {
            0 => Ok(self.stream_interval),
            ms if INTERVAL_MS.contains(&ms) => Ok(Duration::from_millis(ms.into())),
            ms => {
                let (least, most) = INTERVAL_MS.into_inner();
                Err(Status::invalid_argument(format!("interval_ms: {ms} is not 0 and not from {least} to {most}")))
            }
        }
    }
}

#[tonic::async_trait]
impl EbpfMetrics for Service {
    type StreamMetricsStream = ReceiverStream<Result<StreamMetricsResponse, Status>>;
    type StreamEventsStream = ReceiverStream<Result<StreamEventsResponse, Status>>;

    async fn get_metrics(&self, request: Request<GetMetricsRequest>) -> Result<Response<GetMetricsResponse>, Status> {
        let (snapshot, filter) = self.snapshot(request.into_inner().filter).await?;
        let snapshot = self.context.encode(snapshot, move |snapshot| encoder::snapshot(snapshot, &filter)).await;
        Ok(Response::new(GetMetricsResponse { snapshot: Some(snapshot) }))
    }

    async fn stream_metrics(
        &self,
        request: Request<StreamMetricsRequest>,
    ) -> Result<Response<Self::StreamMetricsStream>, Status> {
        let StreamMetricsRequest { filter, interval_ms } = request.into_inner();
        let interval = self.interval(interval_ms)?;
        let (_, filter) = self.snapshot(filter).await?;
        let subscription = Subscription { context: Arc::clone(&self.context), filter: Arc::new(filter), interval };
        Ok(Response::new(stream::start(subscription, self.stop.clone())))
    }

    async fn stream_events(
        &self,
        request: Request<StreamEventsRequest>,
    ) -> Result<Response<Self::StreamEventsStream>, Status> {
        let filter = EventFilter::new(request.into_inner().filter.unwrap_or_default())?;
        Ok(Response::new(events::start(self.context.events.clone(), filter, self.stop.clone()).await?))
    }

    async fn get_health(&self, _: Request<GetHealthRequest>) -> Result<Response<GetHealthResponse>, Status> {
        Ok(Response::new(encoder::health(&self.context.probe.report().await)))
    }

    async fn list_connections(
        &self,
        request: Request<ListConnectionsRequest>,
    ) -> Result<Response<ListConnectionsResponse>, Status> {
        let (listing, _room) = self.context.connections(query(request.into_inner())?).await?;
        Ok(Response::new(self.context.encode_listing(listing, connections::message).await))
    }

    async fn list_modules(&self, _: Request<ListModulesRequest>) -> Result<Response<ListModulesResponse>, Status> {
        let (snapshot, _) = self.snapshot(None).await?;
        Ok(Response::new(encoder::modules(&snapshot)))
    }
}

/// By the names that HTTP has for its parameters.
fn query(request: ListConnectionsRequest) -> Result<Query, QueryError> {
    let number = |number: Option<u32>| number.map(|number| number.to_string());
    let parameters = [
        ("sort", request.sort),
        ("limit", number(request.limit)),
        ("comm", request.comm),
        ("pid", number(request.pid)),
        ("role", request.role),
        ("state", request.state),
        ("src_ip", request.src_ip),
        ("src_port", number(request.src_port)),
        ("dst_ip", request.dst_ip),
        ("dst_port", number(request.dst_port)),
        ("container", request.container),
        ("pod", request.pod),
        ("namespace", request.namespace),
    ];
    Query::parse(parameters.into_iter().filter_map(|(name, value)| Some((name, value?))))
}

impl From<QueryError> for Status {
    fn from(error: QueryError) -> Self {
        Status::invalid_argument(error.to_string())
    }
}

impl From<ConnectionsError> for Status {
    fn from(error: ConnectionsError) -> Self {
        let text = error.to_string();
        match error {
            ConnectionsError::Sample(error) => error.into(),
            ConnectionsError::Busy => Status::resource_exhausted(text),
            ConnectionsError::List(ListError::NotRunning { .. }) => Status::failed_precondition(text),
            ConnectionsError::List(ListError::Failed(_)) => Status::internal(text),
        }
    }
}

impl From<SampleError> for Status {
    fn from(error: SampleError) -> Self {
        Status::unavailable(error.to_string())
    }
}

impl From<FilterError> for Status {
    fn from(error: FilterError) -> Self {
        Status::invalid_argument(error.to_string())
    }
}
