//! The engine with the time in the test's hands.

use super::*;
use crate::clock::Millis;
use crate::config::{Executor, Level, Sqlite};
use crate::sqlite::{Engine, Gate, Options, Party, WriteTx};
use crate::system::schema;

const T0: Millis = 1_795_214_602_000;

/// A queue file of its own, and the time in the test's hands.
struct File {
    db: Arc<Database>,
    _dir: tempfile::TempDir,
}

impl File {
    fn new() -> File {
        File::of(0)
    }

    /// With a bound, 0 for none.
    fn of(max_bytes: u64) -> File {
        let dir = tempfile::tempdir().unwrap();
        let options = Options {
            level: Level::Off,
            max_bytes,
            party: Party::SYSTEM,
            migrations: schema().tenant_queue.clone().into(),
            keep_before: None,
            sandboxed: false,
            create: true,
            held: Arc::default(),
            answers: crate::sqlite::Allowance::unbounded(),
        };
        let engine = Engine::start(&Sqlite::default(), &Executor::default());
        File { db: Database::new(&engine, &Gate::new(), dir.path().join("queue.sqlite"), options), _dir: dir }
    }

    async fn tx<T: Send + 'static>(&self, f: impl FnMut(&WriteTx<'_>) -> Result<T> + Send + 'static) -> T {
        self.db.write(Limits::default(), f).await.unwrap()
    }

    async fn add(&self, queue: &'static str, count: usize, delay_s: i64, max_attempts: i64, now: Millis) {
        self.ask(queue, count, serde_json::json!({"delay_s": delay_s, "max_attempts": max_attempts}), now).await
    }

    async fn ask(&self, queue: &'static str, count: usize, mut job: serde_json::Value, now: Millis) {
        job["payload"] = serde_json::json!({});
        let job = job.to_string();
        let mut bell = self.bell();
        let made = self
            .tx(move |tx| {
                let jobs: Vec<_> = (0..count).map(|_| serde_json::from_str::<JobRequest>(&job).unwrap().check()).collect();
                enqueue::enqueue(tx, &QueueName::parse(queue)?, &Batch { jobs, then: None }, "tests", None, &mut bell, now)
            })
            .await;
        assert!(made.outcomes.iter().all(|outcome| matches!(outcome, Outcome::Enqueued(_))), "{:?}", made.outcomes);
    }

    async fn claim(&self, queue: &'static str, max: i64, now: Millis) -> Vec<Claimed> {
        let mut bell = self.bell();
        self.tx(move |tx| claim::claim(tx, &[QueueName::parse(queue)?], Claim::new(max, 60)?, &mut bell, now)).await.jobs
    }

    async fn ack(&self, id: JobId, token: Uuid, now: Millis) -> Result<()> {
        let mut bell = self.bell();
        self.db.write(Limits::default(), move |tx| lease::ack(tx, id, token, None, &mut bell, now)).await
    }

    /// Done, dead, cancelled, expired: in seconds.
    async fn keep(&self, queue: &'static str, [done_s, dead_s, cancelled_s, expired_s]: [Option<i64>; 4]) {
        let retention = Some(Retention::new(done_s, dead_s, cancelled_s, expired_s).unwrap());
        let mut bell = self.bell();
        let settings = Settings { retention, ..Settings::default() };
        self.tx(move |tx| control::set(tx, &QueueName::parse(queue)?, settings, &mut bell, T0).map(drop)).await
    }

    async fn clear(&self, queue: &'static str, now: Millis) -> usize {
        let mut bell = self.bell();
        self.tx(move |tx| control::clear(tx, &QueueName::parse(queue)?, STEP_MAX, &mut bell, now)).await
    }

    fn bell(&self) -> Bell {
        Bell::new(&Arc::default(), &self.db, None)
    }

    /// The number of jobs in a state, and of bodies altogether.
    async fn count(&self, state: i64) -> (i64, i64) {
        let sql = "SELECT count(*) FILTER (WHERE state = ?1), (SELECT count(*) FROM job_bodies) FROM jobs";
        self.tx(move |tx| tx.row(sql, [state], |row| Ok((row.get(0)?, row.get(1)?)))).await.unwrap()
    }
}

