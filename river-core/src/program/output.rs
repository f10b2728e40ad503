//! Prints the output of hosts on the initiator's terminal, prefixed with the VM's name.
//!
//! A separate thread writes, since a terminal may stop reading, and the control plane must not block on it.

use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Receiver, Sender};

use crate::flood::{self, Fate, Flood};

pub(crate) struct Line {
    pub(crate) vm: String,
    pub(crate) stderr: bool,
    pub(crate) text: Vec<u8>,
}

pub(crate) struct Output {
    lines: Mutex<Option<(Sender<Line>, Flood)>>,
    printer: Mutex<Option<JoinHandle<()>>>,
}

impl Output {
    pub(crate) fn start() -> io::Result<Self> {
        let (lines, incoming) = crossbeam_channel::unbounded();
        let printer = thread::Builder::new().name("river-output".into()).spawn(move || print(&incoming))?;
        Ok(Self { lines: Mutex::new(Some((lines, Flood::default()))), printer: Mutex::new(Some(printer)) })
    }

    pub(crate) fn line(&self, line: Line) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((lines, flood)) = lines.as_mut() else { return };
        if let Fate::Forward { forgotten } = flood.line(line.text.len(), lines.len()) {
            if forgotten > 0 {
                let text = flood::note(forgotten);
                let _ = lines.send(Line { vm: line.vm.clone(), stderr: line.stderr, text });
            }
            let _ = lines.send(line);
        }
    }

    /// Waits until everything has been printed. Later lines are dropped.
    pub(crate) fn finish(&self) {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(printer) = self.printer.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = printer.join();
        }
    }
}

fn print(lines: &Receiver<Line>) {
    let colour = io::stderr().is_terminal() && io::stdout().is_terminal();
    while let Ok(Line { vm, stderr, text }) = lines.recv() {
        let prefix = if colour { format!("\x1b[36m[{vm}]\x1b[0m ") } else { format!("[{vm}] ") };
        let line = [prefix.as_bytes(), &text, b"\n"].concat();
        // A closed terminal is no reason to stop the program.
        let _ = if stderr { io::stderr().write_all(&line) } else { io::stdout().write_all(&line) };
    }
    let _ = io::stdout().flush();
}
