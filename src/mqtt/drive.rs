//! One connection from CONNECT to its end: keeps the MQTT library going and matches
//! acknowledgements with the tokens of their publishes.
//!
//! May not publish: this task polls, and a task that does both waits for itself. Tokens and packet
//! IDs meet by order: the library numbers publishes in the order in which they were given to it.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep, sleep_until};

use super::connection::{Client, Connection, Granted};
use super::fault::Fault;
use super::refusal::Refusal;
use super::session::{Ack, Connected, Event, Generation, Message, Settings};
use crate::certificate::Certificate;

/// Subscriptions that may wait for their packet; the loop makes a handful on each connection.
const FILTERS_MAX: usize = 64;

/// What the library did or heard.
#[derive(Debug)]
pub(super) enum Happening {
    /// The broker accepted us.
    Connected(Granted),
    /// The next publish went out under this packet ID.
    Sent(u16),
    /// The broker answered a publish.
    Acked(u16, Result<(), Refusal>),
    /// The next subscription went out under this packet ID.
    SubscribeSent(u16),
    /// The broker answered a subscription, filter by filter.
    Subscribed(u16, Vec<Result<(), Refusal>>),
    /// A message came.
    Message(Message),
    /// Something else came from the broker: it lives.
    Heard,
    /// Something else went out.
    Quiet,
    /// Our DISCONNECT went out.
    Disconnected,
}

