#include "pipeline/segment_reader.h"

#include <algorithm>
#include <cstring>

namespace firn {

namespace {

// Where a hole meets data inside a page, the page is read in part and this is the rest of it.
void ZeroPageEdges(uint8_t* segment, uint64_t begin, uint64_t end) {
  const uint64_t first_page_end = std::min(RoundUp(begin, kPageBytes), end);
  std::memset(segment + begin, 0, first_page_end - begin);
  const uint64_t last_page_begin = std::max(RoundDown(end, kPageBytes), first_page_end);
  std::memset(segment + last_page_begin, 0, end - last_page_begin);
}

}  // namespace

Result<std::optional<SegmentPlace>> SegmentPlan::Next() {
  std::lock_guard lock(mutex_);
  while (disk_ < disks_.size()) {
    FIRN_ASSIGN_OR_RETURN(std::optional<SegmentPlace> place, NextOfDisk());
    if (place) {
      place->disk = disk_;
      segment_ = place->segment + 1;
      if (observer_.on_segment) observer_.on_segment(*place);
      return place;
    }
    if (observer_.on_disk_end) observer_.on_disk_end(disk_);
    ++disk_;
    segment_ = 0;
  }
  return std::optional<SegmentPlace>();
}

Result<std::optional<SegmentPlace>> SegmentPlan::NextOfDisk() {
  if (bases_[disk_] != nullptr) return bases_[disk_]->Next(segment_);
  const Disk& disk = *disks_[disk_];
  const uint64_t offset = std::min(segment_ * kSegmentBytes, disk.size());
  FIRN_ASSIGN_OR_RETURN(uint64_t present, disk.NextPresent(offset));
  if (present >= disk.size()) return std::optional<SegmentPlace>();
  return std::optional<SegmentPlace>({.segment = present / kSegmentBytes});
}

Result<uint64_t> PresentSegmentBytes(const Disk& disk) {
  uint64_t total = 0;
  for (uint64_t offset = 0; offset < disk.size();) {
    FIRN_ASSIGN_OR_RETURN(uint64_t present, disk.NextPresent(offset));
    if (present >= disk.size()) break;
    const uint64_t begin = RoundDown(present, kSegmentBytes);
    offset = std::min(begin + kSegmentBytes, disk.size());
    total += offset - begin;
  }
  return total;
}

SegmentReader::SegmentReader(SegmentPlan* plan, WorkerIo* io, std::span<uint8_t> memory,
                             JobStats* stats, StageClock* clock)
    : plan_(plan), io_(io), stats_(stats), clock_(clock), segments_(memory.size() / kSegmentBytes) {
  for (size_t i = 0; i < segments_.size(); ++i) {
    segments_[i].data = memory.data() + i * kSegmentBytes;
    free_.push_back(&segments_[i]);
  }
}

Status SegmentReader::Start(Segment* segment) {
  segment->present.Clear();
  if (segment->rechunker) return StartPages(segment->rechunker->wanted(), segment);
  return StartRange(0, kSegmentBytes, segment);
}

Status SegmentReader::StartPages(const PageSet& pages, Segment* segment) {
  for (uint32_t page = 0; page < kSegmentPages; ++page) {
    if (!pages.Has(page)) continue;
    const uint32_t first = page;
    while (page < kSegmentPages && pages.Has(page)) ++page;
    FIRN_RETURN_IF_ERROR(
        StartRange(uint64_t{first} * kPageBytes, uint64_t{page} * kPageBytes, segment));
  }
  return Status::Ok();
}

// Bytes [from, to) of the segment, whole pages.
Status SegmentReader::StartRange(uint64_t from, uint64_t to, Segment* segment) {
  const Disk& disk = plan_->disk(segment->place.disk);
  const uint64_t begin = segment->place.segment * kSegmentBytes;
  const uint64_t end = std::min(to, disk.size() - begin);
  if (from >= end) return Status::Ok();  // beyond the disk's end
  extents_.clear();
  FIRN_RETURN_IF_ERROR(disk.Map(begin + from, end - from, &extents_));
  for (const Extent& extent : extents_) {
    const uint64_t at = extent.offset - begin;
    if (extent.source == nullptr) {
      ZeroPageEdges(segment->data, at, at + extent.length);
      continue;
    }
    FIRN_RETURN_IF_ERROR(StartExtent(extent, at, segment));
  }
  // The disk's last page may be partial.
  std::memset(segment->data + end, 0, RoundUp(end, kPageBytes) - end);
  return Status::Ok();
}

// Reads what of the extent has data in its file. Allocated blocks are often full of holes: images
// are written sparse, and a block is large. (That the file has not become shorter meanwhile is
// CheckUnchanged's to say.)
Status SegmentReader::StartExtent(const Extent& extent, uint64_t begin, Segment* segment) {
  for (uint64_t done = 0; done < extent.length;) {
    const uint64_t at = extent.source_offset + done;
    const uint64_t rest = extent.length - done;
    FIRN_ASSIGN_OR_RETURN(std::optional<DataRange> data, extent.source->buffered->NextData(at));
    const uint64_t skip = data ? std::min(rest, std::max(data->begin, at) - at) : rest;
    ZeroPageEdges(segment->data, begin + done, begin + done + skip);
    done += skip;
    if (skip == rest) break;
    const uint64_t length = std::min(rest - skip, data->end - (at + skip));
    const uint64_t from = begin + done;
    segment->present.AddRange(static_cast<uint32_t>(from / kPageBytes),
                              static_cast<uint32_t>(DivideUp(from + length, kPageBytes)));
    FIRN_RETURN_IF_ERROR(
        io_->ReadSource(*extent.source, at + skip, {segment->data + from, length}, &segment->io));
    done += length;
  }
  return Status::Ok();
}

Status SegmentReader::Fill() {
  while (!ended_ && !free_.empty()) {
    FIRN_ASSIGN_OR_RETURN(std::optional<SegmentPlace> place, plan_->Next());
    if (!place) {
      ended_ = true;
      break;
    }
    Segment* segment = free_.back();
    segment->place = *place;
    segment->rechunker.reset();
    if (chooser_) {
      FIRN_ASSIGN_OR_RETURN(bool is_read, chooser_(segment));
      if (!is_read) continue;
    }
    free_.pop_back();
    FIRN_RETURN_IF_ERROR(Start(segment));
    reading_.push_back(segment);
  }
  return Status::Ok();
}

Status SegmentReader::ReadMore(Segment* segment, const PageSet& pages) {
  FIRN_RETURN_IF_ERROR(StartPages(pages, segment));
  reading_.push_back(segment);
  return Status::Ok();
}

Result<Segment*> SegmentReader::Next() {
  clock_->Skip();
  FIRN_RETURN_IF_ERROR(Fill());
  clock_->Charge(Stage::kStarved);
  if (reading_.empty()) return static_cast<Segment*>(nullptr);
  Segment* segment = reading_.front();
  reading_.pop_front();
  Status status = io_->Wait(&segment->io, Stage::kStarved);
  if (!status.ok()) return std::move(status).During("read disk");
  if (!std::exchange(segment->place.counted, false)) return segment;
  stats_->done_bytes.fetch_add(
      std::min<uint64_t>(kSegmentBytes, plan_->disk(segment->place.disk).size() -
                                            segment->place.segment * kSegmentBytes),
      std::memory_order_relaxed);
  return segment;
}

}  // namespace firn
