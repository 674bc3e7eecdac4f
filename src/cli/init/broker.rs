//! The prompts for the broker: URL and login.

use std::path::PathBuf;

use clap::builder::{OsStringValueParser, TypedValueParser};

use super::asker::{Asker, InitStop, NewContents, Question};
use super::draft::Draft;
use super::files::FileAccess;
use super::gateway::show;
use crate::bridge::broker_settings;
use crate::config::{self, BrokerAddress};
use crate::doctor;

/// The MQTT broker.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct BrokerArgs {
    /// The broker's URL: mqtt://, mqtts://, ws:// or wss://
    #[arg(long, value_name = "URL")]
    mqtt_url: Option<String>,
    /// The user name at the broker; empty for none
    #[arg(long, value_name = "NAME")]
    mqtt_username: Option<String>,
    /// A file with the password, which is copied to the configuration's folder; empty for none
    #[arg(long, value_name = "FILE", value_parser = file_or_none())]
    mqtt_password_file: Option<PathBuf>,
    /// The broker's CA certificate, which is copied to the configuration's folder; empty for the
    /// system's authorities
    #[arg(long, value_name = "FILE", value_parser = file_or_none())]
    mqtt_ca_file: Option<PathBuf>,
    /// The MQTT version; 3.1.1 for a broker without MQTT 5
    #[arg(long, value_name = "VERSION", value_parser = ["5", "3.1.1"])]
    mqtt_protocol: Option<String>,
}

/// A path that may be empty, which clap refuses by default.
fn file_or_none() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().map(PathBuf::from)
}

/// The options that set the broker's keys.
const OPTIONS: [(&str, &str); 5] = [
    ("url", "--mqtt-url"),
    ("username", "--mqtt-username"),
    ("password_file", "--mqtt-password-file"),
    ("ca_file", "--mqtt-ca-file"),
    ("protocol", "--mqtt-protocol"),
];

/// The names of the files in the configuration's folder. A gateway's is `NAME-ca.crt`, and names
/// have no `-`.
const CA_FILE: &str = "mqtt-broker-ca.crt";
const PASSWORD_FILE: &str = "mqtt-password";

/// Prompts for the broker until it accepts what the bridge needs, and describes it in the draft.
pub(crate) async fn ask(
    asker: Asker,
    mut args: BrokerArgs,
    draft: &mut Draft,
) -> Result<(), InitStop> {
    let mut last = ("mqtt://localhost:1883".to_owned(), String::new());
    while let Err(stop) = attempt(asker, &mut args, &mut last, draft).await {
        asker.report_refused(draft.explain(stop, "mqtt", &OPTIONS))?;
    }
    Ok(())
}

/// Each option counts for the first attempt; the next one suggests the last URL and user name.
async fn attempt(
    asker: Asker,
    args: &mut BrokerArgs,
    (last_url, last_username): &mut (String, String),
    draft: &mut Draft,
) -> Result<(), InitStop> {
    for name in [CA_FILE, PASSWORD_FILE] {
        draft.withdraw(name);
    }
    let question = Question {
        text: "URL of the MQTT broker:",
        option: "--mqtt-url",
        default: Some(last_url.as_str()),
    };
    let broker: BrokerAddress = asker
        .read(args.mqtt_url.take(), question, |text| config::read_text(config::broker, text))?;
    *last_url = broker.to_string();
    let ca_file = ca_file(asker, &broker, args.mqtt_ca_file.take())?;
    let put = |source| draft.put(CA_FILE, source, FileAccess::Public);
    let ca_file = ca_file.map(put).transpose()?;
    let question = Question {
        text: "User name at the broker (empty: none):",
        option: "--mqtt-username",
        default: Some(""),
    };
    let username = match args.mqtt_username.take() {
        Some(username) => username,
        // A default would leave no way to give none.
        None => asker.edited(question, last_username)?,
    };
    last_username.clone_from(&username);
    let password = password(asker, args, &username)?;
    let put = |source| draft.put(PASSWORD_FILE, source, FileAccess::Secret);
    let password_file = password.map(put).transpose()?;
    draft.document.set_broker(&[
        ("url", Some(last_url.as_str())),
        ("username", Some(username.as_str()).filter(|username| !username.is_empty())),
        ("password_file", password_file.as_deref()),
        ("ca_file", ca_file.as_deref()),
        ("protocol", args.mqtt_protocol.as_deref()),
    ]);
    examine(draft).await
}

/// The CA certificate of a broker with TLS; `None`: the system's authorities.
fn ca_file(
    asker: Asker,
    broker: &BrokerAddress,
    given: Option<PathBuf>,
) -> Result<Option<NewContents>, InitStop> {
    let question = Question {
        text: "CA certificate of the broker (empty: the system's authorities):",
        option: "--mqtt-ca-file",
        default: Some(""),
    };
    if broker.tls {
        return asker.file(given, question);
    }
    match given.filter(|path| !path.as_os_str().is_empty()) {
        Some(_) => {
            let text = format!("--mqtt-ca-file is given, but {broker} has no TLS; use mqtts://");
            Err(InitStop::WrongUsage(text))
        }
        None => Ok(None),
    }
}

/// What the password's file will have: the contents of the option's file, or the answer. `None`:
/// the broker requires no password.
fn password(
    asker: Asker,
    args: &mut BrokerArgs,
    username: &str,
) -> Result<Option<NewContents>, InitStop> {
    let given = args.mqtt_password_file.take();
    let file = given.as_ref().filter(|path| !path.as_os_str().is_empty());
    match (file, given.is_some()) {
        (Some(_), _) if username.is_empty() => {
            let text = "--mqtt-password-file needs --mqtt-username";
            Err(InitStop::WrongUsage(text.to_owned()))
        }
        (Some(file), _) => {
            NewContents::read(file.clone()).map(Some).map_err(InitStop::InvalidAnswer)
        }
        (None, is_answered) if is_answered || username.is_empty() => Ok(None),
        (None, _) => {
            let text = "Password at the broker (empty: none):";
            let answer = asker.password(text, "--mqtt-password-file")?;
            let contents = format!("{answer}\n").into_bytes();
            Ok((!answer.is_empty()).then_some(NewContents { contents, path: None }))
        }
    }
}

/// Connects as `check --connect` does, with the password read from its file: with a client ID of
/// its own, and nothing retained remains.
async fn examine(draft: &Draft) -> Result<(), InitStop> {
    let config = draft.load()?.config;
    let mut settings = broker_settings(&config);
    draft.use_trial(&mut settings.mqtt.password_file);
    draft.use_trial(&mut settings.mqtt.ca_file);
    show(&doctor::examine_broker(&config, settings).await)
}
