//! Tests of the configuration as a whole: layers, fixtures, the documentation.

use std::ffi::OsString;
use std::net::Ipv4Addr;
use std::time::Duration;

use secrecy::ExposeSecret as _;

use super::*;

/// What every configuration needs, so that a test can be about one thing.
const GATEWAY: &str = "[gateways.lobby]\naddress = \"10.0.0.2:4000\"\nca_file = \"/ca.crt\"\n";

/// Loads a file of this text, under these variables and `--set` arguments.
fn loaded(text: &str, variables: &[(&str, &str)], set: &[&str]) -> Result<Loaded, Error> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.toml");
    std::fs::write(&path, text).unwrap();
    let set = set.iter().map(|set| (*set).to_owned()).collect();
    load(&Args { config: Some(path), set }, pairs(variables))
}

fn pairs(variables: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
    variables.iter().map(|(name, value)| (name.into(), value.into())).collect()
}

/// The mistakes without the directory of the file.
fn mistakes(result: Result<Loaded, Error>) -> Vec<String> {
    let error = result.expect_err("a mistake");
    let lines = error.mistakes().iter().map(ToString::to_string);
    lines.map(|line| line.rsplit("/config.toml:").next().unwrap().to_owned()).collect()
}

fn origin_of(loaded: &Loaded, key: &str) -> String {
    let setting = loaded.settings.iter().find(|setting| setting.key == key).unwrap();
    setting.origin.to_string().rsplit('/').next().unwrap().to_owned()
}

#[test]
fn the_contracts_example_is_read_in_full() {
    let text = include_str!("../../tests/config/good-full.toml");
    let loaded = loaded(text, &[], &[]).unwrap();
    let config = &loaded.config;
    assert_eq!(config.state_dir, PathBuf::from("/var/lib/gsdk2mqtt"));
    assert_eq!(config.forget_after, Some(Duration::from_secs(30 * 86_400)));
    assert_eq!(config.mqtt.broker.to_string(), "mqtts://broker.lan:8883");
    let credentials = config.mqtt.credentials.as_ref().unwrap();
    let file = Path::new("/run/secrets/mqtt");
    assert!(matches!(&credentials.password, Some(Password::File(path)) if path == file));
    assert_eq!(config.commands.max_payload_bytes, 65_536);
    assert_eq!(config.commands.response_prefix, "gsdk-reply/");
    assert!(config.home_assistant.enabled && !config.home_assistant.controls);
    assert_eq!(config.outbox.max_bytes, 512 << 20);
    assert_eq!(config.history.keep, Duration::from_secs(400 * 86_400));
    assert_eq!(config.history.max_bytes, 2 << 30);
    assert_eq!(config.time_zone.iana_name(), Some("Europe/Berlin"));
    assert_eq!(config.metrics.device.len(), 2);
    let lobby = &config.gateways[&"lobby".parse().unwrap()];
    assert_eq!(lobby.server_name, "gateway.local");
    assert_eq!(lobby.unknown_after, Duration::from_secs(10));
    let ids: Vec<u32> = lobby.devices.keys().map(|id| id.get()).collect();
    assert_eq!(ids, [540_092_578, 544_114_231, 939_342_898]);
    let front = &lobby.devices[&"544114231".parse().unwrap()];
    let ip = Ipv4Addr::new(192, 168, 0, 104);
    assert_eq!(front.connect, Connect::Async { ip, port: 51_211, ssl: true });
    assert!(!format!("{loaded:?}").contains("s3cret"));
}

#[test]
fn each_fixture_has_exactly_the_mistakes_it_announces() {
    let mut seen = 0;
    for entry in std::fs::read_dir("tests/config").unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if !name.starts_with("bad-") {
            continue;
        }
        seen += 1;
        let text = std::fs::read_to_string(&path).unwrap();
        let expected: Vec<&str> =
            text.lines().filter_map(|line| line.strip_prefix("#= ")).collect();
        assert!(!expected.is_empty(), "{name} announces no mistake");
        let args = Args { config: Some(path.clone()), ..Args::default() };
        let error = load(&args, []).expect_err(&name);
        let prefix = format!("{}:", path.display());
        let found = error.mistakes().iter().map(|mistake| {
            let line = mistake.to_string();
            line.strip_prefix(&prefix).map_or(line.clone(), str::to_owned)
        });
        assert_eq!(found.collect::<Vec<_>>(), expected, "{name}");
        assert!(!error.to_string().contains("hunter2"), "{name} quotes a secret");
    }
    assert!(seen >= 20, "only {seen} fixtures were read");
}

