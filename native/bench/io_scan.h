// Reads or writes with set block size, depth and cache mode, and says how fast that went and how
// long each request took.
//
// One thread keeps `depth` requests in flight through an IoQueue, as a worker of a backup does. A
// measurement is warm-up, then run: between them everything in flight is waited for, so that none
// of the warm-up is counted, and the clock of the run goes from its first request to its last
// completion. Reads never write. A scan that writes makes a file of its own, which must not be
// there yet, and takes its name away at once, so that nothing is left however the process ends
// (where the system can't do that, when the scan ends).
#ifndef FIRN_BENCH_IO_SCAN_H_
#define FIRN_BENCH_IO_SCAN_H_

#include <memory>
#include <string>
#include <vector>

#include "bench/bench_data.h"
#include "bench/disk_ranges.h"
#include "bench/latency_histogram.h"
#include "disk/disk.h"
#include "io/aligned_buffer.h"
#include "io/io_queue.h"
#include "pipeline/job.h"

namespace firn {

struct IoScanOptions {
  // kFile: the file's bytes as they lie in it. kMap: a disk's allocated bytes, in the order of the
  // virtual disk, through all layers. kWrite: a new file, from its beginning.
  enum class Kind : uint8_t { kFile, kMap, kWrite };

  static constexpr uint32_t kDepthMax = 1024;
  static constexpr uint64_t kMemoryMax = kGiB;
  static constexpr uint64_t kSlicesMax = 100'000;

  Kind kind = Kind::kFile;
  std::string path = {};
  OpenDiskOptions open = {};  // kMap
  // kWrite: the run ends when so many are written, warm-up included. A backup writes no place
  // twice, and in what is allocated already, or still in the cache, a second time is faster.
  uint64_t file_bytes = 0;
  uint32_t block_bytes = 1024 * 1024;
  uint32_t depth = 32;
  bool direct = true;
  // Drop the file from the cache first, and end with its last byte: a second time around would
  // measure the cache.
  bool cold = false;
  uint64_t position = 0;  // reads begin at this byte of what there is to read
  uint64_t warm_up_ms = 0;
  uint64_t run_ms = 1000;
  uint64_t slice_ms = 100;
  BenchData data = {};  // kWrite
};

struct IoScanResult {
  uint64_t bytes = 0;
  uint64_t elapsed_ns = 0;
  uint64_t sync_ns = 0;  // kWrite: until the bytes were durable, after elapsed_ns
  LatencyHistogram latency;
  std::vector<uint64_t> slices;  // bytes completed in each slice_ms
  uint64_t plan_bytes = 0;       // what there is to read
  uint64_t position = 0;         // where the next scan may go on
  bool direct = false;           // all requests went past the cache
  bool is_cut = false;           // there is more, in too many pieces
  std::string backend;
};

class IoScanJob final : public Job {
 public:
  IoScanJob(FileSystem& fs, const Tuning& tuning, IoScanOptions options)
      : Job(fs, tuning), options_(std::move(options)) {}

  const IoScanResult& result() const { return result_; }

 private:
  struct Slot {
    uint64_t submitted_ns = 0;
    uint32_t length = 0;
  };
  // What one of the two phases counts.
  struct Tally;

  Status DoRun() override;
  Status CheckOptions() const;
  Status Measure();
  Status OpenForReading();
  Status ReserveTarget();
  Status WarmUpWrites(uint64_t* position);
  Status RunPhase(uint64_t run_ms, RangeCursor* cursor, Tally* tally);
  // As many requests as fit. `wait_ns` is set if the pace forbids more.
  Status SubmitAll(RangeCursor* cursor, bool* is_over, uint64_t* wait_ns);
  Status Submit(const FileRange& range, uint32_t slot);
  Status Collect(uint32_t min_completions, Tally* tally);
  Status Drain(Tally* tally);

  const IoScanOptions options_;
  std::unique_ptr<Disk> disk_;
  std::unique_ptr<File> file_;
  RangePlan plan_;
  AlignedBuffer buffer_;
  // After the buffer and the files: it waits for what is in flight when it goes.
  std::unique_ptr<IoQueue> queue_;
  std::vector<Slot> slots_;
  std::vector<uint32_t> free_slots_;
  std::vector<IoCompletion> completions_;
  uint64_t stamp_ = 0;
  IoScanResult result_;
};

}  // namespace firn

#endif  // FIRN_BENCH_IO_SCAN_H_
