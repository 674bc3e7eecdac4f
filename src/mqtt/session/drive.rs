//! One connection from CONNECT to its end: keeps the MQTT library going and matches
//! acknowledgements with the tokens of their publishes.
//!
//! This task only polls: a task that also publishes would wait for itself. A token meets its packet
//! identifier by order, as the library numbers publishes in the order in which they were given to
//! it. Before an acknowledgement counts, the topic written under the identifier is compared with
//! the token's; a mismatch ends the connection rather than mark the wrong event as delivered.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::connection::{Client, Connection, Granted, SentToken};
use super::fault::Fault;
use super::packet_log::PacketLog;
use super::silence::{Overdue, Silence};
use super::{Ack, Connected, Event, Generation, Message, Settings};
use crate::certificate::Certificate;

/// Subscriptions that may wait for their packet; the loop makes a handful on each connection.
const FILTERS_MAX: usize = 64;

/// What the library did or heard.
#[derive(Debug)]
pub(super) enum MqttEvent {
    /// The broker accepted us.
    Connected(Granted),
    /// The next publish went out under this packet ID.
    Sent(u16),
    /// The broker answered a publish; the result is in the packet log.
    Acked(u16),
    /// The next subscription went out under this packet ID.
    SubscribeSent(u16),
    /// The broker answered a subscription; the results are in the packet log.
    Subscribed(u16),
    /// A message came.
    Message(Message),
    /// Something else came from the broker: it lives.
    Heard,
    /// Something else went out.
    Quiet,
    /// Our DISCONNECT went out.
    Disconnected,
}

impl MqttEvent {
    fn is_from_broker(&self) -> bool {
        match self {
            Self::Connected(_)
            | Self::Acked(_)
            | Self::Subscribed(_)
            | Self::Message(_)
            | Self::Heard => true,
            Self::Sent(_) | Self::SubscribeSent(_) | Self::Quiet | Self::Disconnected => false,
        }
    }
}

/// A polling end of the MQTT library, of either version.
pub(super) trait Wire: Send {
    /// The publishing end that goes with it; taken once.
    fn client(&self) -> Client;
    /// What its packets said.
    fn log(&self) -> PacketLog;
    /// The next thing that happens. Not to be given up half-way: the library would lose packets.
    fn next(&mut self) -> impl Future<Output = Result<MqttEvent, Fault>> + Send;
    /// The next thing that has already happened.
    fn ready(&mut self) -> Option<MqttEvent>;
}

/// How a connection ended.
#[derive(Debug)]
pub(super) enum End {
    /// We were asked to, or nobody listens any more.
    Stopped,
    /// It failed.
    Fault(Fault),
}

/// The bridge's side of one connection.
#[derive(Debug)]
pub(super) struct SessionHandle {
    generation: Generation,
    events: mpsc::Sender<Event>,
    stopping: Arc<AtomicBool>,
    connected_at: Option<Instant>,
    /// The broker's, with TLS.
    pub(super) certificate: Option<Certificate>,
    /// Publishes without an acknowledgement when the connection ended.
    pub(super) unacknowledged: usize,
}

impl SessionHandle {
    pub(super) fn new(
        generation: Generation,
        events: mpsc::Sender<Event>,
        stopping: Arc<AtomicBool>,
    ) -> Self {
        Self {
            generation,
            events,
            stopping,
            connected_at: None,
            certificate: None,
            unacknowledged: 0,
        }
    }

    /// Set when a DISCONNECT is asked for.
    pub(super) fn stopping(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.stopping)
    }

    /// When the broker accepted us, if it did.
    pub(super) fn connected_at(&self) -> Option<Instant> {
        self.connected_at
    }
}

/// Runs one connection to its end.
pub(super) async fn drive(
    mut wire: impl Wire,
    settings: &Settings,
    line: &mut SessionHandle,
) -> End {
    let mut tracker = AckTracker::new(usize::from(settings.limits.window_max), wire.log());
    let mut silence = Silence::new(settings);
    loop {
        let mut event = match silence.watch(wire.next(), tracker.overdue(), settings).await {
            Ok(event) => event,
            Err(fault) => {
                line.unacknowledged = tracker.owed;
                return End::Fault(fault);
            }
        };
        loop {
            if event.is_from_broker() {
                silence.heard();
            }
            if let Err(end) = tracker.take(event, &wire, settings, line).await {
                return end;
            }
            match wire.ready() {
                Some(next) => event = next,
                None => break,
            }
        }
        if let Err(end) = tracker.tell_acks(line).await {
            return end;
        }
    }
}

