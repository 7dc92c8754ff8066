// Where a file holds data and where it has holes, remembered so that a walk over neighbouring
// ranges asks the kernel once.
//
// Safe for concurrent use. Meant for files that are nothing but payload: raw disks and fixed VHDs.
// The answer may call a hole data, never data a hole.
#ifndef FIRN_DISK_FILE_HOLES_H_
#define FIRN_DISK_FILE_HOLES_H_

#include <cstdint>
#include <mutex>
#include <optional>

#include "core/status.h"
#include "io/file.h"

namespace firn {

class FileHoles {
 public:
  // The first range of data that ends after `offset`; it may start before it. Empty at `end` if
  // there is none before it.
  Result<DataRange> Next(File& file, uint64_t offset, uint64_t end) const {
    {
      std::lock_guard lock(mutex_);
      if (offset >= searched_from_ && offset < known_.end) return known_;
    }
    FIRN_ASSIGN_OR_RETURN(const std::optional<DataRange> found, file.NextData(offset));
    if (!found) {
      // Past the end of a file that shrank looks just like a hole.
      FIRN_ASSIGN_OR_RETURN(const uint64_t file_bytes, file.Size());
      if (file_bytes < end) {
        return Status::Error(Code::kSourceChanged, "the file became shorter while it was read")
            .At(file.path(), file_bytes);
      }
    }
    const DataRange range = found && found->begin < end ? *found : DataRange{end, end};
    std::lock_guard lock(mutex_);
    searched_from_ = offset;
    known_ = range;
    return range;
  }

 private:
  mutable std::mutex mutex_;
  // [searched_from_, known_.begin) is a hole, known_ is data.
  mutable uint64_t searched_from_ = 0;
  mutable DataRange known_;
};

}  // namespace firn

#endif  // FIRN_DISK_FILE_HOLES_H_
