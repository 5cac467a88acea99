//! Where a passphrase comes from: a file, or the terminal. The only file that names `rpassword`.

use super::IdentityError;
use std::{
    fs::File,
    io::{self, IsTerminal, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};
use zeroize::Zeroizing;

/// Names a passphrase file in the environment.
pub const PASSPHRASE_FILE: &str = "INFERNET_PASSPHRASE_FILE";
/// Longer ones are a file that was named by mistake.
const MAX_PASSPHRASE_BYTES: u64 = 1024;
/// Eight random characters are 2^40 guesses; with Argon2 in between, years.
const MIN_CHARS: usize = 8;
/// Permission bits of group and others.
const OTHERS: u32 = 0o077;

/// A passphrase, wiped when it is no longer needed.
pub type Passphrase = Zeroizing<String>;

/// Where passphrases are asked for.
#[derive(Debug, Clone, Default)]
pub struct Source {
    file: Option<PathBuf>,
}

impl Source {
    /// `flag`, else the file that [`PASSPHRASE_FILE`] names, else the terminal.
    pub fn new(flag: Option<PathBuf>) -> Self {
        let named = || std::env::var_os(PASSPHRASE_FILE).filter(|name| !name.is_empty()).map(PathBuf::from);
        Source { file: flag.or_else(named) }
    }

    /// The passphrase of something that exists; `what` is what it opens.
    pub fn ask(&self, what: &str) -> Result<Passphrase, IdentityError> {
        match &self.file {
            Some(path) => read(path),
            None => prompt(&format!("passphrase of {what}: ")),
        }
    }

    /// A passphrase for something new: long enough and, on a terminal, typed twice.
    pub fn choose(&self, what: &str) -> Result<Passphrase, IdentityError> {
        let first = match &self.file {
            Some(path) => return read(path).and_then(long_enough),
            None => long_enough(prompt(&format!("new passphrase for {what}: "))?)?,
        };
        let again = prompt("again: ")?;
        if *first == *again {
            Ok(first)
        } else {
            Err(IdentityError::Passphrase("the two passphrases differ: try again".into()))
        }
    }
}

fn long_enough(passphrase: Passphrase) -> Result<Passphrase, IdentityError> {
    let chars = passphrase.chars().count();
    if chars >= MIN_CHARS {
        return Ok(passphrase);
    }
    let text = format!("the passphrase has {chars} characters: take at least {MIN_CHARS}, better four random words");
    Err(IdentityError::Passphrase(text))
}

fn prompt(question: &str) -> Result<Passphrase, IdentityError> {
    // Answers come from the terminal itself, so a prompt that is piped in is left alone.
    if !io::stderr().is_terminal() {
        let text = format!(
            "a passphrase is needed, and there is no terminal: name a file with it in {PASSPHRASE_FILE}, as passphrase_file in \
             config.toml, or, with start, chat and key, by --passphrase-file"
        );
        return Err(IdentityError::Passphrase(text));
    }
    let typed = rpassword::prompt_password(question).map(Zeroizing::new);
    typed.map_err(|error| IdentityError::Passphrase(format!("can't read a passphrase from the terminal: {error}")))
}

/// The first line of a file that nobody else may read.
fn read(path: &Path) -> Result<Passphrase, IdentityError> {
    let bad = |reason: String| IdentityError::Passphrase(format!("can't use the passphrase file {}: {reason}", path.display()));
    let file = File::open(path).map_err(|error| bad(error.to_string()))?;
    let about = file.metadata().map_err(|error| bad(error.to_string()))?;
    if about.is_file() && about.mode() & OTHERS != 0 {
        return Err(bad(format!("others may read it; run `chmod 600 {}`", path.display())));
    }
    let mut text = Zeroizing::new(String::new());
    file.take(MAX_PASSPHRASE_BYTES).read_to_string(&mut text).map_err(|error| bad(error.to_string()))?;
    let line = Zeroizing::new(text.lines().next().unwrap_or_default().to_owned());
    if line.is_empty() { Err(bad("its first line is empty".into())) } else { Ok(line) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::PermissionsExt};

    fn source(text: &str, mode: u32) -> (tempfile::TempDir, Source) {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("passphrase");
        fs::write(&path, text).expect("writes");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("is ours");
        let source = Source::new(Some(path));
        (dir, source)
    }

    #[test]
    fn a_file_gives_its_first_line() {
        let (_dir, file) = source("correct horse\nbattery\n", 0o600);
        assert_eq!(*file.ask("x").unwrap(), "correct horse");
        assert_eq!(*file.choose("x").unwrap(), "correct horse");
    }

    #[test]
    fn bad_files_are_named_and_not_shown() {
        let check = |text: &str, mode, expected: &str| {
            let (_dir, file) = source(text, mode);
            let error = file.choose("x").unwrap_err().to_string();
            assert!(error.contains(expected) && (text.trim().is_empty() || !error.contains(text.trim())), "{error}");
        };
        check("correct horse", 0o644, "chmod 600");
        check("\n", 0o600, "first line is empty");
        check("horse", 0o600, "5 characters: take at least 8");
        let missing = Source::new(Some("/nonexistent/file".into())).ask("x").unwrap_err().to_string();
        assert!(missing.contains("/nonexistent/file"), "{missing}");
    }
}
