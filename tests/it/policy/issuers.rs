//! Policies for people whom an identity provider has signed in: role, subject and claims are those of its tokens.

use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::{EncodingKey, Header, encode};
use tempfile::TempDir;

use super::{MIGRATION, POLICIES, got};
use crate::support::{Server, TenantClient, Value, json};

const SECRET: &str = "a provider's secret, which has more than thirty-two bytes";

/// Policies that ask for more of a token than its subject.
const OF_CLAIMS: &str = "CREATE POLICY by_name ON people FOR SELECT TO member USING (login = auth.jwt() ->> 'nickname'); \
    CREATE POLICY of_teams ON projects FOR SELECT TO member \
        USING (id IN (SELECT value FROM json_each(auth.jwt() -> 'app_metadata' -> 'projects'))); \
    CREATE POLICY of_admins ON vault FOR SELECT TO member USING ((auth.jwt() -> 'app_metadata' ->> 'admin')::boolean); \
    CREATE POLICY roles_own ON drafts FOR SELECT TO member USING (owner = auth.role());";

fn tenant() -> TenantClient {
    static SERVER: OnceLock<(Server, TempDir)> = OnceLock::new();
    let (server, _) = SERVER.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write("0001_app.up.sql", MIGRATION);
        std::fs::create_dir(folder.path().join("policies")).unwrap();
        write("policies/app.sql", POLICIES);
        write("policies/claims.sql", OF_CLAIMS);
        let server = Server::with(|settings| {
            settings.set("tenants.migrations_dir", folder.path().display()).set("rest.unindexed_embeds", "index");
            settings.set(
                "auth.issuers",
                format!(
                    "[{{issuer = \"idp\", hs256_secret = \"{SECRET}\", audience = \"api\", tenant_claim = \"/app_metadata/tenant\", \
                     role_claim = \"/app_metadata/role\", default_scopes = [\"sql:read\", \"sql:write\"]}}]"
                ),
            );
        });
        (server, folder)
    });
    let tenant = server.tenant("issued");
    tenant.script(include_str!("rows.sql"));
    tenant
}

/// Whom the provider says so of; `claims` stand beside those that every token has.
fn signed_in(tenant: &TenantClient, sub: &str, metadata: Value, claims: Value) -> TenantClient {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let mut all = json!({ "iss": "idp", "aud": "api", "exp": now + 600, "sub": sub, "app_metadata": { "tenant": tenant.id } });
    let add = |to: &mut Value, from: Value| to.as_object_mut().unwrap().extend(from.as_object().unwrap().clone());
    add(&mut all["app_metadata"], metadata);
    add(&mut all, claims);
    let token = encode(&Header::default(), &all, &EncodingKey::from_secret(SECRET.as_bytes())).unwrap();
    tenant.with_token(&token)
}

#[test]
fn the_role_is_the_one_that_the_provider_gives() {
    let tenant = tenant();
    let ids = |user: &TenantClient| {
        let rows = got(user, "notes?select=id&order=id");
        rows.as_array().unwrap().iter().map(|row| row["id"].as_i64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(ids(&signed_in(&tenant, "ann", json!({ "role": "authenticated" }), json!({}))), [1, 2]);
    assert_eq!(ids(&signed_in(&tenant, "bob", json!({}), json!({}))), [3]);
    // Where the setting says the role stands, and nowhere else.
    assert_eq!(ids(&signed_in(&tenant, "bob", json!({}), json!({ "role": "auditor" }))), [3]);
    let auditor = signed_in(&tenant, "eve", json!({ "role": "auditor" }), json!({}));
    assert_eq!(ids(&auditor), [1, 2, 3]);
    auditor.patch("/rest/v1/notes?id=eq.1", json!({ "text": "x" })).refused(403, "42501");
    let ann = signed_in(&tenant, "ann", json!({}), json!({}));
    ann.post("/rest/v1/notes", json!({ "owner": "ann", "text": "mine" })).expect(201);
    ann.post("/rest/v1/notes", json!({ "owner": "bob", "text": "not mine" })).refused(403, "42501");
    ann.sql("SELECT 1", json!([])).refused(403, "forbidden");
}

#[test]
fn the_service_is_no_providers_to_name_and_nobody_comes_without_a_token() {
    let tenant = tenant();
    signed_in(&tenant, "eve", json!({ "role": "service" }), json!({})).get("/rest/v1/notes").refused(401, "unauthenticated");
    for path in ["projects", "notes", "nowhere", ""] {
        tenant.with_token("").get(&format!("/rest/v1/{path}")).refused(401, "unauthenticated");
    }
    let anon = signed_in(&tenant, "ann", json!({ "role": "anon" }), json!({}));
    assert_eq!(got(&anon, "projects?select=name"), json!([{ "name": "Open" }]));
    anon.get("/rest/v1/notes").refused(401, "42501");
    anon.post("/rest/v1/messages", json!({ "text": "hello" })).expect(201);
}

#[test]
fn what_else_a_token_says_is_asked_for_by_policies() {
    let tenant = tenant();
    let member = |metadata: Value, claims: Value| {
        let mut metadata = metadata;
        metadata["role"] = json!("member");
        signed_in(&tenant, "someone", metadata, claims)
    };
    let ann = member(json!({ "projects": [2, 3] }), json!({ "nickname": "ann" }));
    for _ in 0..2 {
        assert_eq!(got(&ann, "people?select=id"), json!([{ "id": 1 }]));
        assert_eq!(got(&ann, "projects?select=id&order=id"), json!([{ "id": 2 }, { "id": 3 }]));
        assert_eq!(got(&ann, "vault?select=id"), json!([]));
    }
    // The same statements, for others' claims; and for none, of another kind, or no JSON at all.
    let bob = member(json!({ "projects": [1], "admin": true }), json!({ "nickname": "bob" }));
    assert_eq!(got(&bob, "people?select=id"), json!([{ "id": 2 }]));
    assert_eq!(got(&bob, "projects?select=id&order=id"), json!([{ "id": 1 }, { "id": 3 }]));
    assert_eq!(got(&bob, "vault?select=id"), json!([{ "id": 1 }]));
    for (metadata, claims) in [
        (json!({}), json!({})),
        (json!({ "projects": "2", "admin": "no" }), json!({ "nickname": ["ann"] })),
        (json!({ "projects": null, "admin": false }), json!({ "nickname": null })),
        (json!({ "projects": { "a": "no number" }, "admin": {} }), json!({ "nickname": "ann' OR '1'='1" })),
    ] {
        let nobody = member(metadata.clone(), claims);
        assert_eq!(got(&nobody, "people?select=id"), json!([]), "{metadata}");
        assert_eq!(got(&nobody, "vault?select=id"), json!([]), "{metadata}");
    }
    tenant.script("INSERT INTO drafts VALUES (7, 'member')");
    assert_eq!(got(&ann, "drafts?select=id"), json!([{ "id": 7 }]));
}
