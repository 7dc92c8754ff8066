// Scrub: a part of a repository's packs read in full, in the order given, for as long as there is
// time.
//
// Each byte is checked, and each pack against what the index says of it (pack_verifier.h,
// index_check.h). A pack with a defect is read a second time, and what counts is what that finds: a
// device that was gone for a moment is no damage. For each pack that was read it says which of its
// records are not to be believed; that is what the control plane keeps.
//
// Running out of time or being cancelled is success: the result has the packs that were done by
// then. Once the time is up no pack is begun, and those that were begun are finished, so every run
// makes some way.
#ifndef FIRN_PIPELINE_SCRUB_JOB_H_
#define FIRN_PIPELINE_SCRUB_JOB_H_

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "pipeline/job.h"
#include "pipeline/pack_verifier.h"

namespace firn {

struct ScrubOptions {
  RepositoryView repository;
  std::vector<PackName> packs;  // to read, in this order
  uint64_t stop_after_ms = 0;   // 0: when all packs are read
};

struct ScrubbedPack {
  PackName name;
  uint64_t bytes = 0;
  bool gone = false;        // not there any more: it was not checked
  bool is_sound = true;     // nothing was found in it, and no index run misleads about it
  bool whole = false;       // no record of it is to be believed
  std::vector<Id> damaged;  // otherwise those that are not; each once
};

struct ScrubResult {
  static constexpr size_t kProblemsMax = 1000;
  // More records than these, and the pack is not believed at all.
  static constexpr size_t kDamagedMax = 10000;
  std::vector<ScrubbedPack> packs;  // those that were done
  std::vector<Problem> problems;    // the first kProblemsMax
  uint64_t problem_count = 0;
};

class ScrubJob final : public Job {
 public:
  ScrubJob(FileSystem& fs, const Tuning& tuning, ScrubOptions options)
      : Job(fs, tuning), options_(std::move(options)) {}
  // After Run has succeeded.
  const ScrubResult& result() const { return result_; }

 private:
  class Worker;
  Status DoRun() override;
  Status OpenIndex();
  bool IsTimeUp() const;
  void Finish(ScrubbedPack pack, std::vector<Problem> problems);

  const ScrubOptions options_;
  std::unique_ptr<ChunkIndex> index_;
  std::unique_ptr<IndexCheck> index_check_;
  uint64_t begun_ns_ = 0;
  std::mutex mutex_;
  ScrubResult result_;
};

}  // namespace firn

#endif  // FIRN_PIPELINE_SCRUB_JOB_H_
