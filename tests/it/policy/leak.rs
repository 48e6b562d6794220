//! Nothing of a hidden row is ever told. Random worlds are served to one user twice: as they are, and as a twin in which
//! every row and column that the user does not see has other bytes. Random requests of all kinds are sent to both.
//!
//! - Both answers are the same, to the byte: status, headers, body, errors, counts, order.
//! - No canary of what is hidden is in an answer; plain reads have exactly the rows that plain Rust says they have.
//! - What is hidden from a write is as it was; what a write leaves is what its policies let be; what is refused leaves all
//!   as it was.
//!
//! `TENANTRY_LEAKS=200` makes more worlds; a failure names the seed, and `TENANTRY_SEED` brings it back.

use serde_json::{Map, Value};

use super::world::{Command, ME, Row, Rows, TABLES, VIEW, World, base, canary, doc, other, up};
use crate::support::{Answer, Dice, Server, TenantClient, json, segment};

const REQUESTS: usize = 60;

#[derive(Default)]
struct Tally {
    reads: u64,
    writes: u64,
    refused: u64,
    hidden: u64,
    seen: u64,
}

#[test]
fn nothing_of_a_hidden_row_is_told() {
    let worlds: usize = std::env::var("TENANTRY_LEAKS").map_or(12, |worlds| worlds.parse().expect("TENANTRY_LEAKS is a number"));
    let mut dice = match std::env::var("TENANTRY_SEED") {
        Ok(seed) => Dice::of(seed.parse().expect("TENANTRY_SEED is a number")),
        Err(_) => Dice::new(),
    };
    println!("TENANTRY_SEED={}", dice.seed);
    let mut tally = Tally::default();
    // As many as one folder may declare policies for.
    for first in (0..worlds).step_by(60) {
        let mut some: Vec<World> = (first..worlds.min(first + 60)).map(|number| World::new(number, &mut dice)).collect();
        let policies: String = some.iter_mut().map(World::policies).collect();
        let (server, _folder) = super::server_with(&policies);
        some.iter().for_each(|world| live(&server, world, &mut dice, &mut tally));
    }
    let Tally { reads, writes, refused, hidden, seen } = tally;
    println!(
        "{worlds} worlds with {hidden} hidden rows and {seen} seen: {reads} reads, {writes} writes, {refused} of them refused; nothing told"
    );
    assert!(hidden > seen / 4 && seen > hidden / 4, "worlds in which all or nothing is hidden say little");
    assert!(refused < (reads + writes) * 3 / 4, "requests that are nearly all refused say little");
}

/// One tenant of the two.
struct Place {
    service: TenantClient,
    me: TenantClient,
    rows: Rows,
}

fn live(server: &Server, world: &World, dice: &mut Dice, tally: &mut Tally) {
    let rows = world.rows(dice);
    let twin = world.twin(&rows, dice);
    let mut places = [rows, twin].map(|rows| {
        let service = server.tenant("leak");
        service.script(&(world.schema() + &world.inserts(&rows)));
        let me = super::user(server, &service, "authenticated", ME);
        Place { rows: dump(world, &service), service, me }
    });
    for _ in 0..REQUESTS {
        let [seen, _] = [world.seen(&places[0].rows), world.seen(&places[1].rows)];
        tally.seen += seen.iter().map(Vec::len).sum::<usize>() as u64;
        tally.hidden += places[0].rows.iter().zip(&seen).map(|(rows, seen)| rows.len() - seen.len()).sum::<usize>() as u64;
        let asked = Asked::new(world, &places[0].rows, dice);
        let answers = places.each_ref().map(|place| asked.send(&place.me));
        let context = format!("{asked:?}\n{}\n{}", told(&answers[0]), told(&answers[1]));
        let after = places.each_ref().map(|place| match asked.command {
            Command::Select => place.rows.clone(),
            _ => dump(world, &place.service),
        });
        // A write of its own may let the caller see more, which is not the same in both: then they are twins no longer.
        let unveils = (0..TABLES.len()).any(|table| {
            let now = after.each_ref().map(|rows| {
                let seen = rows[base(table)].iter().filter(|row| world.sees(rows, table, row)).cloned();
                seen.map(|row| if world.without_doc[table] { Row { doc: String::new(), ..row } } else { row }).collect::<Vec<_>>()
            });
            now[0] != now[1]
        });
        if !unveils {
            assert_eq!(told(&answers[0]), told(&answers[1]), "the twin is told apart: {asked:?}");
        }
        let refused = answers[0].status >= 400;
        tally.refused += u64::from(refused);
        *(if asked.command == Command::Select { &mut tally.reads } else { &mut tally.writes }) += 1;
        asked.is_whole(world, &places[0].rows, &answers[0]);
        for (place, after) in places.iter_mut().zip(after) {
            canaries_are_not_in(world, &place.rows, &after, &context);
            writes_hold(world, &place.rows, &after, &asked, refused, &context);
            place.rows = after;
        }
        if unveils {
            return;
        }
    }
}

