// A stored disk, read at random: for streams, for looking into a point, for mounting it.
//
// Thread-safe; reads take turns. Recently decoded chunks are kept in a bounded cache. Every chunk
// is checked against its id.
#ifndef FIRN_PIPELINE_MAP_DISK_H_
#define FIRN_PIPELINE_MAP_DISK_H_

#include <list>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "pipeline/job.h"
#include "pipeline/map_reader.h"

namespace firn {

class MapDisk {
 public:
  static Result<std::unique_ptr<MapDisk>> Open(FileSystem& fs, const RepositoryView& repository,
                                               const Id& root);

  uint64_t size() const { return root_.disk_bytes; }
  // REQUIRES: the range lies inside the disk.
  Status Read(uint64_t offset, std::span<uint8_t> out);

 private:
  static constexpr size_t kCacheBytes = 32 * 1024 * 1024;
  struct CachedChunk {
    Id id;
    std::vector<uint8_t> content;
  };

  MapDisk() = default;
  Result<const MapLeaf*> Leaf(uint64_t segment);
  Result<const std::vector<uint8_t>*> Chunk(const LeafRun& run);
  Status ReadSegment(uint64_t offset, std::span<uint8_t> out);

  std::mutex mutex_;
  std::unique_ptr<ChunkIndex> index_;
  std::unique_ptr<PackFiles> packs_;
  std::unique_ptr<MapReader> maps_;
  MapRoot root_;
  std::optional<uint32_t> node_index_;  // of node_
  MapNode node_;
  std::optional<uint64_t> leaf_segment_;  // of leaf_
  std::optional<MapLeaf> leaf_;           // none: a hole
  std::list<CachedChunk> cache_;          // most recent first
  size_t cache_bytes_ = 0;
};

}  // namespace firn

#endif  // FIRN_PIPELINE_MAP_DISK_H_
