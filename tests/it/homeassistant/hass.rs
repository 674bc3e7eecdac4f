//! A real Home Assistant as a process, from the chroot that tests/homeassistant/setup.sh makes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::mosquitto::free_port;

/// Where its own files are.
const FILES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/homeassistant");
/// Those for users.
const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/home-assistant/scripts.yaml");
/// Where setup.sh installs it, by default.
const ROOT: &str = "/var/tmp/gsdk2mqtt-homeassistant";
/// The deadline of every wait. It is slow to start, and discovery is rate-limited.
const PATIENCE: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// The mounts belong to the process and end with it.
const START: &str = r#"mount -t proc proc "$1/proc" && mount --bind /dev "$1/dev" &&
exec chroot "$1" env -i HOME=/root LANG=C.UTF-8 PATH=/ha/bin:/usr/bin:/bin \
    /ha/bin/hass --skip-pip -c "$2""#;

/// A Home Assistant with its MQTT integration only.
pub(super) struct Hass {
    port: u16,
    root: PathBuf,
    /// Its configuration, as seen from inside the chroot.
    config: String,
    child: Option<Child>,
}

impl Hass {
    /// One that is connected to this broker with MQTT 5, and discovers below this prefix.
    pub(super) fn start(mqtt_port: u16, prefix: &str) -> Self {
        Self::start_with(mqtt_port, prefix, "5")
    }

    /// The same with this version of MQTT.
    pub(super) fn start_with(mqtt_port: u16, prefix: &str, protocol: &str) -> Self {
        let root = PathBuf::from(std::env::var("HOMEASSISTANT_ROOT").unwrap_or(ROOT.to_owned()));
        assert!(root.join("ha/bin/hass").exists(), "run tests/homeassistant/setup.sh first");
        let port = free_port();
        let mut hass = Self { port, root, config: format!("/config-{port}"), child: None };
        hass.write_config(mqtt_port, prefix, protocol);
        hass.run();
        hass
    }

    fn folder(&self) -> PathBuf {
        self.root.join(self.config.trim_start_matches('/'))
    }

    fn write_config(&self, mqtt_port: u16, prefix: &str, protocol: &str) {
        let folder = self.folder();
        let glass = "custom_components/glass";
        fs::create_dir_all(folder.join(glass)).unwrap();
        fs::create_dir_all(folder.join(".storage")).unwrap();
        let files = Path::new(FILES).join("config");
        for name in ["manifest.json", "__init__.py"] {
            fs::copy(files.join(glass).join(name), folder.join(glass).join(name)).unwrap();
        }
        let text = fs::read_to_string(files.join("configuration.yaml")).unwrap();
        let text = text.replace("8123", &self.port.to_string());
        fs::write(folder.join("configuration.yaml"), text).unwrap();
        fs::copy(SCRIPTS, folder.join("gsdk_scripts.yaml")).unwrap();
        // As its user interface writes when MQTT is added.
        let entry = json!({
            "domain": "mqtt", "entry_id": "mqtt", "title": "MQTT", "source": "user",
            "version": 1, "minor_version": 1, "unique_id": null, "disabled_by": null,
            "pref_disable_new_entities": false, "pref_disable_polling": false,
            "discovery_keys": {}, "subentries": [],
            "created_at": "2026-01-01T00:00:00+00:00", "modified_at": "2026-01-01T00:00:00+00:00",
            "data": {"broker": "127.0.0.1", "port": mqtt_port, "protocol": protocol},
            "options": {"discovery": true, "discovery_prefix": prefix}
        });
        let done = ["user", "core_config", "analytics", "integration"];
        for (key, version, minor, data) in [
            ("core.config_entries", 1, 5, json!({ "entries": [entry] })),
            ("onboarding", 4, 1, json!({ "done": done })),
        ] {
            let file =
                json!({"version": version, "minor_version": minor, "key": key, "data": data});
            fs::write(folder.join(".storage").join(key), file.to_string()).unwrap();
        }
    }

    fn run(&mut self) {
        let log = self.folder().join("output");
        let log = fs::OpenOptions::new().create(true).append(true).open(log).unwrap();
        let child = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c", START, "sh"])
            .arg(&self.root)
            .arg(&self.config)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("unshare is part of util-linux");
        self.child = Some(child);
    }

