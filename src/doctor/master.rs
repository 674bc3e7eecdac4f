//! Checks a master gateway: connection, certificate, login, streams, and each of its gateways. No
//! call changes anything.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::gateway::failed;
use super::{Finding, count};
use crate::config::{Config, Reach};
use crate::gsdk::{GatewayClient, GatewayOptions, ListedGateway, MasterClient};
use crate::ids::{GatewayName, discovered_name, nearest};

/// Gateways named in one line.
const NAMED_MAX: usize = 20;

/// `options` are those of the master of this name in the configuration.
pub(crate) async fn examine(
    options: GatewayOptions,
    config: &Config,
    master: &GatewayName,
) -> Vec<Finding> {
    let peer = options.peer.clone();
    let client = match MasterClient::dial(&options, Arc::new(|_: &_| {})).await {
        Ok(client) => client,
        Err(error) => return vec![failed(&options, &error)],
    };
    let mut findings = Vec::new();
    findings.extend(client.certificate().map(|certificate| {
        let remedy = "make a new server certificate before it expires";
        super::certificate(&peer.to_string(), certificate, remedy).about(peer.address_key())
    }));
    let gateways = match client.gateways().await {
        Ok(gateways) => gateways,
        Err(error) => {
            findings.push(failed(&options, &error));
            return findings;
        }
    };
    let connected = gateways.iter().filter(|gateway| gateway.is_connected).count();
    findings.push(Finding::ok(format!(
        "{peer}: accepts the login at {} (package {}); it has {} of this tenant, {connected} of \
         them connected",
        options.address,
        client.package(),
        count(gateways.len(), "gateway")
    )));
    if let Err(error) = client.try_streams().await {
        findings.push(
            Finding::fail(format!("{error}; the bridge needs this stream of changes"))
                .about(peer.address_key()),
        );
    }
    let configured = config.gateways.iter().filter_map(|(name, gateway)| match &gateway.reach {
        Reach::Master { master: of, gateway_id } if of == master => Some((&**gateway_id, name)),
        Reach::Master { .. } | Reach::Direct { .. } => None,
    });
    let configured: BTreeMap<&str, &GatewayName> = configured.collect();
    let others = gateways.iter().filter(|it| !configured.contains_key(&*it.id));
    let discovers = config.masters.get(master).is_some_and(|master| master.discover);
    findings.extend(discovered(master, discovers, others));
    for (gateway_id, name) in configured {
        findings.push(gateway(&client, master, name, gateway_id, &gateways).await);
    }
    findings
}

/// The gateways that no table of the configuration names.
fn discovered<'a>(
    master: &GatewayName,
    discovers: bool,
    gateways: impl Iterator<Item = &'a ListedGateway>,
) -> Option<Finding> {
    let mut names: Vec<String> = Vec::new();
    for gateway in gateways {
        let is_taken =
            |name: &GatewayName| name == master || names.iter().any(|it| it == name.as_str());
        names.push(match discovers {
            true => discovered_name(master, &gateway.id, is_taken).to_string(),
            false => format!("{:?}", gateway.id),
        });
    }
    let more = match names.len().saturating_sub(NAMED_MAX) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let number = count(names.len(), "gateway");
    names.truncate(NAMED_MAX);
    let names = names.join(", ");
    match (names.is_empty(), discovers) {
        (true, _) => None,
        (false, true) => Some(Finding::note(format!(
            "master {master}: {number} without a table will have the names {names}{more}, or those \
             that this bridge has stored"
        ))),
        (false, false) => Some(Finding::note(format!(
            "master {master}: {number} without a table, not used: {names}{more}; add a table \
             [gateways.NAME], or set masters.{master}.discover = true"
        ))),
    }
}

/// One gateway that the configuration names.
async fn gateway(
    client: &Arc<MasterClient>,
    master: &GatewayName,
    name: &GatewayName,
    gateway_id: &str,
    gateways: &[ListedGateway],
) -> Finding {
    let id_key = format!("gateways.{name}.gateway_id");
    match gateways.iter().find(|gateway| gateway.id == gateway_id) {
        None => {
            let near = nearest(gateway_id, gateways.iter().map(|gateway| gateway.id.as_str()));
            let near = near.map(|near| format!(" (did you mean {near:?}?)")).unwrap_or_default();
            Finding::fail(format!(
                "gateway {name}: master {master} lists no gateway {gateway_id:?} for this \
                 tenant{near}; correct {id_key}, or add the gateway at the master"
            ))
            .about(id_key)
        }
        Some(listed) if !listed.is_connected => Finding::warn(format!(
            "gateway {name}: master {master} has no connection to its gateway {gateway_id:?}; see \
             that this gateway runs and reaches the master"
        ))
        .about(id_key),
        Some(_) => {
            let client = GatewayClient::through(client.clone(), gateway_id.into());
            match client.device_list().await {
                Ok(devices) => Finding::ok(format!(
                    "gateway {name}: answers through master {master}; its list holds {}",
                    count(devices.len(), "device")
                )),
                Err(error) => Finding::fail(format!("gateway {name}: {error}")).about(id_key),
            }
        }
    }
}
