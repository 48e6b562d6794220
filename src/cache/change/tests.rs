use super::super::tests::{file, key, put, tagged};
use super::*;
use crate::cache::{Answer, Memory, Seconds, Terms, Thrown};

struct Tiers {
    _dir: tempfile::TempDir,
    file: Arc<crate::sqlite::Database>,
    memory: Arc<Memory>,
}

impl Tiers {
    fn new() -> Tiers {
        let dir = tempfile::tempdir().unwrap();
        Tiers { file: file(&dir), memory: Memory::new(1 << 20), _dir: dir }
    }

    fn cache(&self) -> Cache<'_> {
        Cache::new(&self.file, &self.memory)
    }

    async fn begin(&self) -> Change {
        self.cache().begin_change(key("k")).await.unwrap()
    }

    async fn text(&self) -> Option<String> {
        let found = self.cache().get(key("k")).await.unwrap();
        found.map(|found| String::from_utf8(found.value.clone().unwrap().to_vec()).unwrap())
    }

    /// Whether somebody who would fill the entry may.
    async fn is_free(&self) -> bool {
        match self.cache().get_or_fill(key("k"), Seconds::new("fill", 60).unwrap()).await.unwrap() {
            Answer::Fill(fill, _) => self.cache().give_up(&key("k"), fill.token).is_ok(),
            Answer::Found(_) | Answer::Wait(_) => false,
        }
    }
}

fn entry(value: &str) -> Put {
    put("k", value, Terms::default())
}

#[tokio::test]
async fn of_changes_at_the_same_time_none_sets_the_entry_and_the_last_one_frees_it() {
    let tiers = Tiers::new();
    let (first, second) = (tiers.begin().await, tiers.begin().await);
    let refused = tiers.cache().settle(second, entry("2")).await.unwrap_err();
    assert_eq!(refused.code(), Code::LeaseLost);
    assert!(tiers.text().await.is_none() && !tiers.is_free().await, "the first one's may still be made");
    tiers.cache().settle(first, entry("1")).await.unwrap_err();
    assert!(tiers.text().await.is_none() && tiers.is_free().await);
    let third = tiers.begin().await;
    tiers.cache().settle(third, entry("3")).await.unwrap();
    assert_eq!(tiers.text().await.as_deref(), Some("3"));
}

#[tokio::test]
async fn what_is_written_or_thrown_away_meanwhile_does_not_free_the_entry_and_does_not_stay() {
    let tiers = Tiers::new();
    for way in 0..4 {
        let change = tiers.begin().await;
        match way {
            0 => drop(tiers.cache().put(entry("meanwhile"), None).await.unwrap()),
            1 => tiers.cache().delete(key("k"), Conditions::default()).await.unwrap(),
            2 => tiers.cache().throw(Thrown::Everything).await.unwrap(),
            _ => tiers.cache().throw(Thrown::Tag(crate::cache::Tag::parse("a").unwrap())).await.unwrap(),
        }
        let fill = tiers.cache().get_or_fill(key("k"), Seconds::new("fill", 60).unwrap()).await.unwrap();
        assert!(!matches!(fill, Answer::Fill(..)), "way {way}");
        let refused = tiers.cache().settle(change, put("k", "changed", tagged(&["a"]))).await.unwrap_err();
        assert_eq!(refused.code(), Code::LeaseLost, "way {way}");
        assert!(tiers.text().await.is_none() && tiers.is_free().await, "way {way}");
    }
}

#[tokio::test]
async fn a_change_that_comes_to_nothing_frees_the_entry_and_who_filled_before_it_puts_nothing() {
    let tiers = Tiers::new();
    let fill = tiers.cache().get_or_fill(key("k"), Seconds::new("fill", 60).unwrap()).await.unwrap();
    let Answer::Fill(fill, _) = fill else { panic!("it is missing") };
    drop(tiers.begin().await);
    assert_eq!(tiers.cache().put(entry("old"), Some(fill.token)).await.unwrap_err().code(), Code::LeaseLost);
    assert!(tiers.is_free().await);
}
