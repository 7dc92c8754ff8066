// Windows' own driver for virtual disks, as JavaScript reaches it (disk/virtdisk_win.h): a second
// reader of a frozen disk, and what it says was changed. ERR_UNSUPPORTED on other systems.
#ifndef FIRN_ADDON_DRIVER_H_
#define FIRN_ADDON_DRIVER_H_

#include <napi.h>

#include <memory>
#include <string>

#include "disk/disk.h"

namespace firn::addon {

// As OpenAttachedDisk. On the thread pool.
Result<std::unique_ptr<Disk>> OpenThroughDriver(const std::string& path);

Napi::Value AskDriverTracking(const Napi::CallbackInfo& info);
Napi::Value QueryDriverChanges(const Napi::CallbackInfo& info);

}  // namespace firn::addon

#endif  // FIRN_ADDON_DRIVER_H_
