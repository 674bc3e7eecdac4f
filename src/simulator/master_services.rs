//! The gRPC services that only a master gateway has, method by method.

use super::call::{Answer, Call};
use super::master::{self, Master};
use super::services::Services;
use crate::proto::connect_master::*;
use crate::proto::{gateway, login};

/// The call, denied if it has no valid token.
fn with_token(master: &Master, call: Call) -> Call {
    let allowed = master.check(call.token().as_deref());
    call.allowed_if(allowed)
}

/// `gsdk.connect_master.ConnectMaster`.
pub(crate) async fn connect(
    services: &Services,
    master: &Master,
    method: &str,
    call: Call,
) -> Option<Answer> {
    let call = with_token(master, call);
    let gateway = |id: &str| master.present(id).map(|index| services.device_gateway(index));
    Some(match method {
        "Connect" => {
            let connect = |r: ConnectRequest| async move {
                gateway(&r.gateway_id)?.connect(r.connect_info).await
            };
            call.answer_later(connect).await
        }
        "SearchDevice" => {
            let search = |r: SearchDeviceRequest| async move {
                gateway(&r.gateway_id)?.search(r.timeout).await
            };
            call.answer_later(search).await
        }
        "AddAsyncConnection" => {
            let add =
                |r: AddAsyncConnectionRequest| gateway(&r.gateway_id)?.add_async(&r.connect_infos);
            call.answer(add).await
        }
        "DeleteAsyncConnection" => {
            let delete = |r: DeleteAsyncConnectionRequest| {
                gateway(&r.gateway_id)?.delete_async(&r.device_i_ds)
            };
            call.answer(delete).await
        }
        "SetAcceptFilter" => {
            let set = |r: SetAcceptFilterRequest| gateway(&r.gateway_id)?.set_filter(r.filter);
            call.answer(set).await
        }
        "SetSlaveDevice" => {
            let set = |r: SetSlaveDeviceRequest| {
                gateway(&r.gateway_id)?.set_slaves(&r.slave_device_infos)
            };
            call.answer(set).await
        }
        "GetAcceptFilter" => call.answer(|OfGateway { id }| gateway(&id)?.filter()).await,
        "GetPendingList" => call.answer(|OfGateway { id }| gateway(&id)?.pending()).await,
        "GetDeviceList" => call.answer(|OfGateway { id }| gateway(&id)?.list()).await,
        "GetSlaveDevice" => call.answer(|OfGateway { id }| gateway(&id)?.slaves()).await,
        "DisconnectAll" => call.answer(|OfGateway { id }| gateway(&id)?.disconnect_all()).await,
        name if name.ends_with("DB") => return stored(master, method, call).await,
        _ => return services.by_device(method, call).await,
    })
}

/// `gsdk.gateway.Gateway`.
pub(crate) async fn gateway(
    services: &Services,
    master: &Master,
    method: &str,
    call: Call,
) -> Option<Answer> {
    let call = with_token(master, call);
    Some(match method {
        "GetList" => {
            let list = |()| Ok(gateway::GetListResponse { gateway_i_ds: master.gateway_ids() });
            call.answer(list).await
        }
        "Get" => {
            let get = |r: gateway::GetRequest| {
                let gateway_infos = master.infos(&r.gateway_i_ds)?;
                Ok(gateway::GetResponse { gateway_infos })
            };
            call.answer(get).await
        }
        "SubscribeStatus" => {
            let lazy_headers = services.interceptor.lazy_headers();
            call.subscribe(lazy_headers, |size| master.subscribe(size)).await
        }
        _ => return None,
    })
}

/// `gsdk.login.Login`.
pub(crate) async fn login(master: &Master, method: &str, call: Call) -> Option<Answer> {
    let certificate = call.client_certificate();
    Some(match method {
        "Login" => {
            let login = |r: login::LoginRequest| {
                let jwt_token =
                    master.login(&master::tenant_of(certificate.as_deref(), &r.tenant_cert)?)?;
                Ok(login::LoginResponse { jwt_token })
            };
            call.answer(login).await
        }
        "LoginAdmin" => {
            let login = |r: login::LoginAdminRequest| {
                let tenant = master::tenant_of(certificate.as_deref(), &r.admin_tenant_cert)?;
                let jwt_token = master.login_admin(&tenant, &r.tenant_id)?;
                Ok(login::LoginAdminResponse { jwt_token })
            };
            call.answer(login).await
        }
        "Logout" => {
            let token = call.token();
            call.answer(|()| master.logout(token.as_deref())).await
        }
        _ => return None,
    })
}

/// The `...DB` methods, whose content the master stores.
async fn stored(master: &Master, method: &str, call: Call) -> Option<Answer> {
    Some(match method {
        "AddAsyncConnectionDB" => {
            let add =
                |r: AddAsyncConnectionDbRequest| master.add_async(&r.gateway_id, r.connect_infos);
            call.answer(add).await
        }
        "DeleteAsyncConnectionDB" => {
            let delete = |r: DeleteAsyncConnectionDbRequest| {
                master.delete_async(&r.gateway_id, &r.device_i_ds)
            };
            call.answer(delete).await
        }
        "GetAsyncConnectionDB" => {
            let get = |OfGateway { id }| {
                let connect_infos = master.connections(&id)?;
                Ok(GetAsyncConnectionDbResponse { connect_infos })
            };
            call.answer(get).await
        }
        "SetAcceptFilterDB" => {
            let set = |r: SetAcceptFilterDbRequest| master.set_filter(&r.gateway_id, r.filter);
            call.answer(set).await
        }
        "GetAcceptFilterDB" => {
            let get = |OfGateway { id }| {
                Ok(GetAcceptFilterDbResponse { filter: Some(master.filter(&id)?) })
            };
            call.answer(get).await
        }
        "AddSlaveDeviceDB" => {
            let add =
                |r: AddSlaveDeviceDbRequest| master.add_slaves(&r.gateway_id, r.slave_device_infos);
            call.answer(add).await
        }
        "DeleteSlaveDeviceDB" => {
            let delete =
                |r: DeleteSlaveDeviceDbRequest| master.delete_slaves(&r.gateway_id, &r.device_i_ds);
            call.answer(delete).await
        }
        "GetSlaveDeviceDB" => {
            let get = |OfGateway { id }| {
                Ok(GetSlaveDeviceDbResponse { slave_device_infos: master.slaves(&id)? })
            };
            call.answer(get).await
        }
        _ => return None,
    })
}

/// A request to a master that holds nothing but the gateway's ID.
#[derive(Clone, PartialEq, prost::Message)]
struct OfGateway {
    #[prost(string, tag = "1")]
    id: String,
}
