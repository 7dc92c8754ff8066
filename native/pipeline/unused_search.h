// Which blocks of a machine's disks no file system uses.
//
// All disks of a machine are looked at before anything is decided: one that holds the image of a
// hibernated system keeps the others as they are, too. Disks are searched side by side, as far as
// memory allows; each by one thread.
#ifndef FIRN_PIPELINE_UNUSED_SEARCH_H_
#define FIRN_PIPELINE_UNUSED_SEARCH_H_

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "disk/disk.h"
#include "pipeline/job.h"
#include "used/used.h"

namespace firn {

// As in UsedOptions.
struct UnusedOptions {
  bool quiesced = false;
  bool keep_shadow_copies = true;
  bool skip_page_files = true;
};

struct SearchedDisk {
  const Disk* disk = nullptr;
  UnusedOptions options;
  UsedMap map;  // out
};

// What a search takes of its job. `run` is Job::RunWorkers.
struct SearchContext {
  uint32_t workers = 1;
  uint64_t memory_bytes = 0;
  const std::atomic<bool>& cancelled;
  JobStats& stats;  // what is read is counted
  std::function<Status(uint32_t count, const std::function<Status(uint32_t)>& work)> run;
};

// Fills the maps of all disks of one machine. The same disks and options give the same maps, with
// whatever workers and memory. Fails where a disk can't be read, or with kAborted.
Status FindUnused(const SearchContext& context, std::vector<SearchedDisk>* disks);

// The search alone, for those who want to know beforehand.
class UnusedJob final : public Job {
 public:
  struct Source {
    std::string path;
    OpenDiskOptions open;
    UnusedOptions options;
  };

  UnusedJob(FileSystem& fs, const Tuning& tuning, std::vector<Source> sources)
      : Job(fs, tuning), sources_(std::move(sources)) {}
  // Beside the sources, after Run has succeeded.
  const std::vector<UsedMap>& maps() const { return maps_; }

 private:
  Status DoRun() override;

  const std::vector<Source> sources_;
  std::vector<UsedMap> maps_;
};

}  // namespace firn

#endif  // FIRN_PIPELINE_UNUSED_SEARCH_H_
