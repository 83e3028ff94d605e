//! Which addresses a relay connects to: those of the Internet, and private ones of a host that was allowed by name.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Allowed;

/// An address that is not connected to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{host} has the address {address}, which is {kind}: nothing was sent; whoever runs the platform can allow the host by name \
     (remotes.allowedPrivateHosts: [{host:?}] in the chart's values, --allow-private-host for portolan dev)"
)]
pub(crate) struct Refused {
    host: String,
    address: IpAddr,
    kind: &'static str,
}

/// What is allowed to one host.
#[derive(Clone, Debug)]
pub(super) struct Policy {
    host: String,
    is_allowed: bool,
    loopback: bool,
}

impl Policy {
    /// The policy for `host` as its URL has it.
    pub(super) fn new(host: &str, allowed: &Allowed) -> Self {
        let is_allowed = allowed.hosts.iter().any(|one| plain(one) == plain(host));
        Self { host: host.to_owned(), is_allowed, loopback: allowed.loopback }
    }

    /// Whether `address` may be connected to.
    ///
    /// # Errors
    /// It may not.
    pub(super) fn judge(&self, address: IpAddr) -> Result<(), Refused> {
        let Some(kind) = private(address).filter(|_| !self.is_allowed) else { return Ok(()) };
        if self.loopback && address.is_loopback() {
            return Ok(());
        }
        Err(Refused { host: self.host.clone(), address, kind })
    }

    pub(super) fn host(&self) -> &str {
        &self.host
    }
}

/// A host without what means nothing: case, the dot of the root, the brackets of an IPv6 address.
fn plain(host: &str) -> String {
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()
}

/// What `address` is, unless it is one of the Internet.
fn private(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(address) => private_v4(address),
        IpAddr::V6(address) => private_v6(address),
    }
}

fn private_v4(address: Ipv4Addr) -> Option<&'static str> {
    let [a, b, c, _] = address.octets();
    Some(match (a, b, c) {
        (0, ..) => "unspecified",
        (127, ..) => "loopback",
        (10, ..) | (172, 16..=31, _) | (192, 168, _) => "private (RFC 1918)",
        (169, 254, _) => "link-local, where clouds keep the credentials of nodes",
        (100, 64..=127, _) => "private to a provider (RFC 6598)",
        (192, 0, 0) | (192, 88, 99) | (198, 18..=19, _) => "reserved for the network itself",
        (224..=239, ..) => "multicast",
        (240.., ..) => "reserved",
        _ => return None,
    })
}

