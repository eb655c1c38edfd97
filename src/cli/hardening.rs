//! What the process does so that keys and plaintexts stay in its memory: no core dumps, no swap where allowed, files
//! for its owner only. And that its memory stays where it is.

use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit, umask};
use rustix::thread::disable_transparent_huge_pages;

/// Protects the process. Called first, before any secret is read.
pub fn protect_process() {
    umask(rustix::fs::Mode::from_raw_mode(0o077));
    // The kernel would stop all threads for tens of milliseconds, now and then, to make large pages of small ones.
    if let Err(error) = disable_transparent_huge_pages(true) {
        tracing::debug!(%error, "large pages can't be switched off");
    }
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    if let Err(error) =
        setrlimit(Resource::Core, none).and_then(|()| set_dumpable_behavior(DumpableBehavior::NotDumpable))
    {
        tracing::warn!(%error, "core dumps can't be switched off");
    }
    // With a limit, locking would succeed now and make a later allocation fail: then it is better left alone.
    match getrlimit(Resource::Memlock).current {
        None => {
            if let Err(error) = mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT) {
                tracing::warn!(%error, "memory can't be locked; see that swap is encrypted or off");
            }
        }
        Some(_) => {
            tracing::info!("memory is not locked (RLIMIT_MEMLOCK is limited); see that swap is encrypted or off")
        }
    }
}

/// Lets the process hold as many files open as it may be allowed to.
pub fn hold_many_files() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }) {
        tracing::debug!(%error, "the limit of open files can't be raised");
    }
}
