//! A [`Page`] is from where to where of the rows: `limit`, `offset` and the `Range` header; and how the answer says
//! where it stands: `Content-Range`, 206 and 416.

use super::refusal;
use crate::error::Result;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Page {
    pub offset: u64,
    pub limit: Option<u64>,
}

impl Page {
    /// What both the parameters and the header let through.
    pub fn of(limit: Option<&str>, offset: Option<&str>, range: Option<&str>) -> Result<Page> {
        let limit = match limit.and_then(|limit| limit.parse::<i64>().ok()) {
            Some(limit) => Some(u64::try_from(limit).map_err(|_| refusal::bad_range("Limit should be greater than or equal to zero."))?),
            None => None,
        };
        let offset = offset.and_then(|offset| offset.parse::<i64>().ok()).map_or(0, |offset| u64::try_from(offset).unwrap_or(0));
        let asked = Page { offset, limit };
        let Some((first, last)) = range.and_then(parse) else { return Ok(asked) };
        if last.is_some_and(|last| last < first) {
            return Err(refusal::bad_range("The lower boundary must be lower than or equal to the upper boundary in the Range header."));
        }
        let offset = asked.offset.max(first);
        let ends = [last.map(|last| last.saturating_add(1)), asked.limit.map(|limit| asked.offset.saturating_add(limit))];
        let end = ends.into_iter().flatten().min();
        Ok(Page { offset, limit: end.map(|end| end.saturating_sub(offset)) })
    }

    /// As SQLite takes it.
    pub fn limit_bound(&self) -> Option<i64> {
        self.limit.map(|limit| i64::try_from(limit).unwrap_or(i64::MAX))
    }

    /// As SQLite takes it.
    pub fn offset_bound(&self) -> i64 {
        i64::try_from(self.offset).unwrap_or(i64::MAX)
    }

    /// The answer's status and `Content-Range` for `rows` rows of `total`.
    pub fn placed(&self, rows: u64, total: Option<u64>) -> Result<(u16, String)> {
        match total {
            Some(total) if self.offset > total => {
                Err(refusal::bad_range(format!("An offset of {} was requested, but there are only {total} rows.", self.offset)))
            }
            Some(total) if rows < total => Ok((206, content_range(self.offset, rows, Some(total)))),
            _ => Ok((200, content_range(self.offset, rows, total))),
        }
    }
}

/// `0-9/*`; `*` for no rows.
pub fn content_range(offset: u64, rows: u64, total: Option<u64>) -> String {
    let total = total.map_or("*".to_owned(), |total| total.to_string());
    match rows {
        0 => format!("*/{total}"),
        rows => format!("{offset}-{}/{total}", offset + rows - 1),
    }
}

/// `0-9` or `10-`; what is no range is not looked at, as HTTP has it.
fn parse(range: &str) -> Option<(u64, Option<u64>)> {
    let range = range.trim();
    let range = range.strip_prefix("items=").unwrap_or(range);
    let (first, last) = range.split_once('-')?;
    Some((first.parse().ok()?, if last.is_empty() { None } else { Some(last.parse().ok()?) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_and_the_parameters_both_bound() {
        let page = |limit, offset, range| Page::of(limit, offset, range).unwrap();
        assert_eq!(page(Some("3"), Some("2"), None), Page { offset: 2, limit: Some(3) });
        assert_eq!(page(None, None, Some("0-1")), Page { offset: 0, limit: Some(2) });
        assert_eq!(page(None, None, Some("5-")), Page { offset: 5, limit: None });
        assert_eq!(page(Some("10"), None, Some("4-20")), Page { offset: 4, limit: Some(6) });
        assert_eq!(page(Some("2"), None, Some("4-20")), Page { offset: 4, limit: Some(0) });
        assert_eq!(page(Some("2"), None, Some("nonsense")), Page { offset: 0, limit: Some(2) });
        assert!(Page::of(Some("-1"), None, None).is_err());
        assert!(Page::of(None, None, Some("1-0")).is_err());
    }

    #[test]
    fn an_answer_says_where_it_stands() {
        let from = |offset| Page { offset, limit: None };
        assert_eq!(from(0).placed(15, None).unwrap(), (200, "0-14/*".to_owned()));
        assert_eq!(from(0).placed(15, Some(15)).unwrap(), (200, "0-14/15".to_owned()));
        assert_eq!(from(2).placed(3, Some(15)).unwrap(), (206, "2-4/15".to_owned()));
        assert_eq!(from(0).placed(0, Some(0)).unwrap(), (200, "*/0".to_owned()));
        assert_eq!(from(100).placed(0, None).unwrap(), (200, "*/*".to_owned()));
        assert!(from(100).placed(0, Some(15)).is_err());
    }
}
