//! The task of a command: waits for its permit, runs it, and reports to the loop.

use std::collections::BTreeSet;
use std::future::pending;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tonic::Code;

use super::response::Reply;
use crate::bridge::access::GatewayAccess;
use crate::commands::{
    Calls, Data, Failure, FailureCode, Outcome, Permit, Progress, Request, Slot, run as run_on,
};
use crate::fleet::{Effect, GatewayIndex};
use crate::ids::DeviceId;
use crate::mqtt::Requester;
use crate::payload::Intent;
use crate::task::log_panic;

/// How long a running command may still take once the bridge stops. The loop waits twice as long,
/// so that the answer is sent.
const STOP_GRACE: Duration = Duration::from_secs(1);

/// What a task reports to the loop.
#[derive(Debug)]
pub(crate) enum TaskMessage {
    /// A change has done this. The first time it is nothing, and the change starts once `start` is
    /// answered: when its intent is persisted.
    Intent {
        gateway: GatewayIndex,
        intent: Intent,
        progress: Box<Progress>,
        start: Option<oneshot::Sender<()>>,
    },
    Finished(Box<Finished>),
    /// Recorded events have been read.
    History(Box<Reply>),
}

/// A command that has a slot.
#[derive(Debug)]
pub(crate) struct StartedCommand {
    pub(crate) gateway: GatewayIndex,
    pub(crate) request: Request,
    pub(crate) payload: Bytes,
    pub(crate) requester: Requester,
}

impl StartedCommand {
    /// When the time that its request gives it has passed.
    fn deadline(&self) -> Option<Instant> {
        self.request.timeout.map(|timeout| self.requester.received + timeout)
    }
}

/// A command that has ended.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) started: StartedCommand,
    pub(crate) outcome: Outcome,
    /// Whether the gateway was called at all.
    pub(crate) was_run: bool,
    /// Kept until the loop has handled the end: the gateway's next change starts after it.
    _permit: Option<Permit>,
}

impl Finished {
    pub(crate) const fn is_change(&self) -> bool {
        self.started.request.name.changes()
    }

    pub(crate) fn is_interrupted(&self) -> bool {
        let error = self.outcome.error.as_ref();
        error.is_some_and(|error| error.code == FailureCode::Interrupted)
    }

    /// Whether its intent is removed. The next process reports a change that a stop interrupted:
    /// the answer may not reach its requester.
    pub(crate) fn ends_intent(&self) -> bool {
        self.is_change() && self.was_run && !self.is_interrupted()
    }
}

/// The connections of a task to the loop.
#[derive(Clone, Debug)]
pub(crate) struct TaskContext {
    pub(crate) messages: mpsc::Sender<TaskMessage>,
    pub(crate) stop: CancellationToken,
}

impl TaskContext {
    pub(crate) async fn report(&self, message: TaskMessage) {
        // At the end of the process there is no loop.
        _ = self.messages.send(message).await;
    }

    /// Waits until the bridge stops.
    pub(crate) async fn stopped(&self) {
        self.stop.cancelled().await;
    }

    /// Waits until the bridge has stopped and a running command has had its time.
    async fn interrupted(&self) {
        self.stopped().await;
        sleep(STOP_GRACE).await;
    }
}

/// The bridge stops: the command does not start.
pub(crate) fn stopping() -> Failure {
    let message =
        "the bridge is stopping; nothing was done, send the request again after its start";
    Failure::new(FailureCode::GatewayUnavailable, message)
}

/// Waits until a request expires or its `timeout_s` has passed, whichever is earlier; returns the
/// failure, which is `timed_out` for the latter.
pub(crate) async fn expired(
    requester: &Requester,
    timeout: Option<Duration>,
    timed_out: Failure,
) -> Failure {
    let message = "the request expired before it was run; nothing was changed, send it again";
    let expiry = requester.expires_at.map(|at| (at, Failure::new(FailureCode::Expired, message)));
    let timeout = timeout.map(|timeout| (requester.received + timeout, timed_out));
    match expiry.into_iter().chain(timeout).min_by_key(|(at, _)| *at) {
        Some((at, failure)) => {
            sleep_until(at).await;
            failure
        }
        None => pending().await,
    }
}

