#include "bench/stage_scan.h"

#include <algorithm>
#include <cstring>
#include <set>
#include <vector>

#include "bench/compressor.h"
#include "bench/thread_clock.h"
#include "chunk/chunker.h"
#include "chunk/page.h"
#include "codec/hash.h"
#include "io/aligned_buffer.h"

namespace firn {

namespace {

// Adds the CPU time of its life to a sum.
class CpuTimer {
 public:
  explicit CpuTimer(uint64_t* sum) : sum_(sum), start_(ThreadCpuNs()) {}
  ~CpuTimer() { *sum_ += ThreadCpuNs() - start_; }
  CpuTimer(const CpuTimer&) = delete;
  CpuTimer& operator=(const CpuTimer&) = delete;

 private:
  uint64_t* const sum_;
  const uint64_t start_;
};

// The stages over one segment after another.
class Stages {
 public:
  Stages(std::unique_ptr<Compressor> compressor, StageScanResult* result)
      : compressor_(std::move(compressor)), keys_(Key{}), result_(result) {
    parameters_.seed = keys_.cut_seed;
  }

  void Run(const uint8_t* segment, const PageSet& present) {
    SegmentWalker walker(parameters_, segment, present);
    SegmentRun run;
    while (Walk(&walker, &run)) {
      if (run.hole) continue;
      TakeChunk({segment + static_cast<size_t>(run.first_page) * kPageBytes,
                 static_cast<size_t>(run.pages) * kPageBytes});
    }
  }

 private:
  bool Walk(SegmentWalker* walker, SegmentRun* run) {
    CpuTimer timer(&result_->scan_ns);
    return walker->Next(run);
  }

  void TakeChunk(std::span<const uint8_t> content) {
    ++result_->chunks;
    result_->data_bytes += content.size();
    Id id;
    {
      CpuTimer timer(&result_->hash_ns);
      id = Blake3Keyed(keys_.chunk, content);
    }
    if (!seen_.insert(id).second) return;
    ++result_->unique_chunks;
    result_->unique_bytes += content.size();
    size_t stored = content.size();
    if (compressor_ != nullptr) {
      CpuTimer timer(&result_->compress_ns);
      stored = std::min(stored, compressor_->Compress(content).size());
    }
    result_->compressed_bytes += stored;
  }

  const std::unique_ptr<Compressor> compressor_;
  const RepositoryKeys keys_;
  ChunkingParameters parameters_;
  std::set<Id> seen_;
  StageScanResult* const result_;
};

// Which of a segment's pages the extents hold.
PageSet PresentPages(const std::vector<Extent>& extents, uint64_t begin) {
  PageSet present;
  for (const Extent& extent : extents) {
    if (extent.source == nullptr) continue;
    const uint64_t inside = extent.offset - begin;
    present.AddRange(static_cast<uint32_t>(inside / kPageBytes),
                     static_cast<uint32_t>(DivideUp(inside + extent.length, kPageBytes)));
  }
  return present;
}

}  // namespace

Status StageScanJob::DoRun() {
  OpenDiskOptions open = options_.open;
  open.direct = false;
  FIRN_ASSIGN_OR_RETURN(std::unique_ptr<Disk> disk, Disk::Open(fs_, options_.path, open));
  FIRN_ASSIGN_OR_RETURN(AlignedBuffer segment, AlignedBuffer::Allocate(kSegmentBytes));
  std::unique_ptr<Compressor> compressor;
  if (options_.compression.codec != Codec::kRaw) {
    FIRN_ASSIGN_OR_RETURN(compressor, Compressor::Create(options_.compression, kSegmentBytes));
  }
  Stages stages(std::move(compressor), &result_);
  stats_.phase = Phase::kCopy;
  std::vector<Extent> extents;
  uint64_t offset = 0;
  while (result_.scanned_bytes < options_.bytes_max) {
    FIRN_RETURN_IF_ERROR(CheckStopped());
    FIRN_ASSIGN_OR_RETURN(offset, disk->NextPresent(offset));
    if (offset >= disk->size()) break;
    const uint64_t begin = RoundDown(offset, kSegmentBytes);
    const uint64_t end = std::min<uint64_t>(begin + kSegmentBytes, disk->size());
    extents.clear();
    FIRN_RETURN_IF_ERROR(disk->Map(begin, end - begin, &extents));
    std::memset(segment.data(), 0, kSegmentBytes);
    FIRN_RETURN_IF_ERROR(
        pace_.AwaitTurn(uint64_t{PresentPages(extents, begin).count()} * kPageBytes));
    FIRN_RETURN_IF_ERROR(disk->Read(begin, segment.span().first(end - begin)));
    const PageSet present = PresentPages(extents, begin);
    stages.Run(segment.data(), present);
    result_.scanned_bytes += uint64_t{present.count()} * kPageBytes;
    stats_.done_bytes = result_.scanned_bytes;
    offset = end;
  }
  return Status::Ok();
}

}  // namespace firn
