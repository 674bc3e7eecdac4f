//! The devices that changed since the status page's last query.

use std::collections::BTreeSet;

use crate::fleet::{Fleet, GatewayIndex};
use crate::http::{CHANGES_MAX, ChangedStates};
use crate::ids::DeviceId;

/// The state of the page that is kept in the event loop.
#[derive(Debug, Default)]
pub(crate) struct StatusPage {
    /// `None` once they are too many to be reported one by one.
    changed: Option<BTreeSet<(GatewayIndex, DeviceId)>>,
}

impl StatusPage {
    pub(crate) fn device_changed(&mut self, gateway: GatewayIndex, device_id: DeviceId) {
        if let Some(changed) = &mut self.changed {
            changed.insert((gateway, device_id));
            if changed.len() > CHANGES_MAX {
                self.changed = None;
            }
        }
    }

    /// A device is forgotten: the page is loaded again, without its row.
    pub(crate) fn device_removed(&mut self) {
        self.changed = None;
    }

    /// The devices that changed since the previous call; too many at the first.
    pub(crate) fn take_changes(&mut self, fleet: &Fleet) -> ChangedStates {
        let Some(changed) = self.changed.replace(BTreeSet::new()) else {
            return ChangedStates::TooMany;
        };
        let state = |(gateway, id)| Some((gateway, fleet.device(gateway, id)?));
        let devices = changed.into_iter().filter_map(state);
        ChangedStates::Devices(devices.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_many_changes_and_a_removed_device_are_not_listed() {
        let now = crate::ids::Moment::from_millis(0);
        let clock = crate::ids::SteadyClock::new(std::time::Instant::now(), now);
        let (mut page, fleet) = (StatusPage::default(), Fleet::new(clock));
        let gateway = GatewayIndex(0);
        assert!(matches!(page.take_changes(&fleet), ChangedStates::TooMany));
        let mut change = |count| {
            for id in (1..).take(count) {
                page.device_changed(gateway, DeviceId::new(id).unwrap());
            }
            page.take_changes(&fleet)
        };
        assert!(matches!(change(CHANGES_MAX), ChangedStates::Devices(_)));
        assert!(matches!(change(CHANGES_MAX + 1), ChangedStates::TooMany));
        assert!(matches!(change(0), ChangedStates::Devices(_)));
        page.device_removed();
        assert!(matches!(page.take_changes(&fleet), ChangedStates::TooMany));
    }
}
