// Whether the journal of ext3 or ext4 has nothing left to replay.
//
// The superblock says so too, but programs disagree about which of the two they believe, so both
// have to.
#ifndef FIRN_USED_EXT4_JOURNAL_H_
#define FIRN_USED_EXT4_JOURNAL_H_

#include "core/status.h"
#include "used/ext4_layout.h"
#include "used/volume_reader.h"

namespace firn {

// OK if it is empty, or the file system has none.
Status CheckExt4JournalIsEmpty(const VolumeReader& volume, const Ext4Layout& layout);

}  // namespace firn

#endif  // FIRN_USED_EXT4_JOURNAL_H_
