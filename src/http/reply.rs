//! Answers that every route shares: errors as JSON, unknown paths, wrong methods.

use actix_web::http::StatusCode;
use actix_web::http::header::{ALLOW, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use actix_web::{HttpRequest, HttpResponse, ResponseError};

use crate::error::{Code, Error, Result};

impl ResponseError for Error {
    fn status_code(&self) -> StatusCode {
        StatusCode::from_u16(self.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    fn error_response(&self) -> HttpResponse {
        let mut answer = HttpResponse::build(self.status_code());
        if let Some(wait) = self.wait() {
            // Whole seconds, rounded up.
            answer.insert_header((RETRY_AFTER, (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1)));
        }
        if self.is_spoken() {
            // Where PostgREST's clients find the code of an answer to HEAD, which has no body.
            answer.insert_header((HeaderName::from_static("proxy-status"), format!("PostgREST; error={}", self.body().code)));
        }
        if self.code() == Code::Unauthenticated {
            answer.insert_header((WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")));
            // Whether the body had been read by then would show in this header otherwise, and with it how long
            // the refusal took to find.
            answer.force_close();
        }
        answer.json(self.body())
    }
}

/// Below it errors are PostgREST's.
const ROWS: &str = "/rest/v1/";

/// 404 for a path that no route has.
pub async fn no_such_path(request: HttpRequest) -> Result<HttpResponse> {
    let path: String = request.path().chars().take(200).collect();
    let error = Error::not_found(format!("there is nothing at {path}")).hint("GET /openapi.json lists every path.");
    Err(if path.starts_with(ROWS) { error.spoken("PGRST125", 404) } else { error })
}

/// 405 for a path that has other methods. `methods` ends with a comma.
pub async fn method_not_allowed(request: HttpRequest, methods: &'static str) -> HttpResponse {
    let methods = methods.trim_end_matches(", ");
    let error = Error::new(Code::MethodNotAllowed, "this path does not take this method").hint(format!("It takes {methods}."));
    let error = match request.path().strip_prefix(ROWS) {
        Some(function) if function.starts_with("rpc/") => error.spoken("PGRST101", 405),
        Some(_) => error.spoken("PGRST117", 405),
        None => error,
    };
    let mut answer = error.error_response();
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static(methods));
    answer
}
