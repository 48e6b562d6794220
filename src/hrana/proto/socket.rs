//! What goes over a WebSocket: requests with ids, many streams side by side. A request on a stream is the same
//! [`StreamRequest`] as over HTTP; beside them stand the ones that open and close streams and cursors, and stored texts,
//! which belong to the whole socket.

use std::sync::Arc;

use serde::Deserialize;

use super::{Batch, Error, Sql, Stmt, StreamRequest, StreamResponse, missing, unknown};

#[derive(Debug, PartialEq, Deserialize)]
#[serde(try_from = "RawMsg")]
pub enum ClientMsg {
    Hello { jwt: Option<String> },
    Request { id: i32, request: Request },
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(try_from = "RawRequest")]
pub enum Request {
    OpenStream {
        stream: i32,
    },
    CloseStream {
        stream: i32,
    },
    /// Never [`StreamRequest::Close`], nor one about stored texts.
    OnStream {
        stream: i32,
        request: StreamRequest,
    },
    OpenCursor {
        stream: i32,
        cursor: i32,
        batch: Batch,
    },
    FetchCursor {
        cursor: i32,
        max_count: u32,
    },
    CloseCursor {
        cursor: i32,
    },
    StoreSql {
        id: i32,
        sql: Arc<str>,
    },
    CloseSql {
        id: i32,
    },
}

#[derive(Debug)]
pub enum Response<'a> {
    OpenStream,
    CloseStream,
    OnStream(StreamResponse),
    OpenCursor,
    /// Entries by the line.
    FetchCursor {
        entries: &'a [u8],
        done: bool,
    },
    CloseCursor,
    StoreSql,
    CloseSql,
}

#[derive(Deserialize)]
struct RawMsg {
    r#type: String,
    jwt: Option<String>,
    request_id: Option<i32>,
    request: Option<Request>,
}

#[derive(Deserialize)]
struct RawRequest {
    r#type: String,
    stream_id: Option<i32>,
    cursor_id: Option<i32>,
    max_count: Option<u32>,
    stmt: Option<Stmt>,
    batch: Option<Batch>,
    sql: Option<String>,
    sql_id: Option<i32>,
}

impl TryFrom<RawMsg> for ClientMsg {
    type Error = String;

    fn try_from(raw: RawMsg) -> Result<Self, String> {
        match raw.r#type.as_str() {
            "hello" => Ok(ClientMsg::Hello { jwt: raw.jwt }),
            "request" => Ok(ClientMsg::Request {
                id: raw.request_id.ok_or_else(|| missing("request_id"))?,
                request: raw.request.ok_or_else(|| missing("request"))?,
            }),
            other => Err(unknown("message", other)),
        }
    }
}

impl TryFrom<RawRequest> for Request {
    type Error = String;

    fn try_from(raw: RawRequest) -> Result<Self, String> {
        let RawRequest { r#type, stream_id, cursor_id, max_count, stmt, batch, sql, sql_id } = raw;
        let stream = stream_id.ok_or_else(|| missing("stream_id"));
        let cursor = cursor_id.ok_or_else(|| missing("cursor_id"));
        let stored = sql_id.ok_or_else(|| missing("sql_id"));
        let request = match r#type.as_str() {
            "open_stream" => return Ok(Request::OpenStream { stream: stream? }),
            "close_stream" => return Ok(Request::CloseStream { stream: stream? }),
            "open_cursor" => {
                return Ok(Request::OpenCursor { stream: stream?, cursor: cursor?, batch: batch.ok_or_else(|| missing("batch"))? });
            }
            "fetch_cursor" => {
                return Ok(Request::FetchCursor { cursor: cursor?, max_count: max_count.ok_or_else(|| missing("max_count"))? });
            }
            "close_cursor" => return Ok(Request::CloseCursor { cursor: cursor? }),
            "store_sql" => return Ok(Request::StoreSql { id: stored?, sql: sql.ok_or_else(|| missing("sql"))?.into() }),
            "close_sql" => return Ok(Request::CloseSql { id: stored? }),
            "execute" => StreamRequest::Execute(stmt.ok_or_else(|| missing("stmt"))?),
            "batch" => StreamRequest::Batch(batch.ok_or_else(|| missing("batch"))?),
            "sequence" => StreamRequest::Sequence(Sql::one_of(sql, sql_id)?),
            "describe" => StreamRequest::Describe(Sql::one_of(sql, sql_id)?),
            "get_autocommit" => StreamRequest::GetAutocommit,
            other => return Err(unknown("request", other)),
        };
        Ok(Request::OnStream { stream: stream?, request })
    }
}

/// The answer to `hello`, as the text of a message.
pub fn hello(outcome: Result<(), Error>) -> Vec<u8> {
    match outcome {
        Ok(()) => b"{\"type\":\"hello_ok\"}".to_vec(),
        Err(error) => {
            let mut out = b"{\"type\":\"hello_error\",\"error\":".to_vec();
            error.write(&mut out);
            out.push(b'}');
            out
        }
    }
}

/// The answer to a request, as the text of a message.
pub fn respond(id: i32, outcome: Result<&Response<'_>, Error>) -> Vec<u8> {
    let (kind, member) = if outcome.is_ok() { ("response_ok", "response") } else { ("response_error", "error") };
    let mut out = format!("{{\"type\":\"{kind}\",\"request_id\":{id},\"{member}\":").into_bytes();
    match outcome {
        Ok(response) => response.write(&mut out),
        Err(error) => error.write(&mut out),
    }
    out.push(b'}');
    out
}

impl Response<'_> {
    fn write(&self, out: &mut Vec<u8>) {
        let kind = match self {
            Response::OnStream(response) => return response.write(out),
            Response::FetchCursor { entries, done } => {
                out.extend_from_slice(b"{\"type\":\"fetch_cursor\",\"entries\":[");
                out.extend(entries.trim_ascii_end().iter().map(|&byte| if byte == b'\n' { b',' } else { byte }));
                out.extend_from_slice(format!("],\"done\":{done}}}").as_bytes());
                return;
            }
            Response::OpenStream => "open_stream",
            Response::CloseStream => "close_stream",
            Response::OpenCursor => "open_cursor",
            Response::CloseCursor => "close_cursor",
            Response::StoreSql => "store_sql",
            Response::CloseSql => "close_sql",
        };
        out.extend_from_slice(format!("{{\"type\":\"{kind}\"}}").as_bytes());
    }
}
