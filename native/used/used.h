// Which ranges of a disk hold nothing worth keeping, as the guest's own file systems say.
//
//   partition table -> for each partition: signature -> NTFS, ext2/3/4 or Linux swap -> free ranges
//
// The rule is to fail closed: a range is skipped only if everything that says so was found, was
// checked and agrees with what else is known of it. What is unclear, inconsistent, dirty,
// hibernated, encrypted or unknown is copied, and the report says why. What lies outside the
// partitions is always copied.
//
// Everything read here was written by the guest and is hostile: counts and offsets are checked,
// memory is bounded by UsedOptions and time by a budget of bytes that follows the disk's size.
//
// For one thread; the UsedMap is a value. Offsets and lengths are bytes of the virtual disk. Ask
// the merged view of a chain, never one layer, and ask again for each backup: a range that was
// skipped then and is used now has to be read even if change tracking does not list it.
#ifndef FIRN_USED_USED_H_
#define FIRN_USED_USED_H_

#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

#include "core/status.h"
#include "disk/disk.h"
#include "used/byte_range.h"

namespace firn {

// Goes up whenever the same disk and options may give another map, so that who looks at a disk
// again knows whether that can show the same.
inline constexpr uint32_t kUsedRules = 1;

struct UsedOptions {
  // The guest froze its file systems for this very disk (guest VSS or fsfreeze succeeded). Without
  // it a file system is believed only if it was unmounted cleanly. (ext4 says so itself in either
  // case.)
  bool quiesced = false;
  // Leave out pagefile.sys, swapfile.sys and an inactive hiberfil.sys.
  bool skip_page_files = true;
  // An NTFS shadow copy reads what changed since it was made from its own store, but all the rest
  // from the live volume, free clusters included. So a volume that has shadow copies is copied
  // whole, unless this is false: then the shadow copies inside the restored guest are damaged, and
  // nothing else is.
  bool keep_shadow_copies = true;
  // Beyond it the smallest ranges are copied after all. 16 bytes of memory for each.
  uint64_t max_ranges = uint64_t{4} << 20;
  // Where set and true, FindUsed returns kAborted soon.
  const std::atomic<bool>* cancelled = nullptr;
  // Where set, grows with UsedMap::read_bytes while FindUsed is at work.
  std::atomic<uint64_t>* read_bytes = nullptr;
};

// What became of one partition, or of a whole disk without a partition table.
struct UsedPartition {
  uint64_t offset = 0;
  uint64_t length = 0;
  std::string type;         // "mbr 07", a GPT type id, "" without a table
  std::string file_system;  // "ntfs", "ext2", "ext3", "ext4", "swap", else ""
  uint64_t used_bytes = 0;  // as the file system counts; 0 where it is not believed
  uint64_t skipped_bytes = 0;
  uint64_t page_file_bytes = 0;  // of page, swap and hibernation files, before page rounding
  // Why the partition is copied whole; both empty where it is not. The code is stable: "dirty",
  // "hibernated", "encrypted", "opaque", "unknown-file-system", "unknown-feature", "inconsistent",
  // "ambiguous", "shadow-copies", "wrong-type", "limits", "partition-table".
  std::string reason_code;
  std::string reason;
};

struct UsedMap {
  uint64_t disk_bytes = 0;
  std::string table;  // "gpt", "mbr", "none"
  // Where the disk as a whole is copied because of its partition table.
  std::string reason_code;
  std::string reason;
  std::vector<UsedPartition> partitions;  // by offset
  // In order, page-aligned, not touching each other, inside the disk.
  std::vector<ByteRange> skipped;
  uint64_t skipped_bytes = 0;
  uint64_t dropped_bytes = 0;  // could have been skipped, but for max_ranges
  uint64_t read_bytes = 0;     // what finding out cost
};

// Fails only where the disk can't be read, or with kAborted.
Result<UsedMap> FindUsed(const Disk& disk, const UsedOptions& options);

// Whether a partition holds, or may hold, the image of a hibernated machine. Such a machine has all
// volumes of all its disks mounted: nothing of any of them may be skipped.
bool IsHibernated(const UsedMap& map);

// Nothing is skipped any more: each partition that was believed has this reason instead.
// REQUIRES: code is one of UsedPartition's.
void Withdraw(UsedMap* map, const std::string& code, const std::string& reason);

}  // namespace firn

#endif  // FIRN_USED_USED_H_
