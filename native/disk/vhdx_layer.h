// One VHDX or AVHDX file as a layer: fixed, dynamic or differencing (MS-VHDX).
#ifndef FIRN_DISK_VHDX_LAYER_H_
#define FIRN_DISK_VHDX_LAYER_H_

#include <memory>

#include "core/status.h"
#include "disk/layer.h"

namespace firn {

// Checks everything that a read may come to use; `info` keeps what was learnt, also on failure. The
// parent is not looked for.
Result<std::unique_ptr<Layer>> OpenVhdxLayer(LayerFiles files, LayerInfo* info);

}  // namespace firn

#endif  // FIRN_DISK_VHDX_LAYER_H_
