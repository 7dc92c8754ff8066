// Reads packs from end to end and checks every byte; goes on after each defect.
//
// A PackVerifier belongs to one thread, and to a job that outlives it. Where a stripe or the table
// can't be read, the records are tried one by one, so that each one that is lost is named and no
// other: by the pack's table, or else by what the index says is in it.
#ifndef FIRN_PIPELINE_PACK_VERIFIER_H_
#define FIRN_PIPELINE_PACK_VERIFIER_H_

#include <functional>
#include <memory>
#include <vector>

#include "io/aligned_buffer.h"
#include "pipeline/index_check.h"
#include "pipeline/problem.h"
#include "pipeline/worker_io.h"

namespace firn {

// The job that packs are verified for. All members but `index` must be there.
struct PackVerifierJob {
  FileSystem* fs = nullptr;
  Tuning tuning;
  JobStats* stats = nullptr;
  std::string root;  // the repository's folder
  // Locked ones: of sealed records only what needs no key is checked.
  RepositoryKeys keys = RepositoryKeys(Key{});
  const IndexCheck* index = nullptr;            // null: packs are looked at alone
  std::function<void(Problem problem)> report;  // thread-safe
  // What reads wait for; what it fails with ends Verify.
  Pace* pace = nullptr;
};

class PackVerifier {
 public:
  static Result<std::unique_ptr<PackVerifier>> Create(const PackVerifierJob* job);

  // Defects are reported; fails only when the job is to stop.
  Status Verify(const PackName& name);

 private:
  struct Buffer {
    AlignedBuffer memory;
    IoGroup io;
  };
  explicit PackVerifier(const PackVerifierJob* job)
      : job_(job), clock_(job->stats), decoder_(job->keys) {}
  Status VerifyStripes(const PackName& name, const PackTable& table, const SourceFile& source);
  Status StartRead(const SourceFile& source, const PackStripe& stripe, Buffer* buffer);
  // The stripe's own structure and its records, which begin with `*next` and lie back to back.
  void CheckStripe(const PackName& name, const PackTable& table, const PackStripe& stripe,
                   std::span<const uint8_t> bytes, size_t* next);
  Status CheckRecord(const PackName& name, const PackRecord& record,
                     std::span<const uint8_t> bytes);
  // Each alone, as what is around it can't be read.
  Status CheckSingly(const PackName& name, std::span<const PackRecord> records, File* file);
  Status CheckByIndex(const PackName& name, File* file);
  void Report(const PackName& name, Status status, const Id* id = nullptr);

  const PackVerifierJob* const job_;
  StageClock clock_;
  Buffer buffers_[2];
  std::vector<uint8_t> content_;
  std::vector<uint8_t> headers_;
  std::vector<uint8_t> record_;
  bool by_index_ = false;  // the index knows nothing of codecs and flags
  std::unique_ptr<WorkerIo> io_;
  RecordDecoder decoder_;
};

}  // namespace firn

#endif  // FIRN_PIPELINE_PACK_VERIFIER_H_
