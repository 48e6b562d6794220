/*
 * A fault shim: preloaded into a server, it counts the system calls that change files whose path matches a pattern,
 * and makes the Nth of them fail, or end the process; and it sets the wall clock ahead. It is steered through a control file that the test maps too
 * (FAULT_CONTROL), so a rule can change while the server runs. Without a rule it only passes calls on.
 *
 *   cc -shared -fPIC -O2 -o shim.so shim.c -ldl
 *
 * tests/it/support/shim.rs builds it and has the other half of `struct control`.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { OPEN = 1, WRITE = 2, SYNC = 4, TRUNCATE = 8, RENAME = 16, UNLINK = 32, MKDIR = 64 };

struct control {
    uint32_t operations; /* of the rule; 0: there is none */
    int32_t error;       /* errno to fail with; 0: only count; -1: SIGKILL; -2: SIGSTOP, and go on when continued */
    uint64_t nth;        /* the first call to fail, from 1 */
    uint64_t times;      /* how many fail from there on */
    uint64_t seen;       /* calls that matched */
    uint64_t hits;       /* calls that failed */
    uint32_t torn;       /* a failing write writes its first half */
    uint32_t loaded;     /* the process that the shim is in */
    char pattern[208];   /* fnmatch(3) with FNM_EXTMATCH; * matches / too */
    int64_t ahead;       /* seconds that the wall clock is ahead; the others are as they are */
    uint32_t inside;     /* calls that are being held against the rule: it is over once they have ended, too */
};

static volatile struct control *control;

__attribute__((constructor)) static void load(void) {
    const char *path = getenv("FAULT_CONTROL");
    if (!path)
        return;
    int fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC, 0);
    if (fd < 0)
        return;
    void *map = mmap(NULL, sizeof(struct control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    syscall(SYS_close, fd);
    if (map != MAP_FAILED) {
        control = map;
        control->inside = 0; /* a process that was killed left some */
        control->loaded = (uint32_t)getpid();
    }
}

/* Whether this call is to fail (with errno set). */
static int falls(const char *path) {
    if (!fnmatch((const char *)control->pattern, path, FNM_EXTMATCH)) {
        uint64_t call = __atomic_add_fetch(&control->seen, 1, __ATOMIC_SEQ_CST);
        uint64_t from = control->nth;
        if (control->error && call >= from && call - from < control->times) {
            __atomic_add_fetch(&control->hits, 1, __ATOMIC_SEQ_CST);
            errno = control->error;
            return 1;
        }
    }
    return 0;
}

static int falls_of_fd(int fd) {
    char link[40], path[PATH_MAX];
    int kept = errno;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    errno = kept;
    if (length < 0)
        return 0;
    path[length] = 0;
    return falls(path);
}

/* Looks at the rule only while it is counted as inside. */
#define HELD(operation, outcome) \
    if (!control) \
        return 0; \
    __atomic_add_fetch(&control->inside, 1, __ATOMIC_SEQ_CST); \
    int held = (control->operations & operation) && outcome; \
    __atomic_sub_fetch(&control->inside, 1, __ATOMIC_SEQ_CST); \
    return held

static int fd_falls(uint32_t operation, int fd) { HELD(operation, falls_of_fd(fd)); }

static int path_falls(uint32_t operation, const char *path) { HELD(operation, path && falls(path)); }

/* What a falling call does: 0 to go on, -1 to fail. */
static int fall(void) {
    if (control->error == -1) {
        syscall(SYS_kill, syscall(SYS_getpid), SIGKILL);
        for (;;)
            pause();
    }
    if (control->error == -2) {
        syscall(SYS_kill, syscall(SYS_getpid), SIGSTOP);
        return 0;
    }
    errno = control->error;
    return -1;
}

#define NEXT(name) \
    static __typeof__(name) *next; \
    if (!next) \
        next = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

int clock_gettime(clockid_t clock, struct timespec *at) {
    NEXT(clock_gettime);
    int outcome = next(clock, at);
    if (!outcome && clock == CLOCK_REALTIME && control)
        at->tv_sec += control->ahead;
    return outcome;
}

#define FD_CALL(type, name, operation, parameters, arguments, torn_call) \
    type name parameters { \
        NEXT(name); \
        if (fd_falls(operation, fd)) { \
            if (control->torn) { \
                torn_call; \
            } \
            if (fall()) \
                return -1; \
        } \
        return next arguments; \
    }

FD_CALL(ssize_t, write, WRITE, (int fd, const void *from, size_t size), (fd, from, size), (void)!next(fd, from, size / 2))
FD_CALL(ssize_t, pwrite, WRITE, (int fd, const void *from, size_t size, off_t at), (fd, from, size, at), (void)!next(fd, from, size / 2, at))
FD_CALL(ssize_t, pwrite64, WRITE, (int fd, const void *from, size_t size, off64_t at), (fd, from, size, at), (void)!next(fd, from, size / 2, at))
FD_CALL(int, fsync, SYNC, (int fd), (fd), (void)0)
FD_CALL(int, fdatasync, SYNC, (int fd), (fd), (void)0)
FD_CALL(int, ftruncate, TRUNCATE, (int fd, off_t to), (fd, to), (void)0)
FD_CALL(int, ftruncate64, TRUNCATE, (int fd, off64_t to), (fd, to), (void)0)

#define PATH_CALL(name, operation, parameters, arguments, path) \
    int name parameters { \
        NEXT(name); \
        if (path_falls(operation, path) && fall()) \
            return -1; \
        return next arguments; \
    }

PATH_CALL(rename, RENAME, (const char *from, const char *to), (from, to), to)
PATH_CALL(renameat2, RENAME, (int from_dir, const char *from, int to_dir, const char *to, unsigned flags), (from_dir, from, to_dir, to, flags), to)
PATH_CALL(unlink, UNLINK, (const char *path), (path), path)
PATH_CALL(unlinkat, UNLINK, (int dir, const char *path, int flags), (dir, path, flags), path)
PATH_CALL(rmdir, UNLINK, (const char *path), (path), path)
PATH_CALL(mkdir, MKDIR, (const char *path, mode_t mode), (path, mode), path)

static mode_t mode_of(int flags, va_list more) { return flags & (O_CREAT | __O_TMPFILE) ? va_arg(more, mode_t) : 0; }

#define OPEN_CALL(name, parameters, before) \
    int name parameters { \
        NEXT(name); \
        va_list more; \
        va_start(more, flags); \
        mode_t mode = mode_of(flags, more); \
        va_end(more); \
        if (path_falls(OPEN, path) && fall()) \
            return -1; \
        return before; \
    }

OPEN_CALL(open, (const char *path, int flags, ...), next(path, flags, mode))
OPEN_CALL(open64, (const char *path, int flags, ...), next(path, flags, mode))
OPEN_CALL(openat, (int dir, const char *path, int flags, ...), next(dir, path, flags, mode))
OPEN_CALL(openat64, (int dir, const char *path, int flags, ...), next(dir, path, flags, mode))
