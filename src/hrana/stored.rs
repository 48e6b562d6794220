//! Texts of SQL that a client has stored, to send their ids instead: of one stream over HTTP, of the whole socket over
//! WebSocket. Bounded in number and in bytes.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use super::proto::{Batch, Sql, Stmt, StreamRequest};
use crate::error::{Error, Result};

/// Texts stored at once. (`@libsql/client` stores a hundred.)
const TEXTS_MAX: usize = 256;

/// Their bytes together.
const BYTES_MAX: usize = 1 << 20;

#[derive(Debug, Default)]
pub struct Stored {
    texts: HashMap<i32, Arc<str>>,
    bytes: usize,
}

impl Stored {
    pub fn store(&mut self, id: i32, sql: Arc<str>) -> Result<()> {
        if self.texts.len() >= TEXTS_MAX || self.bytes + sql.len() > BYTES_MAX {
            return Err(Error::bad_request(format!("more than {TEXTS_MAX} texts, or {BYTES_MAX} bytes of them, are stored"))
                .hint("Close those that are not needed (close_sql), or send the SQL itself."));
        }
        match self.texts.entry(id) {
            Entry::Occupied(_) => Err(Error::bad_request(format!("there is a text stored under {id} already"))),
            Entry::Vacant(free) => {
                self.bytes += sql.len();
                free.insert(sql);
                Ok(())
            }
        }
    }

    /// Closing what is not there is fine.
    pub fn close(&mut self, id: i32) {
        if let Some(sql) = self.texts.remove(&id) {
            self.bytes -= sql.len();
        }
    }

    /// The request with texts in the place of their ids.
    pub fn resolve(&self, request: StreamRequest) -> Result<StreamRequest> {
        Ok(match request {
            StreamRequest::Execute(stmt) => StreamRequest::Execute(Stmt { sql: Sql::Text(self.text(&stmt.sql)?), ..stmt }),
            StreamRequest::Batch(Batch { mut steps }) => {
                for step in &mut steps {
                    step.stmt.sql = Sql::Text(self.text(&step.stmt.sql)?);
                }
                StreamRequest::Batch(Batch { steps })
            }
            StreamRequest::Sequence(sql) => StreamRequest::Sequence(Sql::Text(self.text(&sql)?)),
            StreamRequest::Describe(sql) => StreamRequest::Describe(Sql::Text(self.text(&sql)?)),
            other => other,
        })
    }

    pub fn text(&self, sql: &Sql) -> Result<Arc<str>> {
        match sql {
            Sql::Text(text) => Ok(text.clone()),
            Sql::Stored(id) => self.texts.get(id).cloned().ok_or_else(|| Error::bad_request(format!("there is no text stored under {id}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_text_stands_for_its_id_until_it_is_closed() {
        let mut stored = Stored::default();
        stored.store(-1, "SELECT 1".into()).unwrap();
        assert!(stored.store(-1, "SELECT 2".into()).is_err());
        let ask = |stored: &Stored| stored.resolve(StreamRequest::Describe(Sql::Stored(-1)));
        assert_eq!(ask(&stored).unwrap(), StreamRequest::Describe(Sql::Text("SELECT 1".into())));
        stored.close(-1);
        stored.close(-1);
        assert!(ask(&stored).is_err());
    }

    #[test]
    fn what_is_stored_is_bounded_in_number_and_in_bytes() {
        let mut stored = Stored::default();
        (0..TEXTS_MAX as i32).for_each(|id| stored.store(id, "x".into()).unwrap());
        assert!(stored.store(-1, "x".into()).is_err());
        (0..TEXTS_MAX as i32).for_each(|id| stored.close(id));
        stored.store(0, "x".repeat(BYTES_MAX).into()).unwrap();
        assert!(stored.store(1, "x".into()).is_err());
    }
}
