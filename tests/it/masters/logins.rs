//! Logins at a master that hang or are refused while a link or a client has a token.

use std::time::Duration;

use gsdk2mqtt::gsdk::{Error, Method};
use gsdk2mqtt::simulator::Fault;
use tokio::time::Instant;
use tonic::Code;

use super::{Campus, SOON_LOST};
use crate::harness::eventually;
use crate::harness::master::{Master, behind};

/// A call and its login last longer than its deadline together, but not each. The master has not
/// executed the call.
#[tokio::test(flavor = "multi_thread")]
async fn a_login_is_within_the_deadline_of_its_call() {
    let master = Master::start(&["a"], 1).await;
    let gateway = master.client("a").await;
    gateway.device_list().await.unwrap();
    master.simulator.control().apply_fault(&Fault::latency(Duration::from_secs(1)));
    master.simulator.control().apply_fault(&Fault::ExpireTokens);
    let gateway = gateway.with_deadline(Instant::now() + Duration::from_millis(1_500));
    match gateway.device_list().await {
        Err(error) if error.grpc_code() == Some(Code::Unauthenticated) => {
            assert!(!error.outcome_unknown(), "{error}");
        }
        other => panic!("{other:?}"),
    }
}

/// The call is rejected after a second, its login takes another, and it is repeated for the rest.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_runs_out_after_a_login_names_its_whole_deadline() {
    let master = Master::start(&["a"], 1).await;
    let gateway = master.client("a").await;
    gateway.device_list().await.unwrap();
    master.simulator.control().apply_fault(&Fault::latency(Duration::from_secs(1)));
    master.simulator.control().apply_fault(&Fault::ExpireTokens);
    let deadline = Duration::from_millis(2_500);
    let gateway = gateway.with_deadline(Instant::now() + deadline);
    match gateway.device_list().await {
        Err(Error::Deadline {
            method: Method { name: "GetDeviceList", .. },
            deadline: named,
            ..
        }) => {
            assert!(named <= deadline && named > Duration::from_secs(2), "{named:?}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_wait_for_a_login_that_fails_do_not_log_in_themselves() {
    let master = Master::start(&["a"], 1).await;
    let gateway = master.client("a").await;
    gateway.device_list().await.unwrap();
    let control = master.simulator.control();
    let logins = master.calls("Login");
    control.apply_fault(&Fault::fail("Login", Code::PermissionDenied, "tenant1 is being edited"));
    control.apply_fault(&Fault::latency(Duration::from_millis(500)));
    control.apply_fault(&Fault::ExpireTokens);
    let calls: Vec<_> = (0..8)
        .map(|_| {
            let gateway = gateway.clone();
            tokio::spawn(async move { gateway.device_list().await.unwrap_err() })
        })
        .collect();
    for call in calls {
        let error = call.await.unwrap();
        assert!(matches!(error, Error::LoginRefused { .. }), "{error}");
    }
    assert_eq!(master.calls("Login") - logins, 1);
    // A later call logs in.
    control.apply_fault(&Fault::Heal);
    gateway.device_list().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_renewal_is_the_last_error_until_there_is_another_token() {
    let master = Master::start_with(&["a"], 1, |mut settings| {
        settings.master.as_mut().unwrap().token_lifetime = Duration::from_secs(20);
        settings
    })
    .await;
    let campus = Campus::with(master, "", &behind("a", "campus", "a", SOON_LOST)).await;
    campus.see_state("a", "online").await;
    campus.master.fault(&Fault::fail("Login", Code::PermissionDenied, "tenant1 is being edited"));
    eventually("a renewal", || (campus.master.calls("Login") >= 2).then_some(())).await;
    let error = campus.see_master("an error", |info| info["last_error"].is_object());
    let info = tokio::time::timeout(Duration::from_secs(5), error).await.expect("at once");
    assert_eq!(info["last_error"]["code"], "login_refused", "{info}");
    assert_eq!(info["state"], "online", "{info}");
    campus.watcher.clear();
    campus.master.fault(&Fault::Heal);
    campus.master.fault(&Fault::ExpireTokens);
    // The next list logs in again.
    let info = campus.see_master("no error", |info| info["last_error"].is_null()).await;
    assert_eq!(info["state"], "online", "{info}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_that_is_refused_ends_the_link_only_when_its_token_has_expired() {
    let master = Master::start_with(&["a"], 1, |mut settings| {
        settings.master.as_mut().unwrap().token_lifetime = Duration::from_secs(8);
        settings
    })
    .await;
    let campus = Campus::with(master, "", "").await;
    campus.see_state("campus_a", "online").await;
    campus.master.fault(&Fault::fail("Login", Code::PermissionDenied, "tenant1 is being edited"));
    eventually("a renewal", || (campus.master.calls("Login") >= 2).then_some(())).await;
    let device = campus.master.devices[0][0];
    campus.master.fault(&Fault::power(device, false));
    campus.see_event(&format!("campus_a/{device}"), "disconnected").await;
    assert_eq!(campus.master.simulator.control().connections_count(), 1, "on one connection");
    assert!(campus.master.simulator.control().subscriptions().len() == 1, "on one stream");
    // The next renewal is due 10 s after the first, and the master is lost 10 s after that.
    eventually("another renewal", || (campus.master.calls("Login") >= 3).then_some(())).await;
    let info = campus.see_master("lost", |info| info["state"] == "lost").await;
    assert_eq!(info["last_error"]["code"], "login_refused", "{info}");
}
