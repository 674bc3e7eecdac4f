//! `gsdk2mqtt ctl watch`: prints every status of the gateway's stream, including repeats.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use futures_util::future::OptionFuture;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};

use super::ChosenGateway;
use super::terminal::Terminal;
use crate::cli::escape::escaped;
use crate::cli::print;
use crate::fleet::{DeviceType, Status, StreamedStatus};
use crate::gsdk::{Link, LinkReport};
use crate::ids::{DeviceId, Moment};
use crate::net::wall_time;

/// Events that may wait for the terminal; a full queue ends the link, which is reported.
const QUEUE_MAX: usize = 100_000;
/// When a list that failed is requested again.
const LIST_RETRY: Duration = Duration::from_secs(2);

struct Watch {
    gateway: ChosenGateway,
    types: BTreeMap<DeviceId, DeviceType>,
    /// Whether there has been a link.
    was_linked: bool,
    /// Whether the list of this link has been printed.
    is_listed: bool,
    json: bool,
    terminal: Terminal,
}

pub(crate) async fn run(
    gateway: ChosenGateway,
    json: bool,
    timeout: Option<Duration>,
) -> anyhow::Result<ExitCode> {
    let (queue, mut events) = mpsc::channel(QUEUE_MAX);
    let (_stop, stopped) = watch::channel(false);
    let name = gateway.entry.name.clone();
    let link = gateway.target.clone().link(name, queue, stopped);
    let (terminal, types) = (Terminal::of_stdout(), BTreeMap::new());
    let mut watch = Watch { gateway, types, was_linked: false, is_listed: false, json, terminal };
    let (stop, closed) = (crate::cli::stop_signal(), crate::cli::stdout_closed());
    let timeout = OptionFuture::from(timeout.map(sleep));
    tokio::pin!(stop, closed, timeout);
    let mut list_at = None;
    loop {
        let event = tokio::select! {
            () = &mut stop => return Ok(ExitCode::SUCCESS),
            () = &mut closed => return Ok(ExitCode::SUCCESS),
            Some(()) = &mut timeout => return Ok(ExitCode::SUCCESS),
            Some((_, event)) = events.recv() => event,
            Some(()) = OptionFuture::from(list_at.map(sleep_until)) => {
                list_at = None;
                link.list_now();
                continue;
            }
        };
        if matches!(event, LinkReport::ListFailed(_)) {
            list_at = Some(Instant::now() + LIST_RETRY);
        }
        let is_usage_error = watch.is_usage_error(&event);
        let lines = watch.lines(event, &link).into_iter().map(|line| line + "\n");
        if !print(&lines.collect::<String>())? {
            return Ok(ExitCode::SUCCESS);
        }
        if is_usage_error {
            return Ok(ExitCode::from(crate::cli::EXIT_WRONG));
        }
    }
}

impl Watch {
    /// Whether the options are wrong, so that waiting for a link is useless.
    fn is_usage_error(&self, report: &LinkReport) -> bool {
        let LinkReport::Down { error, last_activity: None } = report else { return false };
        !self.was_linked && super::is_usage_error(error.code)
    }

    fn lines(&mut self, report: LinkReport, link: &Link) -> Vec<String> {
        let now = wall_time();
        match report {
            LinkReport::Up { .. } => {
                (self.was_linked, self.is_listed) = (true, false);
                link.list_now();
                vec![self.link(now, "linked", None)]
            }
            LinkReport::Down { error, last_activity: Some(_) } => {
                vec![self.link(now, "link_lost", Some(&error.to_string()))]
            }
            LinkReport::Down { error, last_activity: None } => {
                vec![self.link(now, "no_link", Some(&error.to_string()))]
            }
            LinkReport::ListFailed(error) => {
                vec![self.link(now, "list_failed", Some(&error.to_string()))]
            }
            LinkReport::Status(StreamedStatus { device_id, status, timestamp_s, .. }) => {
                // The list has the type of a connected device.
                if !self.types.contains_key(&device_id) && status.connected() == Some(true) {
                    link.list_now();
                }
                let timestamp = Moment::from_millis(i64::from(timestamp_s) * 1_000);
                vec![self.device(timestamp, device_id, status, "stream")]
            }
            LinkReport::List(rows) => {
                for row in &rows {
                    // A device that has not been connected yet has no type.
                    let device_type = row.info.device_type;
                    if !device_type.is_undefined() {
                        self.types.insert(row.device_id, device_type);
                    }
                }
                if std::mem::replace(&mut self.is_listed, true) {
                    return Vec::new();
                }
                let line = |row: &crate::fleet::Listed| {
                    self.device(now, row.device_id, row.status, "list")
                };
                rows.iter().map(line).collect()
            }
            LinkReport::ListRequested
            | LinkReport::ListNeeded
            | LinkReport::ListedByMaster(_)
            | LinkReport::AcceptFilter(_) => Vec::new(),
        }
    }

    fn device(&self, at: Moment, id: DeviceId, status: Status, source: &str) -> String {
        let name = self.gateway.entry.device_name(id, self.types.get(&id).copied());
        if self.json {
            let gateway = &self.gateway.entry.name;
            return json!({
                "timestamp": at, "gateway": gateway, "device_id": id, "name": name,
                "status": status.to_string(), "status_code": status.code(),
                "connected": status.connected(), "source": source,
            })
            .to_string();
        }
        let listed = if source == "list" { "  (listed)" } else { "" };
        let word = status.to_string();
        let status = self.terminal.coloured(&word, format!("{word:<18}"));
        format!("{at}  {id:>10}  {status}  {}{listed}", escaped(&name))
    }

    fn link(&self, at: Moment, event: &str, message: Option<&str>) -> String {
        if self.json {
            let gateway = &self.gateway.entry.name;
            let message = message.map_or(Value::Null, Value::from);
            return json!({
                "timestamp": at, "gateway": gateway, "event": event, "message": message,
            })
            .to_string();
        }
        let (who, message) = (self.gateway.peer.to_string(), message.unwrap_or_default());
        let message = escaped(message.strip_prefix(&format!("{who}: ")).unwrap_or(message));
        let event = self.terminal.coloured(event, event.replace('_', " "));
        format!("{at}  {who}: {event}  {message}").trim_end().to_owned()
    }
}
