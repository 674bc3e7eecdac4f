//! The gRPC services that only a master gateway has, method by method.

use super::call::{Answering, Call};
use super::master::{self, SimulatedMaster};
use super::messages::ForGateway;
use crate::proto::connect::*;
use crate::proto::connect_master::GetAsyncConnectionDbResponse;
use crate::proto::{gateway, login};

/// `gsdk.login.Login`.
pub(crate) fn login<'a>(
    master: &'a SimulatedMaster,
    method: &str,
    call: Call,
) -> Option<Answering<'a>> {
    let certificate = call.client_certificate();
    let tenant = move |pem: &str| master::tenant_of(certificate.as_deref(), pem);
    Some(match method {
        "Login" => call.answer(move |r: login::LoginRequest| {
            let jwt_token = master.login(&tenant(&r.tenant_cert)?)?;
            Ok(login::LoginResponse { jwt_token })
        }),
        "Logout" => {
            let token = call.token();
            call.answer(move |()| master.logout(token.as_deref()))
        }
        _ => return None,
    })
}

/// `gsdk.gateway.Gateway`.
pub(crate) fn gateway<'a>(
    master: &'a SimulatedMaster,
    method: &str,
    call: Call,
) -> Option<Answering<'a>> {
    Some(match method {
        "GetList" => call
            .answer(move |()| Ok(gateway::GetListResponse { gateway_i_ds: master.gateway_ids() })),
        "Get" => call.answer(move |r: gateway::GetRequest| {
            let gateway_infos = master.infos(&r.gateway_i_ds)?;
            Ok(gateway::GetResponse { gateway_infos })
        }),
        "SubscribeStatus" => {
            call.subscribe(move |r: gateway::SubscribeStatusRequest| master.subscribe(r.queue_size))
        }
        _ => return None,
    })
}

/// The `...DB` methods of `gsdk.connect_master.ConnectMaster`, whose content the master stores.
pub(crate) fn stored<'a>(
    master: &'a SimulatedMaster,
    method: &str,
    call: Call,
) -> Option<Answering<'a>> {
    Some(match method {
        "AddAsyncConnectionDB" => call.answer(move |r: ForGateway<AddAsyncConnectionRequest>| {
            master.add_async(&r.gateway_id, &r.request.connect_infos)
        }),
        "DeleteAsyncConnectionDB" => {
            call.answer(move |r: ForGateway<DeleteAsyncConnectionRequest>| {
                master.delete_async(&r.gateway_id, &r.request.device_i_ds)
            })
        }
        "GetAsyncConnectionDB" => call.answer(move |r: ForGateway<()>| {
            let stored = master.stored(&r.gateway_id)?;
            let connect_infos = stored.connections.into_values().collect();
            Ok(GetAsyncConnectionDbResponse { connect_infos })
        }),
        "SetAcceptFilterDB" => call.answer(move |r: ForGateway<SetAcceptFilterRequest>| {
            master.set_filter(&r.gateway_id, r.request.filter)
        }),
        "GetAcceptFilterDB" => call.answer(move |r: ForGateway<()>| {
            let filter = Some(master.stored(&r.gateway_id)?.filter.unwrap_or_default());
            Ok(GetAcceptFilterResponse { filter })
        }),
        "AddSlaveDeviceDB" => call.answer(move |r: ForGateway<SetSlaveDeviceRequest>| {
            master.add_slaves(&r.gateway_id, &r.request.slave_device_infos)
        }),
        "DeleteSlaveDeviceDB" => call.answer(move |r: ForGateway<DeleteAsyncConnectionRequest>| {
            master.delete_slaves(&r.gateway_id, &r.request.device_i_ds)
        }),
        "GetSlaveDeviceDB" => call.answer(move |r: ForGateway<()>| {
            let stored = master.stored(&r.gateway_id)?;
            let slave_device_infos = stored.slaves.into_values().collect();
            Ok(GetSlaveDeviceResponse { slave_device_infos })
        }),
        _ => return None,
    })
}
