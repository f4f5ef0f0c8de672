//! What proves to a provider who asks: made here, sent only to the host that it belongs to.

use super::secrets::Secrets;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use reqwest::Client;
use ring::{hmac, rand, rsa, signature};
use serde_json::{Value, json};
use shiftboss_provider::description::{Auth, Provider};
use shiftboss_provider::template::{Into, Scope};
use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, SystemTime};
use tokio::sync::Mutex;

/// How long before its end a token is renewed.
const RENEWED_BEFORE: Duration = Duration::from_secs(60);

/// Where Google gives tokens to service accounts, when the key file names no other place.
const GOOGLE_TOKENS: &str = "https://oauth2.googleapis.com/token";

/// The largest answer of a token server that is read, bytes.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// Tokens that hold for a while, by provider.
#[derive(Default)]
pub(super) struct Credentials {
    tokens: Mutex<HashMap<String, Token>>,
}

#[derive(Clone)]
struct Token {
    value: String,
    until: SystemTime,
}

impl Credentials {
    /// The header that requests to `provider` carry; `None` where they need none.
    ///
    /// # Errors
    /// A sentence without any secret.
    pub(super) async fn header(
        &self,
        provider: &Provider,
        secrets: &Secrets,
        client: &Client,
    ) -> Result<Option<(String, String)>, String> {
        let bearer = |token: &str| Some(("authorization".to_owned(), format!("Bearer {token}")));
        let secret = |name: &str| {
            let lacking = || secrets.lack(&[name.to_owned()]).unwrap_or_default();
            secrets.get(name).ok_or_else(lacking)
        };
        match &provider.auth {
            Auth::None => Ok(None),
            Auth::Bearer { secret: name } => Ok(bearer(&secret(name)?)),
            Auth::Header { name, value } => {
                let known = BTreeMap::new();
                let find = |name: &str| secrets.get(name);
                let scope = Scope { input: &Value::Null, known: &known, secret: &find };
                Ok(Some((name.clone(), value.text(scope, Into::Text)?)))
            }
            Auth::JwtHs256 { issuer, secret: name, ttl, skew } => {
                let now = SystemTime::now();
                let token = hs256(&secret(issuer)?, &secret(name)?, (ttl.0, skew.0), now);
                Ok(bearer(&token))
            }
            Auth::Google { secret: name, scope } => {
                let token = self.google(&provider.name, (&secret(name)?, scope), client).await?;
                Ok(bearer(&token))
            }
        }
    }

    /// Forgets a token that was refused.
    pub(super) async fn forget(&self, provider: &Provider) {
        self.tokens.lock().await.remove(&provider.name);
    }

    /// One request for all who wait for a token: the lock is held meanwhile.
    async fn google(
        &self,
        name: &str,
        (key_file, scope): (&str, &str),
        client: &Client,
    ) -> Result<String, String> {
        let now = SystemTime::now();
        let mut tokens = self.tokens.lock().await;
        let known = tokens.get(name).filter(|token| token.until > now + RENEWED_BEFORE);
        if let Some(token) = known {
            return Ok(token.value.clone());
        }
        let (url, assertion) = google_assertion(key_file, scope, now)?;
        let form = format!(
            "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion={assertion}"
        );
        let failed = |why: String| format!("cannot get a token of Google's: {why}");
        let request = client.post(url).header("content-type", "application/x-www-form-urlencoded");
        let request = request.body(form).timeout(Duration::from_secs(30));
        let mut answer =
            request.send().await.map_err(|error| failed(error.without_url().to_string()))?;
        let status = answer.status();
        let mut bytes = Vec::new();
        while let Some(chunk) =
            answer.chunk().await.map_err(|error| failed(error.without_url().to_string()))?
        {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > ANSWER_BYTES_MAX {
                return Err(failed("its answer is too long".to_owned()));
            }
        }
        let body: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let value = body["access_token"].as_str().filter(|_| status.is_success());
        let value = value.ok_or_else(|| failed(format!("status {status}: {}", body["error"])))?;
        let seconds = body["expires_in"].as_u64().unwrap_or(3_600).min(86_400);
        let until = now + Duration::from_secs(seconds);
        tokens.insert(name.to_owned(), Token { value: value.to_owned(), until });
        Ok(value.to_owned())
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

/// Where to ask for a token, and the signed text that asks for it (RFC 7523).
fn google_assertion(
    key_file: &str,
    scope: &str,
    now: SystemTime,
) -> Result<(url::Url, String), String> {
    let wrong = |what: &str| format!("the secret is no key file of a service account: {what}");
    let file: Value = serde_json::from_str(key_file).map_err(|_| wrong("it is not JSON"))?;
    let text = |name: &str| file[name].as_str().ok_or_else(|| wrong(&format!("it lacks {name}")));
    let place = file["token_uri"].as_str().unwrap_or(GOOGLE_TOKENS);
    let url = url::Url::parse(place).map_err(|_| wrong("token_uri is no URL"))?;
    if url.scheme() != "https" {
        return Err(wrong("token_uri is not https"));
    }
    let claims = json!({
        "iss": text("client_email")?, "scope": scope, "aud": place,
        "iat": unix(now), "exp": unix(now) + 3_600,
    });
    let unsigned = unsigned(&json!({"alg": "RS256", "typ": "JWT"}), &claims);
    let body: String =
        text("private_key")?.lines().filter(|line| !line.starts_with("-----")).collect();
    let der = STANDARD.decode(body.trim()).map_err(|_| wrong("private_key is no PEM"))?;
    let key = rsa::KeyPair::from_pkcs8(&der).map_err(|_| wrong("private_key is no RSA key"))?;
    let mut signed = vec![0; key.public().modulus_len()];
    key.sign(
        &signature::RSA_PKCS1_SHA256,
        &rand::SystemRandom::new(),
        unsigned.as_bytes(),
        &mut signed,
    )
    .map_err(|_| wrong("private_key cannot sign"))?;
    Ok((url, format!("{unsigned}.{}", URL_SAFE_NO_PAD.encode(signed))))
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

    #[test]
    fn a_key_file_that_is_none_is_refused_without_being_told() {
        let email = "\"client_email\": \"a@b\"";
        for (file, told) in [
            ("s3cret".to_owned(), "it is not JSON"),
            ("{}".to_owned(), "it lacks client_email"),
            (format!("{{{email}}}"), "it lacks private_key"),
            (format!("{{{email}, \"private_key\": \"s3cret\"}}"), "private_key is no"),
            (format!("{{{email}, \"token_uri\": \"http://x\"}}"), "token_uri is not https"),
        ] {
            let refusal = google_assertion(&file, "s", SystemTime::now()).expect_err(&file);
            assert!(refusal.contains(told) && !refusal.contains("s3cret"), "{refusal}");
        }
    }
}
