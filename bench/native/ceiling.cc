// firn_ceiling FILE...: the least time that a backup of these disks could take on this machine.
//
// Two bounds, measured apart and printed as one JSON document. readSeconds: the disks' allocated
// ranges, read unbuffered through one deep queue, the bytes thrown away. kernelSeconds: CPU seconds
// of one thread for what no backup can leave out: the zero scan and the cut, BLAKE3 of every chunk,
// LZ4 of every chunk not seen before; with the data in memory, chunk by chunk while it is in the
// cache. Reading, looking up and writing cost nothing there. So the ceiling is the slower of
// readSeconds and kernelSeconds / cores, and a share of it counts everything else as overhead:
// opening, checksums, packs, maps, the index, the start of the process.
#include <lz4.h>
#include <time.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <set>
#include <string>
#include <vector>

#include "chunk/chunker.h"
#include "chunk/page.h"
#include "codec/hash.h"
#include "codec/record.h"
#include "disk/disk.h"
#include "io/aligned_buffer.h"
#include "io/io_queue.h"

namespace firn {
namespace {

constexpr uint32_t kReadBytes = 1024 * 1024;
constexpr uint32_t kReadDepth = 32;
constexpr uint32_t kSectorBytes = 4096;

struct Ceiling {
  uint64_t allocated_bytes = 0;  // of all disks; what was read
  uint64_t data_bytes = 0;       // in pages that are not zero
  uint64_t chunks = 0;
  uint64_t unique_chunks = 0;
  uint64_t compressed_bytes = 0;
  double read_seconds = 0;
  double scan_and_cut_seconds = 0;
  double hash_seconds = 0;
  double compress_seconds = 0;
  bool direct = true;
  std::string backend;
};

// CPU time of this thread, which a neighbour on the same core does not lengthen.
double ThreadSeconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

// Adds the CPU time of its life to a sum.
class CpuTimer {
 public:
  explicit CpuTimer(double* sum) : sum_(sum), start_(ThreadSeconds()) {}
  ~CpuTimer() { *sum_ += ThreadSeconds() - start_; }
  CpuTimer(const CpuTimer&) = delete;
  CpuTimer& operator=(const CpuTimer&) = delete;

 private:
  double* const sum_;
  const double start_;
};

struct FileRange {
  File* file = nullptr;
  uint64_t offset = 0;
  uint32_t length = 0;
};

// Where the disk's allocated bytes lie in its files, cut into requests, in the disk's order.
Result<std::vector<FileRange>> ListRequests(const Disk& disk, Ceiling* ceiling) {
  std::vector<FileRange> requests;
  std::vector<Extent> extents;
  uint64_t offset = 0;
  while (true) {
    FIRN_ASSIGN_OR_RETURN(offset, disk.NextPresent(offset));
    if (offset >= disk.size()) return requests;
    const uint64_t end =
        std::min<uint64_t>(RoundDown(offset, kSegmentBytes) + kSegmentBytes, disk.size());
    extents.clear();
    FIRN_RETURN_IF_ERROR(disk.Map(offset, end - offset, &extents));
    for (const Extent& extent : extents) {
      if (extent.source == nullptr) continue;
      const bool direct = extent.source->direct != nullptr && extent.source->direct->direct() &&
                          IsAligned(extent.source_offset | extent.length, kSectorBytes);
      if (!direct) ceiling->direct = false;
      File* file = direct ? extent.source->direct : extent.source->buffered;
      for (uint64_t done = 0; done < extent.length; done += kReadBytes) {
        const uint64_t length = std::min<uint64_t>(kReadBytes, extent.length - done);
        requests.push_back({file, extent.source_offset + done, static_cast<uint32_t>(length)});
      }
      ceiling->allocated_bytes += extent.length;
    }
    offset = end;
  }
}

// Reads everything, kReadDepth requests in flight, each slot of the buffer taken again as soon as
// it is free.
Status ReadAll(const std::vector<FileRange>& requests, Ceiling* ceiling) {
  FIRN_ASSIGN_OR_RETURN(AlignedBuffer buffer,
                        AlignedBuffer::Allocate(static_cast<size_t>(kReadBytes) * kReadDepth));
  FIRN_ASSIGN_OR_RETURN(std::unique_ptr<IoQueue> queue,
                        FileSystem::Default().NewQueue({.depth = kReadDepth}));
  ceiling->backend = queue->name();
  std::vector<uint64_t> free_slots;
  for (uint64_t slot = 0; slot < kReadDepth; ++slot) free_slots.push_back(slot);
  std::vector<IoCompletion> completions;
  const auto start = std::chrono::steady_clock::now();
  for (size_t next = 0; next < requests.size() || queue->in_flight() > 0;) {
    while (next < requests.size() && !free_slots.empty()) {
      const uint64_t slot = free_slots.back();
      free_slots.pop_back();
      const FileRange& range = requests[next++];
      FIRN_RETURN_IF_ERROR(queue->Submit({.op = IoRequest::Op::kRead,
                                          .file = range.file,
                                          .offset = range.offset,
                                          .data = buffer.data() + slot * kReadBytes,
                                          .length = range.length,
                                          .tag = slot}));
    }
    completions.clear();
    FIRN_RETURN_IF_ERROR(queue->Wait(1, &completions));
    for (const IoCompletion& completion : completions) {
      FIRN_RETURN_IF_ERROR(Status(completion.status));
      free_slots.push_back(completion.tag);
    }
  }
  const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
  ceiling->read_seconds += elapsed.count();
  return Status::Ok();
}

// The kernels over one segment after another.
class Kernels {
 public:
  explicit Kernels(Ceiling* ceiling)
      : ceiling_(ceiling),
        keys_(Key{}),
        lz4_state_(static_cast<size_t>(LZ4_sizeofState())),
        compressed_(static_cast<size_t>(LZ4_compressBound(kSegmentBytes))) {
    parameters_.seed = keys_.cut_seed;
  }

