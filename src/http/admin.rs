//! `/admin/v1/…`: what operators do. Everything needs an operator's key; every change, and every change that was
//! refused, is in the audit log under the operator's name and the request's id.

pub mod audit;
pub mod keys;
pub mod migrations;
pub mod policies;
pub mod system;
pub mod tenants;
pub mod tokens;

use actix_web::http::StatusCode;
use actix_web::http::header::ContentType;
use actix_web::{HttpRequest, HttpResponse};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::guard::Operator;
use crate::error::{Error, Result};
use crate::system::app::{Answer, Once};
use crate::system::audit::By;

const LIMIT_DEFAULT: u32 = 100;
const LIMIT_MAX: u32 = 1_000;

const KEY_HEADER: &str = "idempotency-key";
const KEY_MAX: usize = 255;

impl From<&Operator> for By {
    fn from(operator: &Operator) -> By {
        By { actor: operator.name.clone(), request_id: operator.request_id }
    }
}

/// Items on a page: 1 to [`LIMIT_MAX`].
fn limit(asked: Option<u32>) -> Result<u32> {
    match asked.unwrap_or(LIMIT_DEFAULT) {
        limit @ 1..=LIMIT_MAX => Ok(limit),
        limit => Err(Error::bad_request(format!("`limit` is {limit}; a page has 1 to {LIMIT_MAX} items"))),
    }
}

/// A page of at most `limit` of the rows, of which one more was asked for than fits, and the cursor of its last.
fn page<T>(mut rows: Vec<T>, limit: u32, cursor: impl Fn(&T) -> String) -> (Vec<T>, Option<String>) {
    let more = rows.len() > limit as usize;
    rows.truncate(limit as usize);
    let next = rows.last().filter(|_| more).map(cursor);
    (rows, next)
}

fn wrong_cursor() -> Error {
    Error::bad_request("`after` is not a cursor of this list").hint("Pass `next_cursor` of the page before, as it is.")
}

/// The request's `Idempotency-Key`, if it has one, for `what` the operator asks for with `body`.
fn once(request: &HttpRequest, operator: &Operator, what: &str, body: &impl Serialize) -> Result<Option<Once>> {
    let mut keys = request.headers().get_all(KEY_HEADER);
    let Some(key) = keys.next() else { return Ok(None) };
    let key = key.to_str().ok().filter(|key| (1..=KEY_MAX).contains(&key.len()));
    let Some(key) = key.filter(|_| keys.next().is_none()) else {
        return Err(Error::bad_request("the Idempotency-Key cannot be used")
            .hint(format!("One header of 1 to {KEY_MAX} ASCII characters; a UUID is fine.")));
    };
    let body = serde_json::to_vec(body).map_err(|cause| Error::internal("a body does not serialize", &cause))?;
    Ok(Some(Once { scope: format!("{} {what}", operator.id), key: key.to_owned(), body_hash: Sha256::digest(body).into() }))
}

fn respond(answer: Answer) -> HttpResponse {
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    HttpResponse::build(status).content_type(ContentType::json()).body(answer.body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_a_cursor_only_if_there_is_more() {
        let cursor = |n: &u32| n.to_string();
        assert_eq!(page(vec![1, 2, 3], 2, cursor), (vec![1, 2], Some("2".to_owned())));
        assert_eq!(page(vec![1, 2], 2, cursor), (vec![1, 2], None));
        assert_eq!(page(vec![], 2, cursor), (vec![], None));
    }

    #[test]
    fn a_limit_is_within_bounds() {
        assert_eq!(limit(None).unwrap(), LIMIT_DEFAULT);
        assert!(limit(Some(0)).is_err() && limit(Some(LIMIT_MAX + 1)).is_err());
    }
}
