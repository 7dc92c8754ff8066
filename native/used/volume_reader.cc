#include "used/volume_reader.h"

#include "core/bytes.h"

namespace firn {

Status VolumeReader::Read(uint64_t offset, std::span<uint8_t> out) const {
  if (!RangeInside(offset, out.size(), size())) {
    return Keep(keep::kInconsistent, "a structure lies at byte " + std::to_string(offset) +
                                         " of a volume of " + std::to_string(size()));
  }
  if (budget_->cancelled != nullptr && *budget_->cancelled) {
    return Status::Error(Code::kAborted, "cancelled while looking for what the disk uses");
  }
  if (out.size() > budget_->left) {
    return Keep(keep::kLimits,
                "there is more to read about what is used than a disk of this size "
                "should have");
  }
  budget_->left -= out.size();
  budget_->used += out.size();
  if (budget_->counter != nullptr) {
    budget_->counter->fetch_add(out.size(), std::memory_order_relaxed);
  }
  Status status = disk_.Read(range_.begin + offset, out);
  // A disk's own kUnsupported is no verdict on the volume.
  if (IsKeep(status)) return Status::Error(Code::kRead, status.message()).At(status.path());
  return status;
}

Result<std::vector<uint8_t>> VolumeReader::Read(uint64_t offset, uint64_t length) const {
  if (!RangeInside(offset, length, size())) return Read(offset, std::span<uint8_t>());
  std::vector<uint8_t> bytes(length);
  FIRN_RETURN_IF_ERROR(Read(offset, bytes));
  return bytes;
}

}  // namespace firn