#[tokio::test]
async fn a_lease_holds_until_its_instant_and_not_one_millisecond_longer() {
    let file = File::new();
    file.add("q", 1, 0, 2, T0).await;
    let job = file.claim("q", 1, T0).await.remove(0);
    assert_eq!((job.attempt, job.lease_until), (1, T0 + 60_000));
    assert!(file.claim("q", 1, T0 + 59_999).await.is_empty());
    let (id, token) = (job.id, job.lease_token);
    let late = file.ack(id, token, T0 + 60_000).await;
    assert_eq!(late.unwrap_err().code(), Code::LeaseLost);
    let again = file.claim("q", 1, T0 + 60_000).await.remove(0);
    assert_eq!(again.attempt, 2);
    let token = again.lease_token;
    file.ack(id, token, T0 + 119_999).await.unwrap();
    assert_eq!(file.count(10).await.0, 1);
    let (before, last) = (job.lease_token, again.lease_token);
    file.ack(id, last, T0 + 500_000).await.unwrap();
    let before = file.ack(id, before, T0 + 500_000).await;
    assert_eq!(before.unwrap_err().code(), Code::LeaseLost);
}

#[tokio::test]
async fn room_is_made_of_done_jobs_however_many_dead_ones_go_before_them() {
    let file = File::new();
    file.add("q", 1, 0, 1, T0).await;
    let job = file.claim("q", 1, T0).await.remove(0);
    file.ack(job.id, job.lease_token, T0).await.unwrap();
    file.add("q", history::CLEARED as usize, 0, 1, T0).await;
    let died = "UPDATE jobs SET state = 11, keep_until = ?1 WHERE state = 2";
    assert_eq!(file.tx(move |tx| tx.execute(died, [T0])).await, history::CLEARED as usize);
    assert_eq!(file.tx(|tx| tx.execute(history::CLEAR, [history::CLEARED])).await, 1);
    assert_eq!((file.count(10).await.0, file.count(11).await.0), (0, i64::from(history::CLEARED)));
}

#[tokio::test]
async fn the_last_attempt_whose_lease_ends_leaves_a_dead_job() {
    let file = File::new();
    file.add("q", 1, 0, 1, T0).await;
    assert_eq!(file.claim("q", 1, T0).await.len(), 1);
    assert!(file.claim("q", 1, T0 + 60_000).await.is_empty());
    assert_eq!(file.count(11).await, (1, 1));
}

#[tokio::test]
async fn a_claim_moves_a_bounded_number_of_jobs_and_only_of_its_own_queue() {
    let file = File::new();
    file.add("q", 600, 10, 5, T0).await;
    file.add("other", 5, 10, 5, T0).await;
    assert!(file.claim("q", 100, T0 + 9_999).await.is_empty());
    assert_eq!(file.claim("q", 100, T0 + 10_000).await.len(), 100);
    assert_eq!(file.count(1).await.0, 605 - i64::from(STAGED));
    for _ in 0..5 {
        assert_eq!(file.claim("q", 100, T0 + 10_000).await.len(), 100);
    }
    assert!(file.claim("q", 100, T0 + 10_000).await.is_empty());
    assert_eq!((file.count(1).await.0, file.count(4).await.0), (5, 600));
    assert_eq!(file.claim("other", 100, T0 + 70_000).await.len(), 5);
    assert_eq!(file.count(4).await.0, 605, "the other queue's claim left these leases alone");
}

#[tokio::test]
async fn finished_jobs_are_cleared_away_with_their_bodies_when_their_time_is_over() {
    let file = File::new();
    file.add("q", 3, 0, 5, T0).await;
    for job in file.claim("q", 3, T0).await {
        file.ack(job.id, job.lease_token, T0).await.unwrap();
    }
    // So many that one of them prunes, but for one chance in 10^11.
    file.add("q", 400, 0, 5, T0 + DONE_KEPT_MS - 1).await;
    assert_eq!(file.count(10).await, (3, 403));
    file.add("q", 400, 0, 5, T0 + DONE_KEPT_MS).await;
    assert_eq!(file.count(10).await, (0, 800));
}

