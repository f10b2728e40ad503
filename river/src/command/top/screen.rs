//! What is shown, and what keys do.

use std::cmp::Ordering;

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::gather::Snapshot;
use super::table::{Line, Looks, View};

/// What to do after a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    Go,
    Quit,
}

/// Limits the lines to one program or VM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    Program(String),
    Vm(String),
}

#[derive(Debug, Default)]
pub(crate) struct Screen {
    now: Option<Snapshot>,
    before: Option<Snapshot>,
    /// Why the last snapshot failed or is incomplete.
    pub(crate) error: Option<String>,
    pub(crate) view: View,
    pub(crate) scope: Option<Scope>,
    pub(crate) filter: String,
    /// Whether the filter is being typed.
    pub(crate) typing: bool,
    /// The column to sort by, and whether in reverse, for each view.
    sorted: [(usize, bool); 4],
    pub(crate) selected: usize,
    /// How many lines fit, as of the last drawing.
    pub(crate) page: usize,
}

impl Screen {
    /// Takes a new snapshot.
    pub(crate) fn update(&mut self, snapshot: river::Result<Snapshot>) {
        match snapshot {
            Ok(snapshot) => {
                self.error = snapshot.errors.first().cloned();
                self.before = self.now.replace(snapshot);
            }
            Err(error) => self.error = Some(error.to_string()),
        }
    }

    /// Whether there has been no snapshot yet.
    pub(crate) fn is_empty(&self) -> bool {
        self.now.is_none()
    }

    pub(crate) fn sorted(&self) -> (usize, bool) {
        self.sorted[self.view as usize]
    }

    /// The lines of the view, filtered and sorted.
    pub(crate) fn lines(&self) -> Vec<Line> {
        let Some(now) = &self.now else { return Vec::new() };
        let filter = self.filter.to_lowercase();
        let fits = |line: &Line| {
            let scoped = match &self.scope {
                None => true,
                Some(Scope::Program(program)) => line.program == *program,
                Some(Scope::Vm(vm)) => line.vms.contains(vm),
            };
            scoped && line.cells.iter().any(|cell| cell.text.to_lowercase().contains(&filter))
        };
        let mut lines = Looks { now, before: self.before.as_ref() }.lines(self.view);
        lines.retain(fits);
        let (column, reversed) = self.sorted();
        let order = |a: &Line, b: &Line| match (&a.cells[column], &b.cells[column]) {
            // Largest numbers first.
            (a, b) if a.number.is_some() => b.number.partial_cmp(&a.number).unwrap_or(Ordering::Equal),
            (a, b) => a.text.cmp(&b.text),
        };
        lines.sort_by(|a, b| if reversed { order(b, a) } else { order(a, b) });
        lines
    }

    pub(crate) fn press(&mut self, key: KeyEvent) -> Next {
        if key.kind == KeyEventKind::Release {
            return Next::Go;
        }
        if key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL) {
            return Next::Quit;
        }
        if self.typing {
            self.type_filter(key.code);
            return Next::Go;
        }
        let last = self.lines().len().saturating_sub(1);
        let page = self.page.max(1);
        let columns = self.view.header().len();
        match key.code {
            KeyCode::Char('q') => return Next::Quit,
            KeyCode::Tab => self.see(View::ALL[(self.view as usize + 1) % 4]),
            KeyCode::BackTab => self.see(View::ALL[(self.view as usize + 3) % 4]),
            KeyCode::Char(digit @ '1'..='4') => self.see(View::ALL[digit as usize - '1' as usize]),
            KeyCode::Down => self.selected += 1,
            KeyCode::Up => self.selected = self.selected.saturating_sub(1),
            KeyCode::PageDown => self.selected += page,
            KeyCode::PageUp => self.selected = self.selected.saturating_sub(page),
            KeyCode::Home => self.selected = 0,
            KeyCode::End => self.selected = last,
            KeyCode::Right => self.sort_by(|column| (column + 1) % columns),
            KeyCode::Left => self.sort_by(|column| (column + columns - 1) % columns),
            KeyCode::Char('r') => {
                let sorted = &mut self.sorted[self.view as usize];
                sorted.1 = !sorted.1;
            }
            KeyCode::Char('/') => self.typing = true,
            KeyCode::Enter => self.drill_down(),
            KeyCode::Esc if !self.filter.is_empty() => self.filter.clear(),
            KeyCode::Esc => self.scope = None,
            _ => {}
        }
        self.selected = self.selected.min(self.lines().len().saturating_sub(1));
        Next::Go
    }

    fn type_filter(&mut self, key: KeyCode) {
        match key {
            KeyCode::Char(char) => self.filter.push(char),
            KeyCode::Backspace => drop(self.filter.pop()),
            KeyCode::Enter => self.typing = false,
            KeyCode::Esc => {
                self.filter.clear();
                self.typing = false;
            }
            _ => {}
        }
        self.selected = 0;
    }

    fn see(&mut self, view: View) {
        self.view = view;
        self.selected = 0;
    }

    fn sort_by(&mut self, column: impl FnOnce(usize) -> usize) {
        let sorted = &mut self.sorted[self.view as usize];
        *sorted = (column(sorted.0), false);
    }

    /// Goes from a program or a VM to its VRs, or from a VR to the links of its VM.
    fn drill_down(&mut self) {
        let Some(line) = self.lines().into_iter().nth(self.selected) else { return };
        let vm = line.vms.into_iter().next().map(Scope::Vm);
        let (scope, view) = match (self.view, vm) {
            (View::Programs, _) => (Scope::Program(line.program), View::Vrs),
            (View::Vms, Some(vm)) if !line.program.is_empty() => (vm, View::Vrs),
            (View::Vrs, Some(vm)) => (vm, View::Links),
            _ => return,
        };
        self.scope = Some(scope);
        self.filter.clear();
        self.see(view);
    }
}
