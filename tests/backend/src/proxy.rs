//! An HTTP proxy that leads every tunnel to one place, whatever host is asked for.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, copy_bidirectional},
    net::TcpStream,
};

use crate::{server::Server, shared::lock};

/// A running proxy; it stops when this is dropped.
pub struct Proxy {
    server: Server<Shared>,
}

struct Shared {
    target: SocketAddr,
    asked: Mutex<Vec<String>>,
}

impl Proxy {
    /// Starts one on 127.0.0.1, on a port the system chooses; its tunnels lead to `target`.
    ///
    /// # Errors
    /// If it cannot listen.
    pub async fn start(target: SocketAddr) -> io::Result<Self> {
        let server = Server::start(Shared { target, asked: Mutex::default() }, tunnel).await?;
        Ok(Self { server })
    }

    /// What `HTTPS_PROXY` is to be.
    pub fn url(&self) -> String {
        self.server.url()
    }

    /// The first line of every request so far.
    pub fn asked(&self) -> Vec<String> {
        lock(&self.server.shared.asked).clone()
    }
}

async fn tunnel(stream: TcpStream, shared: Arc<Shared>) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut first = String::new();
    stream.read_line(&mut first).await?;
    lock(&shared.asked).push(first.trim().to_owned());
    let mut line = String::new();
    while stream.read_line(&mut line).await? > 2 {
        line.clear();
    }
    let mut other = TcpStream::connect(shared.target).await?;
    stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
    copy_bidirectional(&mut stream, &mut other).await?;
    Ok(())
}
