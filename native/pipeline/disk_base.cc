#include "pipeline/disk_base.h"

#include <algorithm>

namespace firn {

namespace {

uint64_t SegmentBytes(uint64_t segment, uint64_t disk_bytes) {
  return std::min<uint64_t>(kSegmentBytes, disk_bytes - segment * kSegmentBytes);
}

// The fixed scheme's chunks begin and end where its grid says; a decoder does not know places.
Status CheckOnGrid(const MapLeaf& leaf, const ChunkingParameters& chunking) {
  if (!chunking.fixed) return Status::Ok();
  uint32_t page = 0;
  bool after_chunk = false;
  for (const LeafRun& run : leaf.runs) {
    const uint32_t last = page + run.pages - 1;
    const bool crosses = page / chunking.max_pages != last / chunking.max_pages;
    const bool cut_early = after_chunk && page % chunking.max_pages != 0;
    if (!run.hole && (crosses || cut_early)) {
      return Status::Error(Code::kCorruptObject, "a map leaf has a chunk of another chunking");
    }
    after_chunk = !run.hole;
    page = last + 1;
  }
  return Status::Ok();
}

}  // namespace

Result<std::unique_ptr<DiskBase>> DiskBase::Open(const BackupBase& base, const Disk& disk,
                                                 const std::vector<ByteRange>* skipped,
                                                 const ChunkIndex* index, PackFiles* packs,
                                                 const RepositoryKeys& keys,
                                                 const ChunkingParameters& chunking) {
  std::unique_ptr<DiskBase> opened(
      new DiskBase(disk, skipped, base.skips_unused, index, packs, keys, chunking));
  FIRN_ASSIGN_OR_RETURN(opened->root_, opened->maps_.ReadRoot(base.root));
  opened->segments_ = DivideUp(disk.size(), kSegmentBytes);
  opened->SetChanged(base.changed);
  return opened;
}

// Pages rounded outwards, and those between the old end and the new, the last partial page of the
// smaller disk included: it is padded with zeros in one and may hold anything in the other.
void DiskBase::SetChanged(const std::vector<ChangedRange>& changed) {
  const uint64_t smaller = std::min(root_.disk_bytes, disk_.size());
  const uint64_t larger = std::max(root_.disk_bytes, disk_.size());
  std::vector<PageRange> ranges;
  ranges.reserve(changed.size() + 1);
  const auto add = [&](uint64_t begin, uint64_t end) {
    if (begin < end) ranges.push_back({begin / kPageBytes, DivideUp(end, kPageBytes)});
  };
  for (const ChangedRange& range : changed) {
    if (range.offset >= larger) continue;
    add(range.offset, range.offset + std::min(range.length, larger - range.offset));
  }
  add(smaller, larger);
  std::sort(ranges.begin(), ranges.end(),
            [](const PageRange& a, const PageRange& b) { return a.begin < b.begin; });
  for (const PageRange& range : ranges) {
    if (!changed_.empty() && range.begin <= changed_.back().end) {
      changed_.back().end = std::max(changed_.back().end, range.end);
    } else {
      changed_.push_back(range);
    }
  }
}

// The first segment at or after `segment` with a changed page, or segments_.
uint64_t DiskBase::NextChanged(uint64_t segment) const {
  const uint64_t page = segment * kSegmentPages;
  const auto range =
      std::upper_bound(changed_.begin(), changed_.end(), page,
                       [](uint64_t first, const PageRange& row) { return first < row.end; });
  if (range == changed_.end()) return segments_;
  return std::min(segments_, std::max(segment, range->begin / kSegmentPages));
}

// The first segment at or after `segment` that the disk does not know to be a hole, or segments_.
Result<uint64_t> DiskBase::NextPresent(uint64_t segment) const {
  if (segment >= segments_) return segments_;
  FIRN_ASSIGN_OR_RETURN(uint64_t offset, disk_.NextPresent(segment * kSegmentBytes));
  return offset >= disk_.size() ? segments_ : offset / kSegmentBytes;
}

void DiskBase::AddChangedPages(uint64_t segment, PageSet* pages) const {
  const uint64_t first = segment * kSegmentPages;
  auto range = std::upper_bound(changed_.begin(), changed_.end(), first,
                                [](uint64_t page, const PageRange& row) { return page < row.end; });
  for (; range != changed_.end() && range->begin < first + kSegmentPages; ++range) {
    const uint64_t begin = std::max(range->begin, first) - first;
    const uint64_t end = std::min(range->end, first + kSegmentPages) - first;
    pages->AddRange(static_cast<uint32_t>(begin), static_cast<uint32_t>(end));
  }
}

Status DiskBase::AddMovedPages(uint64_t segment, const MapLeaf& leaf, PageSet* pages) const {
  uint32_t page = 0;
  for (const LeafRun& run : leaf.runs) {
    const uint32_t end = page + run.pages;
    if (!run.hole) AddSkippedPages(segment, page, end, pages);
    if (run.hole && skips_unused_) {
      FIRN_RETURN_IF_ERROR(AddPresentPages(segment, page, end, pages));
    }
    page = end;
  }
  return Status::Ok();
}

// Those of pages [first, end) of the segment that are skipped now.
void DiskBase::AddSkippedPages(uint64_t segment, uint32_t first, uint32_t end,
                               PageSet* pages) const {
  if (skipped_ == nullptr) return;
  const uint64_t base = segment * kSegmentBytes;
  const uint64_t from = base + uint64_t{first} * kPageBytes;
  const uint64_t to = base + uint64_t{end} * kPageBytes;
  auto range = std::ranges::upper_bound(*skipped_, from, {}, &ByteRange::end);
  for (; range != skipped_->end() && range->begin < to; ++range) {
    pages->AddRange(static_cast<uint32_t>((std::max(range->begin, from) - base) / kPageBytes),
                    static_cast<uint32_t>((std::min(range->end, to) - base) / kPageBytes));
  }
}

// Those of pages [first, end) of the segment that may hold something: what is a hole of the image,
// or of its file, is as zero as it was.
Status DiskBase::AddPresentPages(uint64_t segment, uint32_t first, uint32_t end,
                                 PageSet* pages) const {
  const uint64_t base = segment * kSegmentBytes;
  const uint64_t from = base + uint64_t{first} * kPageBytes;
  const uint64_t to = std::min(base + uint64_t{end} * kPageBytes, disk_.size());
  if (from >= to) return Status::Ok();
  std::vector<Extent> extents;
  FIRN_RETURN_IF_ERROR(disk_.Map(from, to - from, &extents));
  for (const Extent& extent : extents) {
    if (extent.source == nullptr) continue;
    const uint64_t stop = extent.source_offset + extent.length;
    for (uint64_t at = extent.source_offset; at < stop;) {
      FIRN_ASSIGN_OR_RETURN(std::optional<DataRange> data, extent.source->buffered->NextData(at));
      if (!data || data->begin >= stop) break;
      const uint64_t shift = extent.offset - base;
      const uint64_t begin = std::max(data->begin, at) - extent.source_offset + shift;
      at = std::min(data->end, stop);
      pages->AddRange(
          static_cast<uint32_t>(begin / kPageBytes),
          static_cast<uint32_t>(DivideUp(at - extent.source_offset + shift, kPageBytes)));
    }
  }
  return Status::Ok();
}

uint64_t DiskBase::changed_bytes() const {
  uint64_t total = 0;
  for (const PageRange& range : changed_) {
    const uint64_t begin = std::min(range.begin * kPageBytes, disk_.size());
    total += std::min(range.end * kPageBytes, disk_.size()) - begin;
  }
  return total;
}

Result<uint64_t> DiskBase::ChangedSegmentBytes() const {
  uint64_t total = 0;
  for (uint64_t segment = NextChanged(0); segment < segments_;) {
    FIRN_ASSIGN_OR_RETURN(uint64_t present, NextPresent(segment));
    if (present == segment) {
      total += SegmentBytes(segment, disk_.size());
      ++present;
    }
    segment = NextChanged(present);
  }
  return total;
}

Result<std::optional<SegmentPlace>> DiskBase::Next(uint64_t from) {
  while (from < segments_) {
    const uint64_t index = from / kNodeLeaves;
    const uint64_t end = std::min(segments_, (index + 1) * kNodeLeaves);
    LoadNode(index);
    if (node_lost_) {
      FIRN_ASSIGN_OR_RETURN(uint64_t present, NextPresent(from));
      if (present < end) {
        const bool counted = NextChanged(present) == present;
        return std::optional<SegmentPlace>({.segment = present, .counted = counted});
      }
    } else {
      FIRN_ASSIGN_OR_RETURN(std::optional<SegmentPlace> place, NextInNode(from, end));
      if (place) return place;
    }
    from = end;
  }
  return std::optional<SegmentPlace>();
}

Result<std::optional<SegmentPlace>> DiskBase::NextInNode(uint64_t from, uint64_t end) const {
  const uint64_t first = from / kNodeLeaves * kNodeLeaves;
  const auto row =
      std::find_if(node_.leaves.begin(), node_.leaves.end(),
                   [&](const MapNode::Leaf& leaf) { return first + leaf.index >= from; });
  const uint64_t with_leaf = row == node_.leaves.end() ? end : first + row->index;
  while (true) {
    const uint64_t changed = NextChanged(from);
    // Where blocks were left out, any hole may have been data.
    const uint64_t wanted = skips_unused_ ? from : changed;
    const uint64_t segment = std::min(wanted, with_leaf);
    if (segment >= end) return std::optional<SegmentPlace>();
    bool counted = false;
    if (segment == wanted) {
      FIRN_ASSIGN_OR_RETURN(uint64_t present, NextPresent(segment));
      counted = present == segment && segment == changed;
      if (present != segment && segment != with_leaf) {  // it was a hole and still is one
        from = std::min(present, with_leaf);
        continue;
      }
    }
    SegmentPlace place{.segment = segment, .counted = counted, .on_base = true};
    if (segment == with_leaf) place.base_leaf = *row;
    return std::optional<SegmentPlace>(place);
  }
}

void DiskBase::LoadNode(uint64_t index) {
  if (node_index_ == index) return;
  node_index_ = index;
  node_.leaves.clear();
  node_lost_ = false;
  const auto row = std::lower_bound(
      root_.nodes.begin(), root_.nodes.end(), index,
      [](const MapRoot::Node& node, uint64_t wanted) { return node.index < wanted; });
  if (row == root_.nodes.end() || row->index != index) return;
  const Status status = ReadNode(*row);
  if (status.ok()) return;
  node_.leaves.clear();
  node_lost_ = true;
  Refuse(status);
}

Status DiskBase::ReadNode(const MapRoot::Node& row) {
  FIRN_ASSIGN_OR_RETURN(node_, maps_.ReadNode(row.id));
  uint64_t data_pages = 0;
  for (const MapNode::Leaf& leaf : node_.leaves) data_pages += leaf.data_pages;
  if (node_.leaves.size() != row.leaves || data_pages != row.data_pages) {
    return Status::Error(Code::kCorruptObject, "a map root and its node count differently");
  }
  return Status::Ok();
}

Result<MapLeaf> DiskBase::ReadLeaf(const SegmentPlace& place, MapReader* maps) const {
  if (!place.base_leaf) return MapLeaf{{{static_cast<uint16_t>(kSegmentPages), true, {}}}};
  FIRN_ASSIGN_OR_RETURN(MapLeaf leaf, maps->ReadLeaf(place.base_leaf->id));
  FIRN_RETURN_IF_ERROR(CheckLeafFits(leaf, *place.base_leaf, place.segment, root_.disk_bytes));
  FIRN_RETURN_IF_ERROR(CheckOnGrid(leaf, chunking_));
  return leaf;
}

void DiskBase::Refuse(const Status& reason) {
  std::lock_guard lock(mutex_);
  if (refused_.empty()) refused_ = reason.ToString();
}

std::string DiskBase::refused() const {
  std::lock_guard lock(mutex_);
  return refused_;
}

}  // namespace firn
