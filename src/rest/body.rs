//! A [`Body`] is an answer being written while SQLite steps: objects of a row's columns, of which what is embedded is JSON
//! already, or lines of CSV, within the plan's bounds.

use rusqlite::types::ValueRef;

use super::media::Media;
use super::refusal;
use super::render::{Layout, Member};
use crate::config::Plan;
use crate::error::{Code, Error, Result};
use crate::sqlite::{Cells, Draft, Finished};

pub struct Body<'p> {
    media: Media,
    /// Any number of rows, not one.
    many: bool,
    layout: Layout,
    members: &'p [Member],
    plan: &'p Plan,
    out: Draft<'p>,
    pub rows: u64,
}

impl<'p> Body<'p> {
    pub fn new(out: Draft<'p>, media: Media, layout: Layout, many: bool, members: &'p [Member], plan: &'p Plan) -> Result<Body<'p>> {
        let mut body = Body { media, many, layout, members, plan, out, rows: 0 };
        match media {
            Media::Json { .. } if many => body.out.push(b'['),
            Media::Csv => body.line(members.iter().map(|member| ValueRef::Text(member.name.as_bytes())))?,
            Media::Json { .. } | Media::Object { .. } | Media::Plan { .. } | Media::OpenApi => {}
        }
        Ok(body)
    }

    pub fn row(&mut self, cells: &Cells<'_>) -> Result<()> {
        self.rows += 1;
        if self.plan.result_rows > 0 && self.rows > self.plan.result_rows {
            return Err(too_large("rows", "result_rows"));
        }
        match self.media {
            Media::Csv => {
                self.out.push(b'\n');
                self.line(cells.iter())?;
            }
            // Only counted: one is too many already.
            Media::Object { .. } if self.rows > 1 => {}
            _ => {
                if self.rows > 1 {
                    self.out.push(b',');
                }
                match (self.layout, cells.iter().next(), self.members.first()) {
                    (Layout::Bare, Some(value), Some(member)) => self.value(member, value)?,
                    (layout, ..) => self.object(cells, layout == Layout::Object { stripped: true })?,
                }
            }
        }
        self.out.settle()?;
        if self.plan.result_bytes > 0 && self.out.len() as u64 > self.plan.result_bytes {
            return Err(too_large("bytes", "result_bytes"));
        }
        Ok(())
    }

    pub fn finish(mut self) -> Result<Finished> {
        match self.media {
            Media::Json { .. } if self.many => self.out.push(b']'),
            Media::Json { .. } if self.rows == 0 => self.out.extend_from_slice(b"null"),
            Media::Object { .. } if self.rows != 1 => return Err(refusal::not_one(self.rows)),
            _ => {}
        }
        Ok(self.out.finish())
    }

    fn object(&mut self, cells: &Cells<'_>, stripped: bool) -> Result<()> {
        self.out.push(b'{');
        let empty = self.out.len();
        for (member, value) in self.members.iter().zip(cells.iter()) {
            let start = self.out.len();
            if start > empty {
                self.out.push(b',');
            }
            self.out.extend_from_slice(member.key.as_bytes());
            let begins = self.out.len();
            self.value(member, value)?;
            if stripped && self.out[begins..] == *b"null" {
                self.out.truncate(start);
            }
        }
        self.out.push(b'}');
        Ok(())
    }

    fn value(&mut self, member: &Member, value: ValueRef<'_>) -> Result<()> {
        self.out.expect(length(value))?;
        member.writing.write(value, &mut self.out);
        Ok(())
    }

    fn line<'v>(&mut self, values: impl Iterator<Item = ValueRef<'v>>) -> Result<()> {
        for (at, value) in values.enumerate() {
            if at > 0 {
                self.out.push(b',');
            }
            self.out.expect(length(value))?;
            match value {
                ValueRef::Null => {}
                ValueRef::Integer(value) => self.out.extend_from_slice(value.to_string().as_bytes()),
                ValueRef::Real(value) => self.out.extend_from_slice(value.to_string().as_bytes()),
                ValueRef::Text(text) => self.field(&String::from_utf8_lossy(text)),
                ValueRef::Blob(bytes) => {
                    use base64::Engine as _;
                    self.field(&base64::engine::general_purpose::STANDARD.encode(bytes));
                }
            }
        }
        Ok(())
    }

    /// An empty text is quoted: nothing at all is NULL.
    fn field(&mut self, text: &str) {
        if text.is_empty() || text.contains([',', '"', '\n', '\r']) {
            self.out.extend_from_slice(format!("\"{}\"", text.replace('"', "\"\"")).as_bytes());
        } else {
            self.out.extend_from_slice(text.as_bytes());
        }
    }
}

/// About as many bytes as it takes in the answer, if they are many.
fn length(value: ValueRef<'_>) -> usize {
    match value {
        ValueRef::Null | ValueRef::Integer(_) | ValueRef::Real(_) => 0,
        ValueRef::Text(text) => text.len(),
        ValueRef::Blob(bytes) => base64::encoded_len(bytes.len(), true).unwrap_or(0),
    }
}

pub(super) fn too_large(what: &str, bound: &str) -> Error {
    Error::new(Code::ResultTooLarge, format!("the answer has more {what} than the plan allows"))
        .hint(format!("The plan's bound is {bound}. A limit, fewer columns or pages help."))
}
