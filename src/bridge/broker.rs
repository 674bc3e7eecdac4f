//! The connection to the broker: its session and its faults, and when to stay away because another
//! instance of this bridge is there.

use std::future::pending;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::duplicates::DuplicateDetector;
use super::own_state::OwnState;
use super::request_subscription::RequestSubscription;
use crate::ids::Moment;
use crate::mqtt::{
    self, Connected, Connection, Event, Generation, Publisher, Refusal, RetainHandling, Session,
    View,
};
use crate::store::Outbox;

/// Events handled in one iteration.
const EVENTS_TAKEN_MAX: usize = 64;

/// The session with the broker.
#[derive(Debug)]
pub(crate) struct Broker {
    settings: mqtt::Settings,
    /// `None` while this bridge stays away.
    session: Option<Session>,
    connect_at: Option<Instant>,
    connection: Option<Connection>,
    /// Why there is no connection.
    fault: String,
    /// The fault, where it is a file of ours that is missing.
    file_missing: Option<String>,
    /// The broker keeps no retained messages, as its CONNACK or a refusal said.
    retain_unavailable: bool,
    pub(crate) duplicates: DuplicateDetector,
    pub(crate) own_state: OwnState,
    /// The subscription to requests.
    pub(crate) requests: RequestSubscription,
    /// Events that are not handled yet, the newest first.
    events: Vec<Event>,
}

impl Broker {
    /// Starts the session.
    pub(crate) fn start(settings: mqtt::Settings, instance_id: String) -> Self {
        Self {
            session: Some(mqtt::session::spawn(settings.clone())),
            settings,
            connect_at: None,
            connection: None,
            fault: "no attempt has ended yet".to_owned(),
            file_missing: None,
            retain_unavailable: false,
            duplicates: DuplicateDetector::new(instance_id),
            own_state: OwnState::default(),
            requests: RequestSubscription::default(),
            events: Vec::new(),
        }
    }

    /// Waits for events. Cancel safe.
    pub(crate) async fn wait(&mut self) {
        let Some(session) = &mut self.session else { return pending().await };
        session.next_many(&mut self.events, EVENTS_TAKEN_MAX).await;
        if self.events.is_empty() {
            // It has ended, as requested.
            self.session = None;
        }
        self.events.reverse();
    }

    /// The next event that is not handled yet.
    pub(crate) fn next_event(&mut self) -> Option<Event> {
        if self.session.is_none() {
            // They are of a session that was given up.
            self.events.clear();
        }
        self.events.pop()
    }

    /// A connection is established.
    pub(crate) fn connected(&mut self, now: Instant, connected: Connected) {
        self.file_missing = None;
        self.retain_unavailable = !connected.retain_available;
        self.connection = Some(connected.connection);
        self.duplicates.connected(now);
    }

    /// The connection has ended, or is given up: then it is returned.
    pub(crate) fn disconnected(&mut self, fault: String) -> Option<Connection> {
        self.own_state = OwnState::default();
        self.requests = RequestSubscription::default();
        self.fault = fault;
        self.connection.take()
    }

    /// The session has ended by itself. It connects again, unless another client was there before.
    pub(crate) fn make_way(&mut self, now: Instant, taken_over: bool) {
        if let Some(wait) = self.duplicates.disconnected(now, taken_over) {
            tracing::error!(?wait, "another client took over the session; trying again later");
            self.session = None;
            self.connect_at = Some(now + wait);
        }
    }

    /// Another instance has precedence: returns why, and connects again later.
    pub(crate) fn step_back(&mut self, now: Instant) -> Option<String> {
        let reason = self.duplicates.fault(now)?;
        let wait = self.duplicates.step_back();
        tracing::error!(?wait, "{reason}");
        self.connect_at = Some(now + wait);
        Some(reason)
    }

    /// An attempt to connect has failed.
    pub(crate) fn unreachable(&mut self, reason: String, file_missing: bool) {
        self.file_missing = file_missing.then(|| reason.clone());
        self.fault = reason;
    }

