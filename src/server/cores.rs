//! One thread a processor, each with a runtime and connections of its own.
//!
//! A request stays on the thread of its connection but for its commit: to wake another thread costs more than most of
//! what the vault does for a request; and the answers of one commit come to a thread together. Only large requests are
//! worked on elsewhere. Connections are accepted in one place and dealt out in turn, since the kernel's own way, a
//! listening socket a thread (SO_REUSEPORT), spreads few connections badly.

use std::io;
use std::net::SocketAddr;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use futures_util::future::try_join_all;
use futures_util::stream::{self, Stream};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Handle};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinError;

/// Accepted connections that a thread has not taken up yet.
const WAITING: usize = 64;
/// Reads of a thread's requests that wait for the disk at once. More, which a runtime would start in their hundreds when
/// much is asked for that is not in memory, only keep the processors from whoever could answer.
const READERS: usize = 8;
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

/// A connection that was accepted and belongs to no thread yet.
type Socket = (std::net::TcpStream, SocketAddr);

/// The connections of one thread.
pub struct Sockets(mpsc::Receiver<Socket>);

/// Deals connections out to threads.
pub struct Dealer(Vec<mpsc::Sender<Socket>>);

impl Cores {
    /// So many threads, or as many as the machine has processors.
    pub fn start(count: Option<usize>) -> io::Result<Self> {
        let count = count.or_else(|| thread::available_parallelism().ok().map(usize::from)).unwrap_or(1).max(1);
        (0..count).map(|number| Core::start(&format!("core-{number}"))).collect::<io::Result<_>>().map(Self)
    }

    /// One thread, of this name: for what may never take more than one processor.
    pub fn one(name: &str) -> io::Result<Self> {
        Ok(Self(vec![Core::start(name)?]))
    }

    /// A dealer, and for each thread what it deals to it.
    pub fn dealer(&self) -> (Dealer, Vec<Sockets>) {
        let (hands, sockets) = self.0.iter().map(|_| mpsc::channel(WAITING)).unzip::<_, _, Vec<_>, Vec<_>>();
        (Dealer(hands), sockets.into_iter().map(Sockets).collect())
    }

    /// Runs a piece of work on each thread. Returns when all have ended, or one has failed: a thread that serves no more
    /// would close every connection that it is dealt. What is left goes on until [`Cores::end`].
    pub async fn run<E, Work>(&self, pieces: impl IntoIterator<Item = Work>) -> Result<(), E>
    where
        Work: Future<Output = Result<(), E>> + Send + 'static,
        E: From<JoinError> + Send + 'static,
    {
        let started = self.0.iter().zip(pieces).map(|(core, work)| core.runtime.spawn(work));
        try_join_all(started.map(|work| async { work.await? })).await.map(drop)
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
        let runtime = Builder::new_current_thread().enable_all().max_blocking_threads(READERS).build()?;
        let handle = runtime.handle().clone();
        drop(handle.spawn(strongroom_vault::take_delivery()));
        let (stop, stopped) = oneshot::channel::<()>();
        let run = move || drop(runtime.block_on(stopped));
        let thread = thread::Builder::new().name(name.to_owned()).spawn(run)?;
        Ok(Self { runtime: handle, stop, thread })
    }
}

impl Dealer {
    /// Gives a socket to a thread, or to another one while that has enough waiting. A thread that is gone closes what
    /// it is dealt.
    async fn give(&self, hand: &mpsc::Sender<Socket>, socket: Socket) {
        let mut left = socket;
        for hand in [hand].into_iter().chain(&self.0) {
            match hand.try_send(left) {
                Err(mpsc::error::TrySendError::Full(socket)) => left = socket,
                Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => return,
            }
        }
        drop(hand.send(left).await);
    }

    /// Accepts connections and deals them out, without end.
    pub async fn deal(self, listener: TcpListener) {
        let mut hands = self.0.iter().cycle();
        loop {
            let accepted = listener.accept().await.and_then(|(socket, from)| Ok((socket.into_std()?, from)));
            match (accepted, hands.next()) {
                (Ok(socket), Some(hand)) => self.give(hand, socket).await,
                (Ok(_), None) => {}
                (Err(error), _) => refused_by_system(&error).await,
            }
        }
    }
}

/// A connection that broke before it was accepted costs nothing; a lack of sockets needs a pause, or the loop spins.
pub(crate) async fn refused_by_system(error: &io::Error) {
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
            Ok::<_, JoinError>(())
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
        assert!(ended.is_ok());
        assert_eq!(names, ["core-0", "core-1", "core-0", "core-1"]);
        dealing.abort();
        cores.end().await;
    }

    #[tokio::test]
    async fn work_that_fails_on_one_thread_ends_the_wait_for_all() {
        let cores = Cores::start(Some(2)).unwrap();
        let works = |fails: bool| async move {
            assert!(!fails, "on purpose");
            std::future::pending::<Result<(), JoinError>>().await
        };
        assert!(cores.run([works(false), works(true)]).await.unwrap_err().is_panic());
        cores.end().await;
    }

    #[tokio::test]
    async fn the_end_of_the_threads_is_the_end_of_what_runs_on_them() {
        let cores = Cores::start(Some(1)).unwrap();
        let (alive, mut ended) = oneshot::channel::<()>();
        let forever = async move {
            std::future::pending::<()>().await;
            drop(alive);
            Ok::<_, JoinError>(())
        };
        assert!(tokio::time::timeout(Duration::ZERO, cores.run([forever])).await.is_err());
        cores.end().await;
        assert!(ended.try_recv().is_err());
    }
}
