//! Answers as tables for people, no wider than their terminal.
//!
//! May not decide what is in an answer. Where there is not room for all, cells are wrapped, then
//! columns left out, and it is said which.

use serde_json::{Map, Value};
use unicode_width::UnicodeWidthStr;

use super::look::Look;
use crate::cli::escape::escaped;

/// The least width to which a cell is wrapped.
const WRAPPED_MIN: usize = 6;
/// Between two columns.
const GAP: &str = "  ";

/// A column of a command's rows.
struct Column {
    /// The field of a row.
    key: &'static str,
    head: &'static str,
    /// Whether its cells may be wrapped.
    wraps: bool,
    /// Which goes first where there is no room; 0 stays.
    leaves: u8,
}

const fn column(key: &'static str, head: &'static str) -> Column {
    Column { key, head, wraps: false, leaves: 0 }
}

const fn wrapped(key: &'static str, head: &'static str) -> Column {
    Column { wraps: true, ..column(key, head) }
}

const fn leaving(leaves: u8, column: Column) -> Column {
    Column { leaves, ..column }
}

const ID: Column = column("device_id", "ID");
const NAME: Column = wrapped("name", "NAME");
const ADDRESS: Column = column("ip", "ADDRESS");

const DEVICES: &[Column] = &[
    ID,
    NAME,
    column("status", "STATUS"),
    ADDRESS,
    leaving(3, column("mode", "MODE")),
    leaving(1, column("ssl", "SSL")),
    leaving(2, column("auto_reconnect", "REGISTERED")),
];
const FOUND: &[Column] = &[
    ID,
    NAME,
    column("type", "TYPE"),
    ADDRESS,
    leaving(2, column("mode", "MODE")),
    column("ssl", "SSL"),
    leaving(1, column("server", "SERVER")),
];
const PENDING: &[Column] =
    &[ID, NAME, leaving(1, column("type", "TYPE")), ADDRESS, column("last_try", "LAST TRY")];
const SLAVES: &[Column] = &[ID, NAME, wrapped("rs485", "RS-485"), wrapped("wiegand", "WIEGAND")];
const STEPS: &[Column] =
    &[ID, NAME, column("step", "STEP"), column("result", "RESULT"), wrapped("message", "")];
const NAMED: &[Column] = &[ID, NAME];

/// An answer's data as text, and what was left out of it; `name_of` is what the configuration
/// calls a device.
pub(super) fn of(
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

/// Data that is no rows: a field a line, and devices by their names.
fn fields(
    data: Option<&Map<String, Value>>,
    name_of: impl Fn(u64) -> Option<String>,
    look: Look,
) -> (String, Vec<&'static str>) {
    let (mut lines, mut named) = (String::new(), Vec::new());
    for (key, value) in data.into_iter().flatten().filter(|(key, _)| *key != "steps") {
        match (key.as_str(), value) {
            ("device_ids", Value::Array(ids)) if !ids.is_empty() => {
                named = ids.iter().map(|id| serde_json::json!({ "device_id": id })).collect();
            }
            ("device_id", id) => {
                let name =
                    id.as_u64().and_then(&name_of).map(|name| format!(" ({})", escaped(&name)));
                lines += &format!("{key}: {id}{}\n", name.unwrap_or_default());
            }
            _ => lines += &format!("{key}: {}\n", word(value)),
        }
    }
    let (rows, left_out) =
        if named.is_empty() { Default::default() } else { table(NAMED, &named, name_of, look) };
    lines += &rows;
    if lines.is_empty() { ("done\n".to_owned(), left_out) } else { (lines, left_out) }
}

fn table(
    columns: &[Column],
    rows: &[Value],
    name_of: impl Fn(u64) -> Option<String>,
    look: Look,
) -> (String, Vec<&'static str>) {
    let mut columns: Vec<(&Column, Vec<String>)> = columns
        .iter()
        .map(|column| (column, rows.iter().map(|row| cell(row, column.key, &name_of)).collect()))
        .collect();
    let room = look.width.unwrap_or(usize::MAX);
    let mut widths = widths(&columns, room);
    let mut left_out = Vec::new();
    while total(&widths) > room {
        let going = columns.iter().enumerate().filter(|(_, (column, _))| column.leaves > 0);
        let Some((at, _)) = going.min_by_key(|(_, (column, _))| column.leaves) else { break };
        left_out.push(columns.remove(at).0.head);
        widths = self::widths(&columns, room);
    }
    let mut text = String::new();
    let heads = columns.iter().map(|(column, _)| column.head.to_owned()).collect();
    text += &lines(heads, &widths, |_, text| look.bold(text));
    for row in 0..rows.len() {
        let cells: Vec<String> =
            columns.iter().filter_map(|(_, cells)| cells.get(row)).cloned().collect();
        let colour = |at: usize, text| look.coloured(cells.get(at).map_or("", |cell| cell), text);
        text += &lines(cells.clone(), &widths, colour);
    }
    (text, left_out)
}

/// How wide each column is to be, as near to the room as wrapping gets.
fn widths(columns: &[(&Column, Vec<String>)], room: usize) -> Vec<usize> {
    let widest = |(column, cells): &(&Column, Vec<String>)| {
        let cells = cells.iter().map(|cell| cell.width());
        cells.chain([column.head.width()]).max().unwrap_or_default()
    };
    let mut widths: Vec<usize> = columns.iter().map(widest).collect();
    while total(&widths) > room {
        let wrapping = columns.iter().zip(&mut widths).filter(|((column, _), width)| {
            column.wraps && **width > WRAPPED_MIN.max(column.head.width())
        });
        let Some((_, width)) = wrapping.max_by_key(|(_, width)| **width) else { break };
        *width -= 1;
    }
    widths
}

fn total(widths: &[usize]) -> usize {
    widths.iter().sum::<usize>() + GAP.len() * widths.len().saturating_sub(1)
}

/// One row, of as many lines as its cells need.
fn lines(cells: Vec<String>, widths: &[usize], paint: impl Fn(usize, String) -> String) -> String {
    let cells: Vec<Vec<String>> =
        cells.iter().zip(widths).map(|(cell, width)| wrap(cell, *width)).collect();
    let mut text = String::new();
    for at in 0..cells.iter().map(Vec::len).max().unwrap_or_default() {
        let mut line = String::new();
        let mut owed = 0;
        for (index, (parts, width)) in cells.iter().zip(widths).enumerate() {
            let part = parts.get(at).map_or("", |part| part);
            if !part.is_empty() {
                line += &" ".repeat(owed);
                line += &paint(index, part.to_owned());
                owed = 0;
            }
            owed += width.saturating_sub(part.width()) + GAP.len();
        }
        text += &line;
        text.push('\n');
    }
    text
}

/// A text in lines of this width: broken between words, and within one that is longer.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut().map_or(0, |line| line.width());
        if line > 0 && line + 1 + word.width() > width {
            lines.push(String::new());
        } else if let Some(line) = lines.last_mut().filter(|line| !line.is_empty()) {
            line.push(' ');
        }
        for letter in word.chars() {
            let mut buffer = [0; 4];
            let letter = &*letter.encode_utf8(&mut buffer);
            if lines.last().is_some_and(|line| line.width() + letter.width() > width) {
                lines.push(String::new());
            }
            if let Some(line) = lines.last_mut() {
                line.push_str(letter);
            }
        }
    }
    lines
}

