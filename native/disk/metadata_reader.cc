#include "disk/metadata_reader.h"

#include <algorithm>
#include <cstring>

namespace firn {
namespace {

const std::shared_ptr<const MetadataReader::Page>& ZeroPage() {
  static const auto* page =
      new std::shared_ptr<const MetadataReader::Page>(new MetadataReader::Page{});
  return *page;
}

bool IsZero(std::span<const uint8_t> bytes) {
  // Comparing the bytes with themselves shifted by one lets memcmp do the work.
  return bytes.empty() ||
         (bytes[0] == 0 && std::memcmp(bytes.data(), bytes.data() + 1, bytes.size() - 1) == 0);
}

}  // namespace

Status MetadataReader::ReadPadded(uint64_t offset, std::span<uint8_t> out) const {
  FIRN_ASSIGN_OR_RETURN(const size_t got, file_.ReadSome(offset, out));
  std::ranges::fill(out.subspan(got), uint8_t{0});
  return overlay_.Apply(file_, offset, out);
}

Status MetadataReader::ReadAt(uint64_t offset, std::span<uint8_t> out) const {
  if (!RangeInside(offset, out.size(), bytes_)) {
    return Status::Error(Code::kDiskTruncated, "the image ends before a structure does")
        .At(path(), offset)
        .DataLoss();
  }
  return ReadPadded(offset, out);
}

Status MetadataReader::ReadCached(uint64_t offset, std::span<uint8_t> out) const {
  while (!out.empty()) {
    FIRN_ASSIGN_OR_RETURN(const std::shared_ptr<const Page> page, ReadPage(offset / kPageBytes));
    const size_t within = offset % kPageBytes;
    const size_t count = std::min<size_t>(out.size(), kPageBytes - within);
    std::memcpy(out.data(), page->data() + within, count);
    out = out.subspan(count);
    offset += count;
  }
  return Status::Ok();
}

Result<std::shared_ptr<const MetadataReader::Page>> MetadataReader::ReadPage(uint64_t index) const {
  if (std::shared_ptr<const Page> page = FindCached(index)) return page;
  // Read without the lock: two threads may read the same page, none waits for another's disk.
  auto page = std::make_shared<Page>();
  FIRN_RETURN_IF_ERROR(ReadPadded(index * kPageBytes, *page));
  std::shared_ptr<const Page> result = IsZero(*page) ? ZeroPage() : std::move(page);
  Remember(index, result);
  return result;
}

Result<uint64_t> MetadataReader::NextNonZero(uint64_t offset) const {
  FIRN_ASSIGN_OR_RETURN(const std::optional<DataRange> range, file_.NextData(offset));
  uint64_t next = range ? std::max(range->begin, offset) : bytes_;
  next = std::min(next, overlay_.NextData(offset));
  return std::min(next, bytes_);
}

std::shared_ptr<const MetadataReader::Page> MetadataReader::FindCached(uint64_t index) const {
  std::lock_guard lock(mutex_);
  auto found = cached_.find(index);
  if (found == cached_.end()) return nullptr;
  recent_.splice(recent_.begin(), recent_, found->second);
  return found->second->second;
}

void MetadataReader::Remember(uint64_t index, std::shared_ptr<const Page> page) const {
  std::lock_guard lock(mutex_);
  if (cached_.contains(index)) return;
  recent_.emplace_front(index, std::move(page));
  cached_.emplace(index, recent_.begin());
  if (recent_.size() > kCachedPagesMax) {
    cached_.erase(recent_.back().first);
    recent_.pop_back();
  }
}

}  // namespace firn