fn dump(world: &World, service: &TenantClient) -> Rows {
    std::array::from_fn(|table| World::read(&service.rows(&format!("SELECT * FROM {} ORDER BY id", world.name(table)), json!([]))))
}

/// All that an answer says.
fn told(answer: &Answer) -> String {
    let headers = ["content-range", "location", "preference-applied", "content-type", "allow", "content-length"];
    let headers: Vec<_> = headers.iter().map(|name| (*name, answer.header(name))).collect();
    format!("{} {headers:?} {}", answer.status, answer.text())
}

/// Rows that were hidden before and are after tell nothing of themselves.
fn canaries_are_not_in(world: &World, before: &Rows, after: &Rows, told: &str) {
    let (answers, seen) = (told.split_once('\n').unwrap().1, [world.seen(before), world.seen(after)]);
    for (table, rows) in after.iter().enumerate() {
        for row in rows {
            let [before, after] = seen.each_ref().map(|seen| world.is_told(seen, table, row.id));
            assert!(before.0 || after.0 || !answers.contains(&row.secret), "{} {row:?} is told: {told}", TABLES[table]);
            let may_doc = before.1 || after.1 || row.doc.is_empty();
            assert!(may_doc || !answers.contains(&row.doc), "{} {row:?} is told: {told}", TABLES[table]);
        }
    }
}

fn writes_hold(world: &World, before: &Rows, after: &Rows, asked: &Asked, refused: bool, context: &str) {
    if refused {
        assert!(before == after, "a refused request left something: {context}");
    }
    for table in 0..4 {
        for row in &before[table] {
            let now = after[table].iter().find(|now| now.id == row.id);
            let may = |command| table == asked.table && world.may_touch(before, table, row, command);
            match now {
                Some(now) if now == row => {}
                Some(_) => assert!(may(Command::Update), "{row:?} was changed: {context}"),
                // Its key may have been changed.
                None => assert!(may(Command::Delete) || may(Command::Update), "{row:?} is gone: {context}"),
            }
        }
        for row in &after[table] {
            let was = before[table].iter().find(|was| was.id == row.id);
            match was {
                Some(was) if was == row => {}
                Some(_) => assert!(world.may_be(after, table, row, Command::Update), "{row:?} should not be: {context}"),
                None => assert!(
                    world.may_be(after, table, row, Command::Insert)
                        || (asked.command == Command::Update && world.may_be(after, table, row, Command::Update)),
                    "{row:?} should not be: {context}"
                ),
            }
        }
    }
}

#[derive(Debug)]
struct Asked {
    table: usize,
    command: Command,
    method: &'static str,
    path: String,
    prefer: String,
    accept: Option<&'static str>,
    body: Option<Value>,
    /// It asks for all rows of the table, with their ids.
    plain: bool,
}

