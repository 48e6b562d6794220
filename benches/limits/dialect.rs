//! The table's rows about rows over HTTP: the same rows by the dialect, by `/v1/sql`, from the bare handler, and from
//! rusqlite that makes the same JSON in this process.

use rusqlite::Connection;
use tenantry::cli::load::wire::{self, Caller, Target};

use crate::client::Line;
use crate::local::{ROWS as TABLE_ROWS, Which, cores};
use crate::results::Measured;
use crate::rows::{INSERT, SQL, page_body, read_body};
use crate::served::Answers;
use crate::site::{Site, Tenantry};

const EMBED: &str = "/rest/v1/p?select=id,v,c(id,v)&limit=20";
const EMBED_SQL: &[u8] = br#"{"statements":[{"sql":"SELECT id, v, (SELECT json_group_array(json_object('id', id, 'v', v)) FROM c WHERE p = p.id) FROM p ORDER BY id LIMIT 20"}]}"#;
const TABLE: &str = "/rest/v1/w";
const ROW: &[u8] = br#"{"v":"the quick brown fox"}"#;

fn read_path(number: usize) -> String {
    format!("/rest/v1/t?select=v&id=eq.{}", 1 + number % TABLE_ROWS)
}

fn page_path(after: usize) -> String {
    format!("/rest/v1/t?select=id,v&id=gt.{}&order=id&limit=20", after % (TABLE_ROWS - 20))
}

/// What the dialect answers, for the bare server, by path.
pub fn canned(tenantry: &Tenantry) -> Answers {
    let caller = &tenantry.tenants[0].caller;
    let get = |path: &str| tenantry.sample(200, "application/json", |request| wire::get(request, caller, path));
    let inserted = tenantry.sample(201, "application/json", |request| wire::post(request, caller, TABLE, ROW));
    [("rest-read", get(&read_path(7))), ("rest-page", get(&page_path(7))), ("rest-embed", get(EMBED)), ("rest-insert", inserted)]
        .map(|(name, canned)| (name.to_owned(), canned))
        .into()
}

/// Builds a request, given its number.
type Build<'b> = &'b (dyn Fn(&mut Vec<u8>, &Caller, usize) + Sync);

/// Requests a second by the dialect, by `/v1/sql` and from the bare handler; who begins goes round.
fn rates(site: &Site, round: usize, [rest, sql, bare]: [(u16, Build<'_>); 3]) -> [f64; 3] {
    let rate = |target: &Target, (status, build): (u16, Build<'_>)| {
        let caller = &site.tenantry.tenants[0].caller;
        site.client.rate(target, async |line: &mut Line| {
            let mut number = line.number * 7_919;
            while line.runs() {
                build(&mut line.request, caller, number);
                line.ask(status, |_| ()).await;
                number += 1;
            }
        })
    };
    let mut rates = [0.0; 3];
    for turn in 0..3 {
        let side = (turn + round) % 3;
        rates[side] = match side {
            0 => rate(site.tenantry.target(), rest),
            1 => rate(site.tenantry.target(), sql),
            _ => rate(&site.bare.target, bare),
        };
    }
    rates
}

fn of(goal: &'static str, ours: f64, limit: f64) -> Measured {
    Measured { goal, ours, limit: Some(limit) }
}

pub fn read(site: &mut Site, round: usize) -> Vec<Measured> {
    let by_rest: Build<'_> = &|request, caller, number| wire::get(request, caller, &read_path(number));
    let by_sql: Build<'_> = &|request, caller, number| wire::post(request, caller, SQL, &read_body(number));
    let from_bare: Build<'_> = &|request, caller, _| wire::get(request, caller, "/rest-read");
    let [rest, sql, bare] = rates(site, round, [(200, by_rest), (200, by_sql), (200, from_bare)]);
    let alone = site.files.rate(site.client.slice, Which::One, cores(), |conn, number| {
        json(conn, "SELECT json_group_array(json_object('v', v)) FROM t WHERE id = ?1", Some((1 + number % TABLE_ROWS) as i64));
    });
    vec![of("rest-read", rest, sql), of("rest-read / bare", rest, bare), of("rest-read / rusqlite", rest, alone)]
}

pub fn page(site: &mut Site, round: usize) -> Vec<Measured> {
    let by_rest: Build<'_> = &|request, caller, number| wire::get(request, caller, &page_path(number));
    let by_sql: Build<'_> = &|request, caller, number| wire::post(request, caller, SQL, &page_body(number % (TABLE_ROWS - 20)));
    let from_bare: Build<'_> = &|request, caller, _| wire::get(request, caller, "/rest-page");
    let [rest, sql, bare] = rates(site, round, [(200, by_rest), (200, by_sql), (200, from_bare)]);
    let alone = site.files.rate(site.client.slice, Which::One, cores(), |conn, number| {
        let page = "SELECT json_group_array(json_object('id', id, 'v', v)) FROM (SELECT id, v FROM t WHERE id > ?1 ORDER BY id LIMIT 20)";
        json(conn, page, Some((number % (TABLE_ROWS - 20)) as i64));
    });
    vec![of("rest-page", rest, sql), of("rest-page / bare", rest, bare), of("rest-page / rusqlite", rest, alone)]
}

pub fn embed(site: &mut Site, round: usize) -> Vec<Measured> {
    let by_rest: Build<'_> = &|request, caller, _| wire::get(request, caller, EMBED);
    let by_sql: Build<'_> = &|request, caller, _| wire::post(request, caller, SQL, EMBED_SQL);
    let from_bare: Build<'_> = &|request, caller, _| wire::get(request, caller, "/rest-embed");
    let [rest, sql, bare] = rates(site, round, [(200, by_rest), (200, by_sql), (200, from_bare)]);
    let alone = site.files.rate(site.client.slice, Which::One, cores(), |conn, _| {
        let rows = "SELECT json_group_array(json_object('id', id, 'v', v, 'c', json(c))) FROM (SELECT id, v, (SELECT \
                    json_group_array(json_object('id', id, 'v', v)) FROM c WHERE p = p.id) AS c FROM p ORDER BY id LIMIT 20)";
        json(conn, rows, None);
    });
    vec![of("rest-embed", rest, sql), of("rest-embed / bare", rest, bare), of("rest-embed / rusqlite", rest, alone)]
}

pub fn insert(site: &mut Site, round: usize) -> Vec<Measured> {
    let by_rest: Build<'_> = &|request, caller, _| wire::post(request, caller, TABLE, ROW);
    let by_sql: Build<'_> = &|request, caller, _| wire::post(request, caller, SQL, INSERT);
    let from_bare: Build<'_> = &|request, caller, _| wire::post(request, caller, "/rest-insert", ROW);
    let [rest, sql, bare] = rates(site, round, [(201, by_rest), (200, by_sql), (201, from_bare)]);
    vec![of("rest-insert", rest, sql), of("rest-insert / bare", rest, bare)]
}

fn json(conn: &Connection, sql: &str, parameter: Option<i64>) {
    let mut statement = conn.prepare_cached(sql).expect("a statement");
    let json: String = statement.query_row(rusqlite::params_from_iter(parameter), |row| row.get(0)).expect("a row");
    std::hint::black_box(json);
}