#[tokio::test]
async fn a_queue_keeps_what_has_ended_as_long_as_it_says_also_what_ended_before_it_said_so() {
    let file = File::new();
    for queue in ["q", "other"] {
        file.add(queue, 3, 0, 5, T0).await;
        for job in file.claim(queue, 2, T0).await {
            file.ack(job.id, job.lease_token, T0).await.unwrap();
        }
    }
    file.keep("q", [Some(7_200), None, None, None]).await;
    assert_eq!(file.clear("q", T0 + 7_199_999).await, 0);
    assert_eq!(file.clear("other", T0 + DONE_KEPT_MS).await, 2, "the other queue said nothing");
    file.keep("q", [Some(10), Some(0), None, None]).await;
    assert_eq!(file.clear("q", T0 + 9_999).await, 0);
    assert_eq!(file.clear("q", T0 + 10_000).await, 2);
    let died = "UPDATE jobs SET state = 11, keep_until = ?1 WHERE state = 2 AND queue = 1";
    file.tx(move |tx| tx.execute(died, [T0 + DEAD_KEPT_MS])).await;
    assert_eq!((file.clear("q", T0 - 1).await, file.clear("q", T0).await), (0, 1));
    assert_eq!(file.count(2).await, (1, 1), "what has not ended stays");
}

#[tokio::test]
async fn a_key_that_is_held_for_a_time_is_held_however_soon_its_job_is_cleared_away() {
    let file = File::new();
    file.keep("q", [Some(0), None, None, None]).await;
    file.ask("q", 1, serde_json::json!({"unique": {"key": "timed", "for_s": 7_200}}), T0).await;
    file.ask("q", 1, serde_json::json!({"unique": {"key": "kept", "states": ["ready", "done"]}}), T0).await;
    file.ask("q", 1, serde_json::json!({"unique": {"key": "brief", "for_s": 7_200, "states": ["ready"]}}), T0).await;
    for job in file.claim("q", 3, T0).await {
        file.ack(job.id, job.lease_token, T0).await.unwrap();
    }
    let there = async || file.tx(|tx| tx.rows("SELECT unique_key FROM jobs", [], |row| row.get::<_, String>(0))).await;
    // Each is looked at once, and the one whose key is held then comes when that is over.
    assert_eq!((file.clear("q", T0).await, file.clear("q", T0).await), (3, 0));
    assert_eq!(there().await, ["timed"]);
    assert_eq!(file.clear("q", T0 + 7_199_999).await, 0);
    assert_eq!(file.clear("q", T0 + 7_200_000).await, 1);
}

#[tokio::test]
async fn a_claim_that_finds_nothing_clears_history_away_too() {
    let file = File::new();
    for queue in ["q", "other"] {
        file.add(queue, 1, 0, 5, T0).await;
        let job = file.claim(queue, 1, T0).await.remove(0);
        file.ack(job.id, job.lease_token, T0).await.unwrap();
    }
    // So many that one of them clears each queue, but for one chance in 10^11.
    for _ in 0..800 {
        assert!(file.claim("q", 1, T0 + DONE_KEPT_MS).await.is_empty());
    }
    assert_eq!(file.count(10).await, (0, 0));
}

