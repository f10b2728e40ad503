//! `river ls`.

use std::io::{self, Write};

use river::core::{Query, VmInfo, VmState, find};

/// Show the virtual machines that can be found
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  river ls                a table
  river ls --idle         only those that no program uses
  river ls --json | jq    one JSON object per VM in a list")]
pub(crate) struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Only VMs that no program uses
    #[arg(long)]
    idle: bool,
}

pub(crate) fn run(args: &Args) -> river::Result {
    let found = find(&Query { idle_only: args.idle, ..Query::default() })?;
    for (version, count) in &found.other_versions {
        eprintln!("{count} more VMs speak protocol version {version}, which this command does not");
    }
    let mut out = io::stdout().lock();
    if args.json {
        let vms: Vec<_> = found.vms.iter().map(json).collect();
        serde_json::to_writer_pretty(&mut out, &vms)?;
        writeln!(out)?;
        return Ok(());
    }
    if found.vms.is_empty() {
        eprintln!("no VM was found; start one with `river vm`");
        return Ok(());
    }
    let header =
        ["NAME", "ADDRESS", "CORES", "MEMORY", "ARCHITECTURE", "UP", "STATE", "ID"].map(String::from);
    let rows: Vec<[String; 8]> = std::iter::once(header).chain(found.vms.iter().map(row)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..8).map(width).collect();
    for row in &rows {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        writeln!(out, "{}", cells.join("  ").trim_end())?;
    }
    Ok(())
}

fn row(vm: &VmInfo) -> [String; 8] {
    let memory = format!("{:.1} GiB", vm.memory as f64 / f64::from(1 << 30));
    let up = vm.uptime.as_secs();
    let up = format!("{}:{:02}:{:02}", up / 3600, up / 60 % 60, up % 60);
    [
        vm.name.clone(),
        vm.address.to_string(),
        vm.cores.to_string(),
        memory,
        vm.triple.clone(),
        up,
        vm.state.to_string(),
        vm.id.to_string(),
    ]
}

fn json(vm: &VmInfo) -> serde_json::Value {
    let (state, program) = match &vm.state {
        VmState::Idle => ("idle", None),
        VmState::Leased { name, .. } => ("leased", Some(name)),
    };
    serde_json::json!({
        "id": vm.id, "name": vm.name, "address": vm.address, "cores": vm.cores, "memory": vm.memory,
        "architecture": vm.triple, "labels": vm.labels, "state": state, "program": program,
        "uptime": vm.uptime.as_secs_f64(), "version": vm.version,
    })
}