    pub(crate) const fn is_connected(&self) -> bool {
        self.connection.is_some()
    }

    /// Whether this is the present connection.
    pub(crate) fn is_current(&self, generation: Generation) -> bool {
        self.connection.as_ref().is_some_and(|it| it.generation() == generation)
    }

    /// The broker refuses retained messages; not every broker says so in its CONNACK.
    pub(crate) const fn retain_refused(&mut self) {
        self.retain_unavailable = true;
    }

    /// Connects again where it is time; returns whether `online` has to be published again.
    pub(crate) fn wake(&mut self, now: Instant, is_online: bool) -> bool {
        if self.connect_at.take_if(|at| *at <= now).is_some() {
            self.session = Some(mqtt::session::spawn(self.settings.clone()));
        }
        self.requests.wake(now);
        self.own_state.wake(now, is_online)
    }

    /// When there is something to do although nothing comes in.
    pub(crate) fn due(&self) -> Option<Instant> {
        let (own_state, requests) = (self.own_state.due(), self.requests.due());
        let due = [self.connect_at, self.duplicates.due(), own_state, requests];
        due.into_iter().flatten().min()
    }

    /// Why there is no connection.
    pub(crate) fn fault(&self) -> Option<&str> {
        self.connection.is_none().then_some(&self.fault)
    }

    /// The file that the connection waits for, and what to do.
    pub(crate) fn file_missing(&self) -> Option<&str> {
        self.file_missing.as_deref()
    }

    /// Whether the broker keeps no retained messages.
    pub(crate) const fn loses_retained(&self) -> bool {
        self.connection.is_some() && self.retain_unavailable
    }

    /// Subscribes to these filters in one packet.
    pub(crate) fn subscribe(&mut self, filters: Vec<(String, RetainHandling)>) {
        if let Some(connection) = &mut self.connection
            && !filters.is_empty()
            && let Err(error) = connection.subscribe(filters)
        {
            tracing::warn!("{error}");
        }
    }

    /// Subscribes to the next requests, unless an acknowledgement is awaited.
    pub(crate) fn subscribe_requests(&mut self) {
        if self.connection.is_none() {
            return;
        }
        if let Some(filters) = self.requests.next_packet() {
            let handling = RetainHandling::DoNotSendAsPublished;
            self.subscribe(filters.into_iter().map(|filter| (filter, handling)).collect());
        }
    }

    pub(crate) fn unsubscribe(&mut self, filters: Vec<String>) {
        if let Some(connection) = &mut self.connection
            && !filters.is_empty()
        {
            connection.unsubscribe(filters);
        }
    }

    /// Sends what there is to send, as far as the window goes; returns what was not sent because
    /// the broker is known to refuse it.
    pub(crate) fn send(
        &mut self,
        now: Moment,
        publisher: &mut Publisher,
        outbox: &mut Outbox,
        view: &View,
    ) -> Vec<(u64, Refusal)> {
        let mut refused = Vec::new();
        let Some(connection) = &mut self.connection else { return refused };
        while let Some((token, mut publish)) = publisher.next(now, outbox, view) {
            // Where nothing is retained, present subscribers still get it.
            publish.retain &= !self.retain_unavailable;
            if let Err(error) = connection.publish(token, publish) {
                tracing::debug!("{error}");
                // Without a refusal the connection has ended, and an event will say so.
                let Some(refusal) = error.refusal() else { break };
                refused.push((token, refusal));
            }
        }
        refused
    }

    /// Disconnects; the future waits for the end of the session.
    pub(crate) fn disconnect(&mut self, deadline: Duration) -> impl Future<Output = ()> + use<> {
        let connection = self.connection.take().map(Connection::disconnect);
        let session = connection.and_then(|()| self.session.take());
        async move {
            let Some(mut session) = session else { return };
            let ended = async { while session.next().await.is_some() {} };
            if timeout(deadline, ended).await.is_err() {
                tracing::warn!("timed out waiting for MQTT disconnect");
            }
        }
    }
}
