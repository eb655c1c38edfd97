//! Shares of a root key on their way to their holders, and back.

use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use strongroom_keys::Envelope;
use strongroom_keys::root::shamir::{self, ShamirCollector, ShamirRoot, Share};
use zeroize::Zeroizing;

use crate::cli::files::sync_folder;
use crate::cli::make::is_empty;
use crate::cli::output::CliError;
use crate::cli::passphrase::ask;
use crate::cli::pki::write_private;

/// How a root key is split, and where its shares go.
///
/// They go into files, one for each holder, and never to the terminal: what is printed there stays in its memory, in
/// recordings and in logs, all shares side by side. A file can be moved to a medium of its own and handed over.
#[derive(Clone, Debug, clap::Args)]
pub struct SharesArgs {
    /// Into how many shares the root key is split: 2 to 16.
    #[arg(long, value_name = "N")]
    shares: Option<u8>,

    /// How many of them open the vault: 2 at the least.
    #[arg(long, value_name = "K")]
    threshold: Option<u8>,

    /// A new or empty folder for the shares, one file for each, that only you can read. Best on a medium that is wiped
    /// when they are handed over.
    #[arg(long, value_name = "DIR")]
    shares_to: Option<PathBuf>,
}

impl SharesArgs {
    /// A root key of another kind has no shares.
    pub fn must_be_absent(&self) -> Result<(), CliError> {
        match (self.shares, self.threshold, &self.shares_to) {
            (None, None, None) => Ok(()),
            _ => Err(CliError::Usage("--shares, --threshold and --shares-to belong to a root key in shares".into())),
        }
    }

    /// Makes a root key, splits it, and writes the shares.
    pub fn write(&self) -> Result<(ShamirRoot, WrittenShares), CliError> {
        let (Some(count), Some(threshold), Some(folder)) = (self.shares, self.threshold, &self.shares_to) else {
            return Err(CliError::Usage(
                "a root key in shares needs --shares N --threshold K --shares-to DIR: how many there are, how many open \
                 the vault, and where they are written"
                    .into(),
            ));
        };
        let (root, shares) = shamir::split(count, threshold).map_err(|error| CliError::Usage(error.to_string()))?;
        let written = WrittenShares::write(folder, &root, &shares)?;
        Ok((root, written))
    }
}

/// Shares that were written. Removed again when this is dropped, unless they are kept: nothing is sealed under them then.
pub struct WrittenShares {
    files: Vec<PathBuf>,
    /// The folder, if it was made for them.
    made: Option<PathBuf>,
}

impl WrittenShares {
    fn write(folder: &Path, root: &ShamirRoot, shares: &[Share]) -> Result<Self, CliError> {
        let file = |error| CliError::file(folder, error);
        let exists = folder.exists();
        if exists && !is_empty(folder)? {
            return Err(CliError::unfit(format!(
                "{} is not empty; shares get a folder of their own, so that none is taken for another",
                folder.display()
            )));
        }
        let mut written = Self { files: vec![], made: None };
        if !exists {
            std::fs::DirBuilder::new().mode(0o700).create(folder).map_err(file)?;
            written.made = Some(folder.to_owned());
            sync_folder(folder)?;
        }
        let (count, threshold) = (root.set().count(), root.set().threshold());
        for share in shares {
            let path = folder.join(format!("share-{}-of-{count}.txt", share.number()));
            let secret = share.text();
            let head = format!(
                "# Strongroom: share {} of {count} of a root key, of set {}. Any {threshold} of them open the vault.\n\
                 # Keep it to yourself, and where you will find it again.\n",
                share.number(),
                root.set().id()
            );
            // One allocation of the exact size: growing would leave a part behind.
            let mut text = Zeroizing::new(String::with_capacity(head.len() + secret.len() + 1));
            text.push_str(&head);
            text.push_str(&secret);
            text.push('\n');
            written.files.push(path.clone());
            write_private(&path, text.as_bytes())?;
            // A medium that gives back something else is found out now.
            if *read(&path)? != *secret {
                return Err(CliError::unfit(format!("{} does not hold what was written to it", path.display())));
            }
        }
        if let Some(first) = written.files.first() {
            sync_folder(first)?;
        }
        Ok(written)
    }

    /// They are in use: keeps them, and says where they are.
    pub fn keep(mut self) -> Vec<PathBuf> {
        self.made = None;
        std::mem::take(&mut self.files)
    }
}

impl Drop for WrittenShares {
    fn drop(&mut self) {
        // They open nothing: what can't be removed does no harm.
        for file in &self.files {
            drop(std::fs::remove_file(file));
        }
        if let Some(folder) = &self.made {
            drop(std::fs::remove_dir(folder));
        }
    }
}

/// Collects enough shares to open an envelope: from the files, then at the terminal.
pub fn collect(envelope: &Envelope, files: &[PathBuf]) -> Result<Arc<ShamirRoot>, CliError> {
    let unfit = |error: &dyn std::error::Error| CliError::unfit(error.to_string());
    let mut collector = ShamirCollector::new(envelope).map_err(|error| unfit(&error))?;
    for file in files {
        let added = collector.add(&read(file)?);
        added.map_err(|error| CliError::unfit(format!("{}: {error}", file.display())))?;
    }
    while !collector.progress().is_enough() && io::stdin().is_terminal() {
        let progress = collector.progress();
        let next = progress.have.saturating_add(1);
        let text = ask(&format!("Share of the root key, the {next}. of {}: ", progress.need), "--share-file FILE")?;
        if text.trim().is_empty() {
            break;
        }
        if let Err(error) = collector.add(&text) {
            // Whoever mistyped is still there. Nobody is left to hear that standard error is closed.
            let _ = writeln!(io::stderr(), "{error}");
        }
    }
    collector.root().map_err(|error| CliError::Unfit {
        message: error.to_string(),
        next: "--share-file FILE, once for each share".into(),
    })
}

/// The share in a file: its first line that is neither empty nor a remark.
pub fn read(path: &Path) -> Result<Zeroizing<String>, CliError> {
    let text = Zeroizing::new(std::fs::read_to_string(path).map_err(|error| CliError::file(path, error))?);
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    Ok(Zeroizing::new(lines.next().unwrap_or_default().to_owned()))
}
