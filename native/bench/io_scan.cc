#include "bench/io_scan.h"

#include <algorithm>
#include <numeric>

#include "chunk/page.h"

namespace firn {

namespace {

constexpr uint64_t kNsPerMs = 1'000'000;

// Makes each page another one than it was, wherever it is written: a device that finds duplicates
// finds none. A few bytes of each page cost nothing beside the write.
void StampPages(uint64_t* stamp, std::span<uint8_t> bytes) {
  for (size_t at = 0; at + kPageBytes <= bytes.size(); at += kPageBytes) {
    StoreLe(bytes.data() + at, ++*stamp);
  }
}

}  // namespace

struct IoScanJob::Tally {
  uint64_t bytes = 0;
  uint64_t begun_ns = 0;
  uint64_t last_ns = 0;
  LatencyHistogram latency;
  std::vector<uint64_t> slices;
  uint64_t slice_ns = 0;

  void Count(const Slot& slot, uint64_t now) {
    bytes += slot.length;
    last_ns = now;
    latency.Record(now - slot.submitted_ns);
    const uint64_t slice = (now - begun_ns) / slice_ns;
    if (slice >= IoScanOptions::kSlicesMax) return;
    if (slices.size() <= slice) slices.resize(slice + 1);
    slices[slice] += slot.length;
  }
};

Status IoScanJob::CheckOptions() const {
  const auto invalid = [](const char* what) { return Status::Error(Code::kInvalidArgument, what); };
  if (options_.block_bytes == 0 || !IsAligned(options_.block_bytes, kPageBytes)) {
    return invalid("a block is a multiple of 4 KiB");
  }
  if (options_.depth == 0 || options_.depth > IoScanOptions::kDepthMax) {
    return invalid("the depth is 1 to 1024");
  }
  if (uint64_t{options_.block_bytes} * options_.depth > IoScanOptions::kMemoryMax) {
    return invalid("block size and depth together are more than 1 GiB of buffers");
  }
  if (options_.run_ms == 0 || options_.slice_ms == 0) return invalid("a time is missing");
  if (options_.kind != IoScanOptions::Kind::kWrite) return Status::Ok();
  if (options_.file_bytes < options_.block_bytes || !IsAligned(options_.file_bytes, kPageBytes)) {
    return invalid("the file has to hold at least one block, and whole pages");
  }
  return options_.data.Check();
}

Status IoScanJob::DoRun() {
  FIRN_RETURN_IF_ERROR(CheckOptions());
  if (options_.kind != IoScanOptions::Kind::kWrite) {
    FIRN_RETURN_IF_ERROR(OpenForReading());
    return Measure();
  }
  FIRN_ASSIGN_OR_RETURN(file_, fs_.Open(options_.path, {.access = Access::kCreateNew,
                                                        .direct = options_.direct,
                                                        .no_follow = true}));
  // While it is open the file needs no name; one that can't be taken away now goes at the end.
  const bool is_unnamed = fs_.Remove(options_.path).ok();
  Status status = ReserveTarget();
  if (status.ok()) status = Measure();
  queue_.reset();
  file_.reset();
  if (!is_unnamed) {
    Status removed = fs_.Remove(options_.path);
    if (status.ok()) status = std::move(removed);
  }
  return status;
}

Status IoScanJob::OpenForReading() {
  if (options_.kind == IoScanOptions::Kind::kMap) {
    OpenDiskOptions open = options_.open;
    open.direct = options_.direct;
    FIRN_ASSIGN_OR_RETURN(disk_, Disk::Open(fs_, options_.path, open));
    FIRN_ASSIGN_OR_RETURN(plan_, PlanDisk(*disk_, options_.direct));
  } else {
    FIRN_ASSIGN_OR_RETURN(file_, fs_.Open(options_.path, {.direct = options_.direct}));
    FIRN_ASSIGN_OR_RETURN(plan_, PlanFile(file_.get()));
  }
  if (plan_.bytes == 0) {
    return Status::Error(Code::kInvalidArgument, "there is no data to read").At(options_.path);
  }
  if (options_.cold) {
    File* last = nullptr;
    for (const FileRange& range : plan_.ranges) {
      if (range.file != last) range.file->DropCache();
      last = range.file;
    }
  }
  return Status::Ok();
}

Status IoScanJob::ReserveTarget() {
  // As a pack or an image is written: into space that is reserved.
  const Status reserved = file_->Preallocate(0, options_.file_bytes);
  if (!reserved.ok() && reserved.code() != Code::kUnsupported) return reserved;
  // With its size set, unbuffered writes of several requests need not wait for each other.
  FIRN_RETURN_IF_ERROR(file_->Truncate(options_.file_bytes));
  plan_.direct = file_->direct();
  plan_.Add({file_.get(), 0, options_.file_bytes});
  return Status::Ok();
}

Status IoScanJob::Measure() {
  result_.plan_bytes = plan_.bytes;
  result_.direct = plan_.direct;
  result_.is_cut = plan_.is_cut;
  stats_.phase = Phase::kCopy;
  FIRN_ASSIGN_OR_RETURN(
      buffer_, AlignedBuffer::Allocate(size_t{options_.block_bytes} * size_t{options_.depth}));
  FIRN_ASSIGN_OR_RETURN(queue_,
                        fs_.NewQueue({.depth = options_.depth, .backend = tuning_.backend}));
  queue_->RegisterBuffer(buffer_.span());
  result_.backend = queue_->name();
  stats_.backend = queue_->name();
  stats_.memory_bytes = buffer_.size();
  if (options_.kind == IoScanOptions::Kind::kWrite) options_.data.Fill(0, buffer_.span());
  slots_.resize(options_.depth);
  free_slots_.resize(options_.depth);
  std::iota(free_slots_.begin(), free_slots_.end(), 0u);
  const bool writes = options_.kind == IoScanOptions::Kind::kWrite;
  uint64_t position = options_.position;
  if (options_.warm_up_ms > 0 && writes) FIRN_RETURN_IF_ERROR(WarmUpWrites(&position));
  RangeCursor cursor(plan_, options_.block_bytes, position, !options_.cold && !writes);
  if (options_.warm_up_ms > 0 && !writes) {
    Tally ignored;
    FIRN_RETURN_IF_ERROR(RunPhase(options_.warm_up_ms, &cursor, &ignored));
  }
  Tally tally;
  FIRN_RETURN_IF_ERROR(RunPhase(options_.run_ms, &cursor, &tally));
  result_.bytes = tally.bytes;
  result_.elapsed_ns = tally.last_ns - tally.begun_ns;
  result_.latency = tally.latency;
  result_.slices = std::move(tally.slices);
  result_.position = cursor.position();
  if (writes) {
    stats_.phase = Phase::kFinish;
    const uint64_t before = NowNs();
    FIRN_RETURN_IF_ERROR(file_->Sync());
    result_.sync_ns = NowNs() - before;
  }
  return Status::Ok();
}

// Over and over in the first quarter of the file; `*position` is behind it.
Status IoScanJob::WarmUpWrites(uint64_t* position) {
  const uint64_t quarter = RoundDown(options_.file_bytes / 4, options_.block_bytes);
  if (quarter == 0) return Status::Ok();
  RangePlan plan;
  plan.Add({file_.get(), 0, quarter});
  RangeCursor cursor(plan, options_.block_bytes, 0, true);
  Tally ignored;
  FIRN_RETURN_IF_ERROR(RunPhase(options_.warm_up_ms, &cursor, &ignored));
  *position = quarter;
  return file_->Sync();
}

Status IoScanJob::RunPhase(uint64_t run_ms, RangeCursor* cursor, Tally* tally) {
  tally->slice_ns = options_.slice_ms * kNsPerMs;
  tally->begun_ns = NowNs();
  tally->last_ns = tally->begun_ns;
  const uint64_t deadline = tally->begun_ns + run_ms * kNsPerMs;
  bool is_over = false;
  while (!is_over && NowNs() < deadline) {
    const Status stopped = CheckStopped();
    if (!stopped.ok()) {
      FIRN_RETURN_IF_ERROR(Drain(tally));
      return stopped;
    }
    uint64_t wait_ns = 0;
    FIRN_RETURN_IF_ERROR(SubmitAll(cursor, &is_over, &wait_ns));
    if (queue_->in_flight() > 0) {
      FIRN_RETURN_IF_ERROR(Collect(1, tally));
    } else if (wait_ns > 0) {
      Pace::Nap(wait_ns);
    }
  }
  return Drain(tally);
}

Status IoScanJob::SubmitAll(RangeCursor* cursor, bool* is_over, uint64_t* wait_ns) {
  while (!free_slots_.empty()) {
    *wait_ns = pace_.TakeTurn(options_.block_bytes);
    if (*wait_ns > 0) return Status::Ok();
    FileRange range;
    if (!cursor->Next(&range)) {
      *is_over = true;
      return Status::Ok();
    }
    const uint32_t slot = free_slots_.back();
    free_slots_.pop_back();
    FIRN_RETURN_IF_ERROR(Submit(range, slot));
  }
  return Status::Ok();
}

Status IoScanJob::Submit(const FileRange& range, uint32_t slot) {
  const bool writes = options_.kind == IoScanOptions::Kind::kWrite;
  uint8_t* data = buffer_.data() + size_t{slot} * options_.block_bytes;
  const auto length = static_cast<uint32_t>(range.length);
  if (writes) StampPages(&stamp_, {data, length});
  slots_[slot] = {.submitted_ns = NowNs(), .length = length};
  return queue_->Submit({.op = writes ? IoRequest::Op::kWrite : IoRequest::Op::kRead,
                         .file = range.file,
                         .offset = range.offset,
                         .data = data,
                         .length = length,
                         .tag = slot});
}

Status IoScanJob::Collect(uint32_t min_completions, Tally* tally) {
  completions_.clear();
  FIRN_RETURN_IF_ERROR(queue_->Wait(min_completions, &completions_));
  const uint64_t now = NowNs();
  for (const IoCompletion& completion : completions_) {
    FIRN_RETURN_IF_ERROR(Status(completion.status));
    const auto slot = static_cast<uint32_t>(completion.tag);
    tally->Count(slots_[slot], now);
    stats_.done_bytes += slots_[slot].length;
    free_slots_.push_back(slot);
  }
  return Status::Ok();
}

Status IoScanJob::Drain(Tally* tally) {
  while (queue_->in_flight() > 0) FIRN_RETURN_IF_ERROR(Collect(1, tally));
  return Status::Ok();
}

}  // namespace firn