/// Which token and which filters belong to which packet ID.
struct AckTracker {
    log: PacketLog,
    tokens: mpsc::Receiver<SentToken>,
    filters: mpsc::Receiver<Vec<String>>,
    /// Handed out with the connection.
    senders: Option<(mpsc::Sender<SentToken>, mpsc::Sender<Vec<String>>)>,
    under_way: Vec<Option<SentToken>>,
    /// How many acknowledgements the broker owes.
    owed: usize,
    /// Since when it owes some and has sent none.
    owed_since: Option<Instant>,
    /// Packet identifiers and tokens in the order of sending, from the oldest one owed.
    order: VecDeque<(u16, u64)>,
    /// Since when the oldest is owed although a later one was acknowledged. MQTT wants
    /// acknowledgements in the order of the publishes, so it may never come.
    skipped_since: Option<Instant>,
    subscribing: Vec<(u16, Vec<String>)>,
    acks: Vec<Ack>,
}

impl AckTracker {
    fn new(window_max: usize, log: PacketLog) -> Self {
        let (token_sender, tokens) = mpsc::channel(window_max.max(1));
        let (filter_sender, filters) = mpsc::channel(FILTERS_MAX);
        Self {
            log,
            tokens,
            filters,
            senders: Some((token_sender, filter_sender)),
            under_way: Vec::new(),
            owed: 0,
            owed_since: None,
            order: VecDeque::new(),
            skipped_since: None,
            subscribing: Vec::new(),
            acks: Vec::new(),
        }
    }

    /// Since when an acknowledgement is overdue, with the fault that it is in the end.
    fn overdue(&self) -> Option<(Instant, Overdue)> {
        let skipped = self.skipped_since.map(|since| (since, Overdue::Skipped));
        skipped.or_else(|| self.owed_since.map(|since| (since, Overdue::All)))
    }

    async fn take(
        &mut self,
        happening: MqttEvent,
        wire: &impl Wire,
        settings: &Settings,
        line: &mut SessionHandle,
    ) -> Result<(), End> {
        match happening {
            MqttEvent::Connected(granted) => {
                self.connect(granted, wire.client(), settings, line).await
            }
            MqttEvent::Sent(packet) => self.sent(packet).await,
            MqttEvent::Acked(packet) => self.acked(packet, settings),
            MqttEvent::SubscribeSent(packet) => {
                let filters = self.filters.recv().await.ok_or(End::Stopped)?;
                self.subscribing.push((packet, filters));
                Ok(())
            }
            MqttEvent::Subscribed(packet) => self.subscribed(packet, settings, line).await,
            MqttEvent::Message(message) => tell(line, Event::Message(message)).await,
            MqttEvent::Heard | MqttEvent::Quiet => Ok(()),
            MqttEvent::Disconnected => {
                self.tell_acks(line).await?;
                Err(End::Stopped)
            }
        }
    }

    async fn connect(
        &mut self,
        granted: Granted,
        client: Client,
        settings: &Settings,
        line: &mut SessionHandle,
    ) -> Result<(), End> {
        let Some((tokens, filters)) = self.senders.take() else { return Ok(()) };
        line.connected_at = Some(Instant::now());
        let connection = Connection {
            generation: line.generation,
            client,
            granted,
            tokens,
            filters,
            stopping: Arc::clone(&line.stopping),
            disconnect_deadline: settings.limits.disconnect_deadline,
        };
        let connected = Connected {
            connection,
            window: granted.window,
            packet_size_max: granted.packet_size_max,
            retain_available: granted.retain_available,
            certificate: line.certificate.take(),
        };
        tell_connected(settings, &connected);
        tell(line, Event::Connected(connected)).await
    }

    /// The token is sent right after its publish was queued: it is there, or a moment away.
    async fn sent(&mut self, packet: u16) -> Result<(), End> {
        let token = match self.tokens.try_recv() {
            Ok(token) => Some(token),
            Err(_) => self.tokens.recv().await,
        };
        let index = usize::from(packet);
        if self.under_way.len() <= index {
            self.under_way.resize(index + 1, None);
        }
        if let Some(slot) = self.under_way.get_mut(index) {
            self.owed += usize::from(token.is_some() && slot.is_none());
            *slot = token;
        }
        self.order.extend(token.map(|sent| (packet, sent.token)));
        if self.owed > 0 {
            self.owed_since.get_or_insert_with(Instant::now);
        }
        Ok(())
    }

