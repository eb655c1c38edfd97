//! Embeds in the binary what it was built from: the commit, whether the sources were still those of it, and the compiler.

use std::path::Path;
use std::process::Command;

/// What the binary is compiled from, as git names paths. Tests and examples are compiled for themselves only.
const SOURCES: [&str; 12] = [
    "build.rs",
    "Cargo.toml",
    "Cargo.lock",
    "src",
    "proto",
    "keys",
    "deploy/policies",
    "deploy/schemas",
    ":(exclude,glob)**/tests/**",
    ":(exclude,glob)**/examples/**",
    ":(exclude)*tests.rs",
    ":(exclude)*.md",
];

/// A hook of git's sets these for the repository that it runs for; this asks for its own.
const GITS_OWN: [&str; 4] = ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR"];

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let commit = commit().unwrap_or_else(|| "unknown".to_owned());
    println!("cargo:rustc-env=STRONGROOM_COMMIT={commit}");
    let compiler = std::env::var_os("RUSTC").and_then(|rustc| output(Command::new(rustc).arg("--version")));
    println!("cargo:rustc-env=STRONGROOM_COMPILER={}", compiler.as_deref().unwrap_or("unknown"));
    println!("cargo:rustc-env=STRONGROOM_OPTIMISED={}", std::env::var("OPT_LEVEL").unwrap_or_default());
}

/// The commit, with `-dirty` behind it if a source differs from it; nothing if this is no checkout, or there is no git.
fn commit() -> Option<String> {
    // A checkout has a folder `.git`, a further work tree a file. Without either, git would look further up and might
    // find somebody else's repository.
    if !Path::new(".git").exists() {
        return None;
    }
    let commit = git(&["rev-parse", "--short=12", "HEAD"])?;
    // What moves with each commit and checkout: HEAD, its log, and the branch, which is a file or a line of packed-refs.
    // The index is not among them: `git add` and `git status` write it, and nothing that is compiled changes.
    let branch = git(&["rev-parse", "--symbolic-full-name", "HEAD"]).unwrap_or_default();
    for name in ["HEAD", "logs/HEAD"] {
        rerun_if_changed(&git(&["rev-parse", "--git-path", name])?);
    }
    if !rerun_if_changed(&git(&["rev-parse", "--git-path", &branch])?) {
        rerun_if_changed(&git(&["rev-parse", "--git-path", "packed-refs"])?);
    }
    // Each of these is compiled into the binary, so looking again when one changes costs no build of its own.
    let listed = git(&[&["-c", "core.quotePath=false", "ls-files", "--"], &SOURCES[..]].concat())?;
    listed.lines().for_each(|file| {
        rerun_if_changed(file);
    });
    let changed = git(&[&["status", "--porcelain", "--untracked-files=no", "--"], &SOURCES[..]].concat())?;
    Some(if changed.is_empty() { commit } else { format!("{commit}-dirty") })
}

/// Lets cargo watch a file, if there is one: it would take a missing one for a changed one, every time.
fn rerun_if_changed(file: &str) -> bool {
    let exists = Path::new(file).is_file();
    if exists {
        println!("cargo:rerun-if-changed={file}");
    }
    exists
}

fn git(words: &[&str]) -> Option<String> {
    let mut git = Command::new("git");
    // Without a lock `status` leaves the index alone.
    git.arg("--no-optional-locks").args(words);
    GITS_OWN.iter().for_each(|name| {
        git.env_remove(name);
    });
    output(&mut git)
}

fn output(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}
