//! Answers as tables for people, no wider than their terminal: cells are wrapped, then columns
//! omitted where there is no room.

use comfy_table::{ColumnConstraint, ContentArrangement, Table, Width, presets};
use serde_json::{Map, Value};

use super::look::Look;
use crate::cli::escape::escaped;

/// A cell is wrapped to no less than this width.
const WRAPPED_WIDTH_MIN: u16 = 6;
/// The space between two columns.
const GAP: u16 = 2;

/// A column of a command's rows.
struct Column {
    /// The field of a row.
    key: &'static str,
    head: &'static str,
    /// Whether its cells may be wrapped.
    wraps: bool,
    /// Columns are omitted in this order where there is no room; 0 is never omitted.
    omission: u8,
}

const fn column(key: &'static str, head: &'static str) -> Column {
    Column { key, head, wraps: false, omission: 0 }
}

const fn wrapped(key: &'static str, head: &'static str) -> Column {
    Column { wraps: true, ..column(key, head) }
}

const fn optional(omission: u8, column: Column) -> Column {
    Column { omission, ..column }
}

const ID: Column = column("device_id", "ID");
const NAME: Column = wrapped("name", "NAME");
const ADDRESS: Column = column("ip", "ADDRESS");

const DEVICES: &[Column] = &[
    ID,
    NAME,
    column("status", "STATUS"),
    ADDRESS,
    optional(3, column("mode", "MODE")),
    optional(1, column("ssl", "SSL")),
    optional(2, column("auto_reconnect", "REGISTERED")),
];
const FOUND: &[Column] = &[
    ID,
    NAME,
    column("type", "TYPE"),
    ADDRESS,
    optional(2, column("mode", "MODE")),
    column("ssl", "SSL"),
    optional(1, column("server", "SERVER")),
];
const PENDING: &[Column] =
    &[ID, NAME, optional(1, column("type", "TYPE")), ADDRESS, column("last_try", "LAST TRY")];
const SLAVES: &[Column] = &[ID, NAME, wrapped("rs485", "RS-485"), wrapped("wiegand", "WIEGAND")];
const STEPS: &[Column] =
    &[ID, NAME, column("step", "STEP"), column("result", "RESULT"), wrapped("message", "")];
const NAMED: &[Column] = &[ID, NAME];

/// Formats an answer's data, and names the columns that were omitted. `name_of` gives the
/// configured name of a device.
pub(crate) fn format(
    command: &str,
    data: &Value,
    name_of: impl Fn(u64) -> Option<String>,
    look: Look,
) -> (String, Vec<&'static str>) {
    let (key, columns) = match command {
        "devices" => ("devices", DEVICES),
        "search" => ("devices", FOUND),
        "pending" => ("devices", PENDING),
        "slaves/get" => ("slaves", SLAVES),
        _ => ("steps", STEPS),
    };
    let rows = data.get(key).and_then(Value::as_array);
    match rows.map(Vec::as_slice) {
        Some([]) if key != "steps" => ("none\n".to_owned(), Vec::new()),
        Some(rows @ [_, ..]) => table(columns, rows, name_of, look),
        _ => fields(data.as_object(), name_of, look),
    }
}

/// Data without rows: one field a line, and devices as a table of their names.
fn fields(
    data: Option<&Map<String, Value>>,
    name_of: impl Fn(u64) -> Option<String>,
    look: Look,
) -> (String, Vec<&'static str>) {
    let (mut lines, mut devices) = (String::new(), Vec::new());
    for (key, value) in data.into_iter().flatten().filter(|(key, _)| *key != "steps") {
        match (key.as_str(), value) {
            ("device_ids", Value::Array(ids)) if !ids.is_empty() => {
                devices = ids.iter().map(|id| serde_json::json!({ "device_id": id })).collect();
            }
            ("device_id", id) => {
                let name = id.as_u64().and_then(&name_of);
                let name = name.map(|name| format!(" ({})", escaped(&name)));
                lines += &format!("{key}: {id}{}\n", name.unwrap_or_default());
            }
            _ => lines += &format!("{key}: {}\n", text(value)),
        }
    }
    if lines.is_empty() && devices.is_empty() {
        return ("done\n".to_owned(), Vec::new());
    }
    let (rows, omitted) =
        if devices.is_empty() { Default::default() } else { table(NAMED, &devices, name_of, look) };
    (lines + &rows, omitted)
}

