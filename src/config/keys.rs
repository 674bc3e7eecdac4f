//! The table of every configuration key: its form, its default, its meaning.
//!
//! May not read anything: files, environment and the checks of values are beside it. The table is
//! what unknown keys, environment names, `check` and `docs/configuration.md` are held against.

use std::collections::BTreeSet;

use figment::value::Value;

use super::{COMMANDS, OWN_COMMANDS};

/// How a key's value is written; a value of another form is a mistake before it is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A text.
    Text,
    /// A text that nothing may ever print.
    Secret,
    /// A whole number.
    Whole,
    /// `true` or `false`.
    Bool,
    /// A list of texts.
    List,
}

impl Form {
    /// The form in the words of messages, with its article.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Text | Self::Secret => "a text",
            Self::Whole => "a whole number",
            Self::Bool => "true or false",
            Self::List => "a list of texts",
        }
    }
}

/// What holds when nothing else is said.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fallback {
    /// The key must be given.
    Required,
    /// The key may be absent; the words say what then happens.
    Absent(&'static str),
    /// This text.
    Text(&'static str),
    /// This number.
    Whole(u32),
    /// This truth.
    Bool(bool),
    /// These texts.
    List(&'static [&'static str]),
}

impl Fallback {
    /// The default as a value of the lowest layer.
    pub(super) fn value(self) -> Option<Value> {
        match self {
            Self::Required | Self::Absent(_) => None,
            Self::Text(text) => Some(Value::from(text)),
            // Signed, as the numbers of the other layers: figment keeps the two apart.
            Self::Whole(number) => Some(Value::from(i64::from(number))),
            Self::Bool(truth) => Some(Value::from(truth)),
            Self::List(texts) => Some(Value::from(texts.to_vec())),
        }
    }
}

/// One key.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Where it stands; `*` is a name the user chooses.
    pub path: &'static str,
    /// How its value is written.
    pub form: Form,
    /// What holds without it.
    pub fallback: Fallback,
}

const fn key(path: &'static str, form: Form, fallback: Fallback) -> Key {
    Key { path, form, fallback }
}

/// Permitted without being asked: the commands that change nothing.
const READ_ONLY: &[&str] =
    &["search", "devices", "pending", "accept_filter/get", "slaves/get", "history", "republish"];

