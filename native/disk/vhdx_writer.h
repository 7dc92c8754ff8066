// VHDX images, written offline: fixed, dynamic and differencing.
//
// The layout is Windows' own: log at 1 MiB, metadata at 2 MiB, allocation table at 3 MiB, payload
// after it, all of it 1 MiB aligned. The log stays empty and its GUID zero. A log is for changing
// an image that has a name already; here the name comes last, and what has no name after a crash is
// thrown away.
#ifndef FIRN_DISK_VHDX_WRITER_H_
#define FIRN_DISK_VHDX_WRITER_H_

#include <memory>
#include <string>

#include "core/status.h"
#include "disk/disk_writer.h"

namespace firn {

// Block size 0 means Windows' defaults: 32 MiB, or 2 MiB for a differencing disk. A differencing
// disk inherits size, sector sizes and disk id from its parent, whatever the options say, except
// that a size which is neither 0 nor the parent's is refused. kInvalidArgument for what VHDX can't
// hold.
Result<std::unique_ptr<DiskWriter>> CreateVhdxWriter(FileSystem& file_system,
                                                     const std::string& path,
                                                     const CreateDiskOptions& options);

}  // namespace firn

#endif  // FIRN_DISK_VHDX_WRITER_H_
