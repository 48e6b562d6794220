//! The same work in process: rusqlite on files with the same settings and content, and plain files.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags};
use tenantry::cli::load::mix::Dice;
use tenantry::tenant::Role;
use tenantry::tenant::template::{Blueprint, Template};

/// Rows in table `t` of every tenant.
pub const ROWS: usize = 1_000;

/// A tenant's schema and rows: `t` is read, `w` is written, and each of `p` has five of `c`.
pub const SCHEMA: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT NOT NULL) STRICT;
     CREATE TABLE w (id INTEGER PRIMARY KEY, v TEXT NOT NULL) STRICT;
     CREATE TABLE p (id INTEGER PRIMARY KEY, v TEXT NOT NULL) STRICT;
     CREATE TABLE c (id INTEGER PRIMARY KEY, p INTEGER NOT NULL REFERENCES p(id), v TEXT NOT NULL) STRICT;
     CREATE INDEX c_p ON c(p);
     INSERT INTO p WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20) SELECT i, 'parent ' || i FROM n;
     INSERT INTO c WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 99) SELECT i + 1, 1 + i % 20, 'child ' || i FROM n;
     INSERT INTO t WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000)
       SELECT i, format('%06d the quick brown fox jumps over the lazy dog', i) FROM n;";

/// Which files are used.
#[derive(Clone, Copy)]
pub enum Which {
    /// The first, by every thread.
    One,
    /// All, each by one thread.
    All,
}

/// Files like a tenant's, each opened by rusqlite only.
pub struct Files {
    paths: Vec<PathBuf>,
    /// `synchronous`.
    level: &'static str,
    /// `locking_mode`.
    locking: &'static str,
}

impl Files {
    /// Databases: one that is made, and copies of it.
    pub fn make(folder: &Path, count: usize) -> Files {
        let files = Files::named(folder, "FULL", count);
        files.each(1, |conn| conn.execute_batch(&format!("BEGIN; {SCHEMA} COMMIT;")).expect("a schema"));
        let made = std::fs::read(&files.paths[0]).expect("it is closed, and its log with it");
        files.paths[1..].iter().for_each(|path| std::fs::write(path, &made).expect("a file"));
        files
    }

    /// Of another role: copies of the template, with what `begin` puts into them.
    pub fn of(folder: &Path, role: Role, level: &'static str, count: usize, begin: impl Fn(&Connection)) -> Files {
        let files = Files::named(folder, level, count);
        let template = template();
        let (_, bytes) = template.files().iter().find(|(of, _)| *of == role).expect("a template");
        files.paths.iter().for_each(|path| std::fs::write(path, bytes).expect("a file"));
        files.each(count, begin);
        files
    }

    fn named(folder: &Path, level: &'static str, count: usize) -> Files {
        std::fs::create_dir_all(folder).expect("a folder");
        Files { paths: (0..count).map(|at| folder.join(format!("{at}.sqlite"))).collect(), level, locking: "NORMAL" }
    }

    /// The same files at another level.
    pub fn at(&self, level: &'static str) -> Files {
        Files { paths: self.paths.clone(), level, ..*self }
    }

    /// The same files, each of one connection only: a read makes no system call.
    pub fn exclusive(&self) -> Files {
        Files { paths: self.paths.clone(), locking: "EXCLUSIVE", ..*self }
    }

    /// Does something in each of the first `count` files.
    pub fn each(&self, count: usize, work: impl Fn(&Connection)) {
        self.paths[..count].iter().for_each(|path| work(&self.open(path)));
    }

    /// Statements a second by so many threads; `work` runs one, given its number.
    pub fn rate(&self, slice: Duration, which: Which, threads: usize, work: impl Fn(&Connection, usize) + Sync) -> f64 {
        self.hold(which, threads, &work).rate(slice, usize::MAX, &work)
    }

    /// Connections for so many threads, each used by `first`, as the server's are before anything is measured.
    pub fn hold(&self, which: Which, threads: usize, first: &impl Fn(&Connection, usize)) -> Held {
        let paths: Vec<&PathBuf> = match which {
            Which::One => (0..threads).map(|_| &self.paths[0]).collect(),
            Which::All => self.paths.iter().collect(),
        };
        let mut sets: Vec<Vec<Connection>> = Vec::from_iter((0..threads).map(|_| Vec::new()));
        let mut dice = Dice::new(7);
        // One flush for all of it instead of some for each file.
        let unflushed = self.at("OFF");
        for (at, path) in paths.into_iter().enumerate() {
            let conn = unflushed.open(path);
            first(&conn, at);
            let set = &mut sets[at % threads];
            set.push(conn);
            // Neighbours in memory are not to be asked one after the other.
            let (last, other) = (set.len() - 1, dice.below(set.len()));
            set.swap(last, other);
        }
        let folder = File::open(self.paths[0].parent().expect("a folder")).expect("a folder");
        rustix::fs::syncfs(folder).expect("a flushed file system");
        let held = Held(sets);
        held.commit_at(self.level);
        held
    }

    /// How long it takes to open each file and run one statement, one after the other; with the connections, still open.
    pub fn opened(&self) -> Vec<(Duration, Connection)> {
        let open_and_read = |path: &PathBuf| {
            let began = Instant::now();
            let conn = self.open(path);
            read_point(&conn, 7);
            (began.elapsed(), conn)
        };
        self.paths.iter().map(open_and_read).collect()
    }

