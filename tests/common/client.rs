//! An HTTP client that can be as odd as a test needs.

/// The messages as clients know them.
pub mod proto {
    #![allow(clippy::all)]

    include!(concat!(env!("OUT_DIR"), "/client/ebpf_sidecar.v1.rs"));
}

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::within;

/// An answer, taken apart.
pub struct Reply {
    pub status: u16,
    /// Names in small letters.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

pub async fn get(to: SocketAddr, path: &str) -> Reply {
    send(to, &format!("GET {path} HTTP/1.1"), &[]).await
}

/// One request on a connection of its own.
pub async fn send(to: SocketAddr, line: &str, headers: &[&str]) -> Reply {
    let mut stream = TcpStream::connect(to).await.unwrap();
    converse(&mut stream, line, headers).await
}

/// One request, after which the server is asked to close.
pub async fn converse<S: AsyncReadExt + AsyncWriteExt + Unpin>(stream: &mut S, line: &str, headers: &[&str]) -> Reply {
    let mut request = format!("{line}\r\nHost: test\r\nConnection: close\r\n");
    headers.iter().for_each(|header| request += &format!("{header}\r\n"));
    stream.write_all(format!("{request}\r\n").as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    within(stream.read_to_end(&mut answer)).await.unwrap();
    parse(&answer)
}

pub fn parse(answer: &[u8]) -> Reply {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").expect("an answer has headers");
    let head = std::str::from_utf8(&answer[..end]).unwrap();
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers = lines.map(|line| line.split_once(": ").unwrap());
    Reply {
        status,
        headers: headers.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect(),
        body: answer[end + 4..].to_vec(),
    }
}

/// A connection that takes in little at a time.
pub async fn narrow(to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(to).await.unwrap()
}

/// When the server ended the connection.
pub async fn cut_after(stream: &mut TcpStream, since: Instant) -> Duration {
    let mut rest = Vec::new();
    // A reset is as good an end as any.
    let _ = within(stream.read_to_end(&mut rest)).await;
    since.elapsed()
}
