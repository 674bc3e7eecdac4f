//! A request's command on its way: waits for its turn, runs, and comes back to the loop.
//!
//! May not touch the loop's state: these are tasks beside it.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tonic::Code;

use super::history::HistoryAnswer;
use crate::commands::{
    Calls, Command, Data, Failure, FailureCode, Outcome, Request, Response, Slot, run as run_on,
};
use crate::fleet::GatewayIndex;
use crate::gsdk::GatewayClient;
use crate::ids::DeviceId;
use crate::mqtt::{self, ReplyTo};
use crate::payload::Intent;

/// How long what runs may still take once the bridge is to stop. The drain is twice as long, so
/// that an answer gets through.
const GRACE: Duration = Duration::from_secs(1);
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
    /// Recorded events have been read.
    History(Box<HistoryAnswer>),
}

/// Every change is one line, whatever came of it.
pub(super) fn audit(response: &Response, devices: &str, count: usize, requested_by: Option<&str>) {
    let claimed = requested_by.unwrap_or("nobody");
    tracing::info!(
        gateway = response.gateway.as_deref().map(tracing::field::display),
        command = %response.command,
        devices,
        count,
        requested_by = format!("{claimed:?} (a claim)"),
        outcome = response.label(),
        "a change was asked for"
    );
}

/// Devices as the audit line names them: enough to find it by, not to fill the log.
pub(super) fn audited(ids: &BTreeSet<DeviceId>) -> String {
    let first: Vec<String> = ids.iter().take(AUDITED_MAX).map(ToString::to_string).collect();
    first.join(" ")
}

/// Nothing begins any more.
pub(super) fn stopping() -> Failure {
    let message = "the bridge is stopping; nothing was done, ask again when it is back";
    Failure::new(FailureCode::GatewayUnavailable, message)
}

/// The bridge is stopping, and what runs has had time enough to end by itself.
async fn cut_short(mut stop: watch::Receiver<bool>) {
    // Without a sender the loop is gone already.
    _ = stop.wait_for(|stop| *stop).await;
    sleep(GRACE).await;
}

/// Waits for the command's turn, runs it, and hands its outcome to the loop.
pub(super) async fn finish(
    begun: Begun,
    slot: Slot,
    clients: watch::Receiver<Option<GatewayClient>>,
    words: mpsc::Sender<Word>,
    mut stop: watch::Receiver<bool>,
) {
    let until = begun.request.timeout.map(|timeout| begun.asked.received + timeout);
    let permit = tokio::select! {
        permit = slot.permit() => Some(permit),
        _ = stop.wait_for(|stop| *stop) => None,
    };
    let now = Instant::now();
    let client = clients.borrow().clone();
    let not_run = |code, message: &str| (Outcome::failed(Failure::new(code, message)), false);
    let (outcome, ran) = match client {
        _ if permit.is_none() => (Outcome::failed(stopping()), false),
        _ if begun.asked.expires_at.is_some_and(|at| at <= now) => {
            let message =
                "the request's expiry ran out while it waited; nothing was done, ask again";
            not_run(FailureCode::Expired, message)
        }
        _ if until.is_some_and(|until| until <= now) => {
            let message = "timeout_s ran out while others went first; nothing was done, ask again \
                           or raise it";
            not_run(FailureCode::Expired, message)
        }
        None => {
            let message = "the link to the gateway was lost; nothing was done, try again later";
            not_run(FailureCode::GatewayUnavailable, message)
        }
        Some(client) => (run(&begun, Calls::new(client, until), &words, stop).await, true),
    };
    drop(permit);
    // At the end of the process nobody is there to be told.
    _ = words.send(Word::Finished(Box::new(Finished { begun, outcome, ran }))).await;
}

/// Runs a command; a change with steps is written down before it begins and as it goes.
async fn run(
    begun: &Begun,
    calls: Calls,
    words: &mpsc::Sender<Word>,
    stop: watch::Receiver<bool>,
) -> Outcome {
    let command = begun.request.command.clone();
    let changes = command.changes();
    if !command.has_steps() {
        return tokio::select! {
            outcome = run_caught(command, calls) => outcome,
            () = cut_short(stop) => interrupted(changes, json!({})),
        };
    }
    let gateway = begun.gateway;
    let intent = Intent {
        command: begun.request.name.to_string(),
        device_ids: command.device_ids(),
        requested_by: begun.request.requested_by.clone(),
        steps: json!([]),
    };
    let (written, is_written) = oneshot::channel();
    _ = words.send(Word::Begins { gateway, intent, written }).await;
    if is_written.await.is_err() {
        return Outcome::failed(stopping());
    }
    let (tell, mut told) = watch::channel(json!([]));
    let run = run_caught(command, calls.reporting_to(tell));
    let cut_short = cut_short(stop);
    tokio::pin!(run, cut_short);
    loop {
        tokio::select! {
            outcome = &mut run => return outcome,
            Ok(()) = told.changed() => {
                let steps = told.borrow_and_update().clone();
                _ = words.send(Word::Steps { gateway, steps }).await;
            }
            () = &mut cut_short => {
                let steps = told.borrow().clone();
                return interrupted(changes, json!({ "device_ids": [], "steps": steps }));
            }
        }
    }
}

/// The bridge's stop came first.
fn interrupted(changes: bool, data: Value) -> Outcome {
    let message = if changes {
        "the bridge stopped while the gateway was at it; what was done is not known: look at what \
         it changes once the bridge is back, and ask again"
    } else {
        "the bridge stopped before the gateway answered; ask again when it is back"
    };
    let failure = Failure::new(FailureCode::Interrupted, message);
    Outcome { data: Data::Value(data), ..Outcome::failed(failure) }
}

/// A panic costs a command its answer's good news, nothing else. Given up, it is ended.
async fn run_caught(command: Command, calls: Calls) -> Outcome {
    let mut task = JoinSet::new();
    task.spawn(async move { run_on(&command, &calls).await });
    if let Some(Ok(outcome)) = task.join_next().await {
        return outcome;
    }
    let message =
        "internal error: the command task panicked; its outcome is unknown, please report this";
    Outcome {
        data: Data::Value(Value::Null),
        ..Outcome::failed(Failure::new(Code::Internal, message))
    }
}
