//! Views under policies: each has its own, and shows what they let through whatever those of its tables say; what is
//! embedded beside its rows is held to its own policies again.

use super::{got, server_with, user};
use crate::support::{Server, TenantClient, json};

const VIEWS: &str = "CREATE VIEW project_names AS SELECT id, name FROM projects; \
    CREATE VIEW task_list AS SELECT id, name, project_id FROM tasks; \
    CREATE VIEW vault_list AS SELECT id, project_id FROM vault; \
    CREATE VIEW closed AS SELECT id, name FROM projects;";

const POLICIES: &str = "CREATE POLICY all_but_two ON project_names FOR SELECT TO authenticated USING (id <> 2); \
    CREATE POLICY all_rows ON task_list FOR SELECT TO authenticated USING (true); \
    CREATE POLICY all_rows ON vault_list FOR SELECT TO authenticated USING (true); \
    CREATE POLICY own ON projects FOR SELECT TO authenticated USING (is_open OR id = 1); \
    CREATE POLICY first ON tasks FOR SELECT TO authenticated USING (project_id = 1);";

/// A service's client, and ann's.
fn with_views(check: impl FnOnce(&TenantClient, &TenantClient)) {
    let (server, _folder) = server_with(POLICIES);
    let tenant = server.tenant("views");
    tenant.script(include_str!("rows.sql"));
    tenant.script(VIEWS);
    check(&tenant, &user(&server, &tenant, "authenticated", "ann"));
}

#[test]
fn what_a_view_is_embedded_with_is_held_to_its_own_policies() {
    with_views(|_, ann| {
        // The view's policy lets task 3 through, that of projects hides its project, and so does project_names'.
        assert_eq!(
            got(ann, "task_list?select=id,projects(name)&order=id"),
            json!([
                { "id": 1, "projects": { "name": "Engine" } },
                { "id": 2, "projects": { "name": "Engine" } },
                { "id": 3, "projects": null },
                { "id": 4, "projects": { "name": "Open" } },
            ])
        );
        assert_eq!(got(ann, "task_list?select=id,project_names(name)&id=eq.3"), json!([{ "id": 3, "project_names": null }]));
        assert_eq!(got(ann, "task_list?select=id,project_names!inner(id)&project_names.name=eq.Secret"), json!([]));
        // The other way: the view's own rows, with those of tasks that the policy of tasks shows.
        assert_eq!(
            got(ann, "project_names?select=name,tasks(id)&order=id"),
            json!([{ "name": "Engine", "tasks": [{ "id": 1 }, { "id": 2 }] }, { "name": "Open", "tasks": [] }])
        );
        assert_eq!(
            got(ann, "projects?select=id,task_list(name)&order=id"),
            json!([
                { "id": 1, "task_list": [{ "name": "Draw" }, { "name": "Cut" }] },
                { "id": 3, "task_list": [{ "name": "Greet" }] },
            ])
        );
    });
}

#[test]
fn no_relation_leads_to_a_view_or_table_that_no_policy_opens() {
    with_views(|tenant, ann| {
        for (path, service_may) in [("tasks?select=id,NAME(id)", "closed"), ("project_names?select=id,NAME(id)", "vault")] {
            let said = |name: &str| {
                let error = ann.get(&format!("/rest/v1/{}", path.replace("NAME", name))).refused(400, "PGRST200");
                (error["message"].to_string() + &error["details"].to_string()).replace(name, "?")
            };
            assert_eq!(said(service_may), said("nowhere"), "{path}");
            got(tenant, &path.replace("NAME", service_may));
        }
        // What its key is called would tell of vault.
        ann.get("/rest/v1/vault_list?select=id,projects!vault_project_id_fkey(name)").refused(400, "PGRST200");
        let named = "vault_list?select=id,projects!vault_list_project_id_fkey(name)";
        assert_eq!(got(ann, named), json!([{ "id": 1, "projects": { "name": "Engine" } }]));
        got(tenant, "vault_list?select=id,projects!vault_project_id_fkey(name)");
    });
}

#[test]
fn who_lacks_an_index_is_told_of_no_column_that_is_hidden() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("0001_app.up.sql"), super::MIGRATION).unwrap();
    std::fs::create_dir(folder.path().join("policies")).unwrap();
    let policies = "CREATE POLICY all_rows ON projects FOR SELECT TO authenticated USING (true); \
        CREATE POLICY all_rows ON tasks FOR SELECT TO authenticated USING (true); GRANT SELECT (id, name) ON tasks TO authenticated; \
        CREATE POLICY all_rows ON task_list FOR SELECT TO authenticated USING (true);";
    std::fs::write(folder.path().join("policies/app.sql"), policies).unwrap();
    let server = Server::with(|with| {
        with.set("tenants.migrations_dir", folder.path().display());
    });
    let tenant = server.tenant("views");
    tenant.script("CREATE VIEW task_list AS SELECT id, project_id AS project FROM tasks");
    let ann = user(&server, &tenant, "authenticated", "ann");
    let path = "/rest/v1/projects?select=id,task_list(id)";
    let error = ann.get(path).refused(400, "PGRST127");
    assert!(!error.to_string().contains("project_id"), "{error}");
    assert!(tenant.get(path).refused(400, "PGRST127").to_string().contains("project_id"));
}
