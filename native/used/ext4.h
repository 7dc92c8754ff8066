// The free blocks of ext2, ext3 or ext4.
//
// They are believed only of a clean file system of which every feature is known, whose checksums
// match as far as it has any, and whose three accounts agree: the bitmaps, the free counts of the
// groups and that of the superblock.
#ifndef FIRN_USED_EXT4_H_
#define FIRN_USED_EXT4_H_

#include <string>

#include "core/status.h"
#include "used/byte_range.h"
#include "used/volume_reader.h"

namespace firn {

// Appends what is free, in bytes of the disk; what was appended before a Keep is not to be used.
// Sets `name` to "ext2", "ext3" or "ext4", by its features, also where it is kept whole.
Result<VolumeUse> FindUsedInExt4(const VolumeReader& volume, SkipList* skip, std::string* name);

}  // namespace firn

#endif  // FIRN_USED_EXT4_H_
