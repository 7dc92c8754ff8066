#include "disk/log_overlay.h"

#include <algorithm>
#include <cstring>

#include "disk/vhdx_format.h"

namespace firn {

void LogOverlay::SetZero(uint64_t begin, uint64_t end) {
  if (begin >= end) return;
  pages_.erase(pages_.lower_bound(begin), pages_.lower_bound(end));
  auto next = zeros_.upper_bound(begin);
  if (next != zeros_.begin()) {
    auto previous = std::prev(next);
    if (previous->second >= begin) next = previous;
  }
  while (next != zeros_.end() && next->first <= end) {
    begin = std::min(begin, next->first);
    end = std::max(end, next->second);
    next = zeros_.erase(next);
  }
  zeros_.emplace(begin, end);
}

uint64_t LogOverlay::NextTouched(uint64_t offset) const {
  uint64_t first = NextData(offset);
  auto zero = zeros_.upper_bound(offset);
  if (zero != zeros_.begin() && std::prev(zero)->second > offset) return offset;
  if (zero != zeros_.end()) first = std::min(first, zero->first);
  return first;
}

uint64_t LogOverlay::NextData(uint64_t offset) const {
  auto page = pages_.lower_bound(RoundDown(offset, kPageBytes));
  return page == pages_.end() ? kNone : std::max(page->first, offset);
}

Status LogOverlay::Apply(File& file, uint64_t offset, std::span<uint8_t> bytes) const {
  const uint64_t end = offset + bytes.size();
  auto zero = zeros_.upper_bound(offset);
  if (zero != zeros_.begin()) --zero;
  for (; zero != zeros_.end() && zero->first < end; ++zero) {
    const uint64_t from = std::max(offset, zero->first);
    const uint64_t to = std::min(end, zero->second);
    if (from < to) std::memset(bytes.data() + (from - offset), 0, to - from);
  }

  auto page = pages_.lower_bound(RoundDown(offset, kPageBytes));
  for (; page != pages_.end() && page->first < end; ++page) {
    std::array<uint8_t, kPageBytes> content;
    FIRN_RETURN_IF_ERROR(file.ReadAt(page->second.sector_offset, content));
    if (!vhdx::HasSignature(content, vhdx::log::kSectorSignature)) {
      return Status::Error(Code::kSourceChanged, "the log was written to while it was in use")
          .At(file.path(), page->second.sector_offset);
    }
    const auto& leading = page->second.leading;
    const auto& trailing = page->second.trailing;
    std::memcpy(content.data(), leading.data(), leading.size());
    std::memcpy(content.data() + content.size() - trailing.size(), trailing.data(),
                trailing.size());
    const uint64_t from = std::max(offset, page->first);
    const uint64_t to = std::min(end, page->first + kPageBytes);
    std::memcpy(bytes.data() + (from - offset), content.data() + (from - page->first), to - from);
  }
  return Status::Ok();
}

}  // namespace firn
