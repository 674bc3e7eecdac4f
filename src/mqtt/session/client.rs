//! Runs one connection from CONNECT to its end: writes messages and packets, reads those of the
//! broker, and detects a broker that does not react.

#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use secrecy::SecretString;
use tokio::io::split;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use super::codec;
use super::connection::{Ack, BrokerConnection, Connected, ConnectionCommand, SessionEvent};
use super::fault::{BrokenConnection, BrokerProblem, FaultContext, SessionFault};
use super::in_flight::InFlight;
use super::packet::{Granted, Packet, TooLarge};
use super::socket::{PacketReader, PacketWriter};
use crate::certificate::Certificate;
use crate::config::Mqtt;
use crate::mqtt::refusal::Refusal;
use crate::net::{ActivityClock, CountedFailure, Dialed, FailureLog};

/// How long the broker may take to close the connection after DISCONNECT.
const CLOSE_DEADLINE: Duration = Duration::from_millis(250);
/// Commands written at once.
const COMMANDS_TAKEN_MAX: usize = 1_000;

/// How a connection ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// `None`: as requested.
    pub(crate) fault: Option<SessionFault>,
    /// Since the broker has accepted it, if it has.
    pub(crate) lasted: Option<Duration>,
    pub(crate) is_unacknowledged: bool,
}

impl Ended {
    /// There was no connection.
    pub(crate) const fn failed(fault: SessionFault) -> Self {
        Self { fault: Some(fault), lasted: None, is_unacknowledged: false }
    }

    /// A mistake in this program has ended it: there may have been a connection.
    pub(crate) const fn panicked(panic: String) -> Self {
        let lasted = Some(Duration::ZERO);
        Self { fault: Some(SessionFault::Panic(panic)), lasted, is_unacknowledged: false }
    }
}

/// Ends the connection: for a reason, or as requested.
type SessionEnd = Option<SessionFault>;

/// One connection.
pub(crate) struct SessionClient<'a> {
    context: &'a FaultContext<'a>,
    events: mpsc::Sender<SessionEvent>,
    /// Set when a DISCONNECT is requested.
    stopping: Arc<AtomicBool>,
    certificate: Option<Certificate>,
    /// When something last came from the broker.
    activity: Arc<ActivityClock>,
    reader: PacketReader,
    writer: PacketWriter,
    /// Messages that were too large, by topic.
    too_large: FailureLog,
    in_flight: InFlight,
    /// Publishes that were not sent, because the broker would refuse them.
    refused: Vec<Ack>,
    connected_at: Option<Instant>,
}

impl<'a> SessionClient<'a> {
    pub(crate) fn new(
        dialed: Dialed,
        context: &'a FaultContext<'a>,
        events: mpsc::Sender<SessionEvent>,
        stopping: Arc<AtomicBool>,
    ) -> Self {
        let (reader, writer) = split(dialed.stream);
        Self {
            context,
            events,
            stopping,
            certificate: dialed.certificate,
            activity: dialed.activity,
            reader: PacketReader::new(reader),
            writer: PacketWriter::new(writer),
            too_large: FailureLog::default(),
            in_flight: InFlight::default(),
            refused: Vec::new(),
            connected_at: None,
        }
    }

    /// Runs the connection to its end.
    pub(crate) async fn run(mut self, password: Option<&SecretString>) -> Ended {
        let fault = match self.exchange(password).await {
            Ok(never) => match never {},
            Err(fault) => fault,
        };
        let lasted = self.connected_at.map(|at| at.elapsed());
        Ended { fault, lasted, is_unacknowledged: !self.in_flight.is_empty() }
    }

