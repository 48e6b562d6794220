//! Who calls. [`TenantCall`] is the only way from a request to a tenant's files: a token is verified, the tenant
//! its claim names is looked up, and [`TenantCall::lease`] gives that tenant's triple, no other. [`Operator`] is the only way to the
//! admin side. [`Caller`] is either, for queues and caches, of which the operator has some too: whose is used, is said by who calls.

mod keeper;

use std::future::Future;
use std::ops::Deref;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use actix_web::dev::Payload;
use actix_web::http::header::{AUTHORIZATION, HeaderValue, ORIGIN};
use actix_web::web::Data;
use actix_web::{FromRequest, HttpMessage, HttpRequest};
use serde_json::Value;
use uuid::Uuid;

use super::cors;
use crate::auth::{Claims, SERVICE, Scopes, Verifier, invalid_token, missing_token};
use crate::error::{Code, Error, Result};
use crate::rest::Policies;
use crate::sql;
use crate::system::audit::By;
use crate::system::{Mark, Systems};
use crate::tenant::lease::Files;
use crate::tenant::{Lease, TenantId};
pub use keeper::{Keeper, LetIn};

/// A request of a tenant's, let in.
pub struct TenantCall {
    pub request_id: Uuid,
    let_in: LetIn,
    keeper: Rc<Keeper>,
}

impl Deref for TenantCall {
    type Target = LetIn;

    fn deref(&self) -> &LetIn {
        &self.let_in
    }
}

/// A request of an operator's.
pub struct Operator {
    pub id: Uuid,
    pub name: String,
    pub request_id: Uuid,
}

/// What is noted of a request from the moment it is there.
pub struct Noted {
    /// As its answer's `X-Request-Id` has it.
    pub id: Uuid,
    /// Whose it was, for the log that is written behind it.
    pub tenant: Option<TenantId>,
}

/// A request to a queue or a cache: a tenant's to its own, an operator's to the operator's own.
pub struct Caller {
    pub claims: Arc<Claims>,
    whose: Whose,
}

enum Whose {
    Tenant(TenantCall),
    Operator(Arc<Systems>, By),
}

/// Who was let in lately is let in at once, and nothing is allocated for it.
pub enum Letting<T> {
    Now(Option<Result<T>>),
    Asking(Pin<Box<dyn Future<Output = Result<T>>>>),
}

impl<T> Letting<T> {
    fn now(outcome: Result<T>) -> Letting<T> {
        Letting::Now(Some(outcome))
    }
}

impl<T: Unpin> Future for Letting<T> {
    type Output = Result<T>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<T>> {
        match self.get_mut() {
            Letting::Now(outcome) => outcome.take().map_or(Poll::Pending, Poll::Ready),
            Letting::Asking(asking) => asking.as_mut().poll(context),
        }
    }
}

/// Where a token is asked for a tenant: once for a request, again and again for a socket.
#[derive(Clone)]
pub struct Door {
    keeper: Rc<Keeper>,
    request_id: Uuid,
    /// Of the page that asks, if one does.
    origin: Option<HeaderValue>,
}

impl Door {
    pub fn of(request: &HttpRequest) -> Result<Door> {
        let keeper = request.app_data::<Rc<Keeper>>().ok_or_else(|| Error::internal("a part is not wired", &"Keeper"))?;
        Ok(Door { keeper: keeper.clone(), request_id: request_id(request), origin: request.headers().get(ORIGIN).cloned() })
    }

    pub async fn let_in(&self, token: &str) -> Result<TenantCall> {
        self.admit(self.keeper.let_in(token).await?)
    }

    /// Of a caller of lately.
    fn let_in_again(&self, token: &str) -> Option<Result<TenantCall>> {
        self.keeper.let_in_again(token).map(|let_in| self.admit(let_in))
    }

    fn admit(&self, let_in: LetIn) -> Result<TenantCall> {
        cors::admit(&let_in.tenant, self.origin.as_ref())?;
        Ok(TenantCall { request_id: self.request_id, let_in, keeper: self.keeper.clone() })
    }
}

impl FromRequest for TenantCall {
    type Error = Error;
    type Future = Letting<Self>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let asked = Door::of(request).and_then(|door| Ok((bearer(request)?, door)));
        let (token, door) = match asked {
            Ok(asked) => asked,
            Err(refused) => return Letting::now(Err(refused)),
        };
        if let Some(call) = door.let_in_again(token) {
            return Letting::now(call.and_then(|call| call.noted(request)));
        }
        let (request, token) = (request.clone(), token.to_owned());
        Letting::Asking(Box::pin(async move { door.let_in(&token).await?.noted(&request) }))
    }
}

/// Errors: `forbidden` where policies hold the role back.
pub(super) fn may_send_sql(policies: &Policies, role: &str) -> Result<()> {
    if policies.is_empty() || role == SERVICE {
        return Ok(());
    }
    Err(Error::forbidden(format!("the role {role} may not send SQL: policies say which rows it sees"))
        .hint("Its rows are at /rest/v1. SQL is for tokens with the role service."))
}

impl TenantCall {
    fn noted(self, request: &HttpRequest) -> Result<TenantCall> {
        if let Some(noted) = request.extensions_mut().get_mut::<Noted>() {
            noted.tenant = Some(self.tenant.id);
        }
        self.tenant.admit()?;
        Ok(self)
    }

