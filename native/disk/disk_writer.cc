#include "disk/disk_writer.h"

#include <algorithm>

#include "core/bytes.h"
#include "disk/raw_writer.h"
#include "disk/vhd_writer.h"
#include "disk/vhdx_writer.h"

namespace firn {

namespace {

constexpr uint64_t kPage = 4096;

// Whether these bytes may go to that place of `file` past the kernel's cache. Whole pages only,
// whatever the file system would allow, so that a buffered write of the same page's other half
// can't be lost.
bool FitsUnbuffered(const File& file, uint64_t file_offset, std::span<const uint8_t> bytes) {
  const IoAlignment alignment = file.alignment();
  const uint64_t unit = std::max<uint64_t>(alignment.offset, kPage);
  return IsAligned(file_offset, unit) && IsAligned(bytes.size(), unit) &&
         IsAligned(reinterpret_cast<uintptr_t>(bytes.data()), alignment.memory);
}

bool IsSectorSize(uint32_t size) { return size == 512 || size == 4096; }

}  // namespace

Result<std::unique_ptr<DiskWriter>> DiskWriter::Create(FileSystem& fs, const std::string& path,
                                                       const CreateDiskOptions& options) {
  const DiskIdentity& identity = options.identity;
  if (!IsSectorSize(identity.logical_sector_size) || !IsSectorSize(identity.physical_sector_size)) {
    return Status::Error(Code::kInvalidArgument, "sector sizes are 512 or 4096").At(path);
  }
  switch (identity.format) {
    case DiskFormat::kRaw:
      return CreateRawWriter(fs, path, options);
    case DiskFormat::kVhd:
      return CreateVhdWriter(fs, path, options);
    case DiskFormat::kVhdx:
      return CreateVhdxWriter(fs, path, options);
  }
  return Status::Error(Code::kInvalidArgument, "no such disk format").At(path);
}

Status DiskWriter::Write(uint64_t offset, std::span<const uint8_t> bytes) {
  std::vector<TargetExtent> extents;
  FIRN_RETURN_IF_ERROR(MapWrite(offset, bytes.size(), &extents));
  for (const TargetExtent& extent : extents) {
    std::span<const uint8_t> piece = bytes.subspan(extent.offset - offset, extent.length);
    File* file = payload_file();
    if (!FitsUnbuffered(*file, extent.file_offset, piece)) file = buffered_file();
    FIRN_RETURN_IF_ERROR(file->WriteAt(extent.file_offset, piece));
  }
  return Status::Ok();
}

}  // namespace firn
