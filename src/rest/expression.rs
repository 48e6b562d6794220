//! An [`Expression`] is a value in a statement: its SQL and what it holds. Names in it come from the schema only;
//! what a request says is bound.

use super::refusal;
use super::select::{Aggregate, Step};
use super::value::Kind;
use crate::error::Result;
use crate::sqlite::Writing;

#[derive(Clone, Debug)]
pub struct Expression {
    pub sql: String,
    pub form: Form,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Value(Kind),
    /// JSON that SQLite or we have written, or NULL.
    Document,
}

impl Expression {
    pub fn value(sql: String, kind: Kind) -> Expression {
        Expression { sql, form: Form::Value(kind) }
    }

    pub fn document(sql: String) -> Expression {
        Expression { sql, form: Form::Document }
    }

    pub fn kind(&self) -> Kind {
        match self.form {
            Form::Value(kind) => kind,
            Form::Document => Kind::Json,
        }
    }

    /// Its JSON; never NULL.
    pub fn json(&self) -> String {
        let sql = &self.sql;
        match self.form {
            Form::Document => format!("coalesce({sql},'null')"),
            Form::Value(Kind::Boolean) => format!("CASE {sql} WHEN 1 THEN 'true' WHEN 0 THEN 'false' ELSE tenantry_json({sql}) END"),
            // Text that is no JSON is a string. 9: text, or SQLite's own binary form.
            Form::Value(Kind::Json) => format!("CASE WHEN json_valid({sql},9) THEN json({sql}) ELSE tenantry_json({sql}) END"),
            Form::Value(_) => format!("tenantry_json({sql})"),
        }
    }

    /// As a value that [`Writing`] makes JSON of: itself, unless it is JSON that nobody has looked at.
    pub fn raw(&self) -> String {
        match self.form {
            Form::Value(Kind::Json) => self.json(),
            _ => self.sql.clone(),
        }
    }

    /// How what [`Expression::raw`] gives becomes JSON.
    pub fn writing(&self) -> Writing {
        match self.form {
            Form::Document | Form::Value(Kind::Json) => Writing::AsItIs,
            Form::Value(Kind::Boolean) => Writing::Boolean,
            Form::Value(_) => Writing::Value,
        }
    }

    /// As a field of CSV: text, or NULL.
    pub fn text(&self) -> String {
        let sql = &self.sql;
        match self.form {
            Form::Value(Kind::Boolean) => format!("CASE {sql} WHEN 1 THEN 'true' WHEN 0 THEN 'false' ELSE {sql} END"),
            Form::Value(Kind::Json) => format!("CASE WHEN json_valid({sql},9) THEN json({sql}) ELSE {sql} END"),
            _ => sql.clone(),
        }
    }

    /// What `path`, a bound JSON path, leads to. A row whose value is no JSON has nothing there.
    pub fn within(&self, path: &str, as_text: bool) -> Expression {
        let whole = self.whole();
        if !as_text {
            return Expression::document(format!("(({whole})->{path})"));
        }
        // As PostgreSQL's `->>`: numbers and booleans as JSON spells them.
        let sql = format!(
            "(CASE json_type({whole},{path}) WHEN 'text' THEN ({whole})->>{path} WHEN 'null' THEN NULL ELSE ({whole})->{path} END)"
        );
        Expression::value(sql, Kind::Text)
    }

    /// The same to order by: numbers as numbers, where JSON's text would put 10 before 9.
    pub fn ordered_within(&self, path: &str) -> Expression {
        Expression::value(format!("(({})->>{path})", self.whole()), Kind::Any)
    }

    /// It, if it is JSON; else NULL.
    pub fn whole(&self) -> String {
        format!("CASE WHEN json_valid({0},9) THEN {0} END", self.sql)
    }

    /// `name` is PostgreSQL's.
    pub fn cast(&self, name: &str) -> Result<Expression> {
        let sql = &self.sql;
        let (sql, kind) = match name.to_ascii_lowercase().as_str() {
            "text" | "varchar" | "character varying" | "char" | "bpchar" | "citext" | "name" | "uuid" => match self.form {
                Form::Value(Kind::Boolean) => (format!("({})", self.text()), Kind::Text),
                _ => (format!("CAST({sql} AS TEXT)"), Kind::Text),
            },
            "int2" | "int4" | "int8" | "smallint" | "int" | "integer" | "bigint" => {
                // Rounded, as PostgreSQL does it. An integer is left alone: past 2^53 it would lose digits.
                (format!("CAST(CASE typeof({sql}) WHEN 'real' THEN round({sql}) ELSE {sql} END AS INTEGER)"), Kind::Integer)
            }
            "float4" | "float8" | "real" | "double precision" => (format!("CAST({sql} AS REAL)"), Kind::Number),
            "numeric" | "decimal" => (format!("CAST({sql} AS NUMERIC)"), Kind::Number),
            "bool" | "boolean" => {
                let truth = format!("(CASE WHEN lower({sql}) IN ('1','t','true','y','yes','on') THEN 1 WHEN {sql} IS NOT NULL THEN 0 END)");
                (truth, Kind::Boolean)
            }
            "json" | "jsonb" => (sql.clone(), Kind::Json),
            "date" => (format!("date({sql})"), Kind::Text),
            "time" => (format!("time({sql})"), Kind::Text),
            "timestamp" | "timestamptz" => (sql.clone(), Kind::Text),
            _ => return Err(refusal::unknown_type(name)),
        };
        Ok(Expression::value(sql, kind))
    }

    pub fn aggregate(&self, aggregate: Aggregate) -> Expression {
        let kind = match aggregate {
            Aggregate::Count => Kind::Integer,
            Aggregate::Sum | Aggregate::Avg => Kind::Number,
            Aggregate::Min | Aggregate::Max => self.kind(),
        };
        Expression::value(format!("{}({})", aggregate.name(), self.sql), kind)
    }
}

/// `{"name":value,…}` of members as `tenantry_object` takes them. In parts where SQLite has a bound on arguments.
pub fn object(members: &[String]) -> String {
    const PART: usize = 60;
    let parts = members.chunks(PART).map(|part| part.join(","));
    if members.len() <= PART {
        return format!("tenantry_object({})", parts.collect::<String>());
    }
    let parts: Vec<_> = parts.map(|part| format!("tenantry_members({part})")).collect();
    format!("'{{'||substr({},2)||'}}'", parts.join("||"))
}

/// A member's name with its colon.
pub fn member_text(name: &str) -> String {
    format!("{}:", serde_json::Value::from(name))
}

/// A path into JSON, to be bound.
pub fn json_path(steps: &[Step]) -> String {
    let mut path = "$".to_owned();
    for step in steps {
        match step {
            Step::Key(key) => path.push_str(&format!(".{}", serde_json::Value::from(key.as_str()))),
            Step::Index(index) if *index < 0 => path.push_str(&format!("[#{index}]")),
            Step::Index(index) => path.push_str(&format!("[{index}]")),
        }
    }
    path
}

pub fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

pub fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
