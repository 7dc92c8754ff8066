#include "disk/image_writer.h"

namespace firn {

Status ImageWriter::Finish() {
  if (!image_->buffered()) {
    return Status::Error(Code::kInvalidArgument, "the writer is closed")
        .During("finish")
        .At(image_->path());
  }
  Status status = WriteTables();
  if (!status.ok()) {
    image_->Abandon();
    return status;
  }
  return image_->Commit();
}

Status ImageWriter::CheckRange(uint64_t offset, uint64_t length) const {
  const char* problem = nullptr;
  if (!image_->buffered()) {
    problem = "the writer is closed";
  } else if (!RangeInside(offset, length, identity_.size)) {
    problem = "the range does not lie inside the disk";
  } else if (!IsAligned(offset, identity_.logical_sector_size) ||
             (!IsAligned(length, identity_.logical_sector_size) &&
              offset + length != identity_.size)) {
    problem = "the range is not made of whole sectors";
  }
  if (problem == nullptr) return Status::Ok();
  return Status::Error(Code::kInvalidArgument, problem).During("map").At(image_->path(), offset);
}

Status LinearWriter::MapWrite(uint64_t offset, uint64_t length,
                              std::vector<TargetExtent>* extents) {
  FIRN_RETURN_IF_ERROR(CheckRange(offset, length));
  if (length > 0) AppendTarget({offset, length, payload_offset_ + offset}, extents);
  return Status::Ok();
}

void AppendTarget(const TargetExtent& target, std::vector<TargetExtent>* extents) {
  if (!extents->empty()) {
    TargetExtent& last = extents->back();
    if (last.offset + last.length == target.offset &&
        last.file_offset + last.length == target.file_offset) {
      last.length += target.length;
      return;
    }
  }
  extents->push_back(target);
}

}  // namespace firn
