// What all jobs share: options, cancelling, a crew of workers, the first failure.
//
// A Job's Run is called once, on a thread of its owner's choosing, and returns when all is done,
// failed or cancelled, with every thread it made joined. Cancel and stats may be called from any
// thread at any time; Cancel makes Run return kAborted soon.
#ifndef FIRN_PIPELINE_JOB_H_
#define FIRN_PIPELINE_JOB_H_

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "chunk/chunker.h"
#include "codec/hash.h"
#include "codec/seal_keys.h"
#include "core/status.h"
#include "index/chunk_index.h"
#include "io/io_queue.h"
#include "pipeline/job_stats.h"
#include "pipeline/pace.h"

namespace firn {

// kAuto reads what the kernel has cached from its cache and everything else past it.
enum class IoMode : uint8_t { kAuto, kDirect, kBuffered };

struct Tuning {
  uint32_t workers = 1;
  uint64_t memory_bytes = 160 * kMiB;  // buffers and tables together
  IoMode io = IoMode::kAuto;
  IoBackend backend = IoBackend::kAuto;
  // What all workers together read at most, of disks and packs; maps and tables are not counted.
  // 0: no cap.
  uint64_t bytes_per_second = 0;
};

// A repository as a job needs it.
struct RepositoryView {
  RepositoryListing listing;
  Key id_key{};
  ChunkingParameters chunking;           // seed is derived from the key
  std::shared_ptr<const SealKeys> seal;  // null: it is not sealed

  RepositoryKeys keys() const { return RepositoryKeys(id_key, seal); }
};

class Job {
 public:
  virtual ~Job() = default;
  Status Run() {
    stats_.Start();
    Status status = DoRun();
    stats_.Stop();
    return status;
  }
  void Cancel() { cancelled_ = true; }
  StatsSnapshot stats() const { return stats_.Snapshot(); }

 protected:
  explicit Job(FileSystem& fs, const Tuning& tuning)
      : fs_(fs),
        tuning_(tuning),
        pace_(tuning.bytes_per_second, [this] { return CheckStopped(); }) {}
  virtual Status DoRun() = 0;

  // Runs `worker(i)` on as many threads and waits for all. The first failure stops the others (see
  // CheckStopped) and is returned.
  Status RunWorkers(uint32_t count, const std::function<Status(uint32_t)>& worker);
  // kAborted after Cancel, or when another worker has failed; workers ask between pieces of work.
  Status CheckStopped() const;
  // For work that asks by itself. It outlives nothing but the job.
  const std::atomic<bool>& cancelled() const { return cancelled_; }

  FileSystem& fs_;
  const Tuning tuning_;
  JobStats stats_;
  // What reads of data wait for; it fails when the job is to stop.
  Pace pace_;

 private:
  std::atomic<bool> cancelled_ = false;
  std::atomic<bool> failed_ = false;
};

}  // namespace firn

#endif  // FIRN_PIPELINE_JOB_H_
