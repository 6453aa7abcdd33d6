//! Connections to sockets of runtimes, over which HTTP is spoken. One for each question: a runtime that was started again
//! is a new one.

use std::io;
use std::path::Path;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::{http1, http2};
use hyper::{HeaderMap, Request, StatusCode, header};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::net::UnixStream;

use super::{AskError, MOST_BYTES};

/// Whom HTTP believes to speak to.
pub const HOST: &str = "localhost";

async fn connect(path: &Path) -> Result<TokioIo<UnixStream>, AskError> {
    match UnixStream::connect(path).await {
        Ok(stream) => Ok(TokioIo::new(stream)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(AskError::Absent),
        Err(error) => Err(AskError::failed(error)),
    }
}

/// For one request of HTTP/1.1. The connection lasts as long as what is returned.
pub async fn http<B>(path: &Path) -> Result<http1::SendRequest<B>, AskError>
where
    B: hyper::body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (sender, connection) = http1::handshake(connect(path).await?).await.map_err(AskError::failed)?;
    // How it ends the sender is told too.
    tokio::spawn(async { _ = connection.await });
    Ok(sender)
}

/// A connection that speaks gRPC. Calls that are one message each way need no more than this of it.
#[derive(Clone)]
pub struct Channel(http2::SendRequest<Full<Bytes>>);

impl Channel {
    /// # Errors
    /// If nobody listens.
    pub async fn connect(path: &Path) -> Result<Channel, AskError> {
        let handshake = http2::handshake(TokioExecutor::new(), connect(path).await?);
        let (sender, connection) = handshake.await.map_err(AskError::failed)?;
        tokio::spawn(async { _ = connection.await });
        Ok(Channel(sender))
    }

    /// Calls a method, such as `/runtime.v1.RuntimeService/ListContainers`, with a header if it needs one.
    ///
    /// # Errors
    /// [`AskError::Absent`] if there is no such method, and whatever else goes wrong.
    pub async fn call<A: Message + Default>(
        &mut self,
        method: &str,
        header: Option<(&'static str, &str)>,
        question: &impl Message,
    ) -> Result<A, AskError> {
        let request = Request::post(format!("http://{HOST}{method}"))
            .header(header::CONTENT_TYPE, "application/grpc")
            .header(header::TE, "trailers");
        let request = header.into_iter().fold(request, |request, (name, value)| request.header(name, value));
        let request = request.body(Full::new(framed(question))).map_err(AskError::failed)?;
        let response = self.0.send_request(request).await.map_err(AskError::failed)?;
        if response.status() != StatusCode::OK {
            return Err(AskError::Failed(format!("it answers with {}", response.status())));
        }
        // An answer that is an error has its status in the headers, and one that is none, after the message.
        outcome(response.headers())?;
        let body = Limited::new(response.into_body(), MOST_BYTES).collect().await.map_err(AskError::failed)?;
        outcome(body.trailers().unwrap_or(&HeaderMap::new()))?;
        let bytes = body.to_bytes();
        let message = bytes.get(PREFIX..).ok_or_else(|| AskError::failed("it answers with nothing"))?;
        A::decode(message).map_err(AskError::failed)
    }
}

/// Before a message: whether it is compressed, and its length.
const PREFIX: usize = 5;

fn framed(message: &impl Message) -> Bytes {
    let mut bytes = vec![0];
    bytes.extend((message.encoded_len() as u32).to_be_bytes());
    message.encode(&mut bytes).expect("a vector grows");
    bytes.into()
}

/// The code that says that there is no such method: the runtime speaks gRPC, and this is not among its services.
const UNIMPLEMENTED: &str = "12";

fn outcome(headers: &HeaderMap) -> Result<(), AskError> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    match text("grpc-status") {
        "" | "0" => Ok(()),
        UNIMPLEMENTED => Err(AskError::Absent),
        code => Err(AskError::Failed(format!("{} (gRPC status {code})", text("grpc-message")))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(pairs: &[(&'static str, &str)]) -> String {
        let pairs = pairs.iter().map(|(name, value)| ((*name).parse().unwrap(), value.parse().unwrap()));
        outcome(&pairs.collect()).map_or_else(|error| error.to_string(), |()| "well".to_owned())
    }

    #[test]
    fn a_status_says_whether_there_is_an_answer() {
        assert_eq!(status(&[]), "well");
        assert_eq!(status(&[("grpc-status", "0")]), "well");
        assert_eq!(status(&[("grpc-status", "12")]), AskError::Absent.to_string());
        assert_eq!(status(&[("grpc-status", "14"), ("grpc-message", "not yet")]), "not yet (gRPC status 14)");
    }

    #[test]
    fn a_message_follows_its_length() {
        assert_eq!(framed(&"ab".to_owned())[..], [0, 0, 0, 0, 4, 10, 2, b'a', b'b']);
    }
}
