//! A [`Peer`] speaks Hrana on a WebSocket as a test needs it: message by message, frame by frame, and wrongly.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::support::*;

pub struct Peer {
    stream: TcpStream,
    unread: Vec<u8>,
}

/// How the server closed: its code and reason; none when it only hung up.
pub type Closed = Option<(u16, String)>;

impl Peer {
    /// A socket that has not said hello.
    pub fn connect(server: &Server, protocols: &str) -> Peer {
        let mut stream = server.connect();
        stream.set_read_timeout(Some(SOON)).unwrap();
        let head = format!(
            "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: {protocols}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        let mut peer = Peer { stream, unread: Vec::new() };
        let end = loop {
            if let Some(end) = peer.unread.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break end + 4;
            }
            assert!(peer.read_more(), "the handshake was not answered");
        };
        let head = String::from_utf8(peer.unread.drain(..end).collect()).unwrap();
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        assert!(head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
        peer
    }

    /// A socket on which this tenant's token was taken.
    pub fn hello(server: &Server, token: &str) -> Peer {
        let mut peer = Peer::connect(server, "hrana3");
        peer.send(&json!({ "type": "hello", "jwt": token }));
        assert_eq!(peer.receive(), json!({ "type": "hello_ok" }));
        peer
    }

    pub fn send(&mut self, message: &Value) {
        self.send_frame(0x81, message.to_string().as_bytes());
    }

    /// A client's frame: masked, with a mask of zeros.
    pub fn send_frame(&mut self, first: u8, payload: &[u8]) {
        let mut frame = vec![first];
        match payload.len() {
            0..=125 => frame.push(0x80 | payload.len() as u8),
            126..=0xffff => {
                frame.push(0x80 | 126);
                frame.extend_from_slice(&(payload.len() as u16).to_be_bytes());
            }
            _ => {
                frame.push(0x80 | 127);
                frame.extend_from_slice(&(payload.len() as u64).to_be_bytes());
            }
        }
        frame.extend_from_slice(&[0; 4]);
        frame.extend_from_slice(payload);
        self.send_raw(&frame);
    }

    /// The server may have closed already.
    pub fn send_raw(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    pub fn request(&mut self, id: i32, request: Value) {
        self.send(&json!({ "type": "request", "request_id": id, "request": request }));
    }

    /// Asks and waits for the answer, which is the next message.
    pub fn ask(&mut self, request: Value) -> Value {
        self.request(1, request);
        let answer = self.receive();
        assert_eq!(answer["request_id"], 1, "{answer}");
        answer
    }

    /// The rows that a statement on a stream gives.
    pub fn execute(&mut self, stream: i32, sql: &str) -> Value {
        let answer = self.ask(json!({ "type": "execute", "stream_id": stream, "stmt": { "sql": sql } }));
        assert_eq!(answer["type"], "response_ok", "{sql}: {answer}");
        answer["response"]["result"]["rows"].clone()
    }

    pub fn open(&mut self, stream: i32) {
        let answer = self.ask(json!({ "type": "open_stream", "stream_id": stream }));
        assert_eq!(answer["response"], json!({ "type": "open_stream" }), "{answer}");
    }

    #[track_caller]
    pub fn receive(&mut self) -> Value {
        self.next().unwrap_or_else(|closed| panic!("closed instead of answered: {closed:?}"))
    }

    /// How it is closed; what is answered before is passed over.
    pub fn closed(&mut self) -> Closed {
        loop {
            if let Err(closed) = self.next() {
                return closed;
            }
        }
    }

    /// The next message.
    pub fn next(&mut self) -> Result<Value, Closed> {
        loop {
            let Some((first, payload)) = self.frame() else { return Err(None) };
            match first {
                0x81 => return Ok(serde_json::from_slice(&payload).unwrap()),
                0x88 => {
                    return Err(Some((u16::from_be_bytes([payload[0], payload[1]]), String::from_utf8_lossy(&payload[2..]).into_owned())));
                }
                0x89 => self.send_frame(0x8a, &payload),
                _ => return Ok(json!({ "frame": first, "payload": String::from_utf8_lossy(&payload) })),
            }
        }
    }

    fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            let head = match self.unread.get(1) {
                Some(126) => 4,
                Some(127) => 10,
                _ => 2,
            };
            if self.unread.len() >= head {
                let length = match head {
                    2 => usize::from(self.unread[1]),
                    _ => self.unread[2..head].iter().fold(0, |all, &byte| all << 8 | usize::from(byte)),
                };
                if self.unread.len() >= head + length {
                    let frame: Vec<u8> = self.unread.drain(..head + length).collect();
                    return Some((frame[0], frame[head..].to_vec()));
                }
            }
            if !self.read_more() {
                return None;
            }
        }
    }

    fn read_more(&mut self) -> bool {
        let mut bytes = [0; 64 << 10];
        match self.stream.read(&mut bytes) {
            Ok(0) => false,
            Ok(count) => {
                self.unread.extend_from_slice(&bytes[..count]);
                true
            }
            Err(error) => {
                assert_ne!(error.kind(), std::io::ErrorKind::WouldBlock, "nothing came in time");
                false
            }
        }
    }
}
