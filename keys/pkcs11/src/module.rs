//! A module: loaded once in a process, and called by a thread of its own.
//!
//! PKCS#11 initialises a library, and logs in, for a whole process. So all calls go through one place, one after the
//! other; and since a module may wait for a network or a card for as long as it likes, nobody else waits with it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender, TrySendError};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use strongroom_keys::RootError;

use crate::{KIND, failure};

/// How long a call may take, waiting for its turn included.
const LIMIT: Duration = Duration::from_secs(30);
/// Calls that may wait for their turn.
const WAITING: usize = 16;

type Job = Box<dyn FnOnce(&mut Module) + Send>;
/// A module's thread, and the way to it.
type Thread = (SyncSender<Job>, JoinHandle<()>);

/// The modules of this process by their path. They stay loaded: to unload one would cut off whoever else uses it.
static MODULES: Mutex<BTreeMap<PathBuf, Thread>> = Mutex::new(BTreeMap::new());

/// Runs work against a module, on the module's thread.
///
/// # Errors
/// [`RootError::Unreachable`] if it can't be loaded or takes too long; what the work says.
pub(crate) fn call<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce(&Pkcs11) -> Result<T, RootError> + Send + 'static,
) -> Result<T, RootError> {
    let (answer, answered) = mpsc::sync_channel(1);
    let job: Job = Box::new(move |module| {
        // Nobody listens any more if it took too long.
        drop(answer.send(module.run(work)));
    });
    thread_of(path)?.try_send(job).map_err(|error| match error {
        TrySendError::Full(_) => KIND.unreachable("the module still works at earlier calls and does not end them"),
        TrySendError::Disconnected(_) => KIND.unreachable("the module's thread has just ended"),
    })?;
    answered.recv_timeout(LIMIT).map_err(|error| match error {
        RecvTimeoutError::Timeout => {
            KIND.unreachable(format!("the module did not answer within {} seconds", LIMIT.as_secs()))
        }
        RecvTimeoutError::Disconnected => KIND.unreachable("the module's thread ended in the middle of the call"),
    })?
}

fn thread_of(path: &Path) -> Result<SyncSender<Job>, RootError> {
    // The map is whole at any moment.
    let mut modules = MODULES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((jobs, thread)) = modules.get(path)
        && !thread.is_finished()
    {
        return Ok(jobs.clone());
    }
    let (jobs, received) = mpsc::sync_channel::<Job>(WAITING);
    let mut module = Module { path: path.to_owned(), library: None, is_initialised: false };
    let thread = thread::Builder::new()
        .name("pkcs11".to_owned())
        .spawn(move || received.into_iter().for_each(|job| job(&mut module)))
        .map_err(|error| KIND.unreachable(format!("no thread can be started: {error}")))?;
    modules.insert(path.to_owned(), (jobs.clone(), thread));
    Ok(jobs)
}

struct Module {
    path: PathBuf,
    library: Option<Pkcs11>,
    is_initialised: bool,
}

impl Module {
    /// Runs work against the module, loaded and initialised now if it is not yet: its file may come later than the vault.
    fn run<T>(&mut self, work: impl FnOnce(&Pkcs11) -> Result<T, RootError>) -> Result<T, RootError> {
        let library = match &self.library {
            Some(library) => library.clone(),
            None => self.library.insert(Pkcs11::new(&self.path).map_err(failure::classify)?).clone(),
        };
        if !self.is_initialised {
            match library.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
                // By another path that leads to the same library.
                Ok(()) | Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => {}
                Err(error) => return Err(failure::classify(error)),
            }
            self.is_initialised = true;
        }
        let result = work(&library);
        if let Err(RootError::Unreachable { .. }) = result {
            // Some modules find a token that came back only when they are initialised anew, as the next call will.
            drop(library.finalize());
            self.is_initialised = false;
        }
        result
    }
}