    /// Of the first `count` files, those opened, read once and closed again in a second, one after the other by one thread for
    /// each core.
    pub fn reopened(&self, count: usize, slice: Duration) -> f64 {
        let began = Instant::now();
        let done: usize = std::thread::scope(|scope| {
            let run = |thread: usize| {
                move || {
                    let paths = self.paths[..count].iter().skip(thread).step_by(cores()).cycle();
                    paths.take_while(|_| began.elapsed() < slice).map(|path| read_point(&self.open(path), 7)).count()
                }
            };
            let threads: Vec<_> = (0..cores()).map(|thread| scope.spawn(run(thread))).collect();
            threads.into_iter().map(|thread| thread.join().expect("a thread")).sum()
        });
        done as f64 / began.elapsed().as_secs_f64()
    }

    /// As a tenant's file is opened.
    fn open(&self, path: &Path) -> Connection {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        // SQLite's own VFS, whatever Tenantry does to this process.
        let conn = Connection::open_with_flags_and_vfs(path, flags | OpenFlags::SQLITE_OPEN_NOFOLLOW, c"unix").expect("a file");
        conn.busy_timeout(Duration::from_secs(5)).expect("a timeout");
        conn.execute_batch(&format!(
            "PRAGMA synchronous={}; PRAGMA locking_mode={}; PRAGMA foreign_keys=ON; PRAGMA temp_store=MEMORY; PRAGMA cell_size_check=ON;
             PRAGMA journal_mode=WAL; PRAGMA journal_size_limit=4194304;",
            self.level, self.locking
        ))
        .expect("settings");
        conn
    }
}

/// Connections that are open, a set for each thread.
pub struct Held(Vec<Vec<Connection>>);

impl Held {
    fn commit_at(&self, level: &str) {
        let set = |conn: &Connection| conn.execute_batch(&format!("PRAGMA synchronous={level}")).expect("a level");
        self.0.iter().flatten().for_each(set);
    }

    /// Statements a second, each thread on its first connections in turn, at most `among` of all threads together. For half
    /// of a server's slice: nothing but the disk disturbs what runs here.
    pub fn rate(&mut self, slice: Duration, among: usize, work: &(impl Fn(&Connection, usize) + Sync)) -> f64 {
        let (slice, each) = (slice / 2, among.div_ceil(self.0.len()));
        let began = Instant::now();
        let run = |conns: &mut [Connection]| {
            let mut done = 0;
            loop {
                work(&conns[done % conns.len()], done);
                done += 1;
                // Not before: a thread that comes late on a busy machine has done something.
                if began.elapsed() >= slice {
                    return done;
                }
            }
        };
        let done: usize = std::thread::scope(|scope| {
            let threads = self.0.iter_mut().map(|set| {
                let most = each.min(set.len());
                scope.spawn(move || run(&mut set[..most]))
            });
            let threads: Vec<_> = threads.collect();
            threads.into_iter().map(|thread| thread.join().expect("a thread")).sum()
        });
        done as f64 / began.elapsed().as_secs_f64()
    }
}

impl Drop for Held {
    /// Closing flushes nothing.
    fn drop(&mut self) {
        self.commit_at("OFF");
    }
}

pub fn read_point(conn: &Connection, number: usize) {
    let mut statement = conn.prepare_cached("SELECT v FROM t WHERE id = ?1").expect("a statement");
    let v: String = statement.query_row([(1 + number % ROWS) as i64], |row| row.get(0)).expect("a row");
    std::hint::black_box(v);
}

pub fn read_page(conn: &Connection, number: usize) {
    let mut statement = conn.prepare_cached("SELECT id, v FROM t WHERE id > ?1 ORDER BY id LIMIT 20").expect("a statement");
    let rows =
        statement.query_map([(number % (ROWS - 20)) as i64], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?))).expect("rows");
    assert_eq!(rows.map(Result::unwrap).map(std::hint::black_box).count(), 20);
}

pub fn insert(conn: &Connection, _number: usize) {
    conn.prepare_cached("INSERT INTO w (v) VALUES (?1)").expect("a statement").execute(["the quick brown fox"]).expect("a row");
}

/// Tenants' files made a second, each three copies of the templates, flushed, by one thread for each core.
pub fn copies(folder: &Path, count: usize) -> f64 {
    let template = template();
    let began = Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..cores() {
            let template = &template;
            scope.spawn(move || {
                for at in (thread..count).step_by(cores()) {
                    let own = folder.join(format!("copy-{at}"));
                    std::fs::create_dir_all(&own).expect("a folder");
                    for (role, bytes) in template.files() {
                        let mut file = File::create_new(own.join(role.as_str())).expect("a new file");
                        file.write_all(bytes).and_then(|()| file.sync_all()).expect("a flushed file");
                    }
                }
            });
        }
    });
    let rate = count as f64 / began.elapsed().as_secs_f64();
    std::fs::remove_dir_all(folder).expect("the copies can be removed");
    rate
}

fn template() -> Template {
    Template::build(&Blueprint::load(None).expect("migrations")).expect("a template")
}

pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(2, |cores| cores.get())
}
