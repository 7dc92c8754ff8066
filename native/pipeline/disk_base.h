// What a disk's incremental backup starts from: the map of an earlier point, and what changed.
//
// It says which segments are to be looked at, in order, and which of their pages changed. The map
// is read as the plan goes on, a node at a time, so that memory does not grow with the disk. Next
// is called by one thread at a time (under the plan's lock); the rest is thread-safe.
//
// Nothing of the base is taken on trust. What of it can't be read, or contradicts itself, is left
// to be read from the disk instead: the whole disk (Open fails), a node's segments or a single one.
// The backup is then as good as a full one, and Refuse keeps the reason to be told.
#ifndef FIRN_PIPELINE_DISK_BASE_H_
#define FIRN_PIPELINE_DISK_BASE_H_

#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "disk/disk.h"
#include "pipeline/map_reader.h"
#include "pipeline/segment_place.h"
#include "used/byte_range.h"

namespace firn {

// Bytes of the disk. May reach beyond its end, overlap others and come in any order.
struct ChangedRange {
  uint64_t offset = 0;
  uint64_t length = 0;
};

// `changed` holds every byte that differs from the point whose map `root` is: written, zeroed or
// unmapped since. What changes with the disk's size need not be in it, nor what is shown otherwise
// than then because it is unused now, or no longer (AddMovedPages).
struct BackupBase {
  Id root{};
  std::vector<ChangedRange> changed;
  // That point left unused blocks out, so a hole of it says nothing of what the disk held.
  bool skips_unused = false;
};

class DiskBase {
 public:
  // `disk` is the disk as it is now, without what is `skipped` of it now (null: nothing); these,
  // `index` and `packs` must outlive this. Fails if the map's root can't be read.
  static Result<std::unique_ptr<DiskBase>> Open(const BackupBase& base, const Disk& disk,
                                                const std::vector<ByteRange>* skipped,
                                                const ChunkIndex* index, PackFiles* packs,
                                                const RepositoryKeys& keys,
                                                const ChunkingParameters& chunking);

  // The first segment at or after `from` that the new map may need: one that the base has, or that
  // changed, or may have been left out then, and is not known to be a hole. No value at the end.
  // Ascending calls only.
  Result<std::optional<SegmentPlace>> Next(uint64_t from);

  // The segment as the base has it. REQUIRES: `place` came from Next and is on the base. `maps` is
  // the caller's own.
  Result<MapLeaf> ReadLeaf(const SegmentPlace& place, MapReader* maps) const;
  // Adds the pages of the segment that changed, those that the disk's size adds or takes away
  // included.
  void AddChangedPages(uint64_t segment, PageSet* pages) const;
  // Adds the pages of the segment, of which the base has `leaf`, that are shown otherwise than then
  // though nobody need have written them: data that is unused now; and if the base left blocks out,
  // what may be data now, is in use, and is a hole there. A file system takes free blocks into use
  // without a write to them, and gives them up without one.
  Status AddMovedPages(uint64_t segment, const MapLeaf& leaf, PageSet* pages) const;

  // Of the disk as it is now, without moved pages: those show only in the leaves.
  uint64_t changed_bytes() const;
  // Those that changed and are not known to be holes, in whole segments.
  Result<uint64_t> ChangedSegmentBytes() const;

  // Keeps the first reason why the base, or a part of it, was not used.
  void Refuse(const Status& reason);
  std::string refused() const;

 private:
  struct PageRange {
    uint64_t begin = 0;
    uint64_t end = 0;
  };

  DiskBase(const Disk& disk, const std::vector<ByteRange>* skipped, bool skips_unused,
           const ChunkIndex* index, PackFiles* packs, const RepositoryKeys& keys,
           const ChunkingParameters& chunking)
      : disk_(disk),
        skipped_(skipped),
        skips_unused_(skips_unused),
        maps_(index, packs, keys, chunking),
        chunking_(chunking) {}
  void SetChanged(const std::vector<ChangedRange>& changed);
  uint64_t NextChanged(uint64_t segment) const;
  Result<uint64_t> NextPresent(uint64_t segment) const;
  void LoadNode(uint64_t index);
  Status ReadNode(const MapRoot::Node& row);
  Result<std::optional<SegmentPlace>> NextInNode(uint64_t from, uint64_t end) const;
  void AddSkippedPages(uint64_t segment, uint32_t first, uint32_t end, PageSet* pages) const;
  Status AddPresentPages(uint64_t segment, uint32_t first, uint32_t end, PageSet* pages) const;

  const Disk& disk_;
  const std::vector<ByteRange>* const skipped_;  // of the disk, now; may be null
  const bool skips_unused_;                      // the base
  MapReader maps_;                               // of Open and Next
  const ChunkingParameters chunking_;
  MapRoot root_;
  uint64_t segments_ = 0;           // of the disk as it is now
  std::vector<PageRange> changed_;  // ascending, not touching, inside the larger of both disks
  std::optional<uint64_t> node_index_;
  MapNode node_;            // empty if the base has none there
  bool node_lost_ = false;  // it can't be read

  mutable std::mutex mutex_;
  std::string refused_;
};

}  // namespace firn

#endif  // FIRN_PIPELINE_DISK_BASE_H_
