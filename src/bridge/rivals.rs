//! Another bridge under our name: noticed by its info, told, and never fought.
//!
//! May not end anything by itself: it says whether we are to step back. The one that started later
//! steps back, so that two that see each other never both do, nor take turns for ever.

use std::time::Duration;

use serde::Deserialize;
use tokio::time::Instant;

/// How long the later of two bridges stays away before it looks again (contract, section 1).
pub(super) const STEP_BACK: Duration = Duration::from_secs(60);
/// How long a rival that has not been heard again is still told of: until after its next look.
const TOLD_FOR: Duration = Duration::from_secs(90);

/// What a bridge's info says of who it is.
#[derive(Debug, Deserialize)]
struct Identity {
    instance_id: String,
    started_at: String,
    /// Each connection of the same instance has another.
    connected_at: Option<String>,
}

/// Who was heard under our name.
#[derive(Debug, Default)]
pub(super) struct Rivals {
    /// When our connection before this one began; `None`: there was none.
    connected_before: Option<String>,
    /// On this connection: the broker keeps another's info, and `online`.
    other_kept: bool,
    online_kept: bool,
    last: Option<(String, Instant)>,
}

/// What is to be done about an info.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is our own.
    Ourselves,
    /// It is what a bridge left that is gone, for all we know.
    Gone,
    /// Its bridge started later: it will step back.
    Stay,
    /// Its bridge was there before us.
    StepBack,
}

impl Rivals {
    /// A new connection; `before`: when the last one began.
    pub(super) fn connected(&mut self, before: Option<String>) {
        self.connected_before = before;
        (self.other_kept, self.online_kept) = (false, false);
    }

    /// A word on our own state's topic; `kept`: the broker keeps `online`.
    pub(super) const fn state_heard(&mut self, kept: bool) {
        self.online_kept |= kept;
    }

    /// What the broker keeps has been read. Returns whether another bridge may yet answer to our
    /// info: its `online` stands. One with our client ID cannot: our connection has ended its own,
    /// and its will has been published.
    pub(super) const fn memory_read(&self) -> bool {
        self.other_kept && self.online_kept
    }

    /// Takes an info on our own topic, `kept` by the broker or just published; `ours` is what we
    /// say there ourselves.
    pub(super) fn heard(
        &mut self,
        now: Instant,
        kept: bool,
        info: &[u8],
        ours: (&str, &str),
    ) -> Verdict {
        let Ok(theirs) = serde_json::from_slice::<Identity>(info) else {
            return Verdict::Gone;
        };
        let (instance_id, started_at) = ours;
        if theirs.instance_id == instance_id {
            return Verdict::Ourselves;
        }
        // Times of the contract's form compare as text; the ID decides between equals.
        let they_were_first =
            (theirs.started_at.as_str(), theirs.instance_id.as_str()) < (started_at, instance_id);
        if kept {
            self.other_kept = true;
            // Who connected since we did is alive. Others may be anyone that the broker remembers:
            // one that was killed remembers old ones.
            if self.connected_before.is_none() || theirs.connected_at <= self.connected_before {
                return Verdict::Gone;
            }
        }
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
            let heard =
                |theirs, ours| Rivals::default().heard(now, false, info(theirs).as_bytes(), ours);
            assert_eq!(heard(old, young), Verdict::StepBack);
            assert_eq!(heard(young, old), Verdict::Stay);
            assert_eq!(heard(old, old), Verdict::Ourselves);
        }
        assert_eq!(Rivals::default().heard(now, false, b"not JSON", old), Verdict::Gone);
    }

    #[test]
    fn what_the_broker_keeps_is_a_rivals_only_if_that_connected_since_we_did() {
        let now = Instant::now();
        let ours = ("us", "2026-11-23T10:00:00.000Z");
        let info = |connected_at: &str| {
            let started_at = "2026-11-23T09:00:00.000Z";
            format!(
                "{{\"instance_id\":\"x\",\"started_at\":\"{started_at}\",\
                 \"connected_at\":\"{connected_at}\"}}"
            )
        };
        let mut rivals = Rivals::default();
        let mut connect = |before: Option<&str>, kept: &str, online| {
            rivals.connected(before.map(str::to_owned));
            rivals.state_heard(online);
            let verdict = rivals.heard(now, true, info(kept).as_bytes(), ours);
            (verdict, rivals.memory_read(), rivals.reason(now).is_some())
        };
        let (gone, back) = (Verdict::Gone, Verdict::StepBack);
        assert_eq!(connect(None, "3", false), (gone, false, false), "of the run before us");
        assert_eq!(connect(None, "3", true), (gone, true, false), "its answer is waited for");
        assert_eq!(
            connect(Some("4"), "2", false),
            (gone, false, false),
            "a broker that was killed"
        );
        assert_eq!(connect(Some("4"), "5", false), (back, false, true), "it has connected since");
        assert_eq!(connect(Some("6"), "5", false), (gone, false, true));
    }
}
