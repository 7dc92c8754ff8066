#include "pipeline/target_io.h"

#include <algorithm>

namespace firn {

Status TargetIo::Write(uint64_t offset, std::span<const uint8_t> bytes, IoGroup* group) {
  const uint64_t disk_bytes = target_->identity().size;
  bytes = bytes.first(std::min<uint64_t>(bytes.size(), disk_bytes - std::min(disk_bytes, offset)));
  if (bytes.empty()) return Status::Ok();
  extents_.clear();
  FIRN_RETURN_IF_ERROR(target_->MapWrite(offset, bytes.size(), &extents_));
  File* unbuffered = target_->payload_file();
  for (const TargetExtent& extent : extents_) {
    const auto piece = bytes.subspan(extent.offset - offset, extent.length);
    const bool direct = MeetsAlignment(*unbuffered, extent.file_offset, piece);
    FIRN_RETURN_IF_ERROR(io_->Write(direct ? unbuffered : target_->buffered_file(),
                                    extent.file_offset, piece, group));
  }
  return Status::Ok();
}

}  // namespace firn
