//! Checks a gateway: connection, certificate, API version, calls, stream and clock. No call changes
//! anything.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tonic::Code;

use super::{Finding, count};
use crate::fleet::{GatewayIndex, StreamedStatus};
use crate::gsdk::{ApiVersion, Error, ErrorCode, GatewayClient, GatewayOptions, Link, LinkReport};
use crate::net::{DialCode, wall_time};

/// How long the stream is read. The first status shows the gateway's clock.
const STREAM_DEADLINE: Duration = Duration::from_secs(3);
/// Events that may wait; a full queue ends the link, which is reported.
const EVENTS_MAX: usize = 100_000;
/// A larger clock skew is a warning; times on the wire have whole seconds.
const SKEW_WARN_MS: i64 = 3_000;

pub(crate) async fn examine(options: GatewayOptions) -> Vec<Finding> {
    let name = options.peer.name().to_owned();
    let client = match GatewayClient::dial(&options, Arc::new(|_: &_| {})).await {
        Ok(client) => client,
        Err(error @ Error::Broken { .. }) => return vec![no_grpc(&options, &error)],
        Err(error) => return vec![failed(&options, &error)],
    };
    let mut findings = Vec::new();
    findings.extend(client.certificate().map(|certificate| {
        let remedy = "make a new server certificate before it expires (gateway option -cs)";
        super::certificate(&format!("gateway {name}"), certificate, remedy)
            .about(options.peer.address_key())
    }));
    let devices = match client.device_list().await {
        Ok(rows) => rows,
        Err(error @ Error::Broken { .. }) if client.api_version().is_none() => {
            findings.push(no_grpc(&options, &error));
            return findings;
        }
        Err(error) => {
            findings.push(failed(&options, &error));
            return findings;
        }
    };
    let version = match client.api_version() {
        Some(ApiVersion::V1_5) => " as gateways from V1.5 on do (package gsdk.connect)",
        Some(ApiVersion::Legacy) => {
            " as gateways before V1.5 do (package connect), which is supported"
        }
        None => "",
    };
    findings.push(Finding::ok(format!(
        "gateway {name}: answers at {}{version}; its list holds {}",
        options.address,
        count(devices.len(), "device")
    )));
    for (call, result) in [
        ("GetAcceptFilter", client.accept_filter().await.map(drop)),
        ("GetPendingList", client.pending().await.map(drop)),
    ] {
        if let Err(error) = result {
            findings.push(Finding::warn(format!(
                "{error}; what needs {call} will not work until the gateway permits it"
            )));
        }
    }
    findings.push(stream(options).await);
    findings
}

pub(crate) fn failed(options: &GatewayOptions, error: &Error) -> Finding {
    let key = match error.code() {
        ErrorCode::Dial(
            DialCode::CaFileUnreadable
            | DialCode::CaFileInvalid
            | DialCode::CertificateUnknownIssuer,
        ) => "ca_file",
        ErrorCode::Dial(DialCode::ServerNameInvalid | DialCode::CertificateNameMismatch) => {
            "server_name"
        }
        ErrorCode::LoginRefused
        | ErrorCode::Dial(
            DialCode::CertFileUnreadable
            | DialCode::CertFileInvalid
            | DialCode::ClientCertificateRefused,
        ) => "cert_file",
        ErrorCode::Dial(DialCode::KeyFileUnreadable | DialCode::KeyFileInvalid) => "key_file",
        _ => "address",
    };
    let remedy = match error {
        Error::Status { status, .. }
            if matches!(status.code(), Code::PermissionDenied | Code::Unauthenticated) =>
        {
            "; permit this machine in the gateway's configuration"
        }
        Error::Status { .. } => "; see the gateway's log",
        error if error.outcome_unknown() => {
            "; it is overloaded, restarting or hanging: check its log, and restart it if need be"
        }
        _ => "",
    };
    Finding::fail(format!("{error}{remedy}")).about(options.peer.key(key))
}

/// TLS succeeded, and no gRPC answer was received.
fn no_grpc(options: &GatewayOptions, error: &Error) -> Finding {
    Finding::fail(format!(
        "{error}, before any answer; check that {} is the {}",
        options.address,
        options.peer.expected_port()
    ))
    .about(options.peer.address_key())
}

/// Subscribes as one more client, and compares the clocks by the first status.
async fn stream(options: GatewayOptions) -> Finding {
    let name = options.peer.name().to_owned();
    let key = options.peer.address_key();
    let (queue, mut events) = mpsc::channel(EVENTS_MAX);
    let (stop, stopped) = watch::channel(false);
    let link = Link::start(GatewayIndex(0), options, queue, Arc::new(|_: &_| {}), stopped);
    let mut is_open = false;
    let first_status = async {
        while let Some((_, report)) = events.recv().await {
            match report {
                LinkReport::Up { .. } => is_open = true,
                LinkReport::Status(StreamedStatus { timestamp_s, .. }) => {
                    return Ok(Some(skew_ms(timestamp_s)));
                }
                LinkReport::Down { error, .. } => return Err(error),
                _ => {}
            }
        }
        Ok(None)
    };
    let skew = timeout(STREAM_DEADLINE, first_status).await.unwrap_or(Ok(None));
    stop.send_replace(true);
    link.ended().await;
    let deadline_s = STREAM_DEADLINE.as_secs();
    match skew {
        Err(error) => {
            Finding::fail(format!("{error}; the bridge needs this stream of changes")).about(key)
        }
        Ok(None) if !is_open => Finding::fail(format!(
            "gateway {name}: no stream of status changes within {deadline_s} s; check its log"
        ))
        .about(key),
        Ok(None) => Finding::note(format!(
            "gateway {name}: streams status changes; none within {deadline_s} s, so its clock was \
             not compared (its info has clock_skew_s after the first)"
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

/// The gateway's clock minus this machine's, to about a second.
fn skew_ms(timestamp_s: u32) -> i64 {
    i64::from(timestamp_s) * 1000 + 500 - wall_time().millis()
}
