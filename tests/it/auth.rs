//! Tokens, seen from outside: whose are taken, and that every other one is refused alike, whatever is wrong
//! with it. A refused token here differs in one thing from one that is taken.

mod tokens;

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;

use crate::support::*;
use tokens::*;

#[test]
fn tokens_of_each_kind_of_key_are_taken() {
    let tenant = world().server.tenant("kinds");
    for token in [good(&tenant).by("r"), good(&tenant).by("e"), good(&tenant).by("d"), good(&tenant).by("hs")] {
        let rows = tenant.with_token(&token.sign()).rows("SELECT 7", json!([]));
        assert_eq!(rows, json!([[7]]));
    }
    let pointed = good(&tenant).by("pointed").without("tenant_id").with("app_metadata", json!({ "tenant_id": tenant.id }));
    assert_eq!(tenant.with_token(&pointed.sign()).rows("SELECT 7", json!([])), json!([[7]]));
}

#[test]
fn every_wrong_token_is_answered_alike() {
    let tenant = world().server.tenant("wrong");
    let upper = tenant.id.to_uppercase();
    let other = "019391f4-8a2b-7c3d-9e4f-5a6b7c8d9e0f";
    let payload = good(&tenant).payload();
    let aud = |value| good(&tenant).with("aud", value);
    let exp = |text: &str| good(&tenant).spelled("exp", text);
    let nbf = |text: &str| good(&tenant).spelled("nbf", text);
    let id = |value| good(&tenant).with("tenant_id", value);
    let renamed = |name: &str| good(&tenant).text(payload.replace("\"tenant_id\"", &format!("\"{name}\"")));
    let kid = |kid: &str| good(&tenant).header("kid", json!(kid));

    let mut wrong: Vec<(String, String)> = Vec::new();
    let mut add = |what: &str, token: String| wrong.push((what.to_owned(), token));
    for alg in ["none", "None", "NONE", "nOnE"] {
        let unsigned = good(&tenant).header("alg", json!(alg)).message();
        add(alg, format!("{unsigned}."));
        add(alg, format!("{unsigned}.AA"));
    }
    add("the role that no policy holds back", good(&tenant).with("role", json!("service")).sign());
    for secret in [RSA_PUBLIC.as_bytes(), RSA_PUBLIC.trim_end().as_bytes()] {
        add("a public key as a secret", good(&tenant).header("kid", json!("r")).hs256(secret));
    }
    for path in ["../../../../dev/null", "r' OR '1'='1", "/etc/passwd", "", "R"] {
        add("kid", kid(path).sign());
    }
    add("an empty secret", kid("../../dev/null").hs256(b""));
    add("crit", good(&tenant).header("crit", json!(["exp"])).sign());
    add("no exp", good(&tenant).without("exp").sign());
    for text in ["\"4102444800\"", "1e400", "-1", "9223372036854775807", "null", "[4102444800]"] {
        add("exp", exp(text).sign());
    }
    add("expired", good(&tenant).with("exp", json!(now() - 6)).sign());
    add("nbf to come", good(&tenant).with("nbf", json!(now() + 60)).sign());
    for text in ["\"0\"", "null", "1e400"] {
        add("nbf", nbf(text).sign());
    }
    add("no aud", good(&tenant).without("aud").sign());
    for value in [json!("API"), json!(["other"]), json!([]), json!(null)] {
        add("aud", aud(value).sign());
    }
    add("no iss", good(&tenant).without("iss").sign());
    for name in ["https://idp.example", "tenantry", "hs", "nobody"] {
        add("iss", good(&tenant).with("iss", json!(name)).sign());
    }
    for value in
        [json!([tenant.id]), json!(null), json!(upper), json!(tenant.id.replace('-', "")), json!({ "id": tenant.id }), json!(other)]
    {
        add("tenant", id(value).sign());
    }
    for name in ["Tenant_ID", "tenаnt_id", "tenantId"] {
        add("the claim's name", renamed(name).sign());
    }
    for twice in ["tenant_id", "tenant\\u005fid"] {
        add("two tenants", good(&tenant).text(payload.replacen('{', &format!("{{\"{twice}\":\"{other}\","), 1)).sign());
    }
    add("no sub", good(&tenant).without("sub").sign());
    add("another's signature", format!("{}.{}", good(&tenant).message(), good(&tenant).by("d").sign().rsplit('.').next().unwrap()));
    for garbage in ["x", "..", "a.b.c", &"a".repeat(7_000)] {
        add("garbage", garbage.to_owned());
    }

    let mut answers = Vec::new();
    for (what, token) in &wrong {
        let answer = tenant.bearer(token).post("/v1/sql", json!({ "statements": [{ "sql": "SELECT 1" }] }));
        assert_eq!(answer.status, 401, "{what}: {token}: {}", answer.text());
        answers.push((what, answer.refused(401, "unauthenticated").to_string()));
    }
    assert!(answers.len() > 50);
    for (what, answer) in &answers {
        assert_eq!(answer, &answers[0].1, "{what}");
    }
    for (method, path) in [("GET", "/v1/cache/k"), ("PUT", "/v1/cache/k"), ("POST", "/v1/queues/q/jobs"), ("POST", "/v1/queues/q/claim")] {
        let answer = tenant.bearer(&wrong[0].1).call(method, path).json(&json!({})).send();
        answer.refused(401, "unauthenticated");
    }
    // The tenant is as it was, and its own token still good.
    assert_eq!(tenant.rows("SELECT 1", json!([])), json!([[1]]));
}

