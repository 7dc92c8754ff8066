// Reads the bytes of one partition, and no others; and the way in which finders say "copy this".
//
// A finder that can't vouch for a partition returns Keep(code, why): a Status of kUnsupported whose
// operation is the reason's code. Any other failed Status is a failure to read and ends the search.
// A Status because the reasons have to travel up through the same calls as the failures do.
//
// For one thread.
#ifndef FIRN_USED_VOLUME_READER_H_
#define FIRN_USED_VOLUME_READER_H_

#include <atomic>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/status.h"
#include "disk/disk.h"
#include "used/byte_range.h"

namespace firn {

namespace keep {
inline constexpr char kAmbiguous[] = "ambiguous";
inline constexpr char kDirty[] = "dirty";
inline constexpr char kEncrypted[] = "encrypted";
inline constexpr char kHibernated[] = "hibernated";
inline constexpr char kInconsistent[] = "inconsistent";
inline constexpr char kLimits[] = "limits";
inline constexpr char kOpaque[] = "opaque";
inline constexpr char kPartitionTable[] = "partition-table";
inline constexpr char kShadowCopies[] = "shadow-copies";
inline constexpr char kUnknownFeature[] = "unknown-feature";
inline constexpr char kUnknownFileSystem[] = "unknown-file-system";
inline constexpr char kWrongType[] = "wrong-type";
}  // namespace keep

// REQUIRES: code is a literal.
inline Status Keep(const char* code, std::string why) {
  return Status::Error(Code::kUnsupported, std::move(why)).During(code);
}
inline bool IsKeep(const Status& status) { return status.code() == Code::kUnsupported; }

// How much may be read of a disk to find what is used, for all of its partitions together.
struct ReadBudget {
  uint64_t left = 0;
  uint64_t used = 0;
  const std::atomic<bool>* cancelled = nullptr;
  std::atomic<uint64_t>* counter = nullptr;  // where set, grows with `used`
};

class VolumeReader {
 public:
  // Both must outlive the reader. REQUIRES: the range lies inside the disk.
  VolumeReader(const Disk& disk, const ByteRange& range, ReadBudget* budget)
      : disk_(disk), range_(range), budget_(budget) {}

  // Fills `out`. Keep where the range is not inside the volume or the budget is spent; kAborted
  // after a cancellation.
  Status Read(uint64_t offset, std::span<uint8_t> out) const;
  // The same, as a vector. REQUIRES: length is bounded by the caller.
  Result<std::vector<uint8_t>> Read(uint64_t offset, uint64_t length) const;

  uint64_t begin() const { return range_.begin; }  // in the disk
  uint64_t size() const { return range_.length(); }

 private:
  const Disk& disk_;
  const ByteRange range_;
  ReadBudget* const budget_;
};

// What a finder found in a volume that it vouches for.
struct VolumeUse {
  uint64_t used_bytes = 0;
  uint64_t page_file_bytes = 0;
};

}  // namespace firn

#endif  // FIRN_USED_VOLUME_READER_H_
