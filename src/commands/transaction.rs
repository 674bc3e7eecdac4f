//! The `transaction` of a request: text or a number, returned exactly as sent. A number is kept as
//! text, because as a number it would lose digits beyond the 17th.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::failure::Failure;

/// The longest transaction, in bytes.
const LEN_MAX: usize = 256;

/// Text or a number, as JSON.
#[derive(Clone, Debug, Serialize)]
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
            Value::String(_) | Value::Number(_) => Self::verbatim(payload, &value),
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
        };
        let transaction = transaction.ok_or_else(|| {
            Failure::invalid("transaction is neither text nor a number; send one of these")
        })?;
        let len = value.as_str().map_or(transaction.0.get().len(), str::len);
        if len > LEN_MAX {
            return Err(Failure::invalid(format!(
                "transaction is longer than {LEN_MAX} bytes; choose a shorter one"
            )));
        }
        Ok(Some(transaction))
    }

    fn verbatim(payload: &[u8], value: &Value) -> Option<Self> {
        #[derive(Deserialize)]
        struct Named {
            transaction: Box<RawValue>,
        }
        // Fails where the key occurs twice; then the last value counts.
        let found = serde_json::from_slice(payload).ok().map(|named: Named| named.transaction);
        found.or_else(|| RawValue::from_string(value.to_string()).ok()).map(Self)
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
