// Repair of the index: every pack's table is read again, and new index runs are written from them.
//
// A pack whose footer is damaged is scanned for records. Nothing is deleted and no pack is changed;
// JavaScript drops the old index runs after the new ones are durable.
#ifndef FIRN_PIPELINE_REPAIR_JOB_H_
#define FIRN_PIPELINE_REPAIR_JOB_H_

#include <string>
#include <vector>

#include "pipeline/job.h"
#include "pipeline/verify_job.h"

namespace firn {

struct RepairOptions {
  RepositoryView repository;  // index runs are not looked at
  RunId run{};
  uint32_t attempt = 0;
};

struct RepairResult {
  std::vector<std::string> index_runs;
  uint64_t packs = 0;
  uint64_t records = 0;
  std::vector<Problem> problems;
};

class RepairJob final : public Job {
 public:
  RepairJob(FileSystem& fs, const Tuning& tuning, RepairOptions options)
      : Job(fs, tuning), options_(std::move(options)) {}
  const RepairResult& result() const { return result_; }

 private:
  Status DoRun() override;
  // The pack's table, from its footer or by scanning; no value if the pack can't be read.
  std::optional<PackTable> ReadTable(const PackName& name);

  const RepairOptions options_;
  RepairResult result_;
};

}  // namespace firn

#endif  // FIRN_PIPELINE_REPAIR_JOB_H_
