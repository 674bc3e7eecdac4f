//! Changes of the accept filter: read, change, set, read back. A gateway can only replace the whole
//! filter, so another client can overwrite a change in between; then the change is repeated.

use serde_json::json;
use tonic::Code;

use super::calls::Calls;
use super::failure::Failure;
use super::response::Outcome;
use crate::fleet::{AcceptFilter, Effect};

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
        Effect::Registered(_)
        | Effect::Unregistered(_)
        | Effect::Slaves(_)
        | Effect::Attempted(_) => {}
    }
}

/// Where a filter is.
#[derive(Clone, Copy)]
enum FilterPlace {
    Gateway,
    /// The filter that the gateway's master stores and sets again when the gateway reconnects.
    Master,
}

/// Makes a change, also of what a master stores, and returns the gateway's filter, read after it.
///
/// A master may set what it stores at the connected gateway at once. So the filter is stored first,
/// and then the gateway has the change or is still to be changed.
pub(crate) async fn edit(calls: &Calls, effect: &Effect) -> Result<AcceptFilter, Failure> {
    if calls.client()?.stored().is_none() {
        return edit_at(calls, FilterPlace::Gateway, effect).await;
    }
    let stored = edit_at(calls, FilterPlace::Master, effect).await;
    match (stored, edit_at(calls, FilterPlace::Gateway, effect).await) {
        (Ok(_), Ok(filter)) => Ok(filter),
        (Err(failure), Ok(_)) => Err(failure.not_stored()),
        (Ok(_), Err(failure)) if calls.has_changed() => Err(Failure {
            message: format!(
                "{}; the master has stored the change and makes it at the gateway's next \
                 connection, if not before",
                failure.message
            ),
            may_be_made: true,
            ..failure
        }),
        (Ok(_), Err(failure)) => Err(failure),
        (Err(stored), Err(failure)) => {
            let may_be_made = stored.may_be_made || failure.may_be_made;
            Err(Failure { may_be_made, ..failure })
        }
    }
}

/// Where this fails, nothing was changed by it.
async fn read(calls: &Calls, place: FilterPlace) -> Result<AcceptFilter, Failure> {
    let client = calls.client()?;
    let filter = match client.stored().filter(|_| matches!(place, FilterPlace::Master)) {
        Some(stored) => stored.accept_filter().await,
        None => client.accept_filter().await,
    };
    filter.map_err(|error| Failure { may_be_made: false, ..error.into() })
}

async fn write(calls: &Calls, place: FilterPlace, filter: &AcceptFilter) -> Result<(), Failure> {
    let client = calls.changing()?;
    match client.stored().filter(|_| matches!(place, FilterPlace::Master)) {
        Some(stored) => Ok(stored.set_accept_filter(filter).await?),
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
        let after_a_write = |failure: Failure| {
            let may_be_made = failure.may_be_made || attempt > 0;
            Failure { may_be_made, ..failure }
        };
        let mut changed = filter.clone();
        apply(effect, &mut changed);
        if changed == filter {
            return Ok(filter);
        }
        if attempt < ATTEMPTS_MAX {
            if matches!(place, FilterPlace::Master) {
                // What is stored may replace the gateway's filter, which must lose nothing else.
                let at_gateway = read(calls, FilterPlace::Gateway).await;
                add(&mut changed, at_gateway.map_err(after_a_write)?);
                apply(effect, &mut changed);
            }
            write(calls, place, &changed).await.map_err(after_a_write)?;
            let now = read(calls, place).await;
            filter = now.map_err(|failure| Failure { may_be_made: true, ..failure })?;
        }
    }
    Err(Failure::new(
        Code::Aborted,
        "another client changes the filter at the same time and undoes this; make all clients go \
         through the bridge, then send the request again",
    ))
}

/// Adds what another filter accepts.
fn add(filter: &mut AcceptFilter, other: AcceptFilter) {
    filter.allow_all |= other.allow_all;
    filter.device_ids.extend(other.device_ids);
    for (texts, others) in [(&mut filter.ips, other.ips), (&mut filter.subnets, other.subnets)] {
        let new: Vec<_> = others.into_iter().filter(|text| !texts.contains(text)).collect();
        texts.extend(new);
    }
}
