//! What runs in the contract's containers: one static program, so that no registry is needed.

use std::io::{Read, Write};

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        // The first process of an agent, as `bottle-init` is: ready, then until the end of input.
        ["agent"] => {
            say(b"bottle-init: ready\n");
            drain();
        }
        ["exit", code] => std::process::exit(code.parse().unwrap()),
        ["say", text] => say(text.as_bytes()),
        ["env", name] => say(std::env::var(name).unwrap_or_default().as_bytes()),
        ["cat"] => drain(),
        ["sleep"] => loop {
            std::thread::sleep(std::time::Duration::from_secs(3600));
        },
        // What a hostile program does to a reader who guesses at frames.
        ["frame"] => {
            say(&[1, 0, 0, 0, 255, 255, 255, 255, b'x']);
            say(b"after");
        }
        ["look-up", name] => {
            let found = std::net::ToSocketAddrs::to_socket_addrs(&(*name, 80)).is_ok();
            say(if found { b"found" } else { b"nothing" });
        }
        ["read", path] => say(&std::fs::read(path).unwrap()),
        ["fill", path, bytes] => std::fs::write(path, vec![b'x'; bytes.parse().unwrap()]).unwrap(),
        _ => std::process::exit(64),
    }
}

fn say(bytes: &[u8]) {
    let mut out = std::io::stdout();
    out.write_all(bytes).and_then(|()| out.flush()).unwrap();
}

fn drain() {
    let mut bytes = [0; 4096];
    while std::io::stdin().read(&mut bytes).is_ok_and(|n| n > 0) {}
}
