#include "stream/receive_job.h"

#include <algorithm>
#include <cstdio>
#include <set>

#include "chunk/page.h"
#include "pack/pack_reader.h"

namespace firn {

namespace {

constexpr uint64_t kPackBytes = 64 * kMiB;
constexpr size_t kPointsMax = 100'000;
constexpr uint64_t kPointBytesMax = 64 * kMiB;  // of all points' objects
// Packs are adopted under the first attempt of the job's run, and written under the second.
constexpr uint32_t kAdoptAttempt = 0;
constexpr uint32_t kWriteAttempt = 1;

// What the repository's own code says of a record becomes what it means for a stream.
Status OfStream(Status status) {
  if (status.code() != Code::kCorruptChunk) return status;
  return Status::Error(Code::kCorruptStream, status.message());
}

}  // namespace

Status OpenStreamJob::DoRun() {
  stats_.phase = Phase::kOpen;
  const auto stop = [this] { return CheckStopped(); };
  Frame frame;
  FIRN_RETURN_IF_ERROR(stream_->reader_.Read(&frame, stop));
  if (frame.header.kind != FrameKind::kHeader) {
    return CorruptStream("no stream of points begins here");
  }
  const size_t points = frame.header.count;
  if (points > kPointsMax) return CorruptStream("a stream of more points than there can be");
  header_.assign(frame.payload.begin(), frame.payload.end());
  uint64_t bytes = 0;
  while (points_.size() < points) {
    FIRN_RETURN_IF_ERROR(stream_->reader_.Read(&frame, stop));
    bytes += frame.payload.size();
    if (frame.header.kind != FrameKind::kPoint || bytes > kPointBytesMax) {
      return CorruptStream("a stream's points are not what its header says");
    }
    points_.emplace_back(frame.payload.begin(), frame.payload.end());
  }
  stream_->sections_left_ = points;
  return Status::Ok();
}

// One thread's part: it reads frames in its turn, and stores their records.
class ReceiveJob::Worker {
 public:
  static Result<std::unique_ptr<Worker>> Create(ReceiveJob* job);
  Status Run();

 private:
  explicit Worker(ReceiveJob* job)
      : job_(job),
        clock_(&job->stats_),
        decoder_(RepositoryKeys(job->options_.repository.id_key)) {}
  // A failure of the repository. One of the stream breaks it.
  Status StoreFrame(const Frame& frame);
  // The record at the beginning of `bytes`, checked as far as it can be without its content.
  Result<RecordHeader> ReadHeader(std::span<const uint8_t> bytes) const;
  Status StoreRecord(const RecordHeader& header, std::span<const uint8_t> record);