fn table(
    columns: &[Column],
    rows: &[Value],
    name_of: impl Fn(u64) -> Option<String>,
    look: Look,
) -> (String, Vec<&'static str>) {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(columns.iter().map(|column| column.head));
    for row in rows {
        table.add_row(columns.iter().map(|column| cell(row, column.key, &name_of)));
    }
    let omitted = fit(&mut table, columns, look.width);
    let mut text = String::new();
    for (index, line) in table.lines().enumerate() {
        // The head is one line, as its cells are never wrapped.
        let paint = |word: &str| match index {
            0 if !word.is_empty() => look.bold(word.to_owned()),
            _ => look.coloured(word, word.to_owned()),
        };
        let words: Vec<String> = line.trim_end().split(' ').map(paint).collect();
        text += &words.join(" ");
        text.push('\n');
    }
    (text, omitted)
}

/// Sets how far each column may shrink, and hides columns until the others fit.
fn fit(table: &mut Table, columns: &[Column], room: Option<u16>) -> Vec<&'static str> {
    let widths = table.column_max_content_widths();
    let least = |(column, width): (&Column, &u16)| {
        let head = u16::try_from(column.head.len()).unwrap_or(u16::MAX);
        if column.wraps { WRAPPED_WIDTH_MIN.max(head).min(*width) } else { *width }
    };
    let least: Vec<u16> = columns.iter().zip(&widths).map(least).collect();
    let mut shown: Vec<usize> = (0..columns.len()).collect();
    let mut omitted = Vec::new();
    while let Some(room) = room {
        let needed = shown.iter().filter_map(|&at| least.get(at)).map(|width| width + GAP);
        if needed.fold(0, u16::saturating_add) <= room.saturating_add(GAP) {
            break;
        }
        let optional = shown.iter().filter_map(|&at| Some((at, columns.get(at)?)));
        let optional = optional.filter(|(_, column)| column.omission > 0);
        let Some((at, column)) = optional.min_by_key(|(_, column)| column.omission) else { break };
        shown.retain(|shown| *shown != at);
        omitted.push(column.head);
    }
    for (at, column) in table.column_iter_mut().enumerate() {
        let gap = if shown.last() == Some(&at) { 0 } else { GAP };
        column.set_padding((0, gap));
        column.set_constraint(match (columns.get(at), least.get(at)) {
            _ if !shown.contains(&at) => ColumnConstraint::Hidden,
            (Some(Column { wraps: true, .. }), Some(least)) => {
                ColumnConstraint::LowerBoundary(Width::Fixed(least + gap))
            }
            _ => ColumnConstraint::ContentWidth,
        });
    }
    if let Some(room) = room {
        table.set_width(room);
    }
    omitted
}

fn cell(row: &Value, key: &str, name_of: impl Fn(u64) -> Option<String>) -> String {
    match (row.get(key), key) {
        (Some(Value::String(ip)), "ip") => match row.get("port").and_then(Value::as_u64) {
            // A device that dials the gateway has no port of its own.
            None | Some(0) => ip.clone(),
            Some(port) => format!("{ip}:{port}"),
        },
        (Some(value), _) => text(value),
        (None, "name") => {
            let id = row.get("device_id").and_then(Value::as_u64);
            id.and_then(name_of).map_or_else(|| "-".to_owned(), |name| escaped(&name))
        }
        (None, _) => String::new(),
    }
}

