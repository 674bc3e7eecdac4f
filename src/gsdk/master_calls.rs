//! The calls of a link to a master beside its streams. They run in parallel, and the link handles
//! their results.

use tokio::task::{JoinError, JoinSet};

use super::error::Error;
use super::types::ListedGateway;
use crate::fleet::{AcceptFilter, GatewayIndex, Listed};

/// The result of a call. A list belongs to the link of its gateway with this number.
pub(crate) enum CallResult {
    List(GatewayIndex, u64, Result<Vec<Listed>, Error>),
    Filter(GatewayIndex, u64, Result<AcceptFilter, Error>),
    /// With the number of gateway statuses read when it was requested.
    Gateways(u64, Result<Vec<ListedGateway>, Error>),
    /// Whether there is another token.
    Renewed(Result<bool, Error>),
}

/// The result of the next call that ends; `None` if none runs. A panic of a call continues here.
/// Cancel safe.
pub(crate) async fn next_result(calls: &mut JoinSet<CallResult>) -> Option<CallResult> {
    match calls.join_next().await?.map_err(JoinError::try_into_panic) {
        Ok(result) => Some(result),
        Err(Ok(panic)) => std::panic::resume_unwind(panic),
        Err(Err(_)) => None,
    }
}
