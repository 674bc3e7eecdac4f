//! Answers as tables that fit the terminal: cells are wrapped, then columns are omitted. If the
//! rest is still too wide, a list is printed, one field a line.

use comfy_table::{ColumnConstraint, ContentArrangement, Table, Width, presets};
use serde_json::{Map, Value, json};

use super::terminal::Terminal;
use crate::cli::escape::escaped;
use crate::ids::CommandName;

/// A cell is wrapped to no less than this width.
const WRAPPED_WIDTH_MIN: u16 = 10;
/// The space between two columns.
const GAP: u16 = 2;

/// A column of a command's rows: the field of a row, the head, and what happens where the terminal
/// is too narrow.
struct TableColumn(&'static str, &'static str, Fit);

enum Fit {
    Whole,
    /// Its cells are wrapped.
    Wraps,
    /// It is omitted, the least number first.
    Omitted(u8),
}
use Fit::{Omitted, Whole, Wraps};

const ID: TableColumn = TableColumn("device_id", "ID", Whole);
const NAME: TableColumn = TableColumn("name", "NAME", Wraps);
const ADDRESS: TableColumn = TableColumn("ip", "ADDRESS", Whole);

const DEVICES: &[TableColumn] = &[
    ID,
    NAME,
    TableColumn("status", "STATUS", Whole),
    ADDRESS,
    TableColumn("mode", "MODE", Omitted(4)),
    TableColumn("ssl", "SSL", Omitted(2)),
    TableColumn("auto_reconnect", "REGISTERED", Omitted(3)),
    TableColumn("firmware", "FIRMWARE", Omitted(1)),
];
const FOUND: &[TableColumn] = &[
    ID,
    NAME,
    TableColumn("type", "TYPE", Whole),
    ADDRESS,
    TableColumn("mode", "MODE", Omitted(2)),
    TableColumn("ssl", "SSL", Whole),
    TableColumn("server", "SERVER", Omitted(1)),
];
const PENDING: &[TableColumn] = &[
    ID,
    NAME,
    TableColumn("type", "TYPE", Omitted(1)),
    ADDRESS,
    TableColumn("last_try", "LAST TRY", Whole),
];
const SLAVES: &[TableColumn] =
    &[ID, NAME, TableColumn("rs485", "RS-485", Wraps), TableColumn("wiegand", "WIEGAND", Wraps)];
const STEPS: &[TableColumn] = &[
    ID,
    NAME,
    TableColumn("step", "STEP", Whole),
    TableColumn("result", "RESULT", Whole),
    TableColumn("message", "", Wraps),
];
const NAMED: &[TableColumn] = &[ID, NAME];

/// Formats an answer's data, and names the columns that were omitted. `name_of` gives the
/// configured name of a device.
pub(crate) fn format(
    command: CommandName,
    data: &Value,
    name_of: impl Fn(u64) -> Option<String>,
    terminal: Terminal,
) -> (String, Vec<&'static str>) {
    let (key, columns) = match command {
        CommandName::Devices => ("devices", DEVICES),
        CommandName::Search => ("devices", FOUND),
        CommandName::Pending => ("devices", PENDING),
        CommandName::SlavesGet => ("slaves", SLAVES),
        // All others have fields, and some of them steps.
        _ => ("steps", STEPS),
    };
    let named = |mut row: Value| {
        let id = row.get("device_id").and_then(Value::as_u64);
        if let Some(fields) = row.as_object_mut() {
            fields.entry("name").or_insert_with(|| id.and_then(&name_of).into());
        }
        row
    };
    let rows = data.get(key).and_then(Value::as_array);
    match rows.map(Vec::as_slice) {
        Some([]) if key != "steps" => ("none\n".to_owned(), Vec::new()),
        Some(rows @ [_, ..]) => {
            table(columns, &rows.iter().cloned().map(named).collect::<Vec<_>>(), terminal)
        }
        _ => fields(data.as_object(), named, terminal),
    }
}

