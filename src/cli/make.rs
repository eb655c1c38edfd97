//! A new vault's folder, made so that a half-made vault is never taken for one: for `init` and `dev`.

use std::path::Path;

use strongroom_ids::VaultId;
use strongroom_keys::{Keystore, RootProvider};
use strongroom_rocksdb::{RocksOptions, RocksStore};
use strongroom_vault::{NewTenant, NewVault};

use super::config::Config;
use super::files::{replace, sync_folder};
use super::layout::Layout;
use super::output::CliError;
use super::start;

/// Makes a vault's folder so that a half-made vault is never taken for one.
///
/// A new folder grows under another name. One that is there and empty, as a container's volume is, can't be replaced:
/// there the configuration, which is written last, says that the vault is whole.
pub async fn in_place<T>(
    layout: &Layout,
    make: impl AsyncFnOnce(&Layout) -> Result<T, CliError>,
) -> Result<T, CliError> {
    if layout.dir().exists() {
        let made = make(layout).await;
        if made.is_err() {
            // The first error is the one to report. What was found empty holds nothing but this.
            drop(empty(layout));
        }
        return made;
    }
    let mut name = layout.dir().file_name().unwrap_or_default().to_owned();
    name.push(format!(".new-{}", std::process::id()));
    let unfinished = Layout::new(layout.dir().with_file_name(name));
    std::fs::create_dir_all(unfinished.dir()).map_err(|error| CliError::file(unfinished.dir(), error))?;
    let made = async {
        let made = make(&unfinished).await?;
        std::fs::rename(unfinished.dir(), layout.dir()).map_err(|error| CliError::file(layout.dir(), error))?;
        if let Err(error) = sync_folder(layout.dir()) {
            // What was made for it, its shares among them, is about to be taken back.
            drop(std::fs::remove_dir_all(layout.dir()));
            return Err(error);
        }
        Ok(made)
    }
    .await;
    if made.is_err() {
        // The first error is the one to report; what is left is named after this process.
        drop(std::fs::remove_dir_all(unfinished.dir()));
    }
    made
}

/// Whether a folder holds nothing. A file system of its own begins with `lost+found`.
pub fn is_empty(dir: &Path) -> Result<bool, CliError> {
    let entries = std::fs::read_dir(dir).and_then(|entries| entries.collect::<Result<Vec<_>, _>>());
    let entries = entries.map_err(|error| CliError::file(dir, error))?;
    Ok(entries.iter().all(|entry| entry.file_name() == "lost+found"))
}

/// Removes the parts of a half-made vault.
fn empty(layout: &Layout) -> std::io::Result<()> {
    for folder in
        [layout.data(), layout.keystore(), layout.journal(), layout.pki()].iter().filter(|folder| folder.exists())
    {
        std::fs::remove_dir_all(folder)?;
    }
    let files = [layout.config(), layout.head(), layout.dev_passphrase()];
    files.iter().filter(|file| file.exists()).try_for_each(std::fs::remove_file)
}

/// What a new vault begins with.
pub struct Contents {
    /// The trust domain of all certificates.
    pub trust_domain: String,
    /// SHA-256 of the certificates (DER) of the callers' authorities.
    pub trust_anchors: Vec<[u8; 32]>,
    /// Its tenants and their officers.
    pub tenants: Vec<NewTenant>,
    /// Where it will answer.
    pub listen: String,
    /// The table `[root]` of its configuration, if it needs one.
    pub root_config: String,
}

/// Makes the keystore, the store, and last the configuration, by which a vault is known to be whole.
pub async fn create(layout: &Layout, root: &dyn RootProvider, contents: Contents) -> Result<VaultId, CliError> {
    let unfit = |error: &dyn std::error::Error| CliError::unfit(format!("the vault can't be made: {error}"));
    let Contents { trust_domain, trust_anchors, tenants, listen, root_config } = contents;
    let config = Config::text(&listen, &root_config)?;
    let vault = VaultId(strongroom_keys::random().map_err(|error| unfit(&error))?);
    let keystore = Keystore::create(&layout.keystore(), vault, root).map_err(|error| unfit(&error))?;
    let store = RocksStore::create(&layout.data(), RocksOptions::default()).map_err(|error| unfit(&error))?;
    let (head_file, journal) = (layout.head(), layout.journal());
    let clock = start::clock();
    let new = NewVault { store, keystore, head_file, journal, trust_domain, trust_anchors, tenants, clock };
    strongroom_vault::create(new).await.map_err(|error| unfit(&error))?;
    replace(&layout.config(), config.as_bytes())?;
    Ok(vault)
}
