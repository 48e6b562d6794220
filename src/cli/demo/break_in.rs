//! The attempts to get at another tenant's data, each of which must fail in the way it should.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::caller::{Caller, same, wrong};
use super::story::{CACHE_PATH, Guest, Job};
use crate::cli::client::Call;
use crate::cli::print::line;
use crate::error::Result;
use crate::tenant::layout::{Layout, Role};

/// What the second tenant, and somebody with no token at all, try against the first.
pub(super) fn attempts(caller: &Caller<'_>, guests: &[Guest], jobs: &[Job], layout: &Layout) -> Result<()> {
    line("\n6. Attempts to get at somebody else's data\n");
    let ([target, intruder, ..], [job, ..]) = (guests, jobs) else { return Err(wrong("there are too few tenants")) };
    let name = intruder.user.name.as_str();
    let told = |what: &str, answer: &str| line(&format!("   {what:<66}{answer}"));
    let sql = |sql: &str| json!({ "statements": [{ "sql": sql }] }).to_string().into_bytes();
    let with = |token, headers, body| Call { method: "POST", path: "/v1/sql", bearer: token, headers, body };
    let own = Some(intruder.user.token.as_str());
    let projects = "SELECT name FROM projects ORDER BY id";

    let plain = caller.call(name, &with(own, &[], sql(projects)), 200)?.json();
    let their_id = target.id.to_string();
    let headers = [("x-tenant-id", their_id.as_str()), ("tenant", their_id.as_str())];
    let named = caller.call(name, &with(own, &headers, sql(projects)), 200)?.json();
    same("what a header with another tenant's id changes", &named["results"][0]["rows"], &plain["results"][0]["rows"])?;
    told("another tenant's id in a header", "changes nothing: only the token counts");

    let attach = format!("ATTACH '{}' AS other", layout.file(target.id, Role::Database).display());
    caller.refused(name, &with(own, &[], sql(&attach)), 403, "sql_denied")?;
    told("ATTACH of another tenant's file", "403 sql_denied");

    let path = format!("/v1/jobs/{}/ack", job.id);
    let ack = json!({ "lease_token": job.lease_token }).to_string().into_bytes();
    caller.refused(name, &Call { method: "POST", path: &path, bearer: own, headers: &[], body: ack }, 404, "not_found")?;
    told("acknowledging another tenant's job", "404 not_found");

    let forgeries = [
        ("a token with another tenant's id written into it", rewritten(&intruder.user.token, &their_id)?),
        ("a token that claims to need no signature (alg none)", unsigned(&target.user.token)?),
        ("a token signed with somebody else's key", foreign(&target.user.token)?),
    ];
    for (what, token) in &forgeries {
        caller.refused("an intruder", &with(Some(token), &[], sql(projects)), 401, "unauthenticated")?;
        told(what, "401 unauthenticated");
    }
    caller.refused("nobody", &with(None, &[], sql(projects)), 401, "unauthenticated")?;
    told("no token at all", "401 unauthenticated");

    let admin = Call { method: "GET", path: "/admin/v1/tenants", bearer: own, headers: &[], body: Vec::new() };
    caller.refused(name, &admin, 403, "forbidden")?;
    told("a tenant's token on an operator's route", "403 forbidden");

    let delete = Call { method: "DELETE", path: CACHE_PATH, bearer: own, headers: &[], body: Vec::new() };
    caller.call(name, &delete, 204)?;
    let theirs = Call { method: "GET", path: CACHE_PATH, bearer: Some(&target.user.token), headers: &[], body: Vec::new() };
    caller.call(&target.user.name, &theirs, 200)?;
    told("deleting the cache key that another tenant uses too", "deletes one's own");
    Ok(())
}

/// The token with another tenant in its payload and its old signature.
fn rewritten(token: &str, tenant: &str) -> Result<String> {
    let (header, mut payload, signature) = taken_apart(token)?;
    let fields = payload.as_object_mut().ok_or_else(|| wrong("a token's payload is no object"))?;
    for value in fields.values_mut() {
        if value.as_str().is_some_and(|text| uuid::Uuid::try_parse(text).is_ok()) {
            *value = json!(tenant);
        }
    }
    Ok(put_together(&header, &payload, &signature))
}

fn unsigned(token: &str) -> Result<String> {
    let (mut header, payload, _) = taken_apart(token)?;
    header["alg"] = json!("none");
    Ok(put_together(&header, &payload, ""))
}

/// The same claims with a good signature of a key that is not ours.
fn foreign(token: &str) -> Result<String> {
    let (_, payload, _) = taken_apart(token)?;
    let key = jsonwebtoken::EncodingKey::from_secret(b"a secret that this server never heard of");
    let header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::HS256);
    jsonwebtoken::encode(&header, &payload, &key).map_err(|e| wrong(&format!("a token cannot be signed: {e}")))
}

fn taken_apart(token: &str) -> Result<(Value, Value, String)> {
    let broken = || wrong("the server's token is no JWT");
    let mut parts = token.split('.');
    let mut part = || parts.next().ok_or_else(broken);
    let (header, payload, signature) = (part()?, part()?, part()?.to_owned());
    let decoded = |text: &str| {
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| broken())?;
        serde_json::from_slice(&bytes).map_err(|_| broken())
    };
    Ok((decoded(header)?, decoded(payload)?, signature))
}

fn put_together(header: &Value, payload: &Value, signature: &str) -> String {
    format!("{}.{}.{signature}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(payload.to_string()))
}