#[tokio::test]
async fn a_file_without_room_for_a_refusal_is_full_and_the_outbox_waits() {
    let file = File::of(256 << 10);
    let waiters = Arc::default();
    let queue = Queue::new(&file.db, &waiters);
    // A reason that needs a page of its own.
    let letters = || {
        let options = format!("{{\"{}\":1}}", "x".repeat(5_000));
        vec![Letter::new(1, "q".to_owned().into(), Ok(1.into()), rusqlite::types::Value::Text(options))]
    };
    let fill = "INSERT INTO idempotency_keys VALUES ('s', ?1, x'', zeroblob(4000), 0)";
    let mut rows = 0;
    while file.db.write(Limits::default(), move |tx| tx.execute(fill, [rows])).await.is_ok() {
        rows += 1;
    }
    assert_eq!(queue.take_in(0, letters()).await.unwrap(), TakenIn::Full);
    let mark = queue.mark().await.unwrap();
    assert!(mark.at == 0 && mark.is_behind && mark.refused.is_empty(), "{mark:?}");
    file.tx(|tx| tx.execute("DELETE FROM idempotency_keys", [])).await;
    assert_eq!(queue.take_in(0, letters()).await.unwrap(), TakenIn::All);
    let mark = queue.mark().await.unwrap();
    assert!(mark.at == 1 && !mark.is_behind && mark.refused.len() == 1, "{mark:?}");
    assert_eq!(queue.take_in(0, letters()).await.unwrap(), TakenIn::Stale);
}

#[tokio::test]
async fn a_limit_is_counted_from_leases_that_hold_and_cannot_leak() {
    let file = File::new();
    file.ask("q", 5, serde_json::json!({"limit": {"key": "k", "max": 2}}), T0).await;
    file.ask("q", 1, serde_json::json!({}), T0).await;
    let first = file.claim("q", 10, T0).await;
    assert_eq!(first.iter().map(|job| job.id.seq()).collect::<Vec<_>>(), [1, 2, 6]);
    assert_eq!(file.count(3).await.0, 3);
    file.ack(first[0].id, first[0].lease_token, T0).await.unwrap();
    assert_eq!(file.claim("q", 10, T0).await.iter().map(|job| job.id.seq()).collect::<Vec<_>>(), [3]);
    // Both leases end without a word; their places are free at that instant, and the jobs come again.
    let after = file.claim("q", 10, T0 + 60_000).await;
    assert_eq!(after.iter().filter(|job| job.id.seq() != 6).map(|job| job.id.seq()).collect::<Vec<_>>(), [2, 3]);
    assert_eq!((file.count(4).await.0, file.count(3).await.0), (3, 2));
}

#[tokio::test]
async fn groups_take_turns_and_inside_one_priority_and_age_decide() {
    let file = File::new();
    for (group, count) in [("a", 4), ("b", 2)] {
        file.ask("q", count, serde_json::json!({"group": group}), T0).await;
    }
    file.ask("q", 2, serde_json::json!({}), T0).await;
    file.ask("q", 1, serde_json::json!({"group": "a", "priority": 1}), T0).await;
    let mut order = Vec::new();
    for _ in 0..5 {
        order.extend(file.claim("q", 2, T0).await.iter().map(|job| job.id.seq()));
    }
    // a: 9 1 2 3 4, b: 5 6, no group: 7 8.
    assert_eq!(order, [9, 5, 7, 1, 6, 8, 2, 3, 4]);
}

#[tokio::test]
async fn what_nobody_began_in_time_expires_and_makes_place() {
    let file = File::new();
    file.ask("q", 2, serde_json::json!({"ttl_s": 10, "limit": {"key": "k", "max": 1}}), T0).await;
    file.ask("q", 1, serde_json::json!({"limit": {"key": "k", "max": 1}}), T0).await;
    assert_eq!(file.claim("q", 10, T0).await.len(), 1);
    assert_eq!(file.count(3).await.0, 2);
    let next = file.claim("q", 10, T0 + 60_000).await;
    assert_eq!(next.iter().map(|job| job.id.seq()).collect::<Vec<_>>(), [3], "the first came back too late");
    assert_eq!(file.count(13).await.0, 2);
}

#[tokio::test]
async fn a_claim_goes_on_past_any_number_of_jobs_over_their_limit() {
    let file = File::new();
    file.ask("q", 600, serde_json::json!({"limit": {"key": "k", "max": 1}, "priority": 1}), T0).await;
    file.ask("q", 1, serde_json::json!({}), T0).await;
    let waiters = Arc::default();
    let queue = Queue::new(&file.db, &waiters);
    let names = [QueueName::parse("q").unwrap()];
    let claim = Claim::new(1, 60).unwrap();
    assert_eq!(queue.claim(&names, claim).await.unwrap().jobs[0].id.seq(), 1);
    assert_eq!(queue.claim(&names, claim).await.unwrap().jobs[0].id.seq(), 601);
    assert!(queue.claim(&names, claim).await.unwrap().jobs.is_empty());
}

