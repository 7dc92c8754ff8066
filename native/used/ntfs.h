// The free clusters of NTFS, and those of its page files.
//
// They are believed only of a volume at rest (ntfs_state.h) whose $Bitmap and files agree
// (ntfs_scan.h).
#ifndef FIRN_USED_NTFS_H_
#define FIRN_USED_NTFS_H_

#include "core/status.h"
#include "used/byte_range.h"
#include "used/used.h"
#include "used/volume_reader.h"

namespace firn {

// Appends what is free, in bytes of the disk; what was appended before a Keep is not to be used.
Result<VolumeUse> FindUsedInNtfs(const VolumeReader& reader, const UsedOptions& options,
                                 SkipList* skip);

}  // namespace firn

#endif  // FIRN_USED_NTFS_H_
