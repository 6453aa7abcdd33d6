//! Connections to sockets of runtimes, over which HTTP is spoken. One for each question: a runtime that was started again
//! is a new one.

use std::future::Future;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::UnixStream;
use tonic::body::Body;
use tonic::client::GrpcService;
use tonic::codegen::http::{Request, Response, Uri};

use super::AskError;

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

/// A connection that speaks gRPC.
#[derive(Clone)]
pub struct Channel(http2::SendRequest<Body>);

impl Channel {
    /// # Errors
    /// If nobody listens.
    pub async fn connect(path: &Path) -> Result<Channel, AskError> {
        let handshake = http2::handshake(TokioExecutor::new(), connect(path).await?);
        let (sender, connection) = handshake.await.map_err(AskError::failed)?;
        tokio::spawn(async { _ = connection.await });
        Ok(Channel(sender))
    }

    /// What requests name as their target.
    pub fn origin() -> Uri {
        Uri::from_static("http://localhost")
    }
}

impl GrpcService<Body> for Channel {
    type ResponseBody = Incoming;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Incoming>, hyper::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

/// A runtime may speak gRPC without this service of it.
pub fn refused(status: tonic::Status) -> AskError {
    match status.code() {
        tonic::Code::Unimplemented => AskError::Absent,
        _ => AskError::Failed(format!("{:?}: {}", status.code(), status.message())),
    }
}