    fn acked(&mut self, packet: u16, settings: &Settings) -> Result<(), End> {
        let slot = self.under_way.get_mut(usize::from(packet)).and_then(Option::take);
        match (slot, self.log.puback(packet)) {
            (Some(sent), Some((result, written))) if sent.topic == written => {
                self.owed -= 1;
                self.acks.push(Ack { token: sent.token, result });
                self.note_order(sent.token);
                Ok(())
            }
            _ => Err(mismatch(settings, packet)),
        }
    }

    /// Notes whether the oldest publish was passed over by the acknowledgement of this one.
    fn note_order(&mut self, token: u64) {
        if self.order.front().is_some_and(|(_, oldest)| *oldest != token) {
            self.skipped_since.get_or_insert_with(Instant::now);
            return;
        }
        self.skipped_since = None;
        while let Some((packet, token)) = self.order.front() {
            let slot = self.under_way.get(usize::from(*packet)).copied().flatten();
            if slot.is_some_and(|sent| sent.token == *token) {
                return;
            }
            self.order.pop_front();
        }
    }

    async fn subscribed(
        &mut self,
        packet: u16,
        settings: &Settings,
        line: &SessionHandle,
    ) -> Result<(), End> {
        let results = self.log.suback(packet).ok_or_else(|| mismatch(settings, packet))?;
        let Some(index) = self.subscribing.iter().position(|(sent, _)| *sent == packet) else {
            return Ok(());
        };
        let (_, filters) = self.subscribing.swap_remove(index);
        let answered = filters.iter().zip(results);
        let refused = answered
            .filter_map(|(filter, result)| result.err().map(|refusal| (filter.clone(), refusal)))
            .collect();
        let generation = line.generation;
        tell(line, Event::Subscribed { generation, filters, refused }).await
    }

    async fn tell_acks(&mut self, line: &SessionHandle) -> Result<(), End> {
        if self.acks.is_empty() {
            return Ok(());
        }
        self.owed_since = (self.owed > 0).then(Instant::now);
        let capacity = self.acks.len();
        let acks = std::mem::replace(&mut self.acks, Vec::with_capacity(capacity));
        tell(line, Event::Acked { generation: line.generation, acks }).await
    }
}

fn mismatch(settings: &Settings, packet: u16) -> End {
    End::Fault(Fault::AckMismatch { broker: settings.url(), packet })
}

fn tell_connected(settings: &Settings, connected: &Connected) {
    tracing::info!(
        broker = settings.url(),
        client_id = settings.client_id,
        window = connected.window,
        "connected to the broker"
    );
}

async fn tell(line: &SessionHandle, event: Event) -> Result<(), End> {
    line.events.send(event).await.map_err(|_| End::Stopped)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::packet_log::topic_hash;
    use super::*;
    use crate::mqtt::session::{Limits, Protocol, Will};

    fn settings() -> Settings {
        Settings {
            host: "broker".to_owned(),
            port: 1883,
            tls: None,
            client_id: "test".to_owned(),
            username: None,
            password: None,
            protocol: Protocol::V5,
            will: Will { topic: "t".to_owned(), payload: "".into(), retain: true },
            keep_alive: Duration::from_secs(30),
            limits: Limits::default(),
            retry: crate::net::BackoffPolicy::default(),
        }
    }

    /// The library drops the first of two publishes in silence, and writes the second under packet
    /// identifier 1.
    #[test]
    fn an_acknowledgement_of_another_message_than_noted_ends_the_connection() {
        let log = PacketLog::default();
        let mut tracker = AckTracker::new(10, log.clone());
        let noted = [(7, b"t/a"), (8, b"t/b")]
            .map(|(token, topic)| SentToken { token, topic: topic_hash(topic) });
        tracker.under_way = vec![None, Some(noted[0]), Some(noted[1])];
        tracker.owed = 2;
        log.sent(b"\x32\x08\x00\x03t/b\x00\x01x").unwrap();
        log.received(4, &mut [0, 1], Protocol::V5, 30);
        let end = tracker.acked(1, &settings());
        assert!(matches!(end, Err(End::Fault(Fault::AckMismatch { packet: 1, .. }))), "{end:?}");
        assert!(tracker.acks.is_empty(), "no message counts as delivered");
    }
}
