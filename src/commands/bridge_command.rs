//! The commands of the bridge itself: publish all retained topics again, and forget devices.

use std::collections::BTreeSet;

use serde::Deserialize;

use super::failure::{Failure, FailureCode};
use super::request::{Fields, RefusedRequest, Request};
use super::values::{self, List};
use crate::ids::{CommandName, DeviceId, GatewayName};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BridgeCommand {
    /// Publish all retained topics again.
    Republish,
    /// Forget devices that are neither managed nor configured, or, without `device_ids`, a gateway
    /// that is not configured.
    Forget { gateway: GatewayName, device_ids: Option<BTreeSet<DeviceId>> },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ForgetFields {
    gateway: GatewayName,
    device_id: Option<DeviceId>,
    device_ids: Option<List<DeviceId>>,
}

impl BridgeCommand {
    /// Reads a request to the bridge itself.
    ///
    /// # Errors
    /// With a message that names the mistake and the remedy.
    pub fn read_request(
        name: CommandName,
        payload: &[u8],
    ) -> Result<Request<Self>, RefusedRequest> {
        Request::read(name, payload, |fields| Self::read(name, fields))
    }

    fn read(name: CommandName, fields: Fields) -> Result<Self, Failure> {
        match name {
            CommandName::Republish => fields.none().map(|()| Self::Republish),
            CommandName::Forget => {
                let ForgetFields { gateway, device_id, device_ids } = fields.read()?;
                let device_ids = values::some_devices(device_id, device_ids)?;
                Ok(Self::Forget { gateway, device_ids })
            }
            _ => {
                let message = format!("{name} is not run by the bridge; request it of a gateway");
                Err(Failure::new(FailureCode::UnknownCommand, message))
            }
        }
    }
}
