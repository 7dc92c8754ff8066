// Whether an NTFS volume is at rest: not dirty, its log with nothing to redo, no shadow copies, and
// not in the memory image of a hibernated machine.
//
// For one thread. Each check is OK or says Keep.
#ifndef FIRN_USED_NTFS_STATE_H_
#define FIRN_USED_NTFS_STATE_H_

#include "core/status.h"
#include "used/ntfs_volume.h"

namespace firn {

// $Volume: NTFS 3, and none of its flags is set.
Status CheckNtfsVolumeFlags(const NtfsVolume& volume);

// $LogFile: both restart pages are whole, and the newer one says that the volume was unmounted; or
// it is empty. A frozen volume is still mounted, so with `quiesced` only the former is asked for.
Status CheckNtfsLog(const NtfsVolume& volume, bool quiesced);

// Whether the volume has shadow copies, which need clusters that are free by now.
Status CheckNoShadowCopies(const VolumeReader& reader);

// What the beginning of hiberfil.sys says: OK if no machine is hibernated in it.
Status CheckHibernationFile(std::span<const uint8_t> head);

}  // namespace firn

#endif  // FIRN_USED_NTFS_STATE_H_
