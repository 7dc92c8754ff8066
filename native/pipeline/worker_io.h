// One worker's reads and writes, grouped: a group is done when all of its requests are.
//
// Belongs to one thread. Requests of a group may be of any number; beyond the queue's depth,
// submitting waits for room. Time spent waiting is charged to the stage the caller names.
#ifndef FIRN_PIPELINE_WORKER_IO_H_
#define FIRN_PIPELINE_WORKER_IO_H_

#include <memory>
#include <vector>

#include "core/status.h"
#include "disk/disk.h"
#include "io/io_queue.h"
#include "pipeline/job.h"
#include "pipeline/job_stats.h"

namespace firn {

// Requests that are waited for together. Must live until it is done.
struct IoGroup {
  uint32_t reads = 0;  // in flight
  uint32_t writes = 0;
  Status status;  // the first failure

  bool done() const { return reads + writes == 0; }
};

// Whether the file's handle can transfer this: always for a buffered one, as its alignment demands
// for an unbuffered one.
bool MeetsAlignment(const File& file, uint64_t offset, std::span<const uint8_t> memory);

class WorkerIo {
 public:
  // Large requests are split to this: enough to run a disk at its rate, small enough to spread over
  // a queue.
  static constexpr uint32_t kRequestBytes = 1024 * 1024;

  static Result<std::unique_ptr<WorkerIo>> Create(FileSystem& fs, const Tuning& tuning,
                                                  JobStats* stats, StageClock* clock, Pace* pace);

  void RegisterBuffer(std::span<uint8_t> memory) { queue_->RegisterBuffer(memory); }

  // Reads wait for the job's pace, which may tell them that the job is to stop.
  Status Read(File* file, uint64_t offset, std::span<uint8_t> out, IoGroup* group);
  Status Write(File* file, uint64_t offset, std::span<const uint8_t> bytes, IoGroup* group);

  // Reads through the handle that suits: unbuffered where the mode and the alignment allow. In
  // kAuto, what the kernel has cached is copied from its cache: a few percent of a worker's time,
  // for which the device is left to the writes.
  Status ReadSource(const SourceFile& source, uint64_t offset, std::span<uint8_t> out,
                    IoGroup* group);

  // Waits until the group is done and returns its fate.
  Status Wait(IoGroup* group, Stage waiting);
  // Takes in what has completed, without waiting.
  Status Poll();
  // For bytes that are read in another way: waits until they may be.
  Status AwaitTurn(uint64_t bytes);

  const char* backend() const { return queue_->name(); }

 private:
  WorkerIo(std::unique_ptr<IoQueue> queue, IoMode mode, JobStats* stats, StageClock* clock,
           Pace* pace)
      : queue_(std::move(queue)), mode_(mode), stats_(stats), clock_(clock), pace_(pace) {}
  Status Submit(const IoRequest& request, IoGroup* group);
  Status Take(uint32_t min_completions);

  const std::unique_ptr<IoQueue> queue_;
  const IoMode mode_;
  JobStats* const stats_;
  StageClock* const clock_;
  Pace* const pace_;
  std::vector<IoCompletion> completions_;
  std::vector<IoGroup*> groups_;  // of the request with tag i
  std::vector<bool> is_read_;     // beside groups_
  std::vector<uint32_t> free_tags_;
};

}  // namespace firn

#endif  // FIRN_PIPELINE_WORKER_IO_H_
