//! `portolan completion`: what a shell needs to complete the command line.

use clap::{Args, Command};
use clap_complete::Shell;

use crate::exit::{Failure, print};

/// Print a completion script.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  source <(portolan completion bash)
  portolan completion zsh > \"${fpath[1]}/_portolan\"
  portolan completion fish > ~/.config/fish/completions/portolan.fish")]
pub(crate) struct CompletionArgs {
    /// The shell
    shell: Supported,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Supported {
    Bash,
    Zsh,
    Fish,
}

pub(crate) fn run(args: &CompletionArgs, command: &Command) -> Result<(), Failure> {
    let shell = match args.shell {
        Supported::Bash => Shell::Bash,
        Supported::Zsh => Shell::Zsh,
        Supported::Fish => Shell::Fish,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut visible(command), "portolan", &mut script);
    print(&String::from_utf8_lossy(&script))
}

/// The command line without what is hidden from its help: completions would bring it to light.
fn visible(command: &Command) -> Command {
    let subcommands = command.get_subcommands().filter(|subcommand| !subcommand.is_hide_set());
    Command::new("portolan").args(command.get_arguments().cloned()).subcommands(subcommands.cloned())
}
