//! Messages that the generated types do not cover: a master's requests to one of its gateways, and
//! the errors of `Multi` calls.

use std::collections::BTreeSet;

use prost::Message;
use prost::bytes::{Buf, BufMut};
use prost::encoding::{DecodeContext, WireType};
use tonic::{Code, Status};

use super::interceptor::Package;
use crate::proto::err::{ErrorResponse, MultiErrorResponse};

/// A request to a master for one of its gateways: the gateway's ID in field 1,
/// then the fields of the device gateway's own request, each with the next number. Only decoded.
#[derive(Debug, Default)]
pub(crate) struct ForGateway<M> {
    pub(crate) gateway_id: String,
    pub(crate) request: M,
}

impl<M: Message + Default> Message for ForGateway<M> {
    fn encode_raw(&self, _: &mut impl BufMut) {}

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), prost::DecodeError> {
        match tag {
            1 => prost::encoding::string::merge(wire_type, &mut self.gateway_id, buf, context),
            _ => self.request.merge_field(tag - 1, wire_type, buf, context),
        }
    }

    fn encoded_len(&self) -> usize {
        0
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

/// A `Multi` call: acts on each device on its own. An ID given twice counts once.
pub(crate) fn for_each(
    ids: Vec<u32>,
    package: Package,
    act: impl Fn(u32) -> Result<(), Status>,
) -> Result<(), Status> {
    let ids: BTreeSet<u32> = ids.into_iter().collect();
    let failed = |id| act(id).err().map(|status| (id, status));
    multi_result(&ids.into_iter().filter_map(failed).collect::<Vec<_>>(), package)
}

/// The result of a `Multi` call: an error if there are failed devices. Its code is that of the
/// devices' errors where they agree, else UNKNOWN.
///
/// Since V1.4 the failed devices are in its `grpc-status-details-bin`, a `google.rpc.Status` with
/// one `MultiErrorResponse`, whose type name follows the package names of the call.
fn multi_result(failed: &[(u32, Status)], package: Package) -> Result<(), Status> {
    let Some((_, first)) = failed.first() else { return Ok(()) };
    let agreed = failed.iter().all(|(_, status)| status.code() == first.code());
    let code = if agreed { first.code() } else { Code::Unknown };
    let message = format!("the command failed on {} of the devices", failed.len());
    let error = |(id, status): &(u32, Status)| ErrorResponse {
        device_id: *id,
        code: status.code().into(),
        msg: status.message().to_owned(),
    };
    let errors = MultiErrorResponse { device_errors: failed.iter().map(error).collect() };
    // Clients compare code and message in the details with those of the call itself.
    let mut details = tonic_types::Status {
        code: code.into(),
        message: message.clone(),
        details: vec![Default::default()],
    };
    for detail in &mut details.details {
        detail.type_url = format!("type.googleapis.com/{}err.MultiErrorResponse", package.prefix());
        detail.value = errors.encode_to_vec();
    }
    Err(Status::with_details(code, message, details.encode_to_vec().into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{connect, connect_master};

    #[test]
    fn a_masters_request_is_the_device_gateways_after_the_gateways_id() {
        let filter = connect::AcceptFilter { allow_all: true, ..Default::default() };
        let sent = connect_master::SetAcceptFilterRequest {
            gateway_id: "gateway1".to_owned(),
            filter: Some(filter.clone()),
        };
        let read = ForGateway::<connect::SetAcceptFilterRequest>::decode(&*sent.encode_to_vec());
        let ForGateway { gateway_id, request } = read.unwrap();
        assert_eq!((gateway_id.as_str(), request.filter), ("gateway1", Some(filter)));
        let sent = connect_master::DeleteAsyncConnectionDbRequest {
            gateway_id: "gateway2".to_owned(),
            device_i_ds: vec![1, 2, 3],
        };
        let bytes = sent.encode_to_vec();
        let read = ForGateway::<connect::DeleteAsyncConnectionRequest>::decode(&*bytes).unwrap();
        assert_eq!(read.request.device_i_ds, [1, 2, 3]);
        assert_eq!(ForGateway::<()>::decode(&*bytes).unwrap().gateway_id, "gateway2");
    }

    #[test]
    fn the_details_name_the_type_by_the_package() {
        let failed = [(7, Status::not_found("no device 7"))];
        for (package, url) in [
            (Package::Gsdk, "type.googleapis.com/gsdk.err.MultiErrorResponse"),
            (Package::Bare, "type.googleapis.com/err.MultiErrorResponse"),
        ] {
            let status = multi_result(&failed, package).unwrap_err();
            let details = tonic_types::Status::decode(status.details()).unwrap();
            assert_eq!(details.code, status.code() as i32);
            assert_eq!(details.message, status.message());
            assert_eq!(details.details[0].type_url, url);
            let inner = MultiErrorResponse::decode(details.details[0].value.as_slice()).unwrap();
            assert_eq!(inner.device_errors[0].device_id, 7);
            assert_eq!(inner.device_errors[0].code, 5);
        }
    }
}
