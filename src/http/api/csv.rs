//! Rows as CSV (RFC 4180), for spreadsheets: the first line names the columns. Texts that a
//! spreadsheet would execute as a formula get an apostrophe. Excel expects a decimal comma where it
//! expects semicolons between columns.

use serde_json::Value;

/// What a file begins with, so that Excel reads it as UTF-8.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// The beginning of a file: the line that names the columns, which are separated by spaces here.
pub(crate) fn head(columns: &str, separator: char) -> String {
    format!("{BYTE_ORDER_MARK}{}\r\n", columns.replace(' ', &separator.to_string()))
}

/// The line of one row. A column is a field, or one inside another: `last_error.code`.
pub(crate) fn row(columns: &str, row: &Value, separator: char) -> String {
    let cells = columns.split(' ').map(|column| {
        let value = column.split('.').try_fold(row, |value, field| value.get(field));
        cell(value.unwrap_or(&Value::Null), separator)
    });
    cells.collect::<Vec<_>>().join(&separator.to_string()) + "\r\n"
}

fn cell(value: &Value, separator: char) -> String {
    match value {
        Value::Null => String::new(),
        Value::Number(number) if separator == ';' => number.to_string().replace('.', ","),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::String(text) => {
            let is_formula = text.starts_with(['=', '+', '-', '@']);
            let text = if is_formula { format!("'{text}") } else { text.clone() };
            escaped(text, separator)
        }
        Value::Array(_) | Value::Object(_) => escaped(value.to_string(), separator),
    }
}

fn escaped(text: String, separator: char) -> String {
    if text.contains([separator, '"', '\r', '\n']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn cells_are_escaped_and_formulas_are_texts() {
        let columns = "name count up at error.code ids share absent";
        let value = json!({
            "name": "=1+2;\"x\"", "count": -3, "up": true, "at": null,
            "error": {"code": "a,b"}, "ids": [7, 8], "share": 0.5,
        });
        assert_eq!(head(columns, ';'), "\u{feff}name;count;up;at;error.code;ids;share;absent\r\n");
        let expected = "\"'=1+2;\"\"x\"\"\";-3;true;;a,b;[7,8];0,5;\r\n";
        assert_eq!(row(columns, &value, ';'), expected);
        let expected = "\"'=1+2;\"\"x\"\"\",-3,true,,\"a,b\",\"[7,8]\",0.5,\r\n";
        assert_eq!(row(columns, &value, ','), expected);
        for (text, expected) in
            [("+49", "'+49\r\n"), ("-x", "'-x\r\n"), ("@a", "'@a\r\n"), ("a=b", "a=b\r\n")]
        {
            assert_eq!(row("name", &json!({ "name": text }), ','), expected);
        }
        assert_eq!(row("name", &json!({ "name": "a\nb" }), ','), "\"a\nb\"\r\n");
    }
}