/// Data without rows: one field a line, and devices as a table of their names.
fn fields(
    data: Option<&Map<String, Value>>,
    named: impl Fn(Value) -> Value,
    terminal: Terminal,
) -> (String, Vec<&'static str>) {
    let (mut lines, mut devices) = (String::new(), Vec::new());
    for (key, value) in data.into_iter().flatten().filter(|(key, _)| *key != "steps") {
        match (key.as_str(), value) {
            ("device_ids", Value::Array(ids)) if !ids.is_empty() => {
                devices = ids.iter().map(|id| named(json!({ "device_id": id }))).collect();
            }
            ("device_id", id) => {
                let name = match &named(json!({ "device_id": id }))["name"] {
                    Value::Null => String::new(),
                    name => format!(" ({})", text(name)),
                };
                lines += &format!("{key}: {id}{name}\n");
            }
            _ => lines += &format!("{key}: {}\n", text(value)),
        }
    }
    if lines.is_empty() && devices.is_empty() {
        return ("done\n".to_owned(), Vec::new());
    }
    let (rows, omitted) =
        if devices.is_empty() { Default::default() } else { table(NAMED, &devices, terminal) };
    (lines + &rows, omitted)
}

/// Omits columns until the others fit; a list if they do not.
fn table(
    columns: &[TableColumn],
    rows: &[Value],
    terminal: Terminal,
) -> (String, Vec<&'static str>) {
    let (mut shown, mut omitted) = (columns.iter().collect::<Vec<_>>(), Vec::new());
    loop {
        let lines = lines(&shown, rows, terminal.width);
        // All lines are as wide as the head.
        let width = lines.first().map_or(0, String::len);
        let is_too_wide = terminal.width.is_some_and(|max| width > usize::from(max));
        let omission = |(at, TableColumn(.., fit)): (usize, &&TableColumn)| match fit {
            Omitted(order) => Some((*order, at)),
            Whole | Wraps => None,
        };
        match shown.iter().enumerate().filter_map(omission).min() {
            Some((_, at)) if is_too_wide => omitted.push(shown.remove(at).1),
            None if is_too_wide => return (list(columns, rows, terminal), Vec::new()),
            _ => return (painted(&lines, terminal), omitted),
        }
    }
}

/// Each field of a row in a line, and an empty line between two rows.
fn list(columns: &[TableColumn], rows: &[Value], terminal: Terminal) -> String {
    let line = |row: &Value, key: &str| match cell(row, key) {
        cell if cell.is_empty() => cell,
        cell => format!("{key}: {}\n", terminal.coloured(&cell, cell.clone())),
    };
    let fields = |row| columns.iter().map(|TableColumn(key, ..)| line(row, key)).collect();
    rows.iter().map(fields).collect::<Vec<String>>().join("\n")
}

fn lines(columns: &[&TableColumn], rows: &[Value], width: Option<u16>) -> Vec<String> {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(columns.iter().map(|TableColumn(_, head, _)| head));
    for row in rows {
        table.add_row(columns.iter().map(|TableColumn(key, ..)| cell(row, key)));
    }
    let widths = table.column_max_content_widths();
    for (at, (column, width)) in table.column_iter_mut().zip(widths).enumerate() {
        let gap = if at + 1 == columns.len() { 0 } else { GAP };
        column.set_padding((0, gap));
        column.set_constraint(match columns.get(at) {
            Some(TableColumn(_, head, Wraps)) => {
                let least = u16::try_from(head.len()).unwrap_or(u16::MAX).max(WRAPPED_WIDTH_MIN);
                ColumnConstraint::LowerBoundary(Width::Fixed(least.min(width) + gap))
            }
            _ => ColumnConstraint::ContentWidth,
        });
    }
    if let Some(width) = width {
        table.set_width(width);
    }
    table.lines().collect()
}

fn painted(lines: &[String], terminal: Terminal) -> String {
    let mut text = String::new();
    for (index, line) in lines.iter().enumerate() {
        // The head is one line, as its cells are never wrapped.
        let paint = |word: &str| match index {
            0 if !word.is_empty() => terminal.bold(word.to_owned()),
            _ => terminal.coloured(word, word.to_owned()),
        };
        let words: Vec<String> = line.trim_end().split(' ').map(paint).collect();
        text += &words.join(" ");
        text.push('\n');
    }
    text
}