    async fn exchange(
        &mut self,
        password: Option<&SecretString>,
    ) -> Result<Infallible, SessionEnd> {
        let limits = self.context.settings().limits;
        let connected = timeout(limits.connack_deadline, self.connect(password)).await;
        let granted = connected.unwrap_or_else(|_| Err(self.context.no_connack()))?;
        let keep_alive = self.context.settings().ping_interval(granted.keep_alive);
        let mut commands = self.announce(granted).await?;
        // More than the CONNACK may have come.
        self.receive().await?;
        let (mut batch, mut is_open) = (Vec::new(), true);
        let mut stop_at = None;
        let mut alarm = pin!(sleep(Duration::ZERO));
        loop {
            if stop_at.is_some_and(|at| self.in_flight.is_empty() || at <= Instant::now()) {
                self.close().await;
                return Err(None);
            }
            tokio::select! {
                biased;
                flushed = self.writer.flush(), if self.writer.has_output() => {
                    flushed.map_err(|error| self.fault(BrokenConnection::Io(error)))?;
                }
                count = commands.recv_many(&mut batch, COMMANDS_TAKEN_MAX), if is_open => {
                    let now = Instant::now();
                    batch.drain(..).try_for_each(|command| self.write(now, &granted, command))?;
                    self.receive().await?;
                    is_open = count > 0;
                    if !is_open && self.stopping.load(Ordering::Relaxed) {
                        let at = now + limits.disconnect_deadline;
                        stop_at = Some(at);
                        alarm.as_mut().reset(at);
                    }
                }
                () = alarm.as_mut() => {
                    let due = self.wake(Instant::now(), keep_alive)?;
                    alarm.as_mut().reset(stop_at.map_or(due, |at: Instant| at.min(due)));
                }
                read = self.reader.read() => {
                    self.check_read(read)?;
                    self.receive().await?;
                }
            }
        }
    }

    /// Sends DISCONNECT, and waits until the broker closes the connection. To close it first would
    /// reset it where something is unread, and a broker that notices this while it sends, before it
    /// has read DISCONNECT, publishes the last will.
    async fn close(&mut self) {
        self.writer.disconnect().await;
        // It need not close it.
        _ = timeout(CLOSE_DEADLINE, self.reader.discard_all()).await;
    }

    /// Sends CONNECT, and waits for the CONNACK.
    async fn connect(&mut self, password: Option<&SecretString>) -> Result<Granted, SessionFault> {
        let written = codec::connect(self.context.settings(), password, self.writer.buffer());
        written.map_err(|why| self.fault(BrokenConnection::Protocol(why)))?;
        self.writer.flush().await.map_err(|error| self.fault(BrokenConnection::Io(error)))?;
        loop {
            let read = self.reader.read().await;
            if let Some(problem) = self.reader.other_protocol() {
                return Err(self.context.fault(problem));
            }
            self.check_read(read)?;
            match self.next_packet()? {
                None => {}
                Some(Packet::Connack(Ok(granted))) => {
                    self.context.check(&granted)?;
                    let window = granted.window.min(self.context.settings().limits.window_max);
                    return Ok(Granted { window, ..granted });
                }
                Some(Packet::Connack(Err(reason))) => return Err(self.context.refused(&reason)),
                Some(_) => {
                    let why = "it answered CONNECT with another packet".to_owned();
                    return Err(self.fault(BrokenConnection::Protocol(why)));
                }
            }
        }
    }

    /// The broker has accepted the connection: hands it to the bridge.
    async fn announce(
        &mut self,
        granted: Granted,
    ) -> Result<mpsc::Receiver<ConnectionCommand>, SessionEnd> {
        let Mqtt { broker, client_id, .. } = &self.context.settings().mqtt;
        let (broker, window) = (broker.to_string(), granted.window);
        tracing::info!(broker, client_id, window, "connected to the broker");
        self.connected_at = Some(Instant::now());
        let (connection, commands) = BrokerConnection::new(granted, Arc::clone(&self.stopping));
        let connected = Connected { connection, certificate: self.certificate.take() };
        self.send(SessionEvent::Connected(connected)).await?;
        Ok(commands)
    }

    fn write(
        &mut self,
        now: Instant,
        granted: &Granted,
        command: ConnectionCommand,
    ) -> Result<(), SessionFault> {
        if let ConnectionCommand::Publish { token, publish } = &command
            && let Some(refusal) = publish.refusal(granted)
        {
            self.refused.push(Ack { token: *token, result: Err(refusal) });
            return Ok(());
        }
        let (protocol, out) = (self.context.settings().mqtt.protocol, self.writer.buffer());
        let in_flight = &mut self.in_flight;
        let packet_id = match &command {
            ConnectionCommand::Publish { token, .. } => in_flight.publish(now, *token),
            ConnectionCommand::Subscribe(filters) => {
                let filters = filters.iter().map(|(filter, _)| filter.clone()).collect();
                in_flight.subscribe(now, filters)
            }
            ConnectionCommand::Unsubscribe(_) => in_flight.next_packet_id(None),
        };
        let Some(packet_id) = packet_id else {
            let after = self.context.settings().silence_max();
            return Err(self.context.fault(BrokerProblem::Skipped { after }));
        };
        let written = codec::command(protocol, packet_id, command, out);
        written.map_err(|why| self.fault(BrokenConnection::Protocol(why)))
    }

