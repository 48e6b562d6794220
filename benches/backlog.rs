//! Whether a backlog slows a queue down: the rate of claims with their acknowledgements on a file where nothing waits,
//! and on one with a million jobs waiting, a hundred thousand dead and a hundred thousand scheduled, as a ratio in one
//! run. Both are filled through the engine, and commit with a flush. A round is [`SLICES`] short slices of each side in
//! turn, the sides changing places from one to the next, so that what the machine and its disk do meanwhile hits both. Before
//! a slice as many jobs are added as it works off. Beside the two some more files are open, as in a server: the page cache of two
//! alone would be less than the process may have, and whose pages came first would keep the other's out (`sqlite/engine.rs`).

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;
use futures_util::future::{join_all, try_join_all};
use serde_json::json;
use tenantry::config::{Executor, Level, Sqlite};
use tenantry::error::Result;
use tenantry::queue::{Batch, Claim, JobRequest, Nack, NewJob, Queue, QueueName, Waiters};
use tenantry::sqlite::{Database, Engine, Gate, Options, Party};
use tenantry::system::schema;

/// Workers at once, each with a claim of so many jobs.
const WORKERS: usize = 8;
const CLAIM: usize = 10;

/// Slices of each side in a round.
const SLICES: usize = 10;

/// Other files that are open.
const OTHERS: usize = 6;

/// Jobs in one request that fills.
const BATCH: usize = 500;

#[derive(Parser)]
struct Args {
    /// Jobs that wait on the full side
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    waiting: usize,
    /// Jobs that are dead there
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    dead: usize,
    /// Jobs for later there
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    scheduled: usize,
    /// Jobs worked off on each side in each round
    #[arg(long, value_name = "N", default_value_t = 20_000)]
    jobs: usize,
    #[arg(long, value_name = "N", default_value_t = 9)]
    rounds: usize,
    /// Where the files are made
    #[arg(long, value_name = "DIR")]
    dir: Option<std::path::PathBuf>,
    /// What cargo says to every bench
    #[arg(long, hide = true)]
    bench: bool,
}

/// A queue file and its queue.
struct Side {
    file: Arc<Database>,
    waiters: Arc<Waiters>,
    name: QueueName,
}

impl Side {
    fn open(engine: &Arc<Engine>, path: &Path) -> Result<Side> {
        let options = Options {
            level: Level::Full,
            max_bytes: 0,
            party: Party { id: 1, running_max: usize::MAX },
            migrations: schema().tenant_queue.clone().into(),
            keep_before: None,
            sandboxed: false,
            create: true,
            held: Arc::default(),
            answers: tenantry::sqlite::Allowance::unbounded(),
        };
        let file = Database::new(engine, &Gate::new(), path.to_owned(), options);
        Ok(Side { file, waiters: Arc::default(), name: QueueName::parse("q")? })
    }

