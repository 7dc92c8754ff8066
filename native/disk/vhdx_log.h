// The VHDX log (MS-VHDX 2.3): finding the active sequence, and replaying it in memory.
//
// Nothing is written. The search streams through the log and hashes a bounded number of bytes,
// whatever a crafted log claims.
//
// The search is not the one in the specification, which walks a run anew from each 4 KiB and so
// takes quadratic time; it finds the same sequence. Each position is parsed once; entries point at
// their successor, which makes chains; a chain's last entry is a head if the entry at its Tail
// leads to it; the head with the greatest sequence number wins. Only what lies from its Tail to the
// head is replayed: entries before the Tail are in place already and may have been overwritten
// since.
#ifndef FIRN_DISK_VHDX_LOG_H_
#define FIRN_DISK_VHDX_LOG_H_

#include <cstdint>

#include "core/status.h"
#include "disk/layer.h"
#include "disk/log_overlay.h"
#include "disk/vhdx_header.h"
#include "io/file.h"

namespace firn {

struct VhdxReplay {
  LogOverlay overlay;
  uint64_t file_bytes = 0;  // as long as the file would be after a replay
};

// Replays the log if the header asks for it. Refuses targets before the region tables, inside the
// log, or past the end of what the log itself says the file holds; whether a target hits payload
// only the BAT can tell (VhdxBat).
Result<VhdxReplay> ReplayVhdxLog(File& file, uint64_t file_bytes, const VhdxHeader& header,
                                 LayerInfo* info);

}  // namespace firn

#endif  // FIRN_DISK_VHDX_LOG_H_