/// A value for people.
fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::Array(items) if items.is_empty() => "-".to_owned(),
        Value::Array(items) => items.iter().map(text).collect::<Vec<_>>().join(", "),
        Value::String(text) => escaped(text),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shown(command: &str, data: &Value, look: Look) -> (String, Vec<&'static str>) {
        format(command, data, |id| (id == 7).then(|| "Front door".to_owned()), look)
    }

    fn row(id: u32, status: &str) -> Value {
        json!({
            "device_id": id, "name": "Front door of the house", "status": status,
            "ip": "192.168.0.101", "port": 51211, "mode": "server_to_device", "ssl": false,
            "auto_reconnect": true,
        })
    }

    #[test]
    fn rows_stand_below_their_heads() {
        let data = json!({"slaves": [
            {"device_id": 7, "rs485": [8, 9], "wiegand": []},
            {"device_id": 544_114_231, "rs485": [], "wiegand": [1]},
        ]});
        let expected = "ID         NAME        RS-485  WIEGAND\n\
                        7          Front door  8, 9    -\n\
                        544114231  -           -       1\n";
        let plain = |command, data: &Value| shown(command, data, Look::default()).0;
        assert_eq!(plain("slaves/get", &data), expected);
        assert_eq!(plain("pending", &json!({"devices": []})), "none\n");
        assert_eq!(plain("disconnect_all", &json!({})), "done\n");
        assert_eq!(plain("connect", &json!({"device_id": 7})), "device_id: 7 (Front door)\n");
        let filter = json!({"allow_all": false, "device_ids": [7, 8], "ips": []});
        let expected = "allow_all: no\nips: -\nID  NAME\n7   Front door\n8   -\n";
        assert_eq!(plain("accept_filter/get", &filter), expected);
        let bare = json!({"device_ids": [8], "steps": []});
        assert_eq!(plain("mode/set", &bare), "ID  NAME\n8   -\n");
    }

    #[test]
    fn a_table_fits_the_terminal_and_omits_columns() {
        let data = json!({"devices": [row(540_092_578, "tcp_connected")]});
        for width in 20..140 {
            let look = Look { width: Some(width), colours: false };
            let (text, omitted) = shown("devices", &data, look);
            let widest = text.lines().map(str::len).max().unwrap();
            assert!(widest <= usize::from(width) || omitted.len() == 3, "{width}:\n{text}");
            assert!(text.contains("540092578") && text.contains("tcp_connected"), "{text}");
            assert_eq!(text.contains("REGISTERED"), !omitted.contains(&"REGISTERED"));
        }
        let (text, omitted) = shown("devices", &data, Look { width: Some(80), colours: false });
        assert_eq!(omitted, ["SSL", "REGISTERED"], "{text}");
        let expected = "ID         NAME             STATUS         ADDRESS              MODE\n\
                        540092578  Front door of    tcp_connected  192.168.0.101:51211  \
                        server_to_device\n           the house\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn wide_letters_are_aligned() {
        let name_of = |id| Some(if id == 7 { "정문" } else { "Hall" }.to_owned());
        let data =
            json!({"slaves": [{"device_id": 7, "rs485": [1]}, {"device_id": 8, "rs485": [2]}]});
        let (text, _) = format("slaves/get", &data, name_of, Look::default());
        let expected = "ID  NAME  RS-485  WIEGAND\n7   정문  1\n8   Hall  2\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn colours_change_no_width() {
        let data = json!({"devices": [row(7, "tcp_connected"), row(8, "tls_not_allowed")]});
        let plain = shown("devices", &data, Look::default()).0;
        let coloured = shown("devices", &data, Look { width: None, colours: true }).0;
        assert!(coloured.contains("\x1b[32mtcp_connected\x1b[0m  "), "{coloured:?}");
        assert!(coloured.contains("\x1b[31mtls_not_allowed\x1b[0m"), "{coloured:?}");
        let codes = ["\x1b[0m", "\x1b[1m", "\x1b[31m", "\x1b[32m"];
        let bare = codes.iter().fold(coloured, |text, code| text.replace(code, ""));
        assert_eq!(bare, plain);
        assert!(!plain.contains('\x1b'));
    }
}
