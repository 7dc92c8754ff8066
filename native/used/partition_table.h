// Where the partitions of a disk lie: MBR with logical partitions, GPT, or none.
//
// For one thread. A table that is damaged, contradicts itself or could be read in two ways is a
// Keep: then nothing is known of the disk.
#ifndef FIRN_USED_PARTITION_TABLE_H_
#define FIRN_USED_PARTITION_TABLE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "core/bytes.h"
#include "core/status.h"
#include "used/volume_reader.h"

namespace firn {

struct Partition {
  enum class Scheme : uint8_t { kNone, kMbr, kGpt };
  Scheme scheme = Scheme::kNone;
  ByteRange range;
  uint8_t mbr_type = 0;
  Guid gpt_type{};
  std::string TypeName() const;  // "mbr 07", the GUID, or ""
};

struct PartitionTable {
  Partition::Scheme scheme = Partition::Scheme::kNone;
  // By offset, inside the disk, not overlapping. Without a table the whole disk is one.
  std::vector<Partition> partitions;
};

// `disk` covers the whole disk; sector_bytes is 512 or 4096.
Result<PartitionTable> ReadPartitionTable(const VolumeReader& disk, uint32_t sector_bytes);

}  // namespace firn

#endif  // FIRN_USED_PARTITION_TABLE_H_
