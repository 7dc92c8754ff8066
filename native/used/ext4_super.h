// The superblock of ext2, ext3 or ext4.
#ifndef FIRN_USED_EXT4_SUPER_H_
#define FIRN_USED_EXT4_SUPER_H_

#include "core/status.h"
#include "used/ext4_layout.h"
#include "used/volume_reader.h"

namespace firn {

// Keep if it is not that of a clean file system of which every feature is known.
Result<Ext4Super> ReadExt4Super(const VolumeReader& volume);

}  // namespace firn

#endif  // FIRN_USED_EXT4_SUPER_H_
