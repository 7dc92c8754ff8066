// File and FileSystem on POSIX; what is Linux's alone (O_DIRECT's alignment, cachestat, holes)
// degrades elsewhere.

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dirent.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstdio>
#include <cstdlib>

#include "core/bytes.h"
#include "io/file.h"
#include "io/io_queue.h"
#include "io/io_queue_posix.h"

namespace firn {

namespace {

// Linux accepts at most this much in one transfer.
constexpr size_t kTransferMax = 0x7ffff000;

// What O_DIRECT demands of this file: asked of the kernel where it tells (Linux 6.1, ext4, xfs),
// and the page size, which every file system takes, where it does not.
IoAlignment DirectAlignment(int fd) {
#ifdef STATX_DIOALIGN
  struct statx info {};
  if (statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &info) == 0 &&
      (info.stx_mask & STATX_DIOALIGN) != 0 && info.stx_dio_offset_align != 0) {
    return {info.stx_dio_mem_align, info.stx_dio_offset_align};
  }
#else
  (void)fd;
#endif
  return {4096, 4096};
}

class PosixFile final : public File {
 public:
  PosixFile(std::string path, int fd, bool direct, IoAlignment alignment)
      : File(std::move(path), direct, alignment), fd_(fd) {}
  ~PosixFile() override { close(fd_); }

  Result<size_t> ReadSome(uint64_t offset, std::span<uint8_t> out) override {
    size_t done = 0;
    while (done < out.size()) {
      ssize_t got = pread(fd_, out.data() + done, std::min(out.size() - done, kTransferMax),
                          static_cast<off_t>(offset + done));
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) {
        return Status::FromOs(Code::kRead, "read", path_, errno).At(path_, offset + done);
      }
      if (got == 0) break;
      done += static_cast<size_t>(got);
    }
    return done;
  }

  Status WriteAt(uint64_t offset, std::span<const uint8_t> bytes) override {
    size_t done = 0;
    while (done < bytes.size()) {
      ssize_t put = pwrite(fd_, bytes.data() + done, std::min(bytes.size() - done, kTransferMax),
                           static_cast<off_t>(offset + done));
      if (put < 0 && errno == EINTR) continue;
      if (put <= 0) {
        return Status::FromOs(Code::kWrite, "write", path_, put < 0 ? errno : ENOSPC)
            .At(path_, offset + done);
      }
      done += static_cast<size_t>(put);
    }
    return Status::Ok();
  }

  Result<uint64_t> Size() override {
    struct stat info {};
    if (fstat(fd_, &info) != 0) return Status::FromOs(Code::kRead, "stat", path_, errno);
    if (S_ISREG(info.st_mode)) return static_cast<uint64_t>(info.st_size);
    off_t end = lseek(fd_, 0, SEEK_END);  // block devices report their size only so
    if (end < 0) return Status::FromOs(Code::kRead, "seek", path_, errno);
    return static_cast<uint64_t>(end);
  }

  Status Truncate(uint64_t size) override {
    while (ftruncate(fd_, static_cast<off_t>(size)) != 0) {
      if (errno != EINTR) return Status::FromOs(Code::kWrite, "truncate", path_, errno);
    }
    return Status::Ok();
  }

  Status Preallocate(uint64_t offset, uint64_t length) override {
#ifdef FALLOC_FL_KEEP_SIZE
    if (fallocate(fd_, FALLOC_FL_KEEP_SIZE, static_cast<off_t>(offset),
                  static_cast<off_t>(length)) == 0) {
      return Status::Ok();
    }
    if (errno == EOPNOTSUPP || errno == ENOSYS) {
      return Status::Error(Code::kUnsupported, "this file system can't reserve space")
          .During("preallocate")
          .At(path_);
    }
    return Status::FromOs(Code::kWrite, "preallocate", path_, errno);
#else
    (void)offset, (void)length;
    return Status::Error(Code::kUnsupported, "this platform can't reserve space").At(path_);
#endif
  }

  Status Sync() override {
    if (fsync(fd_) != 0) {
      // After a failed fsync the kernel may have dropped the dirty pages: a second one proves
      // nothing.
      return Status::FromOs(Code::kWrite, "sync", path_, errno).DataLoss();
    }
    return Status::Ok();
  }

