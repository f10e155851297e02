/* System calls on chosen files fail: LD_PRELOAD this, and set

     FAIL_CALL    open, read, write, fsync, close, rename or flock
     FAIL_PATH    part of the name of the file
     FAIL_ERRNO   number of the error; 0: the call never returns
     FAIL_AFTER   how many such calls go well before
     FAIL_LOG     a file that gets a byte for every call that failed */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

static int fails(const char *call, const char *path) {
    static int done;
    const char *chosen = getenv("FAIL_CALL"), *part = getenv("FAIL_PATH");
    if (!chosen || !part || strcmp(chosen, call) || !path || !strstr(path, part)) return 0;
    if (__sync_fetch_and_add(&done, 1) < atoi(getenv("FAIL_AFTER"))) return 0;
    int log = syscall(SYS_openat, AT_FDCWD, getenv("FAIL_LOG"), O_WRONLY | O_APPEND | O_CREAT, 0666);
    syscall(SYS_write, log, "x", 1);
    syscall(SYS_close, log);
    int number = atoi(getenv("FAIL_ERRNO"));
    while (!number) pause();
    errno = number;
    return 1;
}

static int fails_at(const char *call, int handle) {
    char link[64], path[4096];
    if (!getenv("FAIL_CALL") || strcmp(getenv("FAIL_CALL"), call)) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", handle);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return fails(call, path);
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static int opened(const char *name, const char *path, int flags, mode_t mode) {
    int (*next)(const char *, int, ...) = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, name);
    return fails("open", path) ? -1 : next(path, flags, mode);
}

int open(const char *path, int flags, ...) {
    va_list list;
    va_start(list, flags);
    mode_t mode = va_arg(list, mode_t);
    va_end(list);
    return opened("open", path, flags, mode);
}

int open64(const char *path, int flags, ...) {
    va_list list;
    va_start(list, flags);
    mode_t mode = va_arg(list, mode_t);
    va_end(list);
    return opened("open64", path, flags, mode);
}

ssize_t read(int handle, void *buffer, size_t count) {
    return fails_at("read", handle) ? -1 : NEXT(read)(handle, buffer, count);
}

ssize_t write(int handle, const void *buffer, size_t count) {
    return fails_at("write", handle) ? -1 : NEXT(write)(handle, buffer, count);
}

int fsync(int handle) { return fails_at("fsync", handle) ? -1 : NEXT(fsync)(handle); }

int close(int handle) {
    if (!fails_at("close", handle)) return NEXT(close)(handle);
    int number = errno;
    NEXT(close)(handle);
    errno = number;
    return -1;
}

int rename(const char *old, const char *new) { return fails("rename", new) ? -1 : NEXT(rename)(old, new); }

int flock(int handle, int operation) { return fails_at("flock", handle) ? -1 : NEXT(flock)(handle, operation); }

/* The clock of the day jumps by CLOCK_JUMP seconds once the file FAIL_LOG exists. */

static long jump(void) {
    const char *seconds = getenv("CLOCK_JUMP");
    return seconds && !syscall(SYS_access, getenv("FAIL_LOG"), F_OK) ? atol(seconds) : 0;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int code = syscall(SYS_clock_gettime, clock, now);
    if (!code && clock == CLOCK_REALTIME) now->tv_sec += jump();
    return code;
}

time_t time(time_t *seconds) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (seconds) *seconds = now.tv_sec;
    return now.tv_sec;
}

int gettimeofday(struct timeval *now, void *zone) {
    struct timespec exact;
    (void)zone;
    int code = clock_gettime(CLOCK_REALTIME, &exact);
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return code;
}
