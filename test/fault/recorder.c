/*
 * Records what a process does to the files below one folder: an LD_PRELOAD library that sees the native engine and Node alike.
 *
 * FIRN_RECORD_ROOT is the folder (a real path), FIRN_RECORD_LOG the file that the record is appended to. Calls are made and recorded one
 * at a time, so the record has them in the order in which they happened. io_uring, which does not come through here, is refused, as old
 * kernels do; the engine then writes with threads. Creating a file in FIRN_RECORD_ROOT/../marks records its name as a mark of the
 * program's own. A call that changes files in a way that is not recorded ends the process: a record with holes would prove nothing.
 *
 * Record: kind u8 | inode u64 | offset u64 | length u64 of first | length u64 of second | first | second (little-endian)
 *   C create path            W write, data             T truncate to offset     S sync of a file       D sync of the folder path
 *   R rename from to         L link from to            U unlink path            M make folder path     X remove folder path
 *   K mark
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))real(#name))

static pthread_mutex_t mutex = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;
static int log_fd = -1;
static char root[PATH_MAX], marks[PATH_MAX + 16];

static void *real(const char *name) { return dlsym(RTLD_NEXT, name); }

static void stop(const char *why) {
  fprintf(stderr, "recorder: %s\n", why);
  _exit(99);
}

static void must_write(const void *bytes, size_t length) {
  const char *at = bytes;
  while (length > 0) {
    ssize_t done = syscall(SYS_write, log_fd, at, length);
    if (done <= 0) stop("the record cannot be written");
    at += done;
    length -= (size_t)done;
  }
}

static void begin(void) {
  pthread_mutex_lock(&mutex);
  if (log_fd >= 0) return;
  const char *folder = getenv("FIRN_RECORD_ROOT"), *file = getenv("FIRN_RECORD_LOG");
  if (folder == NULL || file == NULL) stop("FIRN_RECORD_ROOT and FIRN_RECORD_LOG are to be set");
  snprintf(root, sizeof root, "%s", folder);
  snprintf(marks, sizeof marks, "%s", folder);
  snprintf(strrchr(marks, '/'), 8, "/marks/");
  log_fd = (int)syscall(SYS_openat, AT_FDCWD, file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (log_fd < 0) stop("the record cannot be opened");
}

static void end(void) {
  int saved = errno;
  pthread_mutex_unlock(&mutex);
  errno = saved;
}

static void put(char kind, uint64_t inode, uint64_t offset, const void *first, uint64_t first_length,
                const void *second, uint64_t second_length) {
  int saved = errno;
  uint64_t numbers[4] = {inode, offset, first_length, second_length};
  must_write(&kind, 1);
  must_write(numbers, sizeof numbers);
  must_write(first, first_length);
  must_write(second, second_length);
  errno = saved;
}

/* Whether it is SQLite's index of a log: shared memory that happens to have a name, and is made anew from the log. */
static int is_scratch(const char *path) {
  size_t length = strlen(path);
  return length > 4 && strcmp(path + length - 4, "-shm") == 0;
}

/* The absolute path; "" where it lies elsewhere. */
static const char *inside(int folder, const char *path, char *out) {
  char base[PATH_MAX] = "";
  if (path[0] != '/') {
    char link[64];
    if (folder == AT_FDCWD) {
      if (getcwd(base, sizeof base) == NULL) return "";
    } else {
      snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
      ssize_t length = readlink(link, base, sizeof base - 1);
      if (length < 0) return "";
      base[length] = 0;
    }
    snprintf(out, 2 * PATH_MAX, "%s/%s", base, path);
  } else {
    snprintf(out, 2 * PATH_MAX, "%s", path);
  }
  if (is_scratch(out)) return "";
  size_t length = strlen(root);
  return strncmp(out, root, length) == 0 && (out[length] == '/' || out[length] == 0) ? out : "";
}

/* Whether a descriptor is a file below the folder; its path and what stat says. */
static int watched(int fd, char *path, struct stat *about) {
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, path, PATH_MAX - 1);
  if (length <= 0 || path[0] != '/') return 0;
  path[length] = 0;
  size_t prefix = strlen(root);
  if (strncmp(path, root, prefix) != 0 || (path[prefix] != '/' && path[prefix] != 0)) return 0;
  if (is_scratch(path)) return 0;
  return fstat(fd, about) == 0;
}

static int open_it(int folder, const char *path, int flags, mode_t mode) {
  begin();
  char full[2 * PATH_MAX];
  const char *mine = inside(folder, path, full);
  struct stat before, about;
  int was = *mine != 0 && stat(mine, &before) == 0;
  int fd = (int)syscall(SYS_openat, folder, path, flags, mode);
  if (fd >= 0 && *mine != 0) {
    if ((flags & O_TMPFILE) == O_TMPFILE) stop("files without a name are not recorded");
    if (fstat(fd, &about) != 0) stop("an opened file cannot be looked at");
    if (!was) put('C', about.st_ino, 0, mine, strlen(mine), "", 0);
    if (was && (flags & O_TRUNC) != 0) put('T', about.st_ino, 0, "", 0, "", 0);
  } else if (fd >= 0 && (flags & O_CREAT) != 0 && strncmp(full, marks, strlen(marks)) == 0) {
    put('K', 0, 0, full + strlen(marks), strlen(full + strlen(marks)), "", 0);
  }
  end();
  return fd;
}

