//! Who may open a vault's folder while the vault is stopped: its owner alone. What anybody else writes there, root above
//! all, belongs to them, and the service can't open it afterwards.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::layout::Layout;
use super::output::CliError;

/// Refuses whoever does not own the data in a vault's folder.
pub fn must_own(layout: &Layout) -> Result<(), CliError> {
    let Ok(data) = std::fs::metadata(layout.data()) else {
        // What is not there, or may not be looked at, is told by who opens it.
        return Ok(());
    };
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    owned(layout.dir(), data.uid(), rustix::process::geteuid().as_raw(), &users)
}

/// Whether a folder of `owner` may be opened by `asking`. `users` is what /etc/passwd says.
fn owned(folder: &Path, owner: u32, asking: u32, users: &str) -> Result<(), CliError> {
    if owner == asking {
        return Ok(());
    }
    let name = |user| named(user, users).map_or_else(|| format!("user {user}"), str::to_owned);
    let (whose, who) = (name(owner), name(asking));
    Err(CliError::Unfit {
        message: format!(
            "the vault in {} belongs to {whose}, and you are {who}: it could not open what you would write there",
            folder.display()
        ),
        next: match named(owner, users) {
            Some(whose) => format!("as root: runuser -u {whose} -- and the same command"),
            None => format!("the same command as {whose}"),
        },
    })
}

/// The name of a user.
fn named(user: u32, users: &str) -> Option<&str> {
    let number = user.to_string();
    users.lines().find_map(|line| {
        let mut columns = line.split(':');
        let name = columns.next().filter(|name| !name.is_empty())?;
        (columns.nth(1)? == number).then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const USERS: &str = "root:x:0:0:root:/root:/bin/bash\n\nbroken\n\
                         strongroom:x:998:998::/var/lib/strongroom:/usr/sbin/nologin\n";

    #[test]
    fn only_the_owner_opens_a_folder_and_root_is_told_how_to_be_it() {
        let folder = Path::new("/var/lib/strongroom");
        assert!(owned(folder, 998, 998, USERS).is_ok());
        assert!(owned(folder, 0, 0, USERS).is_ok());
        let Err(CliError::Unfit { message, next }) = owned(folder, 998, 0, USERS) else { panic!("root may") };
        assert!(message.contains("belongs to strongroom, and you are root"), "{message}");
        assert!(next.contains("runuser -u strongroom -- "), "{next}");
    }

    #[test]
    fn an_owner_without_a_name_is_told_by_its_number() {
        let Err(CliError::Unfit { message, next }) = owned(Path::new("/v"), 7, 1000, USERS) else { panic!("it may") };
        assert!(message.contains("belongs to user 7, and you are user 1000"), "{message}");
        assert_eq!(next, "the same command as user 7");
    }

    #[test]
    fn who_made_a_folder_owns_it() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path());
        must_own(&layout).unwrap();
        std::fs::create_dir(layout.data()).unwrap();
        must_own(&layout).unwrap();
    }
}
