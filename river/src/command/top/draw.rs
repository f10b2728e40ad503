//! Draws the screen.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Color, Modifier, Style, Stylize};
use ratatui::text::{Line as Text, Span};
use ratatui::widgets::{Paragraph, Row, Table, TableState};

use super::screen::{Scope, Screen};
use super::table::View;

pub(crate) fn draw(screen: &mut Screen, frame: &mut Frame<'_>) {
    let [top, body, bottom] =
        Layout::vertical([Constraint::Length(1), Constraint::Fill(1), Constraint::Length(1)])
            .areas(frame.area());
    frame.render_widget(Paragraph::new(tabs(screen)), top);
    screen.page = usize::from(body.height.saturating_sub(1));
    let lines = screen.lines();
    if lines.is_empty() {
        frame.render_widget(Paragraph::new(why_empty(screen)).dim(), body);
    }
    let (column, reversed) = screen.sorted();
    let header = screen.view.header();
    let width = |index: usize| {
        let cells = lines.iter().map(|line| line.cells[index].text.chars().count());
        let widest = cells.chain([header[index].len() + 1]).max().unwrap_or(0);
        Constraint::Length(u16::try_from(widest.min(48)).unwrap_or(48))
    };
    let widths: Vec<Constraint> = (0..header.len()).map(width).collect();
    let heads = header.iter().enumerate().map(|(index, head)| match (index == column, reversed) {
        (false, _) => (*head).to_owned(),
        (true, false) => format!("{head}▾"),
        (true, true) => format!("{head}▴"),
    });
    let rows = lines.iter().map(|line| {
        let row = Row::new(line.cells.iter().map(|cell| cell.text.clone()));
        if line.bad { row.style(Style::new().fg(Color::Red)) } else { row }
    });
    let table = Table::new(rows, widths)
        .header(Row::new(heads).style(Modifier::BOLD))
        .column_spacing(2)
        .row_highlight_style(Modifier::REVERSED);
    if !lines.is_empty() {
        let mut state = TableState::new().with_selected(screen.selected.min(lines.len() - 1));
        frame.render_stateful_widget(table, body, &mut state);
    }
    frame.render_widget(Paragraph::new(foot(screen)), bottom);
}

/// What to show instead of lines.
fn why_empty(screen: &Screen) -> &'static str {
    match screen.view {
        _ if screen.is_empty() => "searching...",
        _ if !screen.filter.is_empty() => "nothing matches the filter; Esc clears it",
        _ if screen.scope.is_some() => "nothing here belongs to it; Esc shows all",
        View::Vms => "no VM was found; start one with `river vm`",
        View::Programs => "no program uses a VM",
        View::Vrs | View::Links => "nothing to show: no program uses a VM",
    }
}

fn tabs(screen: &Screen) -> Text<'static> {
    let mut spans = vec![Span::from("river top ").bold()];
    for (number, view) in (1..).zip(View::ALL) {
        let tab = Span::from(format!(" {number}:{} ", view.title()));
        spans.push(if view == screen.view { tab.reversed() } else { tab });
    }
    spans.extend(screen.scope.as_ref().map(|scope| match scope {
        Scope::Program(program) => Span::from(format!("  of program {program}")),
        Scope::Vm(vm) => Span::from(format!("  of VM {vm}")),
    }));
    Text::from(spans)
}

fn foot(screen: &Screen) -> Text<'static> {
    if screen.typing || !screen.filter.is_empty() {
        let cursor = if screen.typing { "_" } else { "" };
        return Text::from(format!("filter: {}{cursor}", screen.filter));
    }
    if let Some(error) = &screen.error {
        return Text::from(error.clone()).red();
    }
    Text::from("Tab view  ↑↓ line  Enter details  Esc all  ←→ sort  r reverse  / filter  q quit").dim()
}
