//! What happens around every request: it gets an id (`X-Request-Id`), is counted and timed, is asked where its page comes
//! from ([`super::cors`]), and a failure on our side is written to `error_logs`, behind the answer.

use std::time::{Duration, Instant};

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::middleware::Next;
use actix_web::web::Data;
use actix_web::{HttpMessage, HttpRequest, ResponseError};
use uuid::Uuid;

use super::cors::Crossing;
use super::guard::Noted;
use crate::error::{Code, Error};
use crate::system::{Analytics, Failure, Slow};
use crate::telemetry::Requests;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Leaves slow statements for `performance_logs`.
pub struct SlowLog {
    analytics: Analytics,
    threshold: Duration,
}

impl SlowLog {
    pub fn new(analytics: Analytics, threshold: Duration) -> SlowLog {
        SlowLog { analytics, threshold }
    }

    pub fn note(&self, tenant: Uuid, database: &'static str, operation: &str, took: Duration, statements: usize, request: Uuid) {
        if took >= self.threshold {
            self.analytics.slow(Slow {
                tenant: Some(tenant),
                database,
                operation: operation.to_owned(),
                duration: took,
                query_count: u32::try_from(statements).unwrap_or(u32::MAX),
                request_id: Some(request),
            });
        }
    }
}

/// The middleware.
pub async fn watch(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<impl MessageBody>, actix_web::Error> {
    let began = Instant::now();
    let id = Uuid::now_v7();
    request.extensions_mut().insert(Noted { id, tenant: None });
    let crossing = Crossing::of(&request);
    let mut answer = match crossing.as_ref().and_then(|crossing| crossing.preflight(&request)) {
        Some(answer) => request.into_response(answer.unwrap_or_else(|error| error.error_response())).map_into_left_body(),
        None => next.call(request).await?.map_into_right_body(),
    };
    if let Some(crossing) = crossing {
        crossing.open(answer.headers_mut());
    }
    let mut text = Uuid::encode_buffer();
    if let Ok(id) = HeaderValue::from_str(id.as_hyphenated().encode_lower(&mut text)) {
        answer.headers_mut().insert(REQUEST_ID, id);
    }
    let status = answer.status().as_u16();
    if let Some(requests) = answer.request().app_data::<Data<Requests>>() {
        requests.answered(status, began.elapsed());
    }
    if status >= 500 && is_ours(answer.response().error()) {
        log_failure(answer.request(), answer.response().error(), status, id);
    }
    Ok(answer)
}

/// Whether something is wrong here. A bound that was reached, or a server that stops, is not.
fn is_ours(error: Option<&actix_web::Error>) -> bool {
    let code = error.and_then(|error| error.as_error::<Error>()).map(Error::code);
    !matches!(code, Some(Code::QuotaExceeded | Code::Overloaded | Code::ShuttingDown))
}

fn log_failure(request: &HttpRequest, error: Option<&actix_web::Error>, status: u16, id: Uuid) {
    let ours = error.and_then(|error| error.as_error::<Error>());
    let message = ours.map_or_else(|| error.map(ToString::to_string).unwrap_or_default(), |error| error.message().to_owned());
    let operation = format!("{} {}", request.method(), request.match_pattern().unwrap_or_default());
    tracing::warn!(%id, status, operation, message, "a request failed on our side");
    if let Some(analytics) = request.app_data::<Data<Analytics>>() {
        analytics.failure(Failure {
            tenant: request.extensions().get::<Noted>().and_then(|noted| noted.tenant).map(|tenant| tenant.uuid()),
            code: ours.map_or("internal", |error| error.code().as_str()),
            status,
            operation,
            message,
            request_id: Some(id),
        });
    }
}