    /// What SQL of the caller's own may do. It goes past the policies, so where there are any it is for those whom they
    /// do not hold back.
    pub fn sql_scopes(&self) -> Result<Scopes> {
        may_send_sql(self.keeper.rules.now().schemas.policies(), &self.claims.role).map(|()| self.claims.scopes)
    }

    /// Who sends SQL; refused like [`TenantCall::sql_scopes`].
    pub fn sql_caller(&self) -> Result<sql::Caller> {
        Ok(sql::Caller { subject: self.claims.sub.clone(), scopes: self.sql_scopes()? })
    }

    /// Keeps the tenant's files open until it is dropped. Taken once the body is there: suspending and deleting
    /// wait for leases, and should not wait for a client that dribbles.
    pub async fn lease(&self) -> Result<Lease> {
        self.keeper.lease(&self.let_in).await
    }
}

impl FromRequest for Caller {
    type Error = Error;
    type Future = Letting<Self>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let call = match TenantCall::from_request(request, payload) {
            Letting::Now(Some(Ok(call))) => return Letting::now(Ok(Caller::of(call))),
            call => call,
        };
        let request = request.clone();
        Letting::Asking(Box::pin(async move {
            let refused = match call.await {
                Ok(call) => return Ok(Caller::of(call)),
                Err(refused) => refused,
            };
            if refused.code() == Code::Unauthenticated
                && let Some(operator) = part::<Mark>(&request)?.verify_key(bearer(&request)?)
            {
                let claims = Arc::new(Claims::of_operator(&operator.name));
                let by = By { actor: operator.name, request_id: request_id(&request) };
                return Ok(Caller { claims, whose: Whose::Operator(part_arc(&request)?, by) });
            }
            Err(refused)
        }))
    }
}

impl Caller {
    fn of(call: TenantCall) -> Caller {
        Caller { claims: call.claims.clone(), whose: Whose::Tenant(call) }
    }

    /// Who sends SQL to the database beside the queue and the cache; only a tenant has one.
    pub fn sql_caller(&self) -> Result<sql::Caller> {
        match &self.whose {
            Whose::Tenant(call) => call.sql_caller(),
            Whose::Operator(..) => Err(Error::bad_request("the operator's queue and cache have no database beside them")),
        }
    }

    /// Does what changes how `target`, a queue, works. Of the operator's own that is in the audit log: that it is begun, and how it
    /// ended.
    pub async fn changing<T>(
        &self,
        action: &'static str,
        target: String,
        details: Value,
        change: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let Whose::Operator(systems, by) = &self.whose else { return change.await };
        systems.audit.record(by.begun(action, Some(target.clone()), details.clone())).await?;
        let changed = change.await;
        let ended = match &changed {
            Ok(_) => by.did(action, Some(target), details),
            Err(error) => by.failed(action, Some(target), error),
        };
        systems.audit.record(ended).await.and(changed)
    }

    /// Keeps the files open until it is dropped; taken once the body is there, as [`TenantCall::lease`] is.
    pub async fn lease(&self) -> Result<Files> {
        match &self.whose {
            Whose::Tenant(call) => call.lease().await.map(Files::Tenant),
            Whose::Operator(systems, _) => Ok(Files::Operator(systems.clone())),
        }
    }
}

impl FromRequest for Operator {
    type Error = Error;
    type Future = Letting<Self>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let request = request.clone();
        Letting::Asking(Box::pin(async move {
            let key = bearer(&request)?;
            if let Some(operator) = part::<Mark>(&request)?.verify_key(key) {
                return Ok(Operator { id: operator.id, name: operator.name, request_id: request_id(&request) });
            }
            // A tenant's own token is told that it is on the wrong side; anything else is told nothing.
            match part::<Verifier>(&request)?.verify(key).await {
                Ok(_) => Err(Error::forbidden("this needs an operator's key, not a tenant's token").hint("Tenants call /v1/…")),
                Err(_) => Err(invalid_token()),
            }
        }))
    }
}

/// The request's id; the middleware gives every request one.
pub fn request_id(request: &HttpRequest) -> Uuid {
    request.extensions().get::<Noted>().map_or(Uuid::nil(), |noted| noted.id)
}

/// What follows `Bearer ` in the Authorization header.
pub fn bearer(request: &HttpRequest) -> Result<&str> {
    let mut headers = request.headers().get_all(AUTHORIZATION);
    let header = headers.next().ok_or_else(missing_token)?;
    if headers.next().is_some() {
        return Err(invalid_token());
    }
    let text = std::str::from_utf8(header.as_bytes()).map_err(|_| invalid_token())?;
    match text.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Ok(token.trim()),
        _ => Err(missing_token()),
    }
}

fn part<T: 'static>(request: &HttpRequest) -> Result<&T> {
    request.app_data::<Data<T>>().map(|data| &***data).ok_or_else(|| Error::internal("a part is not wired", &std::any::type_name::<T>()))
}

fn part_arc<T: 'static>(request: &HttpRequest) -> Result<Arc<T>> {
    let data = request.app_data::<Data<T>>().map(|data| data.clone().into_inner());
    data.ok_or_else(|| Error::internal("a part is not wired", &std::any::type_name::<T>()))
}