fn cell(row: &Value, key: &str) -> String {
    match (row.get(key), key) {
        (Some(Value::String(ip)), "ip") => match row.get("port").and_then(Value::as_u64) {
            // A device that dials the gateway has no port of its own.
            None | Some(0) => ip.clone(),
            Some(port) => format!("{ip}:{port}"),
        },
        (Some(value), _) => text(value),
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
    use super::*;

    fn shown(
        command: CommandName,
        data: &Value,
        terminal: Terminal,
    ) -> (String, Vec<&'static str>) {
        format(command, data, |id| (id == 7).then(|| "Front door".to_owned()), terminal)
    }

    fn row(id: u32, status: &str) -> Value {
        json!({
            "device_id": id, "name": "Front door of the house", "status": status,
            "ip": "192.168.0.101", "port": 51211, "mode": "server_to_device", "ssl": false,
            "auto_reconnect": true, "firmware": "1.8.0",
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
        let plain = |command, data: &Value| shown(command, data, Terminal::default()).0;
        assert_eq!(plain(CommandName::SlavesGet, &data), expected);
        assert_eq!(plain(CommandName::Pending, &json!({"devices": []})), "none\n");
        assert_eq!(plain(CommandName::DisconnectAll, &json!({})), "done\n");
        assert_eq!(
            plain(CommandName::Connect, &json!({"device_id": 7})),
            "device_id: 7 (Front door)\n"
        );
        let filter = json!({"allow_all": false, "device_ids": [7, 8], "ips": []});
        let expected = "allow_all: no\nips: -\nID  NAME\n7   Front door\n8   -\n";
        assert_eq!(plain(CommandName::FilterGet, &filter), expected);
        let bare = json!({"device_ids": [8], "steps": []});
        assert_eq!(plain(CommandName::ModeSet, &bare), "ID  NAME\n8   -\n");
    }

    #[test]
    fn a_table_fits_the_terminal_and_omits_columns() {
        let data = json!({"devices": [row(540_092_578, "tcp_connected")]});
        for width in 30..140 {
            let terminal = Terminal { width: Some(width), colours: false };
            let (text, omitted) = shown(CommandName::Devices, &data, terminal);
            let widest = text.lines().map(str::len).max().unwrap();
            assert!(widest <= usize::from(width), "{width}:\n{text}");
            assert!(text.contains("540092578") && text.contains("tcp_connected"), "{text}");
            let is_shown = text.contains("REGISTERED") || text.contains("auto_reconnect: yes");
            assert_eq!(is_shown, !omitted.contains(&"REGISTERED"), "{text}");
        }
        let (text, omitted) =
            shown(CommandName::Devices, &data, Terminal { width: Some(80), colours: false });
        assert_eq!(omitted, ["FIRMWARE", "SSL", "REGISTERED"], "{text}");
        let expected = "ID         NAME             STATUS         ADDRESS              MODE\n\
                        540092578  Front door of    tcp_connected  192.168.0.101:51211  \
                        server_to_device\n           the house\n";
        assert_eq!(text, expected);
        let steps = json!({"steps": [
            {"device_id": 7, "step": "filter_added", "result": "ok"},
            {"device_id": 8, "step": "filter_added", "result": "error", "message": "no answer"},
        ]});
        let narrow = Terminal { width: Some(40), colours: false };
        let expected = "device_id: 7\nname: Front door\nstep: filter_added\nresult: ok\n\n\
                        device_id: 8\nname: -\nstep: filter_added\nresult: error\n\
                        message: no answer\n";
        assert_eq!(shown(CommandName::ModeSet, &steps, narrow), (expected.to_owned(), vec![]));
    }

    #[test]
    fn wide_letters_are_aligned() {
        let name_of = |id| Some(if id == 7 { "정문" } else { "Hall" }.to_owned());
        let data =
            json!({"slaves": [{"device_id": 7, "rs485": [1]}, {"device_id": 8, "rs485": [2]}]});
        let (text, _) = format(CommandName::SlavesGet, &data, name_of, Terminal::default());
        let expected = "ID  NAME  RS-485  WIEGAND\n7   정문  1\n8   Hall  2\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn colours_change_no_width() {
        let data = json!({"devices": [row(7, "tcp_connected"), row(8, "tls_not_allowed")]});
        let plain = shown(CommandName::Devices, &data, Terminal::default()).0;
        let coloured =
            shown(CommandName::Devices, &data, Terminal { width: None, colours: true }).0;
        assert!(coloured.contains("\x1b[32mtcp_connected\x1b[0m  "), "{coloured:?}");
        assert!(coloured.contains("\x1b[31mtls_not_allowed\x1b[0m"), "{coloured:?}");
        let codes = ["\x1b[0m", "\x1b[1m", "\x1b[31m", "\x1b[32m"];
        let bare = codes.iter().fold(coloured, |text, code| text.replace(code, ""));
        assert_eq!(bare, plain);
        assert!(!plain.contains('\x1b'));
    }
}
