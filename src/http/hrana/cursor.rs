//! [`Cursors`]: the results of batches that a socket's client reads piece by piece. A cursor's batch has run before its
//! first piece goes out; what is left of its entries counts as not read yet. Clients ask for entries ahead of that: who
//! asks too early waits here.

use std::collections::{HashMap, VecDeque};

use actix_web::web::Bytes;

use crate::http::unread::Unread;

/// Cursors of one socket.
pub const CURSORS_MAX: usize = 32;

/// Entries go out in messages of about so many bytes.
const FETCH_BYTES: usize = 64 << 10;

#[derive(Default)]
pub struct Cursors {
    open: HashMap<i32, Cursor>,
}

struct Cursor {
    stream: i32,
    state: State,
}

enum State {
    /// Its batch is not done.
    Opening(VecDeque<Asked>),
    /// Lines of JSON.
    Open { entries: Bytes, _counted: Unread },
}

/// A request for entries.
#[derive(Clone, Copy)]
pub struct Asked {
    pub id: i32,
    pub most: u32,
}

pub enum Fetched {
    /// Entries by the line, and whether they were the last.
    Entries(Bytes, bool),
    /// Answered once the cursor is open.
    Later,
    NoCursor,
}

impl Cursors {
    pub fn has(&self, number: i32) -> bool {
        self.open.contains_key(&number)
    }

    pub fn is_full(&self) -> bool {
        self.open.len() >= CURSORS_MAX
    }

    pub fn begin(&mut self, number: i32, stream: i32) {
        self.open.insert(number, Cursor { stream, state: State::Opening(VecDeque::new()) });
    }

    /// Its batch has run, or failed as a whole; who has asked already. One that was closed meanwhile stays closed.
    pub fn opened(&mut self, number: i32, entries: Option<(Bytes, Unread)>) -> VecDeque<Asked> {
        let Some(cursor) = self.open.get_mut(&number) else { return VecDeque::new() };
        let State::Opening(asked) = &mut cursor.state else { return VecDeque::new() };
        let asked = std::mem::take(asked);
        match entries {
            Some((entries, counted)) => cursor.state = State::Open { entries, _counted: counted },
            None => drop(self.open.remove(&number)),
        }
        asked
    }

    pub fn fetch(&mut self, number: i32, asked: Asked) -> Fetched {
        match self.open.get_mut(&number).map(|cursor| &mut cursor.state) {
            None => Fetched::NoCursor,
            Some(State::Opening(all)) => {
                all.push_back(asked);
                Fetched::Later
            }
            Some(State::Open { entries, .. }) => {
                let piece = piece(entries, usize::try_from(asked.most).unwrap_or(usize::MAX));
                Fetched::Entries(entries.split_to(piece), entries.is_empty())
            }
        }
    }

    /// Who asked for entries that will not come.
    pub fn close(&mut self, number: i32) -> VecDeque<Asked> {
        match self.open.remove(&number).map(|cursor| cursor.state) {
            Some(State::Opening(asked)) => asked,
            Some(State::Open { .. }) | None => VecDeque::new(),
        }
    }

    /// With the stream that they run on.
    pub fn close_of(&mut self, stream: i32) -> VecDeque<Asked> {
        let closed = self.open.extract_if(|_, cursor| cursor.stream == stream);
        closed.filter_map(|(_, cursor)| if let State::Opening(asked) = cursor.state { Some(asked) } else { None }).flatten().collect()
    }
}

/// The bytes of the next entries. The last one begins within [`FETCH_BYTES`], so one that is larger goes out too.
fn piece(entries: &[u8], most: usize) -> usize {
    let mut end = 0;
    for next in memchr::memchr_iter(b'\n', entries).take(most) {
        if end >= FETCH_BYTES {
            break;
        }
        end = next + 1;
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_has_whole_entries_within_both_bounds() {
        assert_eq!(piece(b"ab\nc\nd\n", 2), 5);
        assert_eq!(piece(b"ab\nc\nd\n", 9), 7);
        assert_eq!((piece(b"ab\n", 0), piece(b"", 9)), (0, 0));
        let large = [&vec![b'x'; 2 * FETCH_BYTES][..], b"\nc\n"].concat();
        assert_eq!(piece(&large, 9), 2 * FETCH_BYTES + 1);
    }
}
