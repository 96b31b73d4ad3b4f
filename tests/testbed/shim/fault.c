/* fault.c - LD_PRELOAD: watches what a program changes below FAULT_ROOT, and kills it or fails a call there.
 *
 *   FAULT_ROOT   the folder; everything elsewhere goes by unseen and uncounted
 *   FAULT_LOG    a file; each watched call adds "index<TAB>op<TAB>path[<TAB>other path]", paths below FAULT_ROOT
 *   FAULT_AT     the index of one call (from 1, counted in this process), or
 *   FAULT_MATCH  op[:substring of a path], and FAULT_FROM: the first matching call that is meant (1), and all after it
 *   FAULT_DO     kill-before | kill-after | errno:NAME (the call fails so instead of being carried out)
 *
 * Ops: create (open with O_CREAT), open (for writing), write, sync, truncate, allocate, rename, link, symlink,
 * unlink, rmdir, mkdir, flock, copy, close (of what was open for writing). "read" is neither counted nor logged, and
 * can be met by FAULT_MATCH alone: how a file is read back says nothing about what was done.
 *
 * System calls are made directly, so that nothing here is seen by itself.
 */
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
#include <sys/file.h>
#include <sys/sendfile.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

typedef char path_t[PATH_MAX + 256];

static path_t root;
static size_t root_length;
static int log_fd = -1;
static long at_index = -1, from_match = 1;
static char match_op[32], match_part[256];
static enum { NOTHING, KILL_BEFORE, KILL_AFTER, FAIL } deed;
static int deed_errno;
static atomic_long calls, matches;

/* What is to happen to one call. */
typedef struct {
    int error;
    int kill_after;
} verdict;

static void die(void) {
    kill(getpid(), SIGKILL);
    for (;;)
        pause();
}

static void give_up(const char *what, const char *value) {
    dprintf(2, "fault.c: %s: %s\n", what, value);
    _exit(70);
}

static void read_deed(const char *text) {
    if (strcmp(text, "kill-before") == 0) {
        deed = KILL_BEFORE;
    } else if (strcmp(text, "kill-after") == 0) {
        deed = KILL_AFTER;
    } else if (strncmp(text, "errno:", 6) == 0) {
        deed = FAIL;
        for (int number = 1; number < 256 && deed_errno == 0; number++) {
            const char *name = strerrorname_np(number);
            if (name != NULL && strcmp(name, text + 6) == 0)
                deed_errno = number;
        }
    }
    if (deed == NOTHING || (deed == FAIL && deed_errno == 0))
        give_up("FAULT_DO says neither kill-before, kill-after nor errno:NAME", text);
}

__attribute__((constructor)) static void begin(void) {
    const char *value;
    if ((value = getenv("FAULT_ROOT")) == NULL)
        return;
    if (realpath(value, root) == NULL)
        give_up("FAULT_ROOT is no folder", value);
    root_length = strlen(root);
    if ((value = getenv("FAULT_LOG")) != NULL) {
        log_fd = syscall(SYS_openat, AT_FDCWD, value, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
        if (log_fd < 0)
            give_up("FAULT_LOG can't be opened", value);
        /* Out of the way of a program that counts its descriptors, or closes the low ones. */
        int high = fcntl(log_fd, F_DUPFD_CLOEXEC, 900);
        if (high >= 0) {
            syscall(SYS_close, log_fd);
            log_fd = high;
        }
    }
    if ((value = getenv("FAULT_AT")) != NULL)
        at_index = atol(value);
    if ((value = getenv("FAULT_MATCH")) != NULL) {
        size_t op_length = strcspn(value, ":");
        snprintf(match_op, sizeof match_op, "%.*s", (int)op_length, value);
        if (value[op_length] == ':')
            snprintf(match_part, sizeof match_part, "%s", value + op_length + 1);
    }
    if ((value = getenv("FAULT_FROM")) != NULL)
        from_match = atol(value);
    if ((value = getenv("FAULT_DO")) != NULL)
        read_deed(value);
}

/* The part of an absolute path below the root, or NULL. */
static const char *below_root(const char *path) {
    if (root_length == 0 || strncmp(path, root, root_length) != 0)
        return NULL;
    if (path[root_length] == '\0')
        return ".";
    return path[root_length] == '/' ? path + root_length + 1 : NULL;
}

static const char *path_of_fd(int fd, path_t into) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, into, sizeof(path_t) - 1);
    if (length < 0)
        return NULL;
    into[length] = '\0';
    return below_root(into);
}

