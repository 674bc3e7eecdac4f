//! Routes a call to the method of the service that it names.

use std::sync::Arc;

use axum::extract::{Request, State};
use tonic::Status;

use super::call::{Answer, Call};
use super::interceptor::Package;
use super::master_services;
use super::services::Services;

/// Answers one call.
pub(crate) async fn serve(State(services): State<Arc<Services>>, request: Request) -> Answer {
    let path = request.uri().path().to_owned();
    let (service, method) = path.trim_start_matches('/').split_once('/').unwrap_or_default();
    let (service, package) = Package::split(service);
    let interceptor = &services.interceptor;
    if let Err(status) = interceptor.admit(service, package, method).await {
        return status.into_http();
    }
    let answer = dispatch(&services, service, method, Call::new(request, package)).await;
    interceptor.delay_answer().await;
    answer
}

async fn dispatch(services: &Services, service: &str, method: &str, call: Call) -> Answer {
    let full_name = format!("{}{service}", call.package().prefix());
    let answer = match (service, &services.master) {
        ("connect.Connect", None) => services.connect(method, call).await,
        ("login.Login", Some(master)) => master_services::login(master, method, call).await,
        ("gateway.Gateway", Some(master)) => {
            master_services::gateway(services, master, method, call).await
        }
        ("connect_master.ConnectMaster", Some(master)) => {
            master_services::connect(services, master, method, call).await
        }
        _ => return unimplemented(format!("unknown service {full_name}")),
    };
    let unknown = || unimplemented(format!("unknown method {method} for service {full_name}"));
    answer.unwrap_or_else(unknown)
}

fn unimplemented(message: String) -> Answer {
    Status::unimplemented(message).into_http()
}