fn cell(row: &Value, key: &str, name_of: impl Fn(u64) -> Option<String>) -> String {
    match (row.get(key), key) {
        (Some(Value::String(ip)), "ip") => match row.get("port").and_then(Value::as_u64) {
            // A device that dials in has none that counts.
            None | Some(0) => ip.clone(),
            Some(port) => format!("{ip}:{port}"),
        },
        (Some(value), _) => word(value),
        (None, "name") => {
            let id = row.get("device_id").and_then(Value::as_u64);
            id.and_then(name_of).map_or_else(|| "-".to_owned(), |name| escaped(&name))
        }
        (None, _) => String::new(),
    }
}

/// A value for people.
fn word(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::Array(items) if items.is_empty() => "-".to_owned(),
        Value::Array(items) => items.iter().map(word).collect::<Vec<_>>().join(", "),
        Value::String(text) => escaped(text),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shown(command: &str, data: &Value, look: Look) -> (String, Vec<&'static str>) {
        of(command, data, |id| (id == 7).then(|| "Front door".to_owned()), look)
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
    fn a_table_fits_the_terminal_and_says_what_has_no_room() {
        let data = json!({"devices": [row(540_092_578, "tcp_connected")]});
        for width in 20..140 {
            let look = Look { width: Some(width), colours: false };
            let (text, left_out) = shown("devices", &data, look);
            let widest = text.lines().map(UnicodeWidthStr::width).max().unwrap();
            assert!(widest <= width || left_out.len() == 3, "{width}:\n{text}");
            assert!(text.contains("540092578") && text.contains("tcp_connected"), "{text}");
            assert_eq!(text.contains("REGISTERED"), !left_out.contains(&"REGISTERED"));
        }
        let (text, left_out) = shown("devices", &data, Look { width: Some(80), colours: false });
        assert_eq!(left_out, ["SSL", "REGISTERED"], "{text}");
        let expected = "ID         NAME             STATUS         ADDRESS              MODE\n\
                        540092578  Front door of    tcp_connected  192.168.0.101:51211  \
                        server_to_device\n           the house\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn wide_letters_stand_in_line() {
        let name_of = |id| Some(if id == 7 { "정문" } else { "Hall" }.to_owned());
        let data =
            json!({"slaves": [{"device_id": 7, "rs485": [1]}, {"device_id": 8, "rs485": [2]}]});
        let (text, _) = of("slaves/get", &data, name_of, Look::default());
        let widths: Vec<usize> = text.lines().skip(1).map(UnicodeWidthStr::width).collect();
        assert_eq!(widths[0], widths[1], "{text}");
    }

    #[test]
    fn colours_stand_on_words_and_change_no_width() {
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
