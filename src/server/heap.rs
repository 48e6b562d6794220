//! What the process's heap does with large blocks: it asks the kernel for each, and gives it back at once.
//!
//! Left to itself, glibc's allocator takes a large block that was given back for a sign that there will be more of them, and from
//! then on keeps blocks of that size, up to 32 MiB, in heaps of which nearly every thread has one. Answers of some megabytes are made
//! on many lanes and freed on a worker, so after a few hundred of them the process held hundreds of megabytes that nobody used.

use std::ffi::c_int;

/// From so many bytes on a block is the kernel's.
const LARGE: c_int = 1 << 20;

/// What a heap may keep of smaller blocks at its end, in bytes: twice that, as glibc itself does when it learns.
const KEPT: c_int = 2 * LARGE;

/// For the whole process; before it has other threads.
pub fn give_back_large_blocks() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: sets two numbers under the allocator's own lock. Where it refuses, memory is kept as it was before.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE);
        libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT);
    }
}
