//! Sockets that cannot be held for ever: a bounded number of connections, of which each must say something soon after
//! it is made and take what it is given. Shared by both servers, below their protocols.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Sleep, sleep};
use tokio_rustls::server::TlsStream;
use tokio_rustls::{Accept, TlsAcceptor};
use tonic::transport::server::Connected;

use super::BindError;

/// How much a client may take, of room and of time.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections of one server; more wait to be accepted.
    pub connections: usize,
    /// From the connection to the first bytes of a request, a TLS handshake included.
    pub greeting: Duration,
    /// Between two requests of an HTTP connection, and for the headers of one.
    pub headers: Duration,
    /// To take a response.
    pub response: Duration,
    /// For everybody to finish after the end was announced.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections: 256,
            greeting: Duration::from_secs(10),
            // Prometheus asks every minute unless told otherwise; it should find its connection still open.
            headers: Duration::from_secs(75),
            response: Duration::from_secs(30),
            drain: Duration::from_secs(5),
        }
    }
}

/// How long to wait before accepting again when that failed, most likely for want of file descriptors.
const BACK_OFF: Duration = Duration::from_millis(50);

/// From the connection to the first bytes of a request when few slots are left: who says nothing must not keep out who
/// does, such as a probe that waits for a second.
const HURRY: Duration = Duration::from_millis(250);

pub(super) struct Listener {
    tcp: TcpListener,
    address: SocketAddr,
    tls: Option<TlsAcceptor>,
    /// Bytes that a client has to send before its protocol keeps the time.
    greeting: usize,
    slots: Arc<Semaphore>,
    limits: Limits,
}

impl Listener {
    pub(super) async fn bind(
        key: &'static str,
        address: SocketAddr,
        tls: Option<TlsAcceptor>,
        greeting: usize,
        limits: Limits,
    ) -> Result<Listener, BindError> {
        let failed = |source| BindError::Listen { key, address, source };
        let tcp = TcpListener::bind(address).await.map_err(failed)?;
        let address = tcp.local_addr().map_err(failed)?;
        Ok(Listener { tcp, address, tls, greeting, slots: Arc::new(Semaphore::new(limits.connections)), limits })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn limits(&self) -> Limits {
        self.limits
    }

    /// Tells at any time how full it is.
    pub(super) fn crowd(&self) -> Crowd {
        Crowd { slots: Arc::clone(&self.slots), connections: self.limits.connections }
    }

    /// The next connection, once there is room for it.
    pub(super) async fn accept(&self) -> Connection {
        let slot = Arc::clone(&self.slots).acquire_owned().await.expect("the semaphore is never closed");
        let mut told = false;
        loop {
            match self.tcp.accept().await {
                Ok((stream, _)) => return self.connection(stream, slot),
                Err(error) => {
                    if !std::mem::replace(&mut told, true) {
                        tracing::warn!(address = %self.address, %error, "cannot accept connections");
                    }
                    sleep(BACK_OFF).await;
                }
            }
        }
    }

    fn connection(&self, stream: TcpStream, slot: OwnedSemaphorePermit) -> Connection {
        // Answers are written whole; without this the last segment of one may wait for an acknowledgement. A socket
        // that refuses is already gone, as the first read will tell.
        let _ = stream.set_nodelay(true);
        let transport = match &self.tls {
            None => Transport::Plain(stream),
            Some(tls) => Transport::Handshake(Box::new(tls.accept(stream))),
        };
        let greeting = if self.crowd().is_dense() { self.limits.greeting.min(HURRY) } else { self.limits.greeting };
        Connection::new(transport, self.greeting, Limits { greeting, ..self.limits }, slot)
    }
}

impl std::fmt::Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Listener").field("address", &self.address).finish_non_exhaustive()
    }
}

/// How many connections there are.
#[derive(Clone)]
pub(super) struct Crowd {
    slots: Arc<Semaphore>,
    connections: usize,
}

impl Crowd {
    /// Whether less than a quarter of the slots is left: time to keep no connection that has been answered.
    pub(super) fn is_dense(&self) -> bool {
        self.slots.available_permits() < self.connections / 4
    }
}

/// A client, with its slot among the connections.
pub(super) struct Connection<S = TcpStream> {
    transport: Transport<S>,
    /// Runs until the client has sent what it owes.
    greeting: Option<Pin<Box<Sleep>>>,
    owed: usize,
    /// Runs from the first write that had to wait until everything is written: progress alone does not stop it, or a
    /// byte now and then would.
    response: Option<Pin<Box<Sleep>>>,
    response_limit: Duration,
    _slot: OwnedSemaphorePermit,
}

enum Transport<S> {
    Plain(S),
    /// Goes on whenever somebody wants to read or write, so that it needs no task of its own.
    Handshake(Box<Accept<S>>),
    Tls(Box<TlsStream<S>>),
}

/// What a connection runs over.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Stream for T {}

