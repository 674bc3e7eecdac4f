//! A request's command on its way: waits for its turn, runs, and comes back to the loop.
//!
//! May not touch the loop's state: these are tasks beside it.

use std::collections::BTreeSet;

use bytes::Bytes;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::commands::{Calls, Command, Data, Failure, Outcome, Place, Request, Response, code};
use crate::fleet::GatewayIndex;
use crate::gateway::GatewayClient;
use crate::ids::DeviceId;
use crate::mqtt::{self, ReplyTo};
use crate::payload::Intent;

/// How many devices an audit line names; it counts the others.
const AUDITED_MAX: usize = 20;

/// Who asked, when, and until when it matters.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) reply_to: ReplyTo,
    pub(super) received: Instant,
    pub(super) expires_at: Option<Instant>,
}

impl Asked {
    /// Of a request that is not known yet.
    pub(super) fn of(request: &mqtt::Request) -> Self {
        let (reply_to, received) = (request.reply_to.clone(), request.received);
        Self { reply_to, received, expires_at: request.expires_at }
    }
}

/// A command that has a place.
#[derive(Debug)]
pub(super) struct Begun {
    pub(super) gateway: GatewayIndex,
    pub(super) request: Request,
    pub(super) payload: Bytes,
    pub(super) asked: Asked,
}

/// A command that ended.
#[derive(Debug)]
pub(super) struct Finished {
    pub(super) begun: Begun,
    pub(super) outcome: Outcome,
    /// Whether the gateway was asked at all.
    pub(super) ran: bool,
}

/// What a command's task tells the loop.
#[derive(Debug)]
pub(super) enum Word {
    /// A change with steps is about to begin, once that is written down.
    Begins { gateway: GatewayIndex, intent: Intent, written: oneshot::Sender<()> },
    /// So far these of its steps are done.
    Steps { gateway: GatewayIndex, steps: Value },
    /// A command has ended.
    Finished(Box<Finished>),
}

/// Every change is one line, whatever came of it.
pub(super) fn audit(response: &Response, devices: &str, count: usize, requested_by: Option<&str>) {
    let claimed = requested_by.unwrap_or("nobody");
    tracing::info!(
        gateway = response.gateway,
        command = response.command,
        devices,
        count,
        requested_by = format!("{claimed:?} (a claim)"),
        outcome = response.word(),
        "a change was asked for"
    );
}

/// Devices as the audit line names them: enough to find it by, not to fill the log.
pub(super) fn audited(ids: &BTreeSet<DeviceId>) -> String {
    let first: Vec<String> = ids.iter().take(AUDITED_MAX).map(ToString::to_string).collect();
    first.join(" ")
}

/// Waits for the command's turn, runs it, and hands its outcome to the loop.
pub(super) async fn finish(
    begun: Begun,
    place: Place,
    clients: watch::Receiver<Option<GatewayClient>>,
    words: mpsc::Sender<Word>,
) {
    let until = begun.request.timeout.map(|timeout| begun.asked.received + timeout);
    let turn = place.turn().await;
    let now = Instant::now();
    let client = clients.borrow().clone();
    let (outcome, ran) = match client {
        _ if begun.asked.expires_at.is_some_and(|at| at <= now) => {
            let message = "the request's expiry ran out while it waited; nothing was done";
            (Outcome::failed(Failure::new(code::EXPIRED, message)), false)
        }
        _ if until.is_some_and(|until| until <= now) => {
            let message = "timeout_s ran out while other commands went first; nothing was done";
            (Outcome::failed(Failure::new(code::TIMEOUT, message)), false)
        }
        None => {
            let message = "the link to the gateway was lost; nothing was done, try again later";
            (Outcome::failed(Failure::new(code::GATEWAY_UNAVAILABLE, message)), false)
        }
        Some(client) => (run(&begun, Calls::new(client, until), &words).await, true),
    };
    drop(turn);
    // At the end of the process nobody is there to be told.
    _ = words.send(Word::Finished(Box::new(Finished { begun, outcome, ran }))).await;
}

/// Runs a command; a change with steps is written down before it begins and as it goes.
async fn run(begun: &Begun, calls: Calls, words: &mpsc::Sender<Word>) -> Outcome {
    let command = begun.request.command.clone();
    if !command.has_steps() {
        return run_caught(command, calls).await;
    }
    let gateway = begun.gateway;
    let intent = Intent {
        command: begun.request.name.to_string(),
        device_ids: command.device_ids(),
        requested_by: begun.request.requested_by.clone(),
        steps: Value::Array(Vec::new()),
    };
    let (written, is_written) = oneshot::channel();
    _ = words.send(Word::Begins { gateway, intent, written }).await;
    if is_written.await.is_err() {
        let message = "the bridge is stopping; nothing was done, ask again when it is back";
        return Outcome::failed(Failure::new(code::GATEWAY_UNAVAILABLE, message));
    }
    let (tell, mut told) = watch::channel(Value::Null);
    let run = run_caught(command, calls.telling(tell));
    tokio::pin!(run);
    loop {
        tokio::select! {
            outcome = &mut run => return outcome,
            Ok(()) = told.changed() => {
                let steps = told.borrow_and_update().clone();
                _ = words.send(Word::Steps { gateway, steps }).await;
            }
        }
    }
}

/// A panic costs a command its answer's good news, nothing else.
async fn run_caught(command: Command, calls: Calls) -> Outcome {
    let task = tokio::spawn(async move { crate::commands::run(&command, &calls).await });
    task.await.unwrap_or_else(|_| {
        let message = "the command died of a mistake in this program; what was done is not known";
        Outcome {
            data: Data::Json(Value::Null),
            ..Outcome::failed(Failure::new("internal", message))
        }
    })
}
