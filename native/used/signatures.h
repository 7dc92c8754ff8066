// What a partition holds, by all of the signatures that are in it.
//
// A new format does not always wipe the old one's signature, and a file system with a stale
// signature must not be read as what it was. So a partition is taken for a file system only if no
// other format's signature is there.
#ifndef FIRN_USED_SIGNATURES_H_
#define FIRN_USED_SIGNATURES_H_

#include <cstdint>

#include "core/status.h"
#include "used/partition_table.h"
#include "used/volume_reader.h"

namespace firn {

enum class VolumeKind : uint8_t { kNtfs, kExt, kSwap };

// Keep if it is none of these, may be another one too, or the partition's type says otherwise.
Result<VolumeKind> IdentifyVolume(const VolumeReader& volume, const Partition& partition);

}  // namespace firn

#endif  // FIRN_USED_SIGNATURES_H_
