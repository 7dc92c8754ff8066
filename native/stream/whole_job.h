// Is everything there that these maps need, in packs that a new point may rely on?
//
// That is what a received point is sealed by: each map object is read and checked, each chunk is
// looked up with its length. The chunks' bytes are not read, as no record gets into a pack before
// its id was recomputed. A WholeMaps remembers what was found, so that of points which share most
// of their maps each leaf is looked at once; it forgets all of it when a pack it relies on has
// gone from the listing or been condemned.
#ifndef FIRN_STREAM_WHOLE_JOB_H_
#define FIRN_STREAM_WHOLE_JOB_H_

#include <atomic>
#include <memory>
#include <set>
#include <vector>

#include "index/id_set.h"
#include "pipeline/job.h"
#include "pipeline/map_reader.h"

namespace firn {

// Belongs to one job at a time.
class WholeMaps {
 private:
  friend class WholeJob;
  std::unique_ptr<IdSet> leaves_ = std::make_unique<IdSet>();
  std::atomic<uint64_t> leaf_count_ = 0;
  std::set<PackName> packs_;
};

struct WholeMap {
  Id root{};
  uint64_t disk_bytes = 0;
};

struct WholeOptions {
  RepositoryView repository;
  std::vector<WholeMap> maps;
  std::shared_ptr<WholeMaps> known;
};

class WholeJob final : public Job {
 public:
  WholeJob(FileSystem& fs, const Tuning& tuning, WholeOptions options);
  ~WholeJob() override;
  // After Run has succeeded: every pack that the maps need, and perhaps some that others do.
  const std::vector<PackName>& packs() const { return packs_; }

 private:
  Status DoRun() override;
  void ForgetWhatMoved();
  Status Walk();
  Status WalkNode(const MapRoot::Node& row, uint64_t disk_bytes, MapReader* maps);
  Status WalkLeaf(const MapNode::Leaf& row, uint64_t segment, uint64_t disk_bytes, MapReader* maps);
  bool IsKnown(const Id& leaf);

  const WholeOptions options_;
  WholeMaps& known_;
  const RepositoryKeys keys_;
  std::unique_ptr<ChunkIndex> index_;
  std::unique_ptr<PackFiles> pack_files_;
  std::vector<PackName> packs_;
};

}  // namespace firn

#endif  // FIRN_STREAM_WHOLE_JOB_H_