  Result<std::optional<DataRange>> NextData(uint64_t offset) override {
    FIRN_ASSIGN_OR_RETURN(uint64_t size, Size());
    if (offset >= size) return std::optional<DataRange>();
#ifdef SEEK_DATA
    off_t begin = lseek(fd_, static_cast<off_t>(offset), SEEK_DATA);
    if (begin < 0 && errno == ENXIO) return std::optional<DataRange>();
    if (begin >= 0) {
      off_t end = lseek(fd_, begin, SEEK_HOLE);
      if (end > begin) {
        return std::optional<DataRange>({static_cast<uint64_t>(begin), static_cast<uint64_t>(end)});
      }
    }
#endif
    return std::optional<DataRange>({offset, size});
  }

  Result<FileIdentity> Identity() override {
    struct stat info {};
    if (fstat(fd_, &info) != 0) return Status::FromOs(Code::kRead, "stat", path_, errno);
    return FileIdentity{static_cast<uint64_t>(info.st_dev), static_cast<uint64_t>(info.st_ino)};
  }

  bool IsCached(uint64_t offset, uint64_t length) override {
#if defined(__linux__)
    // cachestat(2), Linux 6.5; glibc has no wrapper in Debian 12 and the number is the same on all
    // architectures.
    constexpr long kCachestat = 451;
    struct {
      uint64_t offset, length;
    } range = {offset, length};
    struct {
      uint64_t cached, dirty, writeback, evicted, recently_evicted;
    } counts = {};
    if (syscall(kCachestat, fd_, &range, &counts, 0) != 0) return false;
    uint64_t pages = (offset + length + 4095) / 4096 - offset / 4096;
    return counts.cached >= pages;
#else
    (void)offset, (void)length;
    return false;
#endif
  }

  void DropCache() override {
#ifdef POSIX_FADV_DONTNEED
    posix_fadvise(fd_, 0, 0, POSIX_FADV_DONTNEED);
#endif
  }

  intptr_t native_handle() const override { return fd_; }

 private:
  const int fd_;
};

class PosixMappedFile final : public MappedFile {
 public:
  PosixMappedFile(void* memory, size_t size) : memory_(memory), size_(size) {}
  ~PosixMappedFile() override {
    if (size_ > 0) munmap(memory_, size_);
  }
  std::span<const uint8_t> bytes() const override {
    return {static_cast<const uint8_t*>(memory_), size_};
  }
  void AdviseRandom() override {
    if (size_ > 0) madvise(memory_, size_, MADV_RANDOM);
  }

 private:
  void* const memory_;
  const size_t size_;
};

int OpenFlags(const OpenOptions& options) {
  // A FIFO would block in open(2) until somebody writes to it; it is refused below.
  int flags = O_CLOEXEC | O_NONBLOCK;
  switch (options.access) {
    case Access::kRead:
      flags |= O_RDONLY;
      break;
    case Access::kReadWrite:
      flags |= O_RDWR;
      break;
    case Access::kCreateNew:
      flags |= O_RDWR | O_CREAT | O_EXCL;
      break;
    case Access::kCreateAlways:
      flags |= O_RDWR | O_CREAT | O_TRUNC;
      break;
  }
  if (options.no_follow) flags |= O_NOFOLLOW;
  return flags;
}

class PosixFileSystem final : public FileSystem {
 public:
  Result<std::unique_ptr<File>> Open(const std::string& path, const OpenOptions& options) override {
    int flags = OpenFlags(options);
    int fd = -1;
    bool direct = false;
#ifdef O_DIRECT
    if (options.direct) {
      fd = open(path.c_str(), flags | O_DIRECT, 0640);
      direct = fd >= 0;
    }
    if (fd < 0 && (!options.direct || errno == EINVAL)) fd = open(path.c_str(), flags, 0640);
#else
    fd = open(path.c_str(), flags, 0640);
#endif
    if (fd < 0 && errno == ELOOP && options.no_follow) {
      return Status::Error(Code::kAccessDenied, "a symbolic link is not followed here")
          .During("open")
          .At(path);
    }
    if (fd < 0) return Status::FromOs(Code::kRead, "open", path, errno);
    auto file =
        std::make_unique<PosixFile>(path, fd, direct, direct ? DirectAlignment(fd) : IoAlignment{});
    struct stat info {};
    if (fstat(fd, &info) != 0) return Status::FromOs(Code::kRead, "stat", path, errno);
    if (!S_ISREG(info.st_mode) && !S_ISBLK(info.st_mode)) {
      return Status::Error(Code::kInvalidArgument, "neither a regular file nor a block device")
          .During("open")
          .At(path);
    }
    return std::unique_ptr<File>(std::move(file));
  }

