//! A [`World`] is four random tables and a view under random policies, their rows, and who may see and write which of them, worked
//! out in plain Rust. Every text in a row that can be told apart is a canary.

use crate::support::{Dice, Value, json};

/// Who calls: of the role `authenticated`.
pub const ME: &str = "me";

/// By their letters; each refers to those that `up` and `other` name. The last is a view, which shows all of `base`.
pub const TABLES: [&str; 5] = ["a", "b", "c", "d", "v"];
pub const VIEW: usize = 4;

#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub id: i64,
    /// A row of `up`.
    pub parent: Option<i64>,
    /// A row of `other`.
    pub other: Option<i64>,
    pub owner: Option<String>,
    pub grp: i64,
    pub n: i64,
    pub flag: bool,
    pub secret: String,
    /// The canary in `doc`.
    pub doc: String,
    /// The flag in `doc`.
    pub yes: Option<bool>,
}

/// Rows by table; the view's are those of its base.
pub type Rows = [Vec<Row>; 4];

#[derive(Clone, Debug)]
pub enum Cond {
    Const(bool),
    Mine,
    Group,
    Below(i64),
    Flag,
    Doc,
    /// There is a row in `up` that it refers to, of which this holds; of those that are seen, or of all.
    Parent(Box<Cond>, bool),
    /// The same, as a list.
    Among(Box<Cond>),
    Not(Box<Cond>),
    And(Box<Cond>, Box<Cond>),
    Or(Box<Cond>, Box<Cond>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    Select,
    Insert,
    Update,
    Delete,
}

#[derive(Debug)]
struct Policy {
    permissive: bool,
    /// `None`: ALL.
    command: Option<Command>,
    /// It is for the caller's role.
    holds: bool,
    using: Option<Cond>,
    check: Option<Cond>,
}

pub struct World {
    /// Before each table's letter.
    pub prefix: String,
    policies: [Vec<Policy>; 5],
    /// Tables of which the caller may not read `doc`.
    pub without_doc: [bool; 5],
    /// Tables that are WITHOUT ROWID.
    without_rowid: [bool; 4],
    /// A condition asks for rows that the caller does not see.
    pub definer: bool,
    functions: String,
}

/// Where its rows are.
pub fn base(table: usize) -> usize {
    if table == VIEW { 1 } else { table }
}

/// The table that `parent` refers to.
pub fn up(table: usize) -> Option<usize> {
    [None, Some(0), Some(1), Some(0)][base(table)]
}

/// The table that `other` refers to; `d` is a junction of `a` and `b`.
pub fn other(table: usize) -> Option<usize> {
    [None, None, None, Some(1)][base(table)]
}

impl World {
    pub fn new(number: usize, dice: &mut Dice) -> World {
        let mut world = World {
            prefix: format!("w{number}"),
            policies: Default::default(),
            without_doc: std::array::from_fn(|_| dice.chance(30)),
            without_rowid: std::array::from_fn(|table| table == 3 || dice.chance(25)),
            definer: false,
            functions: String::new(),
        };
        for table in 0..TABLES.len() {
            let count = 1 + dice.below(3);
            for at in 0..count {
                let policy = world.policy(table, at == 0 && dice.chance(90), dice);
                world.policies[table].push(policy);
            }
        }
        world
    }

    pub fn name(&self, table: usize) -> String {
        format!("{}{}", self.prefix, TABLES[table])
    }

    fn policy(&mut self, table: usize, reads: bool, dice: &mut Dice) -> Policy {
        let commands = [None, None, Some(Command::Select), Some(Command::Insert), Some(Command::Update), Some(Command::Delete)];
        let command = if reads || table == VIEW { dice.pick(&commands[..3]) } else { dice.pick(&commands) };
        let using = (command != Some(Command::Insert)).then(|| self.cond(table, 2, dice));
        let writes = !matches!(command, Some(Command::Select | Command::Delete));
        let check = (writes && (using.is_none() || dice.chance(40))).then(|| self.cond(table, 2, dice));
        Policy { permissive: reads || dice.chance(65), command, holds: reads || dice.chance(85), using, check }
    }

