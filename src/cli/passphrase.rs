//! Where the passphrase of the root key comes from: never from the command line, where everybody could read it.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use strongroom_keys::Passphrase;
use zeroize::Zeroizing;

use super::output::CliError;

/// The option that names a file with the passphrase.
#[derive(Clone, Debug, clap::Args)]
pub struct PassphraseArgs {
    /// A file that holds the passphrase of the root key, in its first line.
    ///
    /// Without it: `dev-passphrase` in the folder of a vault that `strongroom dev` made, the systemd credential
    /// `passphrase`, or a question at the terminal.
    #[arg(long, value_name = "FILE", env = "STRONGROOM_PASSPHRASE_FILE")]
    pub passphrase_file: Option<PathBuf>,
}

/// How a question ends that nobody can be asked.
const OTHERWISE: &str = "--passphrase-file FILE, or STRONGROOM_PASSPHRASE_FILE";

impl PassphraseArgs {
    /// The passphrase of an existing vault.
    pub fn read(&self) -> Result<Passphrase, CliError> {
        match self.file() {
            Some(path) => from_file(&path),
            None => fit(ask("Passphrase of the root key: ", OTHERWISE)?),
        }
    }

    /// A new passphrase: asked for twice.
    pub fn choose(&self) -> Result<Passphrase, CliError> {
        choose(self.file().as_deref(), OTHERWISE)
    }

    fn file(&self) -> Option<PathBuf> {
        let credential = || Some(PathBuf::from(std::env::var_os("CREDENTIALS_DIRECTORY")?).join("passphrase"));
        self.passphrase_file.clone().or_else(|| credential().filter(|path| path.exists()))
    }
}

/// A new passphrase: from a file, or asked for twice.
pub fn choose(file: Option<&Path>, otherwise: &str) -> Result<Passphrase, CliError> {
    if let Some(path) = file {
        return from_file(path);
    }
    let first = ask("New passphrase for the root key: ", otherwise)?;
    if *first != *ask("The same again: ", otherwise)? {
        return Err(CliError::unfit("the two passphrases differ; nothing was made"));
    }
    fit(first)
}

/// Reads a passphrase from the first line of a file.
pub fn from_file(path: &Path) -> Result<Passphrase, CliError> {
    fit(first_line(path)?)
}

/// Reads a secret from the first line of a file.
pub fn first_line(path: &Path) -> Result<Zeroizing<String>, CliError> {
    let text = Zeroizing::new(std::fs::read_to_string(path).map_err(|error| CliError::file(path, error))?);
    Ok(Zeroizing::new(text.lines().next().unwrap_or_default().to_owned()))
}

/// Asks at the terminal for something secret. `otherwise` is how it can be given without one.
pub fn ask(question: &str, otherwise: &str) -> Result<Zeroizing<String>, CliError> {
    if !std::io::stdin().is_terminal() {
        return Err(CliError::Unfit {
            message: "there is no terminal to ask for the root key's passphrase or share at".into(),
            next: otherwise.into(),
        });
    }
    rpassword::prompt_password(question)
        .map(Zeroizing::new)
        .map_err(|error| CliError::unfit(format!("the terminal can't be read: {error}")))
}

fn fit(mut text: Zeroizing<String>) -> Result<Passphrase, CliError> {
    Passphrase::new(std::mem::take(&mut *text)).map_err(|error| CliError::unfit(error.to_string()))
}
