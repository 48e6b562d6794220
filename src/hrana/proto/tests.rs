use rusqlite::types::ValueRef;
use serde_json::{Value as Json, json};

use super::socket::{ClientMsg, Request, respond};
use super::*;
use crate::sqlite::{Allowance, Allowances, Draft};

fn request(json: Json) -> Result<StreamRequest, String> {
    serde_json::from_str(&json.to_string()).map_err(|error| error.to_string())
}

fn written(response: &StreamResponse) -> Json {
    let mut out = Vec::new();
    response.write(&mut out);
    serde_json::from_slice(&out).unwrap()
}

#[test]
fn values_are_read_exactly() {
    let args = json!([
        {"type": "null"},
        {"type": "integer", "value": "-9223372036854775808"},
        {"type": "float", "value": 2},
        {"type": "text", "value": "x"},
        {"type": "blob", "base64": "AP8="},
        {"type": "blob", "base64": "AP8"},
    ]);
    let read: Vec<Value> = serde_json::from_value(args).unwrap();
    let blob = Value::Blob(vec![0, 255]);
    assert_eq!(read, [Value::Null, Value::Integer(i64::MIN), Value::Float(2.0), Value::Text("x".to_owned()), blob.clone(), blob]);
}

#[test]
fn values_that_make_no_sense_are_refused() {
    for value in [
        json!({"type": "integer", "value": 1}),
        json!({"type": "integer", "value": "9223372036854775808"}),
        json!({"type": "integer", "value": "1.0"}),
        json!({"type": "float", "value": "1"}),
        json!({"type": "text", "value": 1}),
        json!({"type": "text"}),
        json!({"type": "blob", "value": "AP8"}),
        json!({"type": "blob", "base64": "?"}),
        json!({"type": "date", "value": "2026"}),
        json!({"value": "x"}),
        json!(1),
    ] {
        assert!(serde_json::from_str::<Value>(&value.to_string()).is_err(), "{value}");
    }
}

#[test]
fn a_statement_has_a_text_or_the_id_of_one() {
    let stmt = |json: Json| request(json!({"type": "execute", "stmt": json}));
    let text = Stmt { sql: Sql::Text("SELECT 1".into()), args: vec![], named_args: vec![], want_rows: true };
    assert_eq!(stmt(json!({"sql": "SELECT 1", "unknown": [1]})).unwrap(), StreamRequest::Execute(text.clone()));
    let stored = Stmt { sql: Sql::Stored(-3), want_rows: false, ..text };
    assert_eq!(stmt(json!({"sql_id": -3, "sql": null, "want_rows": false})).unwrap(), StreamRequest::Execute(stored));
    assert!(stmt(json!({"sql": "SELECT 1", "sql_id": 1})).is_err());
    assert!(stmt(json!({})).is_err());
}

#[test]
fn a_condition_is_about_earlier_steps_only() {
    let batch = |condition: Json| {
        let steps = json!([{"stmt": {"sql": "BEGIN"}}, {"condition": condition, "stmt": {"sql": "COMMIT"}}]);
        request(json!({"type": "batch", "batch": {"steps": steps}}))
    };
    let nested = json!({"type": "and", "conds": [{"type": "not", "cond": {"type": "is_autocommit"}}, {"type": "ok", "step": 0}]});
    let StreamRequest::Batch(read) = batch(nested).unwrap() else { panic!("not a batch") };
    let wanted = BatchCond::And(vec![BatchCond::Not(Box::new(BatchCond::IsAutocommit)), BatchCond::Ok(0)]);
    assert_eq!(read.steps[1].condition, Some(wanted));
    for step in [1, 2] {
        let error = batch(json!({"type": "or", "conds": [{"type": "error", "step": step}]})).unwrap_err();
        assert!(error.contains("step 1"), "{error}");
    }
    assert!(batch(json!({"type": "ok"})).is_err());
    assert!(batch(json!({"type": "maybe"})).is_err());
}

