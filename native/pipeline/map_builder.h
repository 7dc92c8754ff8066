// A disk's map as it grows, from leaves that arrive in any order.
//
// Thread-safe. The plan says which segments will come (Expect) and when no more do; a node is
// handed out as soon as its last leaf is in, so that only the nodes being worked on are held,
// whatever the disk's size. Encoding and storing the objects is the caller's part.
#ifndef FIRN_PIPELINE_MAP_BUILDER_H_
#define FIRN_PIPELINE_MAP_BUILDER_H_

#include <map>
#include <mutex>
#include <optional>
#include <vector>

#include "chunk/map_format.h"

namespace firn {

struct FinishedNode {
  uint32_t index = 0;
  MapNode node;
};

class MapBuilder {
 public:
  // Segments in ascending order.
  void Expect(uint64_t segment);
  // All segments have been announced.
  void ExpectNoMore();

  // The leaf of a segment that was announced; no value if the segment turned out to be one hole.
  void AddLeaf(uint64_t segment, const std::optional<MapNode::Leaf>& leaf);

  // Nodes that are complete and have a leaf; each is handed out once. Workers ask after each
  // AddLeaf, and the owner once at the end: a node may be completed by the plan's going on rather
  // than by a leaf.
  std::vector<FinishedNode> TakeFinished();
  // The node's object has been stored under `id`.
  void AddNode(const FinishedNode& finished, const Id& id);

  // REQUIRES: every announced leaf and every finished node have been added.
  MapRoot Finish(uint64_t disk_bytes);

 private:
  struct OpenNode {
    MapNode node;
    uint32_t missing = 0;  // announced, not added
    bool closed = false;   // no more will be announced
  };
  void FinishIfComplete(uint32_t index);

  std::mutex mutex_;
  std::map<uint32_t, OpenNode> open_;
  std::optional<uint32_t> announcing_;
  std::vector<FinishedNode> finished_;
  std::vector<MapRoot::Node> nodes_;
};

}  // namespace firn

#endif  // FIRN_PIPELINE_MAP_BUILDER_H_
