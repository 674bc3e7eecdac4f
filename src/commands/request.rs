//! Parses requests. Every client that can publish to the broker can send any bytes, so each refusal
//! names the field and the expected value.

use std::fmt;
use std::time::Duration;

use serde::de::{DeserializeOwned, Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::failure::Failure;
use super::values;
use crate::ids::CommandName;

/// The longest transaction, in bytes.
const TRANSACTION_LEN_MAX: usize = 256;
/// The most characters of a refusal that quotes the request.
const QUOTE_LEN_MAX: usize = 200;

/// What precedes the example in the refusal of a field.
pub const EXAMPLE_FOLLOWS: &str = "; a request that is accepted: ";

/// A request that can be run; `C` is the command with its fields.
#[derive(Clone, Debug, PartialEq)]
pub struct Request<C> {
    pub name: CommandName,
    pub command: C,
    /// The requester's own name for this request.
    pub transaction: Option<Transaction>,
    /// The command's deadline.
    pub timeout: Option<Duration>,
    /// Who sent it, by the requester's own claim.
    pub requested_by: Option<String>,
}

/// A request that cannot be run.
#[derive(Clone, Debug, PartialEq)]
pub struct RefusedRequest {
    /// The request's transaction, if it could be read.
    pub transaction: Option<Transaction>,
    pub failure: Failure,
}

/// The fields of a request beside those of its command.
#[derive(Deserialize)]
struct Header {
    #[serde(default, deserialize_with = "values::seconds::<_, 600>")]
    timeout_s: Option<Duration>,
    #[serde(default, deserialize_with = "values::requested_by")]
    requested_by: Option<String>,
}

/// The fields of a command.
#[derive(Debug)]
pub(crate) struct Fields {
    name: CommandName,
    map: Map<String, Value>,
}

impl<C> Request<C> {
    /// Reads a payload; an empty one is `{}`.
    pub(crate) fn read(
        name: CommandName,
        payload: &[u8],
        read_command: impl FnOnce(Fields) -> Result<C, Failure>,
    ) -> Result<Self, RefusedRequest> {
        let refused = |failure| RefusedRequest { transaction: None, failure };
        let mut map = object(payload).map_err(refused)?;
        let transaction = Transaction::take(&mut map, payload).map_err(refused)?;
        let read = || {
            let keys = ["timeout_s", "requested_by"].into_iter();
            let header = keys.filter_map(|key| map.remove_entry(key)).collect();
            let Header { timeout_s, requested_by } = Fields { name, map: header }.read()?;
            Ok((read_command(Fields { name, map })?, timeout_s, requested_by))
        };
        match read() {
            Ok((command, timeout, requested_by)) => {
                Ok(Self { name, command, transaction, timeout, requested_by })
            }
            Err(failure) => Err(RefusedRequest { transaction, failure }),
        }
    }
}

impl Fields {
    pub(crate) fn has(&self, key: &str) -> bool {
        self.map.get(key).is_some_and(|value| !value.is_null())
    }

    /// Checks that there are none.
    pub(crate) fn none(self) -> Result<(), Failure> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct NoFields {}
        self.read().map(|NoFields {}| ())
    }

    /// The fields as `T`.
    pub(crate) fn read<T: DeserializeOwned>(self) -> Result<T, Failure> {
        let example = self.name.example();
        let refuse = |place: &str, wrong: &str| {
            let place = if matches!(place, "" | ".") { "" } else { &format!("{place}: ") };
            let text = printable(&format!("{place}{wrong}"));
            Failure::invalid(format!("{text}{EXAMPLE_FOLLOWS}{example}"))
        };
        // serde reads an array as the fields of an object in their order.
        let array_at = self.map.iter().find_map(|(key, value)| {
            let at = value.as_array()?.iter().position(Value::is_array)?;
            Some(format!("{key}[{at}]"))
        });
        let fields = serde_path_to_error::deserialize(Value::Object(self.map))
            .map_err(|error| refuse(&error.path().to_string(), &error.inner().to_string()))?;
        let wrong = "invalid type: sequence, expected an object in braces";
        array_at.map_or(Ok(fields), |place| Err(refuse(&place, wrong)))
    }
}

