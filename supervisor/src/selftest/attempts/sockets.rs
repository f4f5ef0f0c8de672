//! Talks to whom it may not: the supervisor, services of the host, the network. Where a call can
//! succeed in a network of its own, the host's listeners tell whether anything arrived.

use super::super::kernel::{Arg, call, numbers};
use super::{Attempt, Scene, attempt, may_succeed, must_fail};
use crate::selftest::verdict::{Denial, Outcome};
use std::io::Write;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// No such socket, or not for us.
const NO_SOCKET: Denial = Denial::Errno(&[
    libc::ENOENT,
    libc::EACCES,
    libc::EPERM,
    libc::ECONNREFUSED,
    libc::EAFNOSUPPORT,
]);
/// No family of that kind.
const NO_FAMILY: Denial = Denial::Errno(&[
    libc::EAFNOSUPPORT,
    libc::EACCES,
    libc::EPERM,
    libc::ENOSYS,
    libc::EPROTONOSUPPORT,
    libc::ESOCKTNOSUPPORT,
]);
/// Nothing arrives outside.
const NOTHING_ARRIVES: Denial = Denial::Contained(&[
    libc::ENETUNREACH,
    libc::ECONNREFUSED,
    libc::EHOSTUNREACH,
    libc::EADDRNOTAVAIL,
    libc::EAFNOSUPPORT,
    libc::EPROTONOSUPPORT,
    libc::ENOPROTOOPT,
    libc::EOPNOTSUPP,
    libc::EACCES,
    libc::EPERM,
    libc::ENOSYS,
]);
/// Not even a way there.
const NO_WAY: Denial = Denial::Errno(&[
    libc::ENETUNREACH,
    libc::EHOSTUNREACH,
    libc::EACCES,
    libc::EPERM,
    libc::EAFNOSUPPORT,
    libc::EPROTONOSUPPORT,
]);

const PATIENCE: Duration = Duration::from_secs(3);

/// Sends with data in the first packet.
const MSG_FASTOPEN: i64 = 0x2000_0000;

const fn network(
    name: &'static str,
    tries: &'static str,
    denial: Denial,
    run: fn(&Scene) -> Outcome,
) -> Attempt {
    Attempt { name, tries, denial, network: true, run }
}