#[test]
fn later_layers_win_and_say_where_from() {
    let text = format!("bridge_name = \"bridge_a\"\n[mqtt]\nbase_topic = \"one\"\n{GATEWAY}");
    let environment = [
        ("GSDK2MQTT_MQTT__BASE_TOPIC", "two"),
        ("GSDK2MQTT_MQTT__URL", "mqtt://two"),
        ("GSDK2MQTT_GATEWAYS__LOBBY__QUEUE_SIZE", "1_000"),
        ("GSDK2MQTT_GATEWAYS__EAST__ADDRESS", "east"),
        ("GSDK2MQTT_GATEWAYS__EAST__CA_FILE", "/east.crt"),
        ("GSDK2MQTT_GATEWAYS__EAST__DEVICES__7__NAME", "Seven"),
        ("GSDK2MQTT_HOME_ASSISTANT__ENABLED", "true"),
        ("GSDK2MQTT_COMMANDS__ALLOW", "search, mode/set"),
        ("STATE_DIRECTORY", "/var/lib/private/x:/other"),
    ];
    let loaded = loaded(&text, &environment, &["mqtt.url=mqtts://three"]).unwrap();
    let config = &loaded.config;
    assert_eq!(config.mqtt.broker.to_string(), "mqtts://three:8883");
    assert_eq!(config.mqtt.base_topic, "two");
    assert_eq!(config.mqtt.client_id, "gsdk2mqtt_two_bridge_a");
    assert_eq!(config.state_dir, PathBuf::from("/var/lib/private/x"));
    assert_eq!(config.gateways.len(), 2);
    assert_eq!(config.gateways[&"lobby".parse().unwrap()].queue_size, 1_000);
    let east = &config.gateways[&"east".parse().unwrap()];
    assert_eq!(east.devices[&"7".parse().unwrap()].name.as_deref(), Some("Seven"));
    assert_eq!(config.commands.allow.changing().collect::<Vec<_>>(), ["mode/set"]);
    assert!(config.home_assistant.enabled);
    for (key, origin) in [
        ("mqtt.url", "command line --set mqtt.url"),
        ("mqtt.base_topic", "environment GSDK2MQTT_MQTT__BASE_TOPIC"),
        ("bridge_name", "config.toml:1"),
        ("gateways.lobby.address", "config.toml:5"),
        ("gateways.east.audit_interval", "default"),
        ("state_dir", "environment STATE_DIRECTORY"),
    ] {
        assert_eq!(origin_of(&loaded, key), origin, "{key}");
    }
}

#[test]
fn a_password_of_digits_stays_a_password_and_is_never_shown() {
    let environment = [("GSDK2MQTT_MQTT__USERNAME", "me"), ("GSDK2MQTT_MQTT__PASSWORD", " 0123 ")];
    let loaded = loaded(GATEWAY, &environment, &[]).unwrap();
    let password = loaded.config.mqtt.credentials.clone().unwrap().password;
    let Some(Password::Value(password)) = password else { panic!("{password:?}") };
    assert_eq!(password.expose_secret(), " 0123 ");
    assert!(!format!("{loaded:?}").contains("0123"));
    let shown = loaded.settings.iter().find(|setting| setting.key == "mqtt.password").unwrap();
    assert_eq!(shown.value.as_deref(), Some("***"));
}