impl Asked {
    fn new(world: &World, rows: &Rows, dice: &mut Dice) -> Asked {
        let table = dice.below(TABLES.len() as u64) as usize;
        let name = world.name(table);
        let prefer = dice.pick(&[
            "count=exact",
            "return=representation",
            "return=representation,count=exact",
            "return=minimal",
            "return=headers-only",
        ]);
        let mut asked = Asked {
            table,
            command: Command::Select,
            method: "GET",
            path: format!("/rest/v1/{name}"),
            prefer: prefer.to_owned(),
            accept: if dice.chance(12) {
                Some(dice.pick(&["text/csv", "application/vnd.pgrst.object+json", "application/json"]))
            } else {
                None
            },
            body: None,
            plain: false,
        };
        // A view is not written, and says so.
        let only_reads = table == VIEW && dice.chance(90);
        let kind = dice.below(if only_reads { 13 } else { 20 });
        let (filters, embeds) = (filters(world, table, rows, dice), select(world, table, dice));
        match kind {
            0..=1 => {
                asked.plain = true;
                asked.accept = None;
                "count=exact".clone_into(&mut asked.prefer);
                asked.path.push_str("?select=id,secret&order=id");
            }
            2..=11 => asked.path.push_str(&format!("?select={embeds}{filters}{}", order(world, table, dice))),
            12 => {
                asked.method = dice.pick(&["HEAD", "OPTIONS"]);
                asked.path.push_str(&format!("?select={embeds}{filters}"));
            }
            13..=14 => {
                asked.method = "PATCH";
                asked.command = Command::Update;
                asked.path.push_str(&format!("?select={embeds}{filters}"));
                let mut all = written(table, rows, dice);
                let keep = dice.pick(&["owner", "n", "secret", "parent", "flag", "id"]);
                all.retain(|name, _| name == keep || dice.chance(15));
                asked.body = Some(Value::Object(all));
            }
            15 => {
                asked.method = "DELETE";
                asked.command = Command::Delete;
                asked.path.push_str(&format!("?select={embeds}{filters}"));
            }
            16 => {
                let row = written(table, rows, dice);
                asked.method = "PUT";
                asked.command = Command::Update;
                asked.path.push_str(&format!("?id=eq.{}&select={embeds}", row["id"]));
                asked.body = Some(Value::Object(row));
            }
            _ => {
                asked.method = "POST";
                asked.command = Command::Insert;
                if dice.chance(50) {
                    asked.command = Command::Update;
                    asked.prefer.push_str(dice.pick(&[
                        ",resolution=merge-duplicates",
                        ",resolution=merge-duplicates",
                        ",resolution=ignore-duplicates",
                    ]));
                    asked.path.push_str(dice.pick(&["?on_conflict=id&", "?on_conflict=secret&", "?"]));
                } else {
                    asked.path.push('?');
                }
                asked.path.push_str(&format!("select={embeds}"));
                let many = (0..=dice.below(2)).map(|_| Value::Object(written(table, rows, dice))).collect();
                asked.body = Some(Value::Array(many));
            }
        }
        asked
    }

    fn send(&self, user: &TenantClient) -> Answer {
        let mut call = user.call(self.method, &self.path).header("Prefer", &self.prefer);
        if let Some(accept) = self.accept {
            call = call.header("Accept", accept);
        }
        match &self.body {
            Some(body) => call.json(body).send(),
            None => call.send(),
        }
    }

    /// What a plain read answers is what plain Rust says.
    fn is_whole(&self, world: &World, rows: &Rows, answer: &Answer) {
        if !self.plain {
            return;
        }
        if !world.admits(self.table, Command::Select) {
            assert_eq!(answer.status, 403, "{self:?}: {}", answer.text());
            return;
        }
        let seen = &world.seen(rows)[self.table];
        let told: Vec<i64> = answer.json().as_array().unwrap().iter().map(|row| row["id"].as_i64().unwrap()).collect();
        assert_eq!(told, *seen, "{self:?}");
        let range = answer.header("content-range").unwrap_or_default();
        assert!(range.ends_with(&format!("/{}", seen.len())), "{self:?}: {range}");
    }
}

/// Something to say of a row of `table`; ids are those that are there, also of hidden rows.
fn filters(world: &World, table: usize, rows: &Rows, dice: &mut Dice) -> String {
    let mut all = String::new();
    // All of them may have been deleted.
    let rows = &rows[base(table)];
    let some = if rows.is_empty() { return all } else { dice.pick(rows) };
    for _ in 0..dice.below(3) {
        let related = related(world, table, dice);
        let secret = &some.secret;
        let choices = [
            format!("id=eq.{}", some.id),
            format!("id=in.({},{},99)", some.id, dice.below(12)),
            format!("secret=eq.{secret}"),
            format!("secret=gt.k{:x}", dice.below(16)),
            format!("secret=like.*{}*", &secret[2..4]),
            format!("secret=match.{}", segment(dice.pick(&["^k[0-7]", "(", "[a-f]{3}"]))),
            format!("n=lt.{}", dice.below(10)),
            format!("owner=eq.{}", dice.pick(&[ME, "you", "they", "nobody"])),
            "owner=is.null".to_owned(),
            format!("or=(n.gt.{},secret.lt.k{:x},and(flag.is.true,grp.eq.2))", dice.below(10), dice.below(16)),
            format!("doc-%3E%3Ec=gte.k{:x}", dice.below(16)),
            format!("doc-%3Eyes=eq.{}", dice.chance(50)),
            format!("doc=cs.{}", segment("{\"yes\":true}")),
            format!("{related}.secret=gt.k{:x}", dice.below(16)),
            format!("{related}=is.null"),
            format!("{related}=not.is.null"),
            format!("{related}.n=lt.{}", dice.below(10)),
            format!("parent=not.eq.{}", dice.below(8)),
            "secret=fts.k".to_owned(),
            "n=eq.x".to_owned(),
        ];
        all.push('&');
        all.push_str(&dice.pick(&choices));
    }
    all
}

