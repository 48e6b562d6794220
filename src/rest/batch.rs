//! A [`Batch`] is several requests of the dialect in one transaction: all of them happen, or none. One that only reads is
//! one snapshot of the file.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::access::{self, Caller};
use super::body::too_large;
use super::media::Media;
use super::schema::Schema;
use super::{Answer, Call, Functions, Request, Setting, Task, Verb, read, refusal, write};
use crate::error::{Error, Result};
use crate::sqlite::{Draft, Finished, Idempotency, IdempotencyKey, Reader, WriteTx};

/// The most requests of one batch.
const OPERATIONS_MAX: usize = 100;

const ANSWERS: Idempotency = Idempotency::kept_in("_tenantry_idempotency");

pub struct Batch {
    operations: Vec<Operation>,
    key: Option<IdempotencyKey>,
}

enum Operation {
    Rows(Task),
    Call(Call),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Form<'b> {
    #[serde(borrow)]
    operations: Vec<OperationForm<'b>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OperationForm<'b> {
    method: String,
    /// After `/rest/v1/`: `table?select=…`, `rpc/name`.
    path: String,
    prefer: Option<String>,
    accept: Option<String>,
    #[serde(borrow)]
    body: Option<&'b RawValue>,
}

impl Batch {
    /// `key` tells this batch from others, and settles what became of it.
    pub fn read(body: &[u8], key: Option<IdempotencyKey>, functions: &Functions, caller: &Caller) -> Result<Batch> {
        let form: Form<'_> = serde_json::from_slice(body).map_err(|error| {
            refusal::bad_body(&format!("{error}"))
                .hint("{\"operations\":[{\"method\":\"POST\",\"path\":\"table?select=id\",\"body\":{…}}]}")
        })?;
        if form.operations.len() > OPERATIONS_MAX {
            return Err(refusal::too_many("operations", OPERATIONS_MAX));
        }
        let read = |(at, form)| Operation::read(form, functions, caller).map_err(|error: Error| error.at(&place(at)));
        let operations = form.operations.iter().enumerate().map(read).collect::<Result<_>>()?;
        Ok(Batch { operations, key })
    }

    pub fn writes(&self) -> bool {
        self.key.is_some() || self.operations.iter().any(Operation::writes)
    }

    pub fn look(&self, reader: &Reader<'_>, schema: &Arc<Schema>, setting: &Setting) -> Result<Answer> {
        self.each(reader.draft(), schema, setting, |operation| match operation {
            Operation::Rows(task) => read::rows(reader, schema, setting, task),
            Operation::Call(call) => call.run(reader, schema, setting),
        })
    }

    pub fn write(&self, tx: &WriteTx<'_>, schema: &Arc<Schema>, setting: &Setting) -> Result<Answer> {
        // What one role was answered is not another's to be told again.
        let subject = &format!("{} {}", setting.caller.claims.role, setting.caller.claims.sub);
        if let Some(key) = &self.key
            && let Some(body) = ANSWERS.answered(tx, subject, key)?
        {
            return Ok(Answer { replayed: true, ..answer(body.into()) });
        }
        let answer = self.each(tx.draft(), schema, setting, |operation| match operation {
            Operation::Rows(task) if task.verb == Verb::Get => read::rows(tx, schema, setting, task),
            Operation::Rows(task) => write::rows(tx, schema, setting, task),
            Operation::Call(call) => call.run(tx, schema, setting),
        })?;
        if let Some(key) = &self.key {
            ANSWERS.keep(tx, subject, key, &answer.body)?;
        }
        Ok(Answer { wrote: true, ..answer })
    }

    /// The operations' answers, one after the other; the first that fails is the batch's.
    fn each(&self, mut out: Draft<'_>, schema: &Schema, setting: &Setting, run: impl Fn(&Operation) -> Result<Answer>) -> Result<Answer> {
        out.extend_from_slice(b"{\"results\":[");
        for (at, operation) in self.operations.iter().enumerate() {
            let told = |error| refusal::translate(access::told(&setting.caller, schema, error)).at(&place(at));
            let one = run(operation).and_then(Answer::succeeded).map_err(told)?;
            if at > 0 {
                out.push(b',');
            }
            let about = json!({
                "status": one.status,
                "content_range": one.content_range,
                "location": one.location,
                "preference_applied": one.preference_applied,
            });
            out.expect(one.body.len())?;
            out.extend_from_slice(about.to_string().trim_end_matches('}').as_bytes());
            out.extend_from_slice(b",\"body\":");
            out.extend_from_slice(if one.content_type.is_some() { &one.body } else { b"null" });
            out.push(b'}');
            out.settle()?;
            if setting.plan.result_bytes > 0 && out.len() as u64 > setting.plan.result_bytes {
                return Err(too_large("bytes", "result_bytes"));
            }
        }
        out.extend_from_slice(b"]}");
        Ok(answer(out.finish()))
    }
}

impl Operation {
    fn read(form: &OperationForm<'_>, functions: &Functions, caller: &Caller) -> Result<Operation> {
        let verb = match form.method.as_str() {
            "GET" => Verb::Get,
            "POST" => Verb::Post,
            "PATCH" => Verb::Patch,
            "PUT" => Verb::Put,
            "DELETE" => Verb::Delete,
            _ => return Err(refusal::bad_body("a method is GET, POST, PATCH, PUT or DELETE")),
        };
        let (path, query) = form.path.split_once('?').unwrap_or((&form.path, ""));
        let function = path.strip_prefix("rpc/");
        let request = Request {
            verb,
            table: function.unwrap_or(path),
            query,
            accept: form.accept.as_deref(),
            profile: None,
            prefer: form.prefer.as_deref().into_iter().collect(),
            range: None,
            content_type: None,
            body: form.body.map_or(b"", |body| body.get().as_bytes()),
        };
        if !matches!(Media::negotiate(request.accept)?, Media::Json { .. } | Media::Object { .. }) {
            return Err(refusal::unacceptable(form.accept.as_deref().unwrap_or_default()));
        }
        match function {
            Some(name) if !matches!(verb, Verb::Get | Verb::Post) => Err(refusal::not_of_functions(name, &form.method)),
            Some(_) => Call::read(&request, functions, caller).map(Operation::Call),
            None => Task::read(&request).map(Operation::Rows),
        }
    }

    fn writes(&self) -> bool {
        match self {
            Operation::Rows(task) => task.verb != Verb::Get,
            Operation::Call(call) => call.function.is_volatile,
        }
    }
}

fn place(at: usize) -> String {
    format!("operations[{at}]")
}

fn answer(body: Finished) -> Answer {
    Answer { status: 200, content_type: Some(Media::Json { stripped: false }.content_type()), body, ..Answer::default() }
}
