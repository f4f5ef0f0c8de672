//! What proves to a provider who asks: made here, sent only to the host that it belongs to.
//!
//! Tokens that hold for a while are in a purse per provider (`shiftboss_provider::token::purse`
//! decides); here one task makes the next one for all who wait, outside of any request's time.

mod command;
mod google;

use super::providers::Providers;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::Client;
use ring::hmac;
use serde_json::{Value, json};
use shiftboss_provider::Moment;
use shiftboss_provider::description::{Auth, Provider};
use shiftboss_provider::template::{Into, Scope};
use shiftboss_provider::token::Token;
use shiftboss_provider::token::purse::{Answer, Purse};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::Notify;

pub(super) use command::errand;

/// Tokens that hold for a while, by provider.
pub(super) struct Credentials {
    purses: Mutex<HashMap<String, Purse>>,
    /// A token was made, or could not be.
    changed: Notify,
    /// Monotonic: what the wall clock does ends no token and prolongs none.
    started: Instant,
}

/// A header that proves who asks.
pub(super) struct Proof {
    pub(super) name: String,
    pub(super) value: String,
    /// The token in it, where it is one that is made anew when it is refused.
    pub(super) token: Option<String>,
}

/// Whose token is made, and with what.
#[derive(Clone)]
pub(super) struct Mint {
    pub(super) provider: Arc<Provider>,
    pub(super) providers: Arc<Providers>,
    pub(super) client: Client,
}

impl Default for Credentials {
    fn default() -> Self {
        Self { purses: Mutex::default(), changed: Notify::new(), started: Instant::now() }
    }
}

impl Credentials {
    /// The header that requests to a provider carry; `None` where they need none. May take as long
    /// as making a token does.
    ///
    /// # Errors
    /// A sentence without any secret.
    pub(super) async fn proof(self: &Arc<Self>, mint: &Mint) -> Result<Option<Proof>, String> {
        let secrets = &mint.providers.secrets;
        let secret = |name: &str| {
            let lacking = || secrets.lack(&[name.to_owned()]).unwrap_or_default();
            secrets.get(name).ok_or_else(lacking)
        };
        let auth = &mint.provider.auth;
        let Some((name, prefix)) = auth.header() else { return Ok(None) };
        let (value, token) = match auth {
            Auth::None => return Ok(None),
            Auth::Bearer { secret: name } => (secret(name)?, None),
            Auth::Header { value, .. } => {
                let known = BTreeMap::new();
                let find = |name: &str| secrets.get(name);
                let scope = Scope { input: &Value::Null, known: &known, secret: &find };
                (value.text(scope, Into::Text)?, None)
            }
            Auth::JwtHs256 { issuer, secret: name, ttl, skew } => {
                let now = SystemTime::now();
                (hs256(&secret(issuer)?, &secret(name)?, (ttl.0, skew.0), now), None)
            }
            Auth::Google { .. } | Auth::Command(_) => {
                let token = self.token(mint).await?;
                (token.clone(), Some(token))
            }
        };
        Ok(Some(Proof { name: name.to_owned(), value: format!("{prefix}{value}"), token }))
    }

    /// The provider has refused this one.
    pub(super) fn refused(&self, provider: &Provider, token: &str) {
        let now = self.now();
        self.with_purse(provider, |purse| purse.refused(now, token));
    }

    /// The provider has taken this one.
    pub(super) fn worked(&self, provider: &Provider, token: &str) {
        self.with_purse(provider, |purse| purse.worked(token));
    }

    async fn token(self: &Arc<Self>, mint: &Mint) -> Result<String, String> {
        loop {
            // Before the question: what changes between the two wakes it.
            let changed = self.changed.notified();
            let now = self.now();
            match self.with_purse(&mint.provider, |purse| purse.ask(now)) {
                Answer::Use { value, mints } => {
                    if mints {
                        self.begin(mint);
                    }
                    return Ok(value);
                }
                Answer::Mint => self.begin(mint),
                Answer::Wait => {}
                Answer::None(why) => return Err(why),
            }
            changed.await;
        }
    }

    /// Makes the next token in a task of its own: whoever waits for it may give up.
    fn begin(self: &Arc<Self>, mint: &Mint) {
        let (credentials, mint) = (Arc::clone(self), mint.clone());
        tokio::spawn(async move {
            let made = make(&mint).await;
            let now = credentials.now();
            credentials.with_purse(&mint.provider, |purse| match made {
                Ok((token, or)) => {
                    mint.providers.secrets.learn(&token.value);
                    purse.minted(now, token, or);
                }
                Err(why) => purse.failed(now, mint.providers.secrets.mask(&why)),
            });
            credentials.changed.notify_waiters();
        });
    }

    fn with_purse<T>(&self, provider: &Provider, what: impl FnOnce(&mut Purse) -> T) -> T {
        let mut purses: MutexGuard<'_, HashMap<String, Purse>> =
            self.purses.lock().expect("nothing panics while it holds the purses");
        what(purses.entry(provider.name.clone()).or_default())
    }

    fn now(&self) -> Moment {
        self.started.elapsed()
    }
}

/// A token, and how long it holds where that is not said.
async fn make(mint: &Mint) -> Result<(Token, Duration), String> {
    match &mint.provider.auth {
        Auth::Google { secret, scope } => {
            let key_file = mint.providers.secrets.get(secret).unwrap_or_default();
            let token = google::mint(&key_file, scope, &mint.client).await?;
            Ok((token, google::HOLDS_FOR))
        }
        Auth::Command(command) => Ok((command::mint(command, mint).await?, command.ttl.0)),
        Auth::None | Auth::Header { .. } | Auth::Bearer { .. } | Auth::JwtHs256 { .. } => {
            Err("it has no token that is made".to_owned())
        }
    }
}

fn unix(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn unsigned(header: &Value, claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}", part(header), part(claims))
}

/// A JSON Web Token signed with HMAC-SHA256: who issues it, from when and until when it holds.
fn hs256(issuer: &str, secret: &str, (ttl, skew): (Duration, Duration), now: SystemTime) -> String {
    let (not_before, until) = (unix(now).saturating_sub(skew.as_secs()), unix(now + ttl));
    let claims = json!({"iss": issuer, "exp": until, "nbf": not_before});
    let text = unsigned(&json!({"alg": "HS256", "typ": "JWT"}), &claims);
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let signed = hmac::sign(&key, text.as_bytes());
    format!("{text}.{}", URL_SAFE_NO_PAD.encode(signed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_what_the_standard_says() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let spans = (Duration::from_secs(1_800), Duration::from_secs(5));
        let token = hs256("me", "key", spans, now);
        let parts: Vec<_> = token.split('.').collect();
        let claims = URL_SAFE_NO_PAD.decode(parts[1]).expect("base64");
        let claims: Value = serde_json::from_slice(&claims).expect("JSON");
        assert_eq!(claims, json!({"iss": "me", "exp": 1_700_001_800, "nbf": 1_699_999_995}));
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"key");
        let signed = URL_SAFE_NO_PAD.decode(parts[2]).expect("base64");
        hmac::verify(&key, format!("{}.{}", parts[0], parts[1]).as_bytes(), &signed)
            .expect("signed");
    }
}