    fn cond(&mut self, table: usize, depth: u32, dice: &mut Dice) -> Cond {
        let leaf = |dice: &mut Dice| match dice.below(9) {
            0 => Cond::Const(true),
            1..=3 => Cond::Mine,
            4 => Cond::Group,
            5 | 6 => Cond::Below(dice.below(8) as i64),
            7 => Cond::Flag,
            _ => Cond::Doc,
        };
        if depth == 0 {
            return leaf(dice);
        }
        let mut below = |dice: &mut Dice| Box::new(self.cond(table, depth - 1, dice));
        match dice.below(12) {
            0 => Cond::Not(below(dice)),
            1 => Cond::And(below(dice), below(dice)),
            2 | 3 => Cond::Or(below(dice), below(dice)),
            4..=6 => match up(table) {
                Some(up) => {
                    let definer = dice.chance(25);
                    self.definer |= definer;
                    Cond::Parent(Box::new(self.cond(up, 0, dice)), definer)
                }
                None => leaf(dice),
            },
            7 => match up(table) {
                Some(up) => Cond::Among(Box::new(self.cond(up, 0, dice))),
                None => leaf(dice),
            },
            _ => leaf(dice),
        }
    }

    /// The tables, as the tenant's own script makes them.
    pub fn schema(&self) -> String {
        let table = |table: usize| {
            let refers = |to: Option<usize>| to.map_or(String::new(), |to| format!(" REFERENCES {}(id)", self.name(to)));
            let id = if self.without_rowid[table] { "id INT NOT NULL UNIQUE" } else { "id INTEGER PRIMARY KEY" };
            let key = match (table, self.without_rowid[table]) {
                (3, _) => ", PRIMARY KEY (parent, other, id)) WITHOUT ROWID",
                (_, true) => ", PRIMARY KEY (id)) WITHOUT ROWID",
                _ => ")",
            };
            let required = if table == 3 { " NOT NULL" } else { "" };
            format!(
                "CREATE TABLE {} ({id}, parent INT{required}{}, other INT{required}{}, owner TEXT, grp INT, n INT, flag BOOLEAN, secret TEXT, doc JSON{key};",
                self.name(table),
                refers(up(table)),
                refers(other(table)),
            )
        };
        let view = format!("CREATE VIEW {} AS SELECT * FROM {};", self.name(VIEW), self.name(base(VIEW)));
        (0..4).map(table).collect::<String>() + &view
    }

    pub fn inserts(&self, rows: &Rows) -> String {
        let text = |text: &str| format!("'{text}'");
        let number = |number: Option<i64>| number.map_or("NULL".to_owned(), |number| number.to_string());
        let mut script = String::new();
        for (table, rows) in rows.iter().enumerate() {
            for row in rows {
                script.push_str(&format!(
                    "INSERT INTO {} VALUES ({}, {}, {}, {}, {}, {}, {}, {}, '{}');",
                    self.name(table),
                    row.id,
                    number(row.parent),
                    number(row.other),
                    row.owner.as_deref().map_or("NULL".to_owned(), text),
                    row.grp,
                    row.n,
                    row.flag,
                    text(&row.secret),
                    doc(row),
                ));
            }
        }
        script
    }

    pub fn rows(&self, dice: &mut Dice) -> Rows {
        let mut rows: Rows = Default::default();
        for table in 0..4 {
            for id in 1..=(6 + dice.below(6) as i64) {
                let referred = |rows: &Rows, to: Option<usize>, dice: &mut Dice| {
                    let to = &rows[to?];
                    (table == 3 || dice.chance(85)).then(|| dice.pick(to).id)
                };
                let row = Row {
                    id,
                    parent: referred(&rows, up(table), dice),
                    other: referred(&rows, other(table), dice),
                    owner: dice.pick(&[Some(ME), Some(ME), Some("you"), Some("they"), None]).map(str::to_owned),
                    grp: dice.below(4) as i64,
                    n: dice.below(10) as i64,
                    flag: dice.chance(50),
                    secret: canary(dice),
                    doc: canary(dice),
                    yes: Some(dice.chance(50)),
                };
                rows[table].push(row);
            }
        }
        rows
    }

    /// `CREATE POLICY …` of all tables.
    pub fn policies(&mut self) -> String {
        let mut out = String::new();
        for table in 0..TABLES.len() {
            let name = self.name(table);
            let policies = std::mem::take(&mut self.policies[table]);
            for (at, policy) in policies.iter().enumerate() {
                out.push_str(&format!("CREATE POLICY p{at} ON {name} AS {}", if policy.permissive { "PERMISSIVE" } else { "RESTRICTIVE" }));
                out.push_str(&policy.command.map_or(String::new(), |command| format!(" FOR {command:?}")));
                out.push_str(if policy.holds { " TO authenticated" } else { " TO others" });
                for (words, cond) in [("USING", &policy.using), ("WITH CHECK", &policy.check)] {
                    if let Some(cond) = cond {
                        let text = self.text(table, &name, cond);
                        out.push_str(&format!(" {words} ({text})"));
                    }
                }
                out.push_str(";\n");
            }
            self.policies[table] = policies;
            if self.without_doc[table] {
                out.push_str(&format!("GRANT SELECT (id, parent, other, owner, grp, n, flag, secret) ON {name} TO authenticated;\n"));
            }
        }
        std::mem::take(&mut self.functions) + &out
    }