#[test]
fn a_passwords_file_is_not_read_when_the_configuration_is() {
    let set = ["mqtt.password_file=/nope", "mqtt.username=me"];
    let password = loaded(GATEWAY, &[], &set).unwrap().config.mqtt.credentials.unwrap().password;
    assert!(matches!(password, Some(Password::File(path)) if path == Path::new("/nope")));
    let told = mistakes(loaded(GATEWAY, &[], &["mqtt.password_file=/nope"]));
    assert!(told[0].contains("is set without mqtt.username"), "{told:?}");
}

#[test]
fn mistakes_outside_the_file_name_the_variable_or_the_flag() {
    let environment = [
        ("GSDK2MQTT_MQTT__URL", "mqtt://me:hunter2@broker"),
        ("GSDK2MQTT_MQTT__URLL", "x"),
        ("GSDK2MQTT_GATEWAYS__LOBBY__ADRESS", "x"),
        ("GSDK2MQTT_OUTBOX__MAX_EVENTS", "many"),
        ("GSDK2MQTT_GATEWAYS__Bad__ADDRESS", "x"),
        ("GSDK2MQTT_PORT", "tcp://10.0.0.1:80"),
        ("GSDK2MQTT_MQTT_URL", "x"),
        ("GSDK2MQTT_LOG", "json"),
        ("OTHER__X", "y"),
    ];
    let set = ["http.listen=nowhere", "htp.listen=1", "mqtt", "state_dir"];
    assert_eq!(
        mistakes(loaded(GATEWAY, &environment, &set)),
        [
            "environment GSDK2MQTT_GATEWAYS__Bad__ADDRESS: fits no key; did you mean \
             GSDK2MQTT_GATEWAYS__BAD__ADDRESS?",
            "environment GSDK2MQTT_GATEWAYS__LOBBY__ADRESS: fits no key; did you mean \
             GSDK2MQTT_GATEWAYS__LOBBY__ADDRESS?",
            "environment GSDK2MQTT_MQTT__URL: mqtt.url: holds a user name or password; move them \
             to mqtt.username and mqtt.password_file, and leave only mqtts://host:port",
            "environment GSDK2MQTT_MQTT__URLL: fits no key; did you mean GSDK2MQTT_MQTT__URL?",
            "environment GSDK2MQTT_OUTBOX__MAX_EVENTS: outbox.max_events: \"many\" is not a whole \
             number",
            "command line --set htp.listen: unknown key; did you mean http.listen?",
            "command line --set http.listen: http.listen: \"nowhere\" is not an address to listen \
             on; write it as in \"127.0.0.1:9925\"",
            "command line --set mqtt: is a table; name a key in it",
            "command line --set state_dir: write --set KEY=VALUE",
        ]
    );
}

#[test]
fn a_name_without_two_underscores_is_only_a_warning() {
    let environment = [("GSDK2MQTT_PORT", "tcp://10.0.0.1:80"), ("GSDK2MQTT_MQTT_URL", "x")];
    let loaded = loaded(GATEWAY, &environment, &[]).unwrap();
    assert_eq!(loaded.warnings.len(), 2);
    assert!(loaded.warnings[0].contains("GSDK2MQTT_PORT: fits no key, ignored"));
    assert!(loaded.warnings[1].ends_with("did you mean GSDK2MQTT_MQTT__URL?"));
}

#[test]
fn certificates_without_tls_are_a_warning() {
    let loaded = loaded(GATEWAY, &[], &["mqtt.ca_file=/ca.crt"]).unwrap();
    assert!(loaded.warnings[0].contains("mqtts://"), "{:?}", loaded.warnings);
}

#[test]
fn a_text_alone_is_a_configuration_too() {
    let config = from_toml("demo", GATEWAY).unwrap().config;
    assert_eq!(config.gateways.len(), 1);
    let told = from_toml("demo", "x = 1").unwrap_err().to_string();
    assert!(told.starts_with("demo:1: x: unknown key"), "{told}");
}

#[test]
fn many_devices_are_read_in_one_walk() {
    let devices = (1..=5_000).map(|id| format!("{id} = {{ name = \"Reader {id}\" }}\n"));
    let text = format!("{GATEWAY}[gateways.lobby.devices]\n{}", devices.collect::<String>());
    let config = from_toml("many", text).unwrap().config;
    assert_eq!(config.gateways[&"lobby".parse().unwrap()].devices.len(), 5_000);
}

