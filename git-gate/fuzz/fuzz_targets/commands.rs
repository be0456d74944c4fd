//! What an agent says before any pack: the first packet, ref updates, push options, requests of a fetch. What passes
//! and goes to an upstream is read again and must come to the same.
#![no_main]

use git_gate::advert::{Capabilities, FirstLine, object_format, push_first_line, push_offer, v2_capability};
use git_gate::fetch::{v0, v2};
use git_gate::limits::Limits;
use git_gate::pktline::{Packet, parse_head, Head};
use git_gate::policy::RefName;
use git_gate::push::command::{Reader, check_option};
use git_gate::request::Request;
use gix_hash::Kind;
use libfuzzer_sys::fuzz_target;

/// Splits a fuzzer's bytes into packets: a length byte, then data; some lengths stand for the special ones.
fn packets(mut bytes: &[u8]) -> Vec<Packet> {
    let mut packets = Vec::new();
    while let [length, rest @ ..] = bytes {
        let (packet, rest) = match length {
            0xff => (Packet::Flush, rest),
            0xfe => (Packet::Delim, rest),
            0xfd => (Packet::ResponseEnd, rest),
            length => {
                let (data, rest) = rest.split_at(rest.len().min(usize::from(*length)));
                (Packet::Data(data.to_vec()), rest)
            }
        };
        packets.push(packet);
        bytes = rest;
    }
    packets
}

/// The data of packets that are in memory.
fn split(mut bytes: &[u8]) -> Vec<Packet> {
    let mut packets = Vec::new();
    while !bytes.is_empty() {
        let (digits, rest) = bytes.split_at(4);
        let (packet, rest) = match parse_head(digits.try_into().expect("four")).expect("our own packet") {
            Head::Data(length) => (Packet::Data(rest[..length].to_vec()), &rest[length..]),
            Head::Flush => (Packet::Flush, rest),
            Head::Delim => (Packet::Delim, rest),
            Head::ResponseEnd => (Packet::ResponseEnd, rest),
        };
        packets.push(packet);
        bytes = rest;
    }
    packets
}

fn push(packets: &[Packet], format: Kind, limits: &Limits) {
    let upstream = Capabilities::parse(
        format!("report-status report-status-v2 delete-refs side-band-64k quiet atomic ofs-delta push-options object-format={format} agent=git/2")
            .as_bytes(),
    );
    let offer = push_offer(&upstream, true);
    let mut reader = Reader::new(&offer, format, limits);
    for packet in packets {
        match packet {
            Packet::Data(data) => {
                if reader.line(data).is_err() {
                    return;
                }
            }
            _ => break,
        }
    }
    let Some(commands) = reader.end() else { return };
    assert!(!commands.updates().is_empty() && commands.format() == format && commands.suits(&upstream));
    for update in commands.updates() {
        let _ = update.change();
    }
    let lines = commands.lines(&upstream, &[]);
    let mut again = Reader::new(&offer, format, limits);
    for packet in split(&lines) {
        if let Packet::Data(data) = packet {
            again.line(&data).expect("what goes to the upstream is refused by our own reader");
        } else {
            break;
        }
    }
    let again = again.end().expect("commands");
    assert_eq!(again.updates(), commands.updates(), "other updates go to the upstream");
}

fn fetch(packets: &[Packet], format: Kind) {
    let mut reader = v2::Reader::new(format, 1024);
    for packet in packets {
        match reader.packet(packet) {
            Ok(v2::Step::Request(bytes)) => {
                let mut again = v2::Reader::new(format, 1024);
                let mut requests = Vec::new();
                for packet in split(&bytes) {
                    match again.packet(&packet).expect("what goes to the upstream is refused by our own reader") {
                        v2::Step::Request(bytes) => requests.push(bytes),
                        v2::Step::More => {}
                        v2::Step::Goodbye => panic!("a flush by itself in a request"),
                    }
                }
                assert_eq!(requests, [bytes], "read again, it is another request");
            }
            Ok(_) => {}
            Err(_) => break,
        }
    }
    let mut reader = v0::Reader::new(format);
    for packet in packets {
        if reader.packet(packet).is_err() {
            break;
        }
    }
}

fuzz_target!(|input: (bool, &[u8])| {
    let (sha256, bytes) = input;
    let format = if sha256 { Kind::Sha256 } else { Kind::Sha1 };
    let limits = Limits::default();
    if let Ok(request) = Request::parse(bytes) {
        assert!(!request.name.contains('\0') && !request.name.contains('\n'));
    }
    if let Some(first) = FirstLine::parse(bytes) {
        let _ = object_format(&first.capabilities);
        let line = push_first_line(&first, &push_offer(&first.capabilities, false));
        assert!(FirstLine::parse(&line).is_some(), "our own first line cannot be read");
    }
    let _ = v2_capability(bytes);
    let _ = check_option(bytes, 0, &limits);
    let _ = RefName::parse(bytes, limits.ref_bytes);
    let packets = packets(bytes);
    push(&packets, format, &limits);
    fetch(&packets, format);
});
