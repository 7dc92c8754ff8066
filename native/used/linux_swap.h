// The free space of a Linux swap partition: all but its head.
#ifndef FIRN_USED_LINUX_SWAP_H_
#define FIRN_USED_LINUX_SWAP_H_

#include "core/status.h"
#include "used/byte_range.h"
#include "used/volume_reader.h"

namespace firn {

// Appends what may be skipped, in bytes of the disk. For pages of 4 KiB, without a list of bad
// pages.
Result<VolumeUse> FindUsedInSwap(const VolumeReader& volume, SkipList* skip);

}  // namespace firn

#endif  // FIRN_USED_LINUX_SWAP_H_
