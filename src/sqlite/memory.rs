//! A run's memory. SQLite has one bound for the whole process, at which whoever asks next is refused, and that may be a
//! neighbour. So its allocator is ours: it counts what a thread takes and gives back while a run is [`Bounded`], and
//! refuses the run that asks for more than its own bound. Outside of a run nothing is counted or refused.

use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::marker::PhantomData;
use std::mem::MaybeUninit;
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

#[derive(Clone, Copy, PartialEq, Eq)]
enum Bound {
    None,
    /// Bytes that the run may still take.
    Left(i64),
}

thread_local! {
    static BOUND: Cell<Bound> = const { Cell::new(Bound::None) };
    /// Whether the thread's last bounded run was refused memory.
    static REFUSED: Cell<bool> = const { Cell::new(false) };
}

/// Has SQLite allocate through here. Once, before its first use: later it keeps what it has, and runs are not bounded.
pub fn install() {
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
        unsafe { ffi::sqlite3_config(ffi::SQLITE_CONFIG_MALLOC, &raw const ours) };
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
    // SAFETY: SQLite's own argument, passed on.
    counted(bytes, |system| unsafe { (system.malloc)(bytes) })
}

unsafe extern "C" fn realloc(block: *mut c_void, bytes: c_int) -> *mut c_void {
    let Some(system) = SYSTEM.get() else { return std::ptr::null_mut() };
    // SAFETY: SQLite's own arguments, passed on; the block is one of the system's.
    let more = bytes - unsafe { (system.size)(block) };
    counted(more, |system| unsafe { (system.realloc)(block, bytes) })
}

/// What the system allocates, `bytes` more than there was: counted if there is room, and if the system has it.
fn counted(bytes: c_int, allocate: impl FnOnce(&System) -> *mut c_void) -> *mut c_void {
    let Some(system) = SYSTEM.get().filter(|_| take(bytes)) else { return std::ptr::null_mut() };
    let block = allocate(system);
    if block.is_null() {
        take(-bytes);
    }
    block
}

unsafe extern "C" fn free(block: *mut c_void) {
    if let Some(system) = SYSTEM.get() {
        // SAFETY: SQLite's own argument, passed on; the block is one of the system's.
        unsafe {
            take(-(system.size)(block));
            (system.free)(block);
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
}
