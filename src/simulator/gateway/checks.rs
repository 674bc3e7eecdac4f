//! Checks of client requests to a gateway, and parts of its refusals.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use tonic::Status;

use super::managed::Managed;
use crate::proto::connect::{AcceptFilter, AsyncConnectInfo};
use crate::simulator::site::{DEVICE_PORT, DialMode};

/// Most entries of a managed list. A real gateway is good for about 1,000; the limit protects the
/// memory against requests without end.
const MANAGED_MAX: usize = 200_000;

/// A port as clients give it: 0 is the devices' default (the vendor's clients leave it out).
pub(crate) fn port(port: i32) -> Result<u16, Status> {
    match u16::try_from(port) {
        Ok(0) => Ok(DEVICE_PORT),
        Ok(port) => Ok(port),
        Err(_) => {
            Err(Status::invalid_argument(format!("port {port} is out of range; it is 1 to 65535")))
        }
    }
}

pub(crate) fn address(ip: &str) -> Result<Ipv4Addr, Status> {
    ip.parse().map_err(|_| Status::invalid_argument(format!("{ip:?} is not an IPv4 address")))
}

pub(crate) fn mode(code: i32) -> Result<DialMode, Status> {
    let unknown = || format!("{code} is no connection mode; it is 0 or 1");
    DialMode::from_repr(code).ok_or_else(|| Status::invalid_argument(unknown()))
}

fn device_id(id: u32) -> Result<(), Status> {
    if id == 0 { Err(Status::invalid_argument("deviceID 0 is no device")) } else { Ok(()) }
}

/// Checks connections to be registered. An empty address is accepted, and fails to connect, as the
/// vendor's tutorial shows.
pub(crate) fn async_connections(infos: &[AsyncConnectInfo]) -> Result<(), Status> {
    for info in infos {
        device_id(info.device_id)?;
        if !info.ip_addr.is_empty() {
            address(&info.ip_addr)?;
        }
        port(info.port)?;
    }
    Ok(())
}

pub(crate) fn accept_filter(filter: &AcceptFilter) -> Result<(), Status> {
    for ip in filter.ip_addrs.iter().chain(&filter.subnet_masks) {
        address(ip.split_once('/').map_or(ip.as_str(), |(bare, _)| bare))?;
    }
    filter.device_i_ds.iter().try_for_each(|id| device_id(*id))
}

/// Refuses `more` entries where the list would exceed its limit.
pub(crate) fn check_capacity(list: &BTreeMap<u32, Managed>, more: usize) -> Result<(), Status> {
    if list.len().saturating_add(more) > MANAGED_MAX {
        let message = format!("more than {MANAGED_MAX} managed devices");
        return Err(Status::resource_exhausted(message));
    }
    Ok(())
}

pub(crate) fn managed(list: &BTreeMap<u32, Managed>, id: u32) -> Result<(), Status> {
    if list.contains_key(&id) { Ok(()) } else { Err(not_managed(&[id])) }
}

pub(crate) fn not_managed(ids: &[u32]) -> Status {
    Status::not_found(format!("device {} is not managed by this gateway", first_of(ids)))
}

/// IDs as text, the first ten.
pub(crate) fn first_of(ids: &[u32]) -> String {
    let shown: Vec<String> = ids.iter().take(10).map(u32::to_string).collect();
    let more = if ids.len() > 10 { format!(" and {} more", ids.len() - 10) } else { String::new() };
    shown.join(", ") + &more
}
