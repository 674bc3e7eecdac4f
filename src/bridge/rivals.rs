//! Another bridge under our name: noticed by its info, told, and never fought.
//!
//! May not end anything by itself: it says whether we are to step back. The one that started later
//! steps back, so that two that see each other never both do, nor take turns for ever.

use std::time::Duration;

use serde::Deserialize;
use tokio::time::Instant;

/// How long the later of two bridges stays away before it looks again (contract, section 1).
pub(super) const STEP_BACK: Duration = Duration::from_secs(60);
/// How long a rival that has not been heard again is still told of.
const TOLD_FOR: Duration = Duration::from_secs(60);

/// What a bridge's info says of who it is.
#[derive(Debug, Deserialize)]
struct Identity {
    instance_id: String,
    started_at: String,
}

/// Who was heard under our name.
#[derive(Debug, Default)]
pub(super) struct Rivals {
    /// Our own info has come back over this connection: what comes now is not the broker's memory.
    echoed: bool,
    last: Option<(String, Instant)>,
}

/// What is to be done about a rival.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is no rival, but ourselves.
    Ourselves,
    /// It started later: it will step back.
    Stay,
    /// It was there before us.
    StepBack,
}

impl Rivals {
    /// A new connection.
    pub(super) const fn connected(&mut self) {
        self.echoed = false;
    }

    /// Takes an info on our own topic; `ours` is what we say there ourselves.
    pub(super) fn heard(&mut self, now: Instant, info: &[u8], ours: (&str, &str)) -> Verdict {
        let Ok(theirs) = serde_json::from_slice::<Identity>(info) else {
            return Verdict::Ourselves;
        };
        let (instance_id, started_at) = ours;
        if theirs.instance_id == instance_id {
            self.echoed = true;
            return Verdict::Ourselves;
        }
        // A retained info of the run before us, which MQTT 3.1.1 cannot keep from being sent.
        if !self.echoed {
            return Verdict::Ourselves;
        }
        // Times of the contract's form compare as text; the ID decides between equals.
        let they_were_first =
            (theirs.started_at.as_str(), theirs.instance_id.as_str()) < (started_at, instance_id);
        self.last = Some((theirs.instance_id, now));
        if they_were_first { Verdict::StepBack } else { Verdict::Stay }
    }

    /// What `/readyz` is to say, if a rival was heard lately.
    pub(super) fn reason(&self, now: Instant) -> Option<String> {
        let (instance_id, heard) = self.last.as_ref()?;
        (now.duration_since(*heard) < TOLD_FOR).then(|| {
            format!(
                "another bridge (instance {instance_id}) publishes under this name; stop one, or \
                 give one another bridge_name"
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_bridges_exactly_one_steps_back() {
        let now = Instant::now();
        let info = |(id, at): (&str, &str)| {
            format!("{{\"instance_id\":\"{id}\",\"started_at\":\"{at}\",\"x\":1}}")
        };
        let old = ("b", "2026-11-23T10:00:00.000Z");
        for young in [("a", "2026-11-23T10:00:00.001Z"), ("c", "2026-11-23T10:00:00.000Z")] {
            let heard = |theirs, ours| {
                let mut rivals = Rivals::default();
                let early = rivals.heard(now, info(theirs).as_bytes(), ours);
                assert_eq!(early, Verdict::Ourselves, "the broker's memory is no rival");
                rivals.heard(now, info(ours).as_bytes(), ours);
                rivals.heard(now, info(theirs).as_bytes(), ours)
            };
            assert_eq!(heard(old, young), Verdict::StepBack);
            assert_eq!(heard(young, old), Verdict::Stay);
            assert_eq!(heard(old, old), Verdict::Ourselves);
        }
        assert_eq!(Rivals::default().heard(now, b"not JSON", old), Verdict::Ourselves);
    }
}
