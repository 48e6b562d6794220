use std::collections::HashMap;

use proptest::prelude::*;

use super::evict::Evictor;
use super::packing::Packer;
use super::*;
use crate::clock::Millis;
use crate::config::{Executor, Level, Sqlite};
use crate::sqlite::{Engine, Gate, Migrations, Options, Party};

pub(super) fn file(dir: &tempfile::TempDir) -> Arc<Database> {
    file_of(dir, 0, Party::SYSTEM, &Executor::default())
}

/// One of at most so many bytes.
pub(super) fn file_of(dir: &tempfile::TempDir, max_bytes: u64, party: Party, executor: &Executor) -> Arc<Database> {
    let schema = ("0001_entries.up.sql", include_str!("../../migrations/tenant/cache/0001_entries.up.sql"));
    let migrations = Migrations::from_files("cache", [schema]).unwrap();
    let options = Options {
        level: Level::Off,
        max_bytes,
        party,
        migrations: migrations.into(),
        keep_before: None,
        sandboxed: false,
        create: true,
        held: Arc::default(),
        answers: crate::sqlite::Allowance::unbounded(),
    };
    Database::new(&Engine::start(&Sqlite::default(), executor), &Gate::new(), dir.path().join("cache.sqlite"), options)
}

pub(super) fn key(name: &str) -> Key {
    Key::parse(name.as_bytes()).unwrap()
}

pub(super) fn put(name: &str, value: &str, terms: Terms) -> Put {
    Put::new(key(name), Some(value.to_owned().into()), None, terms).unwrap()
}

fn lasting(ttl: &str) -> Terms {
    Terms::new(Wanted { ttl: Some(Seconds::parse("ttl", ttl).unwrap()), ..Wanted::default() }).unwrap()
}

pub(super) fn tagged(tags: &[&str]) -> Terms {
    Terms::new(Wanted { tags: tags.iter().map(|tag| Tag::parse(tag).unwrap()).collect(), ..Wanted::default() }).unwrap()
}

async fn number(file: &Arc<Database>, sql: &'static str) -> i64 {
    file.read(Limits::default(), move |r| r.row(sql, [], |row| row.get(0))).await.unwrap().unwrap()
}

#[tokio::test]
async fn expired_entries_are_swept_by_later_writes_a_few_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let file = file(&dir);
    let count = async || number(&file, "SELECT count(*) FROM entries").await;
    let set = async |from: u32, count: u32, at: Millis| {
        let ops: Vec<_> = (from..from + count).map(|n| Op::Put(put(&n.to_string(), "v", lasting("10")))).collect();
        file.write(Limits::default(), move |tx| store::apply(tx, &Evictor::default(), &Packer::default(), &ops, at)).await.unwrap();
    };
    set(0, 20, 0).await;
    set(100, 1, 9_999).await;
    assert_eq!(count().await, 21);
    set(101, 1, 10_000).await;
    assert_eq!(count().await, 22 - i64::from(store::SWEPT));
    set(102, 2, 10_000).await;
    assert_eq!(count().await, 4);
}

#[tokio::test]
async fn a_full_cache_of_which_everything_was_read_makes_room() {
    let full = async |brim: Option<u32>| {
        let dir = tempfile::tempdir().unwrap();
        let (file, memory) = (file_of(&dir, 1 << 20, Party::SYSTEM, &Executor::default()), Memory::new(0));
        let mut count = 0;
        while brim.is_none_or(|brim| count < brim) && memory.shelf(file.serial()).counts().evicted == 0 {
            Cache::new(&file, &memory).put(put(&count.to_string(), &"v".repeat(8_000), Terms::default()), None).await.unwrap();
            count += 1;
        }
        (dir, file, memory, count)
    };
    let brim = full(None).await.3 - 1;
    for throws in [false, true] {
        let (_dir, file, memory, _) = full(Some(brim)).await;
        let cache = Cache::new(&file, &memory);
        let there = async || {
            let mut there = 0;
            for n in 0..brim {
                there += u32::from(cache.get(key(&n.to_string())).await.unwrap().is_some());
            }
            there
        };
        assert_eq!(there().await, brim, "and all were read");
        if throws {
            cache.throw(Thrown::Tag(Tag::parse("of none").unwrap())).await.unwrap();
        } else {
            cache.put(put("one more", &"v".repeat(8_000), Terms::default()), None).await.unwrap();
        }
        assert!(there().await >= brim / 2, "throws {throws}");
    }
}

#[tokio::test]
async fn an_entry_is_replaced_whole_under_a_new_etag() {
    let dir = tempfile::tempdir().unwrap();
    let (file, memory) = (file(&dir), Memory::new(1 << 20));
    let cache = Cache::new(&file, &memory);
    let first = cache.put(Put { content_type: Some("text/plain".to_owned()), ..put("k", "one", lasting("60")) }, None).await.unwrap();
    let second = cache.put(put("k", "two", Terms::default()), None).await.unwrap();
    assert_ne!(first, second);
    let found = cache.get(key("k")).await.unwrap().unwrap();
    assert_eq!(*found, Entry { value: Some("two".into()), content_type: None, etag: second.unwrap(), life: Life::default(), source: None });
    cache.delete(key("k"), Conditions::default()).await.unwrap();
    assert!(cache.get(key("k")).await.unwrap().is_none());
}

