//! What the broker retains of this bridge: read at the beginning of each session and again where
//! necessary, so that stale topics can be cleared.

mod forget;
mod home_assistant;
mod scan;
mod stale_topics;

use std::time::Duration;

use tokio::time::Instant;

use crate::config::HomeAssistant;
use crate::mqtt::{Message, Publisher, RetainHandling};
use crate::payload::Directory;

pub(crate) use forget::{ForgetScan, Forgotten};
pub(crate) use home_assistant::{HomeAssistantWatch, discovery};
pub(crate) use scan::{Progress, Scan};
pub(crate) use stale_topics::StaleTopics;

/// Filters to subscribe, and how.
pub(crate) type Filters = Vec<(String, RetainHandling)>;

/// The scan of what is retained, and those that read it.
#[derive(Debug)]
pub(crate) struct RetainedTopics {
    pub(crate) scan: Scan,
    pub(crate) stale_topics: StaleTopics,
    pub(crate) home_assistant: HomeAssistantWatch,
    forget: Option<ForgetScan>,
    republish_every: Option<Duration>,
    republish_at: Option<Instant>,
}

impl RetainedTopics {
    /// `republish_every`: how often everything is published again.
    pub(crate) fn new(home_assistant: &HomeAssistant, republish_every: Option<Duration>) -> Self {
        Self {
            scan: Scan::default(),
            stale_topics: StaleTopics::default(),
            home_assistant: HomeAssistantWatch::new(home_assistant),
            forget: None,
            republish_every,
            republish_at: republish_every.map(|every| Instant::now() + every),
        }
    }

    /// A session begins; returns what to subscribe, in packets.
    pub(crate) fn connected(&mut self, now: Instant, publisher: &Publisher) -> [Filters; 2] {
        let topics = publisher.topics();
        let own = topics.own().into_iter();
        let mut filters: Filters =
            own.map(|topic| (topic, RetainHandling::SendAtSubscribe)).collect();
        if self.stale_topics.is_wanted() {
            filters.extend(many(topics.retained_filters()));
        }
        if self.home_assistant.wants_scan() {
            filters.extend(many([publisher.discovery().filter()]));
        }
        self.scan.start_session(now, names(&filters));
        let status = self.home_assistant.connected();
        let status = status.map(|topic| (topic.to_owned(), RetainHandling::DoNotSend));
        [filters, status.into_iter().collect()]
    }

    /// The session has ended, and with it the scan and the request for it.
    pub(crate) fn disconnected(&mut self) {
        self.scan = Scan::default();
        self.forget = None;
    }

    /// Takes note of a message that is not on one of the bridge's own topics.
    pub(crate) fn received(
        &mut self,
        now: Instant,
        message: &Message,
        publisher: &mut Publisher,
        directory: &Directory,
    ) {
        self.stale_topics.received(message, publisher.topics(), directory);
        self.home_assistant.received(now, message);
        if message.retain
            && publisher.content().discovery_mut().found(
                directory,
                &message.topic,
                &message.payload,
            )
        {
            self.home_assistant.stale_found();
        }
        if let Some(forget) = &mut self.forget {
            forget.received(message, publisher);
        }
    }

    /// All retained messages have been read; returns the gateway that was to be forgotten.
    pub(crate) fn read(&mut self, publisher: &mut Publisher) -> Option<Forgotten> {
        self.stale_topics.read();
        publisher.content().discovery_mut().retained_read();
        self.home_assistant.read();
        self.forget.take_if(|it| it.is_started()).map(ForgetScan::finish)
    }

    /// Forgets a gateway that is not configured, once its topics are read. Returns the request if
    /// another gateway is being forgotten.
    pub(crate) fn forget(&mut self, scan: ForgetScan) -> Option<ForgetScan> {
        if self.forget.is_some() {
            return Some(scan);
        }
        self.forget = Some(scan);
        None
    }

    /// Whether everything has to be published again now.
    pub(crate) fn take_republish(&mut self, now: Instant) -> bool {
        let is_due = self.republish_at.is_some_and(|at| at <= now);
        if is_due {
            self.republish_at = self.republish_every.map(|every| now + every);
        }
        is_due
    }

    /// What to subscribe for the next scan, if one is to start.
    pub(crate) fn next_scan(&mut self, publisher: &Publisher) -> Filters {
        if !self.scan.is_idle() {
            return Filters::new();
        }
        let filters = if self.home_assistant.take_scan_again(publisher.discovery_is_idle()) {
            vec![publisher.discovery().filter()]
        } else if let Some(forget) = self.forget.as_mut().filter(|it| !it.is_started()) {
            forget.start(publisher)
        } else {
            return Filters::new();
        };
        self.scan.start(filters.clone());
        many(filters).collect()
    }

    /// The gateway that was to be forgotten, where the broker has not answered in time.
    pub(crate) fn forget_timed_out(&mut self, now: Instant) -> Option<Forgotten> {
        self.forget.take_if(|it| it.deadline() <= now).map(ForgetScan::timed_out)
    }

    /// When there is something to do although nothing comes in.
    pub(crate) fn due(&self) -> Option<Instant> {
        let forget = self.forget.as_ref().map(ForgetScan::deadline);
        let due = [self.scan.due(), self.home_assistant.due(), forget, self.republish_at];
        due.into_iter().flatten().min()
    }
}

/// Filters that match much.
fn many(
    filters: impl IntoIterator<Item = String>,
) -> impl Iterator<Item = (String, RetainHandling)> {
    filters.into_iter().map(|filter| (filter, RetainHandling::SendManyAtSubscribe))
}

fn names(filters: &[(String, RetainHandling)]) -> Vec<String> {
    filters.iter().map(|(filter, _)| filter.clone()).collect()
}
