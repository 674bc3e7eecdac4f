//! The bridge as a process.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use gsdk2mqtt::simulator::Simulator;

use super::mosquitto::{Mosquitto, free_port};
use super::watcher::Watcher;
use super::{bounded, eventually, patiently};

/// The program under test.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_gsdk2mqtt");

/// A running bridge.
pub(crate) struct Bridge {
    /// The port of its web server.
    pub(crate) http_port: u16,
    dir: TempDir,
    program: PathBuf,
    environment: Vec<(String, String)>,
    arguments: Vec<String>,
    child: Child,
}

/// The content of the configuration.
pub(crate) struct Setup {
    text: String,
    dir: TempDir,
    program: PathBuf,
    http_port: u16,
    environment: Vec<(String, String)>,
    arguments: Vec<String>,
}

impl Setup {
    /// For a broker on this port, with `extra` keys of `[mqtt]`.
    pub(crate) fn new(mqtt_port: u16, extra: &str) -> Self {
        let (dir, http_port) = (tempfile::tempdir().unwrap(), free_port());
        let state = dir.path().join("state").display().to_string();
        let text = format!(
            "state_dir = {state:?}\n[mqtt]\nurl = \"mqtt://127.0.0.1:{mqtt_port}\"\n{extra}\n\
             [http]\nlisten = \"127.0.0.1:{http_port}\"\n"
        );
        let (environment, arguments) = (Vec::new(), Vec::new());
        Self { text, dir, program: PathBuf::from(PROGRAM), http_port, environment, arguments }
    }

    /// Runs another build of the program.
    #[allow(dead_code, reason = "the benches use it")]
    pub(crate) fn program(self, program: &Path) -> Self {
        Self { program: program.to_owned(), ..self }
    }

    /// With this simulated gateway, and `extra` keys of its table.
    pub(crate) fn gateway(self, name: &str, simulator: &Simulator, extra: &str) -> Self {
        let ca_file = self.dir.path().join(format!("{name}-ca.crt"));
        std::fs::write(&ca_file, simulator.ca_pem()).unwrap();
        self.gateway_at(name, simulator.address(), &ca_file, extra)
    }

    /// With a gateway at this address.
    pub(crate) fn gateway_at(
        mut self,
        name: &str,
        address: SocketAddr,
        ca_file: &Path,
        extra: &str,
    ) -> Self {
        let ca_file = ca_file.display().to_string();
        self.text += &format!(
            "[gateways.{name}]\naddress = \"{address}\"\nca_file = {ca_file:?}\n{extra}\n"
        );
        self
    }

