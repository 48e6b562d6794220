//! SQLite's memory, within bounds: a run's, and the process's. Its allocator is ours.
//!
//! - It counts what a thread takes and gives back while a run is [`Bounded`], and refuses the run that asks for more than
//!   its own bound. SQLite has one bound for the whole process, at which whoever asks next is refused, and that may be a
//!   neighbour.
//! - It keeps the account of the process ([`limit`]). SQLite's own is behind one mutex that every allocation of every
//!   thread takes, and lanes that open files met in it at nearly each: so that account is off. Ours is a number to which
//!   a thread adds what it took in steps of [`STEP`]; it is wrong by that much for each thread at most.
//! - What a thread gives back is at hand for what it takes next ([`kept`]).

mod kept;

use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::sync::{Once, OnceLock};

use rusqlite::ffi;

/// What SQLite would allocate with.
struct System {
    malloc: unsafe extern "C" fn(c_int) -> *mut c_void,
    realloc: unsafe extern "C" fn(*mut c_void, c_int) -> *mut c_void,
    free: unsafe extern "C" fn(*mut c_void),
    size: unsafe extern "C" fn(*mut c_void) -> c_int,
}

static SYSTEM: OnceLock<System> = OnceLock::new();

/// What a thread takes, or gives back, before it says so, in bytes.
const STEP: i64 = 64 << 10;

/// What SQLite holds, as far as its threads have said, and the bounds of it in bytes.
static USED: AtomicI64 = AtomicI64::new(0);
static SOFT: AtomicI64 = AtomicI64::new(i64::MAX);
static HARD: AtomicI64 = AtomicI64::new(i64::MAX);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Bound {
    None,
    /// Bytes that the run may still take.
    Left(i64),
}

/// Bytes that a thread took, or gave back, and has not said; it says them when it ends.
struct Unsaid(Cell<i64>);

impl Drop for Unsaid {
    fn drop(&mut self) {
        USED.fetch_add(self.0.get(), Relaxed);
    }
}

thread_local! {
    /// What the thread has not said yet.
    static UNSAID: Unsaid = const { Unsaid(Cell::new(0)) };
    static BOUND: Cell<Bound> = const { Cell::new(Bound::None) };
    /// Whether the thread's last bounded run was refused memory.
    static REFUSED: Cell<bool> = const { Cell::new(false) };
}

/// Bounds SQLite's memory in this process, in bytes; 0: no bound. Past `soft` the oldest pages of whatever connection's
/// cache make room for what is asked for; at `hard` nobody gets more. Before SQLite's first use: later it keeps the
/// allocator that it has, and nothing is bounded.
pub fn limit(soft: u64, hard: u64) {
    let bytes = |setting: u64| i64::try_from(setting).ok().filter(|&bytes| bytes > 0).unwrap_or(i64::MAX);
    SOFT.store(bytes(soft).min(bytes(hard)), Relaxed);
    HARD.store(bytes(hard), Relaxed);
    install();
}

fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let mut methods = MaybeUninit::<ffi::sqlite3_mem_methods>::uninit();
        // SAFETY: SQLite fills in the methods it would use.
        let methods = unsafe {
            ffi::sqlite3_config(ffi::SQLITE_CONFIG_GETMALLOC, methods.as_mut_ptr());
            methods.assume_init()
        };
        let (Some(malloc_), Some(realloc_), Some(free_), Some(size)) = (methods.xMalloc, methods.xRealloc, methods.xFree, methods.xSize)
        else {
            return;
        };
        SYSTEM.get_or_init(|| System { malloc: malloc_, realloc: realloc_, free: free_, size });
        let ours = ffi::sqlite3_mem_methods { xMalloc: Some(malloc), xRealloc: Some(realloc), xFree: Some(free), ..methods };
        // SAFETY: it copies the methods, or refuses once it has begun. Ours hand out the system's own blocks, so it does
        // not matter which of the two a block came from.
        if unsafe { ffi::sqlite3_config(ffi::SQLITE_CONFIG_MALLOC, &raw const ours) } == ffi::SQLITE_OK {
            // SAFETY: a plain setting, refused as the one before.
            unsafe { ffi::sqlite3_config(ffi::SQLITE_CONFIG_MEMSTATUS, 0 as c_int) };
        }
    });
}

/// While it lives, what SQLite allocates on this thread is bounded. It does not leave the thread.
pub struct Bounded(PhantomData<*const ()>);

