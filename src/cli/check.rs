//! `gsdk2mqtt check`: checks the configuration and prints the origin of every value; with
//! `--connect` it tries gateways and broker too.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io::{self, Write};

use super::escape::escaped;
use crate::bridge::broker_settings;
use crate::config::{self, Loaded, Mistake};
use crate::doctor;
use crate::net;

/// Arguments of `gsdk2mqtt check`.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct CheckArgs {
    /// Where the configuration is.
    #[command(flatten)]
    pub(crate) config: config::Args,
    /// Also try each gateway, the broker and the state directory, and print remedies for failures
    #[arg(long)]
    pub(crate) connect: bool,
}

/// The exit code where the configuration is right and something that was tried failed.
const FAILED: u8 = 1;

/// Prints the settings to `out`, mistakes and warnings to `err`, and returns the exit code.
///
/// # Errors
///
/// When `out` or `err` cannot be written.
pub(crate) async fn run(
    args: &CheckArgs,
    variables: impl IntoIterator<Item = (OsString, OsString)>,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> io::Result<u8> {
    match config::load(&args.config, variables) {
        Ok(loaded) => {
            print(&loaded, out)?;
            for warning in &loaded.warnings {
                writeln!(err, "warning: {warning}")?;
            }
            if args.connect {
                return connect(&loaded, out).await;
            }
            let unusable = unusable_files(&loaded).await;
            for mistake in &unusable {
                writeln!(err, "{mistake}")?;
            }
            Ok(if unusable.is_empty() { 0 } else { FAILED })
        }
        Err(error) => {
            writeln!(err, "{error}")?;
            let count = error.mistakes().len();
            writeln!(err, "{count} mistake{} found", if count == 1 { "" } else { "s" })?;
            Ok(super::EXIT_WRONG)
        }
    }
}

/// The files that cannot be read. Each is read once, all at the same time, so that one deadline is
/// enough for all.
async fn unusable_files(loaded: &Loaded) -> Vec<Mistake> {
    let files = loaded.files();
    let mut reads = HashMap::new();
    for file in &files {
        let (path, is_password) = (file.path.to_owned(), file.is_password);
        reads.entry(file.path).or_insert_with(|| {
            tokio::spawn(async move { net::file_problem(&path, is_password).await })
        });
    }
    let mut problems = HashMap::new();
    for (path, read) in reads {
        if let Ok(Some(problem)) = read.await {
            problems.insert(path, problem);
        }
    }
    let unusable = files.iter().filter_map(|file| {
        let (path, problem) = (file.path.display(), problems.get(file.path)?);
        let text = format!("the file {path} {problem}; put it there, or name the right one");
        Some(loaded.mistake(&file.key, text))
    });
    unusable.collect()
}

/// Tries what the bridge needs and prints a line for each finding.
async fn connect(loaded: &Loaded, out: &mut dyn Write) -> io::Result<u8> {
    writeln!(out)?;
    out.flush()?;
    let findings = doctor::examine(loaded, broker_settings(&loaded.config)).await;
    for finding in &findings {
        writeln!(out, "{}", escaped(&finding.to_string()))?;
    }
    let failed = findings.iter().any(|finding| finding.level == doctor::Level::Fail);
    Ok(if failed { FAILED } else { 0 })
}

/// Prints every key as a line of TOML with its origin; keys without a value as comments.
fn print(loaded: &Loaded, out: &mut dyn Write) -> io::Result<()> {
    let line = |setting: &config::Setting| match &setting.value {
        Some(value) => format!("{} = {value}", setting.key),
        None => format!("# {} is not set", setting.key),
    };
    /// Longer lines shift only their own origin to the right.
    const COLUMN_MAX: usize = 60;
    let lines = || loaded.settings.iter().map(line);
    let column = lines().map(|line| line.chars().count()).filter(|width| *width <= COLUMN_MAX);
    let column = column.max().unwrap_or_default();
    for (setting, line) in loaded.settings.iter().zip(lines()) {
        match setting.value {
            Some(_) => writeln!(out, "{line:column$}  # {}", setting.origin)?,
            None => writeln!(out, "{line}")?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(text: &str, variables: &[(&str, &str)]) -> (u8, String, String) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("c.toml");
        std::fs::write(&file, text).unwrap();
        let config = config::Args { config: Some(file), set: Vec::new() };
        let args = CheckArgs { config, connect: false };
        let variables = variables.iter().map(|(name, value)| (name.into(), value.into()));
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let code = runtime.block_on(run(&args, variables, &mut out, &mut err)).unwrap();
        (code, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
    }

    /// The file that is named is there; it is not looked into.
    const RIGHT: &str = "[gateways.lobby]\naddress = \"gw\"\nca_file = \"Cargo.toml\"\n";

    #[test]
    fn a_file_that_is_named_and_is_not_there_fails() {
        let (code, out, err) = checked(&RIGHT.replace("Cargo.toml", "/nope/ca.crt"), &[]);
        assert_eq!(code, 1, "{err}");
        assert!(out.contains("gateways.lobby.ca_file"), "{out}");
        let words = "c.toml:3: gateways.lobby.ca_file: the file /nope/ca.crt does not exist; put";
        assert!(err.contains(words), "{err}");
        let broker = "[mqtt]\nurl = \"mqtts://b\"\nca_file = \"/nope/b.crt\"\n";
        let (code, _, err) = checked(&format!("{broker}{RIGHT}"), &[]);
        assert_eq!(code, 1, "{err}");
        assert!(err.contains("c.toml:3: mqtt.ca_file: the file /nope/b.crt"), "{err}");
    }

    #[test]
    fn a_right_configuration_is_shown_with_the_origin_of_every_value() {
        let variables = [
            ("GSDK2MQTT_MQTT__USERNAME", "me"),
            ("GSDK2MQTT_MQTT__PASSWORD", "hunter2"),
            ("GSDK2MQTT_PORT", "1"),
        ];
        let (code, out, err) = checked(RIGHT, &variables);
        assert_eq!(code, 0, "{err}");
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
        assert!(!out.contains("hunter2") && !err.contains("hunter2"));
        assert!(err.starts_with("warning: environment GSDK2MQTT_PORT"), "{err}");
    }

    #[test]
    fn what_is_shown_is_a_configuration_again() {
        let (_, out, _) = checked(RIGHT, &[]);
        let (code, again, err) = checked(&out, &[]);
        assert_eq!(code, 0, "{err}");
        let values = |text: &str| -> Vec<String> {
            text.lines().map(|line| line.split("  #").next().unwrap().to_owned()).collect()
        };
        assert_eq!(values(&out), values(&again));
    }

    #[test]
    fn a_wrong_one_exits_with_2_and_tells_every_mistake() {
        let (code, out, err) = checked("[mqtt]\nurll = \"x\"\nprotocol = \"4\"\n", &[]);
        assert_eq!((code, out.as_str()), (2, ""));
        assert_eq!(err.lines().count(), 4, "{err}");
        assert!(err.contains("c.toml:2: mqtt.urll: unknown key; did you mean mqtt.url?"), "{err}");
        assert!(err.ends_with("3 mistakes found\n"), "{err}");
    }
}
