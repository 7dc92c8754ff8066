// Reads packs from end to end and checks every byte. One per worker; see verify_job.h.
#ifndef FIRN_PIPELINE_PACK_VERIFIER_H_
#define FIRN_PIPELINE_PACK_VERIFIER_H_

#include <memory>
#include <vector>

#include "io/aligned_buffer.h"
#include "pipeline/verify_job.h"
#include "pipeline/worker_io.h"

namespace firn {

class PackVerifier {
 public:
  static Result<std::unique_ptr<PackVerifier>> Create(VerifyJob* job);

  // Defects become problems of the job; fails only when the job is to stop.
  Status Verify(const PackName& name);

 private:
  struct Buffer {
    AlignedBuffer memory;
    IoGroup io;
  };
  explicit PackVerifier(VerifyJob* job) : job_(job), clock_(&job->stats_), decoder_(job->keys_) {}
  Status VerifyStripes(const PackName& name, const PackTable& table, const SourceFile& source);
  Status StartRead(const SourceFile& source, const PackStripe& stripe, Buffer* buffer);
  // The stripe's own structure and its records, which begin with `*next` and lie back to back.
  void CheckStripe(const PackName& name, const PackTable& table, const PackStripe& stripe,
                   std::span<const uint8_t> bytes, size_t* next);
  Status CheckRecord(const PackRecord& record, std::span<const uint8_t> bytes);
  // Passes over the records of a stripe that can't be read.
  static void SkipRecords(const PackTable& table, const PackStripe& stripe, size_t* next);
  void Report(const PackName& name, Status status, const Id* id = nullptr);

  VerifyJob* const job_;
  StageClock clock_;
  Buffer buffers_[2];
  std::vector<uint8_t> content_;
  std::vector<uint8_t> headers_;
  std::unique_ptr<WorkerIo> io_;
  RecordDecoder decoder_;
};

}  // namespace firn

#endif  // FIRN_PIPELINE_PACK_VERIFIER_H_
