// Where a segment lies, and what a plan knows of it.
#ifndef FIRN_PIPELINE_SEGMENT_PLACE_H_
#define FIRN_PIPELINE_SEGMENT_PLACE_H_

#include <cstdint>
#include <optional>

#include "chunk/map_format.h"

namespace firn {

struct SegmentPlace {
  uint32_t disk = 0;  // position in the plan's disks
  uint64_t segment = 0;
  // Whether the job's total counts it. What turns out to need reading only later does not.
  bool counted = true;
  // Whether an earlier map says what the segment was, and with which leaf (none: a hole).
  bool on_base = false;
  std::optional<MapNode::Leaf> base_leaf = std::nullopt;
};

}  // namespace firn

#endif  // FIRN_PIPELINE_SEGMENT_PLACE_H_
