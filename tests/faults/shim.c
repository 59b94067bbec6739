/* Counts a process's calls that change files under a folder, and lets one of them fail.

   Loaded with LD_PRELOAD. Armed by fault_arm(), or by PTK_FAULT_FOLDER and the variables beside it (see from_environment).
   Processes forked after that count together. Calls that a library makes past the C library's own functions aren't seen:
   io_uring, raw system calls, and stores into mapped memory. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum action { PASS, FAIL, SHORT, KILL };

struct plan {
    atomic_long seen;    /* calls so far */
    atomic_long reached; /* calls that were made to fail */
    long at;             /* number of the call that fails; 0: none */
    int action;
    int code;     /* errno of FAIL */
    int lasting;  /* every later call that takes space fails too, as on a full disk */
    int log;      /* file descriptor, or -1 */
    size_t length;
    char folder[PATH_MAX];
};

static struct plan *plan; /* shared with processes forked after it was made */

#define REAL(name) \
    static __typeof__(name) *real; \
    if (!real) real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

void fault_arm(const char *folder, long at, int action, int code, int lasting, const char *log) {
    struct plan *next = mmap(NULL, sizeof *next, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (next == MAP_FAILED) abort();
    next->at = at, next->action = action, next->code = code, next->lasting = lasting;
    next->length = strlen(folder);
    strncpy(next->folder, folder, sizeof next->folder - 1);
    next->log = log && *log ? (int)syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644) : -1;
    plan = next;
}

void fault_disarm(void) { plan = NULL; }
long fault_seen(void) { return plan ? atomic_load(&plan->seen) : 0; }
long fault_reached(void) { return plan ? atomic_load(&plan->reached) : 0; }

/* PTK_FAULT_FOLDER, PTK_FAULT_AT (from 1), PTK_FAULT_ACTION (ENOSPC, EIO, short, kill), PTK_FAULT_LASTING, PTK_FAULT_LOG */
__attribute__((constructor)) static void from_environment(void) {
    const char *folder = getenv("PTK_FAULT_FOLDER"), *at = getenv("PTK_FAULT_AT"), *action = getenv("PTK_FAULT_ACTION");
    if (!folder) return;
    action = action ? action : "EIO";
    fault_arm(folder, at ? atol(at) : 0, !strcmp(action, "short") ? SHORT : !strcmp(action, "kill") ? KILL : FAIL,
              !strcmp(action, "ENOSPC") ? ENOSPC : EIO, getenv("PTK_FAULT_LASTING") != NULL, getenv("PTK_FAULT_LOG"));
}

static int below(const char *path) {
    return !strncmp(path, plan->folder, plan->length) && (path[plan->length] == '/' || !path[plan->length]);
}

/* What becomes of this call: PASS, or what the plan says. `takes_space` is whether a full disk refuses it. */
static int decide(const char *call, const char *path, int takes_space) {
    if (!below(path)) return PASS;
    long number = atomic_fetch_add(&plan->seen, 1) + 1;
    if (plan->log >= 0) {
        char line[PATH_MAX + 64];
        int length = snprintf(line, sizeof line, "%ld %s %s\n", number, call, path + plan->length);
        syscall(SYS_write, plan->log, line, length);
    }
    if (!plan->at || number < plan->at || (number > plan->at && !(plan->lasting && takes_space))) return PASS;
    atomic_fetch_add(&plan->reached, 1);
    if (plan->action == FAIL) errno = plan->code;
    return plan->action;
}

/* A line about the call whose own line comes next. */
static void note(const char *what, const char *path, long size) {
    char line[PATH_MAX + 64];
    if (!plan || plan->log < 0 || !below(path)) return;
    syscall(SYS_write, plan->log, line, snprintf(line, sizeof line, "%ld %s %s\n", size, what, path + plan->length));
}

