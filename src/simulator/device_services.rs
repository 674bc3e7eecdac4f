//! The gRPC services of devices, method by method. Their requests name the device and no gateway,
//! also with a master.

use tokio_stream::StreamExt;

use super::call::{Answering, Call};
use super::details;
use super::messages::for_each;
use super::world::World;
use crate::proto::device::*;
use crate::proto::event::*;

/// `gsdk.device.Device`.
pub(crate) fn device<'a>(world: &'a World, method: &str, call: Call) -> Option<Answering<'a>> {
    Some(match method {
        "GetInfo" => call.answer(|r: GetInfoRequest| {
            world.try_with_manager(r.device_id, |gateway, _| {
                let device = gateway.connections().responding(r.device_id)?;
                Ok(GetInfoResponse { info: Some(details::factory_info(device)) })
            })
        }),
        "GetCapabilityInfo" => call.answer(|r: GetCapabilityInfoRequest| {
            world.try_with_manager(r.device_id, |gateway, _| {
                let device = gateway.connections().responding(r.device_id)?;
                Ok(GetCapabilityInfoResponse { cap_info: Some(details::capabilities(device)) })
            })
        }),
        _ => return None,
    })
}

/// `gsdk.event.Event`.
pub(crate) fn event<'a>(world: &'a World, method: &str, call: Call) -> Option<Answering<'a>> {
    let package = call.package();
    let on = method.starts_with("Enable");
    let monitor = move |id| {
        world.try_with_manager(id, |gateway, _| {
            gateway.connections().responding(id)?;
            gateway.connections_mut().logs_mut().monitor(id, on);
            Ok(())
        })
    };
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
            world.try_with_manager(r.device_id, |gateway, _| {
                gateway.connections().responding(r.device_id)?;
                let logs = gateway.connections_mut().logs_mut();
                let events = logs.of(r.device_id, r.start_event_id, r.max_num_of_log);
                Ok(GetLogResponse { events })
            })
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
