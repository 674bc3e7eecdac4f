//! The tokens of `http.token_file`, and the token of a request.

use axum::http::{HeaderMap, HeaderValue, header};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use secrecy::{ExposeSecret as _, SecretString};
use subtle::{Choice, ConstantTimeEq as _};

/// Shorter tokens could be guessed; `docs/security.md` has the number.
pub(crate) const TOKEN_LEN_GOOD: usize = 16;

/// Tokens that permit to read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tokens(Vec<SecretString>);

impl Tokens {
    /// Reads one token a line; a line that begins with `#` is a comment. `None` for a file in PEM
    /// form: its first line is known to everyone.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let lines = text.lines().map(str::trim);
        if lines.clone().any(|line| line.starts_with("-----BEGIN")) {
            return None;
        }
        let tokens = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
        Some(Self(tokens.map(SecretString::from).collect()))
    }

    /// How many are too short.
    pub(crate) fn short(&self) -> usize {
        let length = |token: &SecretString| token.expose_secret().chars().count();
        self.0.iter().filter(|token| length(token) < TOKEN_LEN_GOOD).count()
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a request has one of them, as Bearer or as the password of Basic.
    pub(crate) fn permit(&self, headers: &HeaderMap) -> bool {
        headers.get_all(header::AUTHORIZATION).iter().filter_map(given).any(|it| self.contain(&it))
    }

    /// Compares with every token, so that the time of an answer reveals none.
    fn contain(&self, given: &[u8]) -> bool {
        let equal = |token: &SecretString| token.expose_secret().as_bytes().ct_eq(given);
        self.0.iter().map(equal).fold(Choice::from(0), |any, this| any | this).into()
    }
}

/// The token in a header `Authorization`.
fn given(value: &HeaderValue) -> Option<Vec<u8>> {
    let (scheme, rest) = value.to_str().ok()?.trim().split_once(' ')?;
    let rest = rest.trim();
    match scheme.to_ascii_lowercase().as_str() {
        "bearer" => Some(rest.as_bytes().to_vec()),
        "basic" => {
            let pair = BASE64_STANDARD.decode(rest).ok()?;
            let colon = pair.iter().position(|byte| *byte == b':')?;
            Some(pair[colon + 1..].to_vec())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Tokens {
        Tokens::parse(text).unwrap()
    }

    fn permits(tokens: &Tokens, value: &str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, value.parse().unwrap());
        tokens.permit(&headers)
    }

    #[test]
    fn a_token_is_a_line_and_is_sent_as_bearer_or_as_a_password() {
        let tokens = parsed("# of Grafana\n first \r\n\n #tag\nsecond\n");
        let basic = |pair: &str| format!("Basic {}", BASE64_STANDARD.encode(pair));
        for right in ["Bearer first", "bearer  second ", &basic(":first"), &basic("any:second")] {
            assert!(permits(&tokens, right), "{right}");
        }
        for wrong in [
            "Bearer",
            "Bearer ",
            "Bearer firs",
            "Bearer first second",
            "Bearer # of Grafana",
            "Bearer #tag",
            "first",
            "Digest first",
            "Basic first",
            &basic("first"),
            &basic("first:"),
            &basic("x:y:first"),
        ] {
            assert!(!permits(&tokens, wrong), "{wrong}");
        }
        assert!(!permits(&parsed(" \n"), "Bearer "), "an empty line is no token");
        assert!(!tokens.permit(&HeaderMap::new()));
    }

    #[test]
    fn a_key_or_a_certificate_is_no_list_of_tokens_and_short_tokens_are_counted() {
        for text in ["-----BEGIN PRIVATE KEY-----\nMC4=\n", "a-token\n\n -----BEGIN X-----\n"] {
            assert!(Tokens::parse(text).is_none(), "{text}");
        }
        let lengths = ["fifteen-letters", "sixteen-letters-", "# short", "ü"];
        assert_eq!(parsed(&lengths.join("\n")).short(), 2);
    }

    #[test]
    fn tokens_are_not_in_logs() {
        assert!(!format!("{:?}", parsed("s3cret")).contains("s3cret"));
    }
}
