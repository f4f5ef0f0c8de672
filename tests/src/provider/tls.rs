//! TLS for the simulator: an identity that is made when it starts, and connections that may be
//! cut without a word. The certificate is put together here because nothing else of ours makes
//! one: X.509 version 3 (RFC 5280), Ed25519 (RFC 8410), for 127.0.0.1 and localhost.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;

/// A key and the certificate that it has signed for itself.
pub(super) struct Identity {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

/// A connection, with TLS or without.
pub(super) trait Talk: Read + Write {
    /// Ends it as a broken cable does: TLS does not say goodbye.
    fn cut(&mut self);
}

impl Talk for TcpStream {
    fn cut(&mut self) {
        let _ = self.shutdown(Shutdown::Both);
    }
}

impl Talk for StreamOwned<ServerConnection, TcpStream> {
    fn cut(&mut self) {
        let _ = self.flush();
        self.sock.cut();
    }
}

/// Makes a connection of what was accepted.
pub(super) fn talk(
    stream: TcpStream,
    tls: Option<&Arc<ServerConfig>>,
) -> Result<Box<dyn Talk>, rustls::Error> {
    let Some(tls) = tls else { return Ok(Box::new(stream)) };
    let connection = ServerConnection::new(Arc::clone(tls))?;
    Ok(Box::new(StreamOwned::new(connection, stream)))
}

impl Identity {
    pub(super) fn new() -> Self {
        let random = SystemRandom::new();
        let key = Ed25519KeyPair::generate_pkcs8(&random).expect("the kernel gives random bytes");
        let pair = Ed25519KeyPair::from_pkcs8(key.as_ref()).expect("it was just made");
        let body = to_be_signed(pair.public_key().as_ref());
        let signature = bits(pair.sign(&body).as_ref());
        let certificate = of(SEQUENCE, &[&body, &ed25519(), &signature]);
        Self { certificate, key: key.as_ref().to_vec() }
    }

    /// The certificate as a file holds it.
    pub(super) fn pem(&self) -> String {
        let text = STANDARD.encode(&self.certificate);
        let lines: Vec<_> = text.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
        let lines = lines.join("\n");
        format!("-----BEGIN CERTIFICATE-----\n{lines}\n-----END CERTIFICATE-----\n")
    }

    pub(super) fn server(&self) -> Arc<ServerConfig> {
        let chain = vec![CertificateDer::from(self.certificate.clone())];
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(self.key.clone()));
        let ring = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(ring)
            .with_safe_default_protocol_versions()
            .expect("ring speaks TLS 1.3")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .expect("key and certificate were made for each other");
        Arc::new(config)
    }
}

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const OBJECT: u8 = 0x06;
const UTF8: u8 = 0x0c;
const TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
/// The version and the extensions of a certificate, an address and a name in its alternatives.
const VERSION: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;
const ADDRESS: u8 = 0x87;
const DNS: u8 = 0x82;

/// What the signature is for. Its end is in the year 2099, for a test can run late.
fn to_be_signed(public: &[u8]) -> Vec<u8> {
    let version = of(VERSION, &[&of(INTEGER, &[&[2]])]);
    let serial = of(INTEGER, &[&[1]]);
    // commonName, 2.5.4.3
    let name = of(SEQUENCE, &[&of(OBJECT, &[&[0x55, 4, 3]]), &of(UTF8, &[b"simulated provider"])]);
    let name = of(SEQUENCE, &[&of(SET, &[&name])]);
    let time = |text: &str| of(TIME, &[text.as_bytes()]);
    let validity = of(SEQUENCE, &[&time("20200101000000Z"), &time("20991231235959Z")]);
    let key = of(SEQUENCE, &[&ed25519(), &bits(public)]);
    let names = [of(ADDRESS, &[&[127, 0, 0, 1]]), of(DNS, &[b"localhost"])].concat();
    let names = of(OCTET_STRING, &[&of(SEQUENCE, &[&names])]);
    // subjectAltName, 2.5.29.17
    let alternatives = of(SEQUENCE, &[&of(OBJECT, &[&[0x55, 29, 17]]), &names]);
    let extensions = of(EXTENSIONS, &[&of(SEQUENCE, &[&alternatives])]);
    let parts: [&[u8]; 8] =
        [&version, &serial, &ed25519(), &name, &validity, &name, &key, &extensions];
    of(SEQUENCE, &parts)
}

/// The algorithm, 1.3.101.112.
fn ed25519() -> Vec<u8> {
    of(SEQUENCE, &[&of(OBJECT, &[&[0x2b, 0x65, 0x70]])])
}

fn bits(bytes: &[u8]) -> Vec<u8> {
    of(BIT_STRING, &[&[0], bytes])
}

/// An element of DER (ITU-T X.690) with these contents, of less than 64 KiB.
fn of(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let contents = parts.concat();
    let length = u16::try_from(contents.len()).expect("it is short");
    let [high, low] = length.to_be_bytes();
    let mut element = match length {
        0..=0x7f => vec![tag, low],
        0x80..=0xff => vec![tag, 0x81, low],
        _ => vec![tag, 0x82, high, low],
    };
    element.extend(contents);
    element
}
