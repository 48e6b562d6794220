//! Webhooks: the server itself delivers a queue's jobs, signed, again if need be, and to no address that is not public
//! unless the operator allows it.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, Mac};
use tenantry::clock::now_s;

use super::*;
use crate::support::shim::Shim;

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Posted {
    head: String,
    pub body: Vec<u8>,
}

impl Posted {
    pub fn header(&self, name: &str) -> &str {
        let line = self.head.lines().find(|line| line.split(':').next().is_some_and(|it| it.eq_ignore_ascii_case(name)));
        line.and_then(|line| line.split_once(':')).map_or("", |(_, value)| value.trim())
    }

    /// Which of the signatures is this secret's, from 0.
    fn signed_by(&self, secret: &str) -> Option<usize> {
        let key = BASE64.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
        let mut mac = Hmac::<sha2::Sha256>::new_from_slice(&key).unwrap();
        mac.update(format!("{}.{}.", self.header("webhook-id"), self.header("webhook-timestamp")).as_bytes());
        mac.update(&self.body);
        let expected = format!("v1,{}", BASE64.encode(mac.finalize().into_bytes()));
        self.header("webhook-signature").split(' ').position(|signature| signature == expected)
    }
}

/// A customer's server. It gives the answers it was told to, one after the other, and 204 when there are none left.
pub struct Target {
    pub url: String,
    posted: Arc<Mutex<Vec<Posted>>>,
    answers: Arc<Mutex<VecDeque<String>>>,
}

impl Target {
    pub fn start() -> Target {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let target = Target { url, posted: Arc::default(), answers: Arc::default() };
        let (posted, answers) = (target.posted.clone(), target.answers.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (posted, answers) = (posted.clone(), answers.clone());
                std::thread::spawn(move || serve(stream.unwrap(), &posted, &answers));
            }
        });
        target
    }

    pub fn answers(&self, answers: &[&str]) {
        self.answers.lock().unwrap().extend(answers.iter().map(|answer| (*answer).to_owned()));
    }

    pub fn posted(&self) -> Vec<Posted> {
        self.posted.lock().unwrap().clone()
    }

    #[track_caller]
    pub fn gets(&self, count: usize) -> Vec<Posted> {
        eventually("the deliveries come", || Some(self.posted()).filter(|posted| posted.len() >= count))
    }
}

fn serve(stream: TcpStream, posted: &Mutex<Vec<Posted>>, answers: &Mutex<VecDeque<String>>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut head = String::new();
    while reader.read_line(&mut head).is_ok_and(|read| read > 2) {}
    let mut request = Posted { head, body: Vec::new() };
    if request.head.is_empty() {
        return;
    }
    request.body = vec![0; request.header("content-length").parse().unwrap_or(0)];
    reader.read_exact(&mut request.body).unwrap();
    posted.lock().unwrap().push(request);
    let answer = answers.lock().unwrap().pop_front().unwrap_or_else(|| "204 No Content\r\n".to_owned());
    if answer == "nothing" {
        // Until the other side gives up.
        let _ = reader.read(&mut [0]);
        return;
    }
    let _ = (&stream).write_all(format!("HTTP/1.1 {answer}Content-Length: 0\r\nConnection: close\r\n\r\n").as_bytes());
}

pub fn allowing() -> Server {
    Server::with(|settings| {
        settings.set("queue.private_targets", true);
    })
}

#[track_caller]
fn set(tenant: &TenantClient, target: &Target) -> Value {
    tenant.put("/v1/queues/q/webhook", json!({ "url": target.url })).expect(200).json()
}

fn webhook(tenant: &TenantClient) -> Value {
    tenant.get("/v1/queues/q/webhook").expect(200).json()
}

#[track_caller]
fn ends(tenant: &TenantClient, id: &str, state: &str) -> Value {
    eventually("the job has come to its end", || {
        Some(tenant.get(&format!("/v1/jobs/{id}")).expect(200).json()).filter(|job| job["job"]["state"] == state)
    })
}