impl Bounded {
    /// `bytes` 0: no bound.
    pub fn to(bytes: u64) -> Bounded {
        REFUSED.set(false);
        BOUND.set(if bytes == 0 { Bound::None } else { Bound::Left(i64::try_from(bytes).unwrap_or(i64::MAX)) });
        Bounded(PhantomData)
    }
}

impl Drop for Bounded {
    fn drop(&mut self) {
        BOUND.set(Bound::None);
    }
}

/// Whether the last bounded run on this thread was refused memory for its own bound.
pub fn was_refused() -> bool {
    REFUSED.get()
}

/// Takes so many bytes of the run's bound, or gives them back.
fn take(bytes: c_int) -> bool {
    match BOUND.get() {
        Bound::None => true,
        Bound::Left(left) if left < i64::from(bytes) => {
            REFUSED.set(true);
            false
        }
        Bound::Left(left) => {
            BOUND.set(Bound::Left(left.saturating_sub(bytes.into())));
            true
        }
    }
}

unsafe extern "C" fn malloc(bytes: c_int) -> *mut c_void {
    let bytes = kept::whole(bytes);
    counted(bytes, |system| {
        let block = kept::take(bytes);
        // SAFETY: SQLite's own argument, passed on.
        if block.is_null() { unsafe { (system.malloc)(bytes) } } else { block }
    })
}

unsafe extern "C" fn realloc(block: *mut c_void, bytes: c_int) -> *mut c_void {
    let Some(system) = SYSTEM.get() else { return std::ptr::null_mut() };
    let bytes = kept::whole(bytes);
    // SAFETY: SQLite's own arguments, passed on; the block is one of the system's.
    let more = bytes - unsafe { (system.size)(block) };
    counted(more, |system| unsafe { (system.realloc)(block, bytes) })
}

/// What the system allocates, `bytes` more than there was: counted if there is room, and if the system has it.
fn counted(bytes: c_int, allocate: impl FnOnce(&System) -> *mut c_void) -> *mut c_void {
    let Some(system) = SYSTEM.get().filter(|_| there_is_room(bytes) && take(bytes)) else { return std::ptr::null_mut() };
    let block = allocate(system);
    if block.is_null() {
        take(-bytes);
    } else {
        account(bytes);
    }
    block
}

/// Whether the process may take so many bytes more; past the soft bound, caches' pages go first.
fn there_is_room(bytes: c_int) -> bool {
    let fits = |bound: &AtomicI64| USED.load(Relaxed).saturating_add(bytes.into()) <= bound.load(Relaxed);
    if bytes > 0 && !fits(&SOFT) {
        // SAFETY: SQLite calls it where it allocates, too, past a soft bound of its own.
        unsafe { ffi::sqlite3_release_memory(bytes) };
    }
    bytes <= 0 || fits(&HARD)
}

/// Adds to what the process holds.
fn account(bytes: c_int) {
    let bytes = i64::from(bytes);
    let add = |unsaid: &Unsaid| {
        let sum = unsaid.0.get() + bytes;
        let said = if sum.abs() < STEP { 0 } else { sum };
        unsaid.0.set(sum - said);
        said
    };
    // A thread that is ending keeps nothing back.
    let said = UNSAID.try_with(add).unwrap_or(bytes);
    if said != 0 {
        USED.fetch_add(said, Relaxed);
    }
}

unsafe extern "C" fn free(block: *mut c_void) {
    if let Some(system) = SYSTEM.get() {
        // SAFETY: SQLite's own argument, passed on; the block is one of the system's.
        unsafe {
            let bytes = (system.size)(block);
            take(-bytes);
            account(-bytes);
            if !kept::keep(block, bytes) {
                (system.free)(block);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_gets_what_its_bound_leaves_and_what_it_gave_back() {
        let _bounded = Bounded::to(100);
        assert!(take(60) && !take(60) && was_refused());
        assert!(take(-30) && take(60) && !take(11));
        let _again = Bounded::to(0);
        assert!(take(c_int::MAX) && !was_refused(), "no bound");
    }

    #[test]
    fn a_thread_that_ends_has_said_all_it_gave_back() {
        const THREADS: i64 = 2_000;
        let before = USED.load(Relaxed);
        for _ in 0..THREADS {
            std::thread::spawn(|| account(1 - STEP as c_int)).join().unwrap();
        }
        // Other tests take and give back a little meanwhile.
        let given_back = before - USED.load(Relaxed);
        USED.fetch_add(THREADS * (STEP - 1), Relaxed);
        assert!(given_back > THREADS * STEP / 2, "{given_back}");
    }
}
