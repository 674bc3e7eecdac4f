//! Errors of `Multi` calls. Since V1.4 such a call that fails on some devices is a gRPC error whose
//! `grpc-status-details-bin` is a `google.rpc.Status` with one `Any` of `MultiErrorResponse`; its
//! type name follows the package names of the call (wire, section 1).

use prost::Message;
use tonic::{Code, Status};

use super::interceptor::Package;
use crate::proto::err::{ErrorResponse, MultiErrorResponse};

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

/// The result of a `Multi` call: an error with the failed devices in its details, if there are any.
///
/// Its code is that of the devices' errors where they agree, else UNKNOWN.
pub(crate) fn result(failed: &[(u32, Status)], package: Package) -> Result<(), Status> {
    let Some((_, first)) = failed.first() else { return Ok(()) };
    let agreed = failed.iter().all(|(_, status)| status.code() == first.code());
    let code = if agreed { first.code() } else { Code::Unknown };
    let message = format!("the command failed on {} of the devices", failed.len());
    let error = |(id, status): &(u32, Status)| ErrorResponse {
        device_id: *id,
        code: status.code().into(),
        msg: status.message().to_owned(),
    };
    let device_errors = failed.iter().map(error).collect();
    let value = MultiErrorResponse { device_errors }.encode_to_vec();
    let type_url = format!("type.googleapis.com/{}err.MultiErrorResponse", package.prefix());
    let details = vec![Any { type_url, value }];
    // Clients compare code and message in here with those of the call itself.
    let details = RpcStatus { code: code.into(), message: message.clone(), details };
    Err(Status::with_details(code, message, details.encode_to_vec().into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_details_name_the_type_by_the_package() {
        let failed = [(7, Status::not_found("no device 7"))];
        for (package, url) in [
            (Package::Gsdk, "type.googleapis.com/gsdk.err.MultiErrorResponse"),
            (Package::Bare, "type.googleapis.com/err.MultiErrorResponse"),
        ] {
            let status = result(&failed, package).unwrap_err();
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
