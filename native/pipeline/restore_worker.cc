#include "pipeline/restore_worker.h"

#include <algorithm>

namespace firn {

Result<std::unique_ptr<RestoreWorker>> RestoreWorker::Create(RestoreJob* job) {
  std::unique_ptr<RestoreWorker> worker(new RestoreWorker(job));
  const RestoreJob::Shared& shared = *worker->shared_;
  FIRN_ASSIGN_OR_RETURN(worker->memory_,
                        AlignedBuffer::Allocate(shared.memory.worker_bytes(
                            shared.range_buffer_bytes, shared.output_buffer_bytes)));
  FIRN_ASSIGN_OR_RETURN(worker->io_, WorkerIo::Create(job->fs_, job->tuning_, &job->stats_,
                                                      &worker->clock_, &job->pace_));
  worker->io_->RegisterBuffer(worker->memory_.span());
  std::span<uint8_t> rest = worker->memory_.span();
  const auto take = [&rest](uint64_t bytes) {
    const auto piece = rest.first(bytes);
    rest = rest.subspan(bytes);
    return piece;
  };
  worker->inputs_.resize(shared.memory.ranges);
  for (Input& input : worker->inputs_) {
    input.memory = take(shared.range_buffer_bytes);
    worker->free_inputs_.push_back(&input);
  }
  worker->outputs_.resize(shared.memory.outputs);
  for (Output& output : worker->outputs_) output.memory = take(shared.output_buffer_bytes);
  return worker;
}

Status RestoreWorker::FillInputs() {
  while (!free_inputs_.empty()) {
    const size_t next = shared_->next_range.fetch_add(1);
    if (next >= shared_->ranges.size()) return Status::Ok();
    Input* input = free_inputs_.back();
    free_inputs_.pop_back();
    input->range = shared_->ranges[next];
    input->failure = Status::Ok();
    reading_.push_back(input);
    input->failure = OpenPack(input);
    if (!input->failure.ok()) continue;
    FIRN_RETURN_IF_ERROR(
        io_->ReadSource({input->file.get(), input->direct.get()}, input->range.begin,
                        input->memory.first(input->range.end - input->range.begin), &input->io));
  }
  return Status::Ok();
}

Status RestoreWorker::OpenPack(Input* input) {
  const PackName name = shared_->index->pack_name(input->range.pack);
  FIRN_ASSIGN_OR_RETURN(input->file, shared_->buffered_packs->Open(name));
  FIRN_ASSIGN_OR_RETURN(input->direct, shared_->direct_packs->Open(name));
  return Status::Ok();
}

Status RestoreWorker::Run() {
  while (true) {
    FIRN_RETURN_IF_ERROR(job_->CheckStopped());
    clock_.Skip();
    FIRN_RETURN_IF_ERROR(FillInputs());
    clock_.Charge(Stage::kStarved);
    if (reading_.empty()) break;
    Input* input = reading_.front();
    reading_.pop_front();
    Status read = io_->Wait(&input->io, Stage::kStarved);
    if (read.code() == Code::kDiskTruncated) {
      read = Status::Error(Code::kCorruptPack, "the pack ends before what the index says is in it")
                 .At(input->file->path(), input->range.begin)
                 .DataLoss();
    }
    if (!read.ok()) input->failure = std::move(read);
    FIRN_RETURN_IF_ERROR(DecodeRange(*input));
    input->file.reset();
    input->direct.reset();
    free_inputs_.push_back(input);
    clock_.Flush();
  }
  FIRN_RETURN_IF_ERROR(FlushPending());
  for (Output& output : outputs_) FIRN_RETURN_IF_ERROR(io_->Wait(&output.io, Stage::kBlocked));
  clock_.Flush();
  return Status::Ok();
}

Status RestoreWorker::DecodeRange(const Input& input) {
  const std::vector<ChunkReference>& window = *shared_->window;
  for (size_t i = input.range.first; i < input.range.last;) {
    FIRN_ASSIGN_OR_RETURN(std::span<uint8_t> content, DecodeRecord(input, window[i]));
    // The same chunk at several places is decoded once.
    const Id& id = window[i].id;
    for (; i < input.range.last && window[i].id == id; ++i) {
      FIRN_RETURN_IF_ERROR(WriteChunk(window[i].first_page * kPageBytes, content));
      job_->stats_.done_bytes.fetch_add(content.size(), std::memory_order_relaxed);
      job_->stats_.chunks.fetch_add(1, std::memory_order_relaxed);
    }
  }
  return Status::Ok();
}

Result<std::span<uint8_t>> RestoreWorker::DecodeRecord(const Input& input,
                                                       const ChunkReference& reference) {
  const ChunkPlace& place = reference.place;
  FIRN_ASSIGN_OR_RETURN(std::span<uint8_t> content, ReserveOutput(place.raw_length));
  clock_.Skip();
  Status status = DecodeCopy(input, reference, content);
  if (!status.ok() && !ReadAnotherCopy(reference, content)) return status;
  clock_.Charge(Stage::kCompress);
  return content;
}

Status RestoreWorker::DecodeCopy(const Input& input, const ChunkReference& reference,
                                 std::span<uint8_t> content) {
  FIRN_RETURN_IF_ERROR(input.failure);
  const ChunkPlace& place = reference.place;
  const uint8_t* record = input.memory.data() + (place.offset - input.range.begin);
  Result<RecordHeader> header = RecordHeader::Decode(record);
  Status status = header.ok() ? CheckRecordMatches(*header, reference.id, place)
                              : std::move(header).TakeStatus();
  if (status.ok()) {
    status = decoder_.Decode(*header, {record + kRecordHeaderBytes, place.stored_length}, content,
                             shared_->index->pack_name(place.pack).writer());
  }
  if (!status.ok()) return std::move(status).At(input.file->path(), place.offset);
  return Status::Ok();
}

bool RestoreWorker::ReadAnotherCopy(const ChunkReference& reference, std::span<uint8_t> content) {
  const Status status = copies_.ReadRecord(reference.id, RecordClass::kChunk, &copy_);
  if (!status.ok() || copy_.size() != content.size()) return false;
  std::copy(copy_.begin(), copy_.end(), content.begin());
  return true;
}

// Room for one chunk in the current output; starts on the next one when it is full.
Result<std::span<uint8_t>> RestoreWorker::ReserveOutput(size_t bytes) {
  Output* output = &outputs_[current_output_];
  if (output->memory.size() - output->used < bytes) {
    FIRN_RETURN_IF_ERROR(FlushPending());
    current_output_ = (current_output_ + 1) % outputs_.size();
    output = &outputs_[current_output_];
    FIRN_RETURN_IF_ERROR(io_->Wait(&output->io, Stage::kBlocked));
    output->used = 0;
  }
  const auto place = output->memory.subspan(output->used, bytes);
  output->used += bytes;
  return place;
}

Status RestoreWorker::WriteChunk(uint64_t disk_offset, std::span<const uint8_t> bytes) {
  const bool follows = !pending_.bytes.empty() &&
                       pending_.disk_offset + pending_.bytes.size() == disk_offset &&
                       pending_.bytes.data() + pending_.bytes.size() == bytes.data();
  if (follows) {
    pending_.bytes = {pending_.bytes.data(), pending_.bytes.size() + bytes.size()};
    return Status::Ok();
  }
  FIRN_RETURN_IF_ERROR(FlushPending());
  pending_ = {disk_offset, bytes};
  return Status::Ok();
}

// Pending bytes always lie in the current output.
Status RestoreWorker::FlushPending() {
  if (pending_.bytes.empty()) return Status::Ok();
  TargetIo target(shared_->target, io_.get());
  clock_.Skip();
  FIRN_RETURN_IF_ERROR(
      target.Write(pending_.disk_offset, pending_.bytes, &outputs_[current_output_].io));
  clock_.Charge(Stage::kBlocked);
  pending_ = {};
  return Status::Ok();
}

}  // namespace firn