    fn text(&mut self, table: usize, of: &str, cond: &Cond) -> String {
        match cond {
            Cond::Const(value) => value.to_string(),
            Cond::Mine => format!("{of}.owner = (SELECT auth.uid())"),
            Cond::Group => format!("{of}.grp = length(auth.jwt() ->> 'sub')"),
            Cond::Below(n) => format!("{of}.n < {n}"),
            Cond::Flag => format!("{of}.flag"),
            Cond::Doc => format!("({of}.doc ->> 'yes')::boolean"),
            Cond::Parent(cond, definer) => {
                let Some(up) = up(table) else { return "false".to_owned() };
                let (text, name) = (self.text(up, "p", cond), self.name(up));
                if !definer {
                    return format!("EXISTS (SELECT 1 FROM {name} p WHERE p.id = {of}.parent AND {text})");
                }
                let function = format!("{}_f{}", self.prefix, self.functions.matches("CREATE FUNCTION").count());
                self.functions.push_str(&format!(
                    "CREATE FUNCTION {function}(wanted int) RETURNS boolean SECURITY DEFINER AS $$ SELECT EXISTS (SELECT 1 FROM {name} p WHERE p.id = wanted AND {text}) $$;\n"
                ));
                format!("{function}({of}.parent)")
            }
            Cond::Among(cond) => {
                let Some(up) = up(table) else { return "false".to_owned() };
                let (text, name) = (self.text(up, "p", cond), self.name(up));
                format!("{of}.parent IN (SELECT id FROM {name} p WHERE {text})")
            }
            Cond::Not(one) => format!("NOT ({})", self.text(table, of, one)),
            Cond::And(one, two) => format!("(({}) AND ({}))", self.text(table, of, one), self.text(table, of, two)),
            Cond::Or(one, two) => format!("(({}) OR ({}))", self.text(table, of, one), self.text(table, of, two)),
        }
    }

    /// As SQL has it: true, false, or neither.
    fn holds(&self, rows: &Rows, table: usize, row: &Row, cond: &Cond) -> Option<bool> {
        let up_rows = |seen: bool| {
            let up = up(table);
            up.into_iter().flat_map(move |up| rows[up].iter().filter(move |row| !seen || self.sees(rows, up, row)))
        };
        match cond {
            Cond::Const(value) => Some(*value),
            Cond::Mine => row.owner.as_ref().map(|owner| owner == ME),
            Cond::Group => Some(row.grp == ME.len() as i64),
            Cond::Below(n) => Some(row.n < *n),
            Cond::Flag => Some(row.flag),
            Cond::Doc => row.yes,
            Cond::Parent(cond, definer) => {
                let mut found = up_rows(!definer).filter(|one| Some(one.id) == row.parent);
                Some(found.any(|one| up(table).is_some_and(|up| self.holds(rows, up, one, cond) == Some(true))))
            }
            Cond::Among(cond) => {
                let among: Vec<i64> = up_rows(true)
                    .filter(|one| up(table).is_some_and(|up| self.holds(rows, up, one, cond) == Some(true)))
                    .map(|one| one.id)
                    .collect();
                match row.parent {
                    Some(parent) => Some(among.contains(&parent)),
                    None => among.is_empty().then_some(false),
                }
            }
            Cond::Not(one) => self.holds(rows, table, row, one).map(|holds| !holds),
            Cond::And(one, two) => match (self.holds(rows, table, row, one), self.holds(rows, table, row, two)) {
                (Some(false), _) | (_, Some(false)) => Some(false),
                (Some(true), Some(true)) => Some(true),
                _ => None,
            },
            Cond::Or(one, two) => match (self.holds(rows, table, row, one), self.holds(rows, table, row, two)) {
                (Some(true), _) | (_, Some(true)) => Some(true),
                (Some(false), Some(false)) => Some(false),
                _ => None,
            },
        }
    }

