use std::sync::Arc;

use proptest::prelude::*;
use rusqlite::types::Value;

use super::*;
use crate::auth::Claims;
use crate::auth::scope::Scopes;
use crate::config::UnindexedEmbeds;
use crate::rest::indexes::Lacking;
use crate::rest::policy::rules::{Access, Rights};
use crate::rest::query::Query;
use crate::rest::schema::{Column, ForeignKey};

fn column(name: &str, declared: &str) -> Column {
    Column {
        name: name.to_owned(),
        declared: declared.to_owned(),
        kind: Kind::declared(declared),
        not_null: false,
        default: None,
        generated: false,
        origin: None,
        rights: Rights::default(),
    }
}

fn table(name: &str, columns: Vec<Column>, foreign_keys: Vec<ForeignKey>) -> Table {
    Table {
        name: name.to_owned(),
        shape: Shape::Rowid("rowid"),
        columns,
        key: vec![0],
        unique: vec![vec![0]],
        indexes: Vec::new(),
        foreign_keys,
        replaces: false,
        access: Access::default(),
    }
}

/// `projects` with `tasks`.
fn schema() -> Schema {
    let (unique, in_key, reflexive) = (false, false, false);
    let key = ForeignKey { name: "tasks_project_fkey".to_owned(), columns: vec![1], to: 0, to_columns: vec![0], unique, in_key, reflexive };
    Schema::of(vec![
        table("projects", vec![column("id", "INTEGER"), column("it's", "TEXT"), column("doc", "JSON")], Vec::new()),
        table("tasks", vec![column("id", "INTEGER"), column("project", "INTEGER")], vec![key]),
    ])
}

fn caller(role: &str) -> Caller {
    let claims = Claims {
        tenant: uuid::Uuid::nil(),
        sub: "u".to_owned(),
        role: role.to_owned(),
        scopes: Scopes::ALL,
        jti: None,
        exp: 0,
        payload: "{}".into(),
    };
    Caller { claims: Arc::new(claims) }
}

fn rendered(pairs: &[(&str, &str)], role: &str) -> Result<Statement> {
    let pairs: Vec<_> = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let (schema, query) = (schema(), Query::parse(&pairs)?);
    let lacking = Lacking::of(UnindexedEmbeds::Allow);
    let plan = Plan::new(&schema, &query, 0, &lacking)?;
    let from = From::Request(Page::default());
    rows(&schema, &caller(role), &plan, Layout::Object { stripped: false }, from).map(|rendered| rendered.statement)
}

#[test]
fn a_request_is_one_statement_whose_rows_are_json() {
    let statement = rendered(&[("select", "id,doc,tasks(id)"), ("it's", "eq.x"), ("tasks.limit", "2")], "service");
    // A name as no request can spell it without quotes.
    assert!(statement.is_err());
    let statement = rendered(&[("select", "id,tasks(id)"), ("\"it's\"", "eq.x"), ("tasks.limit", "2")], "service").unwrap();
    assert_eq!(
        statement.sql,
        "SELECT t0.\"id\",coalesce((SELECT '['||group_concat(j)||']' FROM (SELECT tenantry_object(?1,t2.\"id\") AS j FROM \"tasks\" AS t2 \
         WHERE t2.\"project\"=t0.\"id\" ORDER BY t2.rowid LIMIT 2)),'[]') FROM \"projects\" AS t0 WHERE (t0.\"it's\"=?2) ORDER BY t0.rowid"
    );
    let text = |text: &str| Value::Text(text.to_owned());
    assert_eq!(statement.values, [text("v\"id\":"), text("x")]);
}

#[test]
fn a_page_is_compiled_once() {
    let conn = rusqlite::Connection::open_in_memory().unwrap();
    conn.execute_batch("CREATE TABLE projects (id INTEGER, \"it's\" TEXT, doc JSON); INSERT INTO projects VALUES (1, '', ''), (2, '', '')")
        .unwrap();
    let (schema, query) = (schema(), Query::parse(&[("select".to_owned(), "id".to_owned())]).unwrap());
    let lacking = Lacking::of(UnindexedEmbeds::Allow);
    let plan = Plan::new(&schema, &query, 0, &lacking).unwrap();
    let page = From::Request(Page { offset: 1, limit: Some(2) });
    let statement = rows(&schema, &caller("service"), &plan, Layout::Object { stripped: false }, page).unwrap().statement;
    let mut prepared = conn.prepare(&statement.sql).unwrap();
    for limit in 1..5 {
        let values = [Value::Integer(limit), Value::Integer(1)];
        assert_eq!(prepared.query_map(rusqlite::params_from_iter(values), |row| row.get::<_, i64>(0)).unwrap().count(), 1);
    }
    assert_eq!(prepared.get_status(rusqlite::StatementStatus::RePrepare), 0);
}

#[test]
fn a_name_of_the_schema_is_quoted_both_as_identifier_and_as_member() {
    let statement = rendered(&[("select", "tasks(projects(*))")], "service").unwrap();
    assert!(statement.sql.contains("'v\"it''s\":',t4.\"it's\""), "{}", statement.sql);
}

#[test]
fn every_reference_of_a_table_asks_who_may() {
    for pairs in [&[("select", "id")][..], &[("select", "tasks(id)")], &[("select", "id,tasks()"), ("tasks", "is.null")]] {
        assert_eq!(rendered(pairs, "authenticated").unwrap_err().status(), 403);
        assert_eq!(rendered(pairs, "anon").unwrap_err().status(), 401);
    }
}

proptest! {
    /// Statements that differ in what the request says, not in what it asks, are one statement.
    #[test]
    fn what_a_request_says_is_bound(a in "[^\"\\\\]{1,12}", b in "[^\"\\\\]{1,12}") {
        let shaped = |text: &str| {
            let select = format!("\"{text}\":id,doc->\"{text}\"->>x,\"{text}\":tasks(id)");
            let tree = format!("(doc->>k.eq.\"{text}\",\"it's\".like.\"{text}\",\"it's\".in.(\"{text}\"),\"it's\".match.\"{text}\")");
            rendered(&[("select", &select), ("or", &tree)], "service").unwrap().sql
        };
        prop_assert_eq!(shaped(&a), shaped(&b));
    }
}
