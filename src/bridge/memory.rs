//! What the broker keeps: read at the beginning of each connection, while nothing but our info is
//! published. So another bridge under our name is noticed before we speak in its name.
//!
//! May not decide what becomes of what is found: `rivals`, `leftovers` and `discovery` do.

use std::time::Duration;

use tokio::time::Instant;

use super::Bridge;
use crate::mqtt::{Refusal, Retained};

/// For our own info to come back: a broker that does not send it (its ACL may forbid that) does not
/// keep us from publishing.
const LOOK_MAX: Duration = Duration::from_secs(3);
/// For another bridge, which seems to be there, to answer to our info.
const ANSWER_WAIT: Duration = Duration::from_secs(2);

/// How far a reading is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    /// None is under way.
    #[default]
    Idle,
    /// The broker has been asked.
    Asked,
    /// It has answered: what it keeps comes before what it was given since, our info too.
    Answered,
    /// All of it has come, and it waits until we know that we are alone.
    Read,
}

/// The reading of this connection.
#[derive(Debug, Default)]
pub(super) struct Memory {
    stage: Stage,
    /// What was asked for.
    filters: Vec<String>,
    /// Until then only our info is published.
    look_until: Option<Instant>,
}

impl Memory {
    /// When nobody is waited for any longer.
    pub(super) const fn due(&self) -> Option<Instant> {
        self.look_until
    }
}

impl Bridge {
    /// A new connection: asks for what the broker keeps, and listens to our own topics. A last
    /// will that arrives late would stick there, and a second bridge of our name says its info.
    pub(super) fn read_memory(&mut self) {
        self.memory = Memory { look_until: Some(Instant::now() + LOOK_MAX), ..Memory::default() };
        let topics = self.publisher.topics();
        let own = topics.own().into_iter();
        let mut filters: Vec<_> = own.map(|topic| (topic, Retained::Sent)).collect();
        if self.leftovers.is_wanted() {
            let left = topics.retained_filters();
            filters.extend(left.into_iter().map(|filter| (filter, Retained::Many)));
        }
        if self.discovery.is_wanted() {
            filters.push((self.publisher.discovery_filter(), Retained::Many));
        }
        self.read(filters);
    }

    /// Asks for what the broker keeps under these filters.
    pub(super) fn read(&mut self, filters: Vec<(String, Retained)>) {
        self.memory.filters = filters.iter().map(|(filter, _)| filter.clone()).collect();
        self.memory.stage = Stage::Asked;
        if let Some(connection) = &mut self.connection
            && let Err(error) = connection.subscribe(filters)
        {
            tracing::warn!("{error}");
        }
    }

    /// The broker has answered a subscription.
    pub(super) fn memory_answered(&mut self, filters: &[String], refused: &[(String, Refusal)]) {
        if self.memory.stage != Stage::Asked || self.memory.filters != filters {
            return;
        }
        let info = self.publisher.topics().bridge_info();
        if refused.iter().any(|(filter, _)| *filter == info) {
            // It will never come back, so neither is known when all has come nor who else is there.
            self.memory.stage = Stage::Idle;
            return self.look_is_over();
        }
        self.memory.stage = Stage::Answered;
        self.publisher.bridge_info_again();
    }

    /// Our own info has come back, unmarked: so all that the broker kept before has come.
    pub(super) fn own_info_heard(&mut self) {
        if self.memory.stage != Stage::Answered {
            return;
        }
        self.memory.stage = Stage::Read;
        let own = self.publisher.topics().own();
        let mut filters = std::mem::take(&mut self.memory.filters);
        filters.retain(|filter| !own.contains(filter));
        if let Some(connection) = &mut self.connection
            && !filters.is_empty()
        {
            connection.unsubscribe(filters);
        }
        if self.rivals.memory_read() && self.memory.look_until.is_some() {
            self.memory.look_until = Some(Instant::now() + ANSWER_WAIT);
        } else {
            self.look_is_over();
        }
    }

    /// Nobody is waited for any longer.
    pub(super) fn look_is_over(&mut self) {
        if self.memory.look_until.take().is_some() {
            self.publisher.looked(&self.fleet);
        }
        if self.memory.stage == Stage::Read {
            self.memory.stage = Stage::Idle;
            self.leftovers_are_all();
            self.discovery_is_read();
        }
    }

    /// Does what is due by now.
    pub(super) fn wake_memory(&mut self, now: Instant) {
        if self.memory.look_until.is_some_and(|until| until <= now) {
            self.look_is_over();
        }
    }
}
