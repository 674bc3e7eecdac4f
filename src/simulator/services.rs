//! The gRPC services of a gateway, method by method.
//!
//! A device gateway and a master serve the same methods of devices, with messages that are equal on
//! the wire but for the gateway's ID in some of a master's requests. So one table with the messages
//! of `gsdk.connect` serves both. An empty message is `()`.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{Request, State};
use tonic::Status;

use super::call::{Answering, Call, CallAnswer};
use super::device_services;
use super::gateway::{Millis, SimulatedGateway, checks};
use super::interceptor::{Interceptor, Package};
use super::master::SimulatedMaster;
use super::master_services;
use super::messages::{ForGateway, for_each};
use super::site::SiteDevice;
use super::world::World;
use crate::proto::connect::*;

/// The only service of a master that needs no token.
const LOGIN: &str = "login.Login";

/// Most bytes of a call's headers that are read; more are refused below gRPC.
pub(crate) const HEADERS_MAX: u32 = 16 << 20;
/// Most bytes of a call's metadata; more are refused with a gRPC status.
const METADATA_MAX: usize = 1 << 20;

/// What a simulated gateway serves.
pub(crate) struct Services {
    pub(crate) world: Arc<World>,
    pub(crate) master: Option<Arc<SimulatedMaster>>,
    pub(crate) interceptor: Arc<Interceptor>,
    /// For the order of lists.
    pub(crate) order: Mutex<fastrand::Rng>,
}

/// Answers one call.
pub(crate) async fn serve(State(services): State<Arc<Services>>, request: Request) -> CallAnswer {
    let path = request.uri().path().to_owned();
    let (service, method) = path.trim_start_matches('/').split_once('/').unwrap_or_default();
    let (service, package) = Package::split(service);
    let headers = request.headers().iter();
    let metadata: usize = headers.map(|(name, value)| name.as_str().len() + value.len()).sum();
    if metadata > METADATA_MAX {
        let message = format!("{metadata} bytes of metadata; at most {METADATA_MAX} are read");
        return Status::resource_exhausted(message).into_http();
    }
    let interceptor = &services.interceptor;
    if let Err(status) = interceptor.admit(service, package, method).await {
        return status.into_http();
    }
    let call = Call::new(request, package, interceptor.strictness());
    let answer = services.dispatch(service, method, call).await;
    interceptor.delay_answer().await;
    answer
}

impl Services {
    async fn dispatch(&self, service: &str, method: &str, call: Call) -> CallAnswer {
        let full_name = format!("{}{service}", call.package().prefix());
        let allowed = match &self.master {
            Some(master) if service != LOGIN => master.check(call.token().as_deref()),
            _ => Ok(()),
        };
        let answer = match (service, &self.master) {
            ("connect.Connect", None) => self.connect(method, call),
            ("device.Device", _) => device_services::device(&self.world, method, call),
            ("event.Event", _) => device_services::event(&self.world, method, call),
            (LOGIN, Some(master)) => master_services::login(master, method, call),
            ("gateway.Gateway", Some(master)) => master_services::gateway(master, method, call),
            ("connect_master.ConnectMaster", Some(master)) if method.ends_with("DB") => {
                master_services::stored(master, method, call)
            }
            ("connect_master.ConnectMaster", Some(_)) => self.connect(method, call),
            _ => return unimplemented(format!("unknown service {full_name}")),
        };
        match (answer, allowed) {
            (Some(answer), Ok(())) => answer.await,
            (Some(_), Err(status)) => status.into_http(),
            (None, _) => unimplemented(format!("unknown method {method} for service {full_name}")),
        }
    }

