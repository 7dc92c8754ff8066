// Index runs made anew of old ones: without packs that are gone, few large ones instead of many
// small.
//
// The new runs are durable when Run has succeeded; the old files are the control plane's to delete
// after that. What is read are the runs as the mark has mapped and checked them. A pack's entries
// stay together in one run.
#ifndef FIRN_PIPELINE_COLLECT_MERGE_H_
#define FIRN_PIPELINE_COLLECT_MERGE_H_

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "pipeline/collect_index.h"
#include "pipeline/job.h"

namespace firn {

struct MergeOptions {
  std::string root;  // the repository's folder
  std::shared_ptr<LiveIndex> live;
  std::vector<std::string> index_runs;  // those to replace
  std::vector<PackName> dropped;        // packs that are gone
  RunId run{};
  uint32_t attempt = 0;
};

class MergeJob final : public Job {
 public:
  // More are written as another run. Entries are merged as they lie, so that what takes memory is a
  // run's filter, and a run that names a pack which is gone is written anew as a whole.
  static constexpr uint64_t kEntriesMax = 1 << 23;

  MergeJob(FileSystem& fs, const Tuning& tuning, MergeOptions options,
           uint64_t entries_max = kEntriesMax)
      : Job(fs, tuning), options_(std::move(options)), entries_max_(entries_max) {}
  const std::vector<std::string>& index_runs() const { return written_; }

 private:
  // A pack as one of the old runs names it.
  struct Source {
    const IndexRun* run = nullptr;
    uint32_t pack = 0;  // in that run
    uint64_t entries = 0;
  };
  // An old run, and where each of its packs stands in the new one: kAbsent for those left out.
  struct MergedRun {
    const IndexRun* run = nullptr;
    std::vector<uint32_t> positions;
  };
  Status DoRun() override;
  std::vector<Source> Sources() const;
  Status WriteRun(std::span<const Source> sources);
  Status Merge(std::span<const MergedRun> runs,
               const std::function<Status(const IndexEntry&)>& visit) const;

  const MergeOptions options_;
  const uint64_t entries_max_;
  std::vector<std::string> written_;
};

}  // namespace firn

#endif  // FIRN_PIPELINE_COLLECT_MERGE_H_
