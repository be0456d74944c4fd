//! Packets from a connection, and packets followed through chunks of any size: both must see the same.
#![no_main]

use std::time::Duration;

use git_gate::pktline::{Follower, Packet, PacketError, Packets, packet};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u16, u8, &[u8])| {
    let (budget, chunk, bytes) = input;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(async {
        let mut reader = bytes;
        let mut packets = Packets::new(budget.into(), Duration::from_secs(3600));
        let mut spent = 0;
        let mut first_flush = None;
        let mut again = Vec::new();
        let end = loop {
            match packets.next(&mut reader).await {
                Ok(one) => {
                    spent = bytes.len() - reader.len();
                    assert!(spent <= usize::from(budget), "over the budget");
                    match one {
                        Packet::Data(data) => again.extend(packet(&data)),
                        Packet::Flush => {
                            first_flush.get_or_insert(spent);
                            again.extend_from_slice(b"0000");
                        }
                        Packet::Delim => again.extend_from_slice(b"0001"),
                        Packet::ResponseEnd => again.extend_from_slice(b"0002"),
                    }
                }
                Err(error) => break error,
            }
        };
        assert!(again.eq_ignore_ascii_case(&bytes[..spent]), "written again, it is something else");
        let mut follower = Follower::default();
        let mut at = 0;
        let followed = bytes.chunks(usize::from(chunk) + 1).find_map(|chunk| match follower.follow(chunk) {
            Ok(Some(n)) => Some(Ok(at + n)),
            Ok(None) => {
                at += chunk.len();
                None
            }
            Err(_) => Some(Err(())),
        });
        if let Some(first) = first_flush {
            assert_eq!(followed, Some(Ok(first)), "the flush is elsewhere");
        } else if matches!(end, PacketError::Malformed) {
            assert_eq!(followed, Some(Err(())), "one refused it, the other did not");
        }
    });
});
