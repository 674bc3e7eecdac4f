//! A session with the broker that publishes and subscribes for the check, and waits for each
//! answer.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;

use crate::mqtt::{
    BrokerConnection, Connected, Publish, Refusal, RetainHandling, Session, SessionEvent,
};

/// How long the connection may take: longer than each of the session's own deadlines.
const CONNECT_DEADLINE: Duration = Duration::from_secs(25);
/// How long each answer may take after that.
const ANSWER_DEADLINE: Duration = Duration::from_secs(5);
/// How long the broker may take to send a retained message after a subscription.
const RETAINED_DEADLINE: Duration = Duration::from_secs(3);
/// The broker drops a retained message after this time if the check ends before it is cleared.
const RETAINED_EXPIRY: Duration = Duration::from_secs(60);
/// The payload of probes, which no broker refuses for its form.
pub(crate) const PAYLOAD: Bytes = Bytes::from_static(b"{}");

/// Why a publish was not accepted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProbeError {
    #[error("{0}")]
    Refused(Refusal),
    #[error("{0}")]
    NoAnswer(String),
}

impl ProbeError {
    pub(crate) fn is_unauthorized(&self) -> bool {
        matches!(self, Self::Refused(refusal) if *refusal == Refusal::NOT_AUTHORIZED)
    }
}

/// Waits for the connection.
pub(crate) async fn connected(session: &mut Session) -> Result<Connected, String> {
    let is_connected = |event| match event {
        SessionEvent::Connected(connected) => Some(connected),
        _ => None,
    };
    wait_for(session, CONNECT_DEADLINE, is_connected).await
}

/// The session once it is connected.
pub(crate) struct Probe {
    session: Session,
    connection: BrokerConnection,
    token: u64,
    /// The payload of its retained message, which another check at the same time does not have.
    retained: Bytes,
}

impl Probe {
    pub(crate) fn new(session: Session, connection: BrokerConnection) -> Self {
        let retained = format!("{{\"check\":\"{:016x}\"}}", fastrand::u64(..)).into();
        Self { session, connection, token: 0, retained }
    }

    /// Subscribes, and returns the refused filters.
    pub(crate) async fn subscribe(
        &mut self,
        filters: &[String],
    ) -> Result<Vec<(String, Refusal)>, String> {
        let filters = filters.iter().map(|filter| (filter.clone(), RetainHandling::DoNotSend));
        self.connection.subscribe(filters.collect()).map_err(|error| error.to_string())?;
        let refused = |event| match event {
            SessionEvent::Subscribed { refused, .. } => Some(refused),
            _ => None,
        };
        wait_for(&mut self.session, ANSWER_DEADLINE, refused).await
    }

    /// Publishes a message that is not retained.
    pub(crate) async fn publish(&mut self, topic: &str, payload: Bytes) -> Result<(), ProbeError> {
        self.send(Publish { topic: topic.to_owned(), payload, ..Publish::default() }).await
    }

    /// Publishes a retained message.
    pub(crate) async fn retain(&mut self, topic: &str) -> Result<(), ProbeError> {
        let payload = self.retained.clone();
        self.set_retained(topic, payload).await
    }

    /// Clears the retained message.
    pub(crate) async fn clear(&mut self, topic: &str) -> Result<(), ProbeError> {
        self.set_retained(topic, Bytes::new()).await
    }

    async fn set_retained(&mut self, topic: &str, payload: Bytes) -> Result<(), ProbeError> {
        self.send(Publish {
            topic: topic.to_owned(),
            payload,
            retain: true,
            expires_in: Some(RETAINED_EXPIRY),
            ..Publish::default()
        })
        .await
    }

    async fn send(&mut self, publish: Publish) -> Result<(), ProbeError> {
        self.token += 1;
        let token = self.token;
        let sent = self.connection.publish(token, publish);
        sent.map_err(|error| ProbeError::NoAnswer(error.to_string()))?;
        let result = |event| match event {
            SessionEvent::Acked(acks) => {
                acks.iter().find(|ack| ack.token == token).map(|ack| ack.result)
            }
            _ => None,
        };
        wait_for(&mut self.session, ANSWER_DEADLINE, result)
            .await
            .map_err(ProbeError::NoAnswer)?
            .map_err(ProbeError::Refused)
    }

    /// Whether a subscription to this filter yields the retained message of this topic. Others may
    /// publish there at the same time.
    pub(crate) async fn read_retained(&mut self, filter: &str, topic: &str) -> bool {
        if self
            .connection
            .subscribe(vec![(filter.to_owned(), RetainHandling::SendAtSubscribe)])
            .is_err()
        {
            return false;
        }
        let ours = self.retained.clone();
        let is_ours = |event| match event {
            SessionEvent::Message(it) if it.retain && it.topic == topic && it.payload == ours => {
                Some(())
            }
            _ => None,
        };
        wait_for(&mut self.session, RETAINED_DEADLINE, is_ours).await.is_ok()
    }

    /// Disconnects. After the deadline the session is dropped, and the broker publishes the will.
    pub(crate) async fn disconnect(mut self) {
        self.connection.disconnect();
        _ = timeout(ANSWER_DEADLINE, async { while self.session.next().await.is_some() {} }).await;
    }
}

/// Waits for the first event for which `pick` returns a value; fails when the connection ends.
async fn wait_for<T>(
    session: &mut Session,
    deadline: Duration,
    mut pick: impl FnMut(SessionEvent) -> Option<T>,
) -> Result<T, String> {
    let event = async {
        loop {
            match session.next().await {
                Some(
                    SessionEvent::Disconnected { reason, .. }
                    | SessionEvent::Unreachable { reason, .. },
                ) => {
                    return Err(reason);
                }
                Some(event) => {
                    if let Some(picked) = pick(event) {
                        return Ok(picked);
                    }
                }
                None => return Err("the session has ended".to_owned()),
            }
        }
    };
    let no_answer = |_| Err(format!("no answer within {} s", deadline.as_secs()));
    timeout(deadline, event).await.unwrap_or_else(no_answer)
}