    /// Sends a ping where nothing was sent for long; returns when to look again. Ends the
    /// connection to a broker that is silent, or that answers pings and not what else is sent.
    fn wake(&mut self, now: Instant, keep_alive: Duration) -> Result<Instant, SessionFault> {
        let after = self.context.settings().silence_max();
        let silent_at = self.activity.last_activity() + after;
        if silent_at <= now {
            return Err(self.context.fault(BrokerProblem::Silent { after }));
        }
        let overdue_at = self.in_flight.waiting_since().map(|since| since + after);
        if overdue_at.is_some_and(|at| at <= now) {
            return Err(self.context.fault(match self.in_flight.is_skipped() {
                true => BrokerProblem::Skipped { after },
                false => BrokerProblem::Unacknowledged { after },
            }));
        }
        let unanswered_at = self.in_flight.subscribing_since().map(|since| since + after);
        if unanswered_at.is_some_and(|at| at <= now) {
            return Err(self.context.fault(BrokerProblem::SubscriptionUnanswered { after }));
        }
        let ping_at = self.writer.ping(now, keep_alive);
        let due = [overdue_at, unanswered_at, Some(silent_at), Some(ping_at)];
        Ok(due.into_iter().flatten().min().unwrap_or(ping_at))
    }

    /// Hands what has come, and what was refused, to the bridge, also if it ends the connection.
    async fn receive(&mut self) -> Result<(), SessionEnd> {
        let (mut acks, mut others) = (std::mem::take(&mut self.refused), Vec::new());
        let ended = self.read_packets(&mut acks, &mut others);
        if !acks.is_empty() {
            self.send(SessionEvent::Acked(acks)).await?;
        }
        for event in others {
            self.send(event).await?;
        }
        Ok(ended?)
    }

    /// Reads the packets that are complete, until one that ends the connection. The answers to
    /// publishes are collected apart, for one event.
    fn read_packets(
        &mut self,
        acks: &mut Vec<Ack>,
        others: &mut Vec<SessionEvent>,
    ) -> Result<(), SessionFault> {
        let (now, protocol) = (Instant::now(), self.context.settings().mqtt.protocol);
        while let Some(packet) = self.next_packet()? {
            match packet {
                Packet::Publish(publish) => {
                    let read = codec::message(protocol, publish);
                    let (message, packet_id) =
                        read.map_err(|why| self.fault(BrokenConnection::Protocol(why)))?;
                    if packet_id != 0 {
                        codec::puback(packet_id, self.writer.buffer());
                    }
                    self.in_flight.message_received(now);
                    others.push(SessionEvent::Message(message));
                }
                Packet::TooLarge(TooLarge { topic, packet_id, size }) => {
                    if packet_id != 0 {
                        codec::puback(packet_id, self.writer.buffer());
                    }
                    self.in_flight.message_received(now);
                    let CountedFailure { times, is_due } = self.too_large.count(&topic);
                    if is_due {
                        tracing::warn!(topic, size, times, "message too large; ignored");
                    }
                }
                Packet::Puback { packet_id, code } => {
                    let token = self.in_flight.acknowledge(now, packet_id);
                    let unknown = || self.context.fault(BrokerProblem::AckMismatch { packet_id });
                    let token = token.ok_or_else(unknown)?;
                    acks.push(Ack { token, result: Refusal::from_code(code) });
                }
                Packet::Suback { packet_id, codes } => {
                    others.extend(self.in_flight.subscribed(packet_id, &codes));
                }
                Packet::Disconnect(reason) => return Err(self.context.ended(&reason)),
                Packet::Connack(_) | Packet::Other => {}
            }
        }
        Ok(())
    }

    async fn send(&self, event: SessionEvent) -> Result<(), SessionEnd> {
        self.events.send(event).await.map_err(|_| None)
    }

    fn next_packet(&mut self) -> Result<Option<Packet>, SessionFault> {
        let settings = self.context.settings();
        let read = self.reader.next_packet(settings.mqtt.protocol, settings.incoming_max());
        read.map_err(|why| self.fault(BrokenConnection::Protocol(why)))
    }

    /// Whether reading has brought anything.
    fn check_read(&self, read: io::Result<usize>) -> Result<(), SessionFault> {
        match read {
            Ok(0) => Err(self.fault(BrokenConnection::Closed)),
            Ok(_) => Ok(()),
            Err(error) => Err(self.fault(BrokenConnection::Io(error))),
        }
    }

    fn fault(&self, broken: BrokenConnection) -> SessionFault {
        self.context.explain(broken, self.connected_at.is_some())
    }
}
