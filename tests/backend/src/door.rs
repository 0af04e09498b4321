//! The listening socket, and the ways in which nobody answers at it.
//!
//! The port stays this backend's own whatever the door does: a second socket is bound to it and never
//! listens. Both are bound with `SO_REUSEADDR`, which Linux allows as long as at most one listens; the
//! kernel hands the port to nobody else meanwhile, and connecting to it is refused.

use std::{future::pending, io, net::SocketAddr, time::Duration};

use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    time::timeout,
};

/// Connections the kernel completes for us before they are accepted, when the door is open.
const BACKLOG: u32 = 1024;
/// With a backlog of 0 Linux still completes one connection; a few more tries make sure it is full.
const FILLERS_MAX: usize = 4;
/// A connection on loopback completes in microseconds; one that takes this long was dropped.
const FILLER_WAIT: Duration = Duration::from_millis(50);

/// What becomes of a new connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// Accepted.
    Open,
    /// Refused: the socket does not listen, and every existing connection is reset.
    Refused,
    /// Completed by the kernel, never accepted, never answered. Existing connections live on. Those that
    /// wait are served when the door opens.
    Unaccepted,
    /// Not completed: the kernel drops the first packet, as on a network that swallows it. Existing
    /// connections are reset.
    Unreachable,
}

pub(crate) struct Doorway {
    address: SocketAddr,
    /// Keeps the port; see above.
    _reservation: TcpSocket,
    state: State,
}

enum State {
    Open(TcpListener),
    Refused,
    Unaccepted(TcpListener),
    Unreachable { _listener: TcpListener, _fillers: Vec<TcpStream> },
}

impl Doorway {
    pub(crate) fn open(address: SocketAddr) -> io::Result<Self> {
        let reservation = bind(address)?;
        let address = reservation.local_addr()?;
        let state = State::Open(bind(address)?.listen(BACKLOG)?);
        Ok(Self { address, _reservation: reservation, state })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The next connection; for ever pending while the door is not open.
    pub(crate) async fn accept(&self) -> io::Result<TcpStream> {
        match &self.state {
            State::Open(listener) => Ok(listener.accept().await?.0),
            _ => pending().await,
        }
    }

    pub(crate) async fn set(&mut self, door: Door) -> io::Result<()> {
        let state = std::mem::replace(&mut self.state, State::Refused);
        self.state = match (door, state) {
            // A listener that still serves keeps its queue of connections.
            (Door::Open, State::Open(listener) | State::Unaccepted(listener)) => State::Open(listener),
            (Door::Unaccepted, State::Open(listener) | State::Unaccepted(listener)) => {
                State::Unaccepted(listener)
            }
            (door, old) => {
                drop(old); // two sockets may not listen on one port
                self.closed_to(door).await?
            }
        };
        Ok(())
    }

    async fn closed_to(&self, door: Door) -> io::Result<State> {
        Ok(match door {
            Door::Open => State::Open(bind(self.address)?.listen(BACKLOG)?),
            Door::Refused => State::Refused,
            Door::Unaccepted => State::Unaccepted(bind(self.address)?.listen(BACKLOG)?),
            Door::Unreachable => {
                let listener = bind(self.address)?.listen(0)?;
                let mut fillers = Vec::new();
                while fillers.len() < FILLERS_MAX {
                    match timeout(FILLER_WAIT, TcpStream::connect(self.address)).await {
                        Ok(filler) => fillers.push(filler?),
                        Err(_full) => break,
                    }
                }
                State::Unreachable { _listener: listener, _fillers: fillers }
            }
        })
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}
