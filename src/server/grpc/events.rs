//! `StreamEvents`: every stream has its own queue and its own task; a client that takes its messages too slowly loses
//! events of its own.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::events::{Events, ListenError, Subscription};
use crate::exposition::event::message;
use crate::exposition::event_filter::Filter;
use crate::proto::StreamEventsResponse;
use crate::server::stopped;

/// Events that may wait for a client, in about 3 MiB.
const ROOM: usize = 1 << 14;

type Message = Result<StreamEventsResponse, Status>;

/// Whatever happens after this has returned is told, or counted as lost.
pub(super) async fn start(
    events: Events,
    filter: Filter,
    stop: watch::Receiver<bool>,
) -> Result<ReceiverStream<Message>, Status> {
    let filter = Arc::new(filter);
    let wanted = Arc::clone(&filter);
    // It may have to wait for the kernel.
    let listening = tokio::task::spawn_blocking(move || events.listen(ROOM, move |event| wanted.admits(event)));
    let mut subscription = listening.await.expect("listening does not panic")?;
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        let ended = tokio::select! {
            biased;
            () = stopped(stop) => Some(ListenError::Ended.into()),
            // The client has gone; nobody is left to be told.
            () = sender.closed() => None,
            ended = run(&mut subscription, &filter, &sender) => ended,
        };
        drop(subscription);
        if let Some(status) = ended {
            // It fails if the client goes instead of reading on.
            let _ = sender.send(Err(status)).await;
        }
    });
    Ok(ReceiverStream::new(receiver))
}

/// Ends with what the client is to be told, or with nothing if it has gone.
async fn run(subscription: &mut Subscription, filter: &Filter, sender: &mpsc::Sender<Message>) -> Option<Status> {
    while let Some(delivery) = subscription.next().await {
        let wanted = delivery.events.iter().filter(|event| filter.admits(event));
        let events = wanted.map(|event| message(subscription.node(), event)).collect();
        if sender.send(Ok(StreamEventsResponse { events, lost: delivery.lost })).await.is_err() {
            return None;
        }
    }
    Some(Status::unavailable("there are no more events"))
}

impl From<ListenError> for Status {
    fn from(error: ListenError) -> Self {
        let text = match &error {
            ListenError::System(source) => format!("{error}: {source}"),
            _ => error.to_string(),
        };
        match error {
            ListenError::NoSource => Status::failed_precondition(text),
            ListenError::TooMany => Status::resource_exhausted(text),
            ListenError::Ended => Status::unavailable(text),
            ListenError::System(_) => Status::internal(text),
        }
    }
}