    /// `gsdk.connect.Connect`, and all of `gsdk.connect_master.ConnectMaster` that a master does
    /// not store.
    fn connect(&self, method: &str, call: Call) -> Option<Answering<'_>> {
        Some(match method {
            "Connect" => self.at_gateway(call, move |index, r: ConnectRequest| async move {
                let device_id = self.world.connect(index, r.connect_info.as_ref()).await?;
                Ok(ConnectResponse { device_id })
            }),
            "SearchDevice" => {
                self.at_gateway(call, move |index, r: SearchDeviceRequest| async move {
                    tokio::time::sleep(Duration::from_millis(r.timeout.into())).await;
                    self.world.try_with(index, |gateway, _| {
                        let found = gateway.connections().search(r.timeout);
                        Ok(SearchDeviceResponse { device_infos: self.in_any_order(found) })
                    })
                })
            }
            "AddAsyncConnection" => {
                self.on_gateway(call, |gateway, now, r: AddAsyncConnectionRequest| {
                    gateway.add_async(now, &r.connect_infos)
                })
            }
            "DeleteAsyncConnection" => {
                self.on_gateway(call, |gateway, now, r: DeleteAsyncConnectionRequest| {
                    gateway.delete_async(now, &r.device_i_ds)
                })
            }
            "SetAcceptFilter" => self.on_gateway(call, |gateway, _, r: SetAcceptFilterRequest| {
                gateway.set_filter(r.filter)
            }),
            "SetSlaveDevice" => self.on_gateway(call, |gateway, _, r: SetSlaveDeviceRequest| {
                gateway.set_slaves(&r.slave_device_infos)
            }),
            "GetAcceptFilter" => self.on_gateway(call, |gateway, _, ()| {
                let filter = Some(gateway.connections_mut().admission_mut().filter());
                Ok(GetAcceptFilterResponse { filter })
            }),
            "GetPendingList" => self.on_gateway(call, |gateway, _, ()| {
                Ok(GetPendingListResponse {
                    device_infos: self.in_any_order(gateway.connections().pending()),
                })
            }),
            "GetDeviceList" => self.on_gateway(call, |gateway, _, ()| {
                Ok(GetDeviceListResponse {
                    device_infos: self.in_any_order(gateway.connections().list()),
                })
            }),
            "GetSlaveDevice" => self.on_gateway(call, |gateway, _, ()| {
                Ok(GetSlaveDeviceResponse {
                    slave_device_infos: self.in_any_order(gateway.slaves()),
                })
            }),
            "DisconnectAll" => self.on_gateway(call, |gateway, now, ()| {
                gateway.disconnect_all(now);
                Ok(())
            }),
            _ => return self.by_device(method, call),
        })
    }

    /// The methods whose requests name no gateway, also with a master.
    fn by_device(&self, method: &str, call: Call) -> Option<Answering<'_>> {
        let package = call.package();
        let ssl = method.starts_with("Enable");
        Some(match method {
            "Disconnect" => call.answer(|r: DisconnectRequest| self.disconnect(r.device_i_ds)),
            "SetConnectionMode" => call.answer(|r: SetConnectionModeRequest| {
                self.set_mode(r.device_id, r.connection_mode)
            }),
            "SetConnectionModeMulti" => call.answer(move |r: SetConnectionModeMultiRequest| {
                for_each(r.device_i_ds, package, |id| self.set_mode(id, r.connection_mode))
            }),
            "EnableSSL" | "DisableSSL" => {
                call.answer(move |r: EnableSslRequest| self.set_ssl(r.device_id, ssl))
            }
            "EnableSSLMulti" | "DisableSSLMulti" => call.answer(move |r: EnableSslMultiRequest| {
                for_each(r.device_i_ds, package, |id| self.set_ssl(id, ssl))
            }),
            "SubscribeStatus" => {
                call.subscribe(|r: SubscribeStatusRequest| self.world.subscribe(r.queue_size))
            }
            _ => return None,
        })
    }

    /// A list as a gateway gives it, whose order changes where it is strict.
    fn in_any_order<T>(&self, mut rows: Vec<T>) -> Vec<T> {
        if self.interceptor.strictness().shuffles_lists {
            self.order.lock().unwrap_or_else(PoisonError::into_inner).shuffle(&mut rows);
        }
        rows
    }

    /// Answers a request to one gateway: with a master to the connected one that it names,
    /// otherwise to the only one.
    fn at_gateway<'a, M, R, F>(
        &'a self,
        call: Call,
        handler: impl Fn(usize, M) -> F + Send + 'a,
    ) -> Answering<'a>
    where
        M: prost::Message + Default + 'static,
        R: prost::Message + 'static,
        F: Future<Output = Result<R, Status>> + Send + 'a,
    {
        let Some(master) = &self.master else {
            return call.answer_later(move |request| handler(0, request));
        };
        call.answer_later(move |ForGateway { gateway_id, request }| {
            let answer = master.present(&gateway_id).map(|index| handler(index, request));
            async move { answer?.await }
        })
    }

    /// Answers with the gateway of the request.
    fn on_gateway<'a, M, R>(
        &'a self,
        call: Call,
        act: impl Fn(&mut SimulatedGateway, Millis, M) -> Result<R, Status> + Send + 'a,
    ) -> Answering<'a>
    where
        M: prost::Message + Default + 'static,
        R: prost::Message + 'static,
    {
        self.at_gateway(call, move |index, request| {
            std::future::ready(
                self.world.try_with(index, |gateway, now| act(gateway, now, request)),
            )
        })
    }

    /// Unknown devices are an error, after the others are done.
    fn disconnect(&self, ids: Vec<u32>) -> Result<(), Status> {
        let disconnected = |id: &u32| {
            self.world.try_with_manager(*id, |gateway, now| gateway.disconnect(now, *id)).is_ok()
        };
        let ids: BTreeSet<u32> = ids.into_iter().collect();
        let unknown: Vec<u32> = ids.into_iter().filter(|id| !disconnected(id)).collect();
        if unknown.is_empty() { Ok(()) } else { Err(checks::not_managed(&unknown)) }
    }

    fn set_mode(&self, id: u32, code: i32) -> Result<(), Status> {
        let mode = checks::mode(code)?;
        self.change(id, |device| device.mode = mode)
    }

    fn set_ssl(&self, id: u32, on: bool) -> Result<(), Status> {
        self.change(id, |device| device.ssl = on)
    }

    fn change(&self, id: u32, edit: impl FnOnce(&mut SiteDevice)) -> Result<(), Status> {
        self.world.try_with_manager(id, |gateway, now| gateway.change(now, id, edit))
    }
}

fn unimplemented(message: String) -> CallAnswer {
    Status::unimplemented(message).into_http()
}
