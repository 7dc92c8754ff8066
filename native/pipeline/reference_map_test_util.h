// For tests: the map of a disk, made from the format page alone. No walker, no builder, no job, and
// no eye on speed.
#ifndef FIRN_PIPELINE_REFERENCE_MAP_TEST_UTIL_H_
#define FIRN_PIPELINE_REFERENCE_MAP_TEST_UTIL_H_

#if defined(__x86_64__)
#define XXH_DISPATCH_DISABLE_REPLACE
#include <xxh_x86dispatch.h>
#else
#include <xxhash.h>
#endif

#include <map>

#include "chunk/map_format.h"
#include "pipeline/repository_test_util.h"

namespace firn::test {

// Section 4 of the format page, over one segment. `chunking` has its seed.
inline MapLeaf ReferenceLeaf(const DiskContent& content, uint64_t segment,
                             const ChunkingParameters& chunking, const RepositoryKeys& keys) {
  const uint64_t spread = chunking.average_pages - chunking.min_pages + 1;
  const long double threshold = 18446744073709551616.0L / static_cast<long double>(spread);
  MapLeaf leaf;
  Bytes open;
  const auto close = [&] {
    if (open.empty()) return;
    const auto pages = static_cast<uint16_t>(open.size() / kPageBytes);
    leaf.runs.push_back({pages, false, Blake3Keyed(keys.chunk, open)});
    open.clear();
  };
  for (uint32_t i = 0; i < kSegmentPages; ++i) {
    const auto page = content.pages().find(segment * kSegmentPages + i);
    if (page == content.pages().end()) {
      close();
      if (leaf.runs.empty() || !leaf.runs.back().hole) leaf.runs.push_back({0, true, {}});
      ++leaf.runs.back().pages;
      continue;
    }
    open.insert(open.end(), page->second.begin(), page->second.end());
    const uint64_t length = open.size() / kPageBytes;
    const uint64_t hash = XXH3_64bits_withSeed(page->second.data(), kPageBytes, chunking.seed);
    const bool cuts = chunking.fixed ? (i + 1) % chunking.max_pages == 0
                                     : length == chunking.max_pages ||
                                           (length >= chunking.min_pages &&
                                            static_cast<long double>(hash) < threshold);
    if (cuts) close();
  }
  close();
  return leaf;
}

// Section 5: the id of the root of the disk's map.
inline Id ReferenceRoot(const DiskContent& content, ChunkingParameters chunking,
                        const Key& id_key) {
  const RepositoryKeys keys(id_key);
  chunking.seed = keys.cut_seed;
  std::map<uint64_t, MapNode> nodes;
  uint64_t last = ~uint64_t{0};
  for (const auto& [page, bytes] : content.pages()) {
    const uint64_t segment = page / kSegmentPages;
    if (segment == last) continue;
    last = segment;
    const MapLeaf leaf = ReferenceLeaf(content, segment, chunking, keys);
    nodes[segment / kNodeLeaves].leaves.push_back({static_cast<uint8_t>(segment % kNodeLeaves),
                                                   Blake3Keyed(keys.map, EncodeLeaf(leaf)),
                                                   leaf.data_pages()});
  }
  MapRoot root{content.bytes(), {}};
  for (const auto& [index, node] : nodes) {
    uint64_t pages = 0;
    for (const MapNode::Leaf& leaf : node.leaves) pages += leaf.data_pages;
    root.nodes.push_back({static_cast<uint32_t>(index), static_cast<uint32_t>(node.leaves.size()),
                          Blake3Keyed(keys.map, EncodeNode(node)), pages});
  }
  return Blake3Keyed(keys.map, EncodeRoot(root));
}

}  // namespace firn::test

#endif  // FIRN_PIPELINE_REFERENCE_MAP_TEST_UTIL_H_
