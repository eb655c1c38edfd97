//! One thread a processor, each with a runtime and connections of its own.
//!
//! A request stays on the thread of its connection but for its commit: to wake another thread costs more than most of
//! what the vault does for a request; and the answers of one commit come to a thread together. Connections are accepted in one place and dealt out in turn, since the kernel's
//! own way, a listening socket a thread (SO_REUSEPORT), spreads few connections badly.

use std::io;
use std::net::SocketAddr;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::stream::{self, Stream};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Handle};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinError;

/// Accepted connections that a thread has not taken up yet.
const WAITING: usize = 64;
/// How long to wait after the system had no socket to give.
const EXHAUSTED: Duration = Duration::from_millis(200);

/// The threads. Dropping them ends what they run.
pub struct Cores(Vec<Core>);

struct Core {
    runtime: Handle,
    /// Dropped when the thread is to end.
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

/// The connections of one thread.
pub struct Sockets(mpsc::Receiver<(std::net::TcpStream, SocketAddr)>);

/// Deals connections out to threads.
pub struct Dealer(Vec<mpsc::Sender<(std::net::TcpStream, SocketAddr)>>);

impl Cores {
    /// So many threads, or as many as the machine has processors.
    pub fn start(count: Option<usize>) -> io::Result<Self> {
        let count = count.or_else(|| thread::available_parallelism().ok().map(usize::from)).unwrap_or(1).max(1);
        (0..count).map(|number| Core::start(&format!("core-{number}"))).collect::<io::Result<_>>().map(Self)
    }

    /// A dealer, and for each thread what it deals to it.
    pub fn dealer(&self) -> (Dealer, Vec<Sockets>) {
        let (hands, sockets) = self.0.iter().map(|_| mpsc::channel(WAITING)).unzip::<_, _, Vec<_>, Vec<_>>();
        (Dealer(hands), sockets.into_iter().map(Sockets).collect())
    }

    /// Runs a piece of work on each thread, and returns when all have ended. Dropped, it leaves them running.
    pub async fn run<T, Work>(&self, pieces: impl IntoIterator<Item = Work>) -> Vec<Result<T, JoinError>>
    where
        Work: Future<Output = T> + Send + 'static,
        T: Send + 'static,
    {
        join_all(self.0.iter().zip(pieces).map(|(core, work)| core.runtime.spawn(work))).await
    }

    /// Ends the threads, and what still runs on them, and waits for it.
    pub async fn end(self) {
        let (stops, threads): (Vec<_>, Vec<_>) = self.0.into_iter().map(|core| (core.stop, core.thread)).unzip();
        drop(stops);
        // A panic of a thread has been reported; it is over all the same.
        let wait = || threads.into_iter().for_each(|thread| drop(thread.join()));
        drop(tokio::task::spawn_blocking(wait).await);
    }
}

impl Core {
    fn start(name: &str) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        drop(handle.spawn(strongroom_vault::take_delivery()));
        let (stop, stopped) = oneshot::channel::<()>();
        let run = move || drop(runtime.block_on(stopped));
        let thread = thread::Builder::new().name(name.to_owned()).spawn(run)?;
        Ok(Self { runtime: handle, stop, thread })
    }
}

impl Dealer {
    /// Accepts connections and deals them out, without end.
    pub async fn deal(self, listener: TcpListener) {
        let mut hands = self.0.iter().cycle();
        loop {
            let accepted = listener.accept().await.and_then(|(socket, from)| Ok((socket.into_std()?, from)));
            match (accepted, hands.next()) {
                // A thread that is gone closes what it is dealt.
                (Ok(socket), Some(hand)) => drop(hand.send(socket).await),
                (Ok(_), None) => {}
                (Err(error), _) => refused_by_system(&error).await,
            }
        }
    }
}

/// A connection that broke before it was accepted costs nothing; a lack of sockets needs a pause, or the loop spins.
async fn refused_by_system(error: &io::Error) {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    if !matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted) {
        tracing::warn!(%error, "no connection could be accepted");
        tokio::time::sleep(EXHAUSTED).await;
    }
}

impl Sockets {
    /// The next connection, on the runtime of the caller; `None` when no more will come.
    pub async fn next(&mut self) -> Option<(TcpStream, SocketAddr)> {
        loop {
            let (socket, from) = self.0.recv().await?;
            // Answers are small and awaited: none may wait for the acknowledgement of the one before.
            let taken_up = TcpStream::from_std(socket).and_then(|socket| socket.set_nodelay(true).map(|()| socket));
            match taken_up {
                Ok(socket) => return Some((socket, from)),
                Err(error) => tracing::warn!(%error, "a connection could not be taken up"),
            }
        }
    }

    /// The connections as a stream.
    pub fn stream(self) -> impl Stream<Item = io::Result<TcpStream>> + Send {
        stream::unfold(self, |mut sockets| async move { sockets.next().await.map(|(socket, _)| (Ok(socket), sockets)) })
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn connections_are_dealt_to_all_threads_in_turn() {
        let cores = Cores::start(Some(2)).unwrap();
        let (dealer, sockets) = cores.dealer();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let dealing = tokio::spawn(dealer.deal(listener));
        let name = |mut sockets: Sockets| async move {
            for _ in 0..2 {
                let (mut socket, _) = sockets.next().await.unwrap();
                socket.write_all(thread::current().name().unwrap().as_bytes()).await.unwrap();
            }
        };
        let asked = async {
            let mut names = Vec::new();
            for _ in 0..4 {
                let mut name = String::new();
                TcpStream::connect(address).await.unwrap().read_to_string(&mut name).await.unwrap();
                names.push(name);
            }
            names
        };
        let (ended, names) = tokio::join!(cores.run(sockets.into_iter().map(name)), asked);
        assert!(ended.iter().all(Result::is_ok));
        assert_eq!(names, ["core-0", "core-1", "core-0", "core-1"]);
        dealing.abort();
        cores.end().await;
    }

    #[tokio::test]
    async fn the_end_of_the_threads_is_the_end_of_what_runs_on_them() {
        let cores = Cores::start(Some(1)).unwrap();
        let (alive, mut ended) = oneshot::channel::<()>();
        let forever = async move {
            std::future::pending::<()>().await;
            drop(alive);
        };
        assert!(tokio::time::timeout(Duration::ZERO, cores.run([forever])).await.is_err());
        cores.end().await;
        assert!(ended.try_recv().is_err());
    }
}