/* Resolves the folder of a path, not its last name: that may be new, or a link that is meant itself. */
static const char *path_of_name(int folder_fd, const char *name, path_t into) {
    path_t whole, folder;
    if (name == NULL)
        return NULL;
    if (name[0] == '/') {
        snprintf(whole, sizeof whole, "%s", name);
    } else {
        ssize_t length;
        if (folder_fd == AT_FDCWD) {
            length = readlink("/proc/self/cwd", folder, sizeof folder - 1);
        } else {
            char link[64];
            snprintf(link, sizeof link, "/proc/self/fd/%d", folder_fd);
            length = readlink(link, folder, sizeof folder - 1);
        }
        if (length < 0)
            return NULL;
        snprintf(whole, sizeof whole, "%.*s/%.*s", (int)length, folder, 4000, name);
    }
    char *slash = strrchr(whole, '/');
    const char *last = slash + 1;
    *slash = '\0';
    if (realpath(slash == whole ? "/" : whole, folder) == NULL)
        snprintf(folder, sizeof folder, "%s", whole);
    snprintf(into, sizeof(path_t), "%.4000s/%.255s", strcmp(folder, "/") == 0 ? "" : folder, last);
    return below_root(into);
}

static int is_meant(long index, const char *op, const char *path, const char *other) {
    if (deed == NOTHING)
        return 0;
    if (index > 0 && index == at_index)
        return 1;
    if (match_op[0] == '\0' || strcmp(match_op, op) != 0)
        return 0;
    if (strstr(path, match_part) == NULL && (other == NULL || strstr(other, match_part) == NULL))
        return 0;
    return atomic_fetch_add(&matches, 1) + 1 >= from_match;
}

/* Counts and logs one call on these paths below the root (both NULL: none of ours), and decides. */
static verdict judge(const char *op, const char *path, const char *other) {
    verdict result = {0, 0};
    int before = errno, counted = strcmp(op, "read") != 0;
    long index = 0;
    if (path == NULL && other == NULL)
        return result;
    if (path == NULL)
        path = "-";
    if (counted)
        index = atomic_fetch_add(&calls, 1) + 1;
    if (counted && log_fd >= 0) {
        char line[2 * sizeof(path_t) + 64];
        int length = snprintf(line, sizeof line, "%ld\t%s\t%s%s%s\n", index, op, path, other ? "\t" : "",
                              other ? other : "");
        syscall(SYS_write, log_fd, line, length);
    }
    if (is_meant(index, op, path, other)) {
        if (deed == KILL_BEFORE)
            die();
        result.kill_after = deed == KILL_AFTER;
        result.error = deed == FAIL ? deed_errno : 0;
    }
    errno = before;
    return result;
}

static verdict judge_fd(const char *op, int fd) {
    path_t path;
    return judge(op, root_length ? path_of_fd(fd, path) : NULL, NULL);
}

static verdict judge_name(const char *op, int folder_fd, const char *name) {
    path_t path;
    return judge(op, root_length ? path_of_name(folder_fd, name, path) : NULL, NULL);
}

static verdict judge_names(const char *op, int from_fd, const char *from, int to_fd, const char *to) {
    path_t first, second;
    if (root_length == 0)
        return (verdict){0, 0};
    return judge(op, path_of_name(from_fd, from, first), path_of_name(to_fd, to, second));
}

static long finish(verdict decided, long result) {
    if (decided.kill_after)
        die();
    return result;
}

#define CARRY_OUT(decided, ...)                            \
    do {                                                   \
        verdict decided_ = (decided);                      \
        if (decided_.error) {                              \
            errno = decided_.error;                        \
            return -1;                                     \
        }                                                  \
        return finish(decided_, syscall(__VA_ARGS__));     \
    } while (0)

#define ALIAS(name) __attribute__((alias(#name)))