#define OPEN_MODE(flags)                         \
  mode_t mode = 0;                               \
  if (((flags)&O_CREAT) != 0 || ((flags)&O_TMPFILE) == O_TMPFILE) { \
    va_list list;                                \
    va_start(list, flags);                       \
    mode = va_arg(list, mode_t);                 \
    va_end(list);                                \
  }

int open(const char *path, int flags, ...) {
  OPEN_MODE(flags)
  return open_it(AT_FDCWD, path, flags, mode);
}
int open64(const char *path, int flags, ...) {
  OPEN_MODE(flags)
  return open_it(AT_FDCWD, path, flags | O_LARGEFILE, mode);
}
int openat(int folder, const char *path, int flags, ...) {
  OPEN_MODE(flags)
  return open_it(folder, path, flags, mode);
}
int openat64(int folder, const char *path, int flags, ...) {
  OPEN_MODE(flags)
  return open_it(folder, path, flags | O_LARGEFILE, mode);
}

static void wrote(int fd, const struct iovec *parts, int count, int64_t offset, ssize_t done) {
  char path[PATH_MAX];
  struct stat about;
  if (done <= 0 || !watched(fd, path, &about)) return;
  uint64_t at = offset >= 0 ? (uint64_t)offset : (uint64_t)(lseek(fd, 0, SEEK_CUR) - done);
  if (offset < 0 && (fcntl(fd, F_GETFL) & O_APPEND) != 0) at = (uint64_t)(about.st_size - done);
  for (int i = 0; i < count && done > 0; i++) {
    size_t length = parts[i].iov_len < (size_t)done ? parts[i].iov_len : (size_t)done;
    put('W', about.st_ino, at, parts[i].iov_base, length, "", 0);
    at += length;
    done -= (ssize_t)length;
  }
}

ssize_t write(int fd, const void *bytes, size_t length) {
  /* Pipes may make a call wait, and others with it. */
  struct stat about;
  if (fstat(fd, &about) != 0 || !S_ISREG(about.st_mode)) return syscall(SYS_write, fd, bytes, length);
  begin();
  ssize_t done = syscall(SYS_write, fd, bytes, length);
  struct iovec part = {(void *)bytes, length};
  wrote(fd, &part, 1, -1, done);
  end();
  return done;
}
ssize_t pwrite(int fd, const void *bytes, size_t length, off_t offset) {
  begin();
  ssize_t done = syscall(SYS_pwrite64, fd, bytes, length, offset);
  struct iovec part = {(void *)bytes, length};
  wrote(fd, &part, 1, offset, done);
  end();
  return done;
}
ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t offset) {
  return pwrite(fd, bytes, length, offset);
}
ssize_t writev(int fd, const struct iovec *parts, int count) {
  struct stat about;
  if (fstat(fd, &about) != 0 || !S_ISREG(about.st_mode)) return syscall(SYS_writev, fd, parts, count);
  begin();
  ssize_t done = syscall(SYS_writev, fd, parts, count);
  wrote(fd, parts, count, -1, done);
  end();
  return done;
}
ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t offset) {
  begin();
  ssize_t done = REAL(pwritev)(fd, parts, count, offset);
  wrote(fd, parts, count, offset, done);
  end();
  return done;
}
ssize_t pwritev64(int fd, const struct iovec *parts, int count, off64_t offset) {
  return pwritev(fd, parts, count, offset);
}

int ftruncate(int fd, off_t size) {
  begin();
  int result = (int)syscall(SYS_ftruncate, fd, size);
  char path[PATH_MAX];
  struct stat about;
  if (result == 0 && watched(fd, path, &about)) put('T', about.st_ino, (uint64_t)size, "", 0, "", 0);
  end();
  return result;
}
int ftruncate64(int fd, off64_t size) { return ftruncate(fd, size); }

/* What is set aside is only recorded where it makes a file longer. */
static int allocated(int fd, int result) {
  char path[PATH_MAX];
  struct stat about;
  if (result == 0 && watched(fd, path, &about)) {
    put('T', about.st_ino, (uint64_t)about.st_size, "", 0, "", 0);
  }
  return result;
}
int fallocate(int fd, int mode, off_t offset, off_t length) {
  begin();
  int result = allocated(fd, (int)syscall(SYS_fallocate, fd, mode, offset, length));
  end();
  return result;
}
int fallocate64(int fd, int mode, off64_t offset, off64_t length) {
  return fallocate(fd, mode, offset, length);
}
int posix_fallocate(int fd, off_t offset, off_t length) {
  begin();
  int result = allocated(fd, REAL(posix_fallocate)(fd, offset, length));
  end();
  return result;
}

