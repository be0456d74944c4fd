//! Around the sidecars: straight to the host, the neighbour, the attacker, a resolver, by every kind of packet that a
//! process without privileges can make.

use crate::attempts::Attempt;
use crate::http::CONNECT_MAX;
use crate::judge::{self, Datagram, Decision};
use crate::known::Known;
use crate::probe::{Touch, touch};
use nix::sys::socket::{setsockopt, sockopt};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType};
use std::ffi::OsString;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, ToSocketAddrs, UdpSocket};
use std::time::Duration;

/// How long an answer to a datagram is waited for.
const ANSWER_MAX: Duration = Duration::from_millis(700);
const HOST_PORTS: [u16; 4] = [22, 80, 2375, 9999];
const ATTACKER_PORTS: [u16; 5] = [22, 53, 80, 443, 8888];
const NEIGHBOUR_PORTS: [u16; 5] = [8080, 8888, 9099, 9100, 9418];
/// Where the world and the tests listen for datagrams.
const DATAGRAM_PORT: u16 = 9999;
/// Ports of a sidecar that are looked at beyond the low ones.
const HIGH_PORTS: [u16; 20] = [
    2375, 2376, 3000, 5000, 5432, 6060, 6379, 8000, 8080, 8081, 8443, 8888, 9000, 9090, 9091, 9099, 9100, 9418, 9443,
    10000,
];

/// The attempts of this theme.
pub const ATTEMPTS: &[Attempt] = &[
    Attempt {
        slug: "attacker-direct",
        tried: "TCP straight to the attacker's address",
        expected: "no answer",
        run: |known| unanswered(&[known.attacker_ip], &ATTACKER_PORTS),
    },
    Attempt {
        slug: "host-direct",
        tried: "TCP to every address of the host",
        expected: "no answer",
        run: |known| unanswered(&known.host_ips, &HOST_PORTS),
    },
    Attempt {
        slug: "neighbour",
        tried: "TCP to another bottle's sidecar",
        expected: "no answer",
        run: |known| unanswered(&[known.neighbour_ip], &NEIGHBOUR_PORTS),
    },
    Attempt {
        slug: "metadata",
        tried: "TCP to a cloud's metadata service",
        expected: "no answer",
        run: |known| unanswered(&[known.metadata_ip], &[80]),
    },
    Attempt {
        slug: "udp-attacker",
        tried: "UDP straight to the attacker's address",
        expected: "nothing arrives",
        run: |known| datagrams("attacker", &[(known.attacker_ip, DATAGRAM_PORT), (known.attacker_ip, 53)], Way::Plain),
    },
    Attempt {
        slug: "udp-host",
        tried: "UDP to every address of the host",
        expected: "nothing arrives",
        run: |known| host_datagrams(known, "host", Way::Plain),
    },
    Attempt {
        slug: "udp-broadcast",
        tried: "UDP by broadcast and by multicast",
        expected: "nothing arrives",
        run: |_| datagrams("broadcast", &everyone(), Way::Plain),
    },
    Attempt {
        slug: "udp-bound-device",
        tried: "UDP to the host with SO_BINDTODEVICE",
        expected: "nothing arrives",
        run: |known| host_datagrams(known, "bound-device", Way::BoundToDevice),
    },
    Attempt {
        slug: "udp-dont-route",
        tried: "UDP to the host with SO_DONTROUTE",
        expected: "nothing arrives",
        run: |known| host_datagrams(known, "dont-route", Way::NoRouting),
    },
    Attempt {
        slug: "dns-direct",
        tried: "a DNS question to a resolver outside, UDP and TCP",
        expected: "no answer",
        run: dns_direct,
    },
    Attempt {
        slug: "dns-configured",
        tried: "a secret as a name for the container's resolver",
        expected: "no answer, no name leaves",
        run: dns_configured,
    },
    Attempt { slug: "ping", tried: "ICMP echo to the host and the attacker", expected: "no answer", run: ping },
    Attempt {
        slug: "ipv-six",
        tried: "IPv6 to all nodes of the link and to the outside",
        expected: "not even sent",
        run: ip6,
    },
    Attempt {
        slug: "sidecar-ports",
        tried: "a port scan of the bottle's own sidecars",
        expected: "only documented ports are open",
        run: sidecar_ports,
    },
];