    fn of(&self, table: usize, command: Command) -> impl Iterator<Item = &Policy> {
        self.policies[table].iter().filter(move |policy| policy.holds && policy.command.is_none_or(|own| own == command))
    }

    /// Whether the command is open at all.
    pub fn admits(&self, table: usize, command: Command) -> bool {
        self.of(table, command).any(|policy| policy.permissive)
    }

    fn passes(&self, rows: &Rows, table: usize, row: &Row, command: Command, written: bool) -> bool {
        let cond = |policy: &Policy| if written { policy.check.clone().or(policy.using.clone()) } else { policy.using.clone() };
        let said = |permissive: bool| {
            self.of(table, command)
                .filter(move |policy| policy.permissive == permissive)
                .filter_map(cond)
                .map(|cond| self.holds(rows, table, row, &cond))
        };
        said(true).any(|holds| holds == Some(true)) && said(false).all(|holds| holds == Some(true))
    }

    pub fn sees(&self, rows: &Rows, table: usize, row: &Row) -> bool {
        self.passes(rows, table, row, Command::Select, false)
    }

    /// Whether a row that is there may be changed or deleted.
    pub fn may_touch(&self, rows: &Rows, table: usize, row: &Row, command: Command) -> bool {
        self.sees(rows, table, row) && self.passes(rows, table, row, command, false)
    }

    /// Whether a row may be as it was written.
    pub fn may_be(&self, rows: &Rows, table: usize, row: &Row, command: Command) -> bool {
        self.passes(rows, table, row, command, true) && (command == Command::Insert || self.sees(rows, table, row))
    }

    /// The ids of the rows that the caller sees.
    pub fn seen(&self, rows: &Rows) -> [Vec<i64>; 5] {
        std::array::from_fn(|table| rows[base(table)].iter().filter(|row| self.sees(rows, table, row)).map(|row| row.id).collect())
    }

    /// Whether a table's row, of which this is `seen`, is told anything of; and whether of its `doc`.
    pub fn is_told(&self, seen: &[Vec<i64>; 5], table: usize, id: i64) -> (bool, bool) {
        let by: Vec<usize> = (0..TABLES.len()).filter(|by| base(*by) == table && seen[*by].contains(&id)).collect();
        (!by.is_empty(), by.into_iter().any(|by| !self.without_doc[by]))
    }

    /// The same world to the caller: other bytes wherever it sees nothing.
    pub fn twin(&self, rows: &Rows, dice: &mut Dice) -> Rows {
        let seen = self.seen(rows);
        let mut twin = rows.clone();
        for (table, rows) in twin.iter_mut().enumerate() {
            for row in rows.iter_mut() {
                let (is_told, doc_is_told) = self.is_told(&seen, table, row.id);
                if !is_told {
                    row.secret = canary(dice);
                }
                if !doc_is_told {
                    row.doc = canary(dice);
                }
            }
        }
        let mut further = twin.clone();
        for (table, rows) in further.iter_mut().enumerate() {
            for row in rows.iter_mut().filter(|row| !self.is_told(&seen, table, row.id).0) {
                row.n = dice.below(10) as i64;
                row.grp = dice.below(4) as i64;
                row.flag = dice.chance(50);
                row.yes = Some(dice.chance(50));
                row.owner = Some("nobody".to_owned());
            }
        }
        // Where others' rows say what is seen, they stay as they are.
        if !self.definer && self.seen(&further) == seen { further } else { twin }
    }

    /// Rows as `POST /v1/sql` answers them, all columns in order.
    pub fn read(rows: &Value) -> Vec<Row> {
        let row = |row: &Value| {
            let doc: Value = serde_json::from_str(row[8].as_str().unwrap_or("{}")).unwrap_or(json!({}));
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            Row {
                id: row[0].as_i64().unwrap(),
                parent: row[1].as_i64(),
                other: row[2].as_i64(),
                owner: row[3].as_str().map(str::to_owned),
                grp: row[4].as_i64().unwrap_or(-1),
                n: row[5].as_i64().unwrap_or(-1),
                flag: row[6].as_i64() == Some(1),
                secret: text(&row[7]),
                doc: text(&doc["c"]),
                yes: doc["yes"].as_bool(),
            }
        };
        rows.as_array().unwrap().iter().map(row).collect()
    }
}

/// With a flag that policies read there.
pub fn doc(row: &Row) -> String {
    json!({ "c": row.doc, "yes": row.yes }).to_string()
}

pub fn canary(dice: &mut Dice) -> String {
    format!("k{:011x}", dice.below(1 << 44))
}
