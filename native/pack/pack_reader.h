// Packs being read: tables, records, and what can be saved from a damaged one.
//
// PackFiles keeps a bounded number of packs open and is thread-safe; the Files it hands out live
// until the shared_ptr goes.
#ifndef FIRN_PACK_PACK_READER_H_
#define FIRN_PACK_PACK_READER_H_

#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "core/status.h"
#include "io/file.h"
#include "pack/pack_format.h"

namespace firn {

class PackFiles {
 public:
  PackFiles(FileSystem& fs, std::string root, bool direct, size_t open_max = 64)
      : fs_(fs), root_(std::move(root)), direct_(direct), open_max_(open_max) {}

  // kPackMissing if there is no such pack.
  Result<std::shared_ptr<File>> Open(const PackName& name);

 private:
  FileSystem& fs_;
  const std::string root_;
  const bool direct_;
  const size_t open_max_;
  std::mutex mutex_;
  std::list<std::pair<PackName, std::shared_ptr<File>>> recent_;  // most recent first
};

// Reads trailer and footer. kCorruptPack names the pack. `file` must be a buffered handle.
Result<PackTable> ReadPackTable(File* file);

// Finds the records of a pack whose footer is lost, by their headers alone. Stripes stay empty.
// Fails only if it can't read.
Result<PackTable> ScanPackRecords(File* file);

}  // namespace firn

#endif  // FIRN_PACK_PACK_READER_H_
