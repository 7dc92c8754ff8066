// The GUID partition table (UEFI 5.3).
#ifndef FIRN_USED_GPT_H_
#define FIRN_USED_GPT_H_

#include <cstdint>
#include <vector>

#include "core/status.h"
#include "used/partition_table.h"

namespace firn {

// Whether there is a GPT's signature in the second sector. REQUIRES: `disk` has two sectors.
Result<bool> HasGptSignature(const VolumeReader& disk, uint32_t sector_bytes);

// Both headers and both arrays have to be intact and to say the same; else it is a Keep. The
// partitions come as they stand, inside the disk, but in no order and possibly overlapping.
Result<std::vector<Partition>> ReadGpt(const VolumeReader& disk, uint32_t sector_bytes);

}  // namespace firn

#endif  // FIRN_USED_GPT_H_