#[test]
fn no_more_steps_are_read_than_the_bound() {
    let batch = |steps: usize| {
        let steps = vec![r#"{"stmt":{"sql":""}}"#; steps].join(",");
        serde_json::from_str::<Batch>(&format!("{{\"steps\":[{steps}]}}")).map(|batch| batch.steps.len())
    };
    assert_eq!(batch(STEPS_MAX).unwrap(), STEPS_MAX);
    assert!(batch(STEPS_MAX + 1).unwrap_err().to_string().contains("10000"));
}

#[test]
fn a_condition_nested_without_end_is_refused() {
    let deep = format!("{}{}", r#"{"type":"not","cond":"#.repeat(100_000), "}".repeat(100_000));
    assert!(serde_json::from_str::<BatchCond>(&deep).is_err());
}

#[test]
fn messages_of_a_socket_are_read() {
    let read = |json: Json| serde_json::from_str::<ClientMsg>(&json.to_string());
    assert_eq!(read(json!({"type": "hello", "jwt": null})).unwrap(), ClientMsg::Hello { jwt: None });
    let fetch = json!({"type": "request", "request_id": 7, "request": {"type": "fetch_cursor", "cursor_id": 1, "max_count": 2}});
    let wanted = ClientMsg::Request { id: 7, request: Request::FetchCursor { cursor: 1, max_count: 2 } };
    assert_eq!(read(fetch).unwrap(), wanted);
    assert!(read(json!({"type": "request", "request_id": 7, "request": {"type": "close", "stream_id": 1}})).is_err());
    assert!(read(json!({"type": "request", "request_id": 7, "request": {"type": "execute", "stmt": {"sql": ""}}})).is_err());
    assert!(read(json!({"type": "request", "request": {"type": "open_stream", "stream_id": 1}})).is_err());
}

fn rows(rows: &[&[ValueRef<'_>]]) -> Rows {
    let room = Allowance::unbounded();
    let mut draft = RowsDraft::new(Draft::new(&room));
    rows.iter().for_each(|values| draft.push_values(values.iter().copied()).unwrap());
    draft.finish()
}

#[test]
fn what_rows_took_outlives_their_writing() {
    let all = Allowances::new(1 << 20);
    let one = all.one();
    let result = || {
        let mut draft = RowsDraft::new(Draft::new(&one));
        draft.push_values([ValueRef::Text(&[b'x'; 100_000])].into_iter()).unwrap();
        StmtResult { rows: draft.finish(), ..StmtResult::default() }
    };
    for response in [
        StreamResponse::Execute(result()),
        StreamResponse::Batch(BatchResult { step_results: vec![None, Some(result())], step_errors: vec![None, None] }),
    ] {
        written(&response);
        let taken = response.into_taken();
        assert!(all.used() > 100_000);
        drop(taken);
    }
    assert_eq!(all.used(), 0);
}

#[test]
fn results_are_written_as_the_protocol_has_them() {
    let rows = rows(&[
        &[ValueRef::Null, ValueRef::Integer(i64::MAX), ValueRef::Real(1.0)],
        &[ValueRef::Text("a\n\"é".as_bytes()), ValueRef::Text(b"\xff"), ValueRef::Blob(&[0, 255])],
    ]);
    let cols = vec![Col { name: "a".to_owned(), decltype: Some("INT".to_owned()) }, Col { name: "b".to_owned(), decltype: None }];
    let result = StmtResult { cols, rows, affected_row_count: 2, last_insert_rowid: Some(5), ..StmtResult::default() };
    let wanted = json!({
        "cols": [{"name": "a", "decltype": "INT"}, {"name": "b", "decltype": null}],
        "rows": [
            [{"type": "null"}, {"type": "integer", "value": "9223372036854775807"}, {"type": "float", "value": 1.0}],
            [{"type": "text", "value": "a\n\"é"}, {"type": "text", "value": "\u{fffd}"}, {"type": "blob", "base64": "AP8="}],
        ],
        "affected_row_count": 2, "last_insert_rowid": "5", "rows_read": 0, "rows_written": 0, "query_duration_ms": 0.0,
    });
    assert_eq!(written(&StreamResponse::Execute(result)), json!({"type": "execute", "result": wanted}));

    let failed = Error { message: "m".to_owned(), code: "C".to_owned(), extended_code: None };
    let batch = BatchResult { step_results: vec![Some(StmtResult::default()), None, None], step_errors: vec![None, Some(failed), None] };
    let answer = written(&StreamResponse::Batch(batch));
    assert_eq!(answer["result"]["step_errors"], json!([null, {"message": "m", "code": "C"}, null]));
    assert_eq!(answer["result"]["step_results"][0]["rows"], json!([]));
    assert_eq!(answer["result"]["step_results"][1], Json::Null);
    assert_eq!(written(&StreamResponse::GetAutocommit { is_autocommit: true }), json!({"type": "get_autocommit", "is_autocommit": true}));
}

#[test]
fn infinities_are_numbers_that_readers_take_for_infinite() {
    let rows = rows(&[&[ValueRef::Real(f64::INFINITY), ValueRef::Real(f64::NEG_INFINITY)]]);
    let mut out = Vec::new();
    StreamResponse::Execute(StmtResult { rows, ..StmtResult::default() }).write(&mut out);
    let text = String::from_utf8(out).unwrap();
    assert!(text.contains(r#"[{"type":"float","value":1e999},{"type":"float","value":-1e999}]"#), "{text}");
}

#[test]
fn a_cursors_entries_say_what_the_batch_did() {
    let rows = rows(&[&[ValueRef::Integer(1)], &[ValueRef::Integer(2)]]);
    let cols = vec![Col { name: "n".to_owned(), decltype: None }];
    let failed = Error { message: "m".to_owned(), code: "C".to_owned(), extended_code: None };
    let result = StmtResult { cols, rows, last_insert_rowid: Some(7), ..StmtResult::default() };
    let batch = BatchResult { step_results: vec![None, Some(result), None], step_errors: vec![None, None, Some(failed)] };
    let mut entries = Vec::new();
    batch.write_entries(&mut entries);
    let row = |n: &str| json!({"type": "row", "row": [{"type": "integer", "value": n}]});
    let wanted = [
        json!({"type": "step_begin", "step": 1, "cols": [{"name": "n", "decltype": null}]}),
        row("1"),
        row("2"),
        json!({"type": "step_end", "affected_row_count": 0, "last_insert_rowid": "7"}),
        json!({"type": "step_error", "step": 2, "error": {"message": "m", "code": "C"}}),
    ];
    let lines: Vec<Json> =
        entries.trim_ascii_end().split(|&byte| byte == b'\n').map(|line| serde_json::from_slice(line).unwrap()).collect();
    assert_eq!(lines, wanted);

    let message = |entries: &[u8]| -> Json {
        serde_json::from_slice(&respond(-1, Ok(&socket::Response::FetchCursor { entries, done: true }))).unwrap()
    };
    let response = json!({"type": "fetch_cursor", "entries": wanted, "done": true});
    assert_eq!(message(&entries), json!({"type": "response_ok", "request_id": -1, "response": response}));
    assert_eq!(message(b"")["response"]["entries"], json!([]));
}

#[test]
fn errors_have_sqlites_names_where_it_has_one() {
    let conn = rusqlite::Connection::open_in_memory().unwrap();
    conn.execute_batch("CREATE TABLE t (a INTEGER PRIMARY KEY); INSERT INTO t VALUES (1)").unwrap();
    let told = |sql: &str| Error::from(&crate::error::Error::from(conn.execute_batch(sql).unwrap_err()));
    let twice = told("INSERT INTO t VALUES (1)");
    assert_eq!((twice.code.as_str(), twice.extended_code.as_deref()), ("SQLITE_CONSTRAINT", Some("SQLITE_CONSTRAINT_PRIMARYKEY")));
    assert_eq!((told("SELEC").code.as_str(), told("SELEC").extended_code), ("SQLITE_ERROR", None));
    let denied = crate::error::Error::new(crate::error::Code::SqlDenied, "no").hint("Do not.");
    assert_eq!(Error::from(&denied), Error { message: "no (Do not.)".to_owned(), code: "SQL_DENIED".to_owned(), extended_code: None });
}
