//! No route leads to the host: not to any of its addresses, not in any kind of packet. The test itself listens on the
//! host, on every address; a plain container beside the bottle is heard, so the ear is one.

use super::docker::{Plain, inspect};
use super::ground::{Lease, python, tag};
use std::io::Read;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Sends `tag` to every address in every way, and says what answered.
const SHOUT: &str = r#"
import select, socket, sys
tag, tcp, udp, addresses = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4].split(",")
streams = []
for address in addresses:
    s = socket.socket(); s.setblocking(False); s.connect_ex((address, tcp)); streams.append((address, s))
device = next(n for _, n in socket.if_nameindex() if n != "lo").encode()
everyone = addresses + ["255.255.255.255", "224.0.0.1"]
for way, option, flags in [("plain", None, 0), ("device", device, 0), ("dontroute", None, 0x4), ("both", device, 0x4)]:
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    if option:
        try: s.setsockopt(socket.SOL_SOCKET, 25, option + b"\0")
        except OSError as e: print("no device:", e); continue
    for address in everyone:
        try: s.sendto(f"{tag} udp {way} {address}".encode(), flags, (address, udp))
        except OSError: pass
_, writable, _ = select.select([], [s for _, s in streams], [], 0.5)
import time; time.sleep(0.5)
for address, s in streams:
    if s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
        try: s.getpeername(); s.send(f"{tag} tcp {address}".encode()); print("connected", address)
        except OSError: pass
    else: pass
time.sleep(0.3)
"#;

/// Listens on every address of the host.
struct Ear {
    tcp: u16,
    udp: u16,
    heard: Arc<Mutex<Vec<String>>>,
}

impl Ear {
    fn open() -> Self {
        let streams = TcpListener::bind("0.0.0.0:0").unwrap();
        let datagrams = UdpSocket::bind("0.0.0.0:0").unwrap();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let (tcp, udp) = (streams.local_addr().unwrap().port(), datagrams.local_addr().unwrap().port());
        let told = Arc::clone(&heard);
        std::thread::spawn(move || {
            for mut stream in streams.incoming().flatten() {
                let told = Arc::clone(&told);
                std::thread::spawn(move || {
                    let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
                    let mut text = String::new();
                    let _ = stream.by_ref().take(256).read_to_string(&mut text); // what came so far is what counts
                    told.lock().unwrap().push(text);
                });
            }
        });
        let told = Arc::clone(&heard);
        std::thread::spawn(move || {
            let mut buffer = [0_u8; 512];
            while let Ok((length, _)) = datagrams.recv_from(&mut buffer) {
                told.lock().unwrap().push(String::from_utf8_lossy(&buffer[..length]).into_owned());
            }
        });
        Self { tcp, udp, heard }
    }

    fn heard(&self, tag: &str) -> Vec<String> {
        self.heard.lock().unwrap().iter().filter(|line| line.contains(tag)).cloned().collect()
    }
}

/// Every address the kernel of this machine takes as its own, gateways of all bridges included.
fn own_addresses() -> Vec<Ipv4Addr> {
    let table = std::fs::read_to_string("/proc/net/fib_trie").unwrap();
    let lines: Vec<&str> = table.lines().map(str::trim).collect();
    let local = lines.windows(2).filter(|pair| pair[1].starts_with("/32 host LOCAL"));
    let mut found: Vec<Ipv4Addr> = local
        .filter_map(|pair| pair[0].trim_start_matches("|-- ").parse().ok())
        .filter(|a: &Ipv4Addr| !a.is_loopback())
        .collect();
    found.sort();
    found.dedup();
    found
}

#[test]
fn no_packet_reaches_the_host_at_any_address() {
    let Some(ground) = Lease::take() else { return };
    let ear = Ear::open();
    let mut addresses = own_addresses();
    assert!(!addresses.is_empty(), "a host has an address");
    // Where the gateway of its own networks would be, and their broadcast addresses.
    let own = inspect(&ground.a.container("agent"));
    for network in own["NetworkSettings"]["Networks"].as_object().unwrap().values() {
        let ip: Ipv4Addr = network["IPAddress"].as_str().unwrap().parse().unwrap();
        let base = u32::from(ip) & !15;
        addresses.extend([Ipv4Addr::from(base + 1), Ipv4Addr::from(base + 15)]);
    }
    let list = addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let (tcp, udp) = (ear.tcp.to_string(), ear.udp.to_string());

    let mine = tag("agent");
    let said = python(&ground.a, SHOUT, &[&mine, &tcp, &udp, &list]);
    assert_eq!(said.status, 0, "{said:#?}");
    assert_eq!(said.stdout, "", "something answered");

    let theirs = tag("control");
    let control = Plain::start(&[&ground.site.clients(), "sleep", "600"]);
    let said = control.exec(&["python3", "-c", SHOUT, &theirs, &tcp, &udp, &list]);
    assert_eq!(said.status, 0, "{said:#?}");
    let heard = bottle_tests::harness::wait_until("the control is heard", || {
        let heard = ear.heard(&theirs);
        let all = ["tcp ", "udp plain", "255.255.255.255", "224.0.0.1"];
        all.iter().all(|way| heard.iter().any(|line| line.contains(way))).then_some(heard)
    });
    assert!(heard.len() >= 4, "{heard:?}");
    assert_eq!(ear.heard(&mine), Vec::<String>::new(), "the agent was heard on the host");
}

#[test]
fn no_packet_reaches_the_outside_past_the_sidecars() {
    let Some(ground) = Lease::take() else { return };
    let (attacker, api) = (ground.attacker_ip().to_string(), ground.api_ip().to_string());
    let dial = "import socket,sys\nfor place in sys.argv[1:]:\n  s=socket.socket(); s.settimeout(1)\n  \
                try: s.connect((place.split(':')[0],int(place.split(':')[1]))); print('connected',place)\n  \
                except OSError: pass\n";
    let places =
        [format!("{attacker}:443"), format!("{attacker}:22"), format!("{api}:443"), "169.254.169.254:80".to_owned()];
    let places: Vec<&str> = places.iter().map(String::as_str).collect();
    let said = python(&ground.a, dial, &places);
    assert_eq!((said.status, said.stdout.as_str()), (0, ""), "{said:#?}");
    // The same from beside the bottle, on the network that its pipelock goes out by.
    let said = ground.control.exec(&[&["python3", "-c", dial], places.as_slice()].concat());
    for place in &places[..3] {
        assert!(said.stdout.contains(&format!("connected {place}")), "{said:#?}");
    }
    // Its own sidecars answer the agent.
    let said = python(&ground.a, dial, &["pipelock:8888", "cred-proxy:9099"]);
    assert_eq!(said.stdout.lines().count(), 2, "{said:#?}");
    ground.assert_attacker_is_alone();
}
