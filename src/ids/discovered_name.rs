//! The name of a gateway that its master lists and the configuration does not name.

use std::fmt::Write as _;

use super::GatewayName;

/// The part of a name that is kept where a hash follows: 32 less `_` and six digits.
const KEPT_LEN: usize = 25;
const HASH_LEN: usize = 6;

/// `<master>_<id>`: lower case, each run of other characters one `_`. Where that is no name, or one
/// that is taken, it is cut, and digits of the ID's SHA-256 follow.
pub fn discovered_name(
    master: &GatewayName,
    gateway_id: &str,
    is_taken: impl Fn(&GatewayName) -> bool,
) -> GatewayName {
    let slug = slug(&format!("{master}_{gateway_id}"));
    if let Some(name) = slug.parse().ok().filter(|name| !is_taken(name)) {
        return name;
    }
    let kept: String = slug.chars().take(KEPT_LEN).collect();
    let kept = kept.trim_end_matches('_');
    let digits = sha256(gateway_id);
    let names = (0..digits.len() - HASH_LEN).filter_map(|at| {
        let digits = digits.get(at..at + HASH_LEN)?;
        format!("{kept}_{digits}").parse().ok()
    });
    let mut names = names.peekable();
    let first = names.peek().cloned();
    // All being taken takes as many gateways as the hash has digits, named on purpose.
    names.find(|name| !is_taken(name)).or(first).unwrap_or_else(|| master.clone())
}

fn slug(text: &str) -> String {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let words: Vec<String> = words.map(str::to_ascii_lowercase).collect();
    words.join("_")
}

fn sha256(text: &str) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    digest.as_ref().iter().fold(String::new(), |mut hex, byte| {
        // Writing to a text cannot fail.
        _ = write!(hex, "{byte:02x}");
        hex
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(gateway_id: &str, taken: &[&str]) -> String {
        let master: GatewayName = "campus".parse().unwrap();
        let is_taken =
            |name: &GatewayName| name.as_str() == "campus" || taken.contains(&name.as_str());
        discovered_name(&master, gateway_id, is_taken).to_string()
    }

    #[test]
    fn an_id_becomes_words() {
        for (id, expected) in [
            ("gateway1", "campus_gateway1"),
            ("Gateway-North", "campus_gateway_north"),
            ("--A..B--", "campus_a_b"),
            ("3rd floor", "campus_3rd_floor"),
        ] {
            assert_eq!(name(id, &[]), expected);
        }
    }

    #[test]
    fn invalid_or_used_names_get_digits_of_their_hash() {
        // printf '%s' ID | sha256sum
        assert_eq!(name("a", &["campus_a"]), "campus_a_ca9781");
        assert_eq!(name("a", &["campus_a", "campus_a_ca9781"]), "campus_a_a97811");
        let korean = name("\u{c815}\u{bb38}", &[]);
        assert!(korean.starts_with("campus_") && korean.len() == 13, "{korean}");
        assert_ne!(korean, name("\u{d6c4}\u{bb38}", &[]));
        let long = name("a-very-long-name-of-a-gateway", &[]);
        assert!(long.starts_with("campus_a_very_long_name_o_") && long.len() == 32, "{long}");
        let cut_at_the_end_of_a_word = name("a-very-long-name-x-gateway", &[]);
        assert!(cut_at_the_end_of_a_word.starts_with("campus_a_very_long_name_x_"));
    }
}
