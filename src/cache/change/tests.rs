use super::super::tests::{file, file_of, key, put, tagged};
use super::*;
use crate::cache::{Answer, Memory, Seconds, Terms, Thrown};
use crate::config::Executor;
use crate::sqlite::{Limits, Party};

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

#[tokio::test]
async fn who_has_the_turn_only_after_the_entry_was_made_is_given_the_entry() {
    let tiers = Tiers::new();
    tiers.cache().put(entry("made"), None).await.unwrap();
    // As one has it who looked before that.
    let turn = tiers.memory.fills().begin(&tiers.file, &key("k"), Seconds::new("fill", 60).unwrap(), crate::clock::now_ms()).unwrap();
    let crate::cache::fill::Turn::Mine(lease) = turn else { panic!("nobody else makes it") };
    let answer = tiers.cache().still_to_be_made(key("k"), lease).await.unwrap();
    assert!(matches!(answer, Answer::Found(_)));
    tiers.cache().delete(key("k"), Conditions::default()).await.unwrap();
    assert!(tiers.is_free().await, "and holds nobody up");
}

#[tokio::test]
async fn what_was_set_meanwhile_goes_also_when_there_is_no_turn_to_set_the_entry() {
    let dir = tempfile::tempdir().unwrap();
    let executor = Executor { waiting_per_tenant: 1, ..Executor::default() };
    let tiers = Tiers { file: file_of(&dir, 0, Party { id: 7, running_max: 8 }, &executor), memory: Memory::new(1 << 20), _dir: dir };
    let change = tiers.begin().await;
    tiers.cache().put(entry("meanwhile"), None).await.unwrap();
    // One write is at work until it is told, and one waits: there is no room for another.
    let (go, told) = std::sync::mpsc::channel::<()>();
    let (begun, begins) = std::sync::mpsc::channel::<()>();
    let file = tiers.file.clone();
    // On a thread of its own: a write of a cache may be done where it is asked for.
    let busy = std::thread::spawn(move || {
        let job = move |_: &crate::sqlite::WriteTx<'_>| {
            begun.send(()).ok();
            told.recv().ok();
            Ok(())
        };
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(file.write(Limits::default(), job))
    });
    begins.recv().unwrap();
    let file = tiers.file.clone();
    let waiting = tokio::spawn(async move { file.write(Limits::default(), |_| Ok(())).await });
    while tiers.file.state().writes_waiting == 0 {
        tokio::task::yield_now().await;
    }
    let cache = tiers.cache();
    let (settled, ()) = tokio::join!(cache.settle(change, entry("changed")), async { drop(go) });
    assert_eq!(settled.unwrap_err().code(), Code::TooManyRequests);
    busy.join().unwrap().unwrap();
    waiting.await.unwrap().unwrap();
    assert_eq!(tiers.text().await, None);
    assert!(tiers.is_free().await);
}
