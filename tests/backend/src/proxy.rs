//! An HTTP proxy that leads every tunnel to one place, whatever host is asked for.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, copy_bidirectional},
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
};

use crate::shared::lock;

/// A running proxy; it stops when this is dropped.
pub struct Proxy {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Proxy {
    /// Starts one on 127.0.0.1, on a port the system chooses; its tunnels lead to `target`.
    ///
    /// # Errors
    /// If it cannot listen.
    pub async fn start(target: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let asked = Arc::new(Mutex::default());
        let task = tokio::spawn(accept(listener, target, Arc::clone(&asked)));
        Ok(Self { address, asked, task })
    }

    /// What `HTTPS_PROXY` is to be.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The first line of every request so far.
    pub fn asked(&self) -> Vec<String> {
        lock(&self.asked).clone()
    }
}

async fn accept(listener: TcpListener, target: SocketAddr, asked: Arc<Mutex<Vec<String>>>) {
    let mut tunnels = JoinSet::new();
    loop {
        // An error here concerns the one connection, which its sender sees as well.
        if let Ok((stream, _)) = listener.accept().await {
            let asked = Arc::clone(&asked);
            tunnels.spawn(async move { tunnel(stream, target, &asked).await.ok() });
        }
    }
}

async fn tunnel(stream: TcpStream, target: SocketAddr, asked: &Mutex<Vec<String>>) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut first = String::new();
    stream.read_line(&mut first).await?;
    lock(asked).push(first.trim().to_owned());
    let mut line = String::new();
    while stream.read_line(&mut line).await? > 2 {
        line.clear();
    }
    let mut other = TcpStream::connect(target).await?;
    stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
    copy_bidirectional(&mut stream, &mut other).await?;
    Ok(())
}