#[tokio::test]
async fn what_was_thrown_away_is_swept_and_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let (file, memory) = (file(&dir), Memory::new(1 << 20));
    let cache = Cache::new(&file, &memory);
    let ops = (0..1_000).map(|n| Op::Put(put(&n.to_string(), "v", tagged(&[["even", "odd"][n % 2]])))).collect();
    cache.apply(ops).await.unwrap();
    cache.throw(Thrown::Tag(Tag::parse("even").unwrap())).await.unwrap();
    cache.throw(Thrown::Prefix(Namespace::default().prefix("99").unwrap())).await.unwrap();
    assert!(number(&file, "SELECT count(*) FROM invalidations").await == 2);
    for _ in 0..400 {
        cache.put(put("again", "v", Terms::default()), None).await.unwrap();
    }
    assert_eq!(number(&file, "SELECT count(*) FROM entries").await, 500 - 6 + 1);
    let left = "SELECT (SELECT count(*) FROM invalidations) + (SELECT count(*) FROM prefix_lengths) + invalidated + named FROM clock";
    assert_eq!(number(&file, left).await, 0);
    assert!(cache.get(key("98")).await.unwrap().is_none() && cache.get(key("97")).await.unwrap().is_some());
    assert!(cache.get(key("991")).await.unwrap().is_none());
}

#[tokio::test]
async fn too_many_names_to_remember_throw_everything_away() {
    let dir = tempfile::tempdir().unwrap();
    let (file, memory) = (file(&dir), Memory::new(1 << 20));
    let cache = Cache::new(&file, &memory);
    // More than one pass of the sweeper sees at once, so that rows stay.
    cache.apply((0..500).map(|n| Op::Put(put(&n.to_string(), "v", tagged(&["kept"])))).collect()).await.unwrap();
    cache.throw(Thrown::Tag(Tag::parse("a").unwrap())).await.unwrap();
    file.write(Limits::default(), |tx| tx.execute("UPDATE clock SET named = ?1", [invalidate::NAMED_MAX])).await.unwrap();
    cache.throw(Thrown::Tag(Tag::parse("a").unwrap())).await.unwrap();
    assert!(cache.get(key("499")).await.unwrap().is_some(), "a name that is there already needs no row");
    cache.throw(Thrown::Tag(Tag::parse("b").unwrap())).await.unwrap();
    assert!(cache.get(key("499")).await.unwrap().is_none());
    cache.put(put("499", "v", Terms::default()), None).await.unwrap();
    assert!(cache.get(key("499")).await.unwrap().is_some());
}

#[tokio::test]
async fn a_sliding_entry_that_is_read_expires_later_in_the_file_too() {
    let dir = tempfile::tempdir().unwrap();
    let (file, memory) = (file(&dir), Memory::new(1 << 20));
    let cache = Cache::new(&file, &memory);
    let sliding = Terms::new(Wanted { sliding: Some(Seconds::new("sliding", 100).unwrap()), ..Wanted::default() }).unwrap();
    cache.put(put("k", "v", Terms::default()), None).await.unwrap();
    let half_past = now_ms() - 50_000;
    file.write(Limits::default(), move |tx| {
        store::apply(tx, &Evictor::default(), &Packer::default(), &[Op::Put(put("k", "v", sliding.clone()))], half_past)
    })
    .await
    .unwrap();
    let expires = async || number(&file, "SELECT expires_at FROM entries").await;
    let (before, gone) = (expires().await, number(&file, "SELECT gone_at FROM entries").await);
    assert_eq!((before, gone), (half_past + 100_000, half_past + 100_000));
    cache.get(key("k")).await.unwrap().unwrap();
    let after = expires().await;
    assert!(after >= before + 50_000, "{before} {after}");
    let writes = number(&file, "PRAGMA data_version").await;
    for _ in 0..10 {
        assert_eq!(cache.get(key("k")).await.unwrap().unwrap().life.expires_at, Some(after));
    }
    assert_eq!((expires().await, number(&file, "PRAGMA data_version").await), (after, writes));
}

#[tokio::test]
async fn what_another_run_of_the_machine_wrote_is_not_trusted() {
    let dir = tempfile::tempdir().unwrap();
    let first = file(&dir);
    let memory = Memory::new(1 << 20);
    Cache::new(&first, &memory).put(put("k", "v", Terms::default()), None).await.unwrap();
    first.close(crate::sqlite::Leave::Nothing).await;

    let again = file(&dir);
    assert!(Cache::new(&again, &memory).get(key("k")).await.unwrap().is_some(), "the server was started again, not the machine");
    again.write(Limits::default(), |tx| tx.execute("UPDATE clock SET boot = 'another'", [])).await.unwrap();
    again.close(crate::sqlite::Leave::Nothing).await;

    let rebooted = file(&dir);
    let cache = Cache::new(&rebooted, &memory);
    assert!(cache.get(key("k")).await.unwrap().is_none());
    cache.put(put("k", "v", Terms::default()), None).await.unwrap();
    assert!(cache.get(key("k")).await.unwrap().is_some());
}

