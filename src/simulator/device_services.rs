//! The gRPC services of devices, method by method. Their requests name the device and no gateway,
//! also with a master.

use tokio_stream::StreamExt;
use tonic::Status;

use super::call::{Answering, Call};
use super::details;
use super::gateway::Logs;
use super::messages::for_each;
use super::site::SiteDevice;
use super::world::World;
use crate::proto::device::*;
use crate::proto::event::*;

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
            let info = at_device(world, r.device_id, |device, _| details::factory_info(device))?;
            Ok(GetInfoResponse { info: Some(info) })
        }),
        "GetCapabilityInfo" => call.answer(|r: GetCapabilityInfoRequest| {
            let info = at_device(world, r.device_id, |device, _| details::capabilities(device))?;
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
