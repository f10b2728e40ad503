//! `river key`.

use std::fmt::Write as _;
use std::fs::{DirBuilder, File};
use std::io::{self, IsTerminal, Read, Write as _};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use river::VrError;
use river::core::{ClusterKey, KeyError};

use super::{print, tell};

/// Longer than the text of any key.
const MAX_TEXT: u64 = 256;
const REPLACED: &str = "VMs and programs find each other only if they have the same key. Running ones keep the old one: \
                        restart them, and import the new key on the other machines";

/// Show, create or copy the key that controls who can run code here
///
/// The key is one file, created at first use. VMs and programs find each other only if they have the same key. Anyone who has it can run any code on the VMs, as the user who started them.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  river key show                               equal on two machines if they have the same key
  river key export | ssh lab river key import  copy it to the machine lab
  river key new --force                        replace it; restart the VMs to lock out the old key

Environment:
  RIVER_KEY_FILE  the file [default: ~/.config/river/key]

Exit status:
  0  success
  1  an error, reported on stderr: there is no key, one exists and --force is missing, or the
     input is not a key
  2  the command line is invalid")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Print the path of the key file, which need not exist
    Path,
    /// Print the key's fingerprint, which identifies the key without revealing it
    #[command(visible_alias = "fingerprint")]
    Show,
    /// Create a key
    New {
        /// Replace an existing key
        #[arg(long)]
        force: bool,
    },
    /// Print the key, for import on another machine
    Export,
    /// Install a key from a file or from standard input
    Import {
        /// The file, or - for standard input
        #[arg(default_value = "-")]
        file: PathBuf,
        /// Replace an existing key
        #[arg(long)]
        force: bool,
    },
}

pub(crate) fn run(args: &Args) -> river::Result {
    let path = ClusterKey::path()?;
    match &args.command {
        Command::Path => print(&format!("{}\n", path.display()))?,
        Command::Show => print(&format!("{}\n", load(&path)?.fingerprint()))?,
        Command::New { force } => {
            let scratch =
                tempfile::tempdir_in(directory_of(&path)?).map_err(|error| cannot_write(&path, error))?;
            let key = ClusterKey::load_or_create_at(&scratch.path().join("key"))?;
            install(&path, &hex(&key), "new", *force)?;
        }
        Command::Export => {
            let key = load(&path)?;
            if io::stdout().is_terminal() {
                tell("anyone who has this key can run any code on your VMs: keep it secret");
            }
            print(&format!("{}\n", hex(&key)))?;
        }
        Command::Import { file, force } => {
            let (text, from) = read(file)?;
            install(&path, &text, &from, *force)?;
        }
    }
    Ok(())
}

/// Loads the key, if there is one: unlike VMs and programs, these commands never create one in passing.
fn load(path: &Path) -> river::Result<ClusterKey> {
    match ClusterKey::load_at(path) {
        Err(KeyError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Err(VrError::msg(format!(
                "there is no key at {} yet: create one with `river key new`, or copy one with `river key import`",
                path.display()
            )))
        }
        other => Ok(other?),
    }
}

/// Reads a file, or standard input for `-`, and returns its contents and its name for messages.
fn read(file: &Path) -> river::Result<(String, String)> {
    let mut text = Vec::new();
    let (from, result) = if file == Path::new("-") {
        if io::stdin().is_terminal() {
            tell("paste the key, then press Enter and Ctrl-D");
        }
        ("standard input".to_owned(), io::stdin().lock().take(MAX_TEXT).read_to_end(&mut text))
    } else {
        let opened = File::open(file).and_then(|opened| opened.take(MAX_TEXT).read_to_end(&mut text));
        (file.display().to_string(), opened)
    };
    result.map_err(|error| VrError::msg(format!("cannot read {from}: {error}")))?;
    Ok((String::from_utf8_lossy(&text).into_owned(), from))
}

/// Installs the key in this text atomically, readable only by its owner.
fn install(path: &Path, text: &str, from: &str, force: bool) -> river::Result {
    let cannot = |error| cannot_write(path, error);
    // This file gets mode 0600, and is removed if it does not become the key.
    let mut draft =
        tempfile::Builder::new().prefix(".key-").tempfile_in(directory_of(path)?).map_err(cannot)?;
    writeln!(draft, "{}", text.trim()).and_then(|()| draft.as_file().sync_all()).map_err(cannot)?;
    let key = match ClusterKey::load_at(draft.path()) {
        Err(KeyError::Malformed { .. }) => {
            return Err(VrError::msg(format!(
                "{from} contains no key (64 hexadecimal digits): `river key export` prints one on a machine that has \
                 one"
            )));
        }
        other => other?,
    };
    let old = ClusterKey::load_at(path).ok().map(|key| key.fingerprint());
    let fingerprint = key.fingerprint();
    if old.as_ref() == Some(&fingerprint) {
        return Ok(print(&format!("key {fingerprint} is already in {}\n", path.display()))?);
    }
    let persisted =
        if force { draft.persist(path).map(drop) } else { draft.persist_noclobber(path).map(drop) };
    match persisted {
        Ok(()) => {}
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(VrError::msg(format!(
                "{} exists and was not changed: --force replaces it, and VMs and programs with the old key no longer \
                 find those with the new one",
                path.display()
            )));
        }
        Err(error) => return Err(cannot(error.error)),
    }
    print(&format!("key {fingerprint} is in {}\n", path.display()))?;
    if let Some(old) = old {
        tell(format_args!("key {old} was replaced. {REPLACED}"));
    }
    Ok(())
}

/// Returns the directory of the key, and creates it if necessary.
fn directory_of(path: &Path) -> river::Result<&Path> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(|error| cannot_write(path, error))?;
    Ok(directory)
}

fn cannot_write(path: &Path, error: io::Error) -> VrError {
    VrError::from(KeyError::Create { path: path.to_owned(), source: error })
}

fn hex(key: &ClusterKey) -> String {
    key.to_bytes().iter().fold(String::new(), |mut text, byte| {
        // Writing to a `String` cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
