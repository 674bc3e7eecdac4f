//! A request as it came, read into a typed one.
//!
//! May not believe anything: whoever may publish to the broker may send any bytes.

use std::time::Duration;

use serde_json::{Map, Value};

use super::command::Command;
use super::failure::Failure;
use super::fields::Fields;
use super::name::Name;
use super::transaction::Transaction;

/// The least and the most that a command may be given, in seconds.
const TIMEOUT_S: (f64, f64) = (0.1, 600.0);
/// The longest name of who asks, in characters (contract, section 4).
const REQUESTED_BY_LEN_MAX: usize = 64;

/// A request that can be run.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// Which command.
    pub name: Name,
    /// The command with all it needs.
    pub command: Command,
    /// What the requester calls this request: a text or a number.
    pub transaction: Option<Transaction>,
    /// How long it may take.
    pub timeout: Option<Duration>,
    /// Who asks, as claimed.
    pub requested_by: Option<String>,
}

/// A request that cannot be run.
#[derive(Clone, Debug, PartialEq)]
pub struct Refused {
    /// The request's transaction, where it could be read.
    pub transaction: Option<Transaction>,
    /// Why.
    pub failure: Failure,
}

impl Request {
    /// Reads a payload; an empty one is `{}`.
    ///
    /// # Errors
    /// With a message that names what is wrong and says what to do.
    pub fn read(name: Name, payload: &[u8]) -> Result<Self, Refused> {
        let map = object(payload).map_err(|failure| Refused { transaction: None, failure })?;
        let mut fields = Fields::new(map, "");
        let transaction = Transaction::read(&mut fields, payload)
            .map_err(|failure| Refused { transaction: None, failure })?;
        match read_fields(name, fields) {
            Ok((command, timeout, requested_by)) => {
                Ok(Self { name, command, transaction, timeout, requested_by })
            }
            Err(failure) => Err(Refused { transaction, failure }),
        }
    }
}

fn read_fields(
    name: Name,
    mut fields: Fields,
) -> Result<(Command, Option<Duration>, Option<String>), Failure> {
    let timeout = timeout(&mut fields)?;
    let requested_by = requested_by(&mut fields)?;
    let command = Command::read(name, &mut fields)?;
    fields.finish()?;
    if let (Command::Search { wait }, Some(timeout)) = (&command, timeout)
        && timeout <= *wait
    {
        return Err(Failure::invalid(
            "timeout_s is not longer than wait_s, and a search is answered only after that; raise \
             timeout_s or leave it out",
        ));
    }
    Ok((command, timeout, requested_by))
}

/// The transaction of a request that is not read any further, if it has a proper one.
#[must_use]
pub fn transaction_of(payload: &[u8]) -> Option<Transaction> {
    let mut fields = Fields::new(object(payload).ok()?, "");
    Transaction::read(&mut fields, payload).ok().flatten()
}

pub(super) fn object(payload: &[u8]) -> Result<Map<String, Value>, Failure> {
    if payload.is_empty() {
        return Ok(Map::new());
    }
    match serde_json::from_slice(payload) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(Failure::invalid("the request is no JSON object; put it in braces: {...}")),
        Err(error) if std::str::from_utf8(payload).is_err() => {
            Err(Failure::invalid(format!("the request is not UTF-8 text; send JSON ({error})")))
        }
        Err(error) => Err(Failure::invalid(format!(
            "the request cannot be read as JSON: {error}; send an object, as in {{\"wait_s\":5}}"
        ))),
    }
}

pub(super) fn timeout(fields: &mut Fields) -> Result<Option<Duration>, Failure> {
    let (least, most) = TIMEOUT_S;
    fields.seconds("timeout_s", least, most)
}

pub(super) fn requested_by(fields: &mut Fields) -> Result<Option<String>, Failure> {
    let text = fields.text("requested_by")?;
    let fits = |text: &String| {
        text.chars().count() <= REQUESTED_BY_LEN_MAX && !text.chars().any(char::is_control)
    };
    match text {
        Some(text) if !fits(&text) => Err(Failure::invalid(format!(
            "requested_by must be at most {REQUESTED_BY_LEN_MAX} printable characters; shorten it"
        ))),
        text => Ok(text),
    }
}

#[cfg(test)]
mod tests;