static int open_watched(int folder_fd, const char *name, int flags, mode_t mode) {
    verdict decided = {0, 0};
    if (flags & O_CREAT)
        decided = judge_name("create", folder_fd, name);
    else if ((flags & O_ACCMODE) != O_RDONLY)
        decided = judge_name("open", folder_fd, name);
    CARRY_OUT(decided, SYS_openat, folder_fd, name, flags, mode);
}

#define MODE_AFTER(flags)                                  \
    mode_t mode = 0;                                       \
    if ((flags) & (O_CREAT | __O_TMPFILE)) {               \
        va_list rest;                                      \
        va_start(rest, flags);                             \
        mode = va_arg(rest, mode_t);                       \
        va_end(rest);                                      \
    }

int open(const char *name, int flags, ...) {
    MODE_AFTER(flags)
    return open_watched(AT_FDCWD, name, flags, mode);
}
int open64(const char *, int, ...) ALIAS(open);

int openat(int folder_fd, const char *name, int flags, ...) {
    MODE_AFTER(flags)
    return open_watched(folder_fd, name, flags, mode);
}
int openat64(int, const char *, int, ...) ALIAS(openat);

int creat(const char *name, mode_t mode) {
    return open_watched(AT_FDCWD, name, O_CREAT | O_WRONLY | O_TRUNC, mode);
}
int creat64(const char *, mode_t) ALIAS(creat);

int close(int fd) {
    int flags = syscall(SYS_fcntl, fd, F_GETFL);
    verdict decided = {0, 0};
    if (flags >= 0 && (flags & O_ACCMODE) != O_RDONLY && !(flags & O_PATH))
        decided = judge_fd("close", fd);
    long result = finish(decided, syscall(SYS_close, fd));
    if (decided.error) { /* as Linux does: closed all the same */
        errno = decided.error;
        return -1;
    }
    return result;
}

ssize_t read(int fd, void *into, size_t size) { CARRY_OUT(judge_fd("read", fd), SYS_read, fd, into, size); }

ssize_t readv(int fd, const struct iovec *into, int count) {
    CARRY_OUT(judge_fd("read", fd), SYS_readv, fd, into, count);
}

ssize_t pread(int fd, void *into, size_t size, off_t at) {
    CARRY_OUT(judge_fd("read", fd), SYS_pread64, fd, into, size, at);
}
ssize_t pread64(int, void *, size_t, off64_t) ALIAS(pread);

ssize_t preadv(int fd, const struct iovec *into, int count, off_t at) {
    CARRY_OUT(judge_fd("read", fd), SYS_preadv, fd, into, count, at, 0);
}
ssize_t preadv64(int, const struct iovec *, int, off64_t) ALIAS(preadv);

ssize_t preadv2(int fd, const struct iovec *into, int count, off_t at, int flags) {
    CARRY_OUT(judge_fd("read", fd), SYS_preadv2, fd, into, count, at, 0, flags);
}
ssize_t preadv64v2(int, const struct iovec *, int, off64_t, int) ALIAS(preadv2);

ssize_t write(int fd, const void *from, size_t size) { CARRY_OUT(judge_fd("write", fd), SYS_write, fd, from, size); }

ssize_t writev(int fd, const struct iovec *from, int count) {
    CARRY_OUT(judge_fd("write", fd), SYS_writev, fd, from, count);
}

ssize_t pwrite(int fd, const void *from, size_t size, off_t at) {
    CARRY_OUT(judge_fd("write", fd), SYS_pwrite64, fd, from, size, at);
}
ssize_t pwrite64(int, const void *, size_t, off64_t) ALIAS(pwrite);

ssize_t pwritev(int fd, const struct iovec *from, int count, off_t at) {
    CARRY_OUT(judge_fd("write", fd), SYS_pwritev, fd, from, count, at, 0);
}
ssize_t pwritev64(int, const struct iovec *, int, off64_t) ALIAS(pwritev);

ssize_t pwritev2(int fd, const struct iovec *from, int count, off_t at, int flags) {
    CARRY_OUT(judge_fd("write", fd), SYS_pwritev2, fd, from, count, at, 0, flags);
}
ssize_t pwritev64v2(int, const struct iovec *, int, off64_t, int) ALIAS(pwritev2);

