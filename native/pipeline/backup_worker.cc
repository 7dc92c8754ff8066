#include "pipeline/backup_worker.h"

namespace firn {

Result<std::unique_ptr<BackupWorker>> BackupWorker::Create(BackupJob* job) {
  std::unique_ptr<BackupWorker> worker(new BackupWorker(job));
  const BackupMemory& plan = worker->shared_->memory;
  const uint64_t segment_bytes = plan.segments * uint64_t{kSegmentBytes};
  const bool stores = worker->shared_->packs != nullptr;
  FIRN_ASSIGN_OR_RETURN(worker->memory_,
                        AlignedBuffer::Allocate(stores ? plan.worker_bytes() : segment_bytes));
  FIRN_ASSIGN_OR_RETURN(worker->io_,
                        WorkerIo::Create(job->fs_, job->tuning_, &job->stats_, &worker->clock_));
  worker->io_->RegisterBuffer(worker->memory_.span());
  worker->reader_ = std::make_unique<SegmentReader>(worker->shared_->plan.get(), worker->io_.get(),
                                                    worker->memory_.span().first(segment_bytes),
                                                    &job->stats_, &worker->clock_);
  if (!stores) return worker;

  FIRN_ASSIGN_OR_RETURN(worker->encoder_, RecordEncoder::Create(job->options_.compression));
  std::span<uint8_t> rest = worker->memory_.span().subspan(segment_bytes);
  std::vector<std::span<uint8_t>> data;
  for (uint32_t i = 0; i < plan.data_stripes; ++i) {
    data.push_back(rest.first(plan.stripe_bytes));
    rest = rest.subspan(plan.stripe_bytes);
  }
  worker->stripes_ =
      std::make_unique<StripeWriter>(worker->shared_->packs.get(), worker->io_.get(),
                                     &worker->clock_, data, std::vector<std::span<uint8_t>>{rest});
  return worker;
}

Status BackupWorker::Run() {
  while (true) {
    FIRN_RETURN_IF_ERROR(job_->CheckStopped());
    FIRN_ASSIGN_OR_RETURN(Segment * segment, reader_->Next());
    if (segment == nullptr) break;
    FIRN_RETURN_IF_ERROR(ProcessSegment(*segment));
    const uint32_t disk = segment->place.disk;
    reader_->Release(segment);
    FIRN_RETURN_IF_ERROR(StoreNodes(disk));
    if (stripes_) FIRN_RETURN_IF_ERROR(stripes_->Collect());
    clock_.Flush();
  }
  return Flush();
}

Status BackupWorker::Flush() {
  if (stripes_) FIRN_RETURN_IF_ERROR(stripes_->Flush());
  clock_.Flush();
  return Status::Ok();
}

Status BackupWorker::ProcessSegment(const Segment& segment) {
  SegmentWalker walker(shared_->chunking, segment.data, segment.present);
  MapLeaf leaf;
  SegmentRun run;
  uint32_t hole_pages_read = segment.present.count();
  clock_.Skip();
  while (walker.Next(&run)) {
    clock_.Charge(Stage::kScan);
    LeafRun row{static_cast<uint16_t>(run.pages), run.hole, {}};
    if (!run.hole) {
      hole_pages_read -= run.pages;
      const uint8_t* content = segment.data + uint64_t{run.first_page} * kPageBytes;
      FIRN_ASSIGN_OR_RETURN(row.id, StoreChunk({content, uint64_t{run.pages} * kPageBytes}));
    }
    leaf.runs.push_back(row);
  }
  clock_.Charge(Stage::kScan);
  job_->stats_.zero_bytes.fetch_add(uint64_t{hole_pages_read} * kPageBytes,
                                    std::memory_order_relaxed);
  std::optional<MapNode::Leaf> stored;
  const uint32_t data_pages = leaf.data_pages();
  if (data_pages > 0) {
    FIRN_ASSIGN_OR_RETURN(Id id, StoreMap(EncodeLeaf(leaf)));
    const auto index = static_cast<uint8_t>(segment.place.segment % kNodeLeaves);
    stored = MapNode::Leaf{index, id, data_pages};
  }
  shared_->maps[segment.place.disk]->AddLeaf(segment.place.segment, stored);
  return Status::Ok();
}

Result<Id> BackupWorker::StoreChunk(std::span<const uint8_t> content) {
  JobStats& stats = job_->stats_;
  // Costs nanoseconds, and lets the time in which the devices were busy end when it does, not when
  // this segment does.
  FIRN_RETURN_IF_ERROR(io_->Poll());
  const Id id = Blake3Keyed(shared_->keys.chunk, content);
  stats.chunks.fetch_add(1, std::memory_order_relaxed);
  const bool is_new = shared_->registry && shared_->registry->Claim(id);
  clock_.Charge(Stage::kHash);
  if (!is_new) return id;
  FIRN_RETURN_IF_ERROR(StoreRecord(PackClass::kData, RecordClass::kChunk, id, content));
  stats.new_chunks.fetch_add(1, std::memory_order_relaxed);
  stats.new_bytes.fetch_add(content.size(), std::memory_order_relaxed);
  return id;
}

Result<Id> BackupWorker::StoreMap(std::span<const uint8_t> bytes) {
  const Id id = Blake3Keyed(shared_->keys.map, bytes);
  if (shared_->registry && shared_->registry->Claim(id)) {
    FIRN_RETURN_IF_ERROR(StoreRecord(PackClass::kMap, RecordClass::kMap, id, bytes));
  }
  return id;
}

Status BackupWorker::StoreRecord(PackClass pack_class, RecordClass record_class, const Id& id,
                                 std::span<const uint8_t> content) {
  FIRN_ASSIGN_OR_RETURN(
      Stripe * stripe,
      stripes_->Reserve(pack_class, RecordBytesMax(static_cast<uint32_t>(content.size()))));
  clock_.Skip();
  const RecordHeader header = encoder_->Encode(record_class, id, content, stripe->tail());
  stripe->Append(header);
  clock_.Charge(Stage::kCompress);
  job_->stats_.stored_bytes.fetch_add(kRecordHeaderBytes + header.stored_length,
                                      std::memory_order_relaxed);
  return Status::Ok();
}

Status BackupWorker::StoreNodes(uint32_t disk) {
  for (const FinishedNode& finished : shared_->maps[disk]->TakeFinished()) {
    FIRN_ASSIGN_OR_RETURN(Id id, StoreMap(EncodeNode(finished.node)));
    shared_->maps[disk]->AddNode(finished, id);
  }
  return Status::Ok();
}

}  // namespace firn