impl Happening {
    fn is_from_broker(&self) -> bool {
        match self {
            Self::Connected(_)
            | Self::Acked(..)
            | Self::Subscribed(..)
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
    /// The next thing that happens. Not to be given up half-way: the library would lose packets.
    fn next(&mut self) -> impl Future<Output = Result<Happening, Fault>> + Send;
    /// The next thing that has already happened.
    fn ready(&mut self) -> Option<Happening>;
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
pub(super) struct Line {
    generation: Generation,
    events: mpsc::Sender<Event>,
    stopping: Arc<AtomicBool>,
    connected_at: Option<Instant>,
    /// The broker's, with TLS.
    pub(super) certificate: Option<Certificate>,
}

impl Line {
    pub(super) fn new(
        generation: Generation,
        events: mpsc::Sender<Event>,
        stopping: Arc<AtomicBool>,
    ) -> Self {
        Self { generation, events, stopping, connected_at: None, certificate: None }
    }

    /// When the broker accepted us, if it did.
    pub(super) fn connected_at(&self) -> Option<Instant> {
        self.connected_at
    }
}

/// Runs one connection to its end.
pub(super) async fn drive(mut wire: impl Wire, settings: &Settings, line: &mut Line) -> End {
    let mut pairing = Pairing::new(usize::from(settings.limits.window_max));
    let mut silence = Silence::new(settings);
    loop {
        let mut happening = match silence.watch(&mut wire, pairing.owed_since, settings).await {
            Ok(happening) => happening,
            Err(fault) => return End::Fault(fault),
        };
        loop {
            if happening.is_from_broker() {
                silence.broken = true;
            }
            match pairing.take(happening, &wire, settings, line).await {
                Ok(()) => {}
                Err(Over) => return End::Stopped,
            }
            match wire.ready() {
                Some(next) => happening = next,
                None => break,
            }
        }
        if pairing.tell_acks(line).await.is_err() {
            return End::Stopped;
        }
    }
}

/// The connection is over by our own will.
struct Over;

/// Which token and which filters belong to which packet ID.
struct Pairing {
    tokens: mpsc::Receiver<u64>,
    filters: mpsc::Receiver<Vec<String>>,
    /// Handed out with the connection.
    senders: Option<(mpsc::Sender<u64>, mpsc::Sender<Vec<String>>)>,
    under_way: Vec<Option<u64>>,
    /// How many acknowledgements the broker owes.
    owed: usize,
    /// Since when it owes some and has sent none.
    owed_since: Option<Instant>,
    subscribing: Vec<(u16, Vec<String>)>,
    acks: Vec<Ack>,
}

impl Pairing {
    fn new(window_max: usize) -> Self {
        let (token_sender, tokens) = mpsc::channel(window_max.max(1));
        let (filter_sender, filters) = mpsc::channel(FILTERS_MAX);
        Self {
            tokens,
            filters,
            senders: Some((token_sender, filter_sender)),
            under_way: Vec::new(),
            owed: 0,
            owed_since: None,
            subscribing: Vec::new(),
            acks: Vec::new(),
        }
    }

    async fn take(
        &mut self,
        happening: Happening,
        wire: &impl Wire,
        settings: &Settings,
        line: &mut Line,
    ) -> Result<(), Over> {
        match happening {
            Happening::Connected(granted) => {
                self.connect(granted, wire.client(), settings, line).await
            }
            Happening::Sent(packet) => self.sent(packet).await,
            Happening::Acked(packet, result) => {
                let slot = self.under_way.get_mut(usize::from(packet));
                if let Some(token) = slot.and_then(Option::take) {
                    self.owed -= 1;
                    self.acks.push(Ack { token, result });
                }
                Ok(())
            }
            Happening::SubscribeSent(packet) => {
                let filters = self.filters.recv().await.ok_or(Over)?;
                self.subscribing.push((packet, filters));
                Ok(())
            }
            Happening::Subscribed(packet, results) => self.subscribed(packet, results, line).await,
            Happening::Message(message) => tell(line, Event::Message(message)).await,
            Happening::Heard | Happening::Quiet => Ok(()),
            Happening::Disconnected => {
                self.tell_acks(line).await?;
                Err(Over)
            }
        }
    }

    async fn connect(
        &mut self,
        granted: Granted,
        client: Client,
        settings: &Settings,
        line: &mut Line,
    ) -> Result<(), Over> {
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
    async fn sent(&mut self, packet: u16) -> Result<(), Over> {
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
        if self.owed > 0 {
            self.owed_since.get_or_insert_with(Instant::now);
        }
        Ok(())
    }

    async fn subscribed(
        &mut self,
        packet: u16,
        results: Vec<Result<(), Refusal>>,
        line: &Line,
    ) -> Result<(), Over> {
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

    async fn tell_acks(&mut self, line: &Line) -> Result<(), Over> {
        if self.acks.is_empty() {
            return Ok(());
        }
        self.owed_since = (self.owed > 0).then(Instant::now);
        let capacity = self.acks.len();
        let acks = std::mem::replace(&mut self.acks, Vec::with_capacity(capacity));
        tell(line, Event::Acked { generation: line.generation, acks }).await
    }
}

/// The broker has accepted us.
fn tell_connected(settings: &Settings, connected: &Connected) {
    tracing::info!(
        broker = settings.url(),
        client_id = settings.client_id,
        window = connected.window,
        "connected to the broker"
    );
}

async fn tell(line: &Line, event: Event) -> Result<(), Over> {
    line.events.send(event).await.map_err(|_| Over)
}

/// Watches for a broker that says nothing any more, or answers pings and acknowledges nothing. The
/// library's own check needs two pings, and only sends them when nothing else goes out.
struct Silence {
    limit: Duration,
    alarm: Pin<Box<Sleep>>,
    heard: Instant,
    /// Set when something came; the clock is read once for many.
    broken: bool,
}

impl Silence {
    fn new(settings: &Settings) -> Self {
        let limit = settings.keep_alive.mul_f64(1.5);
        let now = Instant::now();
        Self { limit, alarm: Box::pin(sleep_until(now + limit)), heard: now, broken: false }
    }

    async fn watch(
        &mut self,
        wire: &mut impl Wire,
        owed_since: Option<Instant>,
        settings: &Settings,
    ) -> Result<Happening, Fault> {
        if self.broken {
            self.broken = false;
            self.heard = Instant::now();
        }
        let mut next = pin!(wire.next());
        loop {
            tokio::select! {
                biased;
                happening = &mut next => return happening,
                () = self.alarm.as_mut() => {
                    let (broker, after, now) = (settings.url(), self.limit, Instant::now());
                    let silent_at = self.heard + self.limit;
                    let overdue_at = owed_since.map(|since| since + self.limit);
                    if silent_at <= now {
                        return Err(Fault::Silent { broker, after });
                    }
                    if overdue_at.is_some_and(|at| at <= now) {
                        return Err(Fault::Unacknowledged { broker, after });
                    }
                    let due = overdue_at.map_or(silent_at, |at| at.min(silent_at));
                    self.alarm.as_mut().reset(due);
                }
            }
        }
    }
}
