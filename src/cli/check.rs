//! `gsdk2mqtt check`: checks the configuration and prints the origin of every value; with
//! `--connect` it also tests gateways and broker.

use std::process::ExitCode;

use super::escape::escaped;
use super::{EXIT_WRONG, print, print_to_stderr};
use crate::bridge::broker_settings;
use crate::config::{self, Loaded, Mistake, Setting};
use crate::doctor;

/// Arguments of `gsdk2mqtt check`.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct CheckArgs {
    /// Where the configuration is.
    #[command(flatten)]
    pub(crate) config: config::ConfigArgs,
    /// Also test each gateway, the broker and the state directory, and print remedies for failures
    #[arg(long)]
    pub(crate) connect: bool,
}

/// Prints the settings to stdout, mistakes and warnings to stderr.
pub(crate) async fn run(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let loaded = match config::load(&args.config, std::env::vars_os()) {
        Ok(loaded) => loaded,
        Err(error) => {
            let mistakes = doctor::count(error.mistakes().len(), "mistake");
            print_to_stderr(&format!("{error}\n{mistakes} found"));
            return Ok(ExitCode::from(EXIT_WRONG));
        }
    };
    print(&shown(&loaded))?;
    for warning in &loaded.warnings {
        print_to_stderr(&format!("warning: {warning}"));
    }
    let failed = if args.connect {
        print("\n")?;
        let findings = doctor::examine(&loaded, broker_settings(&loaded.config)).await;
        let lines = findings.iter().map(|finding| escaped(&finding.to_string()) + "\n");
        print(&lines.collect::<String>())?;
        findings.iter().any(|finding| finding.level == doctor::Level::Fail)
    } else {
        let unusable = doctor::unusable_files(&loaded.files()).await;
        let failed = !unusable.is_empty();
        for (setting, text) in unusable {
            let Setting { key, origin, .. } = setting.clone();
            print_to_stderr(&Mistake { origin, key, text }.to_string());
        }
        failed
    };
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Every key as a line of TOML with its origin; keys without a value as comments.
fn shown(loaded: &Loaded) -> String {
    /// Longer lines shift only their own origin to the right.
    const COLUMN_MAX: usize = 60;
    let lines = || {
        loaded.settings.iter().map(|setting| match &setting.value {
            Some(value) => (format!("{} = {value}", setting.key), Some(&setting.origin)),
            None => (format!("# {} is not set", setting.key), None),
        })
    };
    let widths = lines().map(|(line, _)| line.chars().count());
    let column = widths.filter(|width| *width <= COLUMN_MAX).max().unwrap_or_default();
    let lines = lines().map(|(line, origin)| match origin {
        Some(origin) => format!("{line:column$}  # {origin}\n"),
        None => format!("{line}\n"),
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RIGHT: &str = "[gateways.lobby]\naddress = \"gw\"\nca_file = \"Cargo.toml\"\n";

    fn shown_of(text: &str, variables: &[(&str, &str)]) -> String {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("c.toml");
        std::fs::write(&file, text).unwrap();
        let args = config::ConfigArgs { config: Some(file), set: Vec::new() };
        let variables = variables.iter().map(|(name, value)| (name.into(), value.into()));
        shown(&config::load(&args, variables).unwrap())
    }

    #[test]
    fn a_right_configuration_is_shown_with_the_origin_of_every_value() {
        let variables =
            [("GSDK2MQTT_MQTT__USERNAME", "me"), ("GSDK2MQTT_MQTT__PASSWORD", "hunter2")];
        let out = shown_of(RIGHT, &variables);
        for (key, value, origin) in [
            ("mqtt.url", "\"mqtt://localhost:1883\"", "default"),
            ("mqtt.password", "***", "environment GSDK2MQTT_MQTT__PASSWORD"),
            ("mqtt.client_id", "\"gsdk2mqtt_gsdk_bridge\"", "default"),
            ("gateways.lobby.address", "\"gw\"", "c.toml:2"),
            ("gateways.lobby.server_name", "\"gw\"", "default"),
        ] {
            let line = out.lines().find(|line| line.starts_with(&format!("{key} = {value} ")));
            let line = line.unwrap_or_else(|| panic!("no line of {key} in\n{out}"));
            assert!(line.ends_with(origin), "{line}");
        }
        assert!(out.contains("# mqtt.ca_file is not set"), "{out}");
        let device = "[gateways.lobby.devices]\n5 = { connect = \"async\", ip = \"10.0.0.5\" }\n";
        let out = shown_of(&format!("{RIGHT}{device}7 = {{}}\n"), &[]);
        for start in ["5.port = 51211 ", "5.ssl = false "] {
            let start = format!("gateways.lobby.devices.{start}");
            let line = out.lines().find(|line| line.starts_with(&start));
            assert!(line.is_some_and(|line| line.ends_with("# default")), "{out}");
        }
        assert!(out.contains("# gateways.lobby.devices.7.port is not set"), "{out}");
        assert!(!out.contains("hunter2"));
    }

    #[test]
    fn printed_values_are_a_valid_configuration() {
        let out = shown_of(RIGHT, &[]);
        let values = |text: &str| -> Vec<String> {
            text.lines().map(|line| line.split("  #").next().unwrap().to_owned()).collect()
        };
        assert_eq!(values(&out), values(&shown_of(&out, &[])));
    }
}
