//! The [`Fleet`]: the tenants under load. They are found by slug (`load-000001` and on) and used again, or provisioned
//! in batches; each is called with a service token, and gets its schema and rows before anything is measured.

use std::cell::Cell;
use std::collections::HashMap;
use std::time::Duration;

use futures_util::future::try_join_all;
use serde_json::{Value, json};

use super::progress::Bar;
use super::truth;
use super::wire::{self, Caller, Target, Wire};
use crate::auth::scope::Scopes;
use crate::error::{Code, Error, Result};

/// Calls at once while a fleet is made ready or looked over.
pub const CREW: usize = 16;

/// How long one such call may take: a batch makes many files.
const PATIENCE: Duration = Duration::from_secs(120);

/// How often a call is tried that is answered 429 or 503, with a second between.
const TRIES: usize = 60;

/// Tenants provisioned by one call; small, so that the bar moves.
const BATCH: usize = 50;

const PAGE: usize = 1_000;

/// The life of a token minted for tenants that are used again, in seconds.
const TOKEN_S: u64 = 7 * 86_400;

pub struct Tenant {
    /// From 1.
    pub number: usize,
    pub caller: Caller,
}

impl Tenant {
    pub fn slug(&self) -> String {
        slug(self.number)
    }
}

pub struct Fleet {
    pub target: Target,
    pub tenants: Vec<Tenant>,
    pub provisioned: usize,
}

/// What is known of a tenant before it can be called.
#[derive(Clone)]
enum Found {
    Missing,
    There { id: String },
    Ready(Caller),
}

impl Fleet {
    /// The first `count` tenants, each with `rows` rows. `plan` is for those that are not there yet.
    pub async fn settle(target: Target, key: &str, count: usize, rows: usize, plan: Option<&str>) -> Result<Fleet> {
        let operator = Caller::new(&target, key);
        let mut found = list(&target, &operator, count).await?;
        let missing: Vec<usize> = (0..count).filter(|&index| matches!(found[index], Found::Missing)).collect();
        provision(&target, &operator, &missing, plan, &mut found).await?;
        mint(&target, &operator, &mut found).await?;
        let tenants: Vec<Tenant> = found
            .into_iter()
            .enumerate()
            .filter_map(|(index, found)| match found {
                Found::Ready(caller) => Some(Tenant { number: index + 1, caller }),
                _ => None,
            })
            .collect();
        let fleet = Fleet { target, tenants, provisioned: missing.len() };
        fleet.seed(rows).await?;
        Ok(fleet)
    }

    async fn seed(&self, rows: usize) -> Result<()> {
        let bar = Bar::new("seeding", self.tenants.len() as f64);
        in_turn(&self.target, self.tenants.len(), &bar, async |wire, index| {
            let tenant = &self.tenants[index];
            let body = json!({ "script": truth::seed(tenant.number, rows) });
            ask(wire, |request| wire::post(request, &tenant.caller, "/v1/sql", body.to_string().as_bytes())).await?;
            Ok(())
        })
        .await
    }
}

/// Which of the tenants are there.
async fn list(target: &Target, operator: &Caller, count: usize) -> Result<Vec<Found>> {
    let mut wire = Wire::new(target, PATIENCE);
    let mut found = vec![Found::Missing; count];
    let numbers: HashMap<String, usize> = (0..count).map(|index| (slug(index + 1), index)).collect();
    let mut after: Option<String> = None;
    loop {
        let cursor = after.as_ref().map(|after| format!("&after={after}")).unwrap_or_default();
        let path = format!("/admin/v1/tenants?q=load-&limit={PAGE}{cursor}");
        let page = ask(&mut wire, |request| wire::get(request, operator, &path)).await?;
        for tenant in page["tenants"].as_array().map(Vec::as_slice).unwrap_or_default() {
            let Some(&index) = tenant["slug"].as_str().and_then(|slug| numbers.get(slug)) else { continue };
            if tenant["state"] != "active" {
                return Err(Error::conflict(format!("the tenant {} is {}", slug(index + 1), crate::cli::print::cell(&tenant["state"])))
                    .hint("Only active tenants can be put under load. Resume it, or delete it so that a new one takes its slug."));
            }
            found[index] = Found::There { id: text(&tenant["id"])? };
        }
        match page["next_cursor"].as_str() {
            Some(next) => after = Some(next.to_owned()),
            None => return Ok(found),
        }
    }
}

