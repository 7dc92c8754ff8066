#include "fuzz/sparse_image.h"

#include <algorithm>

namespace firn::fuzz {

void SparseImage::Read(uint64_t offset, std::span<uint8_t> out) const {
  for (size_t done = 0; done < out.size();) {
    const uint64_t at = offset + done;
    const size_t count = std::min<size_t>(kPage - at % kPage, out.size() - done);
    const auto page = pages_.find(at / kPage);
    if (page == pages_.end()) {
      std::fill_n(out.data() + done, count, uint8_t{0});
    } else {
      std::copy_n(page->second.data() + at % kPage, count, out.data() + done);
    }
    done += count;
  }
}

std::vector<uint8_t> SparseImage::Read(uint64_t offset, uint64_t length) const {
  std::vector<uint8_t> bytes(length);
  Read(offset, bytes);
  return bytes;
}

void SparseImage::Write(uint64_t offset, std::span<const uint8_t> bytes) {
  for (size_t done = 0; done < bytes.size();) {
    const uint64_t at = offset + done;
    std::vector<uint8_t>& page = pages_[at / kPage];
    page.resize(kPage);
    const size_t count = std::min<size_t>(kPage - at % kPage, bytes.size() - done);
    std::copy_n(bytes.data() + done, count, page.data() + at % kPage);
    done += count;
  }
  size_ = std::max(size_, offset + bytes.size());
}

void SparseImage::Resize(uint64_t size) {
  pages_.erase(pages_.lower_bound(DivideUp(size, kPage)), pages_.end());
  const auto last = pages_.find(size / kPage);
  if (last != pages_.end()) {
    std::fill(last->second.begin() + static_cast<ptrdiff_t>(size % kPage), last->second.end(),
              uint8_t{0});
  }
  size_ = size;
}

std::optional<std::pair<uint64_t, uint64_t>> SparseImage::NextPage(uint64_t offset) const {
  if (offset >= size_) return {};
  const auto page = pages_.lower_bound(offset / kPage);
  if (page == pages_.end() || page->first * kPage >= size_) return {};
  return std::pair(std::max(offset, page->first * kPage),
                   std::min(size_, (page->first + 1) * kPage));
}

}  // namespace firn::fuzz