#[test]
fn a_job_is_posted_signed_and_done() {
    let (server, target) = (allowing(), Target::start());
    let tenant = server.tenant("webhook");
    // One that waits already is delivered too.
    let first = enqueue(&tenant, "q", json!({ "payload": { "z": 1, "a": [1.50] } }));
    let made = set(&tenant, &target);
    let secret = text(&made["secret"]).to_owned();
    assert_eq!((&made["circuit"], &made["failures"]), (&json!("closed"), &json!(0)));
    target.gets(1);
    let bytes = json!({ "payload": { "base64": "AP8=" }, "payload_type": "image/png" });
    let second = enqueue(&tenant, "q", bytes);
    let posted = target.gets(2);
    assert!(posted[0].head.starts_with("POST /hook HTTP/1.1\r\n"), "{}", posted[0].head);
    assert_eq!((posted[0].header("content-type"), posted[1].header("content-type")), ("application/json", "image/png"));
    assert_eq!((posted[0].body.as_slice(), posted[1].body.as_slice()), (&br#"{"a":[1.5],"z":1}"#[..], &[0, 255][..]));
    for (posted, id) in posted.iter().zip([&first, &second]) {
        assert_eq!(
            (posted.header("webhook-id"), posted.header("tenantry-queue"), posted.header("tenantry-attempt")),
            (id.as_str(), "q", "1")
        );
        assert!((posted.header("webhook-timestamp").parse::<i64>().unwrap() - now_s()).abs() < 120);
        assert_eq!(posted.signed_by(&secret), Some(0));
        ends(&tenant, id, "done");
    }
    let shown = webhook(&tenant);
    assert!(shown["delivered_at"].is_string() && shown.get("secret").is_none(), "{shown}");
    tenant.delete("/v1/queues/q/webhook").expect(204);
    tenant.get("/v1/queues/q/webhook").refused(404, "not_found");
    enqueue(&tenant, "q", json!({ "payload": 3 }));
    assert_eq!((claim(&tenant, "q", 1, 60).len(), target.posted().len()), (1, 2), "left to workers again");
}

#[test]
fn a_job_that_waited_for_another_queues_is_delivered_when_that_is_done() {
    let (mut server, target) = (allowing(), Target::start());
    let tenant = server.tenant("webhook");
    set(&tenant, &target);
    let first = enqueue(&tenant, "by-workers", json!({ "payload": 1 }));
    let second = enqueue(&tenant, "q", json!({ "payload": 2, "depends_on": [first] }));
    // Nobody tends to the tenant any more, and nothing in memory knows of it.
    server.restart();
    let job = claim(&tenant, "by-workers", 1, 60).remove(0);
    assert!(target.posted().is_empty());
    ack(&tenant, &job).expect(200);
    server.kill9();
    server.start_again();
    assert_eq!(target.gets(1)[0].header("webhook-id"), second);
}

#[test]
fn what_fails_is_tried_again_and_a_wait_that_is_asked_for_is_kept() {
    let (server, target) = (allowing(), Target::start());
    let tenant = server.tenant("webhook");
    set(&tenant, &target);
    target.answers(&["500 Oops\r\n", "302 Found\r\nLocation: http://127.0.0.1:1/\r\n", "200 OK\r\n"]);
    let job = json!({ "payload": 1, "backoff": { "kind": "fixed", "base_s": 0 } });
    let id = enqueue(&tenant, "q", job);
    let posted = target.gets(3);
    assert_eq!(posted.iter().map(|it| it.header("tenantry-attempt")).collect::<Vec<_>>(), ["1", "2", "3"]);
    let done = ends(&tenant, &id, "done");
    let errors: Vec<_> = done["attempts"].as_array().unwrap().iter().map(|it| text(&it["error"]).to_owned()).collect();
    assert_eq!(errors, ["the target answered 500", "the target answered 302"]);

    target.answers(&["503 Busy\r\nRetry-After: 3000\r\n", "429 Slow\r\nRetry-After: 999999999\r\n", "nothing", "400 No\r\n"]);
    let waits = |seconds: i64| {
        let id = enqueue(&tenant, "q", json!({ "payload": 2, "max_attempts": 2 }));
        let job = ends(&tenant, &id, "scheduled")["job"].clone();
        let at = |field: &str| tenantry::clock::parse_rfc3339(text(&job[field])).unwrap();
        assert_eq!(at("run_at") - at("since"), seconds * 1_000);
    };
    waits(3_000);
    waits(3_600);
    tenant.put("/v1/queues/q/webhook", json!({ "url": target.url, "timeout_s": 1 })).expect(200);
    let id = enqueue(&tenant, "q", json!({ "payload": 3, "max_attempts": 1 }));
    assert!(text(&ends(&tenant, &id, "dead")["attempts"][0]["error"]).contains("timeout"));
}

#[test]
fn a_target_that_is_down_is_left_alone_for_a_while_and_then_probed() {
    let shim = Shim::new();
    let server = Server::with(|settings| {
        settings.set("queue.private_targets", true);
        shim.under(settings);
    });
    let (tenant, target) = (server.tenant("webhook"), Target::start());
    set(&tenant, &target);
    target.answers(&["500 Oops\r\n"; 6]);
    let job = || json!({ "payload": 1, "backoff": { "kind": "fixed", "base_s": 0 } });
    let first = enqueue(&tenant, "q", job());
    let opened = eventually("the circuit opens", || Some(webhook(&tenant)).filter(|webhook| webhook["circuit"] == "open"));
    assert_eq!((&opened["failures"], &opened["error"]), (&json!(5), &json!("the target answered 500")));
    let others: Vec<_> = (0..3).map(|_| enqueue(&tenant, "q", job())).collect();
    let attempts = |id: &str| tenant.get(&format!("/v1/jobs/{id}")).expect(200).json()["job"]["attempt"].clone();
    // One probes, and fails: open again, for twice as long.
    shim.set_clock_ahead(31);
    target.gets(6);
    let again = eventually("the circuit opens again", || Some(webhook(&tenant)).filter(|webhook| webhook["failures"] == 6));
    assert_eq!(again["circuit"], "open");
    let tries: Vec<_> = [&first].into_iter().chain(&others).map(|id| attempts(id)).collect();
    assert_eq!(tries, [6, 0, 0, 0], "but for the one that probes no job spends a try");
    shim.set_clock_ahead(31 + 31);
    assert_eq!((webhook(&tenant)["circuit"].clone(), target.posted().len()), (json!("open"), 6));
    shim.set_clock_ahead(31 + 62);
    for id in [&first, &others[0], &others[1], &others[2]] {
        ends(&tenant, id, "done");
    }
    assert_eq!((webhook(&tenant)["circuit"].clone(), webhook(&tenant)["failures"].clone()), (json!("closed"), json!(0)));
}

#[test]
fn a_secret_is_shown_once_and_the_one_before_it_signs_for_a_while() {
    let (server, target) = (allowing(), Target::start());
    let tenant = server.tenant("webhook");
    let mine = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let made = tenant.put("/v1/queues/q/webhook", json!({ "url": target.url, "secret": mine })).expect(200).json();
    assert!(made.get("secret").is_none(), "whoever sent it has it: {made}");
    assert!(set(&tenant, &target).get("secret").is_none(), "the one there is stays");
    let elsewhere = tenant.put("/v1/queues/q/webhook", json!({ "url": format!("{}/elsewhere", target.url) })).expect(200).json();
    assert!(elsewhere["secret"].as_str().is_some_and(|made| made != mine), "another target learns nothing of the first: {elsewhere}");
    tenant.put("/v1/queues/q/webhook", json!({ "url": target.url, "secret": mine })).expect(200);
    let rotate = |overlap_s: i64| tenant.post("/v1/queues/q/webhook/rotate", json!({ "overlap_s": overlap_s })).expect(200).json();
    let rotated = rotate(3_600);
    let fresh = text(&rotated["secret"]);
    assert!(rotated["old_secret_until"].is_string() && fresh != mine);
    enqueue(&tenant, "q", json!({ "payload": 1 }));
    let posted = target.gets(1).remove(0);
    assert_eq!((posted.signed_by(fresh), posted.signed_by(mine)), (Some(0), Some(1)));
    let rotated = rotate(0);
    enqueue(&tenant, "q", json!({ "payload": 2 }));
    let posted = target.gets(2).remove(1);
    assert_eq!((posted.signed_by(text(&rotated["secret"])), posted.signed_by(fresh)), (Some(0), None));
    tenant.put("/v1/queues/q/webhook", json!({ "url": target.url, "secret": "whsec_c2hvcnQ=" })).refused(400, "bad_request");
}

#[test]
fn nothing_that_is_not_public_is_asked_unless_the_operator_allows_it() {
    let (server, target) = (Server::shared(), Target::start());
    let tenant = server.tenant("webhook");
    let port = target.url.trim_end_matches("/hook").rsplit(':').next().unwrap().to_owned();
    for url in [
        target.url.clone(),
        target.url.replace("http:", "https:"),
        format!("https://[::1]:{port}/"),
        format!("https://[::ffff:127.0.0.1]:{port}/"),
        "https://169.254.169.254/latest/meta-data".to_owned(),
        "https://localhost/".to_owned(),
        "https://user@example.com/".to_owned(),
        "https://example.com:22/".to_owned(),
        "file:///etc/passwd".to_owned(),
    ] {
        tenant.put("/v1/queues/q/webhook", json!({ "url": url })).refused(400, "bad_request");
    }
    // A name that only the resolver reads as this machine.
    tenant.put("/v1/queues/q/webhook", json!({ "url": format!("https://2130706433:{port}/") })).expect(200);
    let id = enqueue(&tenant, "q", json!({ "payload": 1, "max_attempts": 1 }));
    assert!(text(&ends(&tenant, &id, "dead")["attempts"][0]["error"]).contains("not public"));
    assert!(target.posted().is_empty());
    let consumer = server.scoped(&tenant, &["queue:produce"]);
    consumer.put("/v1/queues/q/webhook", json!({ "url": "https://example.com/" })).refused(403, "forbidden");
}

#[test]
fn what_was_enqueued_is_delivered_also_after_a_kill_and_by_nobody_asking() {
    let (shim, target) = (Shim::new(), Target::start());
    let mut server = Server::with(|settings| {
        settings.set("queue.private_targets", true);
        shim.under(settings);
    });
    let tenants: Vec<_> = (0..3).map(|_| server.tenant("webhook")).collect();
    let mut ids = HashSet::new();
    for round in 0..4 {
        // The target hangs, or answers at once: the server dies with deliveries on their way, or behind them.
        target.answers(if round % 2 == 0 { &["nothing"; 6] } else { &[] });
        for tenant in &tenants {
            tenant.put("/v1/queues/q/webhook", json!({ "url": target.url, "timeout_s": 1 })).expect(200);
            let jobs = json!({ "jobs": [{ "payload": 1 }, { "payload": 2, "delay_s": 1 }, { "payload": 3 }] });
            let made = tenant.post("/v1/queues/q/jobs", jobs).expect(200).json();
            ids.extend(made["results"].as_array().unwrap().iter().map(|result| text(&result["job"]["id"]).to_owned()));
        }
        server.kill9();
        server.start_again();
    }
    // The leases of those who died end.
    shim.set_clock_ahead(60);
    let arrived = || target.posted().iter().map(|posted| posted.header("webhook-id").to_owned()).collect::<HashSet<_>>();
    eventually("everything is delivered", || (arrived() == ids).then_some(()));
}

#[test]
fn what_the_server_had_in_its_own_hands_at_a_kill_is_begun_again_at_once_and_what_a_worker_has_stays_his() {
    let (mut server, target) = (allowing(), Target::start());
    let tenant = server.tenant("webhook");
    enqueue(&tenant, "q", json!({ "payload": "a worker's" }));
    let worker = next(&tenant, "q", 600);
    let pushed = enqueue(&tenant, "q", json!({ "payload": "the server's" }));
    target.answers(&["nothing"]);
    // Its lease is longer than anybody waits here.
    tenant.put("/v1/queues/q/webhook", json!({ "url": target.url, "timeout_s": 60 })).expect(200);
    target.gets(1);
    server.kill9();
    server.start_again();
    let tenant = server.known(&tenant);
    let job = ends(&tenant, &pushed, "done");
    assert_eq!(job["attempts"][0]["outcome"], "lease_ended");
    ack(&tenant, &worker).expect(200);
    assert!(target.posted().iter().all(|posted| posted.header("webhook-id") == pushed));
}

#[test]
fn tenants_whose_deliveries_hang_do_not_keep_the_schedules_of_others_waiting() {
    let target = Target::start();
    let server = Server::with(|settings| {
        settings.set("queue.private_targets", true).set("queue.deliveries", 1);
    });
    // As many as are tended to at once; the one delivery there may be takes a minute.
    let stuck = 256 + 64 + 1;
    target.answers(&vec!["nothing"; stuck]);
    std::thread::scope(|scope| {
        for part in 0..8 {
            let (server, target) = (&server, &target);
            scope.spawn(move || {
                for _ in (part..stuck).step_by(8) {
                    let tenant = server.tenant("stuck");
                    tenant.put("/v1/queues/q/webhook", json!({ "url": target.url, "timeout_s": 60 })).expect(200);
                    enqueue(&tenant, "q", json!({ "payload": 1 }));
                }
            });
        }
    });
    let other = server.tenant("other");
    other.put("/v1/queues/q/schedules/often", json!({ "cron": "* * * * * *", "job": { "payload": 1 } })).expect(200);
    let ready = || other.get("/v1/queues/q").expect(200).json()["jobs"]["ready"].as_i64();
    eventually("the schedule fires, again and again", || ready().filter(|ready| *ready >= 3));
    assert_eq!(target.posted().len(), 1);
}
