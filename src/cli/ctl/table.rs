//! Answers as tables for people.
//!
//! May not decide what is in an answer.

use serde_json::Value;

/// The columns of a command's rows: the field, and its head.
type Columns = &'static [(&'static str, &'static str)];

const DEVICES: Columns = &[
    ("device_id", "ID"),
    ("name", "NAME"),
    ("status", "STATUS"),
    ("ip", "ADDRESS"),
    ("port", "PORT"),
    ("mode", "MODE"),
    ("ssl", "SSL"),
    ("auto_reconnect", "REGISTERED"),
];
const FOUND: Columns = &[
    ("device_id", "ID"),
    ("type", "TYPE"),
    ("ip", "ADDRESS"),
    ("port", "PORT"),
    ("mode", "MODE"),
    ("ssl", "SSL"),
    ("server", "SERVER"),
];
const PENDING: Columns =
    &[("device_id", "ID"), ("type", "TYPE"), ("ip", "ADDRESS"), ("last_try", "LAST TRY")];
const SLAVES: Columns = &[("device_id", "ID"), ("rs485", "RS-485"), ("wiegand", "WIEGAND")];
const STEPS: Columns =
    &[("device_id", "ID"), ("step", "STEP"), ("result", "RESULT"), ("message", "")];

/// An answer's data as text.
pub(super) fn of(command: &str, data: &Value) -> String {
    let (key, columns) = match command {
        "devices" => ("devices", DEVICES),
        "search" => ("devices", FOUND),
        "pending" => ("devices", PENDING),
        "slaves/get" => ("slaves", SLAVES),
        _ => ("steps", STEPS),
    };
    if let Some(rows) = data.get(key).and_then(Value::as_array) {
        return if rows.is_empty() { "none\n".to_owned() } else { table(columns, rows) };
    }
    let Some(fields) = data.as_object().filter(|fields| !fields.is_empty()) else {
        return "done\n".to_owned();
    };
    fields.iter().map(|(key, value)| format!("{key}: {}\n", word(value))).collect()
}

fn table(columns: Columns, rows: &[Value]) -> String {
    let cells = |row: &Value| -> Vec<String> {
        columns.iter().map(|(key, _)| row.get(key).map(word).unwrap_or_default()).collect()
    };
    let head: Vec<String> = columns.iter().map(|(_, head)| (*head).to_owned()).collect();
    let lines: Vec<Vec<String>> = std::iter::once(head).chain(rows.iter().map(cells)).collect();
    let width = |at: usize| {
        lines.iter().filter_map(|line| line.get(at)).map(|cell| cell.chars().count()).max()
    };
    let widths: Vec<usize> = (0..columns.len()).filter_map(width).collect();
    let padded = |line: &Vec<String>| {
        let cells = line.iter().zip(&widths).map(|(cell, &width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    lines.iter().map(padded).collect()
}

/// A value for people.
fn word(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::Array(items) if items.is_empty() => "-".to_owned(),
        Value::Array(items) => items.iter().map(word).collect::<Vec<_>>().join(","),
        Value::String(text) => text.chars().filter(|c| !c.is_control()).collect(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rows_stand_below_their_heads() {
        let data = json!({"slaves": [
            {"device_id": 7, "rs485": [8, 9], "wiegand": []},
            {"device_id": 544_114_231, "rs485": [], "wiegand": [1]},
        ]});
        let expected = "ID         RS-485  WIEGAND\n7          8,9     -\n544114231  -       1\n";
        assert_eq!(of("slaves/get", &data), expected);
        assert_eq!(of("pending", &json!({"devices": []})), "none\n");
        assert_eq!(of("disconnect_all", &json!({})), "done\n");
        assert_eq!(of("connect", &json!({"device_id": 7})), "device_id: 7\n");
    }
}
