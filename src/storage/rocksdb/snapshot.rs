//! A view of the store at one moment.
//!
//! RocksDB's snapshot borrows its database, so a thread that owns a handle to the database keeps both and answers
//! questions. Snapshots are few and live long (exports, verification), so a thread each is cheap.

use std::sync::Arc;
use std::thread;

use bytes::Bytes;
use strongroom_storage::{Entry, Family, Range, Snapshot, StoreError};
use tokio::sync::{mpsc, oneshot};

use crate::engine::{Engine, Moment};

/// Questions that may wait for a snapshot's thread.
const WAITING: usize = 8;

type Answer<T> = oneshot::Sender<Result<T, StoreError>>;

/// What the thread of a snapshot is told.
pub(crate) enum Question {
    Get(Family, Vec<u8>, Answer<Option<Bytes>>),
    Scan(Family, Range, Answer<Vec<Entry>>),
    /// Let go of the database, which is about to be opened again.
    Close,
}

/// What a snapshot's thread hears through.
pub(crate) type Questions = mpsc::Receiver<Question>;

/// A view of a [`crate::RocksStore`] at one moment. Files that it needs stay until it is dropped. When the store is
/// opened again, all its snapshots end: they answer [`StoreError::Closed`] from then on.
pub struct RocksSnapshot(mpsc::Sender<Question>);

impl RocksSnapshot {
    /// A snapshot that waits for a thread.
    pub(crate) fn new() -> (Self, Questions) {
        let (questions, heard) = mpsc::channel(WAITING);
        (Self(questions), heard)
    }

    /// What ends the snapshot if it still lives.
    pub(crate) fn ending(&self) -> mpsc::WeakSender<Question> {
        self.0.downgrade()
    }

    async fn ask<T>(&self, question: impl FnOnce(Answer<T>) -> Question) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        self.0.send(question(answer)).await.map_err(|_| StoreError::Closed)?;
        answered.await.map_err(|_| StoreError::Closed)?
    }
}

/// Starts the thread, and returns when it has its view.
pub(crate) async fn start(engine: Arc<Engine>, heard: Questions) -> Result<(), StoreError> {
    let (ready, is_ready) = oneshot::channel();
    let serve = move || {
        engine.at_one_moment(|moment| {
            if ready.send(()).is_ok() {
                answer(&moment, heard);
            }
        });
    };
    let what = |what: String| StoreError::Io { doing: "make a snapshot", what };
    thread::Builder::new().name("snapshot".to_owned()).spawn(serve).map_err(|error| what(error.to_string()))?;
    is_ready.await.map_err(|_| what("its thread ended early".to_owned()))
}

/// Answers until nobody can ask any more, or until it is told to close. An answer that nobody waits for is dropped.
fn answer(moment: &Moment<'_>, mut heard: Questions) {
    while let Some(question) = heard.blocking_recv() {
        match question {
            Question::Get(family, key, answer) => drop(answer.send(moment.get(family, &key))),
            Question::Scan(family, range, answer) => drop(answer.send(moment.scan(family, &range))),
            Question::Close => return,
        }
    }
}

impl Snapshot for RocksSnapshot {
    async fn get(&self, family: Family, key: Vec<u8>) -> Result<Option<Bytes>, StoreError> {
        self.ask(|answer| Question::Get(family, key, answer)).await
    }

    async fn scan(&self, family: Family, range: Range) -> Result<Vec<Entry>, StoreError> {
        self.ask(|answer| Question::Scan(family, range, answer)).await
    }
}
