//! A farm as its user sees it: the progress bar on a terminal, and what is left after Ctrl-C.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use portable_pty::{Child, CommandBuilder, PtySize, native_pty_system};
use river_core::Vr;
use river_rai::RaiServer;
use river_trickle::{Vms, join, progress_bar};

/// Only guards against hanging.
const LIMIT: Duration = Duration::from_secs(60);
/// How many items the helper farms out.
const ITEMS: &str = "RIVER_TEST_ITEMS";
/// The sequence that moves to the beginning of a line and clears it.
const CLEAR: &str = "\r\u{1b}[2K";

/// Not a real test: the program that the others run. It squares numbers on two VMs, a hundred per second, and prints
/// their process ids.
#[test]
fn helper_that_farms() {
    let Some(items) = std::env::var(ITEMS).ok().and_then(|items| items.parse::<u64>().ok()) else { return };
    let program = |vr: &Vr| {
        let machines = vr.start_local(2)?;
        let servers = vr.deploy(&machines, |_| RaiServer::unrestricted())?;
        let vms = Vms::attach(vr, machines.iter().map(|vm| vm.name.clone()).zip(servers.iter()));
        let hosts = join(vms.fork(std::process::id, ())?)?;
        println!("\nhosts {} {} work", hosts[0], hosts[1]);
        let square = |x: u64| {
            std::thread::sleep(Duration::from_millis(20));
            x * x
        };
        let squares = vms.forkgen(square, 0..items, 1).on_progress(progress_bar("squaring")).in_order()?;
        println!("\nsum {}", squares.iter().sum::<u64>());
        Ok(())
    };
    river_core::try_run(program).unwrap();
}

/// A directory for everything that the helper leaves on disk.
struct Scene(tempfile::TempDir);

impl Scene {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn environment(&self, items: u64) -> [(&'static str, String); 4] {
        let at = |name: &str| {
            let path = self.0.path().join(name);
            std::fs::create_dir_all(&path).unwrap();
            path.to_str().unwrap().to_owned()
        };
        [
            (ITEMS, items.to_string()),
            ("RIVER_CACHE", at("cache")),
            ("TMPDIR", at("tmp")),
            ("TERM", "xterm".into()),
        ]
    }

    /// The files that are there.
    fn files(&self) -> BTreeSet<String> {
        fn add(directory: &Path, files: &mut BTreeSet<String>) {
            for entry in std::fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    add(&path, files);
                } else {
                    files.insert(path.to_str().unwrap().to_owned());
                }
            }
        }
        let mut files = BTreeSet::new();
        add(self.0.path(), &mut files);
        files
    }
}

/// The helper on a terminal of its own. Killed when dropped.
struct Terminal {
    child: Box<dyn Child + Send + Sync>,
    keyboard: Box<dyn Write + Send>,
    shown: Arc<Mutex<Vec<u8>>>,
    reader: Option<std::thread::JoinHandle<()>>,
}

impl Terminal {
    fn start(scene: &Scene, items: u64) -> Self {
        let size = PtySize { rows: 24, cols: 120, ..PtySize::default() };
        let pair = native_pty_system().openpty(size).unwrap();
        let mut command = CommandBuilder::new(std::env::current_exe().unwrap());
        command.args(["--exact", "helper_that_farms", "--nocapture"]);
        scene.environment(items).into_iter().for_each(|(name, value)| command.env(name, value));
        let child = pair.slave.spawn_command(command).unwrap();
        drop(pair.slave);
        let (mut screen, keyboard) =
            (pair.master.try_clone_reader().unwrap(), pair.master.take_writer().unwrap());
        let shown = Arc::new(Mutex::new(Vec::new()));
        let show = shown.clone();
        let reader = std::thread::spawn(move || {
            let mut piece = [0; 4096];
            // This is an error once no process has the terminal open.
            while let Ok(n @ 1..) = screen.read(&mut piece) {
                show.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&piece[..n]);
            }
            drop(pair.master);
        });
        Self { child, keyboard, shown, reader: Some(reader) }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.shown.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }

    /// Waits until something is shown, and returns it.
    fn until<T>(&self, what: &str, find: impl Fn(&str) -> Option<T>) -> T {
        let start = Instant::now();
        loop {
            let text = self.text();
            if let Some(found) = find(&text) {
                return found;
            }
            assert!(start.elapsed() < LIMIT, "{what} within {LIMIT:?}, not {text:?}");
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }

    /// The process numbers of the two hosts.
    fn hosts(&self) -> Vec<String> {
        self.until("hosts", |text| {
            let (_, rest) = text.split_once("hosts ")?;
            let (hosts, _) = rest.split_once(" work")?;
            Some(hosts.split(' ').map(str::to_owned).collect())
        })
    }

    /// Waits for its end, and for that of all processes that have the terminal open.
    fn end(&mut self) -> portable_pty::ExitStatus {
        let status = self.child.wait().unwrap();
        self.reader.take().unwrap().join().unwrap();
        status
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn bars(text: &str) -> impl Iterator<Item = &str> {
    text.split(['\r', '\n']).filter(|line| line.contains("squaring ["))
}

#[test]
fn the_bar_shows_rate_and_remaining_time_on_a_terminal_and_goes() {
    let scene = Scene::new();
    let mut terminal = Terminal::start(&scene, 100);
    terminal.until("a bar that has come some way", |text| {
        bars(text)
            .any(|bar| bar.contains("/100, ") && bar.contains("/s, ") && bar.contains(" left, 2 VMs"))
            .then_some(())
    });
    assert!(terminal.end().success());
    let text = terminal.text();
    let done = |bar: &str| bar.split_once("] ")?.1.split_once('/')?.0.parse::<u64>().ok();
    let steps: Vec<u64> = bars(&text).filter_map(done).collect();
    assert!(steps.len() > 2 && steps.is_sorted() && steps.last() > steps.first(), "{steps:?}");
    let (_, after) = text.rsplit_once("squaring [").unwrap();
    assert!(after.contains(CLEAR) && after.contains("sum 328350"), "{after:?}");
}

#[test]
fn there_is_no_bar_without_a_terminal() {
    let scene = Scene::new();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "helper_that_farms", "--nocapture"])
        .envs(scene.environment(100))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("sum 328350"), "{said}");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!error.contains("squaring") && !error.contains('\u{1b}'), "{error}");
}

#[test]
fn ctrl_c_ends_the_program_and_its_hosts_and_leaves_nothing() {
    let scene = Scene::new();
    let mut whole = Terminal::start(&scene, 1);
    assert!(whole.end().success());
    let usual = scene.files();

    let mut terminal = Terminal::start(&scene, 1_000_000);
    let hosts = terminal.hosts();
    terminal.until("a bar", |text| bars(text).next().map(drop));
    terminal.keyboard.write_all(b"\x03").unwrap();
    // By now all processes that had the terminal open are gone.
    let status = terminal.end();
    // What a shell reports as 130.
    assert_eq!(status.signal(), Some("Interrupt"), "{status:?}");
    for host in hosts {
        let start = Instant::now();
        while Path::new("/proc").join(&host).exists() {
            assert!(start.elapsed() < LIMIT, "host {host} is still there");
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }
    assert_eq!(scene.files(), usual);
}
