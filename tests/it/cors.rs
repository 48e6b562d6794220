//! Pages of other origins: what a browser is told, before a request and with its answer.

use crate::support::{Answer, Client, Server, json};

const PAGE: &str = "https://app.example.com";

fn ask_before(client: &Client, path: &str, origin: &str) -> Answer {
    let call = client.call("OPTIONS", path).header("Origin", origin).header("Access-Control-Request-Method", "PATCH");
    call.header("Access-Control-Request-Headers", "apikey,prefer").send()
}

#[test]
fn by_default_any_page_may_call_what_tokens_serve() {
    let server = Server::shared();
    let tenant = server.tenant("cors");
    tenant.script("CREATE TABLE t (id INTEGER PRIMARY KEY)");
    for path in ["/rest/v1/t", "/rest/v1/rpc/f", "/rest/v1/", "/v1/sql", "/v1/cache/k", "/v1/queues/q/jobs", "/v2/pipeline", "/v3"] {
        let answer = ask_before(&server.anyone(), path, PAGE).expect(200);
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"), "{path}");
        assert_eq!(answer.header("access-control-allow-methods"), Some("GET, POST, PATCH, PUT, DELETE, OPTIONS, HEAD"));
        assert_eq!(answer.header("access-control-allow-headers"), Some("Authorization, apikey,prefer"));
        assert_eq!(answer.header("access-control-max-age"), Some("86400"));
        assert!(answer.body.is_empty() && answer.header("access-control-allow-credentials").is_none());
    }
    let read = tenant.call("GET", "/rest/v1/t").header("Origin", PAGE).send().expect(200);
    assert_eq!((read.header("access-control-allow-origin"), read.header("access-control-expose-headers")), (Some("*"), Some("*")));
    // A page reads why it was refused, too.
    let refused = server.anyone().call("GET", "/rest/v1/t").header("Origin", PAGE).send().expect(401);
    assert_eq!(refused.header("access-control-allow-origin"), Some("*"));
    assert_eq!(tenant.get("/rest/v1/t").expect(200).header("access-control-allow-origin"), None);
}

#[test]
fn operators_paths_are_not_for_pages() {
    let server = Server::shared();
    for path in ["/admin/v1/tenants", "/metrics", "/healthz"] {
        assert_eq!(ask_before(&server.anyone(), path, PAGE).expect(405).header("access-control-allow-origin"), None, "{path}");
    }
    let listed = server.admin().call("GET", "/admin/v1/tenants").header("Origin", PAGE).send().expect(200);
    assert_eq!(listed.header("access-control-allow-origin"), None);
}

#[test]
fn only_pages_of_listed_origins_may_call() {
    let server = Server::with(|with| {
        with.set("http.cors_origins", format!("['{PAGE}', 'http://localhost:3000']"));
    });
    let tenant = server.tenant("listed");
    assert_eq!(ask_before(&tenant, "/v1/sql", PAGE).expect(200).header("access-control-allow-origin"), Some(PAGE));
    let refused = ask_before(&tenant, "/v1/sql", "https://evil.example.com");
    assert_eq!(refused.header("access-control-allow-origin"), None);
    refused.refused(403, "forbidden");
    let asked = |origin: &str| {
        let body = json!({ "statements": [{ "sql": "SELECT 1" }] });
        tenant.call("POST", "/v1/sql").header("Origin", origin).json(&body).send().expect(200)
    };
    let own = asked("http://localhost:3000");
    assert_eq!((own.header("access-control-allow-origin"), own.header("vary")), (Some("http://localhost:3000"), Some("Origin")));
    for other in ["https://evil.example.com", "null", "http://localhost:30000"] {
        let answer = asked(other);
        assert_eq!((answer.header("access-control-allow-origin"), answer.header("vary")), (None, Some("Origin")), "{other}");
    }
}

#[test]
fn a_plan_may_list_the_pages_of_its_own_tenants() {
    let server = Server::with(|with| {
        with.set("http.cors_origins", "['https://everybody.example.com']");
        with.set("plans.branded.cors_origins", format!("['{PAGE}']"));
    });
    let (branded, plain) = (server.tenant_on("branded", "branded"), server.tenant("plain"));
    let asked = |tenant: &Client, origin: &str| {
        tenant.call("POST", "/v1/sql").header("Origin", origin).json(&json!({ "statements": [{ "sql": "SELECT 1" }] })).send()
    };
    // Asked before, nobody knows for whom.
    for page in [PAGE, "https://everybody.example.com"] {
        assert_eq!(ask_before(&server.anyone(), "/v1/sql", page).expect(200).header("access-control-allow-origin"), Some(page));
    }
    ask_before(&server.anyone(), "/v1/sql", "https://evil.example.com").refused(403, "forbidden");
    assert_eq!(asked(&branded, PAGE).expect(200).header("access-control-allow-origin"), Some(PAGE));
    let refused = asked(&branded, "https://everybody.example.com");
    assert_eq!(refused.header("access-control-allow-origin"), Some("https://everybody.example.com"));
    refused.refused(403, "forbidden");
    // Who is no page is not asked where it comes from.
    branded.sql("SELECT 1", json!([])).expect(200);
    asked(&plain, "https://everybody.example.com").expect(200);
}
