//! Tokens of Google's for service accounts (RFC 7523).

use super::{unix, unsigned};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use reqwest::Client;
use ring::{rand, rsa, signature};
use serde_json::{Value, json};
use shiftboss_provider::token::Token;
use std::time::{Duration, SystemTime};

/// Where Google gives tokens to service accounts, when the key file names no other place.
const GOOGLE_TOKENS: &str = "https://oauth2.googleapis.com/token";

/// The largest answer of a token server that is read, bytes.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// How long a token holds of which the server does not say it.
pub(super) const HOLDS_FOR: Duration = Duration::from_secs(3_600);

/// Asks for a token; `key_file` is the text of the account's key file.
///
/// # Errors
/// A sentence without any secret.
pub(super) async fn mint(key_file: &str, scope: &str, client: &Client) -> Result<Token, String> {
    let (url, assertion) = google_assertion(key_file, scope, SystemTime::now())?;
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
    let holds_for = body["expires_in"].as_u64().map(|it| Duration::from_secs(it.min(86_400)));
    Ok(Token { value: value.to_owned(), holds_for })
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
