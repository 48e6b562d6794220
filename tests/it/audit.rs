//! Every admin action is in the audit log, and a log that somebody edited, thinned or cut does not verify.

use crate::support::*;

fn entries(server: &Server) -> Vec<Value> {
    let mut all = Vec::new();
    let mut after = String::new();
    loop {
        let page = server.admin().get(&format!("/admin/v1/audit?limit=100{after}")).expect(200).json();
        all.extend(page["entries"].as_array().unwrap().clone());
        match &page["next_cursor"] {
            Value::Null => return all,
            Value::String(next) => after = format!("&after={}", segment(next)),
            next => after = format!("&after={next}"),
        }
    }
}

fn verified(server: &Server) -> Value {
    server.admin().get("/admin/v1/audit/verify").expect(200).json()
}

/// A server with some history, stopped.
fn with_history() -> Server {
    let mut server = Server::start();
    for _ in 0..3 {
        let tenant = server.tenant("audited");
        server.admin().patch(&format!("/admin/v1/tenants/{}", tenant.id), json!({ "name": "Changed" })).expect(200);
    }
    let report = verified(&server);
    assert_eq!((&report["ok"], &report["problem"]), (&json!(true), &json!(null)), "{report}");
    assert!(report["entries"].as_u64().unwrap() >= 6, "{report}");
    server.stop();
    server
}

/// `mark.db`, without the triggers that keep honest people from changing the log.
fn mark(server: &Server) -> rusqlite::Connection {
    let file = rusqlite::Connection::open(server.dir().join("system/mark.db")).unwrap();
    let triggers: Vec<String> = {
        let mut names = file.prepare("SELECT name FROM sqlite_schema WHERE type = 'trigger'").unwrap();
        names.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    };
    for trigger in triggers {
        file.execute_batch(&format!("DROP TRIGGER {trigger}")).unwrap();
    }
    file
}

/// Starts it after somebody tampered: the server runs, `audit verify` fails and names `seq`.
fn assert_shows(mut server: Server, seq: i64) {
    server.start_again();
    let report = verified(&server);
    assert_eq!(report["ok"], false, "{report}");
    assert_eq!(report["first_bad_seq"], seq, "{report}");
    assert!(report["problem"].as_str().is_some_and(|what| !what.is_empty()), "{report}");
    let output = server.cli(["audit", "verify"]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains(&seq.to_string()), "{}", said(&output));
}

#[test]
fn every_admin_action_is_there_with_who_what_and_how_it_ended() {
    let server = Server::start();
    let tenant = server.tenant("acme");
    let path = format!("/admin/v1/tenants/{}", tenant.id);
    server.admin().patch(&path, json!({ "state": "suspended" })).expect(200);
    server.admin().patch(&path, json!({ "state": "active" })).expect(200);
    let token = server
        .admin()
        .post(&format!("{path}/tokens"), json!({ "role": "r", "sub": "s", "scopes": ["cache"], "expires_in_s": 60 }))
        .expect(201)
        .json();
    server.admin().delete(&format!("{path}/tokens/{}", token["jti"].as_str().unwrap())).succeeds();
    server.admin().delete(&path).expect(200);
    server.admin().post(&format!("{path}/undelete"), json!({})).expect(200);
    server.admin().delete(&path).expect(200);
    server.admin().post(&format!("{path}/purge"), json!({})).succeeds();
    let refused = server.admin().post("/admin/v1/tenants", json!({ "slug": "acme!", "name": "Refused" }));
    let refused_id = refused.header("x-request-id").expect("every answer has a request id").to_owned();
    refused.expect(400);

    let all = entries(&server);
    let of_tenant: Vec<_> = all.iter().filter(|entry| entry.to_string().contains(&tenant.id)).collect();
    let mut actions: Vec<_> = of_tenant.iter().map(|entry| (entry["seq"].as_i64().unwrap(), entry["action"].as_str().unwrap())).collect();
    actions.sort_unstable();
    let actions: Vec<_> = actions.into_iter().map(|(_, action)| action).collect();
    let (tenant_actions, token_actions): (Vec<_>, Vec<_>) = actions.into_iter().partition(|action| action.starts_with("tenant."));
    let lived = ["create", "suspend", "resume", "delete", "undelete", "delete", "purge"].map(|did| format!("tenant.{did}"));
    assert_eq!(tenant_actions, lived);
    assert_eq!(token_actions, ["token.create", "token.revoke"]);
    for entry in &of_tenant {
        assert!(entry["actor"].is_string() && entry["action"].is_string() && entry["target"].is_string(), "{entry}");
        assert!(uuid::Uuid::parse_str(entry["request_id"].as_str().unwrap()).is_ok(), "{entry}");
        assert!(tenantry::clock::parse_rfc3339(entry["at"].as_str().unwrap()).is_some(), "{entry}");
        assert_eq!(entry["outcome"], "ok", "{entry}");
    }
    let refused = all.iter().find(|entry| entry["request_id"] == refused_id.as_str()).expect("a refused action is there too");
    assert_ne!(refused["outcome"], "ok", "{refused}");
    let seqs: Vec<_> = all.iter().map(|entry| entry["seq"].as_i64().unwrap()).collect();
    let mut sorted = seqs.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, (1..=seqs.len() as i64).collect::<Vec<_>>(), "no gap, no repeat");
    // No secret stands in the log.
    let text = format!("{all:?}");
    assert!(!text.contains(&tenant.token) && !text.contains(ADMIN_KEY) && !text.contains(token["token"].as_str().unwrap()));
}

