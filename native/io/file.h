// Files, as the data plane sees them: positional reads and writes, no seek pointer, no buffering of
// our own.
//
// A File is safe for concurrent reads and writes from several threads; Close happens in the
// destructor. All sizes are bytes. Everything that touches the operating system goes through a
// FileSystem, so that a test can stand one in that fails the n-th call, tears a write or forgets
// what was not synced (io/fault_file_system.h).
//
// There are two ways to do I/O on a File: the calls here, which block and suit metadata, and
// io/io_queue.h, which keeps many requests in flight and suits payload.
#ifndef FIRN_IO_FILE_H_
#define FIRN_IO_FILE_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/status.h"

namespace firn {

class IoQueue;
struct IoQueueOptions;

// What unbuffered I/O demands of a file; all 1 on a buffered handle.
struct IoAlignment {
  uint32_t memory = 1;  // of the buffer's address
  uint32_t offset = 1;  // of the file offset and of the length
};

enum class Access : uint8_t {
  kRead,
  kReadWrite,    // the file must exist
  kCreateNew,    // read and write; kExists if it is there
  kCreateAlways  // read and write; truncates what is there
};

struct OpenOptions {
  Access access = Access::kRead;
  // Past the kernel's cache (O_DIRECT, FILE_FLAG_NO_BUFFERING). Where the file system refuses, Open
  // falls back to a buffered handle and File::direct() says so.
  bool direct = false;
  // Refuse to follow a symbolic link in the last component, and refuse what is not a regular file
  // (or block device).
  bool no_follow = false;
};

// The same on two handles means the same file, whatever the names.
struct FileIdentity {
  uint64_t device = 0;
  uint64_t file = 0;
  uint64_t file_high = 0;  // ReFS has identities of 128 bits
  bool operator==(const FileIdentity&) const = default;
};

// [begin, end) of a file that may hold data; a gap between ranges reads as zero.
struct DataRange {
  uint64_t begin = 0;
  uint64_t end = 0;
};

class File {
 public:
  virtual ~File() = default;
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  const std::string& path() const { return path_; }
  bool direct() const { return direct_; }
  IoAlignment alignment() const { return alignment_; }

  // Fills `out` or fails; kDiskTruncated with data_loss when the file ends before.
  Status ReadAt(uint64_t offset, std::span<uint8_t> out);
  // Up to out.size() bytes; fewer only at the end of the file.
  virtual Result<size_t> ReadSome(uint64_t offset, std::span<uint8_t> out) = 0;
  virtual Status WriteAt(uint64_t offset, std::span<const uint8_t> bytes) = 0;
  virtual Result<uint64_t> Size() = 0;
  // Grows (with zeros that need no space) or shrinks.
  virtual Status Truncate(uint64_t size) = 0;
  // From now on, ranges that are never written take no space, as holes of files do on POSIX in any
  // case. Best effort. On Windows it is a property of the file, and Hyper-V refuses disk images
  // that have it.
  virtual Status MakeSparse() { return Status::Ok(); }
  // Reserves space without changing the size, so that later writes need no allocation; kUnsupported
  // where the file system can't.
  virtual Status Preallocate(uint64_t offset, uint64_t length) = 0;
  // Everything written before is durable when this returns.
  virtual Status Sync() = 0;
  // The first range at or after `offset` that may hold data; nothing after the last. Where holes
  // can't be asked for, the rest of the file is one range.
  virtual Result<std::optional<DataRange>> NextData(uint64_t offset) = 0;
  virtual Result<FileIdentity> Identity() = 0;
  // Whether the kernel holds all of the range in its cache right now; false where it can't be
  // asked.
  virtual bool IsCached(uint64_t offset, uint64_t length) = 0;
  // Tells the kernel that what it cached of this file will not be needed.
  virtual void DropCache() = 0;

  // The descriptor (POSIX) or HANDLE (Windows), for IoQueue and memory mapping.
  virtual intptr_t native_handle() const = 0;

 protected:
  File(std::string path, bool direct, IoAlignment alignment)
      : path_(std::move(path)), direct_(direct), alignment_(alignment) {}

  const std::string path_;
  const bool direct_;
  const IoAlignment alignment_;
};

// What a read that the file is too short for ends with: kDiskTruncated, with data_loss.
Status EndsBefore(const std::string& path, uint64_t offset);

// A read-only view of a whole file. The file must not shrink while it lives.
class MappedFile {
 public:
  virtual ~MappedFile() = default;
  virtual std::span<const uint8_t> bytes() const = 0;
  // Fetch on demand in no order, rather than read ahead.
  virtual void AdviseRandom() = 0;
};

class FileSystem {
 public:
  virtual ~FileSystem() = default;

  // The operating system's; lives as long as the process.
  static FileSystem& Default();

  virtual Result<std::unique_ptr<File>> Open(const std::string& path,
                                             const OpenOptions& options) = 0;
  virtual Result<std::unique_ptr<MappedFile>> Map(const std::string& path) = 0;
  // Replaces an existing target atomically.
  virtual Status Rename(const std::string& from, const std::string& to) = 0;
  // kExists if `to` is there: at most one of two racing callers succeeds.
  virtual Status RenameNew(const std::string& from, const std::string& to) = 0;
  virtual Status Remove(const std::string& path) = 0;
  virtual Status CreateDirectory(const std::string& path) = 0;  // kExists if it is there
  // Makes creations, renames and removals inside the folder durable.
  virtual Status SyncDirectory(const std::string& path) = 0;
  virtual bool Exists(const std::string& path) = 0;
  // Absolute, with links resolved; the file must exist.
  virtual Result<std::string> RealPath(const std::string& path) = 0;
  virtual Result<uint64_t> FreeBytes(const std::string& path) = 0;
  // Names in a folder, without "." and "..", in no order.
  virtual Result<std::vector<std::string>> List(const std::string& path) = 0;

  virtual Result<std::unique_ptr<IoQueue>> NewQueue(const IoQueueOptions& options) = 0;
};

// "a/b" of "a/b/c.vhdx"; "." if there is no folder in it. Understands '/' everywhere and '\\' on
// Windows.
std::string DirectoryOf(const std::string& path);
// "c.vhdx" of "a/b/c.vhdx"; "" of "a/b/".
std::string FileNameOf(const std::string& path);
std::string JoinPath(const std::string& directory, const std::string& name);

}  // namespace firn

#endif  // FIRN_IO_FILE_H_
