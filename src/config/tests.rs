//! Tests of the configuration as a whole: layers, fixtures, the documentation.

use std::ffi::OsString;
use std::time::Duration;

use secrecy::ExposeSecret as _;

use super::schema::KeyPath;
use super::*;

/// What every configuration needs, so that a test can be about one thing.
const GATEWAY: &str = "[gateways.lobby]\naddress = \"10.0.0.2:4000\"\nca_file = \"/ca.crt\"\n";

/// Loads a file of this text, under these variables and `--set` arguments.
fn loaded(text: &str, variables: &[(&str, &str)], set: &[&str]) -> Result<Loaded, Error> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.toml");
    std::fs::write(&path, text).unwrap();
    let set = set.iter().map(|set| (*set).to_owned()).collect();
    load(&ConfigArgs { config: Some(path), set }, pairs(variables))
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
    assert_eq!(config.mqtt.password_file.as_deref(), Some(Path::new("/run/secrets/mqtt")));
    assert_eq!(config.commands.max_payload_bytes, 65_536);
    assert_eq!(config.commands.response_prefix, "gsdk-reply/");
    assert!(config.home_assistant.enabled && !config.home_assistant.controls);
    assert_eq!(config.outbox.max_bytes, 512 << 20);
    assert_eq!(config.history.keep, Duration::from_secs(400 * 86_400));
    assert_eq!(config.history.max_bytes, 2 << 30);
    assert_eq!(config.time_zone.iana_name(), Some("Europe/Berlin"));
    assert_eq!(config.metrics.device.len(), 2);
    let lobby = &config.gateways[&"lobby".parse().unwrap()];
    let Reach::Direct { server_name, .. } = &lobby.reach else { panic!("{lobby:?}") };
    assert_eq!(server_name, "gateway.local");
    let campus = &config.masters[&"campus".parse().unwrap()];
    assert_eq!((campus.address.port, campus.discover), (4010, true));
    let north = &config.gateways[&"north".parse().unwrap()];
    let (master, gateway_id) = ("campus".parse().unwrap(), "Gateway-North".to_owned());
    assert_eq!(north.reach, Reach::Master { master, gateway_id });
    assert_eq!(lobby.unknown_after, Duration::from_secs(10));
    let ids: Vec<u32> = lobby.devices.keys().map(|id| id.get()).collect();
    assert_eq!(ids, [540_092_578, 544_114_231, 939_342_898]);
    let front = &lobby.devices[&"544114231".parse().unwrap()];
    assert_eq!((front.connect, front.ssl), (ConnectMode::Async, Some(true)));
    assert_eq!(front.ip, "192.168.0.104".parse().ok());
    assert_eq!(front.port.map(u16::from), Some(51_211));
    assert!(!format!("{loaded:?}").contains("s3cret"));
}

#[test]
fn a_gateway_without_a_table_has_the_defaults_of_one() {
    let config = loaded(GATEWAY, &[], &[]).unwrap().config;
    let table = &config.gateways[&"lobby".parse().unwrap()];
    let without = GatewayConfig::with_defaults(table.reach.clone());
    assert_eq!(format!("{without:?}"), format!("{table:?}"));
}

/// A fixture announces its mistakes in lines of `#= LINE: KEY: part of the text`.
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
        let announced: Vec<&str> =
            text.lines().filter_map(|line| line.strip_prefix("#= ")).collect();
        assert!(!announced.is_empty(), "{name} announces no mistake");
        let args = ConfigArgs { config: Some(path.clone()), ..ConfigArgs::default() };
        let error = load(&args, []).expect_err(&name);
        let mut found: Vec<&Mistake> = error.mistakes().iter().collect();
        for line in &announced {
            let fits = |mistake: &&Mistake| {
                let place = mistake.origin.to_string();
                let line_number = place.strip_prefix(&format!("{}:", path.display()));
                let place = line_number.map_or(String::new(), |line| format!("{line}: "));
                let key = &mistake.key;
                let key = if key.is_empty() { String::new() } else { format!("{key}: ") };
                let gist = line.strip_prefix(&format!("{place}{key}"));
                gist.is_some_and(|gist| mistake.text.contains(gist))
            };
            let at = found.iter().position(fits);
            found.remove(at.unwrap_or_else(|| panic!("{name}: no {line:?} in\n{error}")));
        }
        assert!(found.is_empty(), "{name} does not announce {found:?}");
        assert!(!error.to_string().contains("hunter2"), "{name} quotes a secret");
    }
    assert!(seen >= 54, "only {seen} fixtures were read");
}

