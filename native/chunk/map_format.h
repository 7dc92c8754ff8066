// Maps: which chunk or hole each page of a disk is. docs/repository-format.md section 5.
//
// Encoding is canonical: the same content under the same chunking gives the same bytes, hence the
// same ids. Decoding refuses what no canonical encoder writes. Pure functions; thread-safe.
#ifndef FIRN_CHUNK_MAP_FORMAT_H_
#define FIRN_CHUNK_MAP_FORMAT_H_

#include <cstdint>
#include <span>
#include <vector>

#include "chunk/chunker.h"
#include "core/bytes.h"
#include "core/status.h"

namespace firn {

inline constexpr uint32_t kNodeLeaves = 256;
inline constexpr uint64_t kNodeBytes = uint64_t{kNodeLeaves} * kSegmentBytes;  // 2 GiB
inline constexpr uint64_t kDiskBytesMax = 64 * kTiB;

struct LeafRun {
  uint16_t pages = 0;
  bool hole = false;
  Id id{};  // of the chunk
};

// One segment. Runs are in order and sum up to kSegmentPages.
struct MapLeaf {
  std::vector<LeafRun> runs;
  uint32_t data_pages() const;
};

struct MapNode {
  struct Leaf {
    uint8_t index = 0;  // in the node
    Id id{};
    uint32_t data_pages = 0;
  };
  std::vector<Leaf> leaves;  // ascending; at least one
};

struct MapRoot {
  struct Node {
    uint32_t index = 0;
    uint32_t leaves = 0;
    Id id{};
    uint64_t data_pages = 0;
  };
  uint64_t disk_bytes = 0;
  std::vector<Node> nodes;  // ascending
};

std::vector<uint8_t> EncodeLeaf(const MapLeaf& leaf);
std::vector<uint8_t> EncodeNode(const MapNode& node);
std::vector<uint8_t> EncodeRoot(const MapRoot& root);

// kCorruptObject on anything not canonical.
Result<MapLeaf> DecodeLeaf(std::span<const uint8_t> bytes, const ChunkingParameters& parameters);
Result<MapNode> DecodeNode(std::span<const uint8_t> bytes);
Result<MapRoot> DecodeRoot(std::span<const uint8_t> bytes);

}  // namespace firn

#endif  // FIRN_CHUNK_MAP_FORMAT_H_
