//! An [`Error`] is what a caller is told: a [`Code`] a program can act on, a sentence for a person, and
//! where it helps a hint that names the next step. Each code has one HTTP status, in one table
//! ([`Code::status`]). What went wrong inside is logged once, where it happened, and never shown.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Every code the API can answer with. A new one is added only when a client would act differently on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// The request is malformed: JSON, a field, a header, a query parameter or an identifier.
    BadRequest,
    /// No token or key, or one that is not valid (any more).
    Unauthenticated,
    /// The token is valid but lacks a scope, or belongs to the other side of the API.
    Forbidden,
    /// The tenant of this token is suspended.
    TenantSuspended,
    NotFound,
    MethodNotAllowed,
    NotAcceptable,
    /// The state of things contradicts the request: a slug taken, an idempotency key reused for another body.
    Conflict,
    /// The lease token is stale: the job was finished, or given to another worker.
    LeaseLost,
    PayloadTooLarge,
    UnsupportedMediaType,
    /// SQLite refused the statement (syntax, unknown table, type); `details` has its codes and the offset.
    SqlError,
    /// A constraint (unique, foreign key, check, not null) refused the write; `details` has SQLite's code.
    ConstraintViolation,
    /// The statement is outside what tenant SQL may do, whatever the token's scopes.
    SqlDenied,
    /// The statement ran longer than the plan allows and was stopped; nothing of it remains.
    StatementTimeout,
    /// The answer has more rows or bytes than the plan allows.
    ResultTooLarge,
    /// More requests at once or per second than the plan allows; see `Retry-After`.
    TooManyRequests,
    /// The file has reached the bytes its plan allows. Reads and deletes still work.
    QuotaExceeded,
    /// The server is at one of its bounds; see `Retry-After`.
    Overloaded,
    /// The server is stopping; see `Retry-After`.
    ShuttingDown,
    /// This tenant's files cannot be served (corrupt, missing, newer than the binary, a failed migration).
    TenantUnavailable,
    /// The write may or may not have been committed; an `Idempotency-Key` settles it.
    Unknown,
    Internal,
}

impl Code {
    pub const ALL: [Code; 23] = [
        Code::BadRequest,
        Code::Unauthenticated,
        Code::Forbidden,
        Code::TenantSuspended,
        Code::NotFound,
        Code::MethodNotAllowed,
        Code::NotAcceptable,
        Code::Conflict,
        Code::LeaseLost,
        Code::PayloadTooLarge,
        Code::UnsupportedMediaType,
        Code::SqlError,
        Code::ConstraintViolation,
        Code::SqlDenied,
        Code::StatementTimeout,
        Code::ResultTooLarge,
        Code::TooManyRequests,
        Code::QuotaExceeded,
        Code::Overloaded,
        Code::ShuttingDown,
        Code::TenantUnavailable,
        Code::Unknown,
        Code::Internal,
    ];

    /// The code's name on the wire and its HTTP status: the one status table.
    const fn entry(self) -> (&'static str, u16) {
        match self {
            Code::BadRequest => ("bad_request", 400),
            Code::Unauthenticated => ("unauthenticated", 401),
            Code::Forbidden => ("forbidden", 403),
            Code::TenantSuspended => ("tenant_suspended", 403),
            Code::NotFound => ("not_found", 404),
            Code::MethodNotAllowed => ("method_not_allowed", 405),
            Code::NotAcceptable => ("not_acceptable", 406),
            Code::Conflict => ("conflict", 409),
            Code::LeaseLost => ("lease_lost", 409),
            Code::PayloadTooLarge => ("payload_too_large", 413),
            Code::UnsupportedMediaType => ("unsupported_media_type", 415),
            Code::SqlError => ("sql_error", 400),
            Code::ConstraintViolation => ("constraint_violation", 409),
            Code::SqlDenied => ("sql_denied", 403),
            Code::StatementTimeout => ("statement_timeout", 422),
            Code::ResultTooLarge => ("result_too_large", 422),
            Code::TooManyRequests => ("too_many_requests", 429),
            Code::QuotaExceeded => ("quota_exceeded", 507),
            Code::Overloaded => ("overloaded", 503),
            Code::ShuttingDown => ("shutting_down", 503),
            Code::TenantUnavailable => ("tenant_unavailable", 503),
            Code::Unknown => ("unknown", 500),
            Code::Internal => ("internal", 500),
        }
    }

    pub const fn as_str(self) -> &'static str {
        self.entry().0
    }

    pub const fn status(self) -> u16 {
        self.entry().1
    }
}

/// What a caller is told. Cheap to move (one pointer); built on failure paths only.
#[derive(Clone)]
pub struct Error(Box<Inner>);