#[test]
fn later_layers_have_precedence_and_origins_are_known() {
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
    let lobby = &config.gateways[&"lobby".parse().unwrap()].reach;
    assert!(matches!(lobby, Reach::Direct { queue_size: 1_000, .. }), "{lobby:?}");
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
fn lists_in_a_text_are_written_as_in_the_file_or_with_commas() {
    for (text, expected) in [
        (r#"["forget", 'mode/set']"#, &["forget", "mode/set"][..]),
        (" forget ,mode/set,", &["forget", "mode/set"]),
        ("[]", &[]),
        ("", &[]),
    ] {
        let config = loaded(GATEWAY, &[], &[&format!("commands.allow={text}")]).unwrap().config;
        assert_eq!(config.commands.allow.patterns().collect::<Vec<_>>(), expected, "{text}");
    }
}

#[test]
fn a_list_that_is_not_complete_is_no_name_of_a_protocol() {
    let alpn = |text: &str| loaded(GATEWAY, &[], &[&format!("mqtt.alpn={text}")]);
    assert_eq!(alpn("[\"mqtt\", \"http/1.1\"]").unwrap().config.mqtt.alpn, ["mqtt", "http/1.1"]);
    for text in ["[\"a\"", "a\"]", "['a'", "a b"] {
        let found = mistakes(alpn(text));
        assert!(found[0].contains("is not the name of a protocol"), "{text}: {found:?}");
    }
}

#[test]
fn a_text_in_place_of_another_type_is_quoted() {
    let environment = [("GSDK2MQTT_HOME_ASSISTANT__ENABLED", "maybe")];
    let found = mistakes(loaded(GATEWAY, &environment, &["outbox.max_events=many"]));
    assert!(found[0].ends_with("must be true or false, not \"maybe\""), "{found:?}");
    assert!(found[1].ends_with("must be a whole number, not \"many\""), "{found:?}");
}

#[test]
fn a_password_of_digits_remains_text_and_is_never_shown() {
    let environment = [("GSDK2MQTT_MQTT__USERNAME", "me"), ("GSDK2MQTT_MQTT__PASSWORD", " 0123 ")];
    let loaded = loaded(GATEWAY, &environment, &[]).unwrap();
    let password = loaded.config.mqtt.password.as_ref();
    assert_eq!(password.map(|it| it.expose_secret()), Some(" 0123 "));
    assert!(!format!("{loaded:?}").contains("0123"));
    let shown = loaded.settings.iter().find(|setting| setting.key == "mqtt.password").unwrap();
    assert_eq!(shown.value.as_deref(), Some("***"));
}

#[test]
fn a_passwords_file_is_not_read_when_the_configuration_is() {
    let set = ["mqtt.password_file=/nope", "mqtt.username=me"];
    let mqtt = loaded(GATEWAY, &[], &set).unwrap().config.mqtt;
    assert_eq!(mqtt.password_file.as_deref(), Some(Path::new("/nope")));
    let reported = mistakes(loaded(GATEWAY, &[], &["mqtt.password_file=/nope"]));
    assert!(reported[0].contains("is set without mqtt.username"), "{reported:?}");
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
        ("OTHER__X", "y"),
    ];
    let set = ["http.listen=nowhere", "htp.listen=1", "state_dir", "mqtt.password=x"];
    let found = mistakes(loaded(GATEWAY, &environment, &set));
    let expected = [
        ("environment GSDK2MQTT_GATEWAYS__Bad__ADDRESS: ", "GSDK2MQTT_GATEWAYS__BAD__ADDRESS?"),
        ("environment GSDK2MQTT_GATEWAYS__LOBBY__ADRESS: ", "gateways.lobby.address?"),
        ("environment GSDK2MQTT_MQTT__URL: mqtt.url: contains a user name", "mqtt.username"),
        ("environment GSDK2MQTT_MQTT__URLL: mqtt.urll: ", "did you mean mqtt.url?"),
        ("environment GSDK2MQTT_OUTBOX__MAX_EVENTS: outbox.max_events: ", "a whole number"),
        ("command line --set htp.listen: htp: ", "did you mean http?"),
        ("command line --set http.listen: http.listen: ", "\"nowhere\""),
        ("command line --set mqtt.password: ", "set mqtt.password_file instead"),
        ("command line --set state_dir: ", "write --set KEY=VALUE"),
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (line, (place, gist)) in found.iter().zip(expected) {
        assert!(line.starts_with(place) && line.contains(gist), "{line}");
    }
}

#[test]
fn a_table_is_not_set_by_a_value() {
    let found = mistakes(loaded(GATEWAY, &[], &["mqtt=1"]));
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("command line --set mqtt: mqtt: must be a table"), "{found:?}");
}

#[test]
fn a_name_without_two_underscores_is_only_a_warning() {
    let environment = [
        ("GSDK2MQTT_PORT", "tcp://10.0.0.1:80"),
        ("GSDK2MQTT_MQTT_URL", "x"),
        ("GSDK2MQTT_LOG", "json"),
        ("GSDK2MQTT_SERVICE_HOST", "10.0.0.1"),
        ("GSDK2MQTT_CONFIG_FILE", "x.toml"),
    ];
    let warnings = loaded(GATEWAY, &environment, &[]).unwrap().warnings;
    assert_eq!(warnings.len(), 5);
    for (index, name) in [(0, "PORT"), (2, "LOG"), (3, "SERVICE_HOST")] {
        let gist = format!("GSDK2MQTT_{name}: fits no key, ignored; a variable is");
        assert!(warnings[index].contains(&gist), "{warnings:#?}");
    }
    assert!(warnings[1].ends_with("did you mean GSDK2MQTT_MQTT__URL?"), "{warnings:#?}");
    assert!(warnings[4].ends_with("did you mean GSDK2MQTT_CONFIG?"), "{warnings:#?}");
}

#[test]
fn a_master_is_discovered_unless_gateways_name_it() {
    let master = "[masters.campus]\naddress = \"10.0.0.5\"\nca_file = \"/ca.crt\"\n\
                  cert_file = \"/tenant.crt\"\nkey_file = \"/tenant.key\"\n";
    let north = "[gateways.north]\nmaster = \"campus\"\ngateway_id = \"1\"\n";
    let discover = |text: &str| {
        let config = loaded(text, &[], &[]).unwrap().config;
        config.masters[&"campus".parse().unwrap()].discover
    };
    assert!(discover(master));
    assert!(!discover(&format!("{master}{north}")));
    assert!(discover(&format!("{master}discover = true\n{north}")));
}

#[test]
fn the_web_servers_two_addresses_do_not_overlap() {
    for (listen, second, overlap) in [
        ("127.0.0.1:23074", "0.0.0.0:23074", true),
        ("0.0.0.0:23074", "10.0.0.7:23074", true),
        ("127.0.0.1:23074", "[::]:23074", true),
        ("[::]:23074", "0.0.0.0:23074", true),
        ("[::1]:23074", "[::]:23074", true),
        ("127.0.0.1:23074", "[::ffff:127.0.0.1]:23074", true),
        ("127.0.0.1:23074", "10.0.0.7:23074", false),
        ("[::1]:23074", "0.0.0.0:23074", false),
        ("127.0.0.1:23074", "0.0.0.0:23075", false),
        ("127.0.0.1:0", "0.0.0.0:0", false),
    ] {
        let set = [format!("http.listen={listen}"), format!("http.metrics_listen={second}")];
        let result = loaded(GATEWAY, &[], &set.each_ref().map(String::as_str));
        let found = result.map_or_else(|error| error.to_string(), |_| String::new());
        assert_eq!(found.contains("http.metrics_listen: "), overlap, "{listen} {second}: {found}");
    }
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
    let reported = from_toml("demo", "x = 1").unwrap_err().to_string();
    assert!(reported.starts_with("demo:1: x: unknown key"), "{reported}");
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
    let args = ConfigArgs { config: Some("/nonexistent/x.toml".into()), ..ConfigArgs::default() };
    let reported = load(&args, []).unwrap_err().to_string();
    assert!(reported.starts_with("/nonexistent/x.toml: the file does not exist"), "{reported}");
    let environment = pairs(&[("GSDK2MQTT_CONFIG", "/nonexistent/y.toml")]);
    let reported = load(&ConfigArgs::default(), environment).unwrap_err().to_string();
    assert!(reported.starts_with("/nonexistent/y.toml: "), "{reported}");
}

#[test]
fn base_topics_with_levels_make_a_plain_client_id() {
    let loaded = loaded(GATEWAY, &[], &["mqtt.base_topic=site/gsdk"]).unwrap();
    assert_eq!(loaded.config.mqtt.client_id, "gsdk2mqtt_site_gsdk_bridge");
    assert_eq!(loaded.config.commands.response_prefix, "site/gsdk-reply/");
}

/// A key's row in the reference tables of `docs/configuration.md`.
fn documented(key: &KeyPath, node: &serde_json::Value) -> String {
    let name = key.to_string().replace(".devices.NAME", ".devices.ID");
    let words: Vec<String> =
        schema::choices(node).iter().map(|word| format!("`\"{word}\"`")).collect();
    let form = match (words.split_last(), node["title"].as_str(), node["type"].as_str()) {
        (Some((last, [])), ..) => last.clone(),
        (Some((last, words)), ..) => format!("{} or {last}", words.join(", ")),
        (None, Some(title), _) => title.to_owned(),
        (None, None, Some("integer")) => "number".to_owned(),
        (None, None, Some("boolean")) => "true or false".to_owned(),
        (None, None, Some("array")) => "list".to_owned(),
        _ => "text".to_owned(),
    };
    let (name_in_table, table) = key.0.split_last().unwrap();
    let schema = Schema::new();
    let required = schema.at(table).unwrap()["required"].as_array();
    let required = required.is_some_and(|it| it.contains(&name_in_table.as_str().into()));
    let default = match (node.get("default"), node["x-default"].as_str()) {
        (Some(default), _) => {
            format!("`{}`", tree::shown(&figment::value::Value::serialize(default).unwrap()))
        }
        (None, Some(words)) => words.to_owned(),
        (None, None) if required => "required".to_owned(),
        (None, None) => "none".to_owned(),
    };
    let range = match (node["minimum"].as_u64(), node["maximum"].as_u64()) {
        (Some(least), Some(most)) => format!(" {least} to {most}."),
        _ => String::new(),
    };
    let meaning = node["description"].as_str().unwrap();
    format!("| `{name}` | {form} | {default} | {meaning}{range} |")
}

#[test]
fn the_documentation_has_every_key_as_its_type_describes_it() {
    let page = include_str!("../../docs/configuration.md");
    let schema = Schema::new();
    let expected: Vec<String> =
        schema.keys().iter().map(|(key, node)| documented(key, node)).collect();
    let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| `")).collect();
    let missing: Vec<&String> =
        expected.iter().filter(|row| !rows.contains(&row.as_str())).collect();
    let unknown: Vec<&&str> =
        rows.iter().filter(|row| !expected.iter().any(|it| it == **row)).collect();
    let text = |rows: &[String]| rows.join("\n");
    assert!(
        missing.is_empty() && unknown.is_empty(),
        "docs/configuration.md needs these rows:\n{}\nand not these:\n{unknown:#?}",
        text(&missing.into_iter().cloned().collect::<Vec<_>>())
    );
}

#[test]
fn the_schema_has_every_key_with_its_meaning() {
    let schema = json_schema();
    let url = &schema["properties"]["mqtt"]["properties"]["url"];
    assert_eq!(url["default"], "mqtt://localhost:1883");
    assert!(url["description"].as_str().unwrap().contains("mqtts://"), "{url}");
    let gateway = &schema["properties"]["gateways"]["additionalProperties"];
    assert_eq!(gateway["properties"]["queue_size"]["type"], "integer");
    assert_eq!(gateway["properties"]["queue_size"]["maximum"], 1_000_000);
    let device = &gateway["properties"]["devices"]["additionalProperties"]["properties"];
    assert_eq!(device["connect"]["enum"], serde_json::json!(["observe", "async", "accept"]));
    let names = |table: &str| schema["properties"][table]["propertyNames"].clone();
    assert_eq!(names("gateways")["maxLength"], 32);
    assert_eq!(names("gateways"), names("masters"));
    let ids = &gateway["properties"]["devices"]["propertyNames"]["pattern"];
    assert_eq!(ids, "^[1-9][0-9]{0,9}$");
    assert!(!schema.to_string().contains("x-default"));
    for (key, node) in Schema::new().keys() {
        assert!(node["description"].is_string(), "{key}");
    }
}

#[test]
fn without_the_default_file_the_message_says_so_and_how_to_create_it() {
    let (schema, variables) = (Schema::new(), [("GSDK2MQTT_MQTT__URL".into(), "mqtt://h".into())]);
    let environment = layers::environment(variables, &schema, &mut Vec::new());
    let found = mistakes(assemble(None, environment, &[], &schema, Vec::new(), full));
    assert_eq!(found.len(), 1, "{found:?}");
    for words in ["/etc/gsdk2mqtt/config.toml does not exist", "gsdk2mqtt init", "--config"] {
        assert!(found[0].contains(words), "{words} in {found:?}");
    }
}

#[test]
fn a_folder_in_place_of_the_file_is_named_as_such() {
    let args = ConfigArgs { config: Some("tests/config".into()), ..ConfigArgs::default() };
    let error = load(&args, []).unwrap_err().to_string();
    assert!(error.contains("is a directory; name the file in it with --config"), "{error}");
}

#[test]
fn unknown_keys_get_the_nearest_known_one() {
    for (wrong, words) in [
        ("mqtt.ulr", "did you mean mqtt.url?"),
        ("mqttt.url", "did you mean mqtt?"),
        ("url", "did you mean mqtt.url?"),
        ("broker.url", "did you mean mqtt.url?"),
        ("gateways.lobby.adress", "did you mean gateways.lobby.address?"),
        ("http.colour", "the keys here are listen, hosts"),
        ("mqtt.url.host", "mqtt.url is a value"),
    ] {
        let found = mistakes(loaded(GATEWAY, &[], &[&format!("{wrong}=x")]));
        assert!(found.len() == 1 && found[0].contains(words), "{wrong}: {found:?}");
    }
}

#[test]
fn numbers_and_truth_values_may_be_text() {
    let text = "[outbox]\nmax_events = \"100\"\n[home_assistant]\nenabled = \"true\"\n";
    let config = loaded(&format!("{text}{GATEWAY}"), &[], &[]).unwrap().config;
    assert_eq!(config.outbox.max_events.get(), 100);
    assert!(config.home_assistant.enabled);
}

#[test]
fn every_mistake_of_a_table_is_reported_at_once() {
    let text = "[gateways.lobby]\nqueue_size = 0\ncolour = 1\nunknown_after = 5\n";
    let found = mistakes(loaded(text, &[], &[]));
    assert_eq!(found.len(), 5, "{found:#?}");
}

#[test]
fn only_a_text_with_a_unit_is_to_have_one() {
    let text = "[gateways.north]\nmaster = \"m\"\ngateway_id = 5\naudit_interval = 5\n";
    let found = mistakes(loaded(text, &[], &[]));
    let of = |key: &str| found.iter().find(|line| line.contains(key)).unwrap();
    assert!(of("gateway_id").ends_with("not a whole number; put it in quotes"), "{found:#?}");
    assert!(of("audit_interval").ends_with("in quotes, with its unit"), "{found:#?}");
}

#[test]
fn a_number_is_no_word() {
    for text in ["[mqtt]\nprotocol = 0\n", "[outbox]\nsync = 1\n"] {
        let found = mistakes(loaded(&format!("{text}{GATEWAY}"), &[], &[]));
        assert!(found[0].contains("must be a text, not a whole number"), "{found:?}");
    }
}

#[test]
fn a_secret_of_a_wrong_type_is_not_quoted() {
    for value in ["12345", "[12345]", "12345.5", "123456789012345678901234567890", "{ a = 12345 }"]
    {
        let text = format!("{GATEWAY}[mqtt]\nusername = \"me\"\npassword = {value}\n");
        let error = loaded(&text, &[], &[]).unwrap_err().to_string();
        assert!(!error.contains("12345"), "{error}");
    }
}

/// Lines that look like TOML often enough to get past the parser.
const NEARLY_TOML: &str = "(\\[?[a-z.\"]{0,9}\\]?( = [0-9a-z\"\\[\\]{}]{0,9})?\n){0,9}";

proptest::proptest! {
    #[test]
    fn no_text_makes_loading_panic_or_fail_without_a_mistake(text in NEARLY_TOML) {
        let error = from_toml("f", text).err();
        proptest::prop_assert!(error.is_none_or(|error| !error.mistakes().is_empty()));
    }
}
