//! Frames of a WebSocket (RFC 6455), as a server reads and writes them. [`Frames`] gives whole messages: a message is
//! bounded before a byte of it is kept, by the length that its frames announce, and what is being received counts towards
//! `http.receiving_bytes` like any body. (actix's own codec keeps all of a frame that is too long before it says so.)

use actix_web::web::{Bytes, BytesMut, Data, Payload};
use futures_util::StreamExt as _;

use crate::http::extract::{BodyLimits, Receiving};

/// The longest payload of a control frame; the protocol's own bound.
const CONTROL_MAX: usize = 125;

/// Why a connection is closed, as the closing frame says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closing {
    pub code: u16,
    pub reason: String,
}

impl Closing {
    pub const NORMAL: u16 = 1000;
    pub const GOING_AWAY: u16 = 1001;
    pub const PROTOCOL: u16 = 1002;
    pub const UNSUPPORTED: u16 = 1003;
    pub const POLICY: u16 = 1008;
    pub const TOO_BIG: u16 = 1009;
    pub const TRY_AGAIN: u16 = 1013;

    pub fn new(code: u16, reason: impl Into<String>) -> Closing {
        Closing { code, reason: reason.into() }
    }
}

/// What a client sent.
#[derive(Debug)]
pub enum Incoming {
    Text(Message),
    Ping(Bytes),
    Pong,
    Close,
}

/// A message's text. It counts as being received until `counted` is dropped.
#[derive(Debug)]
pub struct Message {
    pub text: Bytes,
    pub counted: Option<Receiving>,
}

pub struct Frames {
    payload: Payload,
    limits: Data<BodyLimits>,
    /// The longest message, in bytes.
    pub max: usize,
    unread: BytesMut,
    /// The frame whose payload is awaited.
    awaited: Option<(Header, Option<Receiving>)>,
    /// What has come of a message in several frames.
    begun: Option<(BytesMut, Option<Receiving>)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Header {
    last: bool,
    kind: Kind,
    length: usize,
    mask: [u8; 4],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Continuation,
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

impl Frames {
    pub fn new(payload: Payload, limits: Data<BodyLimits>, max: usize) -> Frames {
        Frames { payload, limits, max, unread: BytesMut::new(), awaited: None, begun: None }
    }

    /// The next message; none when the connection has ended. Nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> Result<Option<Incoming>, Closing> {
        loop {
            if let Some(incoming) = self.take()? {
                return Ok(Some(incoming));
            }
            match self.payload.next().await {
                Some(Ok(bytes)) => self.unread.extend_from_slice(&bytes),
                Some(Err(_)) | None => return Ok(None),
            }
        }
    }

    /// A message, if one is there in full.
    fn take(&mut self) -> Result<Option<Incoming>, Closing> {
        loop {
            if self.awaited.is_none() {
                let Some((header, size)) = Header::read(&self.unread)? else { return Ok(None) };
                let counted = self.admit(&header)?;
                let _ = self.unread.split_to(size);
                self.unread.reserve(header.length);
                self.awaited = Some((header, counted));
            }
            let Some((header, counted)) = self.awaited.take_if(|(header, _)| self.unread.len() >= header.length) else { return Ok(None) };
            let mut payload = self.unread.split_to(header.length);
            unmask(&mut payload, header.mask);
            match (header.kind, self.begun.take()) {
                (Kind::Text, None) if header.last => {
                    return Ok(Some(Incoming::Text(Message { text: payload.freeze(), counted })));
                }
                (Kind::Text, None) => self.begun = Some((payload, counted)),
                (Kind::Continuation, Some((mut text, counted))) => {
                    text.unsplit(payload);
                    if header.last {
                        return Ok(Some(Incoming::Text(Message { text: text.freeze(), counted })));
                    }
                    self.begun = Some((text, counted));
                }
                (Kind::Text | Kind::Continuation, _) => return Err(Closing::new(Closing::PROTOCOL, "a frame out of its order")),
                (Kind::Binary, _) => return Err(Closing::new(Closing::UNSUPPORTED, "messages are JSON text")),
                (control, begun) => {
                    self.begun = begun;
                    return Ok(Some(match control {
                        Kind::Ping => Incoming::Ping(payload.freeze()),
                        Kind::Close => Incoming::Close,
                        _ => Incoming::Pong,
                    }));
                }
            }
        }
    }

    /// Refuses what would be too long, before it has come.
    fn admit(&self, header: &Header) -> Result<Option<Receiving>, Closing> {
        let begun = self.begun.as_ref().map_or(0, |(text, _)| text.len());
        if begun + header.length > self.max {
            return Err(Closing::new(Closing::TOO_BIG, format!("a message is longer than {} bytes", self.max)));
        }
        // One in several frames may become as large as the largest; it is counted once.
        let bytes = match header.kind {
            Kind::Text if !header.last => self.max,
            Kind::Continuation => 0,
            _ => header.length,
        };
        self.limits
            .count(bytes as u64)
            .map_err(|_| Closing::new(Closing::TRY_AGAIN, "too many bytes are on their way (http.receiving_bytes)"))
    }
}

impl Header {
    /// The header at the start of `bytes` and its own length; none while it is incomplete.
    fn read(bytes: &[u8]) -> Result<Option<(Header, usize)>, Closing> {
        let wrong = |why: &str| Err(Closing::new(Closing::PROTOCOL, why));
        let &[first, second, ..] = bytes else { return Ok(None) };
        if first & 0x70 != 0 {
            return wrong("an extension that was not agreed on");
        }
        let kind = match first & 0x0f {
            0 => Kind::Continuation,
            1 => Kind::Text,
            2 => Kind::Binary,
            8 => Kind::Close,
            9 => Kind::Ping,
            10 => Kind::Pong,
            _ => return wrong("an unknown kind of frame"),
        };
        if second & 0x80 == 0 {
            return wrong("a frame that is not masked");
        }
        let last = first & 0x80 != 0;
        let (length, at) = match usize::from(second & 0x7f) {
            126 => match bytes.get(2..4) {
                Some(length) => (length.iter().fold(0, |all, &byte| all << 8 | u64::from(byte)), 4),
                None => return Ok(None),
            },
            127 => match bytes.get(2..10) {
                Some(length) => (length.iter().fold(0, |all, &byte| all << 8 | u64::from(byte)), 10),
                None => return Ok(None),
            },
            length => (length as u64, 2),
        };
        // One that does not fit a usize is longer than any bound.
        let length = usize::try_from(length).unwrap_or(usize::MAX).min(usize::MAX / 2);
        if matches!(kind, Kind::Close | Kind::Ping | Kind::Pong) && (!last || length > CONTROL_MAX) {
            return wrong("a control frame that is too long or in pieces");
        }
        match bytes.get(at..at + 4) {
            Some(&[a, b, c, d]) => Ok(Some((Header { last, kind, length, mask: [a, b, c, d] }, at + 4))),
            _ => Ok(None),
        }
    }
}

fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    for piece in payload.chunks_mut(4) {
        piece.iter_mut().zip(mask).for_each(|(byte, mask)| *byte ^= mask);
    }
}

