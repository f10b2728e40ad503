//! `river top`: shows what VMs and programs are doing now.
//!
//! * [`gather`]: asks all of them.
//! * [`table`]: turns two successive answers into the lines of each view.
//! * [`screen`]: the current view, its sorting and filter, and the effects of keys. Works without a terminal.
//! * [`draw`]: draws the screen.

mod draw;
mod gather;
mod screen;
mod table;

use std::io::{self, IsTerminal};
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event};
use river::VrError;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;

use super::print;
use gather::Snapshot;
use screen::{Next, Screen};

/// The longest delay before a key is handled.
const LOOK: Duration = Duration::from_millis(50);
/// How long after a signal the process may take to end by itself.
const GRACE: Duration = Duration::from_secs(1);

/// Watch virtual machines and programs
///
/// Shows VMs, programs, VRs (queued messages, and how long each VR has been waiting) and links (messages and bytes), with CPU
/// time, memory, leases and suspected failures. Only programs that use a VM that can be found are shown.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  river top                                until q is pressed
  river top --interval 5                   updated every five seconds
  river top --once                         the current state, as text
  river top --once --json | jq '.programs[].name'

Keys:
  Tab, 1-4          VMs, programs, VRs, links
  up, down, PgUp, PgDn, Home, End
  Enter, Esc        only what belongs to the selected line; all
  left, right, r    sort by another column; reverse the order
  /                 filter: type, then Enter; Esc clears it
  q, Ctrl-C         quit

Exit status:
  0  success
  1  an error, reported on stderr
  2  the command line is invalid")]
pub(crate) struct Args {
    /// The time between updates
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    interval: Duration,
    /// Print the current state, and exit
    #[arg(long)]
    once: bool,
    /// Print JSON
    #[arg(long, requires = "once")]
    json: bool,
}

impl Args {
    /// Whether output to stderr would overwrite the screen.
    pub(crate) fn draws_on_stderr(&self) -> bool {
        !self.once && io::stderr().is_terminal()
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(seconds) if (0.1..=3600.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("it must be a number of seconds, 0.1 to 3600".into()),
    }
}

pub(crate) fn run(args: &Args) -> river::Result {
    if args.once {
        let snapshot = Snapshot::take()?;
        let text = if args.json {
            serde_json::to_string_pretty(&snapshot.to_json())? + "\n"
        } else {
            table::all_as_text(&snapshot)
        };
        return Ok(print(&text)?);
    }
    if !io::stdout().is_terminal() {
        return Err(VrError::msg("the output is not a terminal: use --once, with or without --json"));
    }
    let ended = Arc::new(AtomicBool::new(false));
    end_at_a_signal(ended.clone())?;
    let (taken, snapshots) = mpsc::channel();
    let interval = args.interval;
    thread::Builder::new().name("river-top".into()).spawn(move || {
        // Ends when the receiver is gone.
        while taken.send(Snapshot::take()).is_ok() {
            thread::sleep(interval);
        }
    })?;
    // A panic restores the terminal, too.
    let mut terminal = ratatui::try_init()?;
    let result = show(&mut terminal, &snapshots, &ended);
    // It fails where the terminal is gone.
    let _ = ratatui::try_restore();
    result
}

fn end_at_a_signal(ended: Arc<AtomicBool>) -> io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGQUIT, SIGTERM, SIGHUP])?;
    thread::Builder::new().name("river-top-signals".into()).spawn(move || {
        if signals.forever().next().is_some() {
            ended.store(true, Relaxed);
            // If the terminal is gone, crossterm reads its end again and again, and the other thread hears of nothing.
            thread::sleep(GRACE);
            let _ = ratatui::try_restore();
            process::exit(1);
        }
    })?;
    Ok(())
}

fn show(
    terminal: &mut DefaultTerminal,
    snapshots: &mpsc::Receiver<river::Result<Snapshot>>,
    ended: &AtomicBool,
) -> river::Result {
    let mut screen = Screen::default();
    while !ended.load(Relaxed) {
        while let Ok(snapshot) = snapshots.try_recv() {
            screen.update(snapshot);
        }
        terminal.draw(|frame| draw::draw(&mut screen, frame))?;
        // Handle all pending keys, then draw once.
        let mut patience = LOOK;
        while event::poll(patience)? {
            patience = Duration::ZERO;
            if let Event::Key(key) = event::read()?
                && screen.press(key) == Next::Quit
            {
                return Ok(());
            }
        }
    }
    Ok(())
}
