#include "pipeline/collect_rescue.h"

#include <optional>

#include "core/crc32c.h"
#include "pack/pack_reader.h"

namespace firn {

namespace {

constexpr uint64_t kPackBytes = 64 * kMiB;
constexpr uint64_t kReadBytes = 4 * kMiB;
// Records so near to each other are read in one go.
constexpr uint64_t kGapBytes = 64 * kKiB;

uint64_t EndOf(const PackRecord& record) {
  return uint64_t{record.offset} + kRecordHeaderBytes + record.stored_length;
}

}  // namespace

// One thread's part: it takes victims one after the other.
class RescueJob::Worker {
 public:
  static Result<std::unique_ptr<Worker>> Create(RescueJob* job);
  Status Copy(const Victim& victim);
  Status Flush() {
    FIRN_RETURN_IF_ERROR(stripes_->Flush());
    clock_.Flush();
    return Status::Ok();
  }

 private:
  explicit Worker(RescueJob* job) : job_(job), clock_(&job->stats_) {}
  // The records to copy from a pack, by offset; a failure says that the pack is damaged.
  Result<std::vector<PackRecord>> Records(const Victim& victim, File* file);
  // Reads from records[first] on, as many as lie near each other; the first one not read.
  Result<size_t> ReadBatch(File* file, const std::vector<PackRecord>& records, size_t first);
  // Ok, also when the record is damaged: then `*damage` says so.
  Status CopyRecord(const PackName& name, const PackRecord& record, std::span<const uint8_t> bytes,
                    Status* damage);
  // The same for a record that was found whole: makes it one of this run.
  Status SealAnew(const PackName& name, std::span<const uint8_t>* bytes, Status* damage);

