//! The path of a key, and the known name that is nearest to a mistyped one.

use std::fmt;

/// How alike a word and a known one are at least for the known one to be suggested, of 1.
const SIMILARITY_MIN: f64 = 0.6;

/// Where a key or a table is: its names from the outside in.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct KeyPath(pub(crate) Vec<String>);

impl KeyPath {
    pub(crate) fn child(&self, name: &str) -> Self {
        let mut names = self.0.clone();
        names.push(name.to_owned());
        Self(names)
    }

    pub(crate) fn parent(&self) -> Option<Self> {
        self.0.split_last().map(|(_, table)| Self(table.to_vec()))
    }
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        for (index, name) in self.0.iter().enumerate() {
            let dot = if index == 0 { "" } else { "." };
            if !name.is_empty() && name.chars().all(bare) {
                write!(f, "{dot}{name}")?;
            } else {
                write!(f, "{dot}{name:?}")?;
            }
        }
        Ok(())
    }
}

/// The candidate that is most like a word, if they are alike enough for a typing error.
pub(crate) fn nearest<S: AsRef<str>>(
    word: &str,
    candidates: impl IntoIterator<Item = S>,
) -> Option<S> {
    let scored = candidates.into_iter().map(|candidate| {
        (strsim::normalized_damerau_levenshtein(word, candidate.as_ref()), candidate)
    });
    let (score, best) = scored.max_by(|(left, _), (right, _)| left.total_cmp(right))?;
    (score >= SIMILARITY_MIN).then_some(best)
}
