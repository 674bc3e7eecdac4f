//! `gsdk2mqtt init`, by options and in a terminal, with real brokers and simulated gateways.

mod files;
mod login;

use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use gsdk2mqtt::simulator::{CertificateKind, Simulator, SimulatorSettings};
use tempfile::TempDir;

use crate::harness::bridge::PROGRAM;
use crate::harness::certificates::{Ca, Certified};
use crate::harness::master::Master;
use crate::harness::mosquitto::Mosquitto;
use crate::harness::terminal::Terminal;
use crate::harness::watcher::retained;
use crate::harness::{bounded, simulator};

/// A folder for a configuration, with the gateway's `ca.crt` beside it.
struct Site {
    dir: TempDir,
    gateway: Simulator,
    broker: Mosquitto,
}

/// What a run gave.
struct Ran {
    code: i32,
    out: String,
    err: String,
}

impl Site {
    async fn new() -> Self {
        Self::with(simulator(3).await, "").await
    }

    async fn with(gateway: Simulator, broker: &str) -> Self {
        let (dir, passwords) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::write(dir.path().join("ca.crt"), gateway.ca_pem()).unwrap();
        let file = passwords.path().join("passwords");
        let made = bounded("mosquitto_passwd")
            .args(["-b", "-c"])
            .arg(&file)
            .args(["ann", "hunter2 ü"])
            .output()
            .expect("mosquitto_passwd must be installed (mosquitto)");
        assert!(made.status.success(), "{made:?}");
        let broker = Mosquitto::start_in(passwords, broker).await;
        Self { dir, gateway, broker }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn output(&self) -> PathBuf {
        self.path("etc/config.toml")
    }

    fn text(&self) -> String {
        std::fs::read_to_string(self.output()).unwrap()
    }

    /// The options that answer everything but the broker's login.
    fn options(&self) -> Vec<String> {
        let url = format!("mqtt://127.0.0.1:{}", self.broker.port);
        let (ca_file, output) = (self.path("ca.crt"), self.output());
        let options = [
            ("--output", output.display().to_string()),
            ("--gateway-name", "lobby".to_owned()),
            ("--gateway-address", self.gateway.address().to_string()),
            ("--ca-file", ca_file.display().to_string()),
            ("--mqtt-url", url),
            ("--mqtt-username", String::new()),
            ("--home-assistant", "no".to_owned()),
        ];
        options.into_iter().flat_map(|(option, value)| [option.to_owned(), value]).collect()
    }

    /// The same without one of them, and with others.
    fn changed(&self, without: &str, with: &[&str]) -> Vec<String> {
        let options = self.options();
        let pairs = options.chunks(2).filter(|pair| pair[0] != without);
        let kept = pairs.flat_map(<[String]>::to_vec);
        kept.chain(with.iter().map(|&word| word.to_owned())).collect()
    }

    /// What `check` says of the file that was written.
    async fn check(&self) -> Ran {
        let state = self.path("state").display().to_string();
        let (config, state) = (self.output().display().to_string(), format!("state_dir={state}"));
        run(&[
            "check",
            "--connect",
            "--config",
            &config,
            "--set",
            &state,
            "--set",
            "http.listen=127.0.0.1:0",
        ])
        .await
    }
}

async fn run(words: &[&str]) -> Ran {
    run_in(Path::new("."), words).await
}

async fn run_in(dir: &Path, words: &[&str]) -> Ran {
    let mut command = bounded(PROGRAM);
    command.args(words).current_dir(dir).env_remove("RUST_LOG").stdin(Stdio::null());
    let run = tokio::task::spawn_blocking(move || command.output().unwrap());
    let Output { status, stdout, stderr } = run.await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { code: status.code().unwrap(), out: text(stdout), err: text(stderr) }
}

async fn init(options: &[String]) -> Ran {
    let words: Vec<&str> =
        std::iter::once("init").chain(options.iter().map(String::as_str)).collect();
    run(&words).await
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test(flavor = "multi_thread")]
async fn options_alone_write_a_configuration_that_check_accepts() {
    let site = Site::new().await;
    let before = retained(site.broker.port);
    let ran = init(
        &site.changed("--home-assistant", &["--home-assistant", "--device", "7=Front \"door\""]),
    )
    .await;
    assert_eq!(ran.code, 0, "{}\n{}", ran.out, ran.err);
    assert!(ran.out.contains("check --connect --config"), "{}", ran.out);
    assert!(!ran.out.contains("systemctl"), "the service reads another file: {}", ran.out);
    let text = site.text();
    for line in ["ca_file = \"", "lobby-ca.crt", "7 = { name = ", "enabled = true"] {
        assert!(text.contains(line), "{line} in\n{text}");
    }
    assert_eq!(mode(&site.output()), 0o640);
    assert_eq!(mode(&site.path("etc/lobby-ca.crt")), 0o644);
    let checked = site.check().await;
    assert_eq!(checked.code, 0, "{}\n{}", checked.out, checked.err);
    assert_eq!(retained(site.broker.port), before, "nothing retained remains");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_paths_of_a_configuration_are_valid_in_every_working_directory() {
    let site = Site::new().await;
    let options = site.changed("--output", &["--output", "etc/config.toml"]);
    let words: Vec<&str> =
        std::iter::once("init").chain(options.iter().map(String::as_str)).collect();
    let ran = run_in(site.dir.path(), &words).await;
    assert_eq!(ran.code, 0, "{}\n{}", ran.out, ran.err);
    let checked = site.check().await;
    assert_eq!(checked.code, 0, "{}\n{}", checked.out, checked.err);
}

/// A gateway may be called `mqtt`, and still the broker's certificate is another file.
#[tokio::test(flavor = "multi_thread")]
async fn the_files_of_gateway_and_broker_have_different_names() {
    let ca = Ca::new();
    let dir = TempDir::new().unwrap();
    ca.write(dir.path(), "server", Certified::of(&["127.0.0.1"]));
    let files = "certfile {dir}/server.crt\nkeyfile {dir}/server.key\n";
    let broker = Mosquitto::start_in(dir, files).await;
    let url = format!("mqtts://127.0.0.1:{}", broker.port);
    let site = Site { broker, ..Site::new().await };
    let broker_ca = ca.file().display().to_string();
    let options = site.changed("--mqtt-url", &["--mqtt-url", &url, "--mqtt-ca-file", &broker_ca]);
    let options = options.iter().map(|word| word.replace("lobby", "mqtt"));
    let ran = init(&options.collect::<Vec<_>>()).await;
    assert_eq!(ran.code, 0, "{}\n{}", ran.out, ran.err);
    assert_eq!(
        std::fs::read_to_string(site.path("etc/mqtt-ca.crt")).unwrap(),
        site.gateway.ca_pem()
    );
    let checked = site.check().await;
    assert_eq!(checked.code, 0, "{}\n{}", checked.out, checked.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_is_written_to_a_separate_file_that_only_its_owner_can_read() {
    let lines = "allow_anonymous false\npassword_file {dir}/passwords";
    let site = Site::with(simulator(1).await, lines).await;
    std::fs::write(site.path("secret"), "hunter2 ü\n").unwrap();
    let secret = site.path("secret").display().to_string();
    let login = ["--mqtt-username", "ann", "--mqtt-password-file", secret.as_str()];
    let ran = init(&site.changed("--mqtt-username", &login)).await;
    assert_eq!(ran.code, 0, "{}\n{}", ran.out, ran.err);
    let file = site.path("etc/mqtt-password");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "hunter2 ü\n");
    assert_eq!(mode(&file), 0o600);
    for shown in [&site.text(), &ran.out, &ran.err] {
        assert!(!shown.contains("hunter2"), "{shown}");
    }
    assert_eq!(site.check().await.code, 0);

    // A wrong one is reported at once, and nothing is written.
    std::fs::remove_dir_all(site.path("etc")).unwrap();
    std::fs::write(site.path("secret"), "wrong").unwrap();
    let ran = init(&site.changed("--mqtt-username", &login)).await;
    assert_eq!(ran.code, 1, "{}", ran.err);
    assert!(ran.err.contains("refused the user name or password"), "{}", ran.err);
    assert!(!site.path("etc").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_terminal_a_missing_answer_is_named_with_its_option() {
    let site = Site::new().await;
    for option in [
        "--gateway-name",
        "--gateway-address",
        "--ca-file",
        "--mqtt-url",
        "--mqtt-username",
        "--home-assistant",
    ] {
        let ran = init(&site.changed(option, &[])).await;
        assert_eq!(ran.code, 2, "{option}: {}", ran.err);
        assert!(ran.err.contains(option), "{option}: {}", ran.err);
        assert!(!site.output().exists());
    }
    let no_password = ["--mqtt-username", "ann"];
    let ran = init(&site.changed("--mqtt-username", &no_password)).await;
    assert!(ran.code == 2 && ran.err.contains("--mqtt-password-file"), "{}", ran.err);
    // The defaults of those that have one.
    let address = site.gateway.address().to_string();
    let (ca_file, output) = (site.path("ca.crt"), site.output());
    let url = format!("mqtt://127.0.0.1:{}", site.broker.port);
    let (ca_file, output) = (ca_file.display().to_string(), output.display().to_string());
    let words = ["init", "--yes", "--output", &output, "--gateway-address", &address];
    let ran = run(&[&words[..], &["--ca-file", &ca_file, "--mqtt-url", &url]].concat()).await;
    assert_eq!(ran.code, 0, "{}", ran.err);
    let ran = init(&site.changed("", &["--device", "7=a", "--device", "7=b", "--dry-run"])).await;
    assert_eq!(ran.code, 2, "{}", ran.err);
    assert!(ran.err.contains("--device names 7 twice"), "{}", ran.err);
    // Wrong answers are wrong usage.
    for (option, wrong) in [
        ("--mqtt-url", "http://x"),
        ("--gateway-address", "https://x"),
        ("--gateway-name", "Bridge"),
        // Options that would be ignored.
        ("--cert-file", "tenant.crt"),
        ("--mqtt-ca-file", "/nope.crt"),
        ("--mqtt-password-file", "/nope"),
    ] {
        let ran = init(&site.changed(option, &[option, wrong, "--dry-run"])).await;
        assert_eq!(ran.code, 2, "{option} {wrong}: {}", ran.err);
        assert!(ran.err.contains(option), "{option} {wrong}: {}", ran.err);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_replaced_unasked_and_a_dry_run_writes_nothing() {
    let site = Site::new().await;
    let ran = init(&[site.options(), vec!["--dry-run".to_owned()]].concat()).await;
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.out.contains("[gateways.lobby]") && ran.out.contains("[mqtt]"), "{}", ran.out);
    assert!(!site.path("etc").exists());

    std::fs::create_dir(site.path("etc")).unwrap();
    std::fs::write(site.output(), "mine").unwrap();
    let ran = init(&site.options()).await;
    assert_eq!(ran.code, 2, "{}", ran.err);
    assert!(ran.err.contains("--overwrite"), "{}", ran.err);
    let ran = init(&[site.options(), vec!["--yes".to_owned()]].concat()).await;
    assert_eq!((ran.code, site.text().as_str()), (2, "mine"), "{}", ran.err);
    let ran = init(&[site.options(), vec!["--overwrite".to_owned()]].concat()).await;
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(site.text().contains("[gateways.lobby]"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_trusted_only_by_its_file_or_its_confirmed_fingerprint() {
    let site = Site::new().await;
    let ran = init(&[site.changed("--ca-file", &[]), vec!["--yes".to_owned()]].concat()).await;
    assert!(ran.code == 2 && ran.err.contains("--fingerprint"), "{}", ran.err);
    let wrong = "AB:".repeat(31) + "AB";
    let ran = init(&site.changed("--ca-file", &["--fingerprint", &wrong])).await;
    assert_eq!(ran.code, 1, "{}", ran.err);
    assert!(ran.err.contains("it is not trusted"), "{}", ran.err);
    let (address, closed) = (site.gateway.address().to_string(), "127.0.0.1:1".to_owned());
    let mut options = site.changed("--ca-file", &["--fingerprint", &wrong]);
    options.iter_mut().filter(|word| **word == address).for_each(|word| word.clone_from(&closed));
    let refused = init(&options).await;
    assert!(refused.err.contains("correct --gateway-address"), "{}", refused.err);
    let fingerprint = ran.err.split("fingerprint ").nth(1).unwrap().split(',').next().unwrap();
    let ran = init(&site.changed("--ca-file", &["--fingerprint", fingerprint])).await;
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert_eq!(site.check().await.code, 0);

    // It is this certificate that is trusted, and no other of the same authority.
    let other = simulator(1).await;
    let text = site.text();
    let (address, another) = (site.gateway.address().to_string(), other.address().to_string());
    std::fs::write(site.output(), text.replace(&address, &another)).unwrap();
    let checked = site.check().await;
    assert_eq!(checked.code, 1, "{}", checked.out);
    assert!(checked.out.contains("was not signed by the CA"), "{}", checked.out);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_name_in_the_certificate_is_prompted_for_or_used_by_default() {
    let settings =
        SimulatorSettings { certificate: CertificateKind::DnsOnly, ..SimulatorSettings::fast(1) };
    let site = Site::with(Simulator::start(settings).await.unwrap(), "").await;
    let ran = init(&site.options()).await;
    assert!(ran.code == 2 && ran.err.contains("--server-name"), "{}", ran.err);
    let ran = init(&[site.options(), vec!["--yes".to_owned()]].concat()).await;
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(site.text().contains("server_name = "), "{}", site.text());
    assert_eq!(site.check().await.code, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_is_added_and_comments_are_preserved() {
    let site = Site::new().await;
    assert_eq!(init(&site.options()).await.code, 0);
    // Its text, line ends and mode, and the link to it, are those of its owner.
    let before = site.text().replace("[mqtt]", "# our broker\n[mqtt]").replace('\n', "\r\n");
    let before = format!("\u{feff}{before}");
    let file = site.path("versioned.toml");
    std::fs::write(&file, &before).unwrap();
    std::fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    std::fs::remove_file(site.output()).unwrap();
    symlink(&file, site.output()).unwrap();
    let annex = simulator(1).await;
    std::fs::write(site.path("annex.crt"), annex.ca_pem()).unwrap();
    let (ca_file, address) =
        (site.path("annex.crt").display().to_string(), annex.address().to_string());
    let output = site.output().display().to_string();
    let words = |name: &'static str| {
        vec![
            "init",
            "--add-gateway",
            "--output",
            &output,
            "--gateway-name",
            name,
            "--gateway-address",
            &address,
            "--ca-file",
            &ca_file,
        ]
    };
    let ran = run(&words("lobby")).await;
    assert!(ran.code == 2 && ran.err.contains("gateway lobby"), "{}", ran.err);
    let ran = run(&words("annex")).await;
    assert_eq!(ran.code, 0, "{}", ran.err);
    let after = site.text();
    assert!(after.starts_with(&before), "{after}");
    assert!(after.contains("[gateways.annex]\r\n"), "{after}");
    assert!(!after.replace("\r\n", "").contains('\n'), "{after:?}");
    assert_eq!(std::fs::read_link(site.output()).unwrap(), file);
    assert_eq!(mode(&file), 0o600);
    assert!(site.path("etc/annex-ca.crt").exists(), "beside the link");
    assert_eq!(site.check().await.code, 0);
    let ran = run(&["init", "--add-gateway", "--output", "/nope.toml"]).await;
    assert!(ran.code == 2 && ran.err.contains("--output"), "{}", ran.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_is_described_by_options_and_in_a_terminal() {
    let site = Site::new().await;
    let master = Master::start(&["a", "b"], 1).await;
    let [ca_file, certificate, key] =
        ["ca.crt", "tenant.crt", "tenant.key"].map(|name| master.file(name).display().to_string());
    let address = master.simulator.address().to_string();
    let url = format!("mqtt://127.0.0.1:{}", site.broker.port);
    let output = site.output().display().to_string();
    let mut words = vec!["init", "--output", &output, "--mqtt-url", &url, "--yes"];
    words.extend([
        "--master-address",
        &address,
        "--ca-file",
        &ca_file,
        "--cert-file",
        &certificate,
    ]);
    let ran = run(&words).await;
    assert!(ran.code == 2 && ran.err.contains("--key-file is missing"), "{}", ran.err);
    let ran = run(&[&words[..], &["--key-file", &ca_file]].concat()).await;
    assert!(ran.code == 1 && ran.err.contains("--key-file"), "no key: {}", ran.err);
    assert!(!site.output().exists());
    let ran = run(&[&words[..], &["--key-file", &key]].concat()).await;
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.err.contains("campus_a, campus_b"), "{}", ran.err);
    assert!(site.text().contains("[masters.campus]"), "{}", site.text());
    assert_eq!(mode(&site.path("etc/campus.key")), 0o600);
    let checked = site.check().await;
    assert_eq!(checked.code, 0, "{}\n{}", checked.out, checked.err);

    std::fs::remove_dir_all(site.path("etc")).unwrap();
    let line = format!("{PROGRAM} init --output {output}");
    let mut terminal = Terminal::run(120, "", &line);
    let dialogue = [
        ("Is it a master gateway", Some("y")),
        ("Name of the master gateway", Some("plant")),
        ("Address of the master gateway", Some(address.as_str())),
        ("Its ca.crt", Some(ca_file.as_str())),
        ("Certificate of the tenant", Some("/nope.crt")),
        ("/nope.crt cannot be read", None),
        ("Certificate of the tenant", Some(certificate.as_str())),
        ("Its private key", Some(key.as_str())),
        ("URL of the MQTT broker", Some(url.as_str())),
        ("User name at the broker", Some("")),
        ("Shall Home Assistant", Some("n")),
    ];
    terminal.answers(&dialogue).await;
    let (code, shown) = terminal.ends().await;
    assert_eq!(code, 0, "{shown}");
    assert!(site.text().contains("[masters.plant]"), "{}", site.text());
    assert_eq!(site.check().await.code, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_has_prompts_answers_are_tested_at_once_and_wrong_ones_prompted_again() {
    let lines = "allow_anonymous false\npassword_file {dir}/passwords";
    let site = Site::with(simulator(2).await, lines).await;
    let line = format!("{PROGRAM} init --output {}", site.output().display());
    let mut terminal = Terminal::run(120, "", &line);
    let address = site.gateway.address();
    let [first, second] = [0, 1].map(|at| site.gateway.control().managed()[at].device_id);
    let url = format!("mqtt://127.0.0.1:{}", site.broker.port);
    let (ca_file, address) = (site.path("ca.crt").display().to_string(), address.to_string());
    let (first_name, second_name) = (format!(" {first}:"), format!(" {second}:"));
    let dialogue = [
        ("Is it a master gateway", Some("n")),
        ("Name of the gateway", Some("Bad Name")),
        ("is not a gateway name", None),
        ("Name of the gateway", Some("front")),
        ("Address of the gateway", Some("127.0.0.1:1")),
        ("Its ca.crt", Some(ca_file.as_str())),
        ("refused the connection", None),
        ("Address of the gateway", Some(address.as_str())),
        ("Its ca.crt", Some("")),
        ("Are the two the same?", Some("n")),
        ("is not trusted", None),
        ("Address of the gateway", Some(address.as_str())),
        ("Its ca.crt", Some("")),
        ("Are the two the same?", Some("y")),
        ("Search devices and name them?", Some("y")),
        (first_name.as_str(), Some("Front door")),
        (second_name.as_str(), Some("")),
        ("URL of the MQTT broker", Some(url.as_str())),
        ("User name at the broker", Some("ann")),
        ("Password at the broker", Some("wrong")),
        ("refused the user name or password", None),
        ("URL of the MQTT broker", Some("")),
        ("User name at the broker", Some("")),
        ("Password at the broker", Some("hunter2 ü")),
        ("Shall Home Assistant", Some("n")),
    ];
    terminal.answers(&dialogue).await;
    let (code, shown) = terminal.ends().await;
    assert_eq!(code, 0, "{shown}");
    assert!(!shown.contains("hunter2"), "{shown}");
    let text = site.text();
    assert!(text.contains(&format!("{first} = {{ name = \"Front door\" }}")), "{text}");
    assert!(!text.contains(&second.to_string()), "{text}");
    assert_eq!(mode(&site.path("etc/mqtt-password")), 0o600);
    let checked = site.check().await;
    assert_eq!(checked.code, 0, "{}\n{}", checked.out, checked.err);
}
