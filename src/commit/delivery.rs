//! How answers reach those who wait: those of one group and one thread come in one piece.
//!
//! To wake a task of another thread takes a lock and often a system call; and a thread that is woken for each answer by
//! itself also sends each by itself. So a thread that serves takes delivery once for all its requests.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{mpsc, oneshot};

use crate::change::{CommitError, Committed};

/// What is said to a request once its group is on stable storage.
pub(crate) type Answer = Result<Committed, CommitError>;
/// Answers, and who waits for each.
type Delivery = Vec<(oneshot::Sender<Answer>, Answer)>;

thread_local! {
    static HOME: RefCell<Option<Home>> = const { RefCell::new(None) };
}

/// A thread that takes delivery.
#[derive(Clone)]
struct Home {
    number: u64,
    mail: mpsc::UnboundedSender<Delivery>,
}

/// Who waits for an answer, and where.
pub(crate) struct Reply {
    to: oneshot::Sender<Answer>,
    home: Option<Home>,
}

impl Reply {
    /// For a request of the calling thread.
    pub fn new() -> (Self, oneshot::Receiver<Answer>) {
        let (to, answer) = oneshot::channel();
        (Self { to, home: HOME.with_borrow(Clone::clone) }, answer)
    }

    /// Answers one by itself.
    pub fn send(self, answer: Answer) {
        // Whoever stopped waiting has its change stored all the same.
        let _ = self.to.send(answer);
    }
}

/// Answers the members of a group.
pub(crate) fn deliver(answers: impl IntoIterator<Item = (Reply, Answer)>) {
    let mut mails: Vec<(Home, Delivery)> = Vec::new();
    for (reply, answer) in answers {
        match reply.home {
            None => Reply { home: None, ..reply }.send(answer),
            // There are as many homes as processors: a handful.
            Some(home) => match mails.iter_mut().find(|(known, _)| known.number == home.number) {
                Some((_, delivery)) => delivery.push((reply.to, answer)),
                None => mails.push((home, vec![(reply.to, answer)])),
            },
        }
    }
    for (home, delivery) in mails {
        // Nobody takes delivery there any more: they are woken one by one.
        if let Err(mpsc::error::SendError(delivery)) = home.mail.send(delivery) {
            hand_out(delivery);
        }
    }
}

fn hand_out(delivery: Delivery) {
    for (to, answer) in delivery {
        let _ = to.send(answer);
    }
}

/// Takes delivery of the answers to all requests of this thread that commit from now on, until it is dropped. For a
/// thread whose tasks stay on it.
pub async fn take_delivery() {
    static NUMBERS: AtomicU64 = AtomicU64::new(0);
    let (mail, mut received) = mpsc::unbounded_channel();
    let home = Home { number: NUMBERS.fetch_add(1, Ordering::Relaxed), mail };
    HOME.set(Some(home));
    let _leaving = Leaving;
    while let Some(delivery) = received.recv().await {
        hand_out(delivery);
    }
}

struct Leaving;

impl Drop for Leaving {
    fn drop(&mut self) {
        // Gone already when the thread itself ends.
        let _ = HOME.try_with(|home| home.take());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(count: usize) -> (Vec<(Reply, Answer)>, Vec<oneshot::Receiver<Answer>>) {
        (0..count).map(|_| Reply::new()).map(|(reply, answer)| ((reply, Err(CommitError::Expired)), answer)).unzip()
    }

    #[tokio::test]
    async fn answers_come_in_one_piece_where_delivery_is_taken_and_one_by_one_elsewhere() {
        let (sent, direct) = answers(3);
        deliver(sent);
        for answer in direct {
            assert_eq!(answer.await.unwrap(), Err(CommitError::Expired));
        }
        let delivery = tokio::spawn(take_delivery());
        tokio::task::yield_now().await;
        let (sent, mut delivered) = answers(3);
        deliver(sent);
        assert!(delivered.iter_mut().all(|answer| answer.try_recv().is_err()), "the task has to run first");
        for answer in delivered {
            assert_eq!(answer.await.unwrap(), Err(CommitError::Expired));
        }
        let (late, answer) = answers(1);
        delivery.abort();
        assert!(delivery.await.unwrap_err().is_cancelled());
        deliver(late);
        assert_eq!(answer.into_iter().next().unwrap().await.unwrap(), Err(CommitError::Expired));
        assert!(HOME.with_borrow(Option::is_none));
    }
}
