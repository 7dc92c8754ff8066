// What the stages of a backup that are pure work cost with a disk's own data, each alone.
//
// One thread goes once over the disk's allocated segments and counts its CPU time for what no
// backup can leave out: the zero scan and the cut, BLAKE3 of every chunk, compression of every
// chunk not seen before; chunk by chunk, while the data is in the cache. Reading, looking up and
// writing are not counted. So `cores` times the rate of the three together is what this machine's
// processors could do at best, and all else in a backup is overhead: opening, checksums, packs,
// maps, the index.
#ifndef FIRN_BENCH_STAGE_SCAN_H_
#define FIRN_BENCH_STAGE_SCAN_H_

#include <string>

#include "codec/record.h"
#include "disk/disk.h"
#include "pipeline/job.h"

namespace firn {

struct StageScanOptions {
  std::string path = {};
  OpenDiskOptions open = {};
  CompressionOptions compression = {};  // kRaw: nothing is compressed
  uint64_t bytes_max = UINT64_MAX;      // then it ends, with what it has
};

struct StageScanResult {
  uint64_t scanned_bytes = 0;  // of segments that hold anything
  uint64_t data_bytes = 0;     // in pages that are not zero
  uint64_t chunks = 0;
  uint64_t unique_chunks = 0;
  uint64_t unique_bytes = 0;
  uint64_t compressed_bytes = 0;  // of unique chunks; as long as them where that is shorter
  uint64_t scan_ns = 0;           // CPU time: zero scan and cut
  uint64_t hash_ns = 0;
  uint64_t compress_ns = 0;
};

class StageScanJob final : public Job {
 public:
  StageScanJob(FileSystem& fs, const Tuning& tuning, StageScanOptions options)
      : Job(fs, tuning), options_(std::move(options)) {}

  const StageScanResult& result() const { return result_; }

 private:
  Status DoRun() override;

  const StageScanOptions options_;
  StageScanResult result_;
};

}  // namespace firn

#endif  // FIRN_BENCH_STAGE_SCAN_H_
