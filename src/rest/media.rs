//! In which form rows are answered, as the `Accept` header asks for it.

use super::refusal;
use super::render::Layout;
use crate::error::Result;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Media {
    /// An array of objects.
    Json {
        stripped: bool,
    },
    /// One object; anything but one row is an error.
    Object {
        stripped: bool,
    },
    Csv,
    /// How SQLite would find the rows; for the service only.
    Plan {
        json: bool,
    },
    /// What there is, of the root only.
    OpenApi,
}

impl Media {
    /// The first of what is accepted, by preference, that can be made.
    pub fn negotiate(accept: Option<&str>) -> Result<Media> {
        let Some(accept) = accept.filter(|accept| !accept.trim().is_empty()) else { return Ok(Media::Json { stripped: false }) };
        let mut ranges: Vec<(f32, &str)> = accept.split(',').map(|range| (quality(range), range)).filter(|(q, _)| *q > 0.0).collect();
        ranges.sort_by(|a, b| b.0.total_cmp(&a.0));
        ranges.into_iter().find_map(|(_, range)| Media::of(range)).ok_or_else(|| refusal::unacceptable(accept))
    }

    fn of(range: &str) -> Option<Media> {
        let mut parts = range.split(';').map(str::trim);
        let name = parts.next()?.to_ascii_lowercase();
        let stripped = parts.any(|part| part.eq_ignore_ascii_case("nulls=stripped"));
        match name.as_str() {
            "*/*" | "application/*" | "application/json" => Some(Media::Json { stripped: false }),
            "application/vnd.pgrst.array+json" | "application/vnd.pgrst.array" => Some(Media::Json { stripped }),
            "application/vnd.pgrst.object+json" | "application/vnd.pgrst.object" => Some(Media::Object { stripped }),
            "text/csv" => Some(Media::Csv),
            "application/vnd.pgrst.plan+json" => Some(Media::Plan { json: true }),
            "application/vnd.pgrst.plan+text" | "application/vnd.pgrst.plan" => Some(Media::Plan { json: false }),
            "application/openapi+json" => Some(Media::OpenApi),
            _ => None,
        }
    }

    pub const fn content_type(self) -> &'static str {
        match self {
            Media::Json { stripped: false } => "application/json; charset=utf-8",
            Media::Json { stripped: true } => "application/vnd.pgrst.array+json;nulls=stripped; charset=utf-8",
            Media::Object { stripped: false } => "application/vnd.pgrst.object+json; charset=utf-8",
            Media::Object { stripped: true } => "application/vnd.pgrst.object+json;nulls=stripped; charset=utf-8",
            Media::Csv => "text/csv; charset=utf-8",
            Media::Plan { json: true } => "application/vnd.pgrst.plan+json; for=\"application/json\"; charset=utf-8",
            Media::Plan { json: false } => "application/vnd.pgrst.plan+text; for=\"application/json\"; charset=utf-8",
            Media::OpenApi => "application/openapi+json; charset=utf-8",
        }
    }

    pub const fn layout(self) -> Layout {
        match self {
            Media::Csv => Layout::Columns,
            Media::Json { stripped } | Media::Object { stripped } => Layout::Object { stripped },
            Media::Plan { .. } | Media::OpenApi => Layout::Object { stripped: false },
        }
    }
}

fn quality(range: &str) -> f32 {
    let q = range.split(';').find_map(|part| part.trim().strip_prefix("q="));
    q.and_then(|q| q.parse().ok()).unwrap_or(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_that_can_be_made_is_chosen() {
        for (accept, media) in [
            ("application/json", Media::Json { stripped: false }),
            ("text/html,application/xml;q=0.9,*/*;q=0.8", Media::Json { stripped: false }),
            ("application/json;q=0.5, text/csv", Media::Csv),
            ("application/vnd.pgrst.object+json;nulls=stripped", Media::Object { stripped: true }),
            ("text/csv; version=1", Media::Csv),
        ] {
            assert_eq!(Media::negotiate(Some(accept)).unwrap(), media, "{accept}");
        }
        assert!(Media::negotiate(Some("text/unknowntype")).is_err());
    }
}
