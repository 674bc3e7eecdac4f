//! A master's token: it is sent with every call, and renewed after half of its lifetime.

use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::Deserialize;
use tokio::time::Instant;
use tonic::metadata::{Ascii, MetadataValue};

use crate::ids::Moment;

/// A shorter time to the renewal would only load the master.
const RENEWAL_MIN: Duration = Duration::from_secs(1);

#[derive(Clone, Debug)]
pub(crate) struct Token {
    value: MetadataValue<Ascii>,
    /// `None` if it has no expiry.
    renew_at: Option<Instant>,
    valid_until: Option<Instant>,
    expires_at: Option<Moment>,
}

/// What is read of a token, in Unix seconds by the master's clock.
#[derive(Deserialize)]
struct Claims {
    exp: i64,
    iat: Option<i64>,
}

impl Token {
    /// A token that was received at `now`; `None` if it cannot be sent in a header. Its life is
    /// measured by the monotonic clock, as the master's wall clock may differ from ours.
    pub(crate) fn new(jwt: &str, now: Instant, wall_time: Moment) -> Option<Self> {
        let mut value: MetadataValue<Ascii> = jwt.parse().ok().filter(|_| !jwt.is_empty())?;
        value.set_sensitive(true);
        let claims = claims(jwt);
        let life_s = claims.as_ref().map(|claims| {
            let issued = claims.iat.unwrap_or(wall_time.millis() / 1_000);
            u64::try_from(claims.exp.saturating_sub(issued)).unwrap_or(0)
        });
        // Beyond a year it does not matter, and an instant has an end.
        let life = life_s.map(|life_s| Duration::from_secs(life_s.min(365 * 86_400)));
        let renew_at = life.map(|life| now + (life / 2).max(RENEWAL_MIN));
        let valid_until = life.map(|life| now + life);
        let expires_at = claims.map(|claims| Moment::from_millis(claims.exp.saturating_mul(1_000)));
        Some(Self { value, renew_at, valid_until, expires_at })
    }

    pub(crate) const fn value(&self) -> &MetadataValue<Ascii> {
        &self.value
    }

    pub(crate) const fn renew_at(&self) -> Option<Instant> {
        self.renew_at
    }

    pub(crate) fn is_expired(&self) -> bool {
        self.valid_until.is_some_and(|until| until <= Instant::now())
    }

    /// By the master's clock.
    pub(crate) const fn expires_at(&self) -> Option<Moment> {
        self.expires_at
    }
}

/// The claims of a JWT, without a check of its signature: they only determine the next login.
fn claims(jwt: &str) -> Option<Claims> {
    let payload = BASE64_URL_SAFE_NO_PAD.decode(jwt.split('.').nth(1)?).ok()?;
    serde_json::from_slice(&payload).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(claims: &str) -> Token {
        let jwt = format!("e30.{}.c2ln", BASE64_URL_SAFE_NO_PAD.encode(claims));
        Token::new(&jwt, Instant::now(), Moment::from_millis(1_000_000)).unwrap()
    }

    fn renewed_in(token: &Token) -> Option<Duration> {
        token.renew_at().map(|at| at.duration_since(Instant::now()))
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_is_renewed_at_half_of_its_life_independent_of_the_masters_clock() {
        let hour = token(r#"{"iat":99000000,"exp":99003600}"#);
        assert_eq!(renewed_in(&hour), Some(Duration::from_secs(1_800)));
        assert_eq!(hour.expires_at(), Some(Moment::from_millis(99_003_600_000)));
        assert_eq!(renewed_in(&token(r#"{"exp":1060}"#)), Some(Duration::from_secs(30)));
        for short in [r#"{"iat":5,"exp":5}"#, r#"{"iat":5,"exp":1}"#] {
            assert_eq!(renewed_in(&token(short)), Some(RENEWAL_MIN));
        }
        let endless = token(&format!(r#"{{"iat":0,"exp":{}}}"#, i64::MAX));
        assert!(renewed_in(&endless).is_some());
        tokio::time::advance(Duration::from_secs(3_599)).await;
        assert!(!hour.is_expired());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(hour.is_expired() && !endless.is_expired());
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_that_is_no_jwt_is_used_without_renewal() {
        let token = Token::new("opaque", Instant::now(), Moment::default()).unwrap();
        assert_eq!((token.renew_at(), token.expires_at()), (None, None));
        assert!(!token.is_expired());
        assert!(Token::new("line\nbreak", Instant::now(), Moment::default()).is_none());
        assert!(Token::new("", Instant::now(), Moment::default()).is_none());
        assert!(!format!("{token:?}").contains("opaque"));
    }
}