#[tokio::test]
async fn fills_are_bounded_and_ended_ones_give_their_place_back() {
    let dir = tempfile::tempdir().unwrap();
    let (file, memory) = (file(&dir), Memory::new(1 << 20));
    let (fills, a_second) = (memory.fills(), Seconds::new("fill", 1).unwrap());
    let begin = |name: &str, now| fills.begin(&file, &key(name), a_second, now);
    for n in 0..FILLS_MAX {
        assert!(matches!(begin(&n.to_string(), 0), Ok(Turn::Mine(_))));
    }
    assert_eq!(begin("one more", 999).err().map(|error| error.code()), Some(crate::error::Code::TooManyRequests));
    let waiting: Vec<_> = (0..FILL_WAITS_MAX).map(|_| begin("7", 999).unwrap()).collect();
    assert!(waiting.iter().all(|turn| matches!(turn, Turn::Theirs(_))));
    assert_eq!(begin("7", 999).err().map(|error| error.code()), Some(crate::error::Code::TooManyRequests));
    drop(waiting);
    assert!(matches!(begin("7", 999), Ok(Turn::Theirs(_))));
    assert!(matches!(begin("one more", 1_000), Ok(Turn::Mine(_))));
    assert!(matches!(begin("7", 1_000), Ok(Turn::Mine(_))));
}

/// What is done to a cache, with few names so that much happens to each.
#[derive(Clone, Debug)]
enum Deed {
    Put { key: &'static str, tags: Vec<&'static str> },
    Delete(&'static str),
    Increment(&'static str),
    Tag(&'static str),
    Prefix(&'static str),
    Everything,
    Get(&'static str),
}

const KEYS: [&str; 8] = ["a", "a/", "a/1", "a/12", "a/\0", "b", "b/ä", "b/ä/1"];
const TAGS: [&str; 3] = ["x", "y", "xy"];

fn deed() -> impl Strategy<Value = Deed> {
    let (key, tag) = (prop::sample::select(&KEYS[..]), prop::sample::select(&TAGS[..]));
    let tags = prop::collection::vec(tag.clone(), 0..3);
    prop_oneof![
        6 => (key.clone(), tags).prop_map(|(key, tags)| Deed::Put { key, tags }),
        2 => key.clone().prop_map(Deed::Delete),
        2 => key.clone().prop_map(Deed::Increment),
        2 => tag.prop_map(Deed::Tag),
        2 => prop::sample::select(&["", "a", "a/1", "b/ä", "c", "a/\0"][..]).prop_map(Deed::Prefix),
        1 => Just(Deed::Everything),
        9 => key.prop_map(Deed::Get),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is done in whatever order, and whichever tier answers: what is there is what a map would have.
    #[test]
    fn a_cache_holds_what_a_map_would(deeds in prop::collection::vec(deed(), 1..80), others in 0..150_u32) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let (file, memory) = (file(&dir), Memory::new(1 << 20));
            let cache = Cache::new(&file, &memory);
            // So many that the sweeper needs more than one step for a pass.
            cache.apply((0..others).map(|n| Op::Put(put(&format!("other{n}"), "v", Terms::default()))).collect()).await.unwrap();
            let mut model: HashMap<&str, (i64, Vec<&str>)> = HashMap::new();
            for (n, deed) in deeds.iter().enumerate() {
                let n = n as i64;
                match deed {
                    Deed::Put { key, tags } => {
                        cache.put(put(key, &n.to_string(), tagged(tags)), None).await.unwrap();
                        model.insert(key, (n, tags.clone()));
                    }
                    Deed::Delete(name) => {
                        cache.delete(key(name), Conditions::default()).await.unwrap();
                        model.remove(name);
                    }
                    Deed::Increment(name) => {
                        let counted = cache.increment(key(name), 1_000, 0, Terms::default()).await.unwrap();
                        let held = model.entry(name).or_default();
                        held.0 += 1_000;
                        assert_eq!(counted.0, held.0);
                    }
                    Deed::Tag(tag) => {
                        cache.throw(Thrown::Tag(Tag::parse(tag).unwrap())).await.unwrap();
                        model.retain(|_, (_, tags)| !tags.contains(tag));
                    }
                    Deed::Prefix(prefix) => {
                        cache.throw(Thrown::Prefix(Namespace::default().prefix(prefix).unwrap())).await.unwrap();
                        model.retain(|key, _| !key.starts_with(prefix));
                    }
                    Deed::Everything => {
                        cache.throw(Thrown::Everything).await.unwrap();
                        model.clear();
                    }
                    Deed::Get(name) => {
                        let found = cache.get(key(name)).await.unwrap().and_then(|found| found.value.clone());
                        assert_eq!(found, model.get(name).map(|(n, _)| n.to_string().into()), "{name}");
                    }
                }
            }
            for name in KEYS {
                let found = cache.get(key(name)).await.unwrap().and_then(|found| found.value.clone());
                assert_eq!(found, model.get(name).map(|(n, _)| n.to_string().into()), "{name} at the end");
            }
        });
    }
}
