//! What is asked of the bridge itself: all retained topics again, and devices to be forgotten.
//!
//! May not do it: the loop does.

use std::collections::BTreeSet;

use serde_json::Value;

use super::failure::{Failure, code};
use super::fields::Fields;
use super::request::{Refused, object, requested_by, transaction};
use crate::ids::{DeviceId, GatewayName};

/// A request to the bridge itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Own {
    /// Publish all retained topics again.
    Republish,
    /// Forget devices that are neither managed nor configured.
    Forget {
        /// Of which gateway.
        gateway: GatewayName,
        /// Which devices.
        device_ids: BTreeSet<DeviceId>,
    },
}

impl Own {
    /// Reads a payload; gives the transaction with it.
    ///
    /// # Errors
    /// With a message that names what is wrong and says what to do.
    pub fn read(command: &str, payload: &[u8]) -> Result<(Self, Option<Value>), Refused> {
        let map = object(payload).map_err(|failure| Refused { transaction: None, failure })?;
        let mut fields = Fields::new(map, "");
        let transaction =
            transaction(&mut fields).map_err(|failure| Refused { transaction: None, failure })?;
        match Self::read_fields(command, fields) {
            Ok(own) => Ok((own, transaction)),
            Err(failure) => Err(Refused { transaction, failure }),
        }
    }

    fn read_fields(command: &str, mut fields: Fields) -> Result<Self, Failure> {
        requested_by(&mut fields)?;
        let own = match command {
            "republish" => Self::Republish,
            "forget" => {
                let missing = fields.missing("gateway", "the gateway's name");
                let gateway = fields.text("gateway")?.ok_or(missing)?;
                let gateway = gateway
                    .parse()
                    .map_err(|error| Failure::invalid(format!("gateway: {error}")))?;
                Self::Forget { gateway, device_ids: fields.device_ids()? }
            }
            _ => {
                return Err(Failure::new(
                    code::UNKNOWN_COMMAND,
                    "the bridge itself takes republish and forget; all else is asked of a gateway, \
                     on its own request topic",
                ));
            }
        };
        fields.finish()?;
        Ok(own)
    }
}
