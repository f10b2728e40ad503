//! An environment for examples: a directory, a key and a discovery port that nothing else uses.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};

use tempfile::TempDir;

pub(crate) struct Scene {
    directory: TempDir,
    port: u16,
}

impl Scene {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let port = 20_000 + (std::process::id() % 200) as u16 * 64 + NEXT.fetch_add(1, Ordering::Relaxed);
        let scene = Self { directory: tempfile::tempdir().unwrap(), port };
        scene.write_key("key", "5e");
        scene
    }

    pub(crate) fn root(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn path(&self, name: impl AsRef<OsStr>) -> PathBuf {
        self.root().join(name.as_ref())
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Writes a key that consists of this byte, repeated.
    pub(crate) fn write_key(&self, name: &str, byte: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, byte.repeat(32)).unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        path
    }

    /// Returns the command of an example, in the directory.
    pub(crate) fn example<S: AsRef<OsStr>>(&self, name: &str, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(executable(name));
        command.args(args);
        self.enter(&mut command);
        command
    }

    /// Runs an example whose output is not read to its end, since it is not read at all. It must succeed.
    pub(crate) fn example_into_closed_pipe(&self, name: &str, args: &[&str]) {
        let mut command = self.example(name, args);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success() && !stderr.contains("panicked"),
            "{name}: {}, {stderr}",
            output.status
        );
    }

    /// Makes the command run here, whatever environment the tests were started with.
    pub(crate) fn enter(&self, command: &mut Command) {
        command
            .current_dir(self.root())
            .env("RIVER_PORT", self.port.to_string())
            .env("RIVER_KEY_FILE", self.path("key"))
            .env("RIVER_CACHE", self.path("images"));
        for name in ["RIVER_VMS", "RIVER_NETWORK", "RIVER_HOSTS", "RIVER_PASS"] {
            command.env_remove(name);
        }
    }
}

/// The example's executable, which `cargo test` builds along with the tests.
pub(crate) fn executable(name: &str) -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let path = tests.parent().unwrap().parent().unwrap().join("examples").join(name);
    assert!(path.exists(), "{} is missing: run `cargo build -p river-examples --examples`", path.display());
    path
}
