//! Changes of the accept filter: read, change, set, read back. A gateway can only replace the whole
//! filter, so another client can overwrite a change in between; then the change is repeated.

use serde_json::json;
use tonic::Code;

use super::calls::Calls;
use super::failure::Failure;
use super::response::Outcome;
use crate::fleet::{AcceptFilter, Effect};
use crate::gsdk::Error;

/// How often a change is made that another client undoes.
const ATTEMPTS_MAX: usize = 3;

/// Makes the change that an effect describes.
pub(crate) async fn change(calls: &Calls, effect: Effect) -> Result<Outcome, Failure> {
    let filter = edit(calls, &effect).await?;
    Ok(Outcome::done(json!(filter)).with_effect(effect))
}

fn apply(effect: &Effect, filter: &mut AcceptFilter) {
    match effect {
        Effect::Filter(wanted) => filter.clone_from(wanted),
        Effect::Accepted(ids) => filter.device_ids.extend(ids),
        Effect::Unaccepted(ids) => filter.device_ids.retain(|id| !ids.contains(id)),
        Effect::AllowAll(enabled) => filter.allow_all = *enabled,
        Effect::Registered(_) | Effect::Unregistered(_) | Effect::Slaves(_) => {}
    }
}

/// Where a filter is.
#[derive(Clone, Copy)]
enum FilterPlace {
    Gateway,
    /// The filter that the gateway's master stores and sets again when the gateway reconnects.
    Master,
}

/// Makes a change, also of what a master stores, and returns the gateway's filter after it.
pub(crate) async fn edit(calls: &Calls, effect: &Effect) -> Result<AcceptFilter, Failure> {
    let filter = edit_at(calls, FilterPlace::Gateway, effect).await?;
    if calls.client()?.stored().is_some() {
        edit_at(calls, FilterPlace::Master, effect).await?;
    }
    Ok(filter)
}

async fn read(calls: &Calls, place: FilterPlace) -> Result<AcceptFilter, Failure> {
    let client = calls.client()?;
    match client.stored().filter(|_| matches!(place, FilterPlace::Master)) {
        Some(stored) => Ok(stored.accept_filter().await.map_err(Error::not_stored)?),
        None => Ok(client.accept_filter().await?),
    }
}

async fn write(calls: &Calls, place: FilterPlace, filter: &AcceptFilter) -> Result<(), Failure> {
    let client = calls.changing()?;
    match client.stored().filter(|_| matches!(place, FilterPlace::Master)) {
        Some(stored) => Ok(stored.set_accept_filter(filter).await.map_err(Error::not_stored)?),
        None => Ok(client.set_accept_filter(filter).await?),
    }
}

async fn edit_at(
    calls: &Calls,
    place: FilterPlace,
    effect: &Effect,
) -> Result<AcceptFilter, Failure> {
    let mut filter = read(calls, place).await?;
    for attempt in 0..=ATTEMPTS_MAX {
        let mut changed = filter.clone();
        apply(effect, &mut changed);
        if changed == filter {
            return Ok(filter);
        }
        if attempt < ATTEMPTS_MAX {
            write(calls, place, &changed).await?;
            filter = read(calls, place).await?;
        }
    }
    Err(Failure::new(
        Code::Aborted,
        "another client changes the filter at the same time and undoes this; make all clients go \
         through the bridge, then send the request again",
    ))
}