async fn provision(target: &Target, operator: &Caller, missing: &[usize], plan: Option<&str>, found: &mut [Found]) -> Result<()> {
    let bar = Bar::new("provisioning", missing.len() as f64);
    let mut wire = Wire::new(target, PATIENCE);
    for batch in missing.chunks(BATCH) {
        let wish = |index: &usize| json!({ "slug": slug(index + 1), "name": format!("Load {}", index + 1), "plan": plan });
        let body = json!({ "tenants": batch.iter().map(wish).collect::<Vec<_>>() });
        let answer =
            ask(&mut wire, |request| wire::post(request, operator, "/admin/v1/tenants:batch", body.to_string().as_bytes())).await?;
        let results = answer["results"].as_array().map(Vec::as_slice).unwrap_or_default();
        if results.len() != batch.len() {
            return Err(not_ours("a batch's answer"));
        }
        for (&index, result) in batch.iter().zip(results) {
            if result["status"] != 201 {
                return Err(refusal(&format!("the tenant {} cannot be provisioned", slug(index + 1)), &result["error"]));
            }
            found[index] = Found::Ready(Caller::new(target, &text(&result["token"])?));
            bar.advance();
        }
    }
    Ok(())
}

/// Gives every tenant that is there a token.
async fn mint(target: &Target, operator: &Caller, found: &mut [Found]) -> Result<()> {
    let waiting: Vec<(usize, String)> = found
        .iter()
        .enumerate()
        .filter_map(|(index, found)| match found {
            Found::There { id } => Some((index, id.clone())),
            _ => None,
        })
        .collect();
    let bar = Bar::new("tokens", waiting.len() as f64);
    let body = json!({ "role": "service", "sub": "load", "scopes": Scopes::ALL, "expires_in_s": TOKEN_S }).to_string();
    let minted = std::cell::RefCell::new(Vec::with_capacity(waiting.len()));
    in_turn(target, waiting.len(), &bar, async |wire, at| {
        let (index, id) = &waiting[at];
        let path = format!("/admin/v1/tenants/{id}/tokens");
        let answer = ask(wire, |request| wire::post(request, operator, &path, body.as_bytes())).await?;
        let caller = Caller::new(target, &text(&answer["token"])?);
        minted.borrow_mut().push((*index, caller));
        Ok(())
    })
    .await?;
    minted.into_inner().into_iter().for_each(|(index, caller)| found[index] = Found::Ready(caller));
    Ok(())
}

/// Does something for each of `count`, [`CREW`] at a time, each of them with a connection of its own.
pub async fn in_turn(target: &Target, count: usize, bar: &Bar, work: impl AsyncFn(&mut Wire, usize) -> Result<()>) -> Result<()> {
    let next = Cell::new(0);
    let one = async || {
        let mut wire = Wire::new(target, PATIENCE);
        while next.get() < count {
            let index = next.replace(next.get() + 1);
            work(&mut wire, index).await?;
            bar.advance();
        }
        Ok(())
    };
    try_join_all((0..CREW.min(count)).map(|_| one())).await.map(|_: Vec<()>| ())
}

/// One call that must succeed; its answer as JSON. Waits while the server asks for it.
pub async fn ask(wire: &mut Wire, build: impl FnOnce(&mut Vec<u8>)) -> Result<Value> {
    let mut request = Vec::new();
    build(&mut request);
    let what = String::from_utf8_lossy(request.split(|byte| *byte == b'?' || *byte == b'\r').next().unwrap_or_default());
    let what = what.trim_end_matches(" HTTP/1.1").to_owned();
    let mut tries = 0;
    loop {
        let answer = wire.call(&request).await.map_err(|broken| {
            Error::new(Code::Unknown, format!("{what}: {broken}")).hint("Is the server running there? --url names another one.")
        })?;
        tries += 1;
        match answer.status {
            200..=299 if answer.body.is_empty() => return Ok(Value::Null),
            200..=299 => return serde_json::from_slice(answer.body).map_err(|_| not_ours(&what)),
            429 | 503 if tries < TRIES => tokio::time::sleep(Duration::from_secs(1)).await,
            status => {
                let body = serde_json::from_slice(answer.body).unwrap_or_else(|_| json!({ "message": format!("status {status}") }));
                return Err(refusal(&what, &body));
            }
        }
    }
}

/// What the API said of a call it refused.
fn refusal(what: &str, body: &Value) -> Error {
    let code = Code::ALL.into_iter().find(|code| body["code"] == code.as_str()).unwrap_or(Code::Internal);
    let error = Error::new(code, format!("{what}: {}", body["message"].as_str().unwrap_or("no reason was given")));
    match body["hint"].as_str() {
        Some(hint) => error.hint(hint.to_owned()),
        None => error,
    }
}

fn text(value: &Value) -> Result<String> {
    value.as_str().map(str::to_owned).ok_or_else(|| not_ours("an answer"))
}

fn not_ours(what: &str) -> Error {
    Error::new(Code::Internal, format!("{what} is not what a Tenantry server answers")).hint("--url names the server.")
}

fn slug(number: usize) -> String {
    format!("load-{number:06}")
}
