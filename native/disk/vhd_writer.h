// VHD images (Virtual Hard Disk Image Format 1.0), written offline: fixed and dynamic.
//
// A dynamic image lays each block so that its data, not the sector bitmap in front of it, starts on
// a 4 KiB boundary, as Windows does since version 8. All sectors of an allocated block are marked
// present: some readers honour the bitmap, some do not.
#ifndef FIRN_DISK_VHD_WRITER_H_
#define FIRN_DISK_VHD_WRITER_H_

#include <memory>
#include <string>

#include "core/status.h"
#include "disk/disk_writer.h"

namespace firn {

// Block size 0 means 2 MiB; Windows takes 512 KiB besides. kUnsupported for what a VHD can't hold:
// differencing disks (which are only read), more than 2040 GiB, sectors of 4096 bytes.
Result<std::unique_ptr<DiskWriter>> CreateVhdWriter(FileSystem& file_system,
                                                    const std::string& path,
                                                    const CreateDiskOptions& options);

}  // namespace firn

#endif  // FIRN_DISK_VHD_WRITER_H_
