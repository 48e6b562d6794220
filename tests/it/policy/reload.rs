//! Policies and functions are read anew while the server runs: all or nothing, and each request is held to one of them.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::{got, server_with, user};
use crate::support::{Answer, Server, Value, json};

/// Of both tables, the rows of this project.
fn of_project(id: i64) -> String {
    format!("CREATE POLICY p ON projects USING (id = {id}); CREATE POLICY n ON notes USING (project_id = {id});")
}

fn declare(folder: &Path, file: &str, text: &str) {
    std::fs::create_dir_all(folder.join(file).parent().unwrap()).unwrap();
    std::fs::write(folder.join(file), text).unwrap();
}

fn reload(server: &Server) -> Answer {
    server.admin().post("/admin/v1/policies:reload", json!({}))
}

/// The outcomes in the audit log, oldest first.
fn audited(server: &Server) -> Vec<Value> {
    let entries = server.admin().get("/admin/v1/audit?action=policies.reload").expect(200).json()["entries"].clone();
    entries.as_array().unwrap().iter().rev().map(|entry| entry["outcome"].clone()).collect()
}

#[test]
fn what_is_declared_anew_holds_from_the_answer_on() {
    let (server, folder) = server_with(&of_project(1));
    let tenant = server.tenant("reload");
    tenant.script(include_str!("rows.sql"));
    let ann = user(&server, &tenant, "authenticated", "ann");
    let projects = || got(&ann, "projects?select=id&order=id");
    for id in [1, 2, 3, 1] {
        declare(folder.path(), "policies/app.sql", &of_project(id));
        declare(
            folder.path(),
            "functions/now.sql",
            &format!("CREATE FUNCTION now() RETURNS integer STABLE AS $$ SELECT {id} $$;\nGRANT EXECUTE ON FUNCTION now TO PUBLIC;"),
        );
        assert_eq!(reload(&server).expect(200).json(), json!({ "policies": 2, "grants": 0, "functions": 1, "problems": [] }));
        // The second one is remembered.
        for _ in 0..2 {
            assert_eq!((projects(), got(&ann, "rpc/now")), (json!([{ "id": id }]), json!(id)));
        }
    }
    // Without any, SQL is open to whoever has its scopes, and no row to a role.
    ann.post("/v1/sql", json!({ "statements": [{ "sql": "SELECT 1" }] })).refused(403, "forbidden");
    std::fs::remove_dir_all(folder.path().join("policies")).unwrap();
    std::fs::remove_dir_all(folder.path().join("functions")).unwrap();
    let told = server.cli(["policy", "reload"]);
    assert_eq!(String::from_utf8_lossy(&told.stdout), "0 policies, 0 grants and 0 functions are in force\n");
    ann.post("/v1/sql", json!({ "statements": [{ "sql": "SELECT 1" }] })).expect(200);
    assert_eq!((ann.get("/rest/v1/projects").status, ann.get("/rest/v1/rpc/now").status), (403, 404));
    declare(folder.path(), "policies/app.sql", "CREATE POLICY p ON nowhere USING (true);");
    let problems = reload(&server).expect(200).json()["problems"].clone();
    assert_eq!(problems[0]["place"], "policies/app.sql:1:20");
    ann.post("/v1/sql", json!({ "statements": [{ "sql": "SELECT 1" }] })).refused(403, "forbidden");
    assert_eq!(audited(&server), ["begun", "ok"].repeat(6));
}

#[test]
fn what_is_wrong_is_told_with_its_place_and_changes_nothing() {
    let (server, folder) = server_with(&of_project(1));
    let tenant = server.tenant("reload");
    tenant.script(include_str!("rows.sql"));
    let ann = user(&server, &tenant, "authenticated", "ann");
    let good = of_project(2);
    let wrong = [
        ("policies/app.sql", format!("{good}\nCREATE POLICY x ON notes USING ((owner = 1);"), "policies/app.sql:2:"),
        (
            "functions/bad.sql",
            "CREATE FUNCTION bad() RETURNS integer STABLE AS $$\n  SELECT nothing FROM notes $$;".to_owned(),
            "bad.sql:2:10: ",
        ),
    ];
    for (file, text, place) in wrong {
        declare(folder.path(), "policies/app.sql", &good);
        declare(folder.path(), file, &text);
        let refused = reload(&server).refused(400, "bad_request");
        assert!(refused["message"].as_str().unwrap().contains(place), "{refused}");
        assert!(String::from_utf8_lossy(&server.cli(["policy", "reload"]).stderr).contains(place));
        assert_eq!(got(&ann, "projects?select=id"), json!([{ "id": 1 }]), "{file}");
    }
    assert_eq!(audited(&server), ["begun", "bad_request"].repeat(4));
    tenant.post("/admin/v1/policies:reload", json!({})).refused(403, "forbidden");
}

#[test]
fn no_request_is_held_to_something_of_both() {
    let (server, folder) = server_with(&of_project(1));
    let tenant = server.tenant("reload");
    tenant.script(include_str!("rows.sql"));
    let ann = user(&server, &tenant, "authenticated", "ann");
    let both = |id: i64, notes: &[i64]| {
        let notes: Vec<_> = notes.iter().map(|note| json!({ "id": note })).collect();
        json!([{ "id": id, "notes": notes }])
    };
    let either = [both(1, &[1, 3]), both(2, &[2])];
    let done = AtomicBool::default();
    let seen = std::thread::scope(|scope| {
        let readers: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    let mut seen = [0, 0];
                    while !done.load(Relaxed) {
                        let rows = got(&ann, "projects?select=id,notes(id)&order=id");
                        let which = either.iter().position(|one| *one == rows);
                        seen[which.unwrap_or_else(|| panic!("of both: {rows}"))] += 1;
                    }
                    seen
                })
            })
            .collect();
        for round in 0..40 {
            declare(folder.path(), "policies/app.sql", &of_project(2 - round % 2));
            reload(&server).expect(200);
            assert_eq!(got(&ann, "projects?select=id,notes(id)&order=id"), either[usize::from(round % 2 == 0)]);
        }
        done.store(true, Relaxed);
        readers.into_iter().map(|reader| reader.join().unwrap()).fold([0, 0], |all, seen| [all[0] + seen[0], all[1] + seen[1]])
    });
    assert!(seen.iter().all(|count| *count > 0), "{seen:?}");
}
