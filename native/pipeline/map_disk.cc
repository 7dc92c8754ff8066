#include "pipeline/map_disk.h"

#include <algorithm>
#include <cstring>

namespace firn {

Result<std::unique_ptr<MapDisk>> MapDisk::Open(FileSystem& fs, const RepositoryView& repository,
                                               const Id& root) {
  FIRN_RETURN_IF_ERROR(repository.chunking.Check());
  std::unique_ptr<MapDisk> disk(new MapDisk());
  FIRN_ASSIGN_OR_RETURN(disk->index_, ChunkIndex::Open(fs, repository.listing));
  disk->packs_ = std::make_unique<PackFiles>(fs, repository.listing.root, false);
  disk->maps_ = std::make_unique<MapReader>(disk->index_.get(), disk->packs_.get(),
                                            repository.keys(), repository.chunking);
  FIRN_ASSIGN_OR_RETURN(disk->root_, disk->maps_->ReadRoot(root));
  return disk;
}

// The segment's leaf; null when it is a hole.
Result<const MapLeaf*> MapDisk::Leaf(uint64_t segment) {
  if (leaf_segment_ != segment) {
    leaf_segment_.reset();
    leaf_.reset();
    const auto node_index = static_cast<uint32_t>(segment / kNodeLeaves);
    if (node_index_ != node_index) {
      node_index_.reset();
      node_.leaves.clear();
      const auto row = std::lower_bound(
          root_.nodes.begin(), root_.nodes.end(), node_index,
          [](const MapRoot::Node& node, uint32_t wanted) { return node.index < wanted; });
      if (row != root_.nodes.end() && row->index == node_index) {
        FIRN_ASSIGN_OR_RETURN(node_, maps_->ReadNode(row->id));
      }
      node_index_ = node_index;
    }
    for (const MapNode::Leaf& row : node_.leaves) {
      if (row.index != segment % kNodeLeaves) continue;
      FIRN_ASSIGN_OR_RETURN(leaf_, maps_->ReadLeaf(row.id));
    }
    leaf_segment_ = segment;
  }
  return leaf_ ? &*leaf_ : nullptr;
}

Result<const std::vector<uint8_t>*> MapDisk::Chunk(const LeafRun& run) {
  auto cached = std::find_if(cache_.begin(), cache_.end(),
                             [&](const CachedChunk& chunk) { return chunk.id == run.id; });
  if (cached != cache_.end()) {
    cache_.splice(cache_.begin(), cache_, cached);
    return &cache_.front().content;
  }
  CachedChunk chunk{run.id, {}};
  FIRN_RETURN_IF_ERROR(maps_->ReadRecord(run.id, RecordClass::kChunk, &chunk.content));
  if (chunk.content.size() != uint64_t{run.pages} * kPageBytes) {
    return Status::Error(Code::kCorruptObject, "a map and a chunk disagree on its length");
  }
  cache_bytes_ += chunk.content.size();
  cache_.push_front(std::move(chunk));
  while (cache_bytes_ > kCacheBytes && cache_.size() > 1) {
    cache_bytes_ -= cache_.back().content.size();
    cache_.pop_back();
  }
  return &cache_.front().content;
}

// REQUIRES: the range lies inside one segment.
Status MapDisk::ReadSegment(uint64_t offset, std::span<uint8_t> out) {
  const uint64_t segment = offset / kSegmentBytes;
  FIRN_ASSIGN_OR_RETURN(const MapLeaf* leaf, Leaf(segment));
  std::memset(out.data(), 0, out.size());
  if (leaf == nullptr) return Status::Ok();
  const uint64_t end = offset + out.size();
  uint64_t run_begin = segment * kSegmentBytes;
  for (const LeafRun& run : leaf->runs) {
    const uint64_t run_end = run_begin + uint64_t{run.pages} * kPageBytes;
    const uint64_t from = std::max(run_begin, offset);
    const uint64_t to = std::min(run_end, end);
    if (!run.hole && from < to) {
      FIRN_ASSIGN_OR_RETURN(const std::vector<uint8_t>* content, Chunk(run));
      std::memcpy(out.data() + (from - offset), content->data() + (from - run_begin), to - from);
    }
    run_begin = run_end;
  }
  return Status::Ok();
}

Status MapDisk::Read(uint64_t offset, std::span<uint8_t> out) {
  std::lock_guard lock(mutex_);
  while (!out.empty()) {
    const size_t length = std::min<uint64_t>(out.size(), kSegmentBytes - offset % kSegmentBytes);
    FIRN_RETURN_IF_ERROR(ReadSegment(offset, out.first(length)));
    offset += length;
    out = out.subspan(length);
  }
  return Status::Ok();
}

}  // namespace firn
