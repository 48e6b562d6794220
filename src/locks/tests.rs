use std::time::Duration;

use super::*;
use crate::config::{Executor, Level, Sqlite};
use crate::sqlite::{Engine, Gate, Migrations, Options, Party};

fn file(dir: &tempfile::TempDir) -> Arc<Database> {
    let schema = ("0001_locks.up.sql", include_str!("../../migrations/tenant/queue/0002_locks.up.sql"));
    let options = Options {
        level: Level::Full,
        max_bytes: 0,
        party: Party::SYSTEM,
        migrations: Migrations::from_files("locks", [schema]).unwrap().into(),
        keep_before: None,
        sandboxed: false,
        create: true,
        held: Arc::default(),
        answers: crate::sqlite::Allowance::unbounded(),
    };
    Database::new(&Engine::start(&Sqlite::default(), &Executor::default()), &Gate::new(), dir.path().join("queue.sqlite"), options)
}

/// Takes many locks in one transaction; the fences, or the first refusal.
async fn take_all(file: &Arc<Database>, names: Vec<String>, held_ms: Millis, now: Millis) -> Result<Vec<i64>> {
    let all = move |tx: &WriteTx<'_>| {
        let take = |name: &String| match take(tx, &LockName::parse(name)?, "o", Uuid::new_v4(), held_ms, now)? {
            Taken::Mine(mine) => Ok(mine.lock.fence),
            Taken::Theirs(lock) => Err(Error::conflict(lock.owner)),
        };
        names.iter().map(take).collect()
    };
    // Ten thousand at once, on whatever machine.
    file.write(Limits { time: Duration::from_secs(300) }, all).await
}

fn named(from: i64, count: i64) -> Vec<String> {
    (from..from + count).map(|n| n.to_string()).collect()
}

#[tokio::test]
async fn locks_are_bounded_and_ended_ones_give_their_place_back() {
    let dir = tempfile::tempdir().unwrap();
    let file = file(&dir);
    take_all(&file, named(0, LOCKS_MAX), 1_000, 5_000).await.unwrap();
    let refused = take_all(&file, named(LOCKS_MAX, 1), 1_000, 5_999).await.unwrap_err();
    assert_eq!(refused.code(), Code::TooManyRequests);
    take_all(&file, named(LOCKS_MAX, 100), 1_000, 6_000).await.unwrap();
    let left = file.read(Limits::default(), |r| r.row("SELECT count(*) FROM locks", [], |row| row.get::<_, i64>(0))).await.unwrap();
    assert_eq!(left, Some(LOCKS_MAX + 100 - 100 * i64::from(SWEPT)));
}

#[tokio::test]
async fn a_fence_rises_also_when_the_clock_is_set_back() {
    let dir = tempfile::tempdir().unwrap();
    let file = file(&dir);
    let mut fences = take_all(&file, named(0, 3), 1, 1_000_000).await.unwrap();
    fences.extend(take_all(&file, named(3, 3), 1, 5).await.unwrap());
    fences.extend(take_all(&file, named(6, 1), 1, 2_000_000).await.unwrap());
    assert!(fences.is_sorted_by(|a, b| a < b), "{fences:?}");
    assert_eq!((fences[0], fences[6]), (1_000_000, 2_000_000));
}
