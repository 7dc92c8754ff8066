#include "pipeline/copy_job.h"

#include <algorithm>
#include <deque>

#include "chunk/zero.h"
#include "io/aligned_buffer.h"
#include "pipeline/target_io.h"

namespace firn {

namespace {

constexpr uint64_t kSegmentsPerWorkerMin = 2;
constexpr uint64_t kSegmentsPerWorkerMax = 4;

// Calls `write(first page, pages)` for each run of pages that are present and not zero.
template <typename Write>
Status ForEachDataRun(const Segment& segment, Write write) {
  uint32_t page = 0;
  const auto is_data = [&](uint32_t p) {
    return segment.present.Has(p) && !IsZero(segment.data + uint64_t{p} * kPageBytes, kPageBytes);
  };
  while (page < kSegmentPages) {
    while (page < kSegmentPages && !is_data(page)) ++page;
    const uint32_t begin = page;
    while (page < kSegmentPages && is_data(page)) ++page;
    if (page > begin) FIRN_RETURN_IF_ERROR(write(begin, page - begin));
  }
  return Status::Ok();
}

}  // namespace

Status CopyJob::DoRun() {
  OpenDiskOptions open = options_.source;
  open.direct = tuning_.io != IoMode::kBuffered;
  FIRN_ASSIGN_OR_RETURN(std::unique_ptr<Disk> source, Disk::Open(fs_, options_.source_path, open));
  FIRN_ASSIGN_OR_RETURN(uint64_t present, PresentSegmentBytes(*source));
  stats_.total_bytes = present;
  CreateDiskOptions create = options_.target;
  create.direct = tuning_.io != IoMode::kBuffered;
  FIRN_ASSIGN_OR_RETURN(std::unique_ptr<DiskWriter> target,
                        DiskWriter::Create(fs_, options_.target_path, create));
  if (target->identity().size < source->size()) {
    return Status::Error(Code::kInvalidArgument, "the target disk is smaller than the source");
  }
  const auto workers = static_cast<uint32_t>(
      std::clamp<uint64_t>(tuning_.memory_bytes / (kSegmentsPerWorkerMin * kSegmentBytes), 1,
                           std::max(1u, tuning_.workers)));
  const uint64_t segments = std::clamp(tuning_.memory_bytes / workers / kSegmentBytes,
                                       kSegmentsPerWorkerMin, kSegmentsPerWorkerMax);
  stats_.workers = workers;
  stats_.memory_bytes = workers * segments * kSegmentBytes;
  stats_.phase = Phase::kCopy;
  SegmentPlan plan({source.get()});
  FIRN_RETURN_IF_ERROR(RunWorkers(
      workers, [&](uint32_t) { return RunWorker(&plan, target.get(), segments * kSegmentBytes); }));
  stats_.phase = Phase::kFinish;
  FIRN_RETURN_IF_ERROR(source->CheckUnchanged());
  return target->Finish();
}

Status CopyJob::RunWorker(SegmentPlan* plan, DiskWriter* target, uint64_t memory_bytes) {
  StageClock clock(&stats_);
  FIRN_ASSIGN_OR_RETURN(AlignedBuffer memory, AlignedBuffer::Allocate(memory_bytes));
  FIRN_ASSIGN_OR_RETURN(std::unique_ptr<WorkerIo> io,
                        WorkerIo::Create(fs_, tuning_, &stats_, &clock, &pace_));
  io->RegisterBuffer(memory.span());
  SegmentReader reader(plan, io.get(), memory.span(), &stats_, &clock);
  TargetIo target_io(target, io.get());
  std::deque<Segment*> writing;
  const auto finish_oldest = [&]() -> Status {
    Segment* oldest = writing.front();
    writing.pop_front();
    FIRN_RETURN_IF_ERROR(io->Wait(&oldest->io, Stage::kBlocked));
    reader.Release(oldest);
    return Status::Ok();
  };
  while (true) {
    FIRN_RETURN_IF_ERROR(CheckStopped());
    // At least half of the buffers are for reading ahead.
    while (!writing.empty() &&
           (writing.front()->io.done() || writing.size() * 2 > reader.buffers())) {
      FIRN_RETURN_IF_ERROR(finish_oldest());
    }
    FIRN_ASSIGN_OR_RETURN(Segment * segment, reader.Next());
    if (segment == nullptr) break;
    clock.Skip();
    uint32_t zero_pages = segment->present.count();
    FIRN_RETURN_IF_ERROR(ForEachDataRun(*segment, [&](uint32_t first, uint32_t pages) {
      zero_pages -= pages;
      return target_io.Write(
          segment->place.segment * kSegmentBytes + uint64_t{first} * kPageBytes,
          {segment->data + uint64_t{first} * kPageBytes, uint64_t{pages} * kPageBytes},
          &segment->io);
    }));
    clock.Charge(Stage::kScan);
    stats_.zero_bytes.fetch_add(uint64_t{zero_pages} * kPageBytes, std::memory_order_relaxed);
    writing.push_back(segment);
    clock.Flush();
  }
  while (!writing.empty()) FIRN_RETURN_IF_ERROR(finish_oldest());
  clock.Flush();
  return Status::Ok();
}

}  // namespace firn
