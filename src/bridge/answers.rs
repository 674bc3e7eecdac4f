//! What comes back from commands: steps and ends, told, kept, and answered.
//!
//! May not run anything. A change's list is read again, its line goes to the audit log, and whoever
//! asked is answered, repeats too.

use super::Bridge;
use super::history::HistoryAnswer;
use super::running::{Asked, Begun, Finished, Word, audit, audited};
use crate::commands::{
    AnswerLimit, Command, FailureCode, Outcome, Refused, ReplayKey, Response, device_states,
};
use crate::fleet::GatewayIndex;
use crate::ids::CommandName;
use crate::mqtt;
use crate::payload::{Intent, to_bytes};
use crate::store::Key;

/// Answers of this size and above carry a short one, for a broker that refuses them as too large.
const SHORT_FROM: usize = 1_024;

impl Bridge {
    /// Takes up what a command's task tells.
    pub(super) fn commands_word(&mut self, word: Word) {
        match word {
            Word::Begins { gateway, intent, written } => {
                self.note_intent(gateway, Some(intent));
                self.requests.may_begin.push(written);
            }
            Word::Steps { gateway, steps } => {
                let intent = self.requests.desks.get_mut(gateway.0);
                let intent = intent.and_then(|desk| desk.intent.take());
                self.note_intent(gateway, intent.map(|intent| Intent { steps, ..intent }));
            }
            Word::Finished(finished) => self.finished(*finished),
            Word::History(answer) => {
                self.requests.under_way = self.requests.under_way.saturating_sub(1);
                let HistoryAnswer { owner, response, asked } = *answer;
                self.answer(&owner, &response, asked);
            }
        }
    }

    fn note_intent(&mut self, gateway: GatewayIndex, intent: Option<Intent>) {
        let Some(desk) = self.requests.desks.get_mut(gateway.0) else { return };
        let note = intent.as_ref().map(to_bytes);
        self.persistence.set(Key::Intent(desk.name.clone()), note.as_deref());
        desk.intent = intent;
    }

    /// A command has ended: its gateway is looked at, and whoever asked is answered.
    fn finished(&mut self, finished: Finished) {
        let Finished { begun, mut outcome, ran } = finished;
        let Begun { gateway, request, payload, asked, .. } = begun;
        self.requests.under_way = self.requests.under_way.saturating_sub(1);
        let now = self.clock.now();
        let Some(entry) = self.directory.gateway(gateway).cloned() else { return };
        if !self.persistence.is_durable() {
            outcome.warn_not_remembered("the bridge keeps nothing now beyond its own end");
        }
        let cut_short =
            outcome.error.as_ref().is_some_and(|error| error.code == FailureCode::Interrupted);
        if cut_short && request.name.changes() {
            let gateway = &entry.name;
            tracing::warn!(%gateway, "a change was cut short by the stop; look at its devices");
        }
        // One that is cut short is told by the next process: it may be that nobody has the answer.
        if request.command.has_steps() && ran && !cut_short {
            self.note_intent(gateway, None);
        }
        if request.command.changes() {
            let effects = std::mem::take(&mut outcome.effects);
            outcome.warnings.extend(self.command_finished(gateway, effects));
        }
        outcome.render_devices(|rows| {
            let known = |device_id| self.fleet.device(gateway, device_id);
            device_states(&self.directory, &entry, rows, now, known)
        });
        let (name, transaction) = (request.name.as_str(), request.transaction.clone());
        let (of_gateway, took) = (Some(entry.name.to_string()), asked.received.elapsed());
        let response = Response::new(name, of_gateway, transaction, outcome, took);
        if request.name.changes() {
            let ids = request.command.device_ids();
            let devices = match &request.command {
                Command::Connect(target) => target.ip.to_string(),
                _ => audited(&ids),
            };
            audit(&response, &devices, ids.len(), request.requested_by.as_deref());
            if ran {
                self.request_list(gateway);
            }
        }
        let waiting = match ReplayKey::new(&entry.name, &request, &payload) {
            None => Vec::new(),
            Some(key) => {
                let response = ran.then(|| (&response, to_bytes(&response).len()));
                self.requests.replay_cache.finish(&key, response)
            }
        };
        self.answer(entry.name.as_str(), &response, asked);
        let replayed = Response { replayed: true, ..response };
        for asked in waiting {
            if ran {
                self.answer(entry.name.as_str(), &replayed, asked);
            } else {
                // What kept the first from running, its expiry say, was its own.
                self.begin(gateway, request.clone(), payload.clone(), asked);
            }
        }
    }

    /// Answers a request that may not run.
    pub(super) fn refuse(&mut self, request: &mqtt::Request, refused: Refused) {
        self.refused(&request.owner, &request.command, refused, Asked::of(request));
    }

    pub(super) fn refused(&mut self, owner: &str, command: &str, refused: Refused, asked: Asked) {
        let Refused { transaction, failure } = refused;
        let (gateway, reason) = (owner, failure.message.as_str());
        if failure.code == FailureCode::RateLimited {
            tracing::debug!(gateway, command, code = %failure.code, "a request was refused");
        } else {
            tracing::info!(gateway, command, code = %failure.code, reason, "a request was refused");
        }
        let (outcome, took) = (Outcome::failed(failure), asked.received.elapsed());
        let gateway = Some(owner.to_owned());
        let response = Response::new(command, gateway, transaction, outcome, took);
        self.answer(owner, &response, asked);
    }

    /// Counts a request and hands its answer to the publisher.
    pub(super) fn answer(&mut self, owner: &str, response: &Response, asked: Asked) {
        let answer = asked.reply_to.clone().answer(to_bytes(response));
        let size = answer.packet_size();
        let limit = self.requests.answer_limit(self.publisher.answers_close_from());
        if size <= limit.size_max() {
            let short = || to_bytes(&response.too_large(size, AnswerLimit::Refused));
            let answer = if size < SHORT_FROM { answer } else { answer.or_short(short()) };
            return self.hand_over(owner, response, answer);
        }
        let (command, size_max) = (response.command.as_str(), limit.size_max());
        tracing::warn!(gateway = owner, command, size, size_max, "answer too large, not sent");
        let short = response.too_large(size, limit);
        let answer = asked.reply_to.answer(to_bytes(&short));
        self.hand_over(owner, &short, answer);
    }

    fn hand_over(&mut self, owner: &str, response: &Response, answer: mqtt::Answer) {
        let known = response.command.parse().map_or("unknown", CommandName::as_str);
        let topics = self.publisher.topics();
        let is_ours = topics.is_bridge(owner)
            || self.requests.desks.iter().any(|desk| desk.name.as_str() == owner);
        let owner = if is_ours { owner } else { "unknown" };
        self.metrics.command(owner, known, response.label());
        if let Err(dropped) = self.publisher.answer(answer) {
            let (command, reason) = (response.command.as_str(), dropped.as_str());
            tracing::debug!(gateway = owner, command, reason, "answer dropped");
            self.metrics.publish_failed(reason);
        }
    }
}