fn related(world: &World, table: usize, dice: &mut Dice) -> String {
    let refers = |one: usize, to: usize| up(one) == Some(base(to)) || other(one) == Some(base(to));
    let all: Vec<usize> = (0..TABLES.len()).filter(|&one| refers(table, one) || refers(one, table)).collect();
    // Also one that is not related, or not there.
    if dice.chance(10) { "nothing".to_owned() } else { world.name(dice.pick(&all)) }
}

fn select(world: &World, table: usize, dice: &mut Dice) -> String {
    let name = related(world, table, dice);
    let next = related(world, dice.below(TABLES.len() as u64) as usize, dice);
    let one = up(table).map_or(name.clone(), |up| world.name(up));
    let choices = [
        "*".to_owned(),
        "id,secret".to_owned(),
        "id,doc".to_owned(),
        format!("*,{name}(*)"),
        format!("id,{name}!inner(id,secret)"),
        format!("id,{name}(secret,{next}(*))"),
        format!("id,{name}(count(),n.sum(),secret.max())"),
        format!("id,...{one}(up:secret,upn:n)"),
        format!("id,...{name}(secret)"),
        format!("id,{name}()"),
        "count()".to_owned(),
        "secret.max(),n.sum(),n.avg(),count()".to_owned(),
        "grp,n.sum(),secret.min()".to_owned(),
        "id,s:secret::text,doc-%3E%3Ec".to_owned(),
    ];
    dice.pick(&choices)
}

fn order(world: &World, table: usize, dice: &mut Dice) -> String {
    let one = up(table).map_or("x".to_owned(), |up| world.name(up));
    let order = [
        String::new(),
        "&order=secret".to_owned(),
        "&order=n.desc,secret".to_owned(),
        format!("&order={one}(secret).desc.nullslast,id"),
        format!("&order={one}(n),id"),
        "&order=doc-%3Ec".to_owned(),
    ];
    let page = [String::new(), "&limit=2".to_owned(), "&limit=3&offset=1".to_owned(), "&offset=90".to_owned()];
    dice.pick(&order) + &dice.pick(&page)
}

fn written(table: usize, rows: &Rows, dice: &mut Dice) -> Map<String, Value> {
    let there = &rows[base(table)];
    let id = if !there.is_empty() && dice.chance(50) { dice.pick(there).id } else { 20 + dice.below(20) as i64 };
    let mut referred = |to: Option<usize>| match to {
        Some(to) if table == 3 || dice.chance(85) => json!(1 + dice.below(rows[to].len() as u64 + 1)),
        _ => Value::Null,
    };
    let (parent, other) = (referred(up(table)), referred(other(table)));
    let flag = dice.chance(50);
    let row = Row {
        id,
        parent: parent.as_i64(),
        other: other.as_i64(),
        owner: dice.pick(&[Some(ME), Some(ME), Some("you"), None]).map(str::to_owned),
        grp: dice.below(4) as i64,
        n: dice.below(10) as i64,
        flag,
        secret: canary(dice),
        doc: canary(dice),
        yes: Some(dice.chance(50)),
    };
    let doc: Value = serde_json::from_str(&doc(&row)).unwrap();
    let Value::Object(members) = json!({
        "id": row.id, "parent": parent, "other": other, "owner": row.owner, "grp": row.grp, "n": row.n, "flag": flag,
        "secret": row.secret, "doc": doc,
    }) else {
        unreachable!("it is an object")
    };
    members
}
