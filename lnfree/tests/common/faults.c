// A library to preload: it ends the process, or refuses a call, at a chosen call that changes files below a
// folder.
//   FAULT_UNDER=FOLDER  FAULT_AT=N         the N-th such call and all after it
//   FAULT_ERRNO=E                          fail with E; without it the process is killed
//   FAULT_FLOCK=E                          every flock fails with E
//   FAULT_CLOCK=1                          the time of day jumps by days, before 1970 too; the other clock stands still
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

static long calls;

static int below(const char *path) {
    static char folder[PATH_MAX];
    static int known;
    if (!known) {
        const char *wish = getenv("FAULT_UNDER");
        snprintf(folder, sizeof folder, "%s", wish ? wish : "\n");
        known = 1;
    }
    return strncmp(path, folder, strlen(folder)) == 0;
}

// Whether this call is to fail; does not return where it is to be the last.
static int fails(const char *path) {
    char full[2 * PATH_MAX], here[PATH_MAX];
    if (path[0] != '/' && getcwd(here, sizeof here))
        snprintf(full, sizeof full, "%s/%s", here, path);
    else
        snprintf(full, sizeof full, "%s", path);
    const char *at = getenv("FAULT_AT");
    if (!at || !below(full) || __sync_add_and_fetch(&calls, 1) < atol(at))
        return 0;
    const char *error = getenv("FAULT_ERRNO");
    if (!error)
        kill(getpid(), SIGKILL);
    errno = error ? atoi(error) : 0;
    return 1;
}

static int fails_at(int folder, const char *name) {
    char link[64], path[2 * PATH_MAX];
    if (folder == AT_FDCWD || name[0] == '/')
        return fails(name);
    snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
    ssize_t n = readlink(link, path, PATH_MAX - 1);
    if (n < 0)
        return 0;
    snprintf(path + n, sizeof path - n, "/%s", name);
    return fails(path);
}

static int fails_on(int file) {
    int before = errno;
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t n = readlink(link, path, sizeof path - 1);
    errno = before;
    if (n < 0)
        return 0;
    path[n] = 0;
    return fails(path);
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static int opens(const char *path, int flags, mode_t mode, const char *name) {
    if ((flags & O_CREAT) && fails(path))
        return -1;
    int (*next)(const char *, int, ...) = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, name);
    return next(path, flags, mode);
}
int open(const char *path, int flags, ...) {
    va_list more;
    va_start(more, flags);
    mode_t mode = va_arg(more, mode_t);
    va_end(more);
    return opens(path, flags, mode, "open");
}
int open64(const char *path, int flags, ...) {
    va_list more;
    va_start(more, flags);
    mode_t mode = va_arg(more, mode_t);
    va_end(more);
    return opens(path, flags, mode, "open64");
}
ssize_t write(int file, const void *bytes, size_t n) { return fails_on(file) ? -1 : NEXT(write)(file, bytes, n); }
int fsync(int file) { return fails_on(file) ? -1 : NEXT(fsync)(file); }
int fdatasync(int file) { return fails_on(file) ? -1 : NEXT(fdatasync)(file); }
int rename(const char *from, const char *to) { return fails(to) ? -1 : NEXT(rename)(from, to); }
int renameat2(int a, const char *from, int b, const char *to, unsigned flags) {
    return fails_at(b, to) ? -1 : NEXT(renameat2)(a, from, b, to, flags);
}
int unlink(const char *path) { return fails(path) ? -1 : NEXT(unlink)(path); }
int rmdir(const char *path) { return fails(path) ? -1 : NEXT(rmdir)(path); }
int unlinkat(int folder, const char *name, int flags) {
    return fails_at(folder, name) ? -1 : NEXT(unlinkat)(folder, name, flags);
}
int mkdir(const char *path, mode_t mode) { return fails(path) ? -1 : NEXT(mkdir)(path, mode); }
int symlink(const char *target, const char *path) { return fails(path) ? -1 : NEXT(symlink)(target, path); }
ssize_t copy_file_range(int a, off64_t *from, int b, off64_t *to, size_t n, unsigned flags) {
    return fails_on(b) ? -1 : NEXT(copy_file_range)(a, from, b, to, n, flags);
}
int flock(int file, int how) {
    const char *error = getenv("FAULT_FLOCK");
    if (!error)
        return ((int (*)(int, int))dlsym(RTLD_NEXT, "flock"))(file, how);
    errno = atoi(error);
    return -1;
}
int clock_gettime(clockid_t clock, struct timespec *time) {
    static long asked;
    int done = ((int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime"))(clock, time);
    if (done != 0 || !getenv("FAULT_CLOCK"))
        return done;
    long n = __sync_add_and_fetch(&asked, 1);
    if (clock == CLOCK_REALTIME)
        time->tv_sec = n % 3 == 0 ? -1000 : time->tv_sec + (n % 3 == 1 ? 86400 : -86400 * n);
    else if (clock == CLOCK_MONOTONIC)
        *time = (struct timespec){1000, 0};
    return 0;
}
