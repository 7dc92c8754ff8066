// One core's part of a restore's window. See restore_job.h.
#ifndef FIRN_PIPELINE_RESTORE_WORKER_H_
#define FIRN_PIPELINE_RESTORE_WORKER_H_

#include <atomic>
#include <deque>
#include <memory>
#include <vector>

#include "io/aligned_buffer.h"
#include "pipeline/restore_job.h"
#include "pipeline/target_io.h"

namespace firn {

// How a restore's memory is divided.
struct RestoreMemory {
  static constexpr uint64_t kRangeBytes = 4 * kMiB;   // a read of a pack
  static constexpr uint64_t kOutputBytes = 4 * kMiB;  // decoded, being written
  static constexpr uint32_t kRanges = 2, kOutputs = 2;

  uint32_t workers = 1;
  uint32_t ranges = kRanges;    // for each worker
  uint32_t outputs = kOutputs;  // for each worker
  size_t references_max = 0;    // of a window

  uint64_t worker_bytes(uint64_t range_buffer, uint64_t output_buffer) const {
    return ranges * range_buffer + outputs * output_buffer;
  }
};

struct RestoreJob::Shared {
  explicit Shared(const RepositoryView& view) : keys(view.keys()) {}

  RepositoryKeys keys;
  RestoreMemory memory;
  uint64_t range_buffer_bytes = 0;
  uint64_t output_buffer_bytes = 0;
  std::unique_ptr<ChunkIndex> index;
  std::unique_ptr<PackFiles> buffered_packs;  // for maps, and for chunks that are in the cache
  std::unique_ptr<PackFiles> direct_packs;    // for chunks

  // The window being worked on.
  const std::vector<ChunkReference>* window = nullptr;
  std::vector<PackRange> ranges;
  std::atomic<size_t> next_range = 0;
  DiskWriter* target = nullptr;
};

class RestoreWorker {
 public:
  static Result<std::unique_ptr<RestoreWorker>> Create(RestoreJob* job);
  // Takes ranges of the window until there are none, and leaves nothing in flight.
  Status Run();

 private:
  struct Input {  // a range being read
    std::span<uint8_t> memory;
    PackRange range;
    std::shared_ptr<File> file;    // null if the pack can't be opened
    std::shared_ptr<File> direct;  // the same, unbuffered
    IoGroup io;
    Status failure;  // why nothing of the range was read
  };
  struct Output {  // decoded chunks being written
    std::span<uint8_t> memory;
    size_t used = 0;
    IoGroup io;
  };
  // What is decoded and not yet handed to the target: neighbours in memory and on the disk.
  struct Pending {
    uint64_t disk_offset = 0;
    std::span<const uint8_t> bytes;
  };

  explicit RestoreWorker(RestoreJob* job)
      : job_(job),
        shared_(job->shared_.get()),
        clock_(&job->stats_),
        decoder_(shared_->keys),
        copies_(shared_->index.get(), shared_->buffered_packs.get(), shared_->keys,
                job->options_.repository.chunking) {}
  Status FillInputs();
  Status OpenPack(Input* input);
  Status DecodeRange(const Input& input);
  Result<std::span<uint8_t>> DecodeRecord(const Input& input, const ChunkReference& reference);
  Status DecodeCopy(const Input& input, const ChunkReference& reference,
                    std::span<uint8_t> content);
  // Reads another copy of a chunk; false if there is none that is whole.
  bool ReadAnotherCopy(const ChunkReference& reference, std::span<uint8_t> content);
  Result<std::span<uint8_t>> ReserveOutput(size_t bytes);
  Status WriteChunk(uint64_t disk_offset, std::span<const uint8_t> bytes);
  Status FlushPending();

  RestoreJob* const job_;
  RestoreJob::Shared* const shared_;
  StageClock clock_;
  // Memory and files before the I/O that uses them, so that they outlive it.
  AlignedBuffer memory_;
  std::vector<Input> inputs_;
  std::vector<Input*> free_inputs_;
  std::deque<Input*> reading_;
  std::vector<Output> outputs_;
  std::unique_ptr<WorkerIo> io_;
  size_t current_output_ = 0;
  Pending pending_;
  RecordDecoder decoder_;
  MapReader copies_;  // for chunks whose first copy is damaged
  std::vector<uint8_t> copy_;
};

}  // namespace firn

#endif  // FIRN_PIPELINE_RESTORE_WORKER_H_
