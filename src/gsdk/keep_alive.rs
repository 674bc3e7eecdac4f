//! Keep-alive by calls, for gateways and masters that reject HTTP/2 pings.

use std::time::Duration;

use tokio::time::sleep;

use super::channel::KeepAlive;
use super::connection::GrpcConnection;
use super::disconnect::Disconnect;
use super::error::Error;

/// Makes a light call, with this deadline, whenever nothing has come for an interval. Ends when the
/// other side does not answer; never where pings do this.
pub(crate) async fn by_calls<T, Answer>(
    connection: &GrpcConnection,
    call: impl Fn(Duration) -> Answer,
) -> Disconnect
where
    Answer: Future<Output = Result<T, Error>>,
{
    if connection.keep_alive() == KeepAlive::Pings {
        return std::future::pending().await;
    }
    let timing = connection.options().timing;
    loop {
        let idle = connection.activity().idle_for();
        if idle < timing.keep_alive_interval {
            sleep(timing.keep_alive_interval - idle).await;
            continue;
        }
        match call(timing.keep_alive_timeout).await {
            // Any answer shows that the other side is alive, even an error.
            Ok(_) | Err(Error::Status { .. }) => {}
            Err(Error::Deadline { .. }) => {
                if connection.activity().idle_for() >= timing.keep_alive_timeout {
                    return Disconnect::from_timeout(connection);
                }
            }
            Err(error) => return Disconnect::from_call(connection, error),
        }
    }
}
