//! `river completions`.

use clap::CommandFactory;
use clap_complete::Shell;

use super::print;

/// Print a completion script for a shell
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  river completions bash > ~/.local/share/bash-completion/completions/river
  river completions fish > ~/.config/fish/completions/river.fish
  river completions zsh > ~/.zfunc/_river    # with `fpath+=~/.zfunc` before `compinit` in ~/.zshrc")]
pub(crate) struct Args {
    /// The shell
    shell: Shell,
}

pub(crate) fn run<River: CommandFactory>(args: &Args) -> river::Result {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut River::command(), "river", &mut script);
    Ok(print(&String::from_utf8_lossy(&script))?)
}