static int on_descriptor(const char *call, int descriptor, int takes_space) {
    char link[64], path[PATH_MAX];
    int saved = errno;
    if (!plan) return PASS;
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, sizeof path - 1);
    errno = saved;
    if (length <= 0) return PASS;
    path[length] = 0;
    struct stat now;
    if (!strcmp(call, "fsync") && !fstat(descriptor, &now) && S_ISREG(now.st_mode)) note("size", path, now.st_size);
    return decide(call, path, takes_space);
}

static int on_path(const char *call, int folder, const char *name, int takes_space) {
    char link[64], path[2 * PATH_MAX];
    int saved = errno;
    ssize_t length = 0;
    if (!plan || !name) return PASS;
    if (name[0] != '/') {
        snprintf(link, sizeof link, folder == AT_FDCWD ? "/proc/self/cwd" : "/proc/self/fd/%d", folder);
        length = readlink(link, path, PATH_MAX - 1);
        if (length < 0) length = 0;
        path[length++] = '/';
    }
    errno = saved;
    snprintf(path + length, PATH_MAX, "%s", name);
    return decide(call, path, takes_space);
}

static void die(void) {
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

/* Writes of `size` bytes: all of them, half of them, or none. */
#define TRANSFER(call, descriptor, size, all, half) \
    switch (on_descriptor(call, descriptor, 1)) { \
    case FAIL: return -1; \
    case SHORT: return (size) > 1 ? (half) : (all); \
    case KILL: if ((size) > 1) (void)!(half); die(); \
    } \
    return (all)

#define REFUSE(decision, call) \
    switch (decision) { \
    case FAIL: return -1; \
    case KILL: die(); \
    } \
    return (call)

ssize_t write(int d, const void *data, size_t n) {
    REAL(write);
    TRANSFER("write", d, n, real(d, data, n), real(d, data, n / 2));
}
ssize_t pwrite(int d, const void *data, size_t n, off_t at) {
    REAL(pwrite);
    TRANSFER("write", d, n, real(d, data, n, at), real(d, data, n / 2, at));
}
ssize_t pwrite64(int d, const void *data, size_t n, off64_t at) {
    REAL(pwrite64);
    TRANSFER("write", d, n, real(d, data, n, at), real(d, data, n / 2, at));
}

static size_t total(const struct iovec *parts, int n) {
    size_t sum = 0;
    for (int i = 0; i < n; i++) sum += parts[i].iov_len;
    return sum;
}
ssize_t writev(int d, const struct iovec *parts, int n) {
    REAL(writev);
    size_t size = total(parts, n);
    /* half: of the first part alone, which is a short write too */
    TRANSFER("write", d, size, real(d, parts, n), write(d, parts[0].iov_base, parts[0].iov_len / 2));
}
ssize_t sendfile(int out, int in, off_t *at, size_t n) {
    REAL(sendfile);
    TRANSFER("copy", out, n, real(out, in, at, n), real(out, in, at, n > 4096 ? 4096 : n / 2));
}
ssize_t sendfile64(int out, int in, off64_t *at, size_t n) {
    REAL(sendfile64);
    TRANSFER("copy", out, n, real(out, in, at, n), real(out, in, at, n > 4096 ? 4096 : n / 2));
}
ssize_t copy_file_range(int in, off64_t *from, int out, off64_t *to, size_t n, unsigned flags) {
    REAL(copy_file_range);
    TRANSFER("copy", out, n, real(in, from, out, to, n, flags), real(in, from, out, to, n > 4096 ? 4096 : n / 2, flags));
}

int fsync(int d) { REAL(fsync); REFUSE(on_descriptor("fsync", d, 0), real(d)); }
int fdatasync(int d) { REAL(fdatasync); REFUSE(on_descriptor("fsync", d, 0), real(d)); }
int ftruncate(int d, off_t n) { REAL(ftruncate); REFUSE(on_descriptor("truncate", d, 1), real(d, n)); }
int ftruncate64(int d, off64_t n) { REAL(ftruncate64); REFUSE(on_descriptor("truncate", d, 1), real(d, n)); }
int posix_fallocate(int d, off_t at, off_t n) {
    REAL(posix_fallocate);
    switch (on_descriptor("truncate", d, 1)) {
    case FAIL: return plan->code;
    case KILL: die();
    }
    return real(d, at, n);
}

int rename(const char *a, const char *b) { REAL(rename); if (a[0] == '/') note("from", a, 0); REFUSE(on_path("rename", AT_FDCWD, b, 1), real(a, b)); }
int renameat(int x, const char *a, int y, const char *b) { REAL(renameat); REFUSE(on_path("rename", y, b, 1), real(x, a, y, b)); }
int renameat2(int x, const char *a, int y, const char *b, unsigned f) {
    REAL(renameat2);
    REFUSE(on_path("rename", y, b, 1), real(x, a, y, b, f));
}
int link(const char *a, const char *b) { REAL(link); REFUSE(on_path("link", AT_FDCWD, b, 1), real(a, b)); }
int linkat(int x, const char *a, int y, const char *b, int f) { REAL(linkat); REFUSE(on_path("link", y, b, 1), real(x, a, y, b, f)); }
int symlink(const char *a, const char *b) { REAL(symlink); REFUSE(on_path("link", AT_FDCWD, b, 1), real(a, b)); }
int symlinkat(const char *a, int y, const char *b) { REAL(symlinkat); REFUSE(on_path("link", y, b, 1), real(a, y, b)); }

int mkdir(const char *p, mode_t m) { REAL(mkdir); REFUSE(on_path("mkdir", AT_FDCWD, p, 1), real(p, m)); }
int mkdirat(int d, const char *p, mode_t m) { REAL(mkdirat); REFUSE(on_path("mkdir", d, p, 1), real(d, p, m)); }
int unlink(const char *p) { REAL(unlink); REFUSE(on_path("remove", AT_FDCWD, p, 0), real(p)); }
int unlinkat(int d, const char *p, int f) { REAL(unlinkat); REFUSE(on_path("remove", d, p, 0), real(d, p, f)); }
int rmdir(const char *p) { REAL(rmdir); REFUSE(on_path("remove", AT_FDCWD, p, 0), real(p)); }

/* Opening an existing file takes no space: only what may make one does. */
#define OPENS(decision_folder, p, flags) \
    if ((flags) & (O_WRONLY | O_RDWR) && ((flags) & O_TMPFILE) != O_TMPFILE) { \
        switch (on_path("open", decision_folder, p, (flags) & O_CREAT)) { \
        case FAIL: return -1; \
        case KILL: die(); \
        } \
    }
#define MODE(last) \
    mode_t mode = 0; \
    if (flags & (O_CREAT | O_TMPFILE)) { va_list rest; va_start(rest, last); mode = va_arg(rest, int); va_end(rest); }

int open(const char *p, int flags, ...) { MODE(flags); REAL(open); OPENS(AT_FDCWD, p, flags); return real(p, flags, mode); }
int open64(const char *p, int flags, ...) { MODE(flags); REAL(open64); OPENS(AT_FDCWD, p, flags); return real(p, flags, mode); }
int openat(int d, const char *p, int flags, ...) { MODE(flags); REAL(openat); OPENS(d, p, flags); return real(d, p, flags, mode); }
int openat64(int d, const char *p, int flags, ...) { MODE(flags); REAL(openat64); OPENS(d, p, flags); return real(d, p, flags, mode); }

static int flags_of(const char *mode) { return *mode == 'r' ? (strchr(mode, '+') ? O_RDWR : O_RDONLY) : O_WRONLY | O_CREAT; }
#define OPENS_STREAM(p, m) \
    switch (flags_of(m) ? on_path("open", AT_FDCWD, p, flags_of(m) & O_CREAT) : PASS) { \
    case FAIL: return NULL; \
    case KILL: die(); \
    } \
    return real(p, m)
FILE *fopen(const char *p, const char *m) { REAL(fopen); OPENS_STREAM(p, m); }
FILE *fopen64(const char *p, const char *m) { REAL(fopen64); OPENS_STREAM(p, m); }