#[tokio::test]
async fn a_rate_hands_out_so_many_a_second_and_puts_the_others_off() {
    let file = File::new();
    file.ask("q", 5, serde_json::json!({"rate": {"key": "k", "per_s": 2}}), T0).await;
    file.ask("q", 1, serde_json::json!({}), T0).await;
    let mut handed_out = Vec::new();
    for now in [T0, T0 + 999, T0 + 1_000, T0 + 2_000] {
        handed_out.push(file.claim("q", 10, now).await.iter().map(|job| job.id.seq()).collect::<Vec<_>>());
    }
    assert_eq!(handed_out, [vec![1, 2, 6], vec![], vec![3, 4], vec![5]]);
}

#[tokio::test]
async fn what_many_wait_for_is_told_in_steps_and_a_claim_of_any_queue_goes_on() {
    let file = File::new();
    file.add("q", 1, 0, 5, T0).await;
    let job = file.claim("q", 1, T0).await.remove(0);
    for _ in 0..2 {
        file.ask("later", 300, serde_json::json!({"depends_on": [job.id.to_string()]}), T0).await;
    }
    assert!(file.claim("later", 1, T0).await.is_empty());
    assert_eq!(file.count(0).await.0, 600);
    file.ack(job.id, job.lease_token, T0).await.unwrap();
    assert_eq!(file.count(0).await.0, 600 - workflow::TOLD);
    let kept = "DELETE FROM jobs WHERE state = 10 AND NOT followed";
    assert_eq!(file.tx(move |tx| tx.execute(kept, [])).await, 0, "it stays until all know of its end");
    for left in [600 - 2 * workflow::TOLD, 0] {
        file.claim("q", 1, T0).await;
        assert_eq!(file.count(0).await.0, left);
    }
    assert_eq!(file.tx(move |tx| tx.execute(kept, [])).await, 1);
    assert_eq!(file.claim("later", 100, T0).await.len(), 100);
}

#[tokio::test]
async fn the_dead_that_somebody_waits_for_are_given_up_before_they_are_deleted() {
    let file = File::new();
    file.add("q", 1, 0, 1, T0).await;
    let job = file.claim("q", 1, T0).await.remove(0);
    let wait = |on_failure: &str| serde_json::json!({"depends_on": [job.id.to_string()], "on_failure": on_failure, "ttl_s": 31_000_000});
    for on_failure in ["wait", "cancel", "run"] {
        file.ask(on_failure, 1, wait(on_failure), T0).await;
    }
    assert!(file.claim("q", 1, T0 + 60_000).await.is_empty(), "its lease ended and it is dead");
    assert_eq!((file.count(0).await.0, file.count(12).await.0, file.count(2).await.0), (1, 1, 1));
    // So many that one of them prunes, but for one chance in 10^11.
    file.add("q", 400, 0, 5, T0 + 60_000 + DEAD_KEPT_MS).await;
    let state = "SELECT state FROM jobs WHERE seq = 1";
    assert_eq!(file.tx(move |tx| tx.row(state, [], |row| row.get::<_, i64>(0))).await, Some(12));
    assert_eq!(file.count(0).await.0, 0, "who waited for it waits no more");
}

#[tokio::test]
async fn a_claim_counts_a_limit_once_and_lets_no_more_in() {
    let file = File::new();
    for max in [3, 1, 5, 2, 5, 5] {
        file.ask("q", 1, serde_json::json!({"limit": {"key": "k", "max": max}}), T0).await;
    }
    assert_eq!(file.claim("q", 1, T0).await.len(), 1);
    // One is leased: of the others those come in that allow as many beside them.
    assert_eq!(file.claim("q", 9, T0).await.iter().map(|job| job.id.seq()).collect::<Vec<_>>(), [3, 5, 6]);
    assert_eq!(file.count(3).await.0, 2);
}
