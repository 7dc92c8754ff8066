#include "pipeline/backup_worker.h"

namespace firn {

Result<std::unique_ptr<BackupWorker>> BackupWorker::Create(BackupJob* job) {
  std::unique_ptr<BackupWorker> worker(new BackupWorker(job));
  const BackupMemory& plan = worker->shared_->memory;
  const uint64_t segment_bytes = plan.segments * uint64_t{kSegmentBytes};
  const bool stores = worker->shared_->packs != nullptr;
  FIRN_ASSIGN_OR_RETURN(worker->memory_,
                        AlignedBuffer::Allocate(stores ? plan.worker_bytes() : segment_bytes));
  FIRN_ASSIGN_OR_RETURN(worker->io_, WorkerIo::Create(job->fs_, job->tuning_, &job->stats_,
                                                      &worker->clock_, &job->pace_));
  worker->io_->RegisterBuffer(worker->memory_.span());
  worker->reader_ = std::make_unique<SegmentReader>(worker->shared_->plan.get(), worker->io_.get(),
                                                    worker->memory_.span().first(segment_bytes),
                                                    &job->stats_, &worker->clock_);
  if (!stores) return worker;

  FIRN_ASSIGN_OR_RETURN(worker->encoder_, RecordEncoder::Create(job->options_.compression));
  if (worker->shared_->keys.seal != nullptr) {
    FIRN_ASSIGN_OR_RETURN(
        worker->sealer_,
        RecordSealer::Create(*worker->shared_->keys.seal,
                             {job->options_.run, job->options_.attempt}, &worker->shared_->nonces));
  }
  std::span<uint8_t> rest = worker->memory_.span().subspan(segment_bytes);
  std::vector<std::span<uint8_t>> data;
  for (uint32_t i = 0; i < plan.data_stripes; ++i) {
    data.push_back(rest.first(plan.stripe_bytes));
    rest = rest.subspan(plan.stripe_bytes);
  }
  worker->stripes_ =
      std::make_unique<StripeWriter>(worker->shared_->packs.get(), worker->io_.get(),
                                     &worker->clock_, data, std::vector<std::span<uint8_t>>{rest});
  const BackupJob::Shared& shared = *worker->shared_;
  worker->base_maps_ = std::make_unique<MapReader>(shared.index.get(), shared.base_packs.get(),
                                                   shared.keys, shared.chunking);
  worker->reader_->set_chooser(
      [self = worker.get()](Segment* segment) { return self->Choose(segment); });
  return worker;
}

Status BackupWorker::Run() {
  while (true) {
    FIRN_RETURN_IF_ERROR(job_->CheckStopped());
    FIRN_ASSIGN_OR_RETURN(Segment * segment, reader_->Next());
    if (segment == nullptr) break;
    if (segment->rechunker) {
      FIRN_ASSIGN_OR_RETURN(bool is_done, ProcessChanges(segment));
      if (!is_done) continue;
    } else {
      FIRN_RETURN_IF_ERROR(ProcessSegment(*segment));
    }
    reader_->Release(segment);
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

// What of a segment is to be read. One that is as its base was, with every chunk in a pack that the
// point may rely on, is done with here.
Result<bool> BackupWorker::Choose(Segment* segment) {
  const SegmentPlace& place = segment->place;
  if (!place.on_base) return true;
  // There may be many of these before the next one that is read.
  FIRN_RETURN_IF_ERROR(job_->CheckStopped());
  FIRN_RETURN_IF_ERROR(io_->Poll());
  DiskBase* base = shared_->bases[place.disk].get();
  Result<MapLeaf> leaf = base->ReadLeaf(place, base_maps_.get());
  clock_.Charge(Stage::kStarved);
  if (!leaf.ok()) {
    base->Refuse(leaf.status());
    return true;
  }
  PageSet changed;
  base->AddChangedPages(place.segment, &changed);
  FIRN_RETURN_IF_ERROR(base->AddMovedPages(place.segment, *leaf, &changed));
  if (!KeepChunks(*leaf, &changed)) {
    base->Refuse(Status::Error(Code::kChunkMissing,
                               "chunks of the base are in no pack that may be relied on"));
  }
  clock_.Charge(Stage::kHash);
  if (changed.empty()) {
    FIRN_RETURN_IF_ERROR(AddLeaf(place, *leaf));
    return false;
  }
  segment->rechunker = std::make_unique<Rechunker>(shared_->chunking, leaf->runs, changed);
  return true;
}

// Looks up the chunks that may stay; the pages of those that can't be relied on become changed
// ones. False if there are any.
bool BackupWorker::KeepChunks(const MapLeaf& leaf, PageSet* changed) {
  bool is_whole = true;
  uint32_t page = 0;
  for (const LeafRun& run : leaf.runs) {
    const uint32_t first = page;
    page += run.pages;
    if (run.hole || changed->HasAny(first, page)) continue;
    if (shared_->registry->Keep(run.id, run.pages * kPageBytes)) continue;
    changed->AddRange(first, page);
    is_whole = false;
  }
  return is_whole;
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
  return AddLeaf(segment.place, leaf);
}

// The new leaf of a segment of which only a part is read; false if more of it is on its way now.
Result<bool> BackupWorker::ProcessChanges(Segment* segment) {
  Rechunker& rechunker = *segment->rechunker;
  const SegmentContent pages(shared_->chunking, segment->data, segment->present);
  clock_.Skip();
  const bool is_done = rechunker.Advance(pages);
  clock_.Charge(Stage::kScan);
  if (!is_done) {
    FIRN_RETURN_IF_ERROR(reader_->ReadMore(segment, rechunker.wanted()));
    return false;
  }
  MapLeaf leaf;
  uint64_t hole_pages_read = 0;
  for (const RechunkedRun& row : rechunker.runs()) {
    leaf.runs.push_back(row.run);
    const uint32_t end = row.first_page + row.run.pages;
    if (row.is_new) {
      const uint8_t* content = segment->data + uint64_t{row.first_page} * kPageBytes;
      FIRN_ASSIGN_OR_RETURN(leaf.runs.back().id,
                            StoreChunk({content, uint64_t{row.run.pages} * kPageBytes}));
    } else if (row.run.hole) {
      for (uint32_t page = row.first_page; page < end; ++page) {
        hole_pages_read += segment->present.Has(page) ? 1 : 0;
      }
    }
  }
  job_->stats_.zero_bytes.fetch_add(hole_pages_read * kPageBytes, std::memory_order_relaxed);
  FIRN_RETURN_IF_ERROR(AddLeaf(segment->place, leaf));
  return true;
}

// Stores the leaf and hands it to the map, with the nodes that it completes.
Status BackupWorker::AddLeaf(const SegmentPlace& place, const MapLeaf& leaf) {
  std::optional<MapNode::Leaf> stored;
  const uint32_t data_pages = leaf.data_pages();
  if (data_pages > 0) {
    FIRN_ASSIGN_OR_RETURN(Id id, StoreMap(EncodeLeaf(leaf)));
    stored = MapNode::Leaf{static_cast<uint8_t>(place.segment % kNodeLeaves), id, data_pages};
  }
  shared_->maps[place.disk]->AddLeaf(place.segment, stored);
  return StoreNodes(place.disk);
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
  RecordHeader header = encoder_->Encode(record_class, id, content, stripe->tail());
  if (sealer_ != nullptr) FIRN_RETURN_IF_ERROR(sealer_->Seal(&header, stripe->tail()));
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
