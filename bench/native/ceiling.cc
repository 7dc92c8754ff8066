// firn_ceiling FILE...: the least time that a backup of these disks could take on this machine.
//
// Two bounds, measured apart and printed as one JSON document. readSeconds: the disks' allocated
// ranges, read unbuffered through one deep queue, the bytes thrown away. kernelSeconds: CPU seconds
// of one thread for what no backup can leave out (native/bench/stage_scan.h). Reading, looking up
// and writing cost nothing there. So the ceiling is the slower of readSeconds and kernelSeconds /
// cores, and a share of it counts everything else as overhead: opening, checksums, packs, maps, the
// index, the start of the process.
#include <cstdio>
#include <string>

#include "bench/io_scan.h"
#include "bench/stage_scan.h"

namespace firn {
namespace {

// Longer than any disk takes: a reading ends with its last byte.
constexpr uint64_t kRunMs = uint64_t{7} * 24 * 3600 * 1000;

struct Ceiling {
  uint64_t allocated_bytes = 0;  // of all disks; what was read
  double read_seconds = 0;
  bool direct = true;
  std::string backend;
  StageScanResult stages;
};

double Seconds(uint64_t ns) { return static_cast<double>(ns) * 1e-9; }

Status MeasureDisk(const std::string& path, Ceiling* ceiling) {
  IoScanJob read(FileSystem::Default(), {},
                 {.kind = IoScanOptions::Kind::kMap, .path = path, .cold = true, .run_ms = kRunMs});
  FIRN_RETURN_IF_ERROR(read.Run());
  ceiling->allocated_bytes += read.result().bytes;
  ceiling->read_seconds += Seconds(read.result().elapsed_ns);
  ceiling->direct = ceiling->direct && read.result().direct;
  ceiling->backend = read.result().backend;
  StageScanJob scan(FileSystem::Default(), {}, {.path = path});
  FIRN_RETURN_IF_ERROR(scan.Run());
  StageScanResult& sum = ceiling->stages;
  sum.data_bytes += scan.result().data_bytes;
  sum.chunks += scan.result().chunks;
  sum.unique_chunks += scan.result().unique_chunks;
  sum.compressed_bytes += scan.result().compressed_bytes;
  sum.scan_ns += scan.result().scan_ns;
  sum.hash_ns += scan.result().hash_ns;
  sum.compress_ns += scan.result().compress_ns;
  return Status::Ok();
}

void Print(const Ceiling& ceiling) {
  const StageScanResult& stages = ceiling.stages;
  const uint64_t kernel_ns = stages.scan_ns + stages.hash_ns + stages.compress_ns;
  const auto count = [](uint64_t value) { return static_cast<unsigned long long>(value); };
  std::printf("{\n");
  std::printf("  \"allocatedBytes\": %llu,\n", count(ceiling.allocated_bytes));
  std::printf("  \"dataBytes\": %llu,\n", count(stages.data_bytes));
  std::printf("  \"chunks\": %llu,\n", count(stages.chunks));
  std::printf("  \"uniqueChunks\": %llu,\n", count(stages.unique_chunks));
  std::printf("  \"compressedBytes\": %llu,\n", count(stages.compressed_bytes));
  std::printf("  \"direct\": %s,\n", ceiling.direct ? "true" : "false");
  std::printf("  \"backend\": \"%s\",\n", ceiling.backend.c_str());
  std::printf("  \"readSeconds\": %.6f,\n", ceiling.read_seconds);
  std::printf("  \"scanAndCutSeconds\": %.6f,\n", Seconds(stages.scan_ns));
  std::printf("  \"hashSeconds\": %.6f,\n", Seconds(stages.hash_ns));
  std::printf("  \"compressSeconds\": %.6f,\n", Seconds(stages.compress_ns));
  std::printf("  \"kernelSeconds\": %.6f\n", Seconds(kernel_ns));
  std::printf("}\n");
}

int Main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: firn_ceiling FILE...\n");
    return 2;
  }
  Ceiling ceiling;
  for (int i = 1; i < argc; ++i) {
    const Status status = MeasureDisk(argv[i], &ceiling);
    if (!status.ok()) {
      std::fprintf(stderr, "firn_ceiling: %s\n", status.ToString().c_str());
      return 1;
    }
  }
  Print(ceiling);
  return 0;
}

}  // namespace
}  // namespace firn

int main(int argc, char** argv) { return firn::Main(argc, argv); }
