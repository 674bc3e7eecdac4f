//! How faults befall devices: the choice of devices, and what happens to each.
//!
//! May not touch connections or calls, nor any clock: time and chance are handed in.

use super::building::{Device, kind_of_name};
use super::fault::{Devices, Fault};
use super::gateway::{Gateway, Millis};

impl Fault {
    /// Applies a fault of devices; how many devices it befell. Any other fault does nothing.
    pub(crate) fn apply(
        &self,
        gateways: &mut [Gateway],
        now: Millis,
        rng: &mut fastrand::Rng,
    ) -> usize {
        match self {
            Self::PowerOff { devices } => {
                each(devices, gateways, rng, |gateway, id| gateway.power(now, id, false))
            }
            Self::PowerOn { devices } => {
                each(devices, gateways, rng, |gateway, id| gateway.power(now, id, true))
            }
            Self::Drop { devices } => {
                each(devices, gateways, rng, |gateway, id| gateway.drop_device(now, id))
            }
            Self::Silent { devices, status } => each(devices, gateways, rng, |gateway, id| {
                gateway.change_silently(now, id, status.0)
            }),
            Self::Tell { devices, status } => each(devices, gateways, rng, |gateway, id| {
                gateway.tell_only(now, id, status.0);
                true
            }),
            Self::Repeat { devices } => {
                each(devices, gateways, rng, |gateway, id| gateway.repeat_status(now, id))
            }
            Self::RemoveDevice { devices } => {
                each(devices, gateways, rng, |gateway, id| gateway.remove_device(now, id))
            }
            Self::DeviceNetwork { up } => all(gateways, |gateway| gateway.set_network(now, *up)),
            Self::ClockSkew { seconds } => {
                all(gateways, |gateway| gateway.set_clock_skew(seconds.saturating_mul(1_000)))
            }
            Self::Manage => all(gateways, |gateway| gateway.manage_all(now)),
            Self::AddDevice { id, kind, ip, ssl, mode } => {
                let kind = kind_of_name(kind).unwrap_or_default();
                let base = Device::new(*id, crate::proto::device::Type::Undefined, *ip);
                let device = Device { kind, ssl: *ssl, mode: *mode, ..base };
                let free = !gateways.iter().any(|gateway| gateway.knows(*id));
                let added = gateways.first_mut().filter(|_| free);
                added.is_some_and(|gateway| gateway.add_device(now, device)).into()
            }
            _ => 0,
        }
    }
}

fn all(gateways: &mut [Gateway], act: impl Fn(&mut Gateway)) -> usize {
    gateways.iter_mut().map(act).count()
}

/// Acts on each chosen device through its gateway; how many times with effect.
fn each(
    devices: &Devices,
    gateways: &mut [Gateway],
    rng: &mut fastrand::Rng,
    act: impl Fn(&mut Gateway, u32) -> bool,
) -> usize {
    let mut done = 0;
    let mut on = |place: usize, id: u32, gateways: &mut [Gateway]| {
        if gateways.get_mut(place).is_some_and(|gateway| act(gateway, id)) {
            done += 1;
        }
    };
    if let Devices::Ids(ids) = devices {
        for &id in ids {
            // An ID that nobody has goes to the first gateway, which may still tell of it.
            let place = gateways.iter().position(|gateway| gateway.knows(id)).unwrap_or(0);
            on(place, id, gateways);
        }
        return done;
    }
    let wanted = match devices {
        Devices::Kind { kind } => kind_of_name(kind),
        Devices::All | Devices::Word(_) | Devices::Ids(_) | Devices::Random { .. } => None,
    };
    let mut chosen: Vec<(usize, u32)> = Vec::new();
    for (place, gateway) in gateways.iter().enumerate() {
        let of_kind = gateway.building().filter(|one| wanted.is_none_or(|kind| one.kind == kind));
        chosen.extend(of_kind.map(|device| (place, device.id)));
    }
    if let Devices::Random { random } = devices {
        rng.shuffle(&mut chosen);
        chosen.truncate(*random);
    }
    for (place, id) in chosen {
        on(place, id, gateways);
    }
    done
}
