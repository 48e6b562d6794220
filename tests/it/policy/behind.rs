//! Writing behind the cache where policies hold roles back, also if they came after the write was sent.

use super::*;
use crate::support::eventually;
use crate::support::shim::Shim;

#[test]
fn what_a_role_sent_before_policies_held_it_back_is_not_written_and_not_its_to_bring_back() {
    let (shim, folder) = (Shim::new(), tempfile::tempdir().unwrap());
    std::fs::write(folder.path().join("0001_app.up.sql"), MIGRATION).unwrap();
    let mut server = Server::with(|c| {
        c.set("tenants.migrations_dir", folder.path().display());
        shim.under(c);
    });
    let tenant = server.tenant("policy");
    let body = json!({ "role": "authenticated", "sub": "ann", "scopes": ["cache", "sql:write", "queue:consume"], "expires_in_s": 600 });
    let token = server.admin().post(&format!("/admin/v1/tenants/{}/tokens", tenant.id), body).expect(201).json();
    let held = tenant.with_token(token["token"].as_str().unwrap());
    for (sender, login) in [(&held, "held"), (&tenant, "free")] {
        let statements = json!([{ "sql": "INSERT INTO people (login, name) VALUES (?1, 'x')", "params": [login] }]);
        let body = json!({ "statements": statements, "entry": { "text": login }, "delay_s": 3_600 });
        sender.put(&format!("/v1/cache/{login}/behind"), body).expect(202);
    }
    server.stop();
    std::fs::create_dir(folder.path().join("policies")).unwrap();
    std::fs::write(folder.path().join("policies/app.sql"), POLICIES).unwrap();
    server.start_again();
    let queue = "/v1/queues/_behind";
    held.post(&format!("{queue}/redrive"), json!({})).refused(403, "forbidden");
    held.post(&format!("{queue}/purge"), json!({ "state": "dead" })).refused(403, "forbidden");
    shim.set_clock_ahead(3_700);
    let dead = eventually("it is dead", || {
        tenant.get(&format!("{queue}/jobs?state=dead")).expect(200).json()["jobs"].as_array().unwrap().first().cloned()
    });
    assert!(dead["error"].as_str().unwrap().contains("policies"), "{dead}");
    eventually("the other is written", || {
        (tenant.rows("SELECT login FROM people WHERE login IN ('held', 'free')", json!([])) == json!([["free"]])).then_some(())
    });
    tenant.get("/v1/cache/held").expect(404);
    assert_eq!(tenant.get("/v1/cache/free").expect(200).text(), "free");
}
