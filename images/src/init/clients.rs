//! Is anybody connected to the child? The kernel's own table says so; nothing is asked of the child.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// The kernel's table of this network's TCP sockets.
const TABLE: &str = "/proc/net/tcp";

/// Has somebody a connection to this address?
pub fn any(address: SocketAddr) -> io::Result<bool> {
    Ok(is_connected(&std::fs::read_to_string(TABLE)?, address))
}

/// Does a table of the kernel's have a connection at this end? One that only its own side has left counts as well: it may
/// still be written to. Those that are over (TIME_WAIT, FIN_WAIT2, LAST_ACK, CLOSING) do not.
fn is_connected(table: &str, address: SocketAddr) -> bool {
    const ESTABLISHED: &str = "01";
    const SYN_RECV: &str = "03";
    const CLOSE_WAIT: &str = "08";
    table.lines().skip(1).any(|line| {
        let mut fields = line.split_whitespace();
        let (local, state) = (fields.nth(1), fields.nth(1));
        local.and_then(end) == Some(address) && matches!(state, Some(ESTABLISHED | SYN_RECV | CLOSE_WAIT))
    })
}

/// `0100007F:22B8`: the address as it stands in memory, and the port.
fn end(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let address = u32::from_str_radix(address, 16).ok()?.to_ne_bytes();
    Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::from(address)), u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use io::Read;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn a_client_is_seen_while_it_is_there() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert!(!any(address).unwrap(), "whoever listens is no client");
        let client = TcpStream::connect(address).unwrap();
        let (mut served, _) = listener.accept().unwrap();
        assert!(any(address).unwrap());
        drop(client);
        // The other end has left, and the connection is over when this one has as well.
        assert_eq!(served.read(&mut [0]).unwrap(), 0);
        drop(served);
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while any(address).unwrap() {
            assert!(std::time::Instant::now() < deadline, "it is never seen to leave");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    #[test]
    fn only_connections_at_this_end_count() {
        let head = "  sl  local_address rem_address   st tx_queue\n";
        let address: SocketAddr = "10.0.0.2:8888".parse().unwrap();
        let own = format!("{:08X}:22B8", u32::from_ne_bytes([10, 0, 0, 2]));
        for (local, state, is) in [
            (own.as_str(), "01", true),
            (&own, "08", true),
            (&own, "0A", false),
            (&own, "06", false),
            ("0100007F:22B8", "01", false),
            (&own.replace("22B8", "22B9"), "01", false),
            ("nonsense", "01", false),
        ] {
            let line = format!("   0: {local} 00000000:0000 {state} 00000000:00000000\n");
            assert_eq!(is_connected(&format!("{head}{line}"), address), is, "{line}");
        }
        assert!(!is_connected("", address) && !is_connected(head, address));
    }
}