/// Every key, in the order of the documentation.
pub const KEYS: &[Key] = &[
    key("state_dir", Form::Text, Fallback::Text("/var/lib/gsdk2mqtt")),
    key("bridge_name", Form::Text, Fallback::Text("bridge")),
    // A month: longer than a reader is ever away for repair without being taken off the list.
    key("forget_after", Form::Text, Fallback::Text("30d")),
    key("time_zone", Form::Text, Fallback::Absent("the machine's, else UTC")),
    key("mqtt.url", Form::Text, Fallback::Text("mqtt://localhost:1883")),
    key("mqtt.username", Form::Text, Fallback::Absent("connect without a user name")),
    key("mqtt.password", Form::Secret, Fallback::Absent("connect without a password")),
    key("mqtt.password_file", Form::Text, Fallback::Absent("connect without a password")),
    key("mqtt.ca_file", Form::Text, Fallback::Absent("the system's authorities")),
    key("mqtt.cert_file", Form::Text, Fallback::Absent("no client certificate")),
    key("mqtt.key_file", Form::Text, Fallback::Absent("no client certificate")),
    key("mqtt.base_topic", Form::Text, Fallback::Text("gsdk")),
    key("mqtt.protocol", Form::Text, Fallback::Text("5")),
    key("mqtt.client_id", Form::Text, Fallback::Absent("gsdk2mqtt_<base_topic>_<bridge_name>")),
    // Brokers without an announced limit take this much; 1,000 devices have it.
    key("mqtt.max_answer", Form::Text, Fallback::Text("256KiB")),
    // Mends what a broker lost without telling; at 100,000 devices 28 messages a second.
    key("mqtt.republish_interval", Form::Text, Fallback::Text("1h")),
    key("http.listen", Form::Text, Fallback::Text("127.0.0.1:9925")),
    key("http.hosts", Form::List, Fallback::List(&[])),
    key("commands.allow", Form::List, Fallback::List(READ_ONLY)),
    key("commands.max_payload", Form::Text, Fallback::Text("64KiB")),
    // No person clicks faster, and a gateway answers a call in tens of milliseconds.
    key("commands.rate", Form::Text, Fallback::Text("20/s")),
    key("commands.response_prefix", Form::Text, Fallback::Absent("<base_topic>-reply/")),
    key("home_assistant.enabled", Form::Bool, Fallback::Bool(false)),
    key("home_assistant.discovery_prefix", Form::Text, Fallback::Text("homeassistant")),
    key("home_assistant.status_topic", Form::Text, Fallback::Text("homeassistant/status")),
    key("home_assistant.controls", Form::Bool, Fallback::Bool(false)),
    key("outbox.max_events", Form::Whole, Fallback::Whole(1_000_000)),
    key("outbox.max_bytes", Form::Text, Fallback::Text("512MiB")),
    key("outbox.sync", Form::Text, Fallback::Text("interval")),
    // Thirteen months, so that a month can be compared with the same month a year before.
    key("history.keep", Form::Text, Fallback::Text("400d")),
    key("history.max_bytes", Form::Text, Fallback::Text("2GiB")),
    key("metrics.device", Form::List, Fallback::List(&["seconds", "counts"])),
    key("gateways.*.address", Form::Text, Fallback::Required),
    key("gateways.*.ca_file", Form::Text, Fallback::Required),
    key("gateways.*.server_name", Form::Text, Fallback::Absent("the host of `address`")),
    key("gateways.*.queue_size", Form::Whole, Fallback::Whole(65_536)),
    key("gateways.*.audit_interval", Form::Text, Fallback::Text("60s")),
    key("gateways.*.unknown_after", Form::Text, Fallback::Text("10s")),
    key("gateways.*.area", Form::Text, Fallback::Absent("no area is suggested")),
    key("gateways.*.accept_filter.allow_all", Form::Bool, Fallback::Bool(false)),
    key("gateways.*.devices.*.name", Form::Text, Fallback::Absent("its type and ID")),
    key("gateways.*.devices.*.area", Form::Text, Fallback::Absent("no area is suggested")),
    key("gateways.*.devices.*.connect", Form::Text, Fallback::Text("observe")),
    key("gateways.*.devices.*.ip", Form::Text, Fallback::Absent("needed by \"async\"")),
    key("gateways.*.devices.*.port", Form::Whole, Fallback::Absent("51211")),
    key("gateways.*.devices.*.ssl", Form::Bool, Fallback::Absent("false")),
];

/// How names and texts of one word are written, where a pattern can say it: for editors. What holds
/// is beside this table; the pattern takes all that does.
pub const PATTERNS: [(&str, &str); 3] = [
    ("bridge_name", "^bridge(_[a-z0-9]+)*$"),
    ("gateways.*", "^(?!bridge(_|$))[a-z][a-z0-9]*(_[a-z0-9]+)*$"),
    ("gateways.*.devices.*", "^[0-9]+$"),
];

/// The words that may stand in a list.
#[must_use]
pub fn words(path: &str) -> Vec<String> {
    let names = COMMANDS.iter().chain(&OWN_COMMANDS).map(|(name, _)| *name);
    match KEYS.iter().find(|key| key.path == path) {
        Some(Key { path: "commands.allow", .. }) => {
            let groups = names.clone().filter_map(|name| name.split_once('/'));
            let groups: BTreeSet<_> = groups.map(|(group, _)| format!("{group}/*")).collect();
            names.map(str::to_owned).chain(groups).chain(["*".to_owned()]).collect()
        }
        // The last two have no effect; builds made before version 2 had them.
        Some(Key { path: "metrics.device", .. }) => {
            ["seconds", "counts", "state", "info"].map(str::to_owned).into()
        }
        _ => Vec::new(),
    }
}

/// What a path leads to.
#[derive(Clone, Copy, Debug)]
pub(super) enum Node {
    /// A value.
    Leaf(&'static Key),
    /// A table.
    Table,
    /// Nothing that is known.
    Unknown,
}

/// What stands at a path.
pub(super) fn lookup(path: &[String]) -> Node {
    let mut found = Node::Unknown;
    for key in KEYS {
        let mut pattern = key.path.split('.');
        let fits = path.iter().all(|part| pattern.next().is_some_and(|p| p == "*" || p == part));
        match (fits, pattern.next()) {
            (true, None) => return Node::Leaf(key),
            (true, Some(_)) => found = Node::Table,
            (false, _) => {}
        }
    }
    found
}

/// The fixed names that may stand directly below a table, in the table's order.
pub(super) fn below(table: &[String]) -> Vec<&'static str> {
    let mut names: Vec<&'static str> = Vec::new();
    for key in KEYS {
        let mut pattern = key.path.split('.');
        let fits = table.iter().all(|part| pattern.next().is_some_and(|p| p == "*" || p == part));
        if let (true, Some(name)) = (fits, pattern.next())
            && name != "*"
            && !names.contains(&name)
        {
            names.push(name);
        }
    }
    names
}