/// How a datagram is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Plain,
    BoundToDevice,
    NoRouting,
}

fn unanswered(addresses: &[Ipv4Addr], ports: &[u16]) -> Decision {
    let targets: Vec<SocketAddr> =
        addresses.iter().flat_map(|ip| ports.iter().map(|port| SocketAddr::from((*ip, *port)))).collect();
    judge::unanswered(&touch(&targets, CONNECT_MAX))
}

fn everyone() -> Vec<(Ipv4Addr, u16)> {
    [Ipv4Addr::BROADCAST, Ipv4Addr::new(224, 0, 0, 1)].map(|ip| (ip, DATAGRAM_PORT)).to_vec()
}

fn host_datagrams(known: &Known, name: &str, way: Way) -> Decision {
    let mut targets: Vec<_> = known.host_ips.iter().map(|ip| (*ip, DATAGRAM_PORT)).collect();
    if way != Way::Plain {
        targets.extend(everyone());
    }
    datagrams(name, &targets, way)
}

/// Sends one to each and then waits once for any answer.
fn datagrams(name: &str, targets: &[(Ipv4Addr, u16)], way: Way) -> Decision {
    let socket = match datagram_socket(way) {
        Ok(socket) => socket,
        Err(error) => return Decision::held(format!("no socket: {error}")),
    };
    let flags = if way == Way::NoRouting { SendFlags::DONTROUTE } else { SendFlags::empty() };
    let mut sent: Vec<Datagram> = targets
        .iter()
        .map(|(ip, port)| {
            let text = format!("bottle demo-agent udp {name} to {ip}");
            match rustix::net::sendto(&socket, text.as_bytes(), flags, &SocketAddr::from((*ip, *port))) {
                Ok(_) => Datagram::Left,
                Err(error) => Datagram::Failed(error.to_string()),
            }
        })
        .collect();
    if sent.contains(&Datagram::Left)
        && let Ok((_, peer)) = socket.recv_from(&mut [0_u8; 512])
    {
        sent.push(Datagram::Answered(peer));
    }
    judge::datagrams(&sent)
}

fn datagram_socket(way: Way) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.set_broadcast(true)?;
    socket.set_read_timeout(Some(ANSWER_MAX))?;
    if way == Way::BoundToDevice {
        let device = device().ok_or_else(|| io::Error::other("no device"))?;
        setsockopt(&socket, sockopt::BindToDevice, &device)?;
    }
    Ok(socket)
}

/// The first interface that is not loopback.
fn device() -> Option<OsString> {
    let mut names: Vec<_> = std::fs::read_dir("/sys/class/net").ok()?.flatten().map(|e| e.file_name()).collect();
    names.sort();
    names.into_iter().find(|name| name != "lo")
}

fn dns_direct(known: &Known) -> Decision {
    let address = SocketAddr::from((known.resolver_ip, 53));
    let tcp = unanswered(&[known.resolver_ip], &[53]);
    let udp = match udp_question(address, &random_name(known)) {
        Ok(Some(peer)) => Decision::broken(format!("{peer} answered")),
        Ok(None) => Decision::held("no answer"),
        Err(error) => Decision::held(error.to_string()),
    };
    Decision::worst(vec![udp, tcp])
}

fn dns_configured(known: &Known) -> Decision {
    let name = random_name(known);
    // The answer is one thing; whether the name arrived is for the resolver's side to say.
    match (name.as_str(), 443).to_socket_addrs() {
        Ok(mut addresses) => match addresses.next() {
            Some(address) => Decision::broken(format!("resolved to {}", address.ip())),
            None => Decision::held("no address"),
        },
        Err(error) => Decision::held(error.to_string()),
    }
}

