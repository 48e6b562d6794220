//! `/v1/queues/{queue}/webhook`: where the server itself delivers a queue's jobs. A secret that was made here is shown in
//! the answer that made it, and never again.

use actix_web::HttpResponse;
use actix_web::web::{Data, Path};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::auth::scope::Scope;
use crate::clock::rfc3339;
use crate::error::Result;
use crate::http::extract::Json;
use crate::http::guard::Caller;
use crate::queue::{NewWebhook, Post, Queue, QueueName, Secret, Waiters, Webhook};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PutBody {
    url: String,
    secret: Option<String>,
    timeout_s: Option<i64>,
    concurrency: Option<i64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RotateBody {
    overlap_s: Option<i64>,
}

/// What it has not is null.
#[derive(Serialize)]
struct WebhookReply {
    queue: String,
    url: String,
    timeout_s: i64,
    concurrency: i64,
    circuit: &'static str,
    failures: i64,
    open_until: Option<String>,
    delivered_at: Option<String>,
    failed_at: Option<String>,
    error: Option<String>,
    old_secret_until: Option<String>,
    created_at: String,
    updated_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<String>,
}

/// `PUT`: 200 with the webhook, and with its secret if that was made now.
pub async fn put(call: Caller, queue: Path<String>, body: Json<PutBody>, post: Data<Post>, waiters: Data<Waiters>) -> Result<HttpResponse> {
    call.claims.require(Scope::QueueConsume)?;
    let PutBody { url, secret, timeout_s, concurrency } = body.0;
    let new = NewWebhook::new(&post, url, secret.as_deref(), timeout_s, concurrency)?;
    let (queue, lease) = (QueueName::parse_open(&queue)?, call.lease().await?);
    let engine = Queue::new(lease.queue(), &waiters);
    let (webhook, secret) = changing(&call, "webhook.set", &queue, engine.set_webhook(&queue, new)).await?;
    Ok(answer(webhook, secret))
}

/// `POST …/rotate`: 200 with the new secret; for a while the one before signs too.
pub async fn rotate(call: Caller, queue: Path<String>, body: Json<RotateBody>, waiters: Data<Waiters>) -> Result<HttpResponse> {
    call.claims.require(Scope::QueueConsume)?;
    let (queue, lease) = (QueueName::parse_open(&queue)?, call.lease().await?);
    let engine = Queue::new(lease.queue(), &waiters);
    let (webhook, secret) = changing(&call, "webhook.rotate", &queue, engine.rotate_webhook(&queue, body.0.overlap_s)).await?;
    Ok(answer(webhook, Some(secret)))
}

/// `GET`.
pub async fn get(call: Caller, queue: Path<String>, waiters: Data<Waiters>) -> Result<HttpResponse> {
    call.claims.require(Scope::QueueConsume)?;
    Ok(answer(Queue::new(call.lease().await?.queue(), &waiters).webhook(&QueueName::parse_open(&queue)?).await?, None))
}

/// `DELETE`: 204; the jobs are left to workers.
pub async fn delete(call: Caller, queue: Path<String>, waiters: Data<Waiters>) -> Result<HttpResponse> {
    call.claims.require(Scope::QueueConsume)?;
    let (queue, lease) = (QueueName::parse_open(&queue)?, call.lease().await?);
    changing(&call, "webhook.delete", &queue, Queue::new(lease.queue(), &waiters).delete_webhook(&queue)).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// [`Caller::changing`], with no details: a URL may hold a secret.
async fn changing<T>(call: &Caller, action: &'static str, queue: &QueueName, change: impl Future<Output = Result<T>>) -> Result<T> {
    call.changing(action, queue.as_str().to_owned(), json!({}), change).await
}

fn answer(webhook: Webhook, secret: Option<Secret>) -> HttpResponse {
    HttpResponse::Ok().json(WebhookReply {
        queue: webhook.queue,
        url: webhook.url,
        timeout_s: webhook.timeout_ms / 1_000,
        concurrency: webhook.concurrency,
        circuit: webhook.circuit.as_str(),
        failures: webhook.failures,
        open_until: webhook.open_until.map(rfc3339),
        delivered_at: webhook.delivered_at.map(rfc3339),
        failed_at: webhook.failed_at.map(rfc3339),
        error: webhook.error,
        old_secret_until: webhook.old_secret_until.map(rfc3339),
        created_at: rfc3339(webhook.created_at),
        updated_at: rfc3339(webhook.updated_at),
        secret: secret.map(|secret| secret.text()),
    })
}
