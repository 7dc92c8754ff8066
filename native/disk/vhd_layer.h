// One VHD or AVHD file as a layer: fixed, dynamic or differencing (Virtual Hard Disk Image
// Format 1.0).
//
// The disk's size is the footer's current size, as Hyper-V has it, never the geometry. The
// allocation table is held in memory: it is 16 MiB at most. Payload is usually aligned to 512 bytes
// only.
#ifndef FIRN_DISK_VHD_LAYER_H_
#define FIRN_DISK_VHD_LAYER_H_

#include <memory>

#include "core/status.h"
#include "disk/layer.h"

namespace firn {

// Checks everything that a read may come to use; `info` keeps what was learnt, also on failure. The
// parent is not looked for.
Result<std::unique_ptr<Layer>> OpenVhdLayer(LayerFiles files, LayerInfo* info);

}  // namespace firn

#endif  // FIRN_DISK_VHD_LAYER_H_
