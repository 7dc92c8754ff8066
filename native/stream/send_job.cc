#include "stream/send_job.h"

#include <algorithm>

#include "codec/seal.h"
#include "core/crc32c.h"

namespace firn {

namespace {

constexpr uint64_t kReadBytes = 4 * kMiB;
// Records so near to each other are read in one go.
constexpr uint64_t kGapBytes = 64 * kKiB;
// Records that a worker gathers, to read them in the order in which they lie.
constexpr uint64_t kBatchBytes = 8 * kMiB;
// What a worker takes at most: records read, a frame, the content of a map object.
constexpr uint64_t kWorkerBytes = 24 * kMiB;
// What a leaf takes in the set of those walked, and the share of the memory that the set may take.
constexpr uint64_t kWalkedBytes = 2 * sizeof(Id);
constexpr uint64_t kWalkedShare = 4;

std::span<const uint8_t> BytesOf(const std::string& text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

uint64_t RecordBytes(const ChunkPlace& place) {
  return uint64_t{kRecordHeaderBytes} + place.stored_length;
}

Status CheckStored(const RecordHeader& header, std::span<const uint8_t> record) {
  if (Crc32c(record.subspan(kRecordHeaderBytes)) == header.stored_crc) return Status::Ok();
  return Status::Error(Code::kCorruptChunk, "a record's bytes do not match their checksum")
      .DataLoss();
}

}  // namespace

// One thread's part: gathers records, reads them, and writes frames of them.
class SendJob::RecordSender {
 public:
  explicit RecordSender(SendJob* job) : job_(job), clock_(&job->stats_) {
    if (job->keys_.seal != nullptr) opener_.emplace(job->keys_.seal);
  }
  // What was claimed and did not get into a frame is for the next job.
  ~RecordSender();

  // Sends a record unless it was sent or is not wanted.
  Status Add(const Id& id, RecordClass record_class);
  // Sends one that is marked already.
  Status AddMarked(const Id& id);
  // Everything added is in the stream when this returns.
  Status Flush();

 private:
  struct Item {
    Id id{};
    ChunkPlace place;
  };
  Status Append(const Id& id, const ChunkPlace& place);
  Status SendBatch();
  // Reads from batch_[first] on, as many as lie near each other; the first one not read.
  Result<size_t> Read(size_t first);
  Status SendRecord(const Item& item, std::span<const uint8_t> record);
  // The record from any place but that one.
  Status ReadElsewhere(const Item& item, Status why);
  Status CheckRecord(const Id& id, const ChunkPlace& place, std::span<const uint8_t> record);
  Status WriteFrame();