  Result<std::unique_ptr<MappedFile>> Map(const std::string& path) override {
    FIRN_ASSIGN_OR_RETURN(std::unique_ptr<File> file, Open(path, {}));
    FIRN_ASSIGN_OR_RETURN(uint64_t size, file->Size());
    if (size == 0) return std::unique_ptr<MappedFile>(new PosixMappedFile(nullptr, 0));
    void* memory =
        mmap(nullptr, size, PROT_READ, MAP_SHARED, static_cast<int>(file->native_handle()), 0);
    if (memory == MAP_FAILED) return Status::FromOs(Code::kRead, "map", path, errno);
    return std::unique_ptr<MappedFile>(new PosixMappedFile(memory, size));
  }

  Status Rename(const std::string& from, const std::string& to) override {
    if (rename(from.c_str(), to.c_str()) == 0) return Status::Ok();
    return Status::FromOs(Code::kWrite, "rename", to, errno);
  }

  Status RenameNew(const std::string& from, const std::string& to) override {
#if defined(__linux__) && defined(RENAME_NOREPLACE)
    if (renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_NOREPLACE) == 0) {
      return Status::Ok();
    }
    if (errno != EINVAL && errno != ENOSYS) {
      return Status::FromOs(Code::kWrite, "rename", to, errno);
    }
#endif
    // A hard link fails if the name is taken, which rename does not.
    if (link(from.c_str(), to.c_str()) != 0) {
      return Status::FromOs(Code::kWrite, "rename", to, errno);
    }
    // The file has its name; that it has its old one as well is litter, not failure.
    (void)Remove(from);
    return Status::Ok();
  }

  Status Remove(const std::string& path) override {
    if (unlink(path.c_str()) == 0) return Status::Ok();
    return Status::FromOs(Code::kWrite, "remove", path, errno);
  }

  Status CreateDirectory(const std::string& path) override {
    if (mkdir(path.c_str(), 0750) == 0) return Status::Ok();
    return Status::FromOs(Code::kWrite, "create folder", path, errno);
  }

  Status SyncDirectory(const std::string& path) override {
    int fd = open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return Status::FromOs(Code::kWrite, "sync folder", path, errno);
    int result = fsync(fd);
    int error = errno;
    close(fd);
    // Some network file systems have no directory sync and say EINVAL: they order such changes
    // themselves.
    if (result != 0 && error != EINVAL) {
      return Status::FromOs(Code::kWrite, "sync folder", path, error);
    }
    return Status::Ok();
  }

  bool Exists(const std::string& path) override { return access(path.c_str(), F_OK) == 0; }

  Result<std::string> RealPath(const std::string& path) override {
    char* resolved = realpath(path.c_str(), nullptr);
    if (resolved == nullptr) return Status::FromOs(Code::kRead, "resolve", path, errno);
    std::string result = resolved;
    free(resolved);
    return result;
  }

  Result<uint64_t> FreeBytes(const std::string& path) override {
    struct statvfs info {};
    if (statvfs(path.c_str(), &info) != 0) {
      return Status::FromOs(Code::kRead, "free space", path, errno);
    }
    return static_cast<uint64_t>(info.f_bavail) * info.f_frsize;
  }

  Result<std::vector<std::string>> List(const std::string& path) override {
    DIR* directory = opendir(path.c_str());
    if (directory == nullptr) return Status::FromOs(Code::kRead, "list", path, errno);
    std::vector<std::string> names;
    errno = 0;
    while (dirent* entry = readdir(directory)) {
      std::string name = entry->d_name;
      if (name != "." && name != "..") names.push_back(std::move(name));
      errno = 0;
    }
    int error = errno;
    closedir(directory);
    if (error != 0) return Status::FromOs(Code::kRead, "list", path, error);
    return names;
  }

  Result<std::unique_ptr<IoQueue>> NewQueue(const IoQueueOptions& options) override {
    return NewPosixQueue(options);
  }
};

}  // namespace

FileSystem& FileSystem::Default() {
  static PosixFileSystem* file_system = new PosixFileSystem();
  return *file_system;
}

}  // namespace firn
