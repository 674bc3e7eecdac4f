//! A real mosquitto as a process on a free port, which can be killed, frozen and started again.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use tempfile::TempDir;
use tokio::net::TcpStream;

use super::patiently;

/// Between two polls of the port.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// A running (or killed) mosquitto.
pub(crate) struct Mosquitto {
    /// Its port on 127.0.0.1.
    pub(crate) port: u16,
    dir: TempDir,
    child: Option<Child>,
}

impl Mosquitto {
    /// Starts one with `extra` lines of configuration, which may name files under `{dir}`. They
    /// follow the `listener` line, so they may be the listener's.
    pub(crate) async fn start(extra: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self::start_in(dir, extra).await
    }

    /// The same in a directory that already has the files of the configuration.
    pub(crate) async fn start_in(dir: TempDir, extra: &str) -> Self {
        let mut broker = Self { port: free_port(), dir, child: None };
        loop {
            broker.write_config(extra);
            broker.spawn();
            if broker.listens().await {
                return broker;
            }
            // Another process took the port in between.
            broker.port = free_port();
        }
    }

    fn write_config(&self, extra: &str) {
        let dir = self.dir.path().display().to_string();
        let anonymous =
            if extra.contains("allow_anonymous") { "" } else { "allow_anonymous true\n" };
        let text = format!(
            "user root\nlog_dest file {dir}/log\nlog_type all\npersistence_location {dir}/\n\
             {anonymous}listener {} 127.0.0.1\n{}\n",
            self.port,
            extra.replace("{dir}", &dir)
        );
        fs::write(self.config(), text).unwrap();
    }

    fn config(&self) -> PathBuf {
        self.dir.path().join("mosquitto.conf")
    }

    fn spawn(&mut self) {
        let program = if Path::new("/usr/sbin/mosquitto").exists() {
            "/usr/sbin/mosquitto"
        } else {
            "mosquitto"
        };
        let child = Command::new(program)
            .arg("-c")
            .arg(self.config())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("mosquitto must be installed (apt-get install mosquitto)");
        self.child = Some(child);
    }

    /// Waits until it listens; false if it ended instead.
    async fn listens(&mut self) -> bool {
        let port = self.port;
        let child = self.child.as_mut().unwrap();
        patiently("mosquitto listens", async {
            loop {
                if child.try_wait().unwrap().is_some() {
                    return false;
                }
                if TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_ok() {
                    return true;
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        })
        .await
    }

    /// Kills it as `kill -9` does.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Starts it again on the same port after [`Self::kill`].
    pub(crate) async fn restart(&mut self) {
        self.spawn();
        assert!(self.listens().await, "mosquitto did not start again: {}", self.log());
    }

    /// Freezes it (SIGSTOP), like a frozen machine.
    pub(crate) fn freeze(&self) {
        self.signal("-STOP");
    }

    /// Continues it after [`Self::freeze`].
    pub(crate) fn thaw(&self) {
        self.signal("-CONT");
    }

    /// Reads its configuration and access list again.
    pub(crate) fn reload(&self) {
        self.signal("-HUP");
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    /// What it logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A free port on loopback that no other test of this run gets. Below
/// the range of ports for outgoing connections.
pub(crate) fn free_port() -> u16 {
    static NEXT: OnceLock<AtomicU16> = OnceLock::new();
    let next = NEXT.get_or_init(|| AtomicU16::new(10_000 + (std::process::id() % 10_000) as u16));
    loop {
        let port = next.fetch_add(1, Ordering::Relaxed);
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}
