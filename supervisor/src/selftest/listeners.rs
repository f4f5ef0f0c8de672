//! Those who must never be spoken to: sockets of the host that the hostile program reaches for.
//! Nothing accepts until it has ended: what arrived waits in the queue until it is looked for.

use super::kernel::numbers;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, TcpStream, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;

/// All of them.
pub(super) struct Listeners {
    tcp: TcpListener,
    multipath: TcpListener,
    fast_open: TcpListener,
    /// None where the host has no IPv6.
    tcp6: Option<TcpListener>,
    udp: UdpSocket,
    foreign: UnixListener,
    abstract_one: UnixListener,
    memory: Memory,
}

/// Ports and names, for the plan.
pub(super) struct Addresses {
    pub(super) tcp: u16,
    pub(super) multipath: u16,
    pub(super) fast_open: u16,
    pub(super) tcp6: Option<u16>,
    pub(super) udp: u16,
    pub(super) memory_key: i32,
}

impl Listeners {
    /// Opens all of them; `token` names what has a name.
    pub(super) fn open(foreign: &Path, token: &str) -> io::Result<Self> {
        let local = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(silent);
        let name = std::os::unix::net::SocketAddr::from_abstract_name(token)?;
        let listeners = Self {
            tcp: local()?,
            multipath: local()?,
            fast_open: local()?,
            tcp6: TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).and_then(silent).ok(),
            udp: UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?,
            foreign: UnixListener::bind(foreign)?,
            abstract_one: UnixListener::bind_addr(&name)?,
            memory: Memory::make()?,
        };
        listeners.udp.set_nonblocking(true)?;
        listeners.foreign.set_nonblocking(true)?;
        listeners.abstract_one.set_nonblocking(true)?;
        std::fs::set_permissions(foreign, std::fs::Permissions::from_mode(0o777))?;
        Ok(listeners)
    }

    pub(super) fn addresses(&self) -> io::Result<Addresses> {
        let port = |listener: &TcpListener| listener.local_addr().map(|address| address.port());
        Ok(Addresses {
            tcp: port(&self.tcp)?,
            multipath: port(&self.multipath)?,
            fast_open: port(&self.fast_open)?,
            tcp6: self.tcp6.as_ref().map(port).transpose()?,
            udp: self.udp.local_addr()?.port(),
            memory_key: self.memory.key,
        })
    }

    /// The attempts of which something arrived since the last look.
    pub(super) fn arrived(&self) -> Vec<(&'static str, String)> {
        let mut arrived = Vec::new();
        let connections = [
            ("tcp-loopback", Some(&self.tcp)),
            ("multipath-tcp", Some(&self.multipath)),
            ("tcp-fast-open", Some(&self.fast_open)),
            ("tcp6-loopback", self.tcp6.as_ref()),
        ];
        for (name, listener) in connections {
            while let Some(Ok((_, from))) = listener.map(TcpListener::accept) {
                arrived.push((name, format!("a connection from {from} arrived")));
            }
        }
        let mut bytes = [0; 64];
        while let Ok((count, from)) = self.udp.recv_from(&mut bytes) {
            arrived.push(("udp-loopback", format!("{count} bytes from {from} arrived")));
        }
        for (name, listener) in
            [("foreign-socket", &self.foreign), ("abstract-socket", &self.abstract_one)]
        {
            while listener.accept().is_ok() {
                arrived.push((name, "a connection arrived".to_owned()));
            }
        }
        if self.memory.has_queue() {
            arrived.push(("foreign-queue", "the queue is there".to_owned()));
        }
        arrived
    }

    /// Proves that they can be reached: what arrived from nobody would prove nothing otherwise.
    pub(super) fn prove(&self) -> io::Result<()> {
        for listener in [&self.tcp, &self.multipath, &self.fast_open] {
            TcpStream::connect(listener.local_addr()?)?;
        }
        if let Some(listener) = &self.tcp6 {
            TcpStream::connect(listener.local_addr()?)?;
        }
        let sender = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        sender.send_to(b"proof", self.udp.local_addr()?)?;
        let expected = if self.tcp6.is_some() { 5 } else { 4 };
        match self.arrived().len() {
            count if count == expected => Ok(()),
            count => Err(io::Error::other(format!(
                "{expected} connections were made to the listeners and {count} arrived"
            ))),
        }
    }
}

fn silent(listener: TcpListener) -> io::Result<TcpListener> {
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// A piece of System V memory that everybody may use; removed at the end.
struct Memory {
    key: i32,
    id: i64,
}

impl Memory {
    fn make() -> io::Result<Self> {
        const CREATE_NEW: i64 = 0o3000 | 0o666;
        let mut bytes = [0; 4];
        getrandom::fill(&mut bytes).map_err(io::Error::other)?;
        // Not 0, which stands for no key.
        let key = i32::from_ne_bytes(bytes) | 1;
        let id = numbers(libc::SYS_shmget, &[i64::from(key), 4096, CREATE_NEW])?;
        Ok(Self { key, id })
    }

    /// Whether there is a message queue of that key; removes it.
    fn has_queue(&self) -> bool {
        let queue = numbers(libc::SYS_msgget, &[i64::from(self.key), 0]);
        queue.is_ok_and(|queue| numbers(libc::SYS_msgctl, &[queue, 0, 0]).is_ok())
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let _ = numbers(libc::SYS_shmctl, &[self.id, 0, 0]);
    }
}
