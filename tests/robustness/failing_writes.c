/* Makes a disk fail under a program: LD_PRELOAD of it has calls that write below a folder fail.

   FAILING_FOLDER  the folder, an absolute path
   FAILING_COUNT   a file of 8 bytes: how many such calls there were, of all processes
   FAILING_AT      from which call on they fail (from 1)
   FAILING_ERRNO   with which error: ENOSPC, EROFS, ...

   The first write that fails with ENOSPC writes a half of its bytes before it does. Calls by which
   the C library itself writes what a program had it buffer are not seen. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static _Atomic long *count;
static const char *folder;
static long at;
static int error;

__attribute__((constructor)) static void begin(void) {
  const char *file = getenv("FAILING_COUNT");
  folder = getenv("FAILING_FOLDER");
  if (!file || !folder) return;
  at = getenv("FAILING_AT") ? atol(getenv("FAILING_AT")) : LONG_MAX;
  error = getenv("FAILING_ERRNO") ? atoi(getenv("FAILING_ERRNO")) : ENOSPC;
  int fd = NEXT(open)(file, O_RDWR);
  void *shared = mmap(NULL, sizeof *count, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (shared != MAP_FAILED) count = shared;
  close(fd);
}

/* Counts a call on a path; 0 where it is to go on, 1 where it is the first that fails, else 2. */
static int fails(const char *path) {
  if (!count || strncmp(path, folder, strlen(folder))) return 0;
  long number = atomic_fetch_add(count, 1) + 1;
  if (number < at) return 0;
  errno = error;
  return number == at ? 1 : 2;
}

static int fails_at(int directory, const char *path) {
  char whole[2 * PATH_MAX] = "", link[64];
  if (*path != '/') {
    snprintf(link, sizeof link, directory == AT_FDCWD ? "/proc/self/cwd" : "/proc/self/fd/%d",
             directory);
    ssize_t length = readlink(link, whole, PATH_MAX);
    if (length < 0) return 0;
    whole[length] = '/';
  }
  strncat(whole, path, PATH_MAX - 1);
  return fails(whole);
}

static int fails_on(int fd) {
  char link[64], path[PATH_MAX] = "";
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  return readlink(link, path, sizeof path - 1) > 0 ? fails(path) : 0;
}

#define OPEN(name, parameters, directory, ...)                                \
  int name parameters {                                                       \
    va_list rest;                                                             \
    va_start(rest, flags);                                                    \
    mode_t mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(rest, mode_t) : 0; \
    va_end(rest);                                                             \
    int writes = (flags & O_ACCMODE) != O_RDONLY || flags & O_CREAT;          \
    if (writes && fails_at(directory, path)) return -1;                       \
    return NEXT(name)(__VA_ARGS__, flags, mode);                              \
  }
OPEN(open, (const char *path, int flags, ...), AT_FDCWD, path)
OPEN(open64, (const char *path, int flags, ...), AT_FDCWD, path)
OPEN(openat, (int directory, const char *path, int flags, ...), directory, directory, path)
OPEN(openat64, (int directory, const char *path, int flags, ...), directory, directory, path)

#define CALL(type, failed, name, parameters, failing, ...) \
  type name parameters {                                   \
    if (failing) return failed;                            \
    return NEXT(name)(__VA_ARGS__);                        \
  }
#define WRITES(mode) (strpbrk(mode, "wa+") != NULL)
CALL(FILE *, NULL, fopen, (const char *path, const char *mode),
     WRITES(mode) && fails_at(AT_FDCWD, path), path, mode)
CALL(FILE *, NULL, fopen64, (const char *path, const char *mode),
     WRITES(mode) && fails_at(AT_FDCWD, path), path, mode)
CALL(size_t, 0, fwrite, (const void *data, size_t size, size_t items, FILE *file),
     fails_on(fileno(file)), data, size, items, file)
CALL(int, -1, mkdir, (const char *path, mode_t mode), fails_at(AT_FDCWD, path), path, mode)
CALL(int, -1, mkdirat, (int directory, const char *path, mode_t mode), fails_at(directory, path),
     directory, path, mode)
CALL(int, -1, rename, (const char *from, const char *to), fails_at(AT_FDCWD, to), from, to)
CALL(int, -1, renameat, (int from_directory, const char *from, int to_directory, const char *to),
     fails_at(to_directory, to), from_directory, from, to_directory, to)
CALL(int, -1, renameat2,
     (int from_directory, const char *from, int to_directory, const char *to, unsigned flags),
     fails_at(to_directory, to), from_directory, from, to_directory, to, flags)
CALL(int, -1, unlink, (const char *path), fails_at(AT_FDCWD, path), path)
CALL(int, -1, unlinkat, (int directory, const char *path, int flags), fails_at(directory, path),
     directory, path, flags)
CALL(int, -1, rmdir, (const char *path), fails_at(AT_FDCWD, path), path)
CALL(int, -1, ftruncate, (int fd, off_t length), fails_on(fd), fd, length)
CALL(int, -1, ftruncate64, (int fd, off64_t length), fails_on(fd), fd, length)
CALL(int, -1, fsync, (int fd), fails_on(fd), fd)
CALL(int, -1, fdatasync, (int fd), fails_on(fd), fd)
CALL(ssize_t, -1, writev, (int fd, const struct iovec *parts, int n), fails_on(fd), fd, parts, n)

#define WRITE(name, parameters, ...)                                \
  ssize_t name parameters {                                         \
    int failing = fails_on(fd), reason = errno;                     \
    if (!failing) return NEXT(name)(__VA_ARGS__);                   \
    if (failing == 1 && reason == ENOSPC) {                         \
      size /= 2;                                                    \
      if (NEXT(name)(__VA_ARGS__) < 0) { /* it fails either way */ } \
    }                                                               \
    errno = reason;                                                 \
    return -1;                                                      \
  }
WRITE(write, (int fd, const void *data, size_t size), fd, data, size)
WRITE(pwrite, (int fd, const void *data, size_t size, off_t offset), fd, data, size, offset)
WRITE(pwrite64, (int fd, const void *data, size_t size, off64_t offset), fd, data, size, offset)