/// The head of a text message of so many bytes; the text follows.
pub fn text(length: usize) -> Bytes {
    head(0x81, length)
}

pub fn ping() -> Bytes {
    head(0x89, 0)
}

pub fn pong(payload: &[u8]) -> Bytes {
    [&head(0x8a, payload.len()), payload].concat().into()
}

pub fn close(closing: &Closing) -> Bytes {
    let room = CONTROL_MAX - 2;
    let reason = closing.reason.char_indices().take_while(|(at, c)| at + c.len_utf8() <= room).map(|(_, c)| c).collect::<String>();
    [&head(0x88, 2 + reason.len()), &closing.code.to_be_bytes()[..], reason.as_bytes()].concat().into()
}

fn head(first: u8, length: usize) -> Bytes {
    let mut head = vec![first];
    match length {
        0..=125 => head.push(length as u8),
        126..=0xffff => {
            head.push(126);
            head.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            head.push(127);
            head.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    head.into()
}

#[cfg(test)]
mod tests {
    use actix_web::FromRequest as _;

    use super::*;

    /// A client's frame.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = head(first, payload.len()).to_vec();
        bytes[1] |= 0x80;
        bytes.extend_from_slice(&[1, 2, 3, 4]);
        let start = bytes.len();
        bytes.extend_from_slice(payload);
        unmask(&mut bytes[start..], [1, 2, 3, 4]);
        bytes
    }

    fn frames(limits: &Data<BodyLimits>) -> Frames {
        let (request, mut payload) = actix_web::test::TestRequest::default().to_http_parts();
        let payload = actix_web::rt::System::new().block_on(Payload::from_request(&request, &mut payload)).unwrap();
        Frames::new(payload, limits.clone(), 100_000)
    }

    /// What is read of these bytes, cut into pieces.
    fn read(bytes: &[u8], piece: usize) -> Result<Vec<String>, Closing> {
        let mut frames = frames(&Data::new(BodyLimits::new(1 << 20, 150_000)));
        let mut read = Vec::new();
        for piece in bytes.chunks(piece) {
            frames.unread.extend_from_slice(piece);
            while let Some(incoming) = frames.take()? {
                read.push(match incoming {
                    Incoming::Text(message) => String::from_utf8(message.text.to_vec()).unwrap(),
                    Incoming::Ping(payload) => format!("ping {payload:?}"),
                    other => format!("{other:?}"),
                });
            }
        }
        Ok(read)
    }

    #[test]
    fn messages_are_read_however_they_are_cut() {
        let long = "x".repeat(70_000);
        let all = [
            frame(0x81, b"hello"),
            frame(0x01, b"in "),
            frame(0x89, b"p"),
            frame(0x00, b"three "),
            frame(0x80, b"frames"),
            frame(0x81, &[b'y'; 300]),
            frame(0x81, long.as_bytes()),
            frame(0x8a, b""),
            frame(0x88, &[3, 232]),
        ]
        .concat();
        let wanted = ["hello", "ping b\"p\"", "in three frames", &"y".repeat(300), &long, "Pong", "Close"];
        for piece in [1, 7, 4096, all.len()] {
            assert_eq!(read(&all, piece).unwrap(), wanted, "in pieces of {piece}");
        }
    }

    #[test]
    fn a_message_that_is_too_long_is_refused_by_its_head() {
        let code = |bytes: &[u8]| read(bytes, 1).unwrap_err().code;
        let announced = |first: u8, length: u64| [&[first, 0xff][..], &length.to_be_bytes(), &[0; 4]].concat();
        assert_eq!(code(&announced(0x81, 100_001)), Closing::TOO_BIG);
        assert_eq!(code(&announced(0x81, u64::MAX)), Closing::TOO_BIG);
        let in_pieces = [frame(0x01, &[b'x'; 60_000]), announced(0x80, 60_000)].concat();
        assert_eq!(code(&in_pieces), Closing::TOO_BIG);
    }

    #[test]
    fn what_the_protocol_forbids_closes_the_connection() {
        let code = |bytes: &[u8]| read(bytes, bytes.len()).unwrap_err().code;
        assert_eq!(code(&[0x81, 0x01, b'x']), Closing::PROTOCOL, "not masked");
        assert_eq!(code(&frame(0xc1, b"x")), Closing::PROTOCOL, "an extension");
        assert_eq!(code(&frame(0x83, b"x")), Closing::PROTOCOL, "an unknown kind");
        assert_eq!(code(&frame(0x80, b"x")), Closing::PROTOCOL, "continues nothing");
        assert_eq!(code(&[frame(0x01, b"x"), frame(0x81, b"y")].concat()), Closing::PROTOCOL, "a text within a text");
        assert_eq!(code(&frame(0x89, &[0; 126])), Closing::PROTOCOL, "a long ping");
        assert_eq!(code(&frame(0x09, b"")), Closing::PROTOCOL, "half a ping");
        assert_eq!(code(&frame(0x82, b"x")), Closing::UNSUPPORTED, "binary");
    }

    #[test]
    fn what_is_being_received_is_bounded_over_all() {
        let limits = Data::new(BodyLimits::new(1 << 20, 150_000));
        let one = frame(0x81, &[b'x'; 90_000]);
        let mut first = frames(&limits);
        first.unread.extend_from_slice(&one);
        let Ok(Some(Incoming::Text(message))) = first.take() else { panic!("it is there in full") };
        let mut second = frames(&limits);
        second.unread.extend_from_slice(&one[..100]);
        assert_eq!(second.take().unwrap_err().code, Closing::TRY_AGAIN, "the first is still worked on");
        drop(message);
        assert!(second.take().unwrap().is_none());
        let mut third = frames(&limits);
        third.unread.extend_from_slice(&frame(0x01, b"may become long"));
        assert_eq!(third.take().unwrap_err().code, Closing::TRY_AGAIN);
    }

    #[test]
    fn a_closing_frame_fits_a_control_frame() {
        let frame = close(&Closing::new(1002, "é".repeat(100)));
        assert_eq!((frame[0], usize::from(frame[1])), (0x88, frame.len() - 2));
        assert!(frame.len() - 2 <= CONTROL_MAX && std::str::from_utf8(&frame[4..]).is_ok());
    }
}
