//! The folder of a command that makes all it needs anew each time: `demo` and `bench`.

use std::path::Path;

use super::output::CliError;

/// Makes a folder for a command, without what an earlier run of the same command left there. Any other folder that is
/// there already is refused.
pub fn make_anew(folder: &Path, command: &str) -> Result<(), CliError> {
    let file = |error| CliError::file(folder, error);
    // Says that the folder was made by this command, and may be made anew.
    let mark = folder.join(format!("made-by-strongroom-{command}"));
    if folder.exists() {
        if !mark.exists() {
            return Err(CliError::Unfit {
                message: format!("{} exists and was not made by `strongroom {command}`", folder.display()),
                next: "another folder with --folder".into(),
            });
        }
        std::fs::remove_dir_all(folder).map_err(file)?;
    }
    std::fs::create_dir_all(folder).map_err(file)?;
    std::fs::write(mark, "").map_err(file)
}
