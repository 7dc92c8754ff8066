#include "chunk/map_format.h"

#include <cstring>

namespace firn {

namespace {

constexpr uint8_t kVersion = 1;
constexpr uint16_t kChunkBit = 0x8000;
constexpr uint16_t kPagesMask = 0x0FFF;
constexpr size_t kLeafHeaderBytes = 8;
constexpr size_t kNodeHeaderBytes = 8 + kNodeLeaves / 8;
constexpr size_t kNodeRowBytes = 36;
constexpr size_t kRootHeaderBytes = 16;
constexpr size_t kRootRowBytes = 48;

Status Corrupt(const char* what) { return Status::Error(Code::kCorruptObject, what).DataLoss(); }

void PutMagic(uint8_t* out, char kind) {
  out[0] = 'F';
  out[1] = static_cast<uint8_t>(kind);
  out[2] = kVersion;
  out[3] = 0;
}

Status CheckMagic(std::span<const uint8_t> bytes, char kind, size_t header_bytes) {
  if (bytes.size() < header_bytes || bytes[0] != 'F' || bytes[1] != static_cast<uint8_t>(kind)) {
    return Corrupt("not the map object that should be here");
  }
  if (bytes[2] > kVersion) return Status::Error(Code::kVersion, "a map of a newer format version");
  if (bytes[2] != kVersion || bytes[3] != 0) return Corrupt("a map object's header is damaged");
  return Status::Ok();
}

Status CheckLeafRun(const LeafRun& run, const LeafRun* before,
                    const ChunkingParameters& parameters) {
  if (run.pages == 0) return Corrupt("a map leaf has an empty run");
  if (run.hole && before != nullptr && before->hole) {
    return Corrupt("a map leaf has two holes side by side");
  }
  if (!run.hole && run.pages > parameters.max_pages) {
    return Corrupt("a map leaf has a chunk over the maximum");
  }
  const bool short_before = before != nullptr && !before->hole && !run.hole && !parameters.fixed &&
                            before->pages < parameters.min_pages;
  if (short_before) return Corrupt("a map leaf has a short chunk before another");
  return Status::Ok();
}

}  // namespace

uint32_t MapLeaf::data_pages() const {
  uint32_t pages = 0;
  for (const LeafRun& run : runs) pages += run.hole ? 0 : run.pages;
  return pages;
}

std::vector<uint8_t> EncodeLeaf(const MapLeaf& leaf) {
  size_t chunks = 0;
  for (const LeafRun& run : leaf.runs) chunks += run.hole ? 0 : 1;
  std::vector<uint8_t> bytes(kLeafHeaderBytes + leaf.runs.size() * 2 + chunks * 32);
  PutMagic(bytes.data(), 'L');
  StoreLe(&bytes[4], static_cast<uint16_t>(leaf.runs.size()));
  StoreLe(&bytes[6], static_cast<uint16_t>(chunks));
  uint8_t* lengths = bytes.data() + kLeafHeaderBytes;
  uint8_t* ids = lengths + leaf.runs.size() * 2;
  for (const LeafRun& run : leaf.runs) {
    StoreLe(lengths, static_cast<uint16_t>(run.pages | (run.hole ? 0 : kChunkBit)));
    lengths += 2;
    if (run.hole) continue;
    std::memcpy(ids, run.id.data(), 32);
    ids += 32;
  }
  return bytes;
}

Result<MapLeaf> DecodeLeaf(std::span<const uint8_t> bytes, const ChunkingParameters& parameters) {
  FIRN_RETURN_IF_ERROR(CheckMagic(bytes, 'L', kLeafHeaderBytes));
  const size_t runs = LoadLe<uint16_t>(&bytes[4]);
  const size_t chunks = LoadLe<uint16_t>(&bytes[6]);
  if (runs > kSegmentPages || chunks == 0 || chunks > runs ||
      bytes.size() != kLeafHeaderBytes + runs * 2 + chunks * 32) {
    return Corrupt("a map leaf's size does not agree with its counts");
  }
  MapLeaf leaf;
  leaf.runs.reserve(runs);
  const uint8_t* ids = bytes.data() + kLeafHeaderBytes + runs * 2;
  size_t ids_left = chunks;
  uint32_t pages = 0;
  for (size_t i = 0; i < runs; ++i) {
    const auto packed = LoadLe<uint16_t>(&bytes[kLeafHeaderBytes + i * 2]);
    if ((packed & ~(kChunkBit | kPagesMask)) != 0) return Corrupt("a map leaf's run is damaged");
    LeafRun run;
    run.pages = packed & kPagesMask;
    run.hole = (packed & kChunkBit) == 0;
    FIRN_RETURN_IF_ERROR(
        CheckLeafRun(run, leaf.runs.empty() ? nullptr : &leaf.runs.back(), parameters));
    if (!run.hole) {
      if (ids_left-- == 0) return Corrupt("a map leaf has more chunks than ids");
      std::memcpy(run.id.data(), ids, 32);
      ids += 32;
    }
    pages += run.pages;
    leaf.runs.push_back(run);
  }
  if (ids_left != 0 || pages != kSegmentPages)
    return Corrupt("a map leaf does not fill its segment");
  return leaf;
}

std::vector<uint8_t> EncodeNode(const MapNode& node) {
  std::vector<uint8_t> bytes(kNodeHeaderBytes + node.leaves.size() * kNodeRowBytes);
  PutMagic(bytes.data(), 'N');
  StoreLe(&bytes[4], static_cast<uint16_t>(node.leaves.size()));
  uint8_t* row = bytes.data() + kNodeHeaderBytes;
  for (const MapNode::Leaf& leaf : node.leaves) {
    uint8_t& bits = bytes[8 + leaf.index / 8];
    bits = static_cast<uint8_t>(bits | 1u << (leaf.index % 8));
    std::memcpy(row, leaf.id.data(), 32);
    StoreLe(row + 32, leaf.data_pages);
    row += kNodeRowBytes;
  }
  return bytes;
}

Result<MapNode> DecodeNode(std::span<const uint8_t> bytes) {
  FIRN_RETURN_IF_ERROR(CheckMagic(bytes, 'N', kNodeHeaderBytes));
  const size_t leaves = LoadLe<uint16_t>(&bytes[4]);
  if (LoadLe<uint16_t>(&bytes[6]) != 0 || leaves == 0 || leaves > kNodeLeaves ||
      bytes.size() != kNodeHeaderBytes + leaves * kNodeRowBytes) {
    return Corrupt("a map node's size does not agree with its counts");
  }
  MapNode node;
  const uint8_t* row = bytes.data() + kNodeHeaderBytes;
  for (uint32_t i = 0; i < kNodeLeaves; ++i) {
    if ((bytes[8 + i / 8] >> (i % 8) & 1) == 0) continue;
    if (node.leaves.size() == leaves) return Corrupt("a map node's bitmap is damaged");
    MapNode::Leaf leaf;
    leaf.index = static_cast<uint8_t>(i);
    std::memcpy(leaf.id.data(), row, 32);
    leaf.data_pages = LoadLe<uint32_t>(row + 32);
    if (leaf.data_pages == 0 || leaf.data_pages > kSegmentPages) {
      return Corrupt("a map node counts pages that no segment has");
    }
    node.leaves.push_back(leaf);
    row += kNodeRowBytes;
  }
  if (node.leaves.size() != leaves) return Corrupt("a map node's bitmap is damaged");
  return node;
}

std::vector<uint8_t> EncodeRoot(const MapRoot& root) {
  std::vector<uint8_t> bytes(kRootHeaderBytes + root.nodes.size() * kRootRowBytes);
  PutMagic(bytes.data(), 'R');
  StoreLe(&bytes[4], static_cast<uint32_t>(root.nodes.size()));
  StoreLe(&bytes[8], root.disk_bytes);
  uint8_t* row = bytes.data() + kRootHeaderBytes;
  for (const MapRoot::Node& node : root.nodes) {
    StoreLe(row, node.index);
    StoreLe(row + 4, node.leaves);
    std::memcpy(row + 8, node.id.data(), 32);
    StoreLe(row + 40, node.data_pages);
    row += kRootRowBytes;
  }
  return bytes;
}

Result<MapRoot> DecodeRoot(std::span<const uint8_t> bytes) {
  FIRN_RETURN_IF_ERROR(CheckMagic(bytes, 'R', kRootHeaderBytes));
  const uint64_t nodes = LoadLe<uint32_t>(&bytes[4]);
  MapRoot root;
  root.disk_bytes = LoadLe<uint64_t>(&bytes[8]);
  if (root.disk_bytes > kDiskBytesMax || bytes.size() != kRootHeaderBytes + nodes * kRootRowBytes) {
    return Corrupt("a map root's size does not agree with its counts");
  }
  root.nodes.reserve(nodes);
  for (uint64_t i = 0; i < nodes; ++i) {
    const uint8_t* row = &bytes[kRootHeaderBytes + i * kRootRowBytes];
    MapRoot::Node node;
    node.index = LoadLe<uint32_t>(row);
    node.leaves = LoadLe<uint32_t>(row + 4);
    std::memcpy(node.id.data(), row + 8, 32);
    node.data_pages = LoadLe<uint64_t>(row + 40);
    const bool ascending = root.nodes.empty() || root.nodes.back().index < node.index;
    const bool inside = node.index * kNodeBytes < root.disk_bytes;
    if (!ascending || !inside || node.leaves == 0 || node.leaves > kNodeLeaves ||
        node.data_pages == 0 || node.data_pages > uint64_t{node.leaves} * kSegmentPages) {
      return Corrupt("a map root names a node that its disk has not");
    }
    root.nodes.push_back(node);
  }
  return root;
}

}  // namespace firn
