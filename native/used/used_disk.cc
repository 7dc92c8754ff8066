#include "used/used_disk.h"

#include <algorithm>

#include "core/bytes.h"

namespace firn {
namespace {

// The first range that ends after `offset`.
std::vector<ByteRange>::const_iterator FirstEndingAfter(const std::vector<ByteRange>& ranges,
                                                        uint64_t offset) {
  return std::ranges::upper_bound(ranges, offset, {}, &ByteRange::end);
}

// Appends a hole, joined with the one before it.
void AppendHole(uint64_t begin, uint64_t end, std::vector<Extent>* extents) {
  if (!extents->empty()) {
    Extent& last = extents->back();
    if (last.source == nullptr && last.offset + last.length == begin) {
      last.length += end - begin;
      return;
    }
  }
  extents->push_back({begin, end - begin, nullptr, 0});
}

// What the disk has of [begin, end), joined with the hole before it.
Status AppendShown(const Disk& disk, uint64_t begin, uint64_t end, std::vector<Extent>* extents) {
  if (begin == end) return Status::Ok();
  std::vector<Extent> shown;
  FIRN_RETURN_IF_ERROR(disk.Map(begin, end - begin, &shown));
  for (const Extent& extent : shown) {
    if (extent.source == nullptr) {
      AppendHole(extent.offset, extent.offset + extent.length, extents);
    } else {
      extents->push_back(extent);
    }
  }
  return Status::Ok();
}

}  // namespace

Status UsedDisk::Map(uint64_t offset, uint64_t length, std::vector<Extent>* extents) const {
  auto skip = FirstEndingAfter(skipped_, offset);
  const bool inside = RangeInside(offset, length, size());
  if (!inside || skip == skipped_.end() || skip->begin >= offset + length) {
    return disk_->Map(offset, length, extents);
  }
  const uint64_t end = offset + length;
  for (uint64_t at = offset; at < end;) {
    const uint64_t hole = skip == skipped_.end() ? end : std::clamp(skip->begin, at, end);
    FIRN_RETURN_IF_ERROR(AppendShown(*disk_, at, hole, extents));
    if (hole == end) break;
    at = std::min(skip->end, end);
    AppendHole(hole, at, extents);
    ++skip;
  }
  return Status::Ok();
}

Result<uint64_t> UsedDisk::NextPresent(uint64_t offset) const {
  while (true) {
    FIRN_ASSIGN_OR_RETURN(offset, disk_->NextPresent(offset));
    const auto skip = FirstEndingAfter(skipped_, offset);
    if (skip == skipped_.end() || skip->begin > offset) return offset;
    offset = skip->end;
  }
}

}  // namespace firn
