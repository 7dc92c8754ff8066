// Data to measure with: as compressible and as repetitive as asked for, and never zeros.
//
// Content is a function of seed and position alone, so any part of it can be made at any time, by
// any thread, and two runs see the same bytes. It comes in units of 1 MiB. A unit is either new or,
// with the probability `duplicates`, a copy of an earlier new one; copies are found again by
// chunking except for about half a chunk at each end. In each 64 bytes of a page the share
// `entropy` is random and the rest repeats what stands before it in the page, so zstd stores a
// little more than that share and LZ4 a third more. Nothing that Firn or a device does to zeros, or
// to pages that are all alike, can flatter a measurement.
#ifndef FIRN_BENCH_BENCH_DATA_H_
#define FIRN_BENCH_BENCH_DATA_H_

#include <cstdint>
#include <span>
#include <string>

#include "core/bytes.h"
#include "core/status.h"
#include "pipeline/job.h"

namespace firn {

struct BenchData {
  static constexpr uint64_t kUnitBytes = kMiB;

  uint64_t seed = 1;
  double entropy = 0.5;     // share of random bytes, 0.05 to 1
  double duplicates = 0.2;  // share of units that repeat an earlier one, 0 to 0.95

  Status Check() const;
  // Which unit's content stands at unit `number`: itself, or an earlier one.
  uint64_t SourceUnit(uint64_t number) const;
  // Fills `out` with the content at `offset`. REQUIRES: both are multiples of kPageBytes.
  void Fill(uint64_t offset, std::span<uint8_t> out) const;
};

// Writes a file of such data, which must not be there yet, makes it durable and drops it from the
// cache. What is unfinished when it is cancelled stays: the caller made the folder for it.
class MakeDataJob final : public Job {
 public:
  struct Options {
    std::string path = {};
    uint64_t bytes = 0;  // a multiple of kPageBytes
    BenchData data = {};
  };
  MakeDataJob(FileSystem& fs, const Tuning& tuning, Options options)
      : Job(fs, tuning), options_(std::move(options)) {}

 private:
  Status DoRun() override;

  const Options options_;
};

}  // namespace firn

#endif  // FIRN_BENCH_BENCH_DATA_H_