#[test]
fn a_file_that_is_named_must_exist() {
    let args = Args { config: Some("/nonexistent/x.toml".into()), ..Args::default() };
    let told = load(&args, []).unwrap_err().to_string();
    assert!(told.starts_with("/nonexistent/x.toml: the file does not exist"), "{told}");
    let environment = pairs(&[("GSDK2MQTT_CONFIG", "/nonexistent/y.toml")]);
    let told = load(&Args::default(), environment).unwrap_err().to_string();
    assert!(told.starts_with("/nonexistent/y.toml: "), "{told}");
}

#[test]
fn base_topics_with_levels_make_a_plain_client_id() {
    let loaded = loaded(GATEWAY, &[], &["mqtt.base_topic=site/gsdk"]).unwrap();
    assert_eq!(loaded.config.mqtt.client_id, "gsdk2mqtt_site_gsdk_bridge");
    assert_eq!(loaded.config.commands.response_prefix, "site/gsdk-reply/");
}

#[test]
fn allow_lists_know_names_groups_and_all() {
    let allow = |patterns: &[&str]| Allow(patterns.iter().map(|p| (*p).to_owned()).collect());
    assert!(allow(&["accept_filter/*"]).permits("accept_filter/add"));
    assert!(!allow(&["accept_filter/*"]).permits("accept_filter"));
    assert!(!allow(&["connect"]).permits("disconnect"));
    assert!(allow(&["*"]).permits("disconnect_all"));
    assert!(!allow(&[]).permits("devices"));
    assert!(allow(&[]).is_empty());
}

#[test]
fn the_documentation_has_every_key_with_its_form_and_default() {
    let page = include_str!("../../docs/configuration.md");
    for key in keys::KEYS {
        let row = format!(
            "| `{}` |",
            key.path.replace('*', "NAME").replace(".devices.NAME", ".devices.ID")
        );
        let line = page.lines().find(|line| line.starts_with(&row));
        let line = line.unwrap_or_else(|| panic!("docs/configuration.md has no row {row}"));
        let default = match key.fallback {
            keys::Fallback::Required => "required".to_owned(),
            keys::Fallback::Absent(words) => words.to_owned(),
            keys::Fallback::Text(text) => format!("`\"{text}\"`"),
            keys::Fallback::Whole(number) => format!("`{number}`"),
            keys::Fallback::Bool(truth) => format!("`{truth}`"),
            keys::Fallback::List(texts) => format!("`{}`", settings::shown(&texts.to_vec().into())),
        };
        assert!(line.contains(&format!("| {default} |")), "{line}\nshould say {default}");
    }
    let rows = page.lines().filter(|line| line.starts_with("| `")).count();
    assert_eq!(rows, keys::KEYS.len(), "docs/configuration.md has rows of unknown keys");
}

#[test]
fn numbers_and_truth_values_may_be_text() {
    let text = "[outbox]\nmax_events = \"100\"\n[home_assistant]\nenabled = \"true\"\n";
    let config = loaded(&format!("{text}{GATEWAY}"), &[], &[]).unwrap().config;
    assert_eq!(config.outbox.max_events.get(), 100);
    assert!(config.home_assistant.enabled);
}

/// Lines that look like TOML often enough to get past the parser.
const NEARLY_TOML: &str = "(\\[?[a-z.\"]{0,9}\\]?( = [0-9a-z\"\\[\\]{}]{0,9})?\n){0,9}";

proptest::proptest! {
    #[test]
    fn no_text_makes_loading_panic_or_fail_without_a_mistake(text in NEARLY_TOML) {
        let mut mistakes = Vec::new();
        let file = file::read(Path::new("f"), &text, &mut mistakes);
        let raw = Raw::merge(&[file]);
        let mut reader = Reader { raw: &raw, mistakes, warnings: Vec::new() };
        let config = read::config(&mut reader);
        proptest::prop_assert!(config.is_some() || !reader.mistakes.is_empty());
    }
}