#[test]
fn a_token_that_brings_a_key_is_refused_and_nobody_is_called() {
    let tenant = world().server.tenant("brings");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let url = format!("http://{}/jwks.json", listener.local_addr().unwrap());
    for (name, value) in [("jwk", foreign_jwk()), ("jku", json!(url)), ("x5u", json!(url)), ("x5c", json!(["MIIB"]))] {
        for kid in ["d", "mine"] {
            let token = good(&tenant).by("foreign").header("kid", json!(kid)).header(name, value.clone());
            tenant.with_token(&token.sign()).sql("SELECT 1", json!([])).refused(401, "unauthenticated");
        }
    }
    assert_eq!(listener.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
}

#[test]
fn a_tenant_that_is_no_uuid_is_refused_and_leaves_no_file() {
    let server = &world().server;
    let tenant = server.tenant("paths");
    let names = ["../x", "..%2f", "%00", "file:x?mode=memory", ":memory:", "", "x\u{0}y", "/etc/passwd", "tenant_database_x.sqlite"];
    for name in names.map(str::to_owned).into_iter().chain(["a".repeat(300)]) {
        let token = good(&tenant).with("tenant_id", json!(name)).sign();
        tenant.with_token(&token).sql("CREATE TABLE t (v)", json!([])).refused(401, "unauthenticated");
    }
    let uuid = good(&tenant).with("tenant_id", json!("019391f4-8a2b-7c3d-9e4f-00000000dead")).sign();
    tenant.with_token(&uuid).sql("CREATE TABLE t (v)", json!([])).refused(401, "unauthenticated");
    let strange: Vec<_> =
        server.files().into_iter().filter(|file| file.contains("00000000dead") || file.contains("..") || file.contains("memory")).collect();
    assert_eq!(strange, Vec::<String>::new());
}

#[test]
fn a_tenant_made_anew_under_the_old_slug_is_another() {
    let server = &world().server;
    let old = server.tenant("anew");
    old.script("CREATE TABLE t (v)");
    server.admin().delete(&format!("/admin/v1/tenants/{}", old.id)).succeeds();
    let new = server.provision(json!({ "slug": old.slug, "name": "anew" }));
    assert_ne!(old.id, new.id);
    let deleted = old.sql("SELECT 1", json!([])).refused(401, "unauthenticated");
    let unknown = good(&new).with("tenant_id", json!("019391f4-8a2b-7c3d-9e4f-5a6b7c8d9e0f")).sign();
    assert_eq!(deleted, new.with_token(&unknown).sql("SELECT 1", json!([])).refused(401, "unauthenticated"));
    new.sql("SELECT * FROM t", json!([])).refused(400, "sql_error");
}

#[test]
fn the_admin_side_is_for_operators_and_the_tenants_side_for_tokens() {
    let server = &world().server;
    let tenant = server.tenant("sides");
    for path in ["/admin/v1/tenants", "/admin/v1/health"] {
        tenant.get(path).refused(403, "forbidden");
        server.anyone().get(path).refused(401, "unauthenticated");
        server.anyone().bearer("no-such-key").get(path).refused(401, "unauthenticated");
    }
    tenant.post("/admin/v1/tenants", json!({ "slug": "taken-over", "name": "x" })).refused(403, "forbidden");
    tenant.post(&format!("/admin/v1/tenants/{}/tokens", tenant.id), json!({})).refused(403, "forbidden");
    tenant.with_token(ADMIN_KEY).sql("SELECT 1", json!([])).refused(401, "unauthenticated");
}

#[test]
fn the_authorization_header_is_one_bearer_token() {
    let tenant = world().server.tenant("header");
    let body = json!({ "statements": [{ "sql": "SELECT 1" }] });
    let anyone = world().server.anyone();
    let with = |values: &[&str]| {
        let call = anyone.call("POST", "/v1/sql").json(&body);
        values.iter().fold(call, |call, value| call.header("Authorization", value)).send()
    };
    with(&[&format!("bearer {}", tenant.token)]).expect(200);
    let (bare, basic) = (tenant.token.clone(), format!("Basic {}", tenant.token));
    let doubled = format!("Bearer {0} {0}", tenant.token);
    for header in [bare.as_str(), &basic, &doubled, "Bearer", "Bearer ", "", "Bearer null"] {
        with(&[header]).refused(401, "unauthenticated");
    }
    with(&[]).refused(401, "unauthenticated");
    let good = format!("Bearer {}", tenant.token);
    with(&[&good, &good]).refused(401, "unauthenticated");
    anyone.post(&format!("/v1/sql?token={}&access_token={}", tenant.token, tenant.token), body).refused(401, "unauthenticated");
}

#[test]
fn a_token_does_what_its_scopes_say() {
    let server = &world().server;
    let tenant = server.tenant("scopes");
    tenant.script("CREATE TABLE t (v)");
    let reader = server.scoped(&tenant, &["sql:read"]);
    reader.rows("SELECT * FROM t", json!([]));
    let refusal = reader.sql("INSERT INTO t VALUES (1)", json!([])).refused(403, "forbidden");
    assert!(refusal["message"].as_str().unwrap().contains("`sql:write`"), "{refusal}");
    reader.sql("CREATE TABLE u (v)", json!([])).refused(403, "forbidden");
    reader.get("/v1/cache/k").refused(403, "forbidden");

    // A provider's token has its issuer's default, or what it names.
    let default = tenant.with_token(&good(&tenant).with("scope", json!("openid profile")).sign());
    default.rows("SELECT * FROM t", json!([]));
    default.sql("INSERT INTO t VALUES (1)", json!([])).refused(403, "forbidden");
    let named = tenant.with_token(&good(&tenant).with("scope", json!("openid cache")).sign());
    named.get("/v1/cache/k").refused(404, "not_found");
    named.sql("SELECT * FROM t", json!([])).refused(403, "forbidden");

    let body = json!({ "role": "r", "sub": "s", "scopes": ["sql:raed"] });
    let error = server.admin().post(&format!("/admin/v1/tenants/{}/tokens", tenant.id), body).refused(400, "bad_request");
    assert!(error["message"].as_str().unwrap().contains("sql:read"), "{error}");
}

#[test]
fn a_revoked_token_is_refused_at_once_on_every_worker_and_after_a_restart() {
    let mut server = Server::with(|settings| {
        settings.set("http.workers", 4);
    });
    let tenant = server.tenant("revoked");
    let admin = server.admin();
    let tokens = format!("/admin/v1/tenants/{}/tokens", tenant.id);
    let body = json!({ "role": "r", "sub": "s", "scopes": ["sql:read"], "expires_in_s": 600 });
    let minted = admin.post(&tokens, body).expect(201).json();
    let (token, jti) = (minted["token"].as_str().unwrap(), minted["jti"].as_str().unwrap());
    let user = tenant.with_token(token);
    // On many connections at once, so that every worker has seen it.
    at_once(16, |_| (0..10).for_each(|_| drop(user.rows("SELECT 1", json!([])))));
    admin.delete(&format!("{tokens}/{jti}")).succeeds();
    at_once(16, |_| {
        for _ in 0..10 {
            user.sql("SELECT 1", json!([])).refused(401, "unauthenticated");
        }
    });
    server.restart();
    user.sql("SELECT 1", json!([])).refused(401, "unauthenticated");
    tenant.rows("SELECT 1", json!([]));
    let listed = admin.get(&tokens).expect(200);
    assert!(listed.text().contains(jti) && !listed.text().contains(token), "{}", listed.text());
}

#[test]
fn rotation_changes_the_signing_key_and_keeps_the_tokens() {
    let mut server = Server::start();
    let before = server.tenant("before");
    let kids = |server: &Server| -> Vec<String> {
        let keys = server.anyone().get("/.well-known/jwks.json").expect(200).json();
        assert!(!keys.to_string().contains("\"d\""), "a private key is published");
        keys["keys"].as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
    };
    let old = kids(&server);
    let new = server.admin().post("/admin/v1/keys:rotate", json!({})).expect(200).json()["kid"].as_str().unwrap().to_owned();
    let after = server.tenant("after");
    assert_eq!((kid_of(&before.token), kid_of(&after.token)), (old[0].clone(), new.clone()));
    for round in 0..2 {
        let mut all = kids(&server);
        all.sort();
        let mut expected = vec![old[0].clone(), new.clone()];
        expected.sort();
        assert_eq!(all, expected);
        before.rows("SELECT 1", json!([]));
        after.rows("SELECT 1", json!([]));
        if round == 0 {
            server.restart();
        }
    }
}

#[test]
fn keys_that_may_have_been_copied_can_be_replaced_however_many_there_are() {
    let server = Server::start();
    let tenant = server.tenant("copied-keys");
    let rotate = |body| server.admin().post("/admin/v1/keys:rotate", body);
    for _ in 1..32 {
        rotate(json!({})).expect(200);
    }
    rotate(json!({})).expect(409);
    let replaced = rotate(json!({ "retire_older": true })).expect(200).json();
    assert_eq!(replaced["retired"].as_array().unwrap().len(), 32);
    server.anyone().bearer(&tenant.token).get("/v1/cache/k").refused(401, "unauthenticated");

    // What was to be done is in the audit log, and then how it ended.
    let entries = server.admin().get("/admin/v1/audit?action=keys.rotate&limit=4").expect(200).json();
    let outcomes: Vec<_> = entries["entries"].as_array().unwrap().iter().map(|entry| entry["outcome"].as_str().unwrap()).collect();
    assert_eq!(outcomes, ["ok", "begun", "conflict", "begun"]);
}

#[test]
fn a_key_that_others_may_read_stops_the_start_and_is_named() {
    let mut server = Server::start();
    let tenant = server.tenant("key-file");
    server.stop();
    let key = server.files().into_iter().find(|file| file.starts_with("system/keys/") && file.ends_with(".json")).unwrap();
    let path = server.dir().join(&key);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);

    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let output = server.command().output().unwrap();
    assert!(!output.status.success());
    assert!(said(&output).contains(&key) && said(&output).contains("chmod 600"), "{}", said(&output));

    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let output = server.command().output().unwrap();
    assert!(!output.status.success() && said(&output).contains(&key), "{}", said(&output));

    std::fs::write(&path, &whole).unwrap();
    server.start_again();
    tenant.rows("SELECT 1", json!([]));
}
