//! What a gateway's burst costs the events of another gateway.

use crate::Sizes;
use crate::counter::subscribe;
use crate::harness::mosquitto::Mosquitto;
use crate::process::{median, quantile};
use crate::rounds::BROKER;
use crate::source::{bridge, delays_ms, gateways, send, until};
use crate::tables::{Row, Table};

/// Changes a second of the quiet gateway.
const RATE: u64 = 500;
/// Seconds for which it is watched: about as long as the burst takes.
const SECONDS: u64 = 4;

/// A quiet gateway beside one with a burst, and alone.
pub(crate) async fn neighbours(sizes: &Sizes) -> Table {
    let broker = Mosquitto::start(BROKER).await;
    let simulators = gateways(2, sizes.devices).await;
    let arrived = subscribe(broker.port);
    let _subject = bridge(broker.port, &simulators, "", &arrived).await;
    // An even number for each device: the first change of a run differs from the last one.
    let whole = |changes: u64| changes.next_multiple_of(2 * sizes.devices as u64);
    let (burst, quiet) = (whole(sizes.burst), whole(RATE * SECONDS));
    let mut runs = [Vec::new(), Vec::new()];
    let controls = [simulators[0].control(), simulators[1].control()];
    for _ in 0..sizes.rounds {
        for (is_beside, runs) in [false, true].into_iter().zip(&mut runs) {
            let expected = arrived.events() + quiet + if is_beside { burst } else { 0 };
            arrived.times.lock().unwrap().clear();
            let storm = async {
                if is_beside {
                    send(&controls[1], burst, None).await;
                }
            };
            let (sent, ()) = tokio::join!(send(&controls[0], quiet, Some(RATE)), storm);
            until("every event has arrived", || arrived.events() >= expected).await;
            let delays = delays_ms(&sent, &arrived);
            runs.push((quantile(delays.clone(), 0.5), quantile(delays, 0.99)));
        }
    }
    let [alone, beside] = runs;
    let of =
        |runs: &[(f64, f64)], at: fn(&(f64, f64)) -> f64| median(runs.iter().map(at).collect());
    let title = format!(
        "{RATE} changes a second of a gateway beside {burst} at once of another, {} rounds",
        sizes.rounds
    );
    let mut table = Table::new("neighbours", title);
    for (what, at) in [("p50", (|run| run.0) as fn(&(f64, f64)) -> f64), ("p99", |run| run.1)] {
        let what = format!("{what} from stream to subscriber, ms (floor: alone)");
        table.row(Row::ratio(&what, of(&beside, at), of(&alone, at)));
    }
    table
}
