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
    ("name", "NAME"),
    ("type", "TYPE"),
    ("ip", "ADDRESS"),
    ("port", "PORT"),
    ("mode", "MODE"),
    ("ssl", "SSL"),
    ("server", "SERVER"),
];
const PENDING: Columns = &[
    ("device_id", "ID"),
    ("name", "NAME"),
    ("type", "TYPE"),
    ("ip", "ADDRESS"),
    ("last_try", "LAST TRY"),
];
const SLAVES: Columns = &[("device_id", "ID"), ("rs485", "RS-485"), ("wiegand", "WIEGAND")];
const STEPS: Columns =
    &[("device_id", "ID"), ("step", "STEP"), ("result", "RESULT"), ("message", "")];

/// An answer's data as text; `name_of` is what the configuration calls a device.
pub(super) fn of(command: &str, data: &Value, name_of: impl Fn(u64) -> Option<String>) -> String {
    let (key, columns) = match command {
        "devices" => ("devices", DEVICES),
        "search" => ("devices", FOUND),
        "pending" => ("devices", PENDING),
        "slaves/get" => ("slaves", SLAVES),
        _ => ("steps", STEPS),
    };
    if let Some(rows) = data.get(key).and_then(Value::as_array) {
        return match (rows.as_slice(), key) {
            ([], "steps") => String::new(),
            ([], _) => "none\n".to_owned(),
            (rows, _) => table(columns, rows, name_of),
        };
    }
    let Some(fields) = data.as_object().filter(|fields| !fields.is_empty()) else {
        return "done\n".to_owned();
    };
    fields.iter().map(|(key, value)| format!("{key}: {}\n", word(value))).collect()
}

fn table(columns: Columns, rows: &[Value], name_of: impl Fn(u64) -> Option<String>) -> String {
    let cell = |row: &Value, key: &str| match (row.get(key), key) {
        (Some(value), _) => word(value),
        (None, "name") => {
            let id = row.get("device_id").and_then(Value::as_u64);
            id.and_then(&name_of).unwrap_or_else(|| "-".to_owned())
        }
        (None, _) => String::new(),
    };
    let cells = |row: &Value| columns.iter().map(|(key, _)| cell(row, key)).collect();
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
        let of = |command: &str, data: &Value| of(command, data, |id| Some(format!("Door {id}")));
        assert_eq!(of("slaves/get", &data), expected);
        let found = of("search", &json!({"devices": [{"device_id": 7}]}));
        assert!(found.contains("\n7   Door 7"), "{found}");
        assert_eq!(of("pending", &json!({"devices": []})), "none\n");
        assert_eq!(of("disconnect_all", &json!({})), "done\n");
        assert_eq!(of("connect", &json!({"device_id": 7})), "device_id: 7\n");
    }
}
