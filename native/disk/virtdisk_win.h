// Disks as Windows' own driver for them reads them, and what it says was changed.
//
// A second way to read a frozen disk: the driver follows the chain of layers, replays logs and
// tells the content from the outside, so nothing of Firn's readers is in the way. The disk is
// attached without a drive, a path or a Plug and Play device: no volume of a guest appears at the
// host, and reads go to the handle at offsets of the virtual disk. This is what openvmm does;
// Microsoft documents the flag (ATTACH_VIRTUAL_DISK_FLAG_NO_LOCAL_HOST) as reserved. While such a
// disk is open no layer of it can be merged: close it before its checkpoint goes.
//
// `firn inspect --driver` and the programs' openDriverDisk and driverChanges end here. No backup
// does: Firn reads images by itself, and has what changed from Hyper-V's management interface.
//
// The driver's library is looked up by name in the system's folder at the first use: Server Core
// may lack it, and Windows Server 2012 R2 lacks the query for changes.
#ifndef FIRN_DISK_VIRTDISK_WIN_H_
#define FIRN_DISK_VIRTDISK_WIN_H_

#include <cstdint>
#include <memory>
#include <string>

#include "core/status.h"
#include "disk/disk.h"
#include "disk/layer_changes.h"
#include "disk/tracking_state.h"
#include "io/file_win.h"

namespace firn {

// Opens and attaches read-only. Its extents all lie in one source, which is unbuffered and takes
// whole sectors in a queue. kUnsupported without the library; kFileInUse for a disk that a machine
// runs on; `file_system` must outlive the disk.
Result<std::unique_ptr<Disk>> OpenAttachedDisk(WinFileSystem& file_system, const std::string& path);

Result<TrackingState> AskTrackingState(const std::string& path);

// What may have been changed since a tracking id was given: a superset of the truth, in whole
// pages. `path` is the frozen disk, not the one that the machine writes to now. Any answer that
// does not cover the disk from its beginning to its end is an error and not a shorter list.
// kUnsupported where the system has no such query; kSourceChanged where the id is none that the
// disk was tracked by without a gap: what is to be done then is to read it all.
Result<LayerChanges> QueryTrackedChanges(const std::string& path, const std::string& tracking_id);

}  // namespace firn

#endif  // FIRN_DISK_VIRTDISK_WIN_H_