    fn queue(&self) -> Queue<'_> {
        Queue::new(&self.file, &self.waiters)
    }

    async fn add(&self, count: usize, job: serde_json::Value) -> Result<()> {
        let (queue, job) = (self.queue(), job.to_string());
        let queue = &queue;
        let new = || -> Result<NewJob> { serde_json::from_str::<JobRequest>(&job).expect("it is a job").check() };
        for begin in (0..count).step_by(4 * BATCH) {
            let batches = (begin..count.min(begin + 4 * BATCH)).step_by(BATCH).map(|at| {
                let jobs = (0..BATCH.min(count - at)).map(|_| new()).collect();
                let batch = Batch::new(jobs, None).expect("it is a batch");
                queue.enqueue(&self.name, batch, "bench", None)
            });
            for made in try_join_all(batches).await? {
                assert!(made.outcomes.iter().all(|outcome| matches!(outcome, tenantry::queue::Outcome::Enqueued(_))));
            }
        }
        Ok(())
    }

    async fn fill(&self, args: &Args) -> Result<()> {
        self.add(args.dead, json!({ "payload": { "n": 1 } })).await?;
        let mut left = args.dead;
        while left > 0 {
            let claims = (0..WORKERS).map(|_| self.claim(100));
            let found: Vec<_> = try_join_all(claims).await?.into_iter().flatten().collect();
            left -= found.len();
            let nacks = found.iter().map(|(id, token)| async {
                self.queue().nack(*id, token, Nack::new(None, Some("it does not work".to_owned()), true)?).await
            });
            try_join_all(nacks).await?;
        }
        self.add(args.scheduled, json!({ "payload": { "n": 1 }, "delay_s": 86_400 })).await?;
        self.add(args.waiting, json!({ "payload": { "n": 1 } })).await
    }

    async fn claim(&self, max: usize) -> Result<Vec<(tenantry::queue::JobId, String)>> {
        let found = self.queue().claim(std::slice::from_ref(&self.name), Claim::new(max as i64, 600)?).await?;
        Ok(found.jobs.iter().map(|job| (job.id, job.lease_token.to_string())).collect())
    }

    /// How long it takes to claim and acknowledge so many jobs.
    async fn work(&self, jobs: usize) -> Result<Duration> {
        self.add(jobs, json!({ "payload": { "n": 1 } })).await?;
        let (began, queue) = (Instant::now(), self.queue());
        let queue = &queue;
        let workers = (0..WORKERS).map(|_| async {
            for _ in 0..jobs / WORKERS / CLAIM {
                let found = self.claim(CLAIM).await?;
                assert_eq!(found.len(), CLAIM);
                try_join_all(found.iter().map(|(id, token)| queue.ack(*id, token, None))).await?;
            }
            Ok(())
        });
        join_all(workers).await.into_iter().collect::<Result<()>>()?;
        Ok(began.elapsed())
    }
}

fn main() {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime can be made");
    runtime.block_on(run(&args)).expect("the queues work");
}

async fn run(args: &Args) -> Result<()> {
    let folder = args.dir.as_ref().map_or_else(tempfile::tempdir, tempfile::tempdir_in).expect("a folder can be made");
    let engine = Engine::start(&Sqlite::default(), &Executor::default());
    let (empty, full) =
        (Side::open(&engine, &folder.path().join("empty.sqlite"))?, Side::open(&engine, &folder.path().join("full.sqlite"))?);
    let others: Vec<Side> =
        (0..OTHERS).map(|n| Side::open(&engine, &folder.path().join(format!("other-{n}.sqlite")))).collect::<Result<_>>()?;
    for other in &others {
        other.file.ensure_open().await?;
    }
    let began = Instant::now();
    full.fill(args).await?;
    println!(
        "filled with {} waiting, {} dead, {} scheduled in {:.0} s",
        args.waiting,
        args.dead,
        args.scheduled,
        began.elapsed().as_secs_f64()
    );
    let jobs = args.jobs / (SLICES * WORKERS * CLAIM) * (WORKERS * CLAIM);
    let mut rounds = Vec::new();
    for round in 0..args.rounds + 1 {
        let (mut of_empty, mut of_full) = (Duration::ZERO, Duration::ZERO);
        for slice in 0..SLICES {
            if slice % 2 == 0 {
                of_empty += empty.work(jobs).await?;
            }
            of_full += full.work(jobs).await?;
            if slice % 2 == 1 {
                of_empty += empty.work(jobs).await?;
            }
        }
        let rate = |took: Duration| (jobs * SLICES) as f64 / took.as_secs_f64();
        let (of_empty, of_full) = (rate(of_empty), rate(of_full));
        // The first warms up.
        if round > 0 {
            println!("{of_empty:8.0} jobs/s of nothing, {of_full:8.0} of the backlog: {:.2}", of_full / of_empty);
            rounds.push((of_empty, of_full));
        }
    }
    let median = |value: &dyn Fn(&(f64, f64)) -> f64| {
        let mut values: Vec<_> = rounds.iter().map(value).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    println!(
        "claim and ack, median of {} rounds: {:.0} jobs/s of nothing, {:.0} of the backlog, ratio {:.2}",
        rounds.len(),
        median(&|round| round.0),
        median(&|round| round.1),
        median(&|round| round.1 / round.0),
    );
    tokio::time::timeout(Duration::from_secs(10), async {
        for side in others.iter().chain([&empty, &full]) {
            side.file.close(tenantry::sqlite::Leave::Nothing).await;
        }
    })
    .await
    .expect("the files close");
    engine.stop();
    Ok(())
}
