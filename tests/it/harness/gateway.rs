//! The simulated gateway as a separate process, which can be killed and started again on the same
//! port.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::bridge::{PROGRAM, get};
use super::mosquitto::free_port;

/// A running (or killed) gateway, all of whose devices are managed at each of its starts.
pub(crate) struct Gateway {
    devices: usize,
    port: u16,
    control_port: u16,
    certificates: TempDir,
    child: Child,
}

impl Gateway {
    /// Starts one and waits until it answers.
    pub(crate) async fn start(devices: usize) -> Self {
        let certificates = tempfile::tempdir().unwrap();
        let (port, control_port) = (free_port(), free_port());
        let child = spawn(devices, port, control_port, &certificates);
        let gateway = Self { devices, port, control_port, certificates, child };
        gateway.statuses().await;
        gateway
    }

    /// Kills it with `kill -9`: it loses its state.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again on the same port after [`Self::kill`].
    pub(crate) fn restart(&mut self) {
        self.child = spawn(self.devices, self.port, self.control_port, &self.certificates);
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// The root of its certificate.
    pub(crate) fn ca_file(&self) -> PathBuf {
        self.certificates.path().join("ca.crt")
    }

    /// The address of the control API.
    pub(crate) const fn control_port(&self) -> u16 {
        self.control_port
    }

    /// The current rows of its list.
    pub(crate) async fn statuses(&self) -> BTreeMap<u32, i64> {
        let (_, body) = get(self.control_port, "/devices").await;
        let devices: Vec<Value> = serde_json::from_str(&body).unwrap();
        let listed = devices.iter().filter(|device| device["managed"].is_object());
        let status = |device: &Value| {
            let id = u32::try_from(device["device_id"].as_u64().unwrap()).unwrap();
            (id, device["managed"]["status_code"].as_i64().unwrap())
        };
        listed.map(status).collect()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // It may have been killed by the test already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(devices: usize, port: u16, control_port: u16, certificates: &TempDir) -> Child {
    Command::new(PROGRAM)
        .args(["simulate", "--manage", "--reconnect-interval", "0.05", "--dial-interval", "0.05"])
        .args(["--keep-alive", "1", "--devices", &devices.to_string()])
        .args(["--listen", &format!("127.0.0.1:{port}")])
        .args(["--control", &format!("127.0.0.1:{control_port}")])
        .arg("--certs")
        .arg(certificates.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Requests a fault at a gateway's control API and waits for its end. Fails if the API is not
/// available, or the gateway is killed meanwhile.
pub(crate) async fn order(control_port: u16, fault: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", control_port)).await?;
    let request = format!(
        "POST /fault HTTP/1.0\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{fault}",
        fault.len()
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}
