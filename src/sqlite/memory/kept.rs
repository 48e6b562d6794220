//! Blocks that a thread gave back, kept for what it takes next. Opening a file takes some five hundred small blocks, and closing it
//! gives them back, all of the same few sizes; the system's allocator keeps seven of a size at hand, and was a quarter of the
//! instructions of both.
//!
//! - Blocks of a size are in a list of their own, so any of them serves. What is kept is nobody's but its thread's; it begins with the
//!   address of the next.
//! - A thread keeps at most [`KEPT`] of a size, and nothing larger than [`LARGEST`]: 512 KiB in the worst case. It is not counted as
//!   SQLite's, and goes back when the thread ends.

use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::ptr::null_mut;

use super::SYSTEM;

/// Sizes are multiples of it. Those of glibc's are, with the eight bytes that SQLite puts before each block.
const GRAIN: usize = 16;

/// The largest block that is kept, in bytes.
const LARGEST: usize = 1024;

/// What is kept of a size, in bytes.
const KEPT: usize = 8 << 10;

/// The blocks of one size.
struct Stack {
    first: Cell<*mut c_void>,
    count: Cell<usize>,
}

struct Kept([Stack; LARGEST / GRAIN + 1]);

thread_local! {
    static OF_THREAD: Kept = const { Kept([const { Stack { first: Cell::new(null_mut()), count: Cell::new(0) } }; LARGEST / GRAIN + 1]) };
}

/// The size that a block of so many bytes is made in.
pub fn whole(bytes: c_int) -> c_int {
    if bytes <= LARGEST as c_int { (bytes + (GRAIN as c_int - 1)) & !(GRAIN as c_int - 1) } else { bytes }
}

/// A block of a [`whole`] size that the thread gave back, or null.
pub fn take(bytes: c_int) -> *mut c_void {
    OF_THREAD.try_with(|kept| kept.of(bytes).map_or(null_mut(), Stack::pop)).unwrap_or(null_mut())
}

/// Keeps a block, if it is of a size that is kept and there is room.
///
/// # Safety
/// It has so many bytes, and nobody uses it any more.
pub unsafe fn keep(block: *mut c_void, bytes: c_int) -> bool {
    // SAFETY: the caller's promise.
    OF_THREAD.try_with(|kept| kept.of(bytes).is_some_and(|stack| unsafe { stack.push(block, bytes) })).unwrap_or(false)
}

impl Kept {
    fn of(&self, bytes: c_int) -> Option<&Stack> {
        let bytes = usize::try_from(bytes).ok().filter(|bytes| bytes.is_multiple_of(GRAIN) && *bytes > 0)?;
        self.0.get(bytes / GRAIN)
    }
}

impl Stack {
    fn pop(&self) -> *mut c_void {
        let block = self.first.get();
        if !block.is_null() {
            // SAFETY: it was pushed, and nobody has had it since.
            self.first.set(unsafe { block.cast::<*mut c_void>().read() });
            self.count.set(self.count.get() - 1);
        }
        block
    }

    unsafe fn push(&self, block: *mut c_void, bytes: c_int) -> bool {
        let fits = (self.count.get() + 1) * bytes as usize <= KEPT;
        if fits {
            // SAFETY: it has at least a grain of bytes, aligned as SQLite's blocks are, and is nobody's.
            unsafe { block.cast::<*mut c_void>().write(self.first.get()) };
            self.first.set(block);
            self.count.set(self.count.get() + 1);
        }
        fits
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let Some(system) = SYSTEM.get() else { return };
        for stack in &self.0 {
            while let block = stack.pop()
                && !block.is_null()
            {
                // SAFETY: what is kept is a block of the system's that nobody uses.
                unsafe { (system.free)(block) };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Blocks of the test's own, as long as it runs: they are taken back before it ends.
    fn blocks<const N: usize>(bytes: usize) -> [Vec<u64>; N] {
        std::array::from_fn(|_| vec![0; bytes / 8])
    }

    #[test]
    fn a_block_comes_back_in_its_own_size_and_on_its_own_thread_only() {
        let mut mine = blocks::<2>(64);
        let [first, second] = mine.each_mut().map(|block| block.as_mut_ptr().cast::<c_void>());
        // SAFETY: they are this test's, and have 64 bytes.
        unsafe { assert!(keep(first, 64) && keep(second, 64)) };
        assert_eq!([take(48), take(80)], [null_mut(); 2]);
        assert!(std::thread::spawn(|| take(64).is_null()).join().unwrap());
        assert_eq!([take(whole(50)), take(whole(64)), take(64)], [second, first, null_mut()]);
    }

    #[test]
    fn so_much_is_kept_and_no_more() {
        let mut mine = blocks::<9>(1024);
        // SAFETY: they are this test's, and have so many bytes.
        let kept = mine.iter_mut().map(|block| unsafe { keep(block.as_mut_ptr().cast(), 1024) }).filter(|kept| *kept).count();
        assert_eq!(kept, KEPT / 1024);
        assert_eq!(std::iter::repeat_with(|| take(1024)).take_while(|block| !block.is_null()).count(), kept);
        let mut odd = blocks::<1>(2048);
        for bytes in [8, 24, 1040, 2048] {
            // SAFETY: it has as many at least.
            assert!(!unsafe { keep(odd[0].as_mut_ptr().cast(), bytes) }, "{bytes}");
        }
        assert_eq!([1, 16, 17, 1_000, 1_025].map(whole), [16, 16, 32, 1_008, 1_025]);
    }
}
