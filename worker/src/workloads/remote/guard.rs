//! Which addresses may be reached: public ones, and the private ones that a description names.
//!
//! A link in an answer is the provider's to choose, so it could name the host's own services or
//! its cloud's metadata. Names are checked after they are resolved, by the resolver that the
//! client connects with, so that no second look can find another address.

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use shiftboss_provider::description::Provider;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use url::{Host, Url};

/// What may be reached for one provider.
#[derive(Clone, Debug, Default)]
pub(super) struct Guard {
    /// Any port of these.
    addresses: Vec<IpAddr>,
    /// This port only, of URLs that name the address itself.
    ports: Vec<SocketAddr>,
}

impl Guard {
    pub(super) fn of(provider: &Provider) -> Self {
        let texts = || provider.private.iter();
        Self {
            addresses: texts().filter_map(|text| text.parse().ok()).collect(),
            ports: texts().filter_map(|text| text.parse().ok()).collect(),
        }
    }

    /// Checks what can be checked of a URL before its name is resolved.
    ///
    /// # Errors
    /// A sentence that names the address.
    pub(super) fn check(&self, url: &Url) -> Result<(), String> {
        let address = match url.host() {
            Some(Host::Ipv4(address)) => IpAddr::V4(address),
            Some(Host::Ipv6(address)) => IpAddr::V6(address),
            Some(Host::Domain(_)) => return Ok(()),
            None => return Err("a URL without a host".to_owned()),
        };
        let port = url.port_or_known_default().unwrap_or(0);
        let is_named = self.ports.contains(&SocketAddr::new(address, port));
        if self.allows(address) || is_named { Ok(()) } else { Err(refused(address)) }
    }

    fn allows(&self, address: IpAddr) -> bool {
        is_public(address) || self.addresses.contains(&address)
    }
}

fn refused(address: IpAddr) -> String {
    format!(
        "{address} is not a public address, and the provider's `private` does not name it: nothing \
         was sent"
    )
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = self.clone();
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let (allowed, others): (Vec<_>, Vec<_>) =
                found.partition(|address| guard.allows(address.ip()));
            match (allowed.is_empty(), others.first()) {
                (true, Some(address)) => Err(refused(address.ip()).into()),
                (true, None) => Err("the name has no address".into()),
                (false, _) => {
                    let addresses: Addrs = Box::new(allowed.into_iter());
                    Ok(addresses)
                }
            }
        })
    }
}

/// Whether an address is one of the Internet's. Addresses that carry another one are judged by
/// that.
pub(super) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !(a == 0
        || a >= 224
        || address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_documentation()
        // Carriers' own, protocol assignments, benchmarks, 6to4 relays.
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 198 && (18..20).contains(&b))
        || (a == 192 && b == 88 && c == 99))
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    if let Some(inner) = address.to_ipv4_mapped() {
        return is_public_v4(inner);
    }
    let inner = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        is_public_v4(Ipv4Addr::new(a, b, c, d))
    };
    match segments {
        // NAT64 and 6to4 lead to the address that they hold.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => inner(high, low),
        [0x2002, high, low, ..] => inner(high, low),
        // Teredo, documentation, and what is not global unicast.
        [0x2001, 0, ..] | [0x2001, 0xdb8, ..] => false,
        [first, ..] => (0x2000..0x4000).contains(&first),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_the_internet_are_public() {
        for text in ["8.8.8.8", "1.1.1.1", "100.63.0.1", "2606:4700::1111", "64:ff9b::8.8.8.8"] {
            assert!(is_public(text.parse().expect("an address")), "{text}");
        }
        for text in [
            "0.0.0.0",
            "127.0.0.1",
            "127.8.8.8",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "192.0.0.8",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "240.0.0.1",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::127.0.0.1",
            "fe80::1",
            "fc00::1",
            "fd12::1",
            "ff02::1",
            "64:ff9b::10.0.0.1",
            "2002:7f00:1::",
            "2001:db8::1",
            "2001::1",
        ] {
            assert!(!is_public(text.parse().expect("an address")), "{text}");
        }
    }

    #[test]
    fn a_private_address_is_reached_only_where_the_description_names_it() {
        let guard = Guard {
            addresses: vec!["10.0.0.7".parse().expect("an address")],
            ports: vec!["127.0.0.1:8080".parse().expect("an address")],
        };
        let check = |url: &str| guard.check(&Url::parse(url).expect("a URL"));
        for url in
            ["https://8.8.8.8/", "http://10.0.0.7:9/x", "http://127.0.0.1:8080/", "https://a.b/"]
        {
            assert_eq!(check(url), Ok(()), "{url}");
        }
        // The URL parser has turned other spellings into addresses before they come here.
        for url in [
            "http://127.0.0.1/",
            "http://127.0.0.1:8081/",
            "http://2130706433:8081/",
            "http://0x7f.1:8081/",
            "http://[::1]:8080/",
            "http://169.254.169.254/latest",
        ] {
            let refusal = check(url).expect_err(url);
            assert!(refusal.contains("not a public address"), "{refusal}");
        }
    }
}