  SendJob* const job_;
  StageClock clock_;
  std::vector<Item> batch_;
  uint64_t batch_bytes_ = 0;
  std::vector<uint8_t> read_;
  std::vector<uint8_t> other_;
  std::optional<RecordOpener> opener_;  // of a sealed repository
  std::vector<uint8_t> unsealed_;       // then the last record that was checked
  std::vector<uint8_t> payload_;
  std::vector<Id> in_payload_;
};

SendJob::RecordSender::~RecordSender() {
  clock_.Flush();
  if (batch_.empty() && in_payload_.empty()) return;
  std::lock_guard lock(job_->stream_.mutex_);
  std::vector<Id>& lost = job_->stream_.lost_;
  for (const Item& item : batch_) lost.push_back(item.id);
  lost.insert(lost.end(), in_payload_.begin(), in_payload_.end());
}

Status SendJob::RecordSender::Add(const Id& id, RecordClass record_class) {
  const LiveIndex::Found found = job_->sent_->Mark(id);
  if (found == LiveIndex::Found::kNowhere) return MissingRecord(id, record_class);
  if (found == LiveIndex::Found::kBefore) return Status::Ok();
  const std::optional<ChunkPlace> place = job_->sent_->index().Find(id);
  if (!place || place->record_class != record_class) return MissingRecord(id, record_class);
  if (job_->target_ && job_->target_->Rely(id)) {
    ++job_->stream_.skipped_records_;
    job_->stream_.skipped_bytes_ += RecordBytes(*place);
    return Status::Ok();
  }
  return Append(id, *place);
}

Status SendJob::RecordSender::AddMarked(const Id& id) {
  const std::optional<ChunkPlace> place = job_->sent_->index().Find(id);
  // So that the id is kept for the next job.
  batch_.push_back({id, place.value_or(ChunkPlace{})});
  if (!place) return MissingRecord(id, RecordClass::kChunk);
  batch_.pop_back();
  return Append(id, *place);
}

Status SendJob::RecordSender::Append(const Id& id, const ChunkPlace& place) {
  // The index is not to be believed about sizes before it allocates memory.
  if (place.stored_length > kRecordContentMax) {
    return Status::Error(Code::kCorruptIndex, "the index names a record of impossible size");
  }
  if (!job_->stream_.writer_) {
    ++job_->stream_.records_;
    job_->stream_.bytes_ += RecordBytes(place);
    return Status::Ok();
  }
  batch_.push_back({id, place});
  batch_bytes_ += RecordBytes(place);
  return batch_bytes_ < kBatchBytes ? Status::Ok() : SendBatch();
}

Status SendJob::RecordSender::Flush() {
  FIRN_RETURN_IF_ERROR(SendBatch());
  FIRN_RETURN_IF_ERROR(WriteFrame());
  clock_.Flush();
  return Status::Ok();
}

Status SendJob::RecordSender::SendBatch() {
  // From the last place to the first, so that what was sent can be taken off the end.
  std::sort(batch_.begin(), batch_.end(), [](const Item& a, const Item& b) {
    return a.place.pack != b.place.pack ? a.place.pack > b.place.pack
                                        : a.place.offset > b.place.offset;
  });
  while (!batch_.empty()) {
    FIRN_RETURN_IF_ERROR(job_->CheckStopped());
    const size_t first = batch_.size() - 1;
    const uint32_t begin = batch_[first].place.offset;
    const Result<size_t> end = Read(first);
    const size_t stop = end.ok() ? *end : first;
    while (batch_.size() > stop) {
      const Item item = batch_.back();
      const auto record = end.ok() ? std::span<const uint8_t>(read_).subspan(
                                         item.place.offset - begin, RecordBytes(item.place))
                                   : std::span<const uint8_t>();
      const Status status = end.ok() ? CheckRecord(item.id, item.place, record) : end.status();
      if (status.ok()) {
        FIRN_RETURN_IF_ERROR(SendRecord(item, record));
      } else {
        FIRN_RETURN_IF_ERROR(ReadElsewhere(item, status));
        FIRN_RETURN_IF_ERROR(SendRecord(item, other_));
      }
      batch_.pop_back();
    }
  }
  batch_bytes_ = 0;
  return Status::Ok();
}

// `first` is the last of the batch, which lies before the others of its pack. Returns the position
// of the last one read: batch_[that] .. batch_[first].
Result<size_t> SendJob::RecordSender::Read(size_t first) {
  const ChunkPlace& from = batch_[first].place;
  uint64_t end_offset = from.offset + RecordBytes(from);
  size_t last = first;
  while (last > 0) {
    const ChunkPlace& next = batch_[last - 1].place;
    const uint64_t next_end = next.offset + RecordBytes(next);
    if (next.pack != from.pack || next.offset > end_offset + kGapBytes ||
        next_end - from.offset > kReadBytes) {
      break;
    }
    end_offset = std::max(end_offset, next_end);
    --last;
  }
  const PackName name = job_->sent_->index().pack_name(from.pack);
  FIRN_ASSIGN_OR_RETURN(std::shared_ptr<File> file, job_->packs_->Open(name));
  read_.resize(end_offset - from.offset);
  clock_.Skip();
  job_->stats_.source.Begin();
  const Status status = file->ReadAt(from.offset, read_);
  job_->stats_.source.End();
  clock_.Charge(Stage::kStarved);
  FIRN_RETURN_IF_ERROR(status);
  job_->stats_.read_bytes += read_.size();
  return last;
}

Status SendJob::RecordSender::CheckRecord(const Id& id, const ChunkPlace& place,
                                          std::span<const uint8_t> record) {
  FIRN_ASSIGN_OR_RETURN(const RecordHeader header, RecordHeader::Decode(record.data()));
  FIRN_RETURN_IF_ERROR(CheckRecordMatches(header, id, place));
  const PackName pack = job_->sent_->index().pack_name(place.pack);
  const Status status = opener_ ? UnsealRecord(&*opener_, record, pack.writer(), &unsealed_)
                                : CheckStored(header, record);
  clock_.Charge(Stage::kHash);
  return status;
}

Status SendJob::RecordSender::ReadElsewhere(const Item& item, Status why) {
  const ChunkIndex& index = job_->sent_->index();
  for (const ChunkPlace& place : index.FindAll(item.id)) {
    if (place.stored_length > kRecordContentMax) continue;
    const Result<std::shared_ptr<File>> file = job_->packs_->Open(index.pack_name(place.pack));
    if (!file.ok()) continue;
    other_.resize(RecordBytes(place));
    if (!(*file)->ReadAt(place.offset, other_).ok()) continue;
    if (CheckRecord(item.id, place, other_).ok()) return Status::Ok();
  }
  const PackName name = index.pack_name(item.place.pack);
  return std::move(why).At(name.RelativePath(), item.place.offset);
}

Status SendJob::RecordSender::SendRecord(const Item& item, std::span<const uint8_t> record) {
  if (opener_) record = unsealed_;
  if (payload_.size() + record.size() > kFramePayloadMax) FIRN_RETURN_IF_ERROR(WriteFrame());
  payload_.insert(payload_.end(), record.begin(), record.end());
  in_payload_.push_back(item.id);
  if (payload_.size() < kFramePayloadAim) return Status::Ok();
  return WriteFrame();
}

Status SendJob::RecordSender::WriteFrame() {
  if (payload_.empty()) return Status::Ok();
  clock_.Skip();
  FIRN_RETURN_IF_ERROR(
      job_->WriteFrame(FrameKind::kRecords, static_cast<uint32_t>(in_payload_.size()), payload_));
  clock_.Charge(Stage::kBlocked);
  job_->stream_.records_ += in_payload_.size();
  job_->stream_.bytes_ += payload_.size();
  job_->stats_.done_bytes += payload_.size();
  job_->stats_.chunks += in_payload_.size();
  payload_.clear();
  in_payload_.clear();
  return Status::Ok();
}

SendJob::SendJob(FileSystem& fs, const Tuning& tuning, SendOptions options)
    : Job(fs, tuning),
      options_(std::move(options)),
      stream_(*options_.stream),
      keys_(options_.repository.keys()) {}
SendJob::~SendJob() = default;

Status SendJob::WriteFrame(FrameKind kind, uint32_t count, std::span<const uint8_t> payload) {
  if (!stream_.writer_) return Status::Ok();
  stats_.target.Begin();
  const uint64_t before = stream_.writer_->bytes();
  // A frame that has begun is carried through when another worker fails: the stream goes on after
  // that, in the next job. Only who cancels gives the stream up.
  const auto stop = [this] {
    return cancelled() ? Status::Error(Code::kAborted, "cancelled") : Status::Ok();
  };
  Status status = stream_.writer_->Write(kind, count, payload, stop);
  stats_.target.End();
  stats_.written_bytes += stream_.writer_->bytes() - before;
  return status;
}

// The marks move to the new index, as they are what the stream holds.
Status SendJob::OpenIndex() {
  const RepositoryListing& listing = options_.repository.listing;
  FIRN_ASSIGN_OR_RETURN(std::unique_ptr<LiveIndex> fresh, LiveIndex::Open(fs_, listing, {}));
  if (stream_.sent_) {
    stream_.sent_->ForEachLive([&](const Id& id, std::span<const LiveIndex::Copy>) {
      (void)fresh->Mark(id);  // one that is nowhere now need not be marked
    });
  }
  const bool is_first = stream_.sent_ == nullptr;
  stream_.sent_ = std::move(fresh);
  sent_ = stream_.sent_.get();
  packs_ = std::make_unique<PackFiles>(fs_, listing.root, false);
  if (options_.target) {
    FIRN_ASSIGN_OR_RETURN(target_, ChunkIndex::Open(fs_, *options_.target));
  }
  return is_first ? MarkHad() : Status::Ok();
}

Status SendJob::MarkHad() {
  if (options_.have && !options_.have->prefixes.empty()) {
    const std::vector<uint64_t>& prefixes = options_.have->prefixes;
    for (const auto& run : sent_->index().runs()) {
      size_t place = 0;
      for (uint64_t row = 0; row < run->entries() && place < prefixes.size(); ++row) {
        const IndexEntry entry = run->Entry(row);
        const uint64_t prefix = PrefixOf(entry.id);
        while (place < prefixes.size() && prefixes[place] < prefix) ++place;
        if (place == prefixes.size() || prefixes[place] != prefix) continue;
        if (sent_->Mark(entry.id) != LiveIndex::Found::kNew) continue;
        ++stream_.skipped_records_;
        stream_.skipped_bytes_ += uint64_t{kRecordHeaderBytes} + entry.stored_length;
      }
      FIRN_RETURN_IF_ERROR(CheckStopped());
    }
  }
  MapReader maps(&sent_->index(), packs_.get(), keys_, options_.repository.chunking);
  for (const Id& root : options_.have_roots) {
    FIRN_RETURN_IF_ERROR(CheckStopped());
    FIRN_RETURN_IF_ERROR(MarkHadMap(root, &maps));
  }
  return Status::Ok();
}

// A map that the other side has as a whole. What of it is not here any more can't be marked, and
// need not be.
Status SendJob::MarkHadMap(const Id& root_id, MapReader* maps) {
  if (sent_->Mark(root_id) == LiveIndex::Found::kNowhere) return Status::Ok();
  const Result<MapRoot> root = maps->ReadRoot(root_id);
  if (!root.ok()) return Status::Ok();
  for (const MapRoot::Node& node_row : root->nodes) {
    (void)sent_->Mark(node_row.id);
    const Result<MapNode> node = maps->ReadNode(node_row.id);
    if (!node.ok()) continue;
    for (const MapNode::Leaf& leaf_row : node->leaves) {
      FIRN_RETURN_IF_ERROR(CheckStopped());
      (void)sent_->Mark(leaf_row.id);
      if (IsWalked(leaf_row.id)) continue;
      const Result<MapLeaf> leaf = maps->ReadLeaf(leaf_row.id);
      if (!leaf.ok()) continue;
      for (const LeafRun& run : leaf->runs) {
        if (!run.hole) (void)sent_->Mark(run.id);
      }
    }
  }
  return Status::Ok();
}

// True if the leaf has been met before; beyond the set's bound it is walked again, which does no
// harm. (A leaf that claims the id of an empty place in the set is not one.)
bool SendJob::IsWalked(const Id& leaf) {
  if (leaf == Id{} || stream_.walked_count_ * kWalkedBytes > tuning_.memory_bytes / kWalkedShare) {
    return false;
  }
  if (!stream_.walked_.Insert(leaf)) return true;
  ++stream_.walked_count_;
  return false;
}

Status SendJob::Begin() {
  const auto points = static_cast<uint32_t>(stream_.points_.size());
  FIRN_RETURN_IF_ERROR(WriteFrame(FrameKind::kHeader, points, BytesOf(stream_.header_)));
  for (const SendPoint& point : stream_.points_) {
    FIRN_RETURN_IF_ERROR(WriteFrame(FrameKind::kPoint, 0, BytesOf(point.json)));
  }
  stream_.begun_ = true;
  return Status::Ok();
}

Status SendJob::SendMap(const Id& root_id, MapReader* maps, RecordSender* sender) {
  FIRN_RETURN_IF_ERROR(sender->Add(root_id, RecordClass::kMap));
  FIRN_ASSIGN_OR_RETURN(const MapRoot root, maps->ReadRoot(root_id));
  for (const MapRoot::Node& node_row : root.nodes) {
    FIRN_RETURN_IF_ERROR(CheckStopped());
    FIRN_RETURN_IF_ERROR(sender->Add(node_row.id, RecordClass::kMap));
    FIRN_ASSIGN_OR_RETURN(const MapNode node, maps->ReadNode(node_row.id));
    for (const MapNode::Leaf& leaf_row : node.leaves) {
      if (IsWalked(leaf_row.id)) continue;
      stream_.leaves_.push_back(leaf_row.id);
      FIRN_RETURN_IF_ERROR(sender->Add(leaf_row.id, RecordClass::kMap));
    }
  }
  return Status::Ok();
}

Status SendJob::SendLeaf(const Id& id, MapReader* maps, RecordSender* sender) {
  FIRN_ASSIGN_OR_RETURN(const MapLeaf leaf, maps->ReadLeaf(id));
  for (const LeafRun& run : leaf.runs) {
    if (!run.hole) FIRN_RETURN_IF_ERROR(sender->Add(run.id, RecordClass::kChunk));
  }
  return Status::Ok();
}

Status SendJob::SendChunks() {
  std::atomic<size_t> next = 0;
  return RunWorkers(stats_.workers, [&](uint32_t) -> Status {
    MapReader maps(&sent_->index(), packs_.get(), keys_, options_.repository.chunking);
    RecordSender sender(this);
    for (size_t i = next++; i < stream_.leaves_.size(); i = next++) {
      FIRN_RETURN_IF_ERROR(CheckStopped());
      FIRN_RETURN_IF_ERROR(SendLeaf(stream_.leaves_[i], &maps, &sender));
    }
    return sender.Flush();
  });
}

// Map objects first: who has them knows what the chunks after them are for.
Status SendJob::SendSection(const SendPoint& point) {
  {
    RecordSender sender(this);
    std::vector<Id> lost = std::exchange(stream_.lost_, {});
    for (size_t i = 0; i < lost.size(); ++i) {
      Status status = sender.AddMarked(lost[i]);
      if (status.ok()) continue;
      std::lock_guard lock(stream_.mutex_);
      stream_.lost_.insert(stream_.lost_.end(), lost.begin() + static_cast<ptrdiff_t>(i) + 1,
                           lost.end());
      return status;
    }
    // Those that a job has met which did not get to the section's end.
    for (const Id& leaf : stream_.leaves_) {
      FIRN_RETURN_IF_ERROR(sender.Add(leaf, RecordClass::kMap));
    }
    MapReader maps(&sent_->index(), packs_.get(), keys_, options_.repository.chunking);
    for (const Id& root : point.roots) FIRN_RETURN_IF_ERROR(SendMap(root, &maps, &sender));
    FIRN_RETURN_IF_ERROR(sender.Flush());
  }
  FIRN_RETURN_IF_ERROR(SendChunks());
  const StreamCounts total = stream_.total();
  uint8_t end[kStreamCountsBytes];
  StreamCounts{total.records - stream_.section_begun_.records,
               total.bytes - stream_.section_begun_.bytes}
      .Encode(end);
  FIRN_RETURN_IF_ERROR(WriteFrame(FrameKind::kSectionEnd, 0, end));
  stream_.section_begun_ = total;
  stream_.leaves_.clear();
  ++stream_.next_point_;
  return Status::Ok();
}

Status SendJob::DoRun() {
  FIRN_RETURN_IF_ERROR(options_.repository.chunking.Check());
  stats_.workers = static_cast<uint32_t>(
      std::clamp<uint64_t>(tuning_.memory_bytes / kWorkerBytes, 1, tuning_.workers));
  stats_.memory_bytes = stats_.workers * kWorkerBytes;
  stats_.total_bytes = options_.total_bytes;
  stats_.done_bytes = stream_.bytes_.load();
  FIRN_RETURN_IF_ERROR(OpenIndex());
  stats_.phase = Phase::kCopy;
  if (!stream_.begun_) FIRN_RETURN_IF_ERROR(Begin());
  while (stream_.next_point_ < stream_.points_.size()) {
    FIRN_RETURN_IF_ERROR(SendSection(stream_.points_[stream_.next_point_]));
  }
  stats_.phase = Phase::kFinish;
  uint8_t end[kStreamCountsBytes];
  stream_.total().Encode(end);
  return WriteFrame(FrameKind::kEnd, 0, end);
}

}  // namespace firn