    /// Stops it by its service, and starts it again.
    pub(super) fn restart(&mut self) {
        let mut child = self.child.take().unwrap();
        let pid = child.id().to_string();
        assert!(Command::new("kill").arg(pid).status().unwrap().success());
        child.wait().unwrap();
        self.run();
    }

    /// Its states; `None` while it does not answer.
    fn look(&self) -> Option<Value> {
        let url = format!("http://127.0.0.1:{}/glass", self.port);
        let out = Command::new("curl").args(["-fsS", "-m", "20", &url]).output().unwrap();
        out.status.success().then(|| serde_json::from_slice(&out.stdout).unwrap())
    }

    /// Calls a service on an entity.
    pub(super) fn call(&self, domain: &str, service: &str, unique_id: &str) {
        let seen = self.look().unwrap();
        let entity_id = &seen["entities"][unique_id]["entity_id"];
        self.call_with(domain, service, &json!({ "entity_id": entity_id }));
    }

    /// Calls a service with this, and waits for it.
    pub(super) fn call_with(&self, domain: &str, service: &str, data: &Value) {
        let call = json!({"domain": domain, "service": service, "data": data});
        let url = format!("http://127.0.0.1:{}/glass", self.port);
        let out = Command::new("curl")
            .args(["-fsS", "-m", "60", "-H", "Content-Type: application/json", "-d"])
            .args([&call.to_string(), &url])
            .output()
            .unwrap();
        assert!(out.status.success(), "{call}: {out:?}; the log:\n{}", self.log());
    }

    /// Waits until its states satisfy the condition.
    pub(super) async fn sees(&self, what: &str, like: impl Fn(&Value) -> bool) -> Value {
        let mut last = None;
        let found = tokio::time::timeout(PATIENCE, async {
            loop {
                last = self.look();
                if let Some(seen) = last.take_if(|seen| like(seen)) {
                    return seen;
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        });
        match found.await {
            Ok(found) => found,
            Err(_) => {
                let last = last
                    .map(|seen| states(&seen) + &seen["notified"].to_string())
                    .unwrap_or_default();
                panic!("never seen: {what}; the log:\n{}\nthe last: {last}", self.log());
            }
        }
    }

    /// Waits until an entity has this state.
    pub(super) async fn state(&self, unique_id: &str, state: &str) -> Value {
        let what = format!("{unique_id} is {state}");
        let seen = self.sees(&what, |seen| seen["entities"][unique_id]["state"] == state).await;
        seen["entities"][unique_id].clone()
    }

    /// When an automation last ran; `null` if it never did.
    pub(super) async fn automation(&self, entity_id: &str) -> Value {
        self.sees("itself", |_| true).await["automations"][entity_id].clone()
    }

    /// Waits until an automation has run; returns when.
    pub(super) async fn ran(&self, entity_id: &str) -> Value {
        let ran = |seen: &Value| seen["automations"][entity_id].is_string();
        let seen = self.sees(&format!("{entity_id} runs"), ran).await;
        seen["automations"][entity_id].clone()
    }

    /// What it logged.
    pub(super) fn log(&self) -> String {
        fs::read_to_string(self.folder().join("output")).unwrap_or_default()
    }

    /// The warnings and errors in its log.
    pub(super) fn complaints(&self) -> Vec<String> {
        let log = self.log();
        let grave = |line: &&str| line.contains(" WARNING ") || line.contains(" ERROR ");
        // Expected with this installation.
        let own = ["custom integration glass", "Skipping pip", "zlib"];
        let ours = |line: &&str| !own.iter().any(|own| line.contains(own));
        log.lines().filter(grave).filter(ours).map(str::to_owned).collect()
    }
}

/// The states of some entities, a line each.
fn states(seen: &Value) -> String {
    let entities = seen["entities"].as_object().into_iter().flatten().take(50);
    entities.map(|(id, entity)| format!("{id} {}\n", entity["state"])).collect()
}

impl Drop for Hass {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        // A remaining folder only uses disk space.
        let _ = fs::remove_dir_all(self.folder());
    }
}
