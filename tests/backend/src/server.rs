//! A small server: one port, a task for each connection, and what they share with the handle.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use tokio::{
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
};

/// A running server; it stops when this is dropped, and its connections with it.
pub(crate) struct Server<S> {
    address: SocketAddr,
    pub(crate) shared: Arc<S>,
    task: JoinHandle<()>,
}

impl<S> Drop for Server<S> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl<S: Send + Sync + 'static> Server<S> {
    /// Starts one on 127.0.0.1, on a port the system chooses. How a connection fails is for its other end to see.
    pub(crate) async fn start<F, E>(
        shared: S,
        serve: impl Fn(TcpStream, Arc<S>) -> F + Send + 'static,
    ) -> io::Result<Self>
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
    {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(shared);
        let lent = Arc::clone(&shared);
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                // An error here concerns the one connection, which its sender sees as well.
                if let Ok((stream, _)) = listener.accept().await {
                    let served = serve(stream, Arc::clone(&lent));
                    connections.spawn(async move { served.await.ok() });
                }
            }
        });
        Ok(Self { address, shared, task })
    }

    /// Where it is.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}