pub(super) const ATTEMPTS: &[Attempt] = &[
    attempt("control-socket", "connect to the control socket", NO_SOCKET, |scene| {
        connect(&scene.plan.runtime_dir.join("control.sock"))
    }),
    attempt("worker-socket", "connect to the workers' socket", NO_SOCKET, |scene| {
        let folder = &scene.plan.runtime_dir;
        match connect(&folder.join("worker.sock")) {
            Outcome::Got(text) => Outcome::Got(text),
            _ => connect(&folder.join("w/worker.sock")),
        }
    }),
    attempt("foreign-socket", "connect to a socket of another service", NO_SOCKET, |scene| {
        connect(&scene.plan.foreign_socket)
    }),
    attempt("abstract-socket", "connect to an abstract socket", NO_SOCKET, |scene| {
        let address = std::os::unix::net::SocketAddr::from_abstract_name(&scene.plan.abstract_name);
        must_fail(address.and_then(|address| UnixStream::connect_addr(&address)))
    }),
    attempt("bus-socket", "connect to the system bus", NO_SOCKET, |_| {
        connect(Path::new("/run/dbus/system_bus_socket"))
    }),
    attempt("systemd-socket", "connect to systemd", NO_SOCKET, |_| {
        connect(Path::new("/run/systemd/private"))
    }),
    attempt("journal-socket", "connect to the journal", NO_SOCKET, |_| {
        connect(Path::new("/run/systemd/journal/stdout"))
    }),
    attempt("container-socket", "connect to a container engine", NO_SOCKET, |_| {
        connect(Path::new("/var/run/docker.sock"))
    }),
    network("tcp-loopback", "connect to the host's loopback by TCP", NOTHING_ARRIVES, |scene| {
        tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, scene.plan.tcp_port)))
    }),
    network("tcp6-loopback", "connect to the host's loopback by TCP over IPv6", NOTHING_ARRIVES, {
        |scene| match scene.plan.tcp6_port {
            Some(port) => tcp(SocketAddr::from((Ipv6Addr::LOCALHOST, port))),
            // The host has no IPv6 to be reached by; the socket itself may still be tried.
            None => tcp(SocketAddr::from((Ipv6Addr::LOCALHOST, scene.plan.tcp_port))),
        }
    }),
    network("udp-loopback", "send to the host's loopback by UDP", NOTHING_ARRIVES, |scene| {
        let to = SocketAddr::from((Ipv4Addr::LOCALHOST, scene.plan.udp_port));
        let sent = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))
            .and_then(|socket| socket.send_to(scene.plan.token.as_bytes(), to));
        may_succeed(sent)
    }),
    network("udp-abroad", "find a way to another machine", NO_WAY, |_| {
        // Connecting a UDP socket looks for a way and sends nothing; the address is one of those
        // that are for documentation only.
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0));
        must_fail(socket.and_then(|socket| socket.connect((Ipv4Addr::new(192, 0, 2, 1), 53))))
    }),
    network("multipath-tcp", "connect to the host's loopback by MPTCP", NOTHING_ARRIVES, |scene| {
        const IPPROTO_MPTCP: i64 = 262;
        let stream = i64::from(libc::SOCK_STREAM);
        let socket = numbers(libc::SYS_socket, &[i64::from(libc::AF_INET), stream, IPPROTO_MPTCP]);
        may_succeed(socket.and_then(|socket| {
            let mut address = loopback(scene.plan.multipath_port);
            let bytes = Arg::Bytes(&mut address);
            call(libc::SYS_connect, &mut [Arg::Number(socket), bytes, Arg::Number(16)])
        }))
    }),
    network(
        "tcp-fast-open",
        "connect to the host's loopback with data",
        NOTHING_ARRIVES,
        |scene| {
            let family = i64::from(libc::AF_INET);
            let socket = numbers(libc::SYS_socket, &[family, i64::from(libc::SOCK_STREAM), 0]);
            may_succeed(socket.and_then(|socket| {
                let (mut address, mut text) = (loopback(scene.plan.fast_open_port), *b"fast open");
                call(
                    libc::SYS_sendto,
                    &mut [
                        Arg::Number(socket),
                        Arg::Bytes(&mut text),
                        Arg::Number(9),
                        Arg::Number(MSG_FASTOPEN),
                        Arg::Bytes(&mut address),
                        Arg::Number(16),
                    ],
                )
            }))
        },
    ),
    attempt("raw-socket", "make a raw IP socket", NO_FAMILY, |_| {
        socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP)
    }),
    attempt("packet-socket", "make a packet socket", NO_FAMILY, |_| {
        socket(libc::AF_PACKET, libc::SOCK_RAW, 0x300)
    }),
    attempt("netlink-socket", "make a netlink socket for routes", NO_FAMILY, |_| {
        socket(libc::AF_NETLINK, libc::SOCK_RAW, 0)
    }),
    attempt("audit-socket", "make a netlink socket for audit", NO_FAMILY, |_| {
        socket(libc::AF_NETLINK, libc::SOCK_RAW, 9)
    }),
    attempt("firewall-socket", "make a netlink socket for netfilter", NO_FAMILY, |_| {
        socket(libc::AF_NETLINK, libc::SOCK_RAW, 12)
    }),
    attempt("vsock", "make a socket to the virtual machine's host", NO_FAMILY, |_| {
        socket(libc::AF_VSOCK, libc::SOCK_STREAM, 0)
    }),
    attempt("crypto-socket", "make a socket of the kernel's crypto", NO_FAMILY, |_| {
        socket(libc::AF_ALG, libc::SOCK_SEQPACKET, 0)
    }),
    attempt("bluetooth-socket", "make a Bluetooth socket", NO_FAMILY, |_| {
        socket(libc::AF_BLUETOOTH, libc::SOCK_RAW, 1)
    }),
    attempt("bus-family-socket", "make a CAN socket", NO_FAMILY, |_| {
        socket(libc::AF_CAN, libc::SOCK_RAW, 1)
    }),
    attempt("cluster-socket", "make a TIPC socket", NO_FAMILY, |_| {
        socket(libc::AF_TIPC, libc::SOCK_STREAM, 0)
    }),
    attempt("express-socket", "make an XDP socket", NO_FAMILY, |_| {
        socket(libc::AF_XDP, libc::SOCK_RAW, 0)
    }),
    attempt("key-socket", "make a key management socket", NO_FAMILY, |_| {
        socket(libc::AF_KEY, libc::SOCK_RAW, 2)
    }),
];

fn connect(path: &Path) -> Outcome {
    must_fail(UnixStream::connect(path))
}

fn tcp(to: SocketAddr) -> Outcome {
    may_succeed(TcpStream::connect_timeout(&to, PATIENCE).and_then(|mut it| it.write_all(b"x")))
}

fn socket(family: i32, kind: i32, protocol: i32) -> Outcome {
    must_fail(numbers(libc::SYS_socket, &[family.into(), kind.into(), protocol.into()]))
}

/// `struct sockaddr_in` of 127.0.0.1.
fn loopback(port: u16) -> [u8; 16] {
    let mut address = [0; 16];
    let family = u16::try_from(libc::AF_INET).expect("a small number");
    address[..2].copy_from_slice(&family.to_ne_bytes());
    address[2..4].copy_from_slice(&port.to_be_bytes());
    address[4..8].copy_from_slice(&[127, 0, 0, 1]);
    address
}
