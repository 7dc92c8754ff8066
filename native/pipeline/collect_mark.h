// The mark of a collection: which records do the points need, and what does each pack hold of them?
//
// Walks the maps of all points, each map object once, whatever the number of points that share it.
// A sealed point that can't be read in full fails the job, as what it needs would be taken for
// garbage. A pending point may lack objects: its writer may be about to find out that its packs
// went. How many map objects were not found is said, and the control plane decides what that means.
#ifndef FIRN_PIPELINE_COLLECT_MARK_H_
#define FIRN_PIPELINE_COLLECT_MARK_H_

#include <atomic>
#include <memory>
#include <vector>

#include "pipeline/collect_index.h"
#include "pipeline/job.h"
#include "pipeline/map_reader.h"

namespace firn {

struct MarkOptions {
  RepositoryView repository;  // condemned: by others
  std::vector<Id> roots;
  std::vector<Id> pending_roots;
  std::vector<PackName> victims;  // of this collection: what is in them does not stay
  bool only_victims = false;      // of the packs that no run names, only victims are read
};

class MarkJob final : public Job {
 public:
  MarkJob(FileSystem& fs, const Tuning& tuning, MarkOptions options)
      : Job(fs, tuning), options_(std::move(options)), keys_(options_.repository.keys()) {}

  // After Run has succeeded.
  std::shared_ptr<LiveIndex> live() const { return live_; }
  // Map objects of pending points that were not found.
  uint64_t missing() const { return missing_; }
  // Chunks of pending points that were not found.
  uint64_t missing_chunks() const { return missing_chunks_; }

 private:
  Status DoRun() override;
  Status ReadUnnamed();
  Status Walk(const std::vector<Id>& roots, bool is_pending);
  Status WalkNode(const MapRoot::Node& row, MapReader* maps, bool is_pending);
  // Ok if what was not found may be missing.
  Status Tolerate(Status status, bool is_pending);

  const MarkOptions options_;
  const RepositoryKeys keys_;
  std::shared_ptr<LiveIndex> live_;
  std::unique_ptr<PackFiles> packs_;
  std::atomic<uint64_t> missing_ = 0;
  std::atomic<uint64_t> missing_chunks_ = 0;
};

}  // namespace firn

#endif  // FIRN_PIPELINE_COLLECT_MARK_H_