#[test]
fn restarting_and_killing_raise_no_false_alarm() {
    let mut server = with_history();
    server.start_again();
    assert_eq!(verified(&server)["ok"], true);
    for _ in 0..5 {
        std::thread::scope(|scope| {
            let admin = server.admin();
            scope.spawn(move || {
                let make = || admin.call("POST", "/admin/v1/tenants").json(&json!({ "slug": unique("k"), "name": "K" })).try_send();
                while make().is_ok() {}
            });
            // Any moment will do.
            std::thread::sleep(std::time::Duration::from_millis(120));
            server.kill9();
        });
        server.start_again();
        let report = verified(&server);
        assert_eq!(report["ok"], true, "{report}");
    }
    // Each tenant that is there has its entry, kill or no kill.
    let made =
        entries(&server).iter().filter(|entry| entry["action"].as_str().unwrap().contains("create") && entry["outcome"] == "ok").count();
    let mark = entries(&server).len();
    assert!(mark > 0);
    let page = server.admin().get("/admin/v1/tenants?limit=1000").expect(200).json();
    let there = page["tenants"].as_array().unwrap().len();
    if page["next_cursor"].is_null() && made > 0 {
        assert_eq!(made, there, "provisioned and audited");
    }
    let output = server.cli(["audit", "verify"]);
    assert!(output.status.success(), "{}", said(&output));
}

#[test]
fn an_edited_row_shows() {
    let server = with_history();
    assert_eq!(mark(&server).execute("UPDATE mark_audit_logs SET actor = 'somebody else' WHERE seq = 3", []).unwrap(), 1);
    assert_shows(server, 3);
}

#[test]
fn an_edited_detail_or_time_shows() {
    let server = with_history();
    mark(&server).execute("UPDATE mark_audit_logs SET at = at + 1 WHERE seq = 2", []).unwrap();
    assert_shows(server, 2);
    let server = with_history();
    mark(&server).execute("UPDATE mark_audit_logs SET details = '{}' || ' ' WHERE seq = 4", []).unwrap();
    assert_shows(server, 4);
}

#[test]
fn a_removed_row_shows() {
    let server = with_history();
    mark(&server).execute("DELETE FROM mark_audit_logs WHERE seq = 3", []).unwrap();
    let mut server = server;
    server.start_again();
    let report = verified(&server);
    assert_eq!(report["ok"], false, "{report}");
    assert!([3, 4].contains(&report["first_bad_seq"].as_i64().unwrap()), "{report}");
}

#[test]
fn a_removed_row_whose_followers_were_renumbered_shows() {
    let server = with_history();
    mark(&server)
        .execute_batch("DELETE FROM mark_audit_logs WHERE seq = 3; UPDATE mark_audit_logs SET seq = -(seq - 1) WHERE seq > 3; UPDATE mark_audit_logs SET seq = -seq WHERE seq < 0;")
        .unwrap();
    assert_shows(server, 3);
}

#[test]
fn a_tail_cut_off_shows_at_once_and_after_more_was_written() {
    let server = with_history();
    mark(&server).execute("DELETE FROM mark_audit_logs WHERE seq > 4", []).unwrap();
    let mut server = server;
    server.start_again();
    let report = verified(&server);
    assert_eq!(report["ok"], false, "{report}");
    // New entries do not paper over it.
    server.tenant("later");
    server.restart();
    let report = verified(&server);
    assert_eq!(report["ok"], false, "{report}");
}

#[test]
fn an_emptied_log_shows() {
    let server = with_history();
    mark(&server).execute("DELETE FROM mark_audit_logs", []).unwrap();
    let mut server = server;
    server.start_again();
    let report = verified(&server);
    assert_eq!(report["ok"], false, "{report}");
}
