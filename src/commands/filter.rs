//! Changes of the accept filter: read, change, set, read back.
//!
//! May not run beside another change of the same gateway: the pool sees to that. The wire only
//! replaces the whole filter, so a client that goes past the bridge can still undo a change; what
//! is read back shows it, and the change is made again.

use std::collections::BTreeSet;

use super::calls::Calls;
use super::failure::Failure;
use super::response::Outcome;
use super::show;
use crate::fleet::Effect;
use crate::gsdk::AcceptFilter;
use crate::ids::DeviceId;

/// How often a change is made again that another client has undone meanwhile.
const ROUNDS_MAX: usize = 3;

pub(super) async fn set(calls: &Calls, filter: &AcceptFilter) -> Result<Outcome, Failure> {
    let now = edit(calls, |now| now.clone_from(filter)).await?;
    Ok(shown(&now, Effect::Filter(filter.clone())))
}

pub(super) async fn add(calls: &Calls, ids: &BTreeSet<DeviceId>) -> Result<Outcome, Failure> {
    let now = edit(calls, |now| now.device_ids.extend(ids)).await?;
    Ok(shown(&now, Effect::Accepted(ids.clone())))
}

pub(super) async fn remove(calls: &Calls, ids: &BTreeSet<DeviceId>) -> Result<Outcome, Failure> {
    let now = edit(calls, |now| now.device_ids.retain(|id| !ids.contains(id))).await?;
    Ok(shown(&now, Effect::Unaccepted(ids.clone())))
}

pub(super) async fn allow_all(calls: &Calls, enabled: bool) -> Result<Outcome, Failure> {
    let now = edit(calls, |now| now.allow_all = enabled).await?;
    Ok(shown(&now, Effect::AllowAll(enabled)))
}

fn shown(filter: &AcceptFilter, effect: Effect) -> Outcome {
    Outcome::done(show::filter(filter)).with_effect(effect)
}

/// Makes a change and gives the filter as it is then.
pub(super) async fn edit(
    calls: &Calls,
    change: impl Fn(&mut AcceptFilter),
) -> Result<AcceptFilter, Failure> {
    let changed = |filter: &AcceptFilter| {
        let mut wanted = filter.clone();
        change(&mut wanted);
        wanted
    };
    let mut filter = calls.next()?.accept_filter().await?;
    for _ in 0..ROUNDS_MAX {
        let wanted = changed(&filter);
        if wanted == filter {
            return Ok(filter);
        }
        calls.next()?.set_accept_filter(&wanted).await?;
        filter = calls.next()?.accept_filter().await?;
    }
    if changed(&filter) == filter {
        return Ok(filter);
    }
    Err(Failure::new(
        "aborted",
        "another client changes the filter at the same time and undoes this; see to it that all \
         go through the bridge, then ask again",
    ))
}
