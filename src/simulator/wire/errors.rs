//! Refusals as gRPC statuses, and the errors of single devices as their details.
//!
//! May not decide what is refused. Since V1.4 a `Multi` call that fails on some devices is a gRPC
//! error whose `grpc-status-details-bin` is a `google.rpc.Status` with one `Any` of
//! `MultiErrorResponse`; its type name follows the package age (wire, section 1).

use prost::Message;
use tonic::{Code, Status};

use super::front::Package;
use crate::proto::err::{ErrorResponse, MultiErrorResponse};
use crate::simulator::gateway::Refusal;

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        Self::new(refusal.code, refusal.message)
    }
}

/// The devices on which a `Multi` call failed.
pub(crate) fn device_errors(failed: &[(u32, Refusal)]) -> Vec<ErrorResponse> {
    let one = |(id, refusal): &(u32, Refusal)| ErrorResponse {
        device_id: *id,
        code: refusal.code as i32,
        msg: refusal.message.clone(),
    };
    failed.iter().map(one).collect()
}

/// The outcome of a `Multi` call: nothing failed, or a status with the failures as its details.
///
/// Its code is that of the failures where they agree, else UNKNOWN.
pub(crate) fn multi(failed: &[(u32, Refusal)], package: Package) -> Result<(), Box<Status>> {
    let Some((_, first)) = failed.first() else { return Ok(()) };
    let agreed = failed.iter().all(|(_, refusal)| refusal.code == first.code);
    let code = if agreed { first.code } else { Code::Unknown };
    let message = format!("the command failed on {} of the devices", failed.len());
    let value = MultiErrorResponse { device_errors: device_errors(failed) }.encode_to_vec();
    let type_url = format!("type.googleapis.com/{}err.MultiErrorResponse", package.prefix());
    let details = vec![Any { type_url, value }];
    // Clients compare code and message in here with those of the call itself.
    let details = RpcStatus { code: code as i32, message: message.clone(), details };
    Err(Box::new(Status::with_details(code, message, details.encode_to_vec().into())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_details_name_the_type_by_the_package_age() {
        let failed = [(7, Refusal::new(Code::NotFound, "no device 7"))];
        for (package, url) in [
            (Package::Gsdk, "type.googleapis.com/gsdk.err.MultiErrorResponse"),
            (Package::Bare, "type.googleapis.com/err.MultiErrorResponse"),
        ] {
            let status = multi(&failed, package).unwrap_err();
            let details = RpcStatus::decode(status.details()).unwrap();
            assert_eq!(details.code, status.code() as i32);
            assert_eq!(details.message, status.message());
            assert_eq!(details.details[0].type_url, url);
            let inner = MultiErrorResponse::decode(details.details[0].value.as_slice()).unwrap();
            assert_eq!(inner.device_errors[0].device_id, 7);
            assert_eq!(inner.device_errors[0].code, 5);
        }
    }
}
