//! One gateway: is it there, whom does its certificate name and how long, its age, its answers,
//! its clock. May not ask for anything that changes it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tonic::Code;

use super::Finding;
use super::words::count;
use crate::certificate::Certificate;
use crate::fleet::GatewayIndex;
use crate::gsdk::{
    ApiVersion, Error, ErrorCode, GatewayClient, GatewayOptions, Link, LinkError, LinkEvent,
    PORT_DEFAULT,
};
use crate::net::DialCode;

/// How long its stream is listened to for a status, whose time tells of its clock.
const LISTEN: Duration = Duration::from_secs(3);
/// Events that may wait; a full queue ends the link, which is reported.
const EVENTS_MAX: usize = 100_000;
/// A clock this far off is worth a warning: the wire's times have whole seconds.
const SKEW_WARN_MS: i128 = 3_000;

pub(super) async fn examine(options: GatewayOptions) -> Vec<Finding> {
    let name = options.name.clone();
    let client = match GatewayClient::dial(&options, Arc::new(|_: &_| {})).await {
        Ok(client) => client,
        Err(error @ Error::Broken { .. }) => return vec![unanswered(&options, &error)],
        Err(error) => return vec![failed(&options, &error)],
    };
    let mut findings = Vec::new();
    findings.extend(client.certificate().map(|shown| certificate(&options, shown)));
    let devices = match client.device_list().await {
        Ok(rows) => rows,
        Err(error @ Error::Broken { .. }) if client.api_version().is_none() => {
            findings.push(unanswered(&options, &error));
            return findings;
        }
        Err(error) => {
            findings.push(failed(&options, &error));
            return findings;
        }
    };
    let age = match client.api_version() {
        Some(ApiVersion::V1_5) => " as gateways from V1.5 on do (package gsdk.connect)",
        Some(ApiVersion::Legacy) => {
            " as gateways before V1.5 do (package connect), which is served too"
        }
        None => "",
    };
    findings.push(Finding::ok(format!(
        "gateway {name}: answers at {}{age}; its list holds {}",
        options.address,
        count(devices.len(), "device")
    )));
    for (call, outcome) in [
        ("GetAcceptFilter", client.accept_filter().await.map(drop)),
        ("GetPendingList", client.pending().await.map(drop)),
    ] {
        if let Err(error) = outcome {
            findings.push(Finding::warn(format!(
                "{error}; what needs {call} will not work until the gateway permits it"
            )));
        }
    }
    findings.push(stream(options).await);
    findings
}

fn failed(options: &GatewayOptions, error: &Error) -> Finding {
    let text = error.to_string();
    let named = |key: &str| format!("gateways.{}.{key}", options.name);
    let key = match error.code() {
        ErrorCode::Dial(
            DialCode::CaFileUnreadable
            | DialCode::CaFileInvalid
            | DialCode::CertificateUnknownIssuer,
        ) => "ca_file",
        ErrorCode::Dial(DialCode::ServerNameInvalid | DialCode::CertificateNameMismatch) => {
            "server_name"
        }
        _ => "address",
    };
    let remedy = match error {
        Error::Status { status, .. }
            if matches!(status.code(), Code::PermissionDenied | Code::Unauthenticated) =>
        {
            "; let this machine call the gateway in the gateway's own configuration"
        }
        Error::Status { .. } => "; see the gateway's log",
        Error::Deadline { .. } | Error::Broken { .. } => {
            "; it is overloaded, restarting or hanging: look at its log, and restart it if need be"
        }
        _ => "",
    };
    Finding::fail(format!("{text}{remedy}")).about(named(key))
}

/// It speaks TLS and has not said a word of gRPC.
fn unanswered(options: &GatewayOptions, error: &Error) -> Finding {
    Finding::fail(format!(
        "{error}, before any answer; check that {} is the gateway's gRPC port (usually \
         {PORT_DEFAULT})",
        options.address
    ))
    .about(format!("gateways.{}.address", options.name))
}

fn certificate(options: &GatewayOptions, shown: &Certificate) -> Finding {
    let of = format!("gateway {}", options.name);
    let remedy = "make a new server certificate before it ends (gateway option -cs)";
    super::certificate(&of, shown, remedy).about(format!("gateways.{}.address", options.name))
}

/// Subscribes beside whoever else has, and compares the clocks by the first status that is told.
async fn stream(options: GatewayOptions) -> Finding {
    let (name, key) = (options.name.clone(), format!("gateways.{}.address", options.name));
    let (queue, mut events) = mpsc::channel(EVENTS_MAX);
    let (stop, stopped) = watch::channel(false);
    let link = Link::start(GatewayIndex(0), options, queue, Arc::new(|_: &_| {}), stopped);
    let mut stands = false;
    let heard: Result<Option<i128>, LinkError> = timeout(LISTEN, async {
        loop {
            match events.recv().await {
                Some((_, LinkEvent::LinkUp { .. })) => stands = true,
                Some((_, LinkEvent::Status { timestamp_s, .. })) => {
                    return Ok(Some(skew_ms(timestamp_s)));
                }
                Some((_, LinkEvent::AttemptFailed(error)))
                | Some((_, LinkEvent::LinkDown { error, .. })) => return Err(error),
                Some(_) => {}
                None => return Ok(None),
            }
        }
    })
    .await
    .unwrap_or(Ok(None));
    stop.send_replace(true);
    link.ended().await;
    match heard {
        Err(error) => {
            Finding::fail(format!("{error}; its stream of changes is what we live on")).about(key)
        }
        Ok(None) if !stands => Finding::fail(format!(
            "gateway {name}: no stream of status changes within {} s; look at its log",
            LISTEN.as_secs()
        ))
        .about(key),
        Ok(None) => Finding::note(format!(
            "gateway {name}: streams status changes; none came within {} s, so its clock could not \
             be compared (its info tells clock_skew_s once one did)",
            LISTEN.as_secs()
        )),
        Ok(Some(skew)) if skew.abs() >= SKEW_WARN_MS => Finding::warn(format!(
            "gateway {name}: its clock is {} s {} this machine's; set both by NTP, or `timestamp` \
             in events is wrong (`received_at` is not)",
            skew.abs() / 1000,
            if skew > 0 { "ahead of" } else { "behind" }
        ))
        .about(key),
        Ok(Some(_)) => {
            Finding::ok(format!("gateway {name}: streams status changes, its clock agrees"))
        }
    }
}

/// How far the gateway's clock is ahead; to about a second, as its times have whole ones.
fn skew_ms(timestamp_s: u32) -> i128 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let now = i128::try_from(now.as_millis()).unwrap_or(i128::MAX);
    i128::from(timestamp_s) * 1000 + 500 - now
}
