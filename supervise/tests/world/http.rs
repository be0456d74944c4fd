//! HTTP by hand, as a hostile client would speak it.

use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

/// A connection on which nobody waits for ever.
pub fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(super::PATIENCE)).unwrap();
    stream.set_write_timeout(Some(super::PATIENCE)).unwrap();
    stream
}

/// The head of a call with a body of so many bytes, on a connection that ends with it.
pub fn head(host: &str, length: usize) -> String {
    format!(
        "POST /mcp HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n\
         Accept: application/json, text/event-stream\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
    )
}

/// Sends bytes and reads everything that comes back. An error while sending is none: the other side may have heard enough.
pub fn exchange(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = connect(address);
    let _ = stream.write_all(bytes);
    finish(stream)
}

/// Reads everything that comes back.
pub fn finish(mut stream: TcpStream) -> String {
    let mut reply = Vec::new();
    let mut part = [0; 4096];
    while let Ok(read @ 1..) = stream.read(&mut part) {
        reply.extend_from_slice(&part[..read]);
    }
    String::from_utf8_lossy(&reply).into_owned()
}

/// Sends a body, and gives back status and body.
pub fn post(address: SocketAddr, body: &[u8]) -> (u16, String) {
    let mut request = head(&address.to_string(), body.len()).into_bytes();
    request.extend_from_slice(body);
    split(&exchange(address, &request))
}

/// Status and body of a reply.
pub fn split(reply: &str) -> (u16, String) {
    let status = reply.get(9..12).and_then(|digits| digits.parse().ok()).unwrap_or(0);
    (status, reply.split_once("\r\n\r\n").map_or("", |(_, body)| body).to_owned())
}

/// A request of JSON-RPC.
pub fn rpc(method: &str, params: Value) -> Vec<u8> {
    json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }).to_string().into_bytes()
}

/// A call of a tool.
pub fn tool(name: &str, arguments: Value) -> Vec<u8> {
    rpc("tools/call", json!({ "name": name, "arguments": arguments }))
}

/// The result of a call that must be answered.
pub fn result(address: SocketAddr, body: &[u8]) -> Value {
    let (status, body) = post(address, body);
    assert_eq!(status, 200, "{body}");
    serde_json::from_str::<Value>(&body).unwrap_or_else(|error| panic!("{error}: {body}"))["result"].clone()
}

/// The good call after whatever was done: it is answered, and right.
pub fn still_works(address: SocketAddr) {
    let tools = result(address, &rpc("tools/list", json!({})));
    assert_eq!(tools["tools"].as_array().map(Vec::len), Some(5), "{tools}");
}
