//! What a browser may do from a page of another origin: CORS, for the paths that tenants' tokens serve. Nothing here
//! knows cookies: a page that calls has the token, so who may call is not a question of where it was loaded from. The
//! list of origins keeps others' pages from using tokens that they have. A browser's first question names no tenant, so what it is
//! told holds for any; a plan's own list is held against the request that follows, which has the token ([`admit`]).

use actix_web::HttpResponse;
use actix_web::dev::ServiceRequest;
use actix_web::http::Method;
use actix_web::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS,
    ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, HeaderMap, HeaderValue, ORIGIN, VARY,
};
use actix_web::web::Data;

use crate::error::{Error, Result};
use crate::tenant::registry::Tenant;

/// Paths that begin so are called by tenants' front ends; the others by operators and machines.
const SERVED: [&str; 6] = ["/v1/", "/v2", "/v3", "/rest/v1/", "/auth/v1/", "/.well-known/jwks.json"];

/// As PostgREST lists them.
const METHODS: HeaderValue = HeaderValue::from_static("GET, POST, PATCH, PUT, DELETE, OPTIONS, HEAD");

/// How long a browser need not ask again, in seconds.
const MAX_AGE: HeaderValue = HeaderValue::from_static("86400");

const ANY: HeaderValue = HeaderValue::from_static("*");

/// Origins whose pages may call.
pub enum Cors {
    Any,
    Listed(Vec<String>),
}

impl Cors {
    /// From the settings' lists.
    pub fn new(origins: Vec<String>) -> Cors {
        if origins.iter().any(|origin| origin == "*") { Cors::Any } else { Cors::Listed(origins) }
    }

    fn admits(&self, origin: &HeaderValue) -> bool {
        match self {
            Cors::Any => true,
            Cors::Listed(origins) => admits(origins, origin),
        }
    }
}

/// Refuses a page that the tenant's plan does not list, if it lists any.
pub fn admit(tenant: &Tenant, origin: Option<&HeaderValue>) -> Result<()> {
    let listed = &tenant.plan.cors_origins;
    match origin {
        Some(origin) if !listed.is_empty() && !admits(listed, origin) => {
            let hint = format!("plans.{}.cors_origins lists those that may.", tenant.plan_name);
            Err(Error::forbidden("pages of this origin may not call for this tenant").hint(hint))
        }
        _ => Ok(()),
    }
}

fn admits(listed: &[String], origin: &HeaderValue) -> bool {
    listed.iter().any(|known| known == "*" || known.as_bytes() == origin.as_bytes())
}

/// A request from a page of another origin.
pub struct Crossing {
    cors: Data<Cors>,
    origin: HeaderValue,
}

impl Crossing {
    /// `None` where there is no question: no browser asks, or the path is not for browsers.
    pub fn of(request: &ServiceRequest) -> Option<Crossing> {
        let origin = request.headers().get(ORIGIN)?;
        if !SERVED.iter().any(|path| request.path().starts_with(path)) {
            return None;
        }
        Some(Crossing { cors: request.app_data::<Data<Cors>>()?.clone(), origin: origin.clone() })
    }

    /// The answer to a browser that asks before it sends a request; `None` if this is no such question.
    pub fn preflight(&self, request: &ServiceRequest) -> Option<Result<HttpResponse>> {
        if *request.method() != Method::OPTIONS || !request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD) {
            return None;
        }
        if !self.cors.admits(&self.origin) {
            return Some(Err(
                Error::forbidden("pages of this origin may not call this server").hint("http.cors_origins lists those that may.")
            ));
        }
        let asked = request.headers().get(ACCESS_CONTROL_REQUEST_HEADERS).and_then(|names| names.to_str().ok());
        let names = ["Authorization"].into_iter().chain(asked).collect::<Vec<_>>().join(", ");
        let mut answer = HttpResponse::Ok();
        answer.insert_header((ACCESS_CONTROL_ALLOW_METHODS, METHODS));
        answer.insert_header((ACCESS_CONTROL_ALLOW_HEADERS, names));
        answer.insert_header((ACCESS_CONTROL_MAX_AGE, MAX_AGE));
        Some(Ok(answer.finish()))
    }

    /// Lets the page read an answer, if it may call.
    pub fn open(self, headers: &mut HeaderMap) {
        let listed = matches!(**self.cors, Cors::Listed(_));
        if listed {
            headers.append(VARY, HeaderValue::from_static("Origin"));
        }
        if self.cors.admits(&self.origin) {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, if listed { self.origin } else { ANY });
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, ANY);
        }
    }
}
