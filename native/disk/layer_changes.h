// What the newest layers of a chain hold themselves: every byte of the disk that may differ from
// what it was when the layer below them took the writes.
//
// A layer holds what was written since it was made, whatever that was: blocks that are present,
// zero, unmapped or undefined, and of a partly present block the sectors of its bitmap. The answer
// is a superset: rewriting the same bytes counts, and pages count as a whole. It is only as good as
// the proof that the layers still lie on what they were made on, so each layer must name the next
// one by its linkage, and the layer below them must have the id that the caller recorded: merging,
// reconnecting or mounting for writing changes that id.
//
// The files must not change meanwhile (they are frozen); dirty logs are replayed in memory. Of VHDX
// only: the id of a VHD stays when its content changes, so nothing could be proven.
#ifndef FIRN_DISK_LAYER_CHANGES_H_
#define FIRN_DISK_LAYER_CHANGES_H_

#include <cstdint>
#include <string>
#include <vector>

#include "core/status.h"
#include "disk/disk.h"
#include "io/file.h"

namespace firn {

struct LayerChangesOptions {
  OpenDiskOptions open;
  // How many of the chain's layers, the child first, are asked for. There must be one more.
  uint32_t layers = 1;
  // The DataWriteGuid of the layer below them, as GuidToString writes it.
  std::string base_linkage;
  // More ranges than this are joined where they lie nearest to each other. At least 1.
  uint32_t max_ranges = 1 << 16;
};

struct LayerChanges {
  struct Range {
    uint64_t offset = 0;
    uint64_t length = 0;
    bool operator==(const Range&) const = default;
  };
  DiskIdentity identity;      // of the whole chain
  std::vector<Range> ranges;  // in order, not touching, whole pages but at the disk's end
};

// Reads the changes of the chain at `path`. What any of the layers, or the one below them, is
// longer or shorter than another counts as changed. kParentMismatch if the chain is not what it
// was, kUnsupported for other formats and shorter chains, and what Disk::Open fails with.
Result<LayerChanges> ReadLayerChanges(FileSystem& file_system, const std::string& path,
                                      const LayerChangesOptions& options);

}  // namespace firn

#endif  // FIRN_DISK_LAYER_CHANGES_H_