    /// With this environment variable for every process that is started from it.
    pub(crate) fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With these arguments of every process that is started from it.
    pub(crate) fn arguments(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(|&argument| argument.to_owned()));
        self
    }

    /// With these keys of `[http]`.
    pub(crate) fn http(mut self, keys: &str) -> Self {
        self.text = self.text.replace("[http]\n", &format!("[http]\n{keys}\n"));
        self
    }

    /// With these additional lines.
    pub(crate) fn lines(mut self, lines: &str) -> Self {
        self.text += lines;
        self
    }

    /// With this line before all tables.
    pub(crate) fn top(mut self, line: &str) -> Self {
        self.text.insert_str(0, &format!("{line}\n"));
        self
    }

    /// The state directory.
    pub(crate) fn state_dir(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// The log file of the bridge; existing content is preserved.
    pub(crate) fn log_file(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    /// Writes the configuration and starts the bridge on it.
    pub(crate) fn start(self) -> Bridge {
        std::fs::write(self.dir.path().join("config.toml"), &self.text).unwrap();
        let Self { dir, program, http_port, environment, arguments, .. } = self;
        let child = spawn(&program, dir.path(), &environment, &arguments);
        Bridge { http_port, dir, program, environment, arguments, child }
    }
}

/// Logs into a file: an unread pipe would become full. SIGHUP has its default
/// action even if the tests were started with it ignored, as by nohup.
fn spawn(
    program: &Path,
    dir: &Path,
    environment: &[(String, String)],
    arguments: &[String],
) -> Child {
    let mut command = Command::new("env");
    // The tests themselves may run under a service manager.
    for name in ["RUST_LOG", "NOTIFY_SOCKET", "WATCHDOG_USEC", "INVOCATION_ID", "JOURNAL_STREAM"] {
        command.env_remove(name);
    }
    command
        .arg("--default-signal=HUP")
        .arg(program)
        .args(["run", "--config"])
        .arg(dir.join("config.toml"))
        .args(arguments)
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .stderr(File::create(dir.join("log")).unwrap())
        .spawn()
        .unwrap()
}

/// Runs a call of another client of a gateway.
pub(crate) fn another_client(simulator: &Simulator, words: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let ca_file = dir.path().join("ca.crt");
    std::fs::write(&ca_file, simulator.ca_pem()).unwrap();
    let address = simulator.address().to_string();
    let mut command = bounded(PROGRAM);
    command.args(["ctl", "--address", &address, "--ca-file"]).arg(&ca_file).args(words);
    let out = command.output().unwrap();
    assert!(out.status.success(), "{out:?}");
}

impl Bridge {
    /// Sends SIGTERM and waits for its end; returns its log.
    pub(crate) async fn stop(mut self) -> (ExitStatus, String) {
        self.terminate().await
    }

    /// The same, and [`Self::restart`] may follow.
    pub(crate) async fn terminate(&mut self) -> (ExitStatus, String) {
        let status = self.end().await;
        (status, self.log())
    }

    /// The same, without the log.
    pub(crate) async fn end(&mut self) -> ExitStatus {
        self.signal("-TERM");
        self.ends().await
    }

    /// Waits for its end.
    pub(crate) async fn ends(&mut self) -> ExitStatus {
        eventually("the bridge ends", || self.child.try_wait().unwrap()).await
    }

    /// What this process has logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap()
    }

    /// Kills it as `kill -9` does.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again on the same configuration after [`Self::kill`].
    pub(crate) fn restart(&mut self) {
        self.child = spawn(&self.program, self.dir.path(), &self.environment, &self.arguments);
    }

    /// Changes the configuration for the next start.
    pub(crate) fn configure(&self, change: impl FnOnce(String) -> String) {
        let path = self.dir.path().join("config.toml");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, change(text)).unwrap();
    }

    /// Runs a second one on the same state directory; returns its log.
    pub(crate) async fn second(&self) -> (ExitStatus, String) {
        let log = self.dir.path().join("second-log");
        let mut second = Command::new(PROGRAM)
            .args(["run", "--set", "http.listen=127.0.0.1:0", "--config"])
            .arg(self.dir.path().join("config.toml"))
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let status = eventually("the second one ends", || second.try_wait().unwrap()).await;
        (status, std::fs::read_to_string(log).unwrap())
    }

    /// Removes the last gateway from its configuration.
    pub(crate) fn forget_gateway(&self, name: &str) {
        self.configure(|text| text.split_once(&format!("[gateways.{name}]")).unwrap().0.to_owned());
    }

    /// Changes its configuration for the next start.
    pub(crate) fn change(&self, from: &str, to: &str) {
        let path = self.dir.path().join("config.toml");
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{text}");
        std::fs::write(&path, text.replace(from, to)).unwrap();
    }

    /// Its configuration.
    pub(crate) fn config_file(&self) -> PathBuf {
        self.dir.path().join("config.toml")
    }

    /// The number of its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The memory it has in use now, in bytes.
    pub(crate) fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    /// Its state directory.
    pub(crate) fn state_dir(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// Sends it a signal, as `-STOP`.
    pub(crate) fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    /// Starts its broker again, with a client that receives the bridge's first message too: the
    /// bridge is frozen until the client is subscribed.
    pub(crate) async fn broker_is_back(&self, broker: &mut Mosquitto) -> Watcher {
        self.signal("-STOP");
        broker.restart().await;
        let watcher = Watcher::start(broker.port).await;
        self.signal("-CONT");
        watcher
    }

    /// GET on its web server: status and body.
    pub(crate) async fn get(&self, path: &str) -> (u16, String) {
        let answer = tokio::time::timeout(super::PATIENCE, answer(self.http_port, path)).await;
        answer.unwrap_or_else(|_| panic!("no answer to {path}; {}", self.stands()))
    }

    /// The state of its threads and the end of its log, to explain why it does not answer.
    fn stands(&self) -> String {
        let tasks = format!("/proc/{}/task", self.pid());
        let mut said = "its threads:\n".to_owned();
        for task in std::fs::read_dir(tasks).into_iter().flatten().flatten() {
            let read = |name| std::fs::read_to_string(task.path().join(name)).unwrap_or_default();
            let [name, at, call] = ["comm", "wchan", "syscall"].map(read);
            said += &format!("{} in {at}, {}\n", name.trim(), call.trim());
        }
        let file = self.dir.path().join("log");
        // A pipe would be read without end.
        let log = if file.is_file() { self.log() } else { String::new() };
        let last: Vec<&str> = log.lines().rev().take(30).collect();
        said + "the end of its log, last line first:\n" + &last.join("\n")
    }

    /// The value of one series in the exposition.
    pub(crate) async fn metric(&self, series: &str) -> Option<f64> {
        let (_, text) = self.get("/metrics").await;
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{series} ")));
        line.map(|value| value.parse().unwrap())
    }

    /// Waits until `/readyz` answers 200.
    pub(crate) async fn is_ready(&self) {
        patiently("the bridge is ready", async {
            while self.get("/readyz").await.0 != 200 {
                tokio::time::sleep(super::LOOK_EVERY).await;
            }
        })
        .await;
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        // It may have been stopped or killed by the test already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// GET on a web server of this machine, once it listens: status and body.
pub(crate) async fn get(port: u16, path: &str) -> (u16, String) {
    patiently("the web server answers", answer(port, path)).await
}

async fn answer(port: u16, path: &str) -> (u16, String) {
    let mut stream = ask(port, path).await;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, body.to_owned())
}

/// The same, with the answer still to be read.
pub(crate) async fn ask(port: u16, path: &str) -> TcpStream {
    let mut stream = loop {
        match TcpStream::connect(("127.0.0.1", port)).await {
            Ok(stream) => break stream,
            Err(_) => tokio::time::sleep(super::LOOK_EVERY).await,
        }
    };
    let request = format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}