impl<S: Stream> Transport<S> {
    fn poll_stream(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<&mut dyn Stream>> {
        if let Transport::Handshake(accept) = self {
            *self = Transport::Tls(Box::new(ready!(Pin::new(accept).poll(cx))?));
        }
        Poll::Ready(Ok(match self {
            Transport::Plain(stream) => stream,
            Transport::Tls(stream) => stream,
            Transport::Handshake(_) => unreachable!("the handshake ended above"),
        }))
    }
}

impl<S: Stream> Connection<S> {
    fn new(transport: Transport<S>, owed: usize, limits: Limits, slot: OwnedSemaphorePermit) -> Self {
        let greeting = Some(Box::pin(sleep(limits.greeting)));
        Connection { transport, greeting, owed, response: None, response_limit: limits.response, _slot: slot }
    }

    fn poll_late(timer: &mut Option<Pin<Box<Sleep>>>, cx: &mut Context<'_>, what: &str) -> Poll<io::Error> {
        match timer {
            Some(timer) => timer.as_mut().poll(cx).map(|()| io::Error::new(io::ErrorKind::TimedOut, what)),
            None => Poll::Pending,
        }
    }

    /// During a handshake nothing waits to be flushed, and nobody is there to say goodbye to: waiting for its end would
    /// hold the slot of a client that never ends it.
    fn nothing_written(&self) -> bool {
        matches!(self.transport, Transport::Handshake(_))
    }

    /// A write that waits is a write that is timed.
    fn timed<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            return written;
        }
        self.response.get_or_insert_with(|| Box::pin(sleep(self.response_limit)));
        Self::poll_late(&mut self.response, cx, "the client takes the response too slowly").map(Err)
    }
}

impl<S: Stream> AsyncRead for Connection<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = match self.transport.poll_stream(cx) {
            Poll::Ready(Ok(stream)) => Pin::new(stream).poll_read(cx, buf),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        };
        if read.is_ready() {
            self.owed = self.owed.saturating_sub(buf.filled().len() - before);
            if self.owed == 0 {
                self.greeting = None;
            }
            return read;
        }
        Self::poll_late(&mut self.greeting, cx, "the client says too little").map(Err)
    }
}

impl<S: Stream> AsyncWrite for Connection<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let stream = ready!(self.transport.poll_stream(cx))?;
        let written = Pin::new(stream).poll_write(cx, buf);
        self.timed(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let stream = ready!(self.transport.poll_stream(cx))?;
        let written = Pin::new(stream).poll_write_vectored(cx, bufs);
        self.timed(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        matches!(self.transport, Transport::Plain(_))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.nothing_written() {
            return Poll::Ready(Ok(()));
        }
        let stream = ready!(self.transport.poll_stream(cx))?;
        let flushed = Pin::new(stream).poll_flush(cx);
        if flushed.is_ready() {
            self.response = None;
        }
        self.timed(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.nothing_written() {
            return Poll::Ready(Ok(()));
        }
        let stream = ready!(self.transport.poll_stream(cx))?;
        let shut = Pin::new(stream).poll_shutdown(cx);
        self.timed(cx, shut)
    }
}

impl Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::time::Instant;

    use super::*;

    const LIMITS: Limits = Limits {
        connections: 1,
        greeting: Duration::from_secs(1),
        headers: Duration::MAX,
        response: Duration::from_secs(5),
        drain: Duration::MAX,
    };

    async fn connection(owed: usize) -> (Connection<DuplexStream>, DuplexStream) {
        let (server, client) = duplex(1024);
        let slot = Arc::new(Semaphore::new(1)).acquire_owned().await.unwrap();
        (Connection::new(Transport::Plain(server), owed, LIMITS, slot), client)
    }

    /// Reads a little each second.
    async fn sip(mut client: DuplexStream) {
        while let Ok(1..) = client.read(&mut [0; 512]).await {
            sleep(Duration::from_secs(1)).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn progress_is_not_enough() {
        let (mut server, client) = connection(0).await;
        tokio::spawn(sip(client));
        let begun = Instant::now();
        let error = async {
            server.write_all(&[0; 100_000]).await?;
            server.flush().await
        }
        .await
        .unwrap_err();
        assert_eq!((error.kind(), begun.elapsed().as_secs()), (io::ErrorKind::TimedOut, 5));
    }

    #[tokio::test(start_paused = true)]
    async fn every_response_has_its_own_time() {
        let (mut server, client) = connection(0).await;
        tokio::spawn(sip(client));
        for _ in 0..5 {
            server.write_all(&[0; 2048]).await.unwrap();
            server.flush().await.unwrap();
            sleep(Duration::from_secs(60)).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_owed_must_come_in_time() {
        let (mut server, mut client) = connection(3).await;
        client.write_all(b"ab").await.unwrap();
        assert_eq!(server.read(&mut [0; 8]).await.unwrap(), 2);
        let begun = Instant::now();
        let error = server.read(&mut [0; 8]).await.unwrap_err();
        assert_eq!((error.kind(), begun.elapsed().as_secs()), (io::ErrorKind::TimedOut, 1));

        let (mut server, mut client) = connection(2).await;
        client.write_all(b"ab").await.unwrap();
        assert_eq!(server.read(&mut [0; 8]).await.unwrap(), 2);
        let silence = tokio::time::timeout(Duration::from_secs(3600), server.read_u8());
        assert!(silence.await.is_err(), "the protocol keeps the time from here");
    }
}