/// The text in one line, cut to a length that fits a log.
fn printable(text: &str) -> String {
    let mut chars = text.chars();
    let printable = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
    let mut cut: String = chars.by_ref().take(QUOTE_LEN_MAX).map(printable).collect();
    if chars.next().is_some() {
        cut.push_str("...");
    }
    cut
}

/// The transaction of a request whose other fields are not read, if it is valid.
pub fn transaction_of(payload: &[u8]) -> Option<Transaction> {
    Transaction::take(&mut object(payload).ok()?, payload).ok().flatten()
}

fn object(payload: &[u8]) -> Result<Map<String, Value>, Failure> {
    if payload.is_empty() {
        return Ok(Map::new());
    }
    match serde_json::from_slice(payload) {
        Ok(UniqueKeys(Value::Object(map))) => Ok(map),
        Ok(_) => Err(Failure::invalid("the request is no JSON object; put it in braces: {...}")),
        Err(error) if error.is_data() => {
            Err(Failure::invalid(format!("{}; keep one of them", printable(&error.to_string()))))
        }
        Err(error) if std::str::from_utf8(payload).is_err() => {
            Err(Failure::invalid(format!("the request is not UTF-8 text; send JSON ({error})")))
        }
        Err(error) => Err(Failure::invalid(format!(
            "the request cannot be read as JSON: {error}; send an object, as in {{\"wait_s\":5}}"
        ))),
    }
}

/// A value whose objects have no key twice: one of its two values would be ignored.
struct UniqueKeys(Value);

impl<'de> Deserialize<'de> for UniqueKeys {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        source.deserialize_any(UniqueKeysVisitor).map(Self)
    }
}

struct UniqueKeysVisitor;

impl<'de> Visitor<'de> for UniqueKeysVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(UniqueKeys(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(list.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some((key, UniqueKeys(value))) = entries.next_entry::<String, _>()? {
            if map.contains_key(&key) {
                return Err(A::Error::custom(format_args!("field `{key}` is given twice")));
            }
            map.insert(key, value);
        }
        Ok(map.into())
    }
}

/// The `transaction` of a request: text or a number, returned exactly as sent. A number is kept as
/// text, because as a number it would lose digits beyond the 17th.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(transparent)]
pub struct Transaction(Box<RawValue>);

impl Transaction {
    /// Takes the transaction from the fields of this payload.
    pub(crate) fn take(
        fields: &mut Map<String, Value>,
        payload: &[u8],
    ) -> Result<Option<Self>, Failure> {
        let value = fields.remove("transaction").filter(|value| !value.is_null());
        let Some(value) = value else { return Ok(None) };
        let transaction = match &value {
            Value::String(_) | Value::Number(_) => Self::verbatim(payload),
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
        };
        let transaction = transaction.ok_or_else(|| {
            Failure::invalid("transaction is neither text nor a number; send one of these")
        })?;
        let len = value.as_str().map_or(transaction.0.get().len(), str::len);
        if len > TRANSACTION_LEN_MAX {
            return Err(Failure::invalid(format!(
                "transaction is longer than {TRANSACTION_LEN_MAX} bytes; choose a shorter one"
            )));
        }
        Ok(Some(transaction))
    }

    fn verbatim(payload: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Named {
            transaction: Transaction,
        }
        serde_json::from_slice(payload).ok().map(|named: Named| named.transaction)
    }
}

impl PartialEq for Transaction {
    fn eq(&self, other: &Self) -> bool {
        self.0.get() == other.0.get()
    }
}

impl fmt::Display for Transaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.get())
    }
}

#[cfg(test)]
mod tests;