#[derive(Clone)]
struct Inner {
    code: Code,
    message: Cow<'static, str>,
    details: Option<serde_json::Value>,
    hint: Option<Cow<'static, str>>,
    retry_after: Option<Duration>,
    inside: Option<Error>,
    /// Code and status in the dialect of a protocol that has its own.
    dialect: Option<(&'static str, u16)>,
}

impl Error {
    pub fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Self {
        Error(Box::new(Inner { code, message: message.into(), details: None, hint: None, retry_after: None, inside: None, dialect: None }))
    }

    pub fn bad_request(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::BadRequest, message)
    }

    pub fn not_found(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::NotFound, message)
    }

    pub fn conflict(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::Conflict, message)
    }

    pub fn forbidden(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::Forbidden, message)
    }

    /// Logs what happened (once, here) and tells the caller only that it was our fault.
    pub fn internal(what: &str, cause: &dyn fmt::Display) -> Self {
        tracing::error!(%cause, "{what}");
        Self::new(Code::Internal, "something went wrong on our side").hint("The server's log has the cause, under this request's id.")
    }

    /// The data directory's disk has no room: everybody's trouble, and the operator's to end.
    pub fn disk_full() -> Self {
        tracing::error!("the disk of the data directory is full");
        Self::new(Code::Overloaded, "the server's disk is full").hint("The operator has to make room.").retry_after(Duration::from_secs(60))
    }

    pub fn details(mut self, details: serde_json::Value) -> Self {
        self.0.details = Some(details);
        self
    }

    /// Adds one member to the details.
    pub fn detail(mut self, name: &str, value: impl Into<serde_json::Value>) -> Self {
        let details = self.0.details.get_or_insert_with(|| serde_json::json!({}));
        if let Some(members) = details.as_object_mut() {
            members.insert(name.to_owned(), value.into());
        }
        self
    }

    pub fn hint(mut self, hint: impl Into<Cow<'static, str>>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// The same of one part of what was asked.
    pub fn at(mut self, part: &str) -> Self {
        self.0.message = format!("{part}: {}", self.0.message).into();
        self
    }

    /// How long the caller does well to wait; sent as `Retry-After` in whole seconds, at least one.
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.0.retry_after = Some(wait);
        self
    }

    /// The same in the dialect of a protocol that has codes and statuses of its own.
    pub fn spoken(mut self, code: &'static str, status: u16) -> Self {
        self.0.dialect = Some((code, status));
        self
    }

    /// Whether it is in a dialect already.
    pub fn is_spoken(&self) -> bool {
        self.0.dialect.is_some()
    }

    /// Of the answer.
    pub fn status(&self) -> u16 {
        self.0.dialect.map_or(self.0.code.status(), |(_, status)| status)
    }

    /// One member of the details, if it is there.
    pub fn detail_of(&self, name: &str) -> Option<&serde_json::Value> {
        self.0.details.as_ref()?.get(name)
    }

    /// What operators are told instead of this.
    pub fn inside(mut self, inside: Error) -> Self {
        self.0.inside = Some(inside);
        self
    }

    /// Whether operators are told another one.
    pub fn is_withheld(&self) -> bool {
        self.0.inside.is_some()
    }

    /// The error with nothing withheld.
    pub fn for_operators(mut self) -> Error {
        self.0.inside.take().unwrap_or(self)
    }

    pub fn code(&self) -> Code {
        self.0.code
    }

    pub fn message(&self) -> &str {
        &self.0.message
    }

    pub fn wait(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// The body every failed request gets.
    pub fn body(&self) -> Body<'_> {
        let Inner { code, message, details, hint, dialect, .. } = &*self.0;
        Body { code: dialect.map_or(code.as_str(), |(code, _)| code), message, details: details.as_ref(), hint: hint.as_deref() }
    }

    /// The same as a value, to put into another answer.
    pub fn to_json(&self) -> serde_json::Value {
        let Body { code, message, details, hint } = self.body();
        serde_json::json!({"code": code, "message": message, "details": details, "hint": hint})
    }
}

/// `{"code","message","details","hint"}`; what is not there is null.
#[derive(serde::Serialize)]
pub struct Body<'e> {
    pub code: &'static str,
    pub message: &'e str,
    pub details: Option<&'e serde_json::Value>,
    pub hint: Option<&'e str>,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.0.message, self.0.code.as_str())?;
        match &self.0.hint {
            Some(hint) => write!(f, "\n  {hint}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} {:?}", self.0.code.as_str(), self.0.message, self.0.details)
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_its_own_name_and_an_error_status() {
        let names: std::collections::HashSet<_> = Code::ALL.iter().map(|c| c.as_str()).collect();
        assert_eq!(names.len(), Code::ALL.len());
        assert!(Code::ALL.iter().all(|c| (400..600).contains(&c.status())));
    }
}