ssize_t copy_file_range(int from, off64_t *from_at, int to, off64_t *to_at, size_t size, unsigned int flags) {
    CARRY_OUT(judge_fd("copy", to), SYS_copy_file_range, from, from_at, to, to_at, size, flags);
}

ssize_t sendfile(int to, int from, off_t *at, size_t size) {
    CARRY_OUT(judge_fd("copy", to), SYS_sendfile, to, from, at, size);
}
ssize_t sendfile64(int, int, off64_t *, size_t) ALIAS(sendfile);

int fsync(int fd) { CARRY_OUT(judge_fd("sync", fd), SYS_fsync, fd); }

int fdatasync(int fd) { CARRY_OUT(judge_fd("sync", fd), SYS_fdatasync, fd); }

int ftruncate(int fd, off_t size) { CARRY_OUT(judge_fd("truncate", fd), SYS_ftruncate, fd, size); }
int ftruncate64(int, off64_t) ALIAS(ftruncate);

int truncate(const char *name, off_t size) {
    CARRY_OUT(judge_name("truncate", AT_FDCWD, name), SYS_truncate, name, size);
}
int truncate64(const char *, off64_t) ALIAS(truncate);

int fallocate(int fd, int mode, off_t at, off_t size) {
    CARRY_OUT(judge_fd("allocate", fd), SYS_fallocate, fd, mode, at, size);
}
int fallocate64(int, int, off64_t, off64_t) ALIAS(fallocate);

int posix_fallocate(int fd, off_t at, off_t size) {
    verdict decided = judge_fd("allocate", fd);
    if (decided.error)
        return decided.error; /* this one returns it, and leaves errno alone */
    int (*next)(int, off_t, off_t) = (int (*)(int, off_t, off_t))dlsym(RTLD_NEXT, "posix_fallocate");
    return finish(decided, next(fd, at, size));
}
int posix_fallocate64(int, off64_t, off64_t) ALIAS(posix_fallocate);

int flock(int fd, int how) { CARRY_OUT(judge_fd("flock", fd), SYS_flock, fd, how); }

int renameat2(int from_fd, const char *from, int to_fd, const char *to, unsigned int flags) {
    CARRY_OUT(judge_names("rename", from_fd, from, to_fd, to), SYS_renameat2, from_fd, from, to_fd, to, flags);
}

int renameat(int from_fd, const char *from, int to_fd, const char *to) {
    CARRY_OUT(judge_names("rename", from_fd, from, to_fd, to), SYS_renameat2, from_fd, from, to_fd, to, 0);
}

int rename(const char *from, const char *to) { return renameat(AT_FDCWD, from, AT_FDCWD, to); }

int linkat(int from_fd, const char *from, int to_fd, const char *to, int flags) {
    CARRY_OUT(judge_names("link", from_fd, from, to_fd, to), SYS_linkat, from_fd, from, to_fd, to, flags);
}

int link(const char *from, const char *to) { return linkat(AT_FDCWD, from, AT_FDCWD, to, 0); }

int symlinkat(const char *text, int folder_fd, const char *name) {
    CARRY_OUT(judge_name("symlink", folder_fd, name), SYS_symlinkat, text, folder_fd, name);
}

int symlink(const char *text, const char *name) { return symlinkat(text, AT_FDCWD, name); }

int unlinkat(int folder_fd, const char *name, int flags) {
    const char *op = flags & AT_REMOVEDIR ? "rmdir" : "unlink";
    CARRY_OUT(judge_name(op, folder_fd, name), SYS_unlinkat, folder_fd, name, flags);
}

int unlink(const char *name) { return unlinkat(AT_FDCWD, name, 0); }

int rmdir(const char *name) { return unlinkat(AT_FDCWD, name, AT_REMOVEDIR); }

int mkdirat(int folder_fd, const char *name, mode_t mode) {
    CARRY_OUT(judge_name("mkdir", folder_fd, name), SYS_mkdirat, folder_fd, name, mode);
}

int mkdir(const char *name, mode_t mode) { return mkdirat(AT_FDCWD, name, mode); }
