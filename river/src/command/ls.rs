//! `river ls`.

use river::core::{Query, VmInfo, VmState};

use super::{duration, print, search, size, tell};

/// List the virtual machines that can be found
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  river ls                           a table
  river ls --idle                    only those that no program uses
  river ls --label gpu --cores 8     only those with that label and at least 8 cores
  river ls --json | jq '.[].name'    a list with one JSON object per VM

Exit status:
  0  the search was made, even if it found nothing
  1  an error, reported on stderr
  2  the command line is invalid")]
pub(crate) struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    filter: Filter,
}

/// Which VMs are shown.
#[derive(clap::Args)]
#[command(next_help_heading = "Filters: a VM is listed if it matches all of them")]
struct Filter {
    /// Only VMs that no program uses
    #[arg(long)]
    idle: bool,
    /// Only the VM with this name
    #[arg(long)]
    name: Option<String>,
    /// Only VMs with this label
    #[arg(long)]
    label: Option<String>,
    /// Only VMs with at least this many cores
    #[arg(long, value_name = "N")]
    cores: Option<u32>,
    /// Only VMs with at least this much memory, such as 512M or 4G
    #[arg(long, value_name = "BYTES", value_parser = size::bytes)]
    memory: Option<u64>,
    /// Only VMs of this architecture, such as `x86_64`
    #[arg(long)]
    arch: Option<String>,
}

impl Filter {
    fn query(&self) -> Query {
        Query {
            count: None,
            name: self.name.clone(),
            label: self.label.clone(),
            min_cores: self.cores.unwrap_or(0),
            min_memory: self.memory.unwrap_or(0),
            arch: self.arch.clone(),
            idle_only: self.idle,
        }
    }
}

pub(crate) fn run(args: &Args) -> river::Result {
    let query = args.filter.query();
    let found = search(&query)?;
    let vms = found.vms;
    if args.json {
        let vms: Vec<_> = vms.iter().map(json).collect();
        return Ok(print(&(serde_json::to_string_pretty(&vms)? + "\n"))?);
    }
    if vms.is_empty() {
        // More VMs would not help somebody who has some of another version, as was just said.
        if query != Query::default() {
            tell("no VM that matches was found; `river ls` without filters shows all");
        } else if found.other_versions.is_empty() {
            tell("no VM was found; start one with `river vm`");
        }
        return Ok(());
    }
    let header = ["NAME", "ADDRESS", "CORES", "MEMORY", "ARCHITECTURE", "UP", "STATE", "PROGRAM", "ID"];
    let rows: Vec<Row> = std::iter::once(header.map(String::from)).chain(vms.iter().map(row)).collect();
    Ok(print(&table(&rows))?)
}

type Row = [String; 9];

fn table(rows: &[Row]) -> String {
    let mut widths = [0; 9];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let line = |row: &Row| {
        let cells: Vec<String> =
            row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        format!("{}\n", cells.join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

fn row(vm: &VmInfo) -> Row {
    let memory = format!("{:.1} GiB", vm.memory as f64 / f64::from(1 << 30));
    let (state, program) = state(vm);
    [
        vm.name.clone(),
        vm.address.to_string(),
        vm.cores.to_string(),
        memory,
        vm.triple.clone(),
        duration::short(vm.uptime),
        state.into(),
        program.unwrap_or("-").into(),
        vm.id.to_string(),
    ]
}

fn json(vm: &VmInfo) -> serde_json::Value {
    let (state, program) = state(vm);
    serde_json::json!({
        "id": vm.id, "name": vm.name, "address": vm.address, "cores": vm.cores, "memory": vm.memory,
        "architecture": vm.triple, "labels": vm.labels, "state": state, "program": program,
        "uptime": vm.uptime.as_secs_f64(), "version": vm.version,
    })
}

/// The state in a word, and the program that has leased it.
fn state(vm: &VmInfo) -> (&'static str, Option<&str>) {
    match &vm.state {
        VmState::Idle => ("idle", None),
        VmState::Leased { name, .. } => ("leased", Some(name)),
    }
}