fn private_v6(address: Ipv6Addr) -> Option<&'static str> {
    let embedded = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        private_v4(Ipv4Addr::new(a, b, c, d))
    };
    Some(match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0] => "unspecified",
        [0, 0, 0, 0, 0, 0, 0, 1] => "loopback",
        [0, 0, 0, 0, 0, 0xffff, ..] => "an IPv4 address in the guise of IPv6: write the IPv4 address",
        [0, 0, 0, 0, 0, 0, ..] | [0, 0, 0, 0, 0xffff, 0, ..] => "an IPv4 address in the guise of IPv6",
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => return embedded(high, low),
        [0x64, 0xff9b, ..] => "a translation to IPv4 that is private to a network",
        [0x2001, 0, ..] => "a tunnel to IPv4",
        [0xfc00..=0xfdff, ..] => "unique-local",
        [0xfe80..=0xfebf, ..] => "link-local",
        [0xfec0..=0xfeff, ..] => "site-local",
        [0xff00..=0xffff, ..] => "multicast",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(host: &str, allowed: &Allowed, address: &str) -> Result<(), String> {
        let address = address.parse().unwrap_or_else(|_| panic!("{address}"));
        Policy::new(host, allowed).judge(address).map_err(|refused| refused.to_string())
    }

    #[test]
    fn private_addresses_of_every_kind_are_refused_with_what_can_be_done() {
        for (address, kind) in [
            ("0.0.0.0", "unspecified"),
            ("0.1.2.3", "unspecified"),
            ("127.0.0.1", "loopback"),
            ("127.255.255.254", "loopback"),
            ("10.0.0.1", "private"),
            ("172.16.0.1", "private"),
            ("172.31.255.255", "private"),
            ("192.168.1.1", "private"),
            ("169.254.169.254", "link-local"),
            ("100.100.100.200", "provider"),
            ("192.0.0.192", "network itself"),
            ("198.19.0.1", "network itself"),
            ("224.0.0.1", "multicast"),
            ("239.255.255.250", "multicast"),
            ("240.0.0.1", "reserved"),
            ("255.255.255.255", "reserved"),
            ("::", "unspecified"),
            ("::1", "loopback"),
            ("::ffff:127.0.0.1", "guise"),
            ("::ffff:8.8.8.8", "guise"),
            ("::127.0.0.1", "guise"),
            ("::ffff:0:127.0.0.1", "guise"),
            ("64:ff9b::10.0.0.1", "private"),
            ("64:ff9b::169.254.169.254", "link-local"),
            ("64:ff9b:1::1", "translation"),
            ("2002:7f00:1::", "loopback"),
            ("2001:0:1::1", "tunnel"),
            ("fc00::1", "unique-local"),
            ("fd00:ec2::254", "unique-local"),
            ("fe80::1", "link-local"),
            ("febf::1", "link-local"),
            ("fec0::1", "site-local"),
            ("ff02::1", "multicast"),
        ] {
            let said = judge("mcp.example", &Allowed::default(), address).expect_err(address);
            assert!(said.contains(kind), "{address}: {said}");
            let shown = address.parse::<IpAddr>().map(|address| address.to_string()).unwrap_or_default();
            assert!(said.contains("allowedPrivateHosts: [\"mcp.example\"]") && said.contains(&shown), "{said}");
        }
    }

    #[test]
    fn addresses_of_the_internet_are_not_refused() {
        for address in [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.1",
            "100.63.255.255",
            "100.128.0.1",
            "126.255.255.255",
            "128.0.0.1",
            "169.253.0.1",
            "172.15.255.255",
            "172.32.0.1",
            "192.0.1.1",
            "192.167.255.255",
            "198.17.255.255",
            "198.20.0.1",
            "223.255.255.255",
            "2606:4700::1111",
            "64:ff9b::8.8.8.8",
            "2002:808:808::1",
        ] {
            assert_eq!(judge("mcp.example", &Allowed::default(), address), Ok(()), "{address}");
        }
    }

    #[test]
    fn a_host_is_allowed_by_its_whole_name_however_that_is_written_and_no_other_is() {
        let allowed =
            Allowed { hosts: vec!["MCP.tools.svc.".into(), "10.1.2.3".into(), "fd00::1".into()], loopback: false };
        for host in ["mcp.tools.svc", "Mcp.Tools.Svc", "mcp.tools.svc.", "10.1.2.3", "[fd00::1]"] {
            assert_eq!(judge(host, &allowed, "10.1.2.3"), Ok(()), "{host}");
        }
        for host in ["tools.svc", "a.mcp.tools.svc", "mcp.tools.svc.example", "10.1.2.4", ""] {
            assert!(judge(host, &allowed, "10.1.2.3").is_err(), "{host}");
        }
    }

    #[test]
    fn on_a_developers_machine_it_is_itself_allowed_and_nothing_else() {
        let allowed = Allowed { hosts: Vec::new(), loopback: true };
        assert_eq!(judge("localhost", &allowed, "127.0.0.1"), Ok(()));
        assert_eq!(judge("localhost", &allowed, "::1"), Ok(()));
        for address in ["10.0.0.1", "169.254.169.254", "::ffff:127.0.0.1", "0.0.0.0"] {
            assert!(judge("localhost", &allowed, address).is_err(), "{address}");
        }
    }
}
