#include "pipeline/target_io.h"

#include <algorithm>

namespace firn {

Status TargetIo::Write(uint64_t offset, std::span<const uint8_t> bytes, IoGroup* group) {
  const uint64_t disk_bytes = target_->identity().size;
  bytes = bytes.first(std::min<uint64_t>(bytes.size(), disk_bytes - std::min(disk_bytes, offset)));
  if (bytes.empty()) return Status::Ok();
  extents_.clear();
  FIRN_RETURN_IF_ERROR(target_->MapWrite(offset, bytes.size(), &extents_));
  File* direct = target_->payload_file();
  const IoAlignment alignment = direct->alignment();
  for (const TargetExtent& extent : extents_) {
    const auto piece = bytes.subspan(extent.offset - offset, extent.length);
    const bool suits = extent.file_offset % alignment.offset == 0 &&
                       piece.size() % alignment.offset == 0 &&
                       reinterpret_cast<uintptr_t>(piece.data()) % alignment.memory == 0;
    FIRN_RETURN_IF_ERROR(
        io_->Write(suits ? direct : target_->buffered_file(), extent.file_offset, piece, group));
  }
  return Status::Ok();
}

}  // namespace firn