static int synced(int fd, int result) {
  char path[PATH_MAX];
  struct stat about;
  if (result == 0 && watched(fd, path, &about)) {
    if (S_ISDIR(about.st_mode)) {
      /* It has no name any more if somebody has removed it meanwhile, as two that empty one folder at once do. */
      if (about.st_nlink == 0) return result;
      put('D', about.st_ino, 0, path, strlen(path), "", 0);
    } else {
      put('S', about.st_ino, 0, "", 0, "", 0);
    }
  }
  return result;
}
int fsync(int fd) {
  begin();
  int result = synced(fd, (int)syscall(SYS_fsync, fd));
  end();
  return result;
}
int fdatasync(int fd) {
  begin();
  int result = synced(fd, (int)syscall(SYS_fdatasync, fd));
  end();
  return result;
}

static int two(char kind, int result, int from_folder, const char *from, int to_folder, const char *to) {
  char first[2 * PATH_MAX], second[2 * PATH_MAX];
  const char *source = inside(from_folder, from, first), *target = inside(to_folder, to, second);
  if (result != 0) return result;
  if ((*source == 0) != (*target == 0)) stop("a name came from elsewhere, or went there");
  if (*target != 0) put(kind, 0, 0, source, strlen(source), target, strlen(target));
  return result;
}
int renameat2(int from_folder, const char *from, int to_folder, const char *to, unsigned flags) {
  begin();
  int result = (int)syscall(SYS_renameat2, from_folder, from, to_folder, to, flags);
  two('R', result, from_folder, from, to_folder, to);
  end();
  return result;
}
int renameat(int from_folder, const char *from, int to_folder, const char *to) {
  return renameat2(from_folder, from, to_folder, to, 0);
}
int rename(const char *from, const char *to) { return renameat2(AT_FDCWD, from, AT_FDCWD, to, 0); }
int linkat(int from_folder, const char *from, int to_folder, const char *to, int flags) {
  begin();
  int result = (int)syscall(SYS_linkat, from_folder, from, to_folder, to, flags);
  two('L', result, from_folder, from, to_folder, to);
  end();
  return result;
}
int link(const char *from, const char *to) { return linkat(AT_FDCWD, from, AT_FDCWD, to, 0); }

static int one(char kind, int result, int folder, const char *path) {
  char full[2 * PATH_MAX];
  const char *mine = inside(folder, path, full);
  if (result == 0 && *mine != 0) put(kind, 0, 0, mine, strlen(mine), "", 0);
  return result;
}
int unlinkat(int folder, const char *path, int flags) {
  begin();
  int result = one((flags & AT_REMOVEDIR) != 0 ? 'X' : 'U',
                   (int)syscall(SYS_unlinkat, folder, path, flags), folder, path);
  end();
  return result;
}
int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }
int rmdir(const char *path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }
int mkdirat(int folder, const char *path, mode_t mode) {
  begin();
  int result = one('M', (int)syscall(SYS_mkdirat, folder, path, mode), folder, path);
  end();
  return result;
}
int mkdir(const char *path, mode_t mode) { return mkdirat(AT_FDCWD, path, mode); }

static int elsewhere(int fd) {
  char path[PATH_MAX];
  struct stat about;
  begin();
  if (watched(fd, path, &about)) stop("a call that is not recorded");
  end();
  return fd;
}
ssize_t sendfile(int out, int in, off_t *offset, size_t count) {
  return syscall(SYS_sendfile, elsewhere(out), in, offset, count);
}
ssize_t sendfile64(int out, int in, off64_t *offset, size_t count) {
  return syscall(SYS_sendfile, elsewhere(out), in, offset, count);
}
ssize_t copy_file_range(int in, off64_t *from, int out, off64_t *to, size_t length, unsigned flags) {
  return syscall(SYS_copy_file_range, in, from, elsewhere(out), to, length, flags);
}
void *mmap(void *place, size_t length, int protection, int flags, int fd, off_t offset) {
  if (fd >= 0 && (protection & PROT_WRITE) != 0 && (flags & MAP_SHARED) != 0) elsewhere(fd);
  return REAL(mmap)(place, length, protection, flags, fd, offset);
}

long syscall(long number, ...) {
  static long (*next)(long, ...) = NULL;
  if (next == NULL) next = (long (*)(long, ...))real("syscall");
  va_list list;
  va_start(list, number);
  long a = va_arg(list, long), b = va_arg(list, long), c = va_arg(list, long), d = va_arg(list, long),
       e = va_arg(list, long), f = va_arg(list, long);
  va_end(list);
  if (number == SYS_io_uring_setup) {
    errno = ENOSYS;
    return -1;
  }
  return next(number, a, b, c, d, e, f);
}
