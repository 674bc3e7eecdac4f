//! What the loop passes to the dispatcher, and what it has to do afterwards.

use super::reply::BridgeRequester;
use crate::commands::BridgeCommand;
use crate::fleet::{Fleet, GatewayIndex};
use crate::ids::{GatewayName, Moment};
use crate::payload::{Directory, LinkFacts};

/// What the dispatcher reads of the loop's other parts.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    pub(crate) fleet: &'a Fleet,
    pub(crate) directory: &'a Directory,
    pub(crate) link_facts: &'a [LinkFacts],
    pub(crate) now: Moment,
    /// The size of answers at which the broker has closed the connection.
    pub(crate) closes_from: Option<usize>,
}

/// What the loop has to do for a request.
#[derive(Debug)]
pub(crate) enum Requested {
    Nothing,
    /// A change has started at this gateway.
    Change(GatewayIndex),
    /// The loop runs this command, and answers it with `bridge_reply`.
    Bridge(BridgeCommand, Box<BridgeRequester>),
}

/// What the loop has to do for a command that has finished.
#[derive(Debug, Default)]
pub(crate) struct Completed {
    /// The change with steps that the gateway ran is over: its intent is removed from the store.
    pub(crate) intent_ended: Option<GatewayName>,
    /// The gateway's list may have changed.
    pub(crate) list_wanted: bool,
    /// A repeat of the request has started in its place.
    pub(crate) change_started: bool,
}