/// The known key nearest to an unknown one, in words to end a sentence with.
///
/// A near name of the same table first, then the same name in another table, then the whole list.
pub(super) fn suggestion(path: &[String]) -> String {
    // What stands before the first name that is not known.
    let is_known = |len: &usize| {
        let part = path.get(..*len).unwrap_or_default();
        !matches!(lookup(part), Node::Unknown)
    };
    let known = (1..=path.len()).take_while(is_known).count();
    let (table, rest) = path.split_at(known);
    if let (Node::Leaf(_), [_, ..]) = (lookup(table), table) {
        return format!("{} is a value and has nothing below it", table.join("."));
    }
    let Some((name, below_name)) = rest.split_first() else { return String::new() };
    let siblings = below(table);
    if let Some(near) = nearest(name, siblings.iter().copied()) {
        let corrected: Vec<&str> = table
            .iter()
            .map(String::as_str)
            .chain([near])
            .chain(below_name.iter().map(String::as_str))
            .collect();
        return format!("did you mean {}?", corrected.join("."));
    }
    let name = path.last().unwrap_or(name);
    let elsewhere = KEYS.iter().find(|key| key.path.rsplit('.').next() == Some(name.as_str()));
    if let Some(key) = elsewhere {
        return format!("did you mean {}?", key.path.replace('*', "NAME"));
    }
    format!("the keys here are {}", siblings.join(", "))
}

/// The candidate with the least edit distance, if that is small for the word's length.
pub(super) fn nearest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let best = candidates.into_iter().map(|known| (distance(word, known), known)).min()?;
    // Two edits are one swap of letters, the commonest slip; in a short word they are all of it.
    let limit = (best.1.len() / 3).max(2).min(word.chars().count().saturating_sub(1));
    (best.0 <= limit).then_some(best.1)
}

/// Insertions, removals and replacements (Levenshtein) that make one word the other.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, from) in left.chars().enumerate() {
        let mut diagonal = i;
        let mut before = i + 1;
        if let Some(first) = row.first_mut() {
            *first = before;
        }
        for (cell, to) in row.iter_mut().skip(1).zip(&right) {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = *cell;
            before = replaced.min(*cell + 1).min(before + 1);
            *cell = before;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> Vec<String> {
        text.split('.').map(str::to_owned).collect()
    }

    #[test]
    fn distances_count_the_edits() {
        for (left, right, edits) in
            [("", "", 0), ("url", "url", 0), ("urll", "url", 1), ("kitten", "sitting", 3)]
        {
            assert_eq!(distance(left, right), edits, "{left} {right}");
            assert_eq!(distance(right, left), edits, "{right} {left}");
        }
    }

    #[test]
    fn every_path_is_a_leaf_a_table_or_unknown() {
        assert!(matches!(lookup(&path("mqtt.url")), Node::Leaf(_)));
        assert!(matches!(lookup(&path("gateways.lobby.devices.7.ip")), Node::Leaf(_)));
        assert!(matches!(lookup(&path("gateways.lobby.devices.7")), Node::Table));
        assert!(matches!(lookup(&path("mqtt.url.x")), Node::Unknown));
        assert!(matches!(lookup(&path("mqt")), Node::Unknown));
    }

    #[test]
    fn suggestions_name_the_nearest_key() {
        for (wrong, words) in [
            ("mqtt.ulr", "did you mean mqtt.url?"),
            ("mqttt", "did you mean mqtt?"),
            ("url", "did you mean mqtt.url?"),
            ("gateways.lobby.adress", "did you mean gateways.lobby.address?"),
            ("http.colour", "the keys here are listen, hosts"),
            ("mqt.url", "did you mean mqtt.url?"),
            ("broker.url", "did you mean mqtt.url?"),
            ("mqtt.url.host", "mqtt.url is a value and has nothing below it"),
        ] {
            assert_eq!(suggestion(&path(wrong)), words, "{wrong}");
        }
    }
}