  void Run(const uint8_t* segment, const PageSet& present) {
    SegmentWalker walker(parameters_, segment, present);
    SegmentRun run;
    while (Walk(&walker, &run)) {
      if (run.hole) continue;
      Chunk({segment + static_cast<size_t>(run.first_page) * kPageBytes,
             static_cast<size_t>(run.pages) * kPageBytes});
    }
  }

 private:
  bool Walk(SegmentWalker* walker, SegmentRun* run) {
    CpuTimer timer(&ceiling_->scan_and_cut_seconds);
    return walker->Next(run);
  }

  void Chunk(std::span<const uint8_t> content) {
    ++ceiling_->chunks;
    ceiling_->data_bytes += content.size();
    Id id;
    {
      CpuTimer timer(&ceiling_->hash_seconds);
      id = Blake3Keyed(keys_.chunk, content);
    }
    if (!seen_.insert(id).second) return;
    ++ceiling_->unique_chunks;
    CpuTimer timer(&ceiling_->compress_seconds);
    const int length = LZ4_compress_fast_extState(
        lz4_state_.data(), reinterpret_cast<const char*>(content.data()), compressed_.data(),
        static_cast<int>(content.size()), static_cast<int>(compressed_.size()),
        CompressionOptions{}.level);
    ceiling_->compressed_bytes += static_cast<uint64_t>(length);
  }

  Ceiling* const ceiling_;
  const RepositoryKeys keys_;
  ChunkingParameters parameters_;
  std::vector<char> lz4_state_;
  std::vector<char> compressed_;
  std::set<Id> seen_;
};

Status RunKernels(const Disk& disk, Kernels* kernels) {
  FIRN_ASSIGN_OR_RETURN(AlignedBuffer segment, AlignedBuffer::Allocate(kSegmentBytes));
  std::vector<Extent> extents;
  uint64_t offset = 0;
  while (true) {
    FIRN_ASSIGN_OR_RETURN(offset, disk.NextPresent(offset));
    if (offset >= disk.size()) return Status::Ok();
    const uint64_t begin = RoundDown(offset, kSegmentBytes);
    const uint64_t end = std::min<uint64_t>(begin + kSegmentBytes, disk.size());
    extents.clear();
    FIRN_RETURN_IF_ERROR(disk.Map(begin, end - begin, &extents));
    PageSet present;
    for (const Extent& extent : extents) {
      if (extent.source == nullptr) continue;
      const uint64_t inside = extent.offset - begin;
      present.AddRange(static_cast<uint32_t>(inside / kPageBytes),
                       static_cast<uint32_t>(DivideUp(inside + extent.length, kPageBytes)));
    }
    std::memset(segment.data(), 0, kSegmentBytes);
    FIRN_RETURN_IF_ERROR(disk.Read(begin, segment.span().first(end - begin)));
    kernels->Run(segment.data(), present);
    offset = end;
  }
}

Status MeasureDisk(const std::string& path, Kernels* kernels, Ceiling* ceiling) {
  FIRN_ASSIGN_OR_RETURN(std::unique_ptr<Disk> disk,
                        Disk::Open(FileSystem::Default(), path, OpenDiskOptions{}));
  FIRN_ASSIGN_OR_RETURN(std::vector<FileRange> requests, ListRequests(*disk, ceiling));
  FIRN_RETURN_IF_ERROR(ReadAll(requests, ceiling));
  return RunKernels(*disk, kernels);
}

void Print(const Ceiling& ceiling) {
  const double kernel_seconds =
      ceiling.scan_and_cut_seconds + ceiling.hash_seconds + ceiling.compress_seconds;
  const auto count = [](uint64_t value) { return static_cast<unsigned long long>(value); };
  std::printf("{\n");
  std::printf("  \"allocatedBytes\": %llu,\n", count(ceiling.allocated_bytes));
  std::printf("  \"dataBytes\": %llu,\n", count(ceiling.data_bytes));
  std::printf("  \"chunks\": %llu,\n", count(ceiling.chunks));
  std::printf("  \"uniqueChunks\": %llu,\n", count(ceiling.unique_chunks));
  std::printf("  \"compressedBytes\": %llu,\n", count(ceiling.compressed_bytes));
  std::printf("  \"direct\": %s,\n", ceiling.direct ? "true" : "false");
  std::printf("  \"backend\": \"%s\",\n", ceiling.backend.c_str());
  std::printf("  \"readSeconds\": %.6f,\n", ceiling.read_seconds);
  std::printf("  \"scanAndCutSeconds\": %.6f,\n", ceiling.scan_and_cut_seconds);
  std::printf("  \"hashSeconds\": %.6f,\n", ceiling.hash_seconds);
  std::printf("  \"compressSeconds\": %.6f,\n", ceiling.compress_seconds);
  std::printf("  \"kernelSeconds\": %.6f\n", kernel_seconds);
  std::printf("}\n");
}

int Main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: firn_ceiling FILE...\n");
    return 2;
  }
  Ceiling ceiling;
  Kernels kernels(&ceiling);
  for (int i = 1; i < argc; ++i) {
    const Status status = MeasureDisk(argv[i], &kernels, &ceiling);
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
