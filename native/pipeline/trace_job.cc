#include "pipeline/trace_job.h"

#include <algorithm>

namespace firn {

Status TraceJob::DoRun() {
  FIRN_RETURN_IF_ERROR(options_.repository.chunking.Check());
  stats_.workers = 1;
  stats_.phase = Phase::kCopy;
  FIRN_ASSIGN_OR_RETURN(index_, ChunkIndex::Open(fs_, options_.repository.listing));
  packs_ = std::make_unique<PackFiles>(fs_, options_.repository.listing.root, false);
  maps_ = std::make_unique<MapReader>(index_.get(), packs_.get(), options_.repository.keys(),
                                      options_.repository.chunking);
  FindLost();
  if (lost_.empty()) return Status::Ok();
  for (const Id& root : options_.roots) FIRN_RETURN_IF_ERROR(Walk(root));
  return Status::Ok();
}

void TraceJob::FindLost() {
  std::vector<uint8_t> content;
  for (const Id& id : options_.ids)
    records_.push_back({.id = id, .is_readable = false, .losses = {}});
  for (TracedRecord& record : records_) {
    const std::optional<ChunkPlace> place = index_->Find(record.id);
    record.is_readable = place && maps_->ReadRecord(record.id, place->record_class, &content).ok();
    if (!record.is_readable) lost_.emplace(record.id, &record);
  }
}

bool TraceJob::Note(const Id& id, const Id& root, TracedLoss::Range range, uint64_t bytes) {
  const auto found = lost_.find(id);
  if (found == lost_.end()) return false;
  std::vector<TracedLoss>& losses = found->second->losses;
  // The maps are walked one after the other.
  if (losses.empty() || losses.back().root != root) losses.push_back({.root = root, .ranges = {}});
  TracedLoss& loss = losses.back();
  loss.bytes += bytes;
  ++loss.range_count;
  if (loss.ranges.size() < TracedLoss::kRangesMax) loss.ranges.push_back(range);
  return true;
}

Status TraceJob::Walk(const Id& root_id) {
  const Result<MapRoot> root = maps_->ReadRoot(root_id);
  if (!root.ok()) {
    // How long its disk is only the root knows.
    Note(root_id, root_id, {0, 0}, 0);
    return Status::Ok();
  }
  for (const MapRoot::Node& row : root->nodes) {
    FIRN_RETURN_IF_ERROR(CheckStopped());
    if (clean_.contains(row.id)) continue;
    FIRN_ASSIGN_OR_RETURN(bool is_clean, WalkNode(root_id, row, root->disk_bytes));
    if (is_clean) clean_.insert(row.id);
  }
  return Status::Ok();
}

Result<bool> TraceJob::WalkNode(const Id& root, const MapRoot::Node& row, uint64_t disk_bytes) {
  const uint64_t first = uint64_t{row.index} * kNodeLeaves;
  const Result<MapNode> node = maps_->ReadNode(row.id);
  if (!node.ok()) {
    const uint64_t begin = std::min(first * kSegmentBytes, disk_bytes);
    const uint64_t end = std::min(begin + kNodeLeaves * kSegmentBytes, disk_bytes);
    Note(row.id, root, {begin, end - begin}, row.data_pages * kPageBytes);
    return false;
  }
  bool is_clean = true;
  for (const MapNode::Leaf& leaf : node->leaves) {
    FIRN_RETURN_IF_ERROR(CheckStopped());
    if (clean_.contains(leaf.id)) continue;
    if (WalkLeaf(root, leaf, first + leaf.index, disk_bytes)) {
      clean_.insert(leaf.id);
    } else {
      is_clean = false;
    }
  }
  return is_clean;
}

bool TraceJob::WalkLeaf(const Id& root, const MapNode::Leaf& row, uint64_t segment,
                        uint64_t disk_bytes) {
  const uint64_t begin = std::min(segment * kSegmentBytes, disk_bytes);
  const Result<MapLeaf> leaf = maps_->ReadLeaf(row.id);
  if (!leaf.ok()) {
    const uint64_t end = std::min(begin + kSegmentBytes, disk_bytes);
    Note(row.id, root, {begin, end - begin}, uint64_t{row.data_pages} * kPageBytes);
    return false;
  }
  bool is_clean = true;
  uint64_t offset = begin;
  for (const LeafRun& run : leaf->runs) {
    const uint64_t bytes = uint64_t{run.pages} * kPageBytes;
    const uint64_t inside = std::min(bytes, disk_bytes - std::min(disk_bytes, offset));
    if (!run.hole && Note(run.id, root, {offset, inside}, inside)) is_clean = false;
    offset += bytes;
  }
  return is_clean;
}

}  // namespace firn
