use std::sync::mpsc;

use super::*;
use crate::sqlite::Leave;
use crate::sqlite::database::tests::{Bench, count, insert};
use crate::sqlite::vfs::FailingWrites;
use crate::sqlite::{Gate, Limits};

/// As good as none.
const LONG: Duration = Duration::from_secs(3_600);

const BOUNDS: Bounds = Bounds { wait: LONG, idle: LONG, idle_contended: LONG, whole: LONG, open: 3 };

/// Runs one statement in the transaction; whether it was run at all.
async fn run(transaction: &Interactive, sql: &'static str) -> Result<()> {
    let ran = transaction.run(LONG, move |transaction| {
        let outcome = transaction.statements(|reader| reader.prepare(sql)?.run(|_| Ok(())));
        outcome.map(drop)
    });
    ran.await?
}

async fn commit(transaction: &Interactive) -> Result<()> {
    transaction.run(LONG, |transaction| transaction.commit()).await?
}

/// Asks the engine to look after its transactions until `transaction` has ended.
async fn looked_after(bench: &Bench, transaction: &Interactive) {
    for _ in 0..5_000 {
        bench.engine.tick();
        if !transaction.is_open() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("it goes on");
}

/// A write that would wait for ever fails the test instead.
async fn write(database: &Arc<Database>, v: &str) -> Result<()> {
    let wrote = database.write(Limits::default(), insert(v.to_owned()));
    tokio::time::timeout(Duration::from_secs(60), wrote).await.expect("the turn comes back")
}

#[tokio::test]
async fn transactions_write_one_after_the_other_and_groups_in_between() {
    let bench = Bench::new();
    let database = bench.database(&Gate::new());
    let first = database.begin(Begin::Immediate, true, BOUNDS).await.unwrap();
    run(&first, "INSERT INTO t(v) VALUES ('first')").await.unwrap();
    let second = async {
        let second = database.begin(Begin::Immediate, true, BOUNDS).await.unwrap();
        run(&second, "INSERT INTO t(v) SELECT 'second after ' || count(*) FROM t").await.unwrap();
        commit(&second).await.unwrap();
    };
    let grouped = database.write(Limits::default(), |tx| tx.execute("INSERT INTO t(v) SELECT 'grouped after ' || count(*) FROM t", []));
    let end = async {
        while database.state().writes_waiting < 2 {
            tokio::task::yield_now().await;
        }
        commit(&first).await.unwrap();
        assert!(!first.is_open());
    };
    let ((), grouped, ()) = tokio::join!(second, grouped, end);
    grouped.unwrap();
    let order = database.read(Limits::default(), |reader| reader.rows("SELECT v FROM t ORDER BY id", [], |row| row.get::<_, String>(0)));
    assert_eq!(order.await.unwrap(), ["first", "second after 1", "grouped after 2"]);
}

#[tokio::test]
async fn an_abandoned_transaction_is_rolled_back_and_writes_go_on() {
    let bench = Bench::new();
    let database = bench.database(&Gate::new());
    for n in 0..3 {
        let transaction = database.begin(Begin::Immediate, true, BOUNDS).await.unwrap();
        run(&transaction, "INSERT INTO t(v) VALUES ('abandoned')").await.unwrap();
        let after = format!("after {n}");
        let (wrote, ()) = tokio::join!(write(&database, &after), async { drop(transaction) });
        wrote.unwrap();
    }
    assert_eq!(count(&database).await, 3);
}

#[tokio::test]
async fn who_does_not_get_the_turn_in_time_is_told_that_the_file_is_busy_and_leaves_no_trace() {
    let bench = Bench::new();
    let database = bench.database(&Gate::new());
    let first = database.begin(Begin::Immediate, true, BOUNDS).await.unwrap();
    let hasty = Bounds { wait: Duration::ZERO, ..BOUNDS };
    for _ in 0..2 {
        let refused = database.begin(Begin::Immediate, true, hasty).await.err().unwrap();
        assert_eq!(refused.body().details.unwrap()["sqlite_name"], "SQLITE_BUSY");
    }
    let reader = database.begin(Begin::Deferred, true, hasty).await.unwrap();
    assert!(reader.take_turn().await.is_err());
    run(&reader, "SELECT count(*) FROM t").await.unwrap();
    commit(&first).await.unwrap();
    write(&database, "after").await.unwrap();
}

#[tokio::test]
async fn nobody_sends_anything_to_an_idle_transaction_so_it_ends() {
    let bench = Bench::new();
    let database = bench.database(&Gate::new());
    let bounds = Bounds { idle: Duration::from_millis(1), ..BOUNDS };
    for begin in [Begin::Deferred, Begin::Immediate] {
        let transaction = database.begin(begin, true, bounds).await.unwrap();
        looked_after(&bench, &transaction).await;
        let told = run(&transaction, "SELECT 1").await.unwrap_err();
        assert_eq!((told.code(), told.body().hint.unwrap().contains("hrana.transaction_idle_ms")), (Code::StatementTimeout, true));
    }
    write(&database, "after").await.unwrap();
}

#[tokio::test]
async fn an_idle_transaction_gives_way_sooner_to_those_who_wait() {
    let bench = Bench::new();
    let database = bench.database(&Gate::new());
    let bounds = Bounds { idle_contended: Duration::ZERO, ..BOUNDS };
    let (writer, reader) =
        (database.begin(Begin::Immediate, true, bounds).await.unwrap(), database.begin(Begin::Deferred, true, bounds).await.unwrap());
    run(&reader, "SELECT count(*) FROM t").await.unwrap();
    bench.engine.tick();
    assert!(writer.is_open());
    let (wrote, ()) = tokio::join!(write(&database, "waited"), looked_after(&bench, &writer));
    wrote.unwrap();
    // It stands in nobody's way.
    bench.engine.tick();
    assert!(reader.is_open());
}

#[tokio::test]
async fn a_transaction_ends_at_its_bound_whatever_it_does() {
    let bench = Bench::new();
    let database = bench.database(&Gate::new());
    let transaction = database.begin(Begin::Immediate, true, Bounds { whole: Duration::from_millis(100), ..BOUNDS }).await.unwrap();
    let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n";
    assert_eq!(run(&transaction, endless).await.unwrap_err().code(), Code::StatementTimeout);
    looked_after(&bench, &transaction).await;
    assert!(run(&transaction, "SELECT 1").await.unwrap_err().body().hint.unwrap().contains("hrana.transaction_ms"));
}

#[tokio::test]
async fn no_more_transactions_are_open_than_the_bound() {
    let bench = Bench::new();
    let database = bench.database(&Gate::new());
    let mut open = Vec::new();
    for _ in 0..BOUNDS.open {
        open.push(database.begin(Begin::Deferred, true, BOUNDS).await.unwrap());
    }
    let refused = database.begin(Begin::Deferred, true, BOUNDS).await.err().unwrap();
    assert!(refused.code() == Code::TooManyRequests && refused.body().hint.unwrap().contains("hrana.transactions_per_tenant"));
    open.pop();
    database.begin(Begin::Deferred, true, BOUNDS).await.unwrap();
}

#[tokio::test]
async fn a_panic_gives_the_turn_back() {
    let bench = Bench::new();
    let database = bench.database(&Gate::new());
    let transaction = database.begin(Begin::Immediate, true, BOUNDS).await.unwrap();
    run(&transaction, "INSERT INTO t(v) VALUES ('lost')").await.unwrap();
    let panicked: Result<()> = transaction.run(LONG, |_| panic!("in a transaction")).await;
    assert_eq!(panicked.unwrap_err().code(), Code::Internal);
    assert!(!transaction.is_open());
    write(&database, "after").await.unwrap();
    assert_eq!(count(&database).await, 1);
}

#[tokio::test]
async fn a_caller_who_goes_away_takes_the_statement_and_the_transaction_with_him() {
    let bench = Bench::new();
    let database = bench.database(&Gate::new());
    let transaction = database.begin(Begin::Immediate, true, BOUNDS).await.unwrap();
    run(&transaction, "INSERT INTO t(v) VALUES ('gone')").await.unwrap();
    let (started, is_started) = mpsc::channel();
    let endless = transaction.run(LONG, move |transaction| {
        started.send(()).unwrap();
        let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n";
        transaction.statements(|reader| reader.prepare(endless)?.run(|_| Ok(()))).map(drop)
    });
    let gone = async {
        tokio::task::spawn_blocking(move || is_started.recv().unwrap()).await.unwrap();
    };
    tokio::select! {
        _ = endless => panic!("it has no end"),
        () = gone => {}
    }
    write(&database, "after").await.unwrap();
    assert_eq!((count(&database).await, transaction.is_open()), (1, false));
}

#[tokio::test]
async fn a_fence_ends_transactions_and_lets_none_begin() {
    let bench = Bench::new();
    let gate = Gate::new();
    let database = bench.database(&gate);
    let idle = database.begin(Begin::Immediate, true, BOUNDS).await.unwrap();
    run(&idle, "INSERT INTO t(v) VALUES ('idle')").await.unwrap();
    let reading = database.begin(Begin::ReadOnly, true, BOUNDS).await.unwrap();
    gate.fence();
    database.end_transactions();
    assert_eq!(database.begin(Begin::Deferred, true, BOUNDS).await.err().unwrap().code(), Code::TenantUnavailable);
    assert!(gate.emptied(LONG).await && gate.try_close());
    for transaction in [idle, reading] {
        assert_eq!(run(&transaction, "SELECT 1").await.unwrap_err().code(), Code::TenantUnavailable);
    }
    database.close(Leave::Nothing).await;
    let plain = rusqlite::Connection::open(bench.file()).unwrap();
    assert_eq!(plain.query_row("SELECT count(*) FROM t", [], |row| row.get::<_, i64>(0)).unwrap(), 0);
}

#[tokio::test]
async fn a_transaction_that_holds_the_log_back_is_ended() {
    let bench = Bench::with(config::Sqlite { checkpoint_bytes: 64 << 10, wal_max_bytes: 512 << 10, ..Default::default() });
    let database = bench.database(&Gate::new());
    let reader = database.begin(Begin::ReadOnly, true, BOUNDS).await.unwrap();
    run(&reader, "SELECT count(*) FROM t").await.unwrap();
    for n in 0..64 {
        database.write(Limits::default(), insert(format!("{n}{}", "x".repeat(32 << 10)))).await.unwrap();
    }
    assert_eq!(run(&reader, "SELECT 1").await.unwrap_err().code(), Code::Overloaded);
    assert!(database.state().wal_bytes < 1 << 20);
}

#[tokio::test]
async fn a_commit_that_the_disk_fails_is_unknown_and_the_file_is_opened_anew() {
    let bench = Bench::new();
    let database = bench.database(&Gate::new());
    let reading = database.begin(Begin::ReadOnly, true, BOUNDS).await.unwrap();
    let transaction = database.begin(Begin::Immediate, true, BOUNDS).await.unwrap();
    run(&transaction, "INSERT INTO t(v) VALUES ('who knows')").await.unwrap();
    let failing = FailingWrites::to(bench.file().with_extension("sqlite-wal"));
    assert_eq!(commit(&transaction).await.unwrap_err().code(), Code::Unknown);
    drop(failing);
    assert!(!transaction.is_open());
    assert_eq!(run(&reading, "SELECT 1").await.unwrap_err().code(), Code::TenantUnavailable);
    let opens = bench.engine.counters().opens.load(std::sync::atomic::Ordering::Relaxed);
    drop((transaction, reading));
    while let Err(error) = write(&database, "after").await {
        assert_eq!(error.code(), Code::TenantUnavailable);
    }
    assert_eq!(bench.engine.counters().opens.load(std::sync::atomic::Ordering::Relaxed), opens + 1);
}