  RescueJob* const job_;
  StageClock clock_;
  AlignedBuffer memory_;
  std::unique_ptr<WorkerIo> io_;
  std::unique_ptr<StripeWriter> stripes_;
  uint64_t stripe_room_ = 0;
  uint64_t map_room_ = 0;
  std::vector<uint8_t> batch_;
  // Where the repository is sealed.
  std::unique_ptr<RecordOpener> opener_;
  std::unique_ptr<RecordSealer> sealer_;
  std::vector<uint8_t> moved_;
};

Result<std::unique_ptr<RescueJob::Worker>> RescueJob::Worker::Create(RescueJob* job) {
  const BackupMemory& plan = job->memory_;
  std::unique_ptr<Worker> worker(new Worker(job));
  const uint64_t data_bytes = plan.data_stripes * plan.stripe_bytes;
  FIRN_ASSIGN_OR_RETURN(worker->memory_,
                        AlignedBuffer::Allocate(data_bytes + BackupMemory::kMapStripeBytes));
  FIRN_ASSIGN_OR_RETURN(worker->io_, WorkerIo::Create(job->fs_, job->tuning_, &job->stats_,
                                                      &worker->clock_, &job->pace_));
  worker->io_->RegisterBuffer(worker->memory_.span());
  std::vector<std::span<uint8_t>> data;
  for (uint32_t i = 0; i < plan.data_stripes; ++i) {
    data.push_back(worker->memory_.span().subspan(i * plan.stripe_bytes, plan.stripe_bytes));
  }
  worker->stripes_ = std::make_unique<StripeWriter>(
      job->packs_.get(), worker->io_.get(), &worker->clock_, data,
      std::vector<std::span<uint8_t>>{worker->memory_.span().subspan(data_bytes)});
  if (job->options_.seal != nullptr) {
    worker->opener_ = std::make_unique<RecordOpener>(job->options_.seal);
    FIRN_ASSIGN_OR_RETURN(
        worker->sealer_,
        RecordSealer::Create(*job->options_.seal, {job->options_.run, job->options_.attempt},
                             &job->nonces_));
  }
  worker->stripe_room_ = plan.stripe_bytes - kStripeHeaderBytes;
  worker->map_room_ = BackupMemory::kMapStripeBytes - kStripeHeaderBytes;
  return worker;
}

Result<std::vector<PackRecord>> RescueJob::Worker::Records(const Victim& victim, File* file) {
  Result<PackTable> table = ReadPackTable(file);
  if (!table.ok()) table = ScanPackRecords(file);
  FIRN_RETURN_IF_ERROR(table.status());
  std::vector<PackRecord> records;
  for (const PackRecord& record : table->records) {
    if (job_->options_.live->IsChosen(record.id, victim.pack)) records.push_back(record);
  }
  std::sort(records.begin(), records.end(),
            [](const PackRecord& a, const PackRecord& b) { return a.offset < b.offset; });
  if (records.size() >= victim.records) return records;
  return Status::Error(Code::kCorruptPack, "the pack lacks records that the index names")
      .At(file->path())
      .DataLoss();
}

Result<size_t> RescueJob::Worker::ReadBatch(File* file, const std::vector<PackRecord>& records,
                                            size_t first) {
  const uint64_t begin = records[first].offset;
  size_t end = first + 1;
  while (end < records.size() && records[end].offset <= EndOf(records[end - 1]) + kGapBytes &&
         EndOf(records[end]) - begin <= kReadBytes) {
    ++end;
  }
  batch_.resize(EndOf(records[end - 1]) - begin);
  clock_.Skip();
  FIRN_RETURN_IF_ERROR(file->ReadAt(begin, batch_));
  clock_.Charge(Stage::kStarved);
  job_->stats_.read_bytes += batch_.size();
  return end;
}

Status RescueJob::Worker::SealAnew(const PackName& name, std::span<const uint8_t>* bytes,
                                   Status* damage) {
  *damage = UnsealRecord(opener_.get(), *bytes, name.writer(), &moved_);
  if (!damage->ok()) return Status::Ok();
  FIRN_ASSIGN_OR_RETURN(RecordHeader header, RecordHeader::Decode(moved_.data()));
  moved_.resize(moved_.size() + Aes256Gcm::kTagBytes);
  *bytes = moved_;
  return sealer_->Seal(&header, moved_.data());
}

Status RescueJob::Worker::CopyRecord(const PackName& name, const PackRecord& record,
                                     std::span<const uint8_t> bytes, Status* damage) {
  const bool is_map = record.record_class == RecordClass::kMap;
  Result<RecordHeader> header = RecordHeader::Decode(bytes.data());
  if (!header.ok()) {
    *damage = header.status();
    return Status::Ok();
  }
  if (header->id != record.id || header->stored_length != record.stored_length ||
      header->raw_length != record.raw_length || header->record_class != record.record_class ||
      Crc32c(bytes.subspan(kRecordHeaderBytes)) != header->stored_crc ||
      bytes.size() > (is_map ? map_room_ : stripe_room_)) {
    *damage = Status::Error(Code::kCorruptChunk, "a record does not match its checksum or table")
                  .DataLoss();
    return Status::Ok();
  }
  if (sealer_ != nullptr) {
    FIRN_RETURN_IF_ERROR(SealAnew(name, &bytes, damage));
    if (!damage->ok()) return Status::Ok();
    FIRN_ASSIGN_OR_RETURN(*header, RecordHeader::Decode(bytes.data()));
  }
  clock_.Charge(Stage::kHash);
  const PackClass pack_class = is_map ? PackClass::kMap : PackClass::kData;
  FIRN_ASSIGN_OR_RETURN(Stripe * stripe,
                        stripes_->Reserve(pack_class, static_cast<uint32_t>(bytes.size())));
  clock_.Skip();
  std::copy(bytes.begin(), bytes.end(), stripe->tail());
  stripe->Append(*header);
  clock_.Charge(Stage::kScan);
  job_->stats_.done_bytes += bytes.size();
  job_->stats_.stored_bytes += bytes.size();
  ++job_->stats_.chunks;
  return stripes_->Collect();
}

Status RescueJob::Worker::Copy(const Victim& victim) {
  const PackName name = job_->options_.live->packs()[victim.pack].name;
  const auto report = [&](Status status) {
    std::lock_guard lock(job_->mutex_);
    job_->result_.damaged.push_back({name, std::move(status).At(name.RelativePath())});
    return Status::Ok();
  };
  const std::string path = JoinPath(job_->options_.root, name.RelativePath());
  Result<std::unique_ptr<File>> file = job_->fs_.Open(path, {});
  if (!file.ok() && file.status().code() == Code::kNotFound) {
    return Status::Error(Code::kPackMissing, "the pack is not in the repository").At(path);
  }
  FIRN_RETURN_IF_ERROR(file.status());
  Result<std::vector<PackRecord>> records = Records(victim, file->get());
  if (!records.ok()) return report(records.status());
  for (size_t first = 0; first < records->size();) {
    FIRN_RETURN_IF_ERROR(job_->CheckStopped());
    Result<size_t> end = ReadBatch(file->get(), *records, first);
    if (!end.ok()) return report(end.status());
    const uint64_t begin = (*records)[first].offset;
    for (; first < *end; ++first) {
      const PackRecord& record = (*records)[first];
      Status damage;
      FIRN_RETURN_IF_ERROR(
          CopyRecord(name, record,
                     std::span(batch_).subspan(record.offset - begin,
                                               kRecordHeaderBytes + record.stored_length),
                     &damage));
      if (!damage.ok()) return report(std::move(damage));
    }
  }
  (*file)->DropCache();
  return Status::Ok();
}

// One copy of each live record that no pack which stays holds whole. Copies that were found damaged
// are not moved: what is written again must not look as good as new.
void RescueJob::Choose() {
  LiveIndex& live = *options_.live;
  std::vector<CollectPack>& packs = live.packs();
  for (const PackName& name : options_.victims) {
    const uint32_t pack = live.Position(name);
    if (pack != LiveIndex::kAbsent) packs[pack].victim = true;
  }
  std::vector<Victim> rows(packs.size());
  live.ForEachLive([&](const Id& id, std::span<const LiveIndex::Copy> copies) {
    const LiveIndex::Copy* chosen = nullptr;
    for (const LiveIndex::Copy& copy : copies) {
      if (!live.IsWhole(id, copy)) continue;
      if (packs[copy.pack].stays()) return;
      if (chosen == nullptr && packs[copy.pack].victim) chosen = &copy;
    }
    if (chosen == nullptr) return;
    live.Choose(*chosen);
    rows[chosen->pack].pack = chosen->pack;
    ++rows[chosen->pack].records;
    ++result_.records;
    result_.bytes += uint64_t{kRecordHeaderBytes} + live.EntryOf(*chosen).stored_length;
  });
  for (const Victim& row : rows) {
    if (row.records > 0) victims_.push_back(row);
  }
}

Status RescueJob::DoRun() {
  Choose();
  stats_.total_bytes = result_.bytes;
  if (victims_.empty()) return Status::Ok();
  memory_ = BackupMemory::Plan(tuning_.memory_bytes, tuning_.workers,
                               RecordBytesMax(options_.chunking.max_pages * kPageBytes));
  stats_.workers = memory_.workers;
  stats_.memory_bytes = memory_.registry_bytes + memory_.workers * memory_.worker_bytes();
  RepositoryListing empty;
  empty.root = options_.root;
  empty.index_key = options_.index_key;
  FIRN_ASSIGN_OR_RETURN(std::unique_ptr<ChunkIndex> index, ChunkIndex::Open(fs_, empty));
  ChunkRegistry registry(index.get(), options_.run, options_.attempt,
                         memory_.registry_bytes / ChunkRegistry::kEntryBytes);
  packs_ = std::make_unique<PackWriter>(fs_, options_.root, options_.run, options_.attempt,
                                        tuning_.io != IoMode::kBuffered, kPackBytes,
                                        [&registry](const PackName& name, const PackTable& table) {
                                          return registry.AddPack(name, table);
                                        });
  registry.set_sync_packs([this] { return packs_->SyncNames(); });
  stats_.phase = Phase::kCopy;
  std::atomic<size_t> next = 0;
  Status copied = RunWorkers(memory_.workers, [&](uint32_t) -> Status {
    FIRN_ASSIGN_OR_RETURN(std::unique_ptr<Worker> worker, Worker::Create(this));
    for (size_t i = next++; i < victims_.size(); i = next++) {
      FIRN_RETURN_IF_ERROR(worker->Copy(victims_[i]));
    }
    return worker->Flush();
  });
  stats_.phase = Phase::kFinish;
  if (copied.ok()) copied = packs_->Close();
  // What is durable is named by a run even after a failure: then the next collection finds it done.
  const Status synced = copied.ok() ? copied : packs_->SyncNames();
  const Status named = synced.ok() ? registry.Finish() : synced;
  packs_.reset();
  FIRN_RETURN_IF_ERROR(copied);
  FIRN_RETURN_IF_ERROR(named);
  result_.packs = registry.packs();
  result_.index_runs = registry.index_runs();
  return Status::Ok();
}

}  // namespace firn
