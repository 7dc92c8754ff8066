// The rescue of a collection: live records that only victims hold are copied into new packs.
//
// Records are copied as they stand, with their headers checked and their stored bytes held against
// their checksum; nothing is decompressed. In a sealed repository each is opened and sealed again
// under the key of this job's run. A victim that can't be read in full is named in the
// result: it must be spared. The new packs are durable and named by index runs when Run has
// succeeded, before anything is condemned.
#ifndef FIRN_PIPELINE_COLLECT_RESCUE_H_
#define FIRN_PIPELINE_COLLECT_RESCUE_H_

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "codec/seal.h"
#include "io/aligned_buffer.h"
#include "pipeline/chunk_registry.h"
#include "pipeline/collect_index.h"
#include "pipeline/job.h"
#include "pipeline/memory_plan.h"
#include "pipeline/stripe_writer.h"

namespace firn {

struct RescueOptions {
  std::string root;  // the repository's folder
  ChunkingParameters chunking;
  std::optional<Key> index_key;          // of a sealed repository,
  std::shared_ptr<const SealKeys> seal;  // as are these
  std::shared_ptr<LiveIndex> live;       // marked
  std::vector<PackName> victims;
  RunId run{};
  uint32_t attempt = 0;
};

struct RescueResult {
  struct Damaged {
    PackName pack;
    Status status;
  };
  std::vector<PackName> packs;
  std::vector<std::string> index_runs;
  std::vector<Damaged> damaged;
  uint64_t records = 0;
  uint64_t bytes = 0;
};

class RescueJob final : public Job {
 public:
  RescueJob(FileSystem& fs, const Tuning& tuning, RescueOptions options)
      : Job(fs, tuning), options_(std::move(options)) {}
  const RescueResult& result() const { return result_; }

 private:
  // A victim with records to copy.
  struct Victim {
    uint32_t pack = 0;
    uint64_t records = 0;
  };
  class Worker;
  Status DoRun() override;
  void Choose();

  const RescueOptions options_;
  BackupMemory memory_;
  std::vector<Victim> victims_;
  std::unique_ptr<PackWriter> packs_;
  NonceCounter nonces_ = 0;
  std::mutex mutex_;
  RescueResult result_;
};

}  // namespace firn

#endif  // FIRN_PIPELINE_COLLECT_RESCUE_H_
