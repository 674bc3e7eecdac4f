//! The gRPC services of devices, method by method. Their requests name the device and no gateway,
//! also with a master.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use serde::Deserialize;
use tokio_stream::StreamExt;
use tonic::Status;

use super::call::{Answering, Call};
use super::gateway::Logs;
use super::messages::for_each;
use super::site::{SiteDevice, kind_name};
use super::world::World;
use crate::proto::device::*;
use crate::proto::event::*;

/// What devices of a type have in common.
#[derive(Deserialize)]
struct Model {
    name: String,
    /// The newest: major, minor and patch.
    firmware: [u8; 3],
    users: u32,
    /// Words of `capabilities`.
    features: BTreeSet<String>,
}

/// By the name of the type.
static MODELS: LazyLock<BTreeMap<String, Model>> =
    LazyLock::new(|| toml::from_str(include_str!("models.toml")).unwrap_or_default());
/// One in so many devices has the firmware before the newest.
const OLDER_FIRMWARE_EVERY: u32 = 8;
/// A MAC address begins with the maker's number.
const MAKER: [u8; 3] = [0x00, 0x17, 0xfc];

/// Acts on a device that is connected to its gateway and answers, and on the logs of that gateway.
fn at_device<R>(
    world: &World,
    id: u32,
    act: impl FnOnce(&SiteDevice, &mut Logs) -> R,
) -> Result<R, Status> {
    world.try_with_manager(id, |gateway, _| {
        let device = gateway.connections().responding(id)?.clone();
        Ok(act(&device, gateway.connections_mut().logs_mut()))
    })
}

/// `gsdk.device.Device`.
pub(crate) fn device<'a>(world: &'a World, method: &str, call: Call) -> Option<Answering<'a>> {
    Some(match method {
        "GetInfo" => call.answer(|r: GetInfoRequest| {
            let info = at_device(world, r.device_id, |device, _| factory_info(device))?;
            Ok(GetInfoResponse { info: Some(info) })
        }),
        "GetCapabilityInfo" => call.answer(|r: GetCapabilityInfoRequest| {
            let info = at_device(world, r.device_id, |device, _| capabilities(device))?;
            Ok(GetCapabilityInfoResponse { cap_info: Some(info) })
        }),
        _ => return None,
    })
}

/// `gsdk.event.Event`.
pub(crate) fn event<'a>(world: &'a World, method: &str, call: Call) -> Option<Answering<'a>> {
    let package = call.package();
    let on = method.starts_with("Enable");
    let monitor = move |id| at_device(world, id, |_, logs| logs.monitor(id, on));
    Some(match method {
        "EnableMonitoring" | "DisableMonitoring" => {
            call.answer(move |r: EnableMonitoringRequest| monitor(r.device_id))
        }
        "EnableMonitoringMulti" | "DisableMonitoringMulti" => {
            call.answer(move |r: EnableMonitoringMultiRequest| {
                for_each(r.device_i_ds, package, monitor)
            })
        }
        "GetLog" => call.answer(|r: GetLogRequest| {
            let events = at_device(world, r.device_id, |_, logs| {
                logs.of(r.device_id, r.start_event_id, r.max_num_of_log)
            })?;
            Ok(GetLogResponse { events })
        }),
        "SubscribeRealtimeLog" => call.subscribe(|r: SubscribeRealtimeLogRequest| {
            let wanted = move |log: &EventLog| {
                let selects = |of: &[u32], it| of.is_empty() || of.contains(&it);
                selects(&r.device_i_ds, log.device_id) && selects(&r.event_codes, log.event_code)
            };
            let stream = world.subscribe_logs(r.queue_size)?;
            Ok(stream.filter(move |log| log.as_ref().map_or(true, &wanted)))
        }),
        _ => return None,
    })
}

/// The answer to `GetInfo`.
fn factory_info(device: &SiteDevice) -> FactoryInfo {
    let [_, a, b, c] = device.id.to_be_bytes();
    let [x, y, z] = MAKER;
    let kind = kind_name(device.kind);
    let (name, [major, mut minor, patch]) = match MODELS.get(&kind) {
        Some(model) => (model.name.clone(), model.firmware),
        None => (kind, [1, 0, 0]),
    };
    if device.id.is_multiple_of(OLDER_FIRMWARE_EVERY) {
        minor = minor.saturating_sub(1);
    }
    let of_kind = || format!("{major}.{minor}.{patch}");
    FactoryInfo {
        mac_addr: format!("{x:02x}:{y:02x}:{z:02x}:{a:02x}:{b:02x}:{c:02x}").into(),
        model_name: name.into(),
        firmware_version: device.firmware.clone().unwrap_or_else(of_kind).into(),
        kernel_version: b"1.0.0".to_vec(),
        bs_core_version: b"1.10.0".to_vec(),
        board_version: b"1.0.0".to_vec(),
    }
}

/// The answer to `GetCapabilityInfo`.
fn capabilities(device: &SiteDevice) -> CapabilityInfo {
    let model = MODELS.get(&kind_name(device.kind));
    let has = |feature: &str| model.is_some_and(|model| model.features.contains(feature));
    let (card, screen, controller) = (has("card"), has("screen"), has("controller"));
    CapabilityInfo {
        r#type: device.kind,
        max_num_of_user: model.map_or(0, |model| model.users),
        pin_supported: has("pin"),
        card_supported: card,
        card1x_supported: card,
        seos_supported: has("seos"),
        finger_supported: has("finger"),
        face_supported: has("face"),
        user_name_supported: screen,
        user_photo_supported: screen,
        user_phrase_supported: screen,
        alphanumeric_id_supported: screen,
        wlan_supported: has("wlan"),
        image_log_supported: has("camera"),
        voip_supported: has("voip"),
        tna_supported: screen,
        job_code_supported: screen,
        wiegand_supported: card || controller,
        wiegand_multi_supported: controller,
        trigger_action_supported: true,
        dst_supported: true,
        dns_supported: true,
        osdp_key_supported: controller,
        rs485_ext_supported: true,
        qr_supported: has("qr"),
        dynamic_slave_device_supported: controller,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_model_is_of_a_type_that_exists() {
        assert_eq!(MODELS.len(), 34);
        for kind in MODELS.keys() {
            assert!(crate::simulator::kind_of_name(kind).is_some(), "{kind}");
        }
    }
}
