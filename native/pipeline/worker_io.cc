#include "pipeline/worker_io.h"

#include <algorithm>

#include "core/bytes.h"

namespace firn {

namespace {

constexpr uint32_t kDepth = 64;

}  // namespace

bool MeetsAlignment(const File& file, uint64_t offset, std::span<const uint8_t> memory) {
  const IoAlignment alignment = file.alignment();
  return offset % alignment.offset == 0 && memory.size() % alignment.offset == 0 &&
         reinterpret_cast<uintptr_t>(memory.data()) % alignment.memory == 0;
}

Result<std::unique_ptr<WorkerIo>> WorkerIo::Create(FileSystem& fs, const Tuning& tuning,
                                                   JobStats* stats, StageClock* clock, Pace* pace) {
  FIRN_ASSIGN_OR_RETURN(std::unique_ptr<IoQueue> queue,
                        fs.NewQueue({.depth = kDepth, .backend = tuning.backend}));
  stats->backend = queue->name();
  std::unique_ptr<WorkerIo> io(new WorkerIo(std::move(queue), tuning.io, stats, clock, pace));
  io->groups_.resize(kDepth);
  io->is_read_.resize(kDepth);
  for (uint32_t tag = kDepth; tag > 0; --tag) io->free_tags_.push_back(tag - 1);
  return io;
}

Status WorkerIo::Submit(const IoRequest& request, IoGroup* group) {
  if (free_tags_.empty()) FIRN_RETURN_IF_ERROR(Take(1));
  const uint32_t tag = free_tags_.back();
  free_tags_.pop_back();
  const bool is_read = request.op == IoRequest::Op::kRead;
  groups_[tag] = group;
  is_read_[tag] = is_read;
  ++(is_read ? group->reads : group->writes);
  (is_read ? stats_->source : stats_->target).Begin();
  IoRequest tagged = request;
  tagged.tag = tag;
  return queue_->Submit(tagged);
}

Status WorkerIo::Take(uint32_t min_completions) {
  completions_.clear();
  FIRN_RETURN_IF_ERROR(queue_->Wait(min_completions, &completions_));
  for (IoCompletion& completion : completions_) {
    const auto tag = static_cast<uint32_t>(completion.tag);
    IoGroup* group = groups_[tag];
    --(is_read_[tag] ? group->reads : group->writes);
    (is_read_[tag] ? stats_->source : stats_->target).End();
    if (!completion.status.ok() && group->status.ok()) group->status = std::move(completion.status);
    free_tags_.push_back(tag);
  }
  return Status::Ok();
}

Status WorkerIo::Read(File* file, uint64_t offset, std::span<uint8_t> out, IoGroup* group) {
  for (size_t done = 0; done < out.size();) {
    const auto length = static_cast<uint32_t>(std::min<size_t>(kRequestBytes, out.size() - done));
    FIRN_RETURN_IF_ERROR(AwaitTurn(length));
    FIRN_RETURN_IF_ERROR(Submit({.op = IoRequest::Op::kRead,
                                 .file = file,
                                 .offset = offset + done,
                                 .data = out.data() + done,
                                 .length = length},
                                group));
    done += length;
  }
  stats_->read_bytes.fetch_add(out.size(), std::memory_order_relaxed);
  return Status::Ok();
}

Status WorkerIo::Write(File* file, uint64_t offset, std::span<const uint8_t> bytes,
                       IoGroup* group) {
  for (size_t done = 0; done < bytes.size();) {
    const auto length = static_cast<uint32_t>(std::min<size_t>(kRequestBytes, bytes.size() - done));
    FIRN_RETURN_IF_ERROR(Submit({.op = IoRequest::Op::kWrite,
                                 .file = file,
                                 .offset = offset + done,
                                 .data = const_cast<uint8_t*>(bytes.data()) + done,
                                 .length = length},
                                group));
    done += length;
  }
  stats_->written_bytes.fetch_add(bytes.size(), std::memory_order_relaxed);
  return Status::Ok();
}

Status WorkerIo::ReadSource(const SourceFile& source, uint64_t offset, std::span<uint8_t> out,
                            IoGroup* group) {
  // Request by request, because a file may be in the kernel's cache in part.
  for (size_t done = 0; done < out.size();) {
    const auto piece = out.subspan(done, std::min<size_t>(kRequestBytes, out.size() - done));
    File* file = source.buffered;
    if (mode_ != IoMode::kBuffered && source.direct != nullptr &&
        MeetsAlignment(*source.direct, offset + done, piece) &&
        !(mode_ == IoMode::kAuto && source.buffered->IsCached(offset + done, piece.size()))) {
      file = source.direct;
    }
    FIRN_RETURN_IF_ERROR(Read(file, offset + done, piece, group));
    done += piece.size();
  }
  return Status::Ok();
}

Status WorkerIo::Wait(IoGroup* group, Stage waiting) {
  FIRN_RETURN_IF_ERROR(Poll());
  if (!group->done()) {
    clock_->Skip();
    while (!group->done()) FIRN_RETURN_IF_ERROR(Take(1));
    clock_->Charge(waiting);
  }
  Status status = std::move(group->status);
  group->status = Status::Ok();
  return status;
}

Status WorkerIo::Poll() { return Take(0); }

Status WorkerIo::AwaitTurn(uint64_t bytes) {
  uint64_t since = 0;
  Status status = pace_->AwaitTurn(bytes, [&] {
    if (since == 0) since = NowNs();
    // The meters are to see when reads are done, not when their worker is awake again.
    return Poll();
  });
  if (since != 0) clock_->ChargePart(Stage::kLimited, NowNs() - since);
  return status;
}

}  // namespace firn
