//! Runs one connection from CONNECT to its end: keeps the MQTT library going, and hands what it
//! receives to the bridge.
//!
//! This task only polls; the bridge's task publishes.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use super::ack_tracker::{Overdue, Subscribed};
use super::connection::{Client, Connection};
use super::event::{Connected, Event, Message, SessionHandle, Stopped};
use super::fault::{Broken, Fault, FaultContext, Problem};
use super::settings::Settings;
use super::traffic::{Granted, Traffic};

/// What the library did or received, as far as the packets do not show it.
pub(crate) enum MqttEvent {
    Message(Message),
    /// Our DISCONNECT is sent.
    Disconnected,
    Other,
}

/// The polling end of the MQTT library, of either version.
pub(crate) trait Poller: Send {
    /// The next event. It must not be cancelled: the library would lose packets.
    fn next(&mut self) -> impl Future<Output = Result<MqttEvent, Broken>> + Send;
    /// The next event that has already occurred.
    fn ready(&mut self) -> Option<MqttEvent>;
}

/// Runs one connection to its end; `None` if the session is to end as well.
pub(crate) async fn drive(
    client: Arc<dyn Client>,
    mut poller: impl Poller,
    traffic: &Traffic,
    context: &FaultContext<'_>,
    handle: &mut SessionHandle,
) -> Option<Fault> {
    let mut watchdog = Watchdog::new(context.settings());
    // Kept here too: without a client the library would end the connection.
    let mut unannounced = Some(Arc::clone(&client));
    loop {
        let next = async { poller.next().await.map_err(|broken| context.explain(broken)) };
        let first = match watchdog.watch(next, traffic, context).await {
            Ok(event) => event,
            Err(fault) => {
                deliver_answers(traffic, handle).await.ok()?;
                return Some(fault);
            }
        };
        if let Some(packet) = traffic.acks().mismatch() {
            return Some(context.fault(Problem::AckMismatch { packet }));
        }
        if let Some(Ok(granted)) = traffic.connack()
            && let Some(client) = unannounced.take()
        {
            if let Err(fault) = context.check(&granted) {
                return Some(fault);
            }
            connect(client, granted, traffic, context.settings(), handle).await.ok()?;
        }
        deliver_answers(traffic, handle).await.ok()?;
        let mut event = Some(first);
        while let Some(next) = event {
            match next {
                MqttEvent::Message(message) => {
                    handle.send(Event::Message(message)).await.ok()?;
                }
                MqttEvent::Disconnected => return None,
                MqttEvent::Other => {}
            }
            event = poller.ready();
        }
    }
}

/// The broker has accepted the connection: hands it to the bridge.
async fn connect(
    client: Arc<dyn Client>,
    granted: Granted,
    traffic: &Traffic,
    settings: &Settings,
    handle: &mut SessionHandle,
) -> Result<(), Stopped> {
    let (broker, client_id, window) = (settings.url(), &settings.client_id, granted.window);
    tracing::info!(broker, client_id, window, "connected to the broker");
    handle.connected_at = Some(Instant::now());
    let connection = Connection::new(
        handle.generation,
        client,
        granted,
        traffic.acks().clone(),
        Arc::clone(&handle.stopping),
        settings.limits.disconnect_deadline,
    );
    let connected = Connected {
        connection,
        window,
        packet_size_max: granted.packet_size_max,
        retain_available: granted.retain_available,
        certificate: handle.certificate.take(),
    };
    handle.send(Event::Connected(connected)).await
}

/// Hands the broker's answers to publishes and subscriptions to the bridge, each kind in one event.
async fn deliver_answers(traffic: &Traffic, handle: &SessionHandle) -> Result<(), Stopped> {
    let generation = handle.generation;
    for Subscribed { filters, refused } in traffic.acks().take_subscribed() {
        handle.send(Event::Subscribed { generation, filters, refused }).await?;
    }
    let acks = traffic.acks().take_acks();
    if acks.is_empty() {
        return Ok(());
    }
    handle.send(Event::Acked { generation, acks }).await
}

/// Notices a broker that is silent, or that answers pings and acknowledges nothing. The library's
/// own check needs two pings, and sends them only while nothing else is sent.
struct Watchdog {
    limit: Duration,
    alarm: Pin<Box<Sleep>>,
}

impl Watchdog {
    fn new(settings: &Settings) -> Self {
        let limit = settings.keep_alive.mul_f64(1.5);
        Self { limit, alarm: Box::pin(sleep_until(Instant::now() + limit)) }
    }

    /// The next event, or the fault that neither it nor an acknowledgement comes.
    async fn watch<T>(
        &mut self,
        next: impl Future<Output = Result<T, Fault>>,
        traffic: &Traffic,
        context: &FaultContext<'_>,
    ) -> Result<T, Fault> {
        let mut next = pin!(next);
        loop {
            tokio::select! {
                biased;
                next = &mut next => return next,
                () = self.alarm.as_mut() => {
                    let (now, after) = (Instant::now(), self.limit);
                    let silent_at = traffic.received_at() + self.limit;
                    if silent_at <= now {
                        return Err(context.fault(Problem::Silent { after }));
                    }
                    let mut due = silent_at;
                    if let Some((since, overdue)) = traffic.acks().overdue() {
                        due = due.min(since + self.limit);
                        if due <= now {
                            return Err(context.fault(match overdue {
                                Overdue::All => Problem::Unacknowledged { after },
                                Overdue::Skipped => Problem::Skipped { after },
                            }));
                        }
                    }
                    self.alarm.as_mut().reset(due);
                }
            }
        }
    }
}
