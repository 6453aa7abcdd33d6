//! `StreamMetrics`: a message at once, then one at each tick. Every stream has its own task and room for one message;
//! a client that has not taken that one skips ticks, delays nobody and fills no memory.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::exposition::filter::Filter;
use crate::exposition::proto as encoder;
use crate::proto::StreamMetricsResponse;
use crate::server::{Context, stopped};

type Message = Result<StreamMetricsResponse, Status>;

pub(super) struct Subscription {
    pub(super) context: Arc<Context>,
    pub(super) filter: Arc<Filter>,
    pub(super) interval: Duration,
}

pub(super) fn start(subscription: Subscription, stop: watch::Receiver<bool>) -> ReceiverStream<Message> {
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        let ended = tokio::select! {
            biased;
            () = stopped(stop) => Some(Status::unavailable("the daemon is stopping")),
            // The client has gone; nobody is left to be told.
            () = sender.closed() => None,
            error = subscription.run(&sender) => error,
        };
        if let Some(status) = ended {
            // It fails if the client goes instead of reading on.
            let _ = sender.send(Err(status)).await;
        }
    });
    ReceiverStream::new(receiver)
}

impl Subscription {
    /// Ends with what the client is to be told, or with nothing if it has gone.
    async fn run(&self, sender: &mpsc::Sender<Message>) -> Option<Status> {
        let mut ticks = interval(self.interval);
        // After a late collection the next tick comes when it would have come anyway: no burst, no drift.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut skipped_ticks = 0;
        loop {
            ticks.tick().await;
            let room = match sender.try_reserve() {
                Ok(room) => room,
                Err(TrySendError::Full(())) => {
                    skipped_ticks += 1;
                    continue;
                }
                Err(TrySendError::Closed(())) => return None,
            };
            let snapshot = match self.context.snapshot().await {
                Ok(snapshot) => snapshot,
                Err(error) => return Some(error.into()),
            };
            let filter = Arc::clone(&self.filter);
            let snapshot = self.context.encode(snapshot, move |snapshot| encoder::snapshot(snapshot, &filter)).await;
            room.send(Ok(StreamMetricsResponse { snapshot: Some(snapshot), skipped_ticks }));
            skipped_ticks = 0;
        }
    }
}
