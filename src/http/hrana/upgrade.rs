//! From HTTP to a WebSocket (RFC 6455, 4.2), and which version of Hrana is spoken on it.

use actix_web::http::StatusCode;
use actix_web::http::header::{
    CONNECTION, HeaderName, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use sha1::{Digest as _, Sha1};

use crate::error::{Error, Result};

/// Newest first. A later version has all of an earlier one.
const PROTOCOLS: [&str; 3] = ["hrana3", "hrana2", "hrana1"];

/// What a server appends to the client's key before it hashes it.
const MAGIC: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The answer that makes a WebSocket of the connection: the newest version that the client takes, or none where it names
/// none.
pub fn accept(request: &HttpRequest) -> Result<HttpResponseBuilder> {
    let hint = "The libSQL clients connect to ws://…; over HTTP, Hrana is POST /v3/pipeline.";
    let wrong = |why: &'static str| Error::bad_request(why).hint(hint);
    let says = |name, value: &str| values(request, name).any(|given| given.eq_ignore_ascii_case(value));
    if !says(CONNECTION, "upgrade") || !says(UPGRADE, "websocket") {
        return Err(wrong("this path takes WebSockets only"));
    }
    if !values(request, SEC_WEBSOCKET_VERSION).eq(["13"]) {
        return Err(wrong("the version of the WebSocket protocol is not 13"));
    }
    let key = request.headers().get(SEC_WEBSOCKET_KEY).filter(|key| BASE64.decode(key).is_ok_and(|key| key.len() == 16));
    let key = key.ok_or_else(|| wrong("Sec-WebSocket-Key is missing or not 16 bytes of base64"))?;
    let mut answer = HttpResponse::build(StatusCode::SWITCHING_PROTOCOLS);
    if request.headers().contains_key(SEC_WEBSOCKET_PROTOCOL) {
        let offered = |protocol: &&&str| values(request, SEC_WEBSOCKET_PROTOCOL).any(|name| name == **protocol);
        let protocol = PROTOCOLS.iter().find(offered).ok_or_else(|| wrong("none of the subprotocols is one of hrana3, hrana2, hrana1"))?;
        answer.insert_header((SEC_WEBSOCKET_PROTOCOL, *protocol));
    }
    let hash = Sha1::new().chain_update(key.as_bytes()).chain_update(MAGIC).finalize();
    answer.upgrade("websocket").insert_header((SEC_WEBSOCKET_ACCEPT, BASE64.encode(hash)));
    Ok(answer)
}

/// The members of a header that is a list, over all its lines.
fn values(request: &HttpRequest, name: HeaderName) -> impl Iterator<Item = &str> {
    request.headers().get_all(name).filter_map(|line| line.to_str().ok()).flat_map(|line| line.split(',')).map(str::trim)
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    fn asked(headers: &[(&'static str, &'static str)]) -> Result<HttpResponse> {
        let request = headers.iter().fold(TestRequest::default(), |request, header| request.append_header(*header));
        accept(&request.to_http_request()).map(|mut answer| answer.finish())
    }

    const GOOD: [(&str, &str); 4] = [
        ("connection", "keep-alive, Upgrade"),
        ("upgrade", "WebSocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];

    #[test]
    fn the_answer_is_the_one_of_the_standards_example() {
        let answer = asked(&GOOD).unwrap();
        assert_eq!(answer.status(), 101);
        assert_eq!(answer.headers().get("sec-websocket-accept").unwrap(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert!(!answer.headers().contains_key("sec-websocket-protocol"));
    }

    #[test]
    fn the_newest_version_that_the_client_takes_is_spoken() {
        let spoken = |offered: &'static str| {
            let answer = asked(&[&GOOD[..], &[("sec-websocket-protocol", offered)]].concat())?;
            Ok::<_, Error>(answer.headers().get("sec-websocket-protocol").unwrap().to_str().unwrap().to_owned())
        };
        assert_eq!(spoken("hrana1, hrana2,hrana3").unwrap(), "hrana3");
        assert_eq!(spoken("hrana2, hrana1").unwrap(), "hrana2");
        assert_eq!(spoken("hrana3-protobuf, hrana2").unwrap(), "hrana2");
        assert!(spoken("graphql-ws").is_err());
    }

    #[test]
    fn what_is_no_upgrade_is_refused() {
        for left_out in 0..GOOD.len() {
            let mut headers = GOOD.to_vec();
            let (name, _) = headers.remove(left_out);
            assert!(asked(&headers).is_err(), "without {name}");
        }
        let mut headers = GOOD;
        headers[3].1 = "c2hvcnQ=";
        assert!(asked(&headers).is_err());
    }
}
