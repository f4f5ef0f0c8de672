//! A token server as Google's: takes what a service account has signed and gives a token for it
//! (RFC 7523).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

/// Whose key it knows.
const EMAIL: &str = "worker@simulated.example";
const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";
/// How its tokens begin.
pub(in crate::provider) const TOKEN: &str = "ya29.simulated-";

/// Makes a key for the account: the private half as PEM, the public half where the simulator with
/// this journal looks for it. `None` where there is no `openssl`.
///
/// # Panics
/// When `openssl` fails.
#[must_use]
pub fn account(journal: &Path) -> Option<String> {
    let (private, public) = (journal.with_extension("private"), journal.with_extension("public"));
    let openssl = |arguments: &[&str]| {
        let told = Command::new("openssl").args(arguments).output().ok()?;
        assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
        Some(())
    };
    let [private, public] = [&private, &public].map(|path| path.to_str().expect("it is text"));
    openssl(&[
        "genpkey",
        "-algorithm",
        "RSA",
        "-pkeyopt",
        "rsa_keygen_bits:2048",
        "-out",
        private,
    ])?;
    let export = ["-RSAPublicKey_out", "-outform", "DER", "-out", public];
    openssl(&[&["rsa", "-in", private], &export[..]].concat())?;
    let key = std::fs::read_to_string(private).expect("openssl wrote it");
    std::fs::remove_file(private).expect("the folder is ours");
    Some(key)
}

/// The file that Google gives to the owner of an account.
#[must_use]
pub fn key_file(key: &str, token_uri: &str) -> String {
    json!({
        "type": "service_account", "client_email": EMAIL, "private_key": key,
        "token_uri": token_uri,
    })
    .to_string()
}

/// The answer to a request for a token, the `number`th.
pub(in crate::provider) fn token(
    body: &[u8],
    journal: &Path,
    aud: &str,
    number: usize,
) -> (u16, Value) {
    let public = std::fs::read(journal.with_extension("public")).unwrap_or_default();
    match is_asked_for(&String::from_utf8_lossy(body), &public, aud) {
        Ok(()) => {
            let token = format!("{TOKEN}{number}");
            (200, json!({ "access_token": token, "expires_in": 3_599, "token_type": "Bearer" }))
        }
        Err(why) => (400, json!({ "error": "invalid_grant", "error_description": why })),
    }
}

fn is_asked_for(body: &str, public: &[u8], aud: &str) -> Result<(), &'static str> {
    let grant = "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion=";
    let assertion = body.strip_prefix(grant).ok_or("another grant")?;
    let (signed, signature) = assertion.rsplit_once('.').ok_or("no JWT")?;
    let (header, claims) = signed.split_once('.').ok_or("no JWT")?;
    let bytes = |text: &str| URL_SAFE_NO_PAD.decode(text).map_err(|_| "no base64url");
    UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, public)
        .verify(signed.as_bytes(), &bytes(signature)?)
        .map_err(|_| "Invalid JWT Signature.")?;
    let json = |text: &str| serde_json::from_slice::<Value>(&bytes(text)?).map_err(|_| "no JSON");
    let (header, claims) = (json(header)?, json(claims)?);
    let time = |name: &str| claims[name].as_u64().ok_or("a claim is missing");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (issued, ends) = (time("iat")?, time("exp")?);
    // Google takes an hour at most.
    let is_now = issued <= now + 10 && now < ends && ends <= issued + 3_600;
    let is_ours = claims["iss"] == EMAIL && claims["scope"] == SCOPE && claims["aud"] == aud;
    match (header["alg"] == "RS256", is_now, is_ours) {
        (true, true, true) => Ok(()),
        (false, _, _) => Err("another algorithm"),
        (true, false, _) => Err("not now"),
        (true, true, false) => Err("not for this"),
    }
}
