//! `gsdk2mqtt completions` and `gsdk2mqtt man`: both generated from the clap definition.

use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::{CommandFactory, ValueHint};
use clap_complete::Shell;
use clap_mangen::Man;

const NAME: &str = "gsdk2mqtt";

/// For bash, after `mkdir -p ~/.local/share/bash-completion/completions`:
/// `gsdk2mqtt completions bash > ~/.local/share/bash-completion/completions/gsdk2mqtt`
#[derive(Debug, clap::Args)]
pub(crate) struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

/// To read one: `gsdk2mqtt man ctl | man -l -`
#[derive(Debug, clap::Args)]
pub(crate) struct ManArgs {
    /// The command, such as `ctl mode set` [default: the program itself]
    words: Vec<String>,
    /// Write the pages of all commands into this folder instead
    #[arg(long, value_name = "DIR", conflicts_with = "words", value_hint = ValueHint::DirPath)]
    dir: Option<PathBuf>,
}

pub(crate) fn completions(args: &CompletionsArgs) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut super::Cli::command(), NAME, &mut script);
    super::print(&String::from_utf8(script)?)?;
    Ok(())
}

pub(crate) fn man(args: &ManArgs) -> anyhow::Result<()> {
    let mut program = super::Cli::command();
    if let Some(dir) = &args.dir {
        std::fs::create_dir_all(dir)
            .and_then(|()| clap_mangen::generate_to(program, dir))
            .with_context(|| format!("cannot write manual pages into {}", dir.display()))?;
        return Ok(());
    }
    program.build();
    let mut command = &program;
    for word in &args.words {
        let Some(found) = command.find_subcommand(word) else {
            let known: Vec<_> = command.get_subcommands().map(clap::Command::get_name).collect();
            bail!("there is no command {word:?} here; there are: {}", known.join(", "));
        };
        command = found;
    }
    let mut page = Vec::new();
    Man::new(command.clone()).render(&mut page)?;
    super::print(&String::from_utf8(page)?)?;
    Ok(())
}