fn udp_question(server: SocketAddr, name: &str) -> io::Result<Option<SocketAddr>> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.set_read_timeout(Some(ANSWER_MAX))?;
    let mut query = vec![0x2b, 0x07, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        query.push(u8::try_from(label.len()).unwrap_or(0));
        query.extend_from_slice(label.as_bytes());
    }
    query.extend_from_slice(&[0, 0, 1, 0, 1]);
    socket.send_to(&query, server)?;
    Ok(socket.recv_from(&mut [0_u8; 512]).ok().map(|(_, peer)| peer))
}

/// As if a secret were spelled out in a name; new each time, so that no cache answers.
fn random_name(known: &Known) -> String {
    let mut bytes = [0_u8; 8];
    if rustls::crypto::ring::default_provider().secure_random.fill(&mut bytes).is_err() {
        bytes = std::process::id().to_be_bytes().repeat(2).try_into().unwrap_or(bytes);
    }
    let label: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{label}.{}", known.attacker)
}

fn ping(known: &Known) -> Decision {
    let socket = match rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, Some(rustix::net::ipproto::ICMP)) {
        Ok(socket) => socket,
        Err(error) => return Decision::held(format!("no socket: {error}")),
    };
    let timeout = rustix::net::sockopt::Timeout::Recv;
    if let Err(error) = rustix::net::sockopt::set_socket_timeout(&socket, timeout, Some(ANSWER_MAX)) {
        return Decision::broken(format!("not tried: {error}"));
    }
    // Echo request; the kernel fills in identifier and checksum.
    let echo = [8_u8, 0, 0, 0, 0, 0, 0, 1];
    let mut sent: Vec<Datagram> = known
        .host_ips
        .iter()
        .chain([&known.attacker_ip])
        .map(|ip| match rustix::net::sendto(&socket, &echo, SendFlags::empty(), &SocketAddr::from((*ip, 0))) {
            Ok(_) => Datagram::Left,
            Err(error) => Datagram::Failed(error.to_string()),
        })
        .collect();
    if sent.contains(&Datagram::Left) {
        let mut buffer = [0_u8; 512];
        if let Ok((_, _, Some(peer))) = rustix::net::recvfrom(&socket, &mut buffer[..], RecvFlags::empty())
            && let Ok(peer) = SocketAddr::try_from(peer)
        {
            sent.push(Datagram::Answered(peer));
        }
    }
    judge::datagrams(&sent)
}

fn ip6(known: &Known) -> Decision {
    let outside = SocketAddr::from((known.outside_ip6, 443));
    let tcp = judge::unanswered(&touch(&[outside], CONNECT_MAX));
    let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let targets = [
        SocketAddr::V6(SocketAddrV6::new(all_nodes, DATAGRAM_PORT, 0, device_index())),
        SocketAddr::from((known.outside_ip6, DATAGRAM_PORT)),
    ];
    let sent: Vec<Datagram> = targets
        .iter()
        .map(|target| {
            let text = b"bottle demo-agent udp over ip6";
            match UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).and_then(|socket| socket.send_to(text, target)) {
                Ok(_) => Datagram::Left,
                Err(error) => Datagram::Failed(error.to_string()),
            }
        })
        .collect();
    Decision::worst(vec![tcp, judge::unsent(&sent)])
}

fn device_index() -> u32 {
    let index = device().and_then(|name| {
        std::fs::read_to_string(std::path::Path::new("/sys/class/net").join(name).join("ifindex")).ok()
    });
    index.and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

fn sidecar_ports(known: &Known) -> Decision {
    let mut decisions = Vec::new();
    for sidecar in &known.sidecars {
        // A bottle has only the sidecars it needs: a name that does not resolve is none.
        let Ok(addresses) = (sidecar.host.as_str(), sidecar.port).to_socket_addrs() else { continue };
        let Some(IpAddr::V4(ip)) = addresses.map(|address| address.ip()).find(IpAddr::is_ipv4) else { continue };
        let targets: Vec<SocketAddr> = (1..=1024).chain(HIGH_PORTS).map(|port| SocketAddr::from((ip, port))).collect();
        let touched: Vec<(SocketAddr, Touch)> = touch(&targets, Duration::from_millis(500));
        decisions.push(judge::documented(&touched, &[sidecar.port]));
    }
    if decisions.is_empty() { judge::documented(&[], &[]) } else { Decision::worst(decisions) }
}
