//! Tokens of a master gateway, in the form of a JWT.
//!
//! May not be mistaken for security: nothing verifies the signature, which is random; the master
//! knows its tokens by heart.

use serde_json::json;

/// Bytes as base64 without padding, in the alphabet for URLs.
fn base64_url(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::with_capacity(bytes.len() * 4 / 3 + 3);
    for chunk in bytes.chunks(3) {
        let mut bits = 0_u32;
        for place in 0..3 {
            bits = bits << 8 | u32::from(chunk.get(place).copied().unwrap_or(0));
        }
        for place in 0..=chunk.len() {
            let sextet = (bits >> (18 - 6 * place)) & 0x3f;
            text.push(ALPHABET[sextet as usize].into());
        }
    }
    text
}

/// A new token for a tenant.
pub(crate) fn make(tenant: &str, now_unix_s: u32, lifetime_s: u64) -> String {
    let head = json!({ "alg": "HS256", "typ": "JWT" }).to_string();
    let expires = u64::from(now_unix_s).saturating_add(lifetime_s);
    let claims = json!({ "tenantID": tenant, "iat": now_unix_s, "exp": expires }).to_string();
    let signature: [u8; 32] = std::array::from_fn(|_| fastrand::u8(..));
    let [head, claims] = [head, claims].map(|part| base64_url(part.as_bytes()));
    format!("{head}.{claims}.{}", base64_url(&signature))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_rfc_4648() {
        for (plain, coded) in
            [("", ""), ("f", "Zg"), ("fo", "Zm8"), ("foo", "Zm9v"), ("foob", "Zm9vYg")]
        {
            assert_eq!(base64_url(plain.as_bytes()), coded);
        }
        assert_eq!(base64_url(&[0xfb, 0xff]), "-_8");
        assert_eq!(make("t", 0, 1).split('.').count(), 3);
    }
}
