// A read-only file system of images in memory, for code that is to be run a thousand times a
// second.
//
// Names are absolute. Everything that would write is refused with kUnsupported. Queues answer at
// once, on the caller's thread. Must outlive what was opened through it.
#ifndef FIRN_FUZZ_MEMORY_FILE_SYSTEM_H_
#define FIRN_FUZZ_MEMORY_FILE_SYSTEM_H_

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "fuzz/sparse_image.h"
#include "io/file.h"

namespace firn::fuzz {

class MemoryFileSystem final : public FileSystem {
 public:
  void Add(const std::string& path, SparseImage image) { files_[path] = std::move(image); }

  Result<std::unique_ptr<File>> Open(const std::string& path, const OpenOptions& options) override;
  Result<std::unique_ptr<MappedFile>> Map(const std::string& path) override;
  Status Rename(const std::string&, const std::string&) override { return ReadOnly(); }
  Status RenameNew(const std::string&, const std::string&) override { return ReadOnly(); }
  Status Remove(const std::string&) override { return ReadOnly(); }
  Status CreateDirectory(const std::string&) override { return ReadOnly(); }
  Status SyncDirectory(const std::string&) override { return ReadOnly(); }
  bool Exists(const std::string& path) override { return RealPath(path).ok(); }
  // "." and ".." are resolved by name; there are no links.
  Result<std::string> RealPath(const std::string& path) override;
  Result<uint64_t> FreeBytes(const std::string&) override { return uint64_t{0}; }
  Result<std::vector<std::string>> List(const std::string& path) override;
  Result<std::unique_ptr<IoQueue>> NewQueue(const IoQueueOptions& options) override;

 private:
  static Status ReadOnly() { return Status::Error(Code::kUnsupported, "read-only"); }
  const SparseImage* Find(const std::string& path);

  std::map<std::string, SparseImage> files_;
};

}  // namespace firn::fuzz

#endif  // FIRN_FUZZ_MEMORY_FILE_SYSTEM_H_
