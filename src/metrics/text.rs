//! Writes Prometheus text: the head of a family, and its samples.

use crate::ids::GatewayName;

/// A family of samples with one name.
pub(crate) struct Family {
    pub(crate) name: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) help: &'static str,
}

impl Family {
    /// `# HELP` and `# TYPE`.
    pub(crate) fn head(&self) -> String {
        let Self { name, kind, help } = self;
        format!("# HELP {name} {help}\n# TYPE {name} {kind}\n")
    }
}

/// A sample of an item.
pub(crate) struct Sample {
    /// Besides the item's own.
    pub(crate) label: Option<(&'static str, String)>,
    pub(crate) value: Thousandths,
}

/// A family's samples of one item.
pub(crate) type SamplesOf<T> = fn(&T) -> Vec<Sample>;

/// A sample without a further label.
pub(crate) fn sample(value: Thousandths) -> Vec<Sample> {
    vec![Sample { label: None, value }]
}

/// The same where there may be none.
pub(crate) fn optional(value: Option<i64>) -> Vec<Sample> {
    value.map_or_else(Vec::new, |value| sample(Thousandths(value)))
}

/// The text of families of gateways or masters, family by family; `item_label` has the names.
pub(crate) fn families_text<T>(
    families: &[(Family, SamplesOf<T>)],
    item_label: &str,
    items: &[T],
    name: fn(&T) -> &GatewayName,
) -> String {
    let mut text = String::new();
    for (family, samples) in families {
        text.push_str(&family.head());
        for item in items {
            let mut labels = String::new();
            label(&mut labels, item_label, name(item).as_str());
            for Sample { label: more, value } in samples(item) {
                begin(&mut text, family.name, &labels);
                if let Some((name, value)) = more {
                    text.push(',');
                    label(&mut text, name, &value);
                }
                end(&mut text, value);
            }
        }
    }
    text
}

/// Starts a sample: its name and `labels` as written by [`label`], joined by commas; more labels
/// may follow before [`end`].
pub(crate) fn begin(text: &mut String, name: &str, labels: &str) {
    text.push_str(name);
    text.push('{');
    text.push_str(labels);
}

/// Ends a sample with its value.
pub(crate) fn end(text: &mut String, value: Thousandths) {
    text.push_str("} ");
    value.write(text);
    text.push('\n');
}

/// `name="value"`, escaped.
pub(crate) fn label(text: &mut String, name: &str, value: &str) {
    text.push_str(name);
    text.push_str("=\"");
    let mut rest = value;
    while let Some(at) = rest.find(['\\', '"', '\n']) {
        let (plain, special) = rest.split_at(at);
        text.push_str(plain);
        text.push_str(match special.as_bytes()[0] {
            b'\n' => "\\n",
            b'"' => "\\\"",
            _ => "\\\\",
        });
        rest = &special[1..];
    }
    text.push_str(rest);
    text.push('"');
}

pub(crate) fn number(text: &mut String, number: u64) {
    text.push_str(itoa::Buffer::new().format(number));
}

/// A value in thousandths, such as milliseconds; written without loss.
#[derive(Clone, Copy)]
pub(crate) struct Thousandths(pub(crate) i64);

impl Thousandths {
    pub(crate) fn whole(number: u64) -> Self {
        Self(i64::try_from(number).unwrap_or(i64::MAX / 1000).saturating_mul(1000))
    }

    fn write(self, text: &mut String) {
        if self.0 < 0 {
            text.push('-');
        }
        let value = self.0.unsigned_abs();
        number(text, value / 1000);
        let rest = value % 1000;
        if rest > 0 {
            text.push('.');
            // The leading 1 keeps the zeros after the point.
            text.push_str(&itoa::Buffer::new().format(1000 + rest)[1..]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped() {
        let mut text = String::new();
        label(&mut text, "name", "a\"b\\c\nd");
        assert_eq!(text, r#"name="a\"b\\c\nd""#);
    }

    #[test]
    fn values_keep_their_thousandths() {
        for (value, expected) in [(0, "0"), (1_500, "1.500"), (-20, "-0.020"), (60_000, "60")] {
            let mut text = String::new();
            Thousandths(value).write(&mut text);
            assert_eq!(text, expected);
        }
    }
}