/// Waits for the permit of a command, runs it, and reports its outcome.
pub(crate) async fn run(
    started: StartedCommand,
    kept: BTreeSet<DeviceId>,
    slot: Slot,
    access: GatewayAccess,
    context: TaskContext,
) {
    let message = "timeout_s ran out while the request waited; nothing was done, send it again or \
                   raise it";
    let timed_out = Failure::new(FailureCode::Expired, message);
    let permit = tokio::select! {
        // In this order: a request that has expired is not run, even if it is its turn.
        biased;
        failure = expired(&started.requester, started.request.timeout, timed_out) => Err(failure),
        () = context.stopped() => Err(stopping()),
        permit = slot.permit() => Ok(permit),
    };
    let client = permit.and_then(|permit| {
        let message = "the link to the gateway was lost; nothing was done, try again later";
        let failure = || Failure::new(FailureCode::GatewayUnavailable, message);
        access.client().map(|client| (client, permit)).ok_or_else(failure)
    });
    let (outcome, was_run, permit) = match client {
        Ok((client, permit)) => {
            let calls = Calls::new(client, started.deadline()).keeping(kept);
            (run_command(&started, calls, &context).await, true, Some(permit))
        }
        Err(failure) => (Outcome::failed(failure), false, None),
    };
    let finished = Finished { started, outcome, was_run, _permit: permit };
    context.report(TaskMessage::Finished(Box::new(finished))).await;
}

/// Runs a command; the intent of a change is persisted before it starts and after each step.
async fn run_command(started: &StartedCommand, calls: Calls, context: &TaskContext) -> Outcome {
    let StartedCommand { gateway, request, .. } = started;
    let (gateway, command) = (*gateway, &request.command);
    if !request.name.changes() {
        return tokio::select! {
            outcome = run_caught(run_on(command, &calls)) => outcome,
            () = context.interrupted() => interrupted(None),
        };
    }
    let first = Progress { attempted: command.effect(), ..Progress::default() };
    let intent_of = |progress: Progress, start| {
        let intent = Intent {
            command: request.name.to_string(),
            device_ids: command.device_ids(),
            requested_by: request.requested_by.clone(),
            steps: json!(progress.steps),
        };
        TaskMessage::Intent { gateway, intent, progress: Box::new(progress), start }
    };
    let (start, may_start) = oneshot::channel();
    context.report(intent_of(first.clone(), Some(start))).await;
    if may_start.await.is_err() {
        return Outcome::failed(stopping());
    }
    let (report, mut progress) = watch::channel(first);
    let calls = calls.reporting_to(report);
    let run = run_caught(run_on(command, &calls));
    let interrupt = context.interrupted();
    tokio::pin!(run, interrupt);
    loop {
        tokio::select! {
            // In this order: what is done is stored before the change is interrupted.
            biased;
            outcome = &mut run => return outcome,
            Ok(()) = progress.changed() => {
                let latest = progress.borrow_and_update().clone();
                context.report(intent_of(latest, None)).await;
            }
            () = &mut interrupt => return interrupted(Some(progress.borrow().clone())),
        }
    }
}

/// The outcome of a command when the bridge stops; of a change with what it has done.
fn interrupted(change: Option<Progress>) -> Outcome {
    let Some(Progress { steps, mut effects, attempted }) = change else {
        let message =
            "the bridge stopped before the gateway answered; repeat the request when it runs again";
        return Outcome::failed(Failure::new(FailureCode::Interrupted, message));
    };
    let message = "the bridge stopped while the gateway ran the command; what was done is not \
                   known: see what it changes once the bridge is back, and send the request again";
    let failure = Failure::new(FailureCode::Interrupted, message);
    effects.extend(attempted.map(Effect::attempted));
    let data = Data::Value(json!({ "device_ids": [], "steps": steps }));
    Outcome { data, effects, ..Outcome::failed(failure) }
}

/// Runs a command. A panic fails only this command.
pub(crate) fn run_caught(command: impl Future<Output = Outcome>) -> impl Future<Output = Outcome> {
    let done = log_panic(command);
    async move { done.await.unwrap_or_else(panicked) }
}

fn panicked() -> Outcome {
    let message = "internal error: the command task panicked; its outcome is unknown, please \
                   report this";
    let data = Data::Value(Value::Null);
    Outcome { data, ..Outcome::failed(Failure::new(Code::Internal, message)) }
}
