//! A tenant of whom one file fails: what is due in the other is done in its time, and the failing one is tried ever more seldom.

use super::webhook::{Target, allowing};
use super::*;
use crate::support::shim::Shim;
use tenantry::clock::{now_ms, parse_rfc3339};

/// When the server means to look into the tenant again, though nobody asks.
fn moment(server: &Server, tenant: &TenantClient) -> Option<i64> {
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
    let app = rusqlite::Connection::open_with_flags(server.dir().join("system/app.db"), flags).unwrap();
    app.busy_timeout(std::time::Duration::from_secs(5)).unwrap();
    app.query_row("SELECT at FROM wakeups WHERE tenant_id = ?1", [&tenant.id], |row| row.get(0)).ok()
}

/// Puts garbage in the place of one of the tenant's files.
fn harm(server: &mut Server, tenant: &TenantClient, role: &str) {
    server.stop();
    std::fs::write(server.file(&tenant.id, role), vec![0x42; 64 << 10]).unwrap();
    server.start_again();
}

#[test]
fn a_delivery_is_tried_again_in_its_time_though_the_outbox_cannot_be_relayed() {
    let (mut server, target) = (allowing(), Target::start());
    let tenant = server.tenant("webhook");
    tenant.put("/v1/queues/q/webhook", json!({ "url": target.url })).expect(200);
    harm(&mut server, &tenant, "database");
    target.answers(&["503 Service Unavailable\r\nRetry-After: 8\r\n"]);
    let id = enqueue(&tenant, "q", json!({ "payload": 1 }));
    let job = || tenant.get(&format!("/v1/jobs/{id}")).expect(200).json()["job"].clone();
    let again = eventually("it is put off", || Some(job()).filter(|job| job["state"] == "scheduled"));
    let run_at = parse_rfc3339(text(&again["run_at"])).unwrap();
    eventually("it is left with the moment of its next delivery", || (moment(&server, &tenant) == Some(run_at)).then_some(()));
    target.gets(2);
    eventually("it is done", || (job()["state"] == "done").then_some(()));
}

#[test]
fn a_tenant_whose_file_is_damaged_is_tried_ever_more_seldom() {
    let shim = Shim::new();
    let mut server = Server::with(|settings| shim.under(settings));
    let tenant = server.tenant("damaged");
    let schedule = json!({ "cron": "0 * * * *", "job": { "payload": 1 } });
    tenant.put("/v1/queues/q/schedules/hourly", schedule).expect(200);
    let due = moment(&server, &tenant).expect("the schedule's next run");
    harm(&mut server, &tenant, "queue");
    // The clock is past what is due, and then past each moment that is left for another attempt.
    let mut waits = Vec::new();
    let mut at = due;
    for _ in 0..4 {
        shim.set_clock_ahead((at - now_ms()) / 1_000 + 2);
        let next = eventually("it is put off", || moment(&server, &tenant).filter(|next| *next > at));
        waits.push((next - at) / 1_000);
        at = next;
    }
    // Each counts from the attempt, which came a little after its moment, and not so late that the next wait could be meant.
    assert!(waits.iter().zip([15, 30, 60, 120]).all(|(wait, least)| (least..2 * least).contains(wait)), "{waits:?}");
}
