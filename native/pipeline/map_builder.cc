#include "pipeline/map_builder.h"

#include <algorithm>
#include <cassert>

namespace firn {

void MapBuilder::Expect(uint64_t segment) {
  std::lock_guard lock(mutex_);
  const auto index = static_cast<uint32_t>(segment / kNodeLeaves);
  if (announcing_ && *announcing_ != index) {
    open_[*announcing_].closed = true;
    FinishIfComplete(*announcing_);
  }
  announcing_ = index;
  ++open_[index].missing;
}

void MapBuilder::ExpectNoMore() {
  std::lock_guard lock(mutex_);
  if (!announcing_) return;
  open_[*announcing_].closed = true;
  FinishIfComplete(*announcing_);
}

void MapBuilder::AddLeaf(uint64_t segment, const std::optional<MapNode::Leaf>& leaf) {
  std::lock_guard lock(mutex_);
  const auto index = static_cast<uint32_t>(segment / kNodeLeaves);
  OpenNode& open = open_[index];
  if (leaf) open.node.leaves.push_back(*leaf);
  assert(open.missing > 0);
  --open.missing;
  FinishIfComplete(index);
}

void MapBuilder::FinishIfComplete(uint32_t index) {
  auto place = open_.find(index);
  if (!place->second.closed || place->second.missing > 0) return;
  MapNode node = std::move(place->second.node);
  open_.erase(place);
  if (node.leaves.empty()) return;
  std::sort(node.leaves.begin(), node.leaves.end(),
            [](const MapNode::Leaf& a, const MapNode::Leaf& b) { return a.index < b.index; });
  finished_.push_back({index, std::move(node)});
}

std::vector<FinishedNode> MapBuilder::TakeFinished() {
  std::lock_guard lock(mutex_);
  return std::exchange(finished_, {});
}

void MapBuilder::AddNode(const FinishedNode& finished, const Id& id) {
  MapRoot::Node row;
  row.index = finished.index;
  row.leaves = static_cast<uint32_t>(finished.node.leaves.size());
  row.id = id;
  for (const MapNode::Leaf& leaf : finished.node.leaves) row.data_pages += leaf.data_pages;
  std::lock_guard lock(mutex_);
  nodes_.push_back(row);
}

MapRoot MapBuilder::Finish(uint64_t disk_bytes) {
  std::lock_guard lock(mutex_);
  assert(open_.empty() && finished_.empty());
  MapRoot root;
  root.disk_bytes = disk_bytes;
  root.nodes = std::move(nodes_);
  std::sort(root.nodes.begin(), root.nodes.end(),
            [](const MapRoot::Node& a, const MapRoot::Node& b) { return a.index < b.index; });
  return root;
}

}  // namespace firn
