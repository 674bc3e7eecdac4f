//! `gsdk2mqtt init`: prompts for gateway or master, broker and Home Assistant, tests each answer at
//! once with the code of `check --connect`, and writes a configuration.

mod asker;
mod broker;
mod draft;
mod files;
mod gateway;
mod master;

use std::path::{Path, PathBuf};

use clap::builder::BoolishValueParser;

use super::{WrongUsage, print, print_to_stderr};
use crate::config;
use asker::{Asker, InitStop};
use broker::BrokerArgs;
use draft::{ConfigDocument, Draft};
use gateway::GatewayArgs;
use master::MasterArgs;

/// Prompts for the settings, tests each answer at once, and writes the configuration.
/// Every question is an option too.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct InitArgs {
    /// The configuration file to write
    #[arg(long, value_name = "FILE", default_value = config::DEFAULT_FILE)]
    output: PathBuf,
    /// Add a gateway or master to the configuration at --output, and change nothing else in it
    #[arg(long)]
    add_gateway: bool,
    /// Print the configuration to stdout instead of writing it
    #[arg(long)]
    dry_run: bool,
    /// Replace existing files
    #[arg(long)]
    overwrite: bool,
    /// Take the default answer of each prompt that has one; this trusts no certificate
    #[arg(long, short)]
    yes: bool,
    #[command(flatten)]
    gateway: GatewayArgs,
    #[command(flatten)]
    master: MasterArgs,
    #[command(flatten)]
    broker: BrokerArgs,
    /// Whether Home Assistant discovers the devices
    #[arg(
        long,
        value_name = "yes|no",
        value_parser = BoolishValueParser::new(),
        num_args = 0..=1,
        default_missing_value = "yes"
    )]
    home_assistant: Option<bool>,
}

pub(crate) async fn run(args: InitArgs) -> anyhow::Result<()> {
    let (output, is_new) = (args.output.clone(), !args.add_gateway);
    let text = match make(args).await {
        Ok(Some(text)) => text,
        Ok(None) if is_new => next_steps(&output),
        Ok(None) => "restart the bridge to use it: systemctl restart gsdk2mqtt\n".to_owned(),
        Err(InitStop::WrongUsage(text)) => return Err(WrongUsage(text).into()),
        Err(stop) => return Err(stop.into()),
    };
    print(&text).map(drop)
}

/// Makes the configuration and writes it; with `--dry-run` returns it.
async fn make(args: InitArgs) -> Result<Option<String>, InitStop> {
    let InitArgs { output, add_gateway, dry_run, yes, .. } = args;
    let asker = Asker::new(yes);
    let document = match add_gateway {
        true => read(&output)?,
        false => ConfigDocument::new().map_err(InitStop::wrong_usage)?,
    };
    let mut may_replace = args.overwrite || dry_run;
    if !add_gateway && !may_replace && output.symlink_metadata().is_ok() {
        may_replace = asker.has_terminal && {
            let question = format!("{} exists. Replace it?", output.display());
            asker.confirm_in_person(&question, "--overwrite")?
        };
        if !may_replace {
            return Err(files::exists(&output));
        }
    }
    let mut draft = Draft::new(document, &output, may_replace)?;
    if !dry_run {
        files::prepare(draft.folder())?;
    }
    let (gateway, master) = (args.gateway, args.master);
    let is_master = master.is_given()
        || (!gateway.is_given() && asker.is_interactive() && {
            let question = "Is it a master gateway, with device gateways behind it?";
            asker.confirm(None, question, "--master-address", false)?
        });
    if is_master {
        master::ask(asker, master, gateway.ca_file, gateway.server_name, &mut draft).await?;
    } else {
        gateway::ask(asker, gateway, &mut draft).await?;
    }
    if !add_gateway {
        broker::ask(asker, args.broker, &mut draft).await?;
        let question = "Shall Home Assistant discover the devices?";
        if asker.confirm(args.home_assistant, question, "--home-assistant", false)? {
            draft.document.enable_home_assistant();
        }
    }
    for warning in draft.load()?.warnings {
        print_to_stderr(&format!("warning: {warning}"));
    }
    if dry_run {
        return Ok(Some(draft.document.text()));
    }
    files::write(&draft.into_files(add_gateway))?;
    Ok(None)
}

/// The configuration to which a gateway is added.
fn read(path: &Path) -> Result<ConfigDocument, InitStop> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        let path = path.display();
        InitStop::WrongUsage(format!("{path} cannot be read ({error}); name it with --output"))
    })?;
    let document = ConfigDocument::parse(&text)
        .map_err(|error| InitStop::WrongUsage(format!("{}: {error}", path.display())))?;
    // A mistake that was there before would look like one of the answers.
    document.load(path).map_err(InitStop::wrong_usage)?;
    Ok(document)
}

fn next_steps(path: &Path) -> String {
    // The service reads the default file.
    let (named, service) = match path == Path::new(config::DEFAULT_FILE) {
        true => (String::new(), "    (or: systemctl enable --now gsdk2mqtt)"),
        false => (format!(" --config {}", path.display()), ""),
    };
    format!("Next:\n  gsdk2mqtt check --connect{named}\n  gsdk2mqtt run{named}{service}\n")
}