  ReceiveJob* const job_;
  StageClock clock_;
  RecordDecoder decoder_;                 // of what streams hold: nothing in them is sealed
  std::unique_ptr<RecordSealer> sealer_;  // null unless the repository is sealed
  AlignedBuffer memory_;
  std::unique_ptr<WorkerIo> io_;
  std::unique_ptr<StripeWriter> stripes_;
  uint64_t data_room_ = 0;
  uint64_t map_room_ = 0;
  Frame frame_;
  std::vector<uint8_t> content_;
};

Result<std::unique_ptr<ReceiveJob::Worker>> ReceiveJob::Worker::Create(ReceiveJob* job) {
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
  if (job->keys_.seal != nullptr) {
    FIRN_ASSIGN_OR_RETURN(
        worker->sealer_,
        RecordSealer::Create(*job->keys_.seal, {job->options_.run, kWriteAttempt}, &job->nonces_));
  }
  constexpr uint64_t kAround = kStripeHeaderBytes + Aes256Gcm::kTagBytes;
  worker->data_room_ = plan.stripe_bytes - kAround;
  worker->map_room_ = BackupMemory::kMapStripeBytes - kAround;
  return worker;
}

Status ReceiveJob::Worker::Run() {
  for (;;) {
    clock_.Skip();
    const bool has_frame = job_->NextFrame(&frame_);
    clock_.Charge(Stage::kStarved);
    if (!has_frame) break;
    FIRN_RETURN_IF_ERROR(StoreFrame(frame_));
    FIRN_RETURN_IF_ERROR(stripes_->Collect());
  }
  FIRN_RETURN_IF_ERROR(stripes_->Flush());
  clock_.Flush();
  return Status::Ok();
}

Result<RecordHeader> ReceiveJob::Worker::ReadHeader(std::span<const uint8_t> bytes) const {
  if (bytes.size() < kRecordHeaderBytes) return CorruptStream("a frame ends inside a record");
  Result<RecordHeader> decoded = RecordHeader::Decode(bytes.data());
  if (!decoded.ok()) return OfStream(std::move(decoded).TakeStatus());
  const RecordHeader header = *decoded;
  const uint64_t length = uint64_t{kRecordHeaderBytes} + header.stored_length;
  if (length > bytes.size()) return CorruptStream("a frame ends inside a record");
  const bool is_chunk = header.record_class == RecordClass::kChunk;
  const uint32_t chunk_max = job_->options_.repository.chunking.max_pages * kPageBytes;
  const bool fits = is_chunk ? header.raw_length > 0 && header.raw_length % kPageBytes == 0 &&
                                   header.raw_length <= chunk_max
                             : header.record_class == RecordClass::kMap;
  if (!fits || length > (is_chunk ? data_room_ : map_room_)) {
    return CorruptStream("a record that no writer of this repository makes");
  }
  return header;
}

Status ReceiveJob::Worker::StoreRecord(const RecordHeader& header,
                                       std::span<const uint8_t> record) {
  content_.resize(header.raw_length);
  Status checked = decoder_.Decode(header, record.subspan(kRecordHeaderBytes), content_);
  clock_.Charge(Stage::kHash);
  if (!checked.ok()) return OfStream(std::move(checked));
  const bool is_map = header.record_class == RecordClass::kMap;
  FIRN_ASSIGN_OR_RETURN(
      Stripe * stripe,
      stripes_->Reserve(is_map ? PackClass::kMap : PackClass::kData,
                        static_cast<uint32_t>(record.size() + Aes256Gcm::kTagBytes)));
  clock_.Skip();
  std::copy(record.begin(), record.end(), stripe->tail());
  RecordHeader stored = header;
  if (sealer_ != nullptr) FIRN_RETURN_IF_ERROR(sealer_->Seal(&stored, stripe->tail()));
  stripe->Append(stored);
  clock_.Charge(Stage::kScan);
  ++job_->stored_records_;
  job_->stored_bytes_ += record.size();
  ++job_->stats_.new_chunks;
  job_->stats_.new_bytes += header.raw_length;
  job_->stats_.stored_bytes += record.size();
  return Status::Ok();
}

Status ReceiveJob::Worker::StoreFrame(const Frame& frame) {
  std::span<const uint8_t> rest = frame.payload;
  uint32_t count = 0;
  const auto broken = [&](Status status) {
    job_->Break(std::move(status).At("the stream", frame.offset));
    return Status::Ok();
  };
  while (!rest.empty()) {
    const Result<RecordHeader> header = ReadHeader(rest);
    if (!header.ok()) return broken(header.status());
    const auto record = rest.first(kRecordHeaderBytes + header->stored_length);
    rest = rest.subspan(record.size());
    ++count;
    ++job_->stats_.chunks;
    job_->stats_.done_bytes += record.size();
    if (!job_->registry_->Claim(header->id)) continue;
    Status status = StoreRecord(*header, record);
    if (status.code() == Code::kCorruptStream) return broken(std::move(status));
    FIRN_RETURN_IF_ERROR(status);
  }
  if (count != frame.header.count) {
    return broken(CorruptStream("a frame does not hold as many records as it says"));
  }
  return Status::Ok();
}

ReceiveJob::ReceiveJob(FileSystem& fs, const Tuning& tuning, ReceiveOptions options)
    : Job(fs, tuning),
      options_(std::move(options)),
      stream_(*options_.stream),
      keys_(options_.repository.keys()) {}
ReceiveJob::~ReceiveJob() = default;

// A lie in a frame is the reason that counts, also where another worker has met the stream's end
// while the frame was looked at: sent again, the stream would break there again.
void ReceiveJob::Break(Status status) {
  std::lock_guard lock(reader_mutex_);
  if (broken_.ok() || broken_.code() == Code::kStreamTruncated) broken_ = std::move(status);
}

bool ReceiveJob::NextFrame(Frame* frame) {
  std::lock_guard lock(reader_mutex_);
  if (section_ended_ || !broken_.ok()) return false;
  stats_.source.Begin();
  bool has_ended = false;
  broken_ = ReadFrame(frame, &has_ended);
  stats_.source.End();
  section_ended_ = has_ended;
  return broken_.ok() && !has_ended;
}

// REQUIRES: reader_mutex_ held.
Status ReceiveJob::ReadFrame(Frame* frame, bool* has_ended) {
  FIRN_RETURN_IF_ERROR(stream_.reader_.Read(frame, [this] { return CheckStopped(); }));
  stats_.read_bytes += kFrameHeaderBytes + frame->payload.size();
  if (frame->header.kind == FrameKind::kRecords && stream_.sections_left_ > 0) {
    StreamCounts& section = stream_.section_;
    section.records += frame->header.count;
    section.bytes += frame->payload.size();
    return Status::Ok();
  }
  *has_ended = true;
  const bool is_end = stream_.sections_left_ == 0;
  if (frame->header.kind != (is_end ? FrameKind::kEnd : FrameKind::kSectionEnd)) {
    return CorruptStream("a frame stands where it can't").At("the stream", frame->offset);
  }
  FIRN_ASSIGN_OR_RETURN(const StreamCounts counts, StreamCounts::Decode(frame->payload));
  if (counts != (is_end ? stream_.total_ : stream_.section_)) {
    return CorruptStream("the stream does not hold what it says").At("the stream", frame->offset);
  }
  if (is_end) {
    stream_.ended_ = true;
    return Status::Ok();
  }
  result_.received = stream_.section_;
  stream_.total_.records += stream_.section_.records;
  stream_.total_.bytes += stream_.section_.bytes;
  stream_.section_ = {};
  --stream_.sections_left_;
  return Status::Ok();
}

// The rows of packs that are whole and that no index run names. One that can't be read is left to a
// verification to complain about.
Status ReceiveJob::AdoptPacks(std::vector<IndexPack>* packs, std::vector<IndexEntry>* entries) {
  const RepositoryListing& listing = options_.repository.listing;
  std::set<PackName> known(listing.condemned.begin(), listing.condemned.end());
  for (const auto& run : index_->runs()) {
    for (const IndexPack& pack : run->packs()) known.insert(pack.name);
  }
  const uint64_t entries_max = memory_.registry_bytes / ChunkRegistry::kEntryBytes;
  for (const PackName& name : listing.packs) {
    if (known.contains(name)) continue;
    FIRN_RETURN_IF_ERROR(CheckStopped());
    const Result<std::unique_ptr<File>> file =
        fs_.Open(JoinPath(listing.root, name.RelativePath()), {});
    if (!file.ok()) continue;
    const Result<PackTable> table = ReadPackTable(file->get());
    if (!table.ok() || entries->size() + table->records.size() > entries_max) continue;
    const auto pack = static_cast<uint32_t>(packs->size());
    packs->push_back({name, table->file_bytes, table->hash});
    for (const PackRecord& record : table->records) {
      entries->push_back({record.id, pack, record.offset, record.stored_length, record.raw_length,
                          record.record_class});
    }
  }
  return Status::Ok();
}

Status ReceiveJob::Adopt() {
  std::vector<IndexPack> packs;
  std::vector<IndexEntry> entries;
  FIRN_RETURN_IF_ERROR(AdoptPacks(&packs, &entries));
  if (packs.empty()) return Status::Ok();
  // Their writers may have died before they made the names durable.
  const std::string folder = JoinPath(options_.repository.listing.root, "packs");
  std::set<RunId> runs;
  for (const IndexPack& pack : packs) runs.insert(pack.name.run);
  for (const RunId& run : runs) {
    FIRN_RETURN_IF_ERROR(fs_.SyncDirectory(JoinPath(folder, ToHex(run))));
  }
  FIRN_RETURN_IF_ERROR(fs_.SyncDirectory(folder));
  char tail[32];
  std::snprintf(tail, sizeof tail, "-%04x-%08x.idx", kAdoptAttempt, 0u);
  const std::string name = ToHex(options_.run) + tail;
  const std::string path = JoinPath(JoinPath(options_.repository.listing.root, "index"), name);
  FIRN_RETURN_IF_ERROR(
      WriteIndexRun(fs_, path, packs, &entries, options_.repository.listing.index_key));
  result_.adopted_packs = packs.size();
  result_.index_runs.push_back(name);
  return index_->AddRun(name);
}

Status ReceiveJob::DoRun() {
  const RepositoryListing& listing = options_.repository.listing;
  FIRN_RETURN_IF_ERROR(options_.repository.chunking.Check());
  memory_ = BackupMemory::Plan(tuning_.memory_bytes, tuning_.workers,
                               RecordBytesMax(options_.repository.chunking.max_pages * kPageBytes));
  stats_.workers = memory_.workers;
  stats_.memory_bytes = memory_.registry_bytes + memory_.workers * memory_.worker_bytes();
  stats_.total_bytes = options_.total_bytes;
  FIRN_ASSIGN_OR_RETURN(index_, ChunkIndex::Open(fs_, listing));
  if (options_.adopt) FIRN_RETURN_IF_ERROR(Adopt());
  registry_ = std::make_unique<ChunkRegistry>(index_.get(), options_.run, kWriteAttempt,
                                              memory_.registry_bytes / ChunkRegistry::kEntryBytes);
  packs_ = std::make_unique<PackWriter>(fs_, listing.root, options_.run, kWriteAttempt,
                                        tuning_.io != IoMode::kBuffered, kPackBytes,
                                        [this](const PackName& name, const PackTable& table) {
                                          return registry_->AddPack(name, table);
                                        });
  if (keys_.seal != nullptr) packs_->set_public_tail(keys_.seal->PublicTail(options_.run));
  registry_->set_sync_packs([this] { return packs_->SyncNames(); });
  stats_.phase = Phase::kCopy;
  Status stored = RunWorkers(memory_.workers, [this](uint32_t) -> Status {
    FIRN_ASSIGN_OR_RETURN(std::unique_ptr<Worker> worker, Worker::Create(this));
    return worker->Run();
  });
  stats_.phase = Phase::kFinish;
  if (stored.ok()) stored = packs_->Close();
  // What is durable is named by a run even after a failure: then the next job finds it.
  const Status synced = stored.ok() ? stored : packs_->SyncNames();
  const Status named = synced.ok() ? registry_->Finish() : synced;
  packs_.reset();
  FIRN_RETURN_IF_ERROR(stored);
  FIRN_RETURN_IF_ERROR(named);
  FIRN_RETURN_IF_ERROR(broken_);
  result_.packs = registry_->packs();
  const std::vector<std::string>& written = registry_->index_runs();
  result_.index_runs.insert(result_.index_runs.end(), written.begin(), written.end());
  result_.stored = {stored_records_, stored_bytes_};
  return Status::Ok();
}

}  // namespace firn
