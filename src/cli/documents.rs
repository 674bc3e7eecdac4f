//! `gsdk2mqtt completions` and `gsdk2mqtt man`, both generated from the clap definition, and
//! `gsdk2mqtt schema`.

use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Command, CommandFactory, ValueHint};
use clap_complete::Shell;
use clap_mangen::Man;

use super::WrongUsage;
use crate::{config, schema};

const NAME: &str = "gsdk2mqtt";
/// The program in the footer of each manual page.
const SOURCE: &str = concat!("gsdk2mqtt ", env!("CARGO_PKG_VERSION"));

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

/// The topics with their payloads as AsyncAPI 3, on stdout.
#[derive(Debug, clap::Args)]
pub(crate) struct SchemaArgs {
    /// The configuration's JSON Schema instead, for editors
    #[arg(long)]
    config: bool,
    /// The OpenAPI document of the HTTP API instead
    #[arg(long, conflicts_with = "config")]
    openapi: bool,
}

pub(crate) fn completions(args: &CompletionsArgs) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut super::Cli::command(), NAME, &mut script);
    super::print(&String::from_utf8(script)?)?;
    Ok(())
}

pub(crate) fn man(args: &ManArgs) -> anyhow::Result<()> {
    let mut program = super::Cli::command().disable_help_subcommand(true);
    program.build();
    if let Some(dir) = &args.dir {
        std::fs::create_dir_all(dir)
            .and_then(|()| write_pages(&program, dir))
            .with_context(|| format!("cannot write manual pages into {}", dir.display()))?;
        return Ok(());
    }
    let mut command = &program;
    for word in &args.words {
        let Some(found) = command.find_subcommand(word) else {
            let known: Vec<_> = command.get_subcommands().map(Command::get_name).collect();
            let known = known.join(", ");
            let text = format!("there is no command {word:?} here; there are: {known}");
            return Err(WrongUsage(text).into());
        };
        command = found;
    }
    let mut page = Vec::new();
    page_of(command).render(&mut page)?;
    super::print(&String::from_utf8(page)?)?;
    Ok(())
}

/// Writes the page of a command, and those of the commands below it.
fn write_pages(command: &Command, dir: &Path) -> io::Result<()> {
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        write_pages(below, dir)?;
    }
    page_of(command).generate_to(dir).map(drop)
}

fn page_of(command: &Command) -> Man {
    Man::new(command.clone()).source(SOURCE)
}

/// The AsyncAPI document, the API's OpenAPI document, or the configuration's JSON Schema.
pub(crate) fn schema(args: &SchemaArgs) -> anyhow::Result<()> {
    let text = if args.config {
        format!("{:#}\n", config::json_schema())
    } else if args.openapi {
        schema::open_api()
    } else {
        schema::async_api()
    };
    super::print(&text)?;
    Ok(())
}
