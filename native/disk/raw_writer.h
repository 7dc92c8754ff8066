// Raw images: the bytes of the disk and nothing else, in a sparse file of exactly the disk's size.
#ifndef FIRN_DISK_RAW_WRITER_H_
#define FIRN_DISK_RAW_WRITER_H_

#include <memory>
#include <string>

#include "core/status.h"
#include "disk/disk_writer.h"

namespace firn {

// A raw file carries no identity: its kind is always fixed, its disk id zero. kUnsupported for a
// differencing one.
Result<std::unique_ptr<DiskWriter>> CreateRawWriter(FileSystem& file_system,
                                                    const std::string& path,
                                                    const CreateDiskOptions& options);

}  // namespace firn

#endif  // FIRN_DISK_RAW_WRITER_H_
