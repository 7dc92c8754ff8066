#include "stream/have_list.h"

#include <algorithm>

namespace firn {

namespace {

constexpr size_t kPrefixBytes = sizeof(uint64_t);
// A list of more is of a repository of petabytes, or a lie.
constexpr uint64_t kPrefixesMax = uint64_t{1} << 32;

std::span<const uint8_t> BytesOf(const std::string& text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

// The ids of all index runs in order, each prefix once, without holding them.
class PrefixMerge {
 public:
  explicit PrefixMerge(const ChunkIndex& index) {
    for (const auto& run : index.runs()) Push({run.get(), 0});
  }

  bool Next(uint64_t* prefix) {
    if (heap_.empty()) return false;
    *prefix = heap_.front().prefix;
    while (!heap_.empty() && heap_.front().prefix == *prefix) {
      std::pop_heap(heap_.begin(), heap_.end(), Later);
      const Cursor cursor = heap_.back();
      heap_.pop_back();
      Push({cursor.run, cursor.row + 1});
    }
    return true;
  }

 private:
  struct Cursor {
    const IndexRun* run = nullptr;
    uint64_t row = 0;
    uint64_t prefix = 0;
  };
  static bool Later(const Cursor& a, const Cursor& b) { return a.prefix > b.prefix; }
  void Push(Cursor cursor) {
    if (cursor.row == cursor.run->entries()) return;
    cursor.prefix = PrefixOf(cursor.run->Entry(cursor.row).id);
    heap_.push_back(cursor);
    std::push_heap(heap_.begin(), heap_.end(), Later);
  }

  std::vector<Cursor> heap_;
};

}  // namespace

Status WriteHaveJob::WritePrefixes(FrameWriter* writer) {
  FIRN_ASSIGN_OR_RETURN(std::unique_ptr<ChunkIndex> index,
                        ChunkIndex::Open(fs_, options_.repository.listing));
  stats_.total_bytes = index->entries() * kPrefixBytes;
  const auto stop = [this] { return CheckStopped(); };
  PrefixMerge merge(*index);
  std::vector<uint8_t> payload;
  const auto flush = [&]() -> Status {
    if (payload.empty()) return Status::Ok();
    const auto count = static_cast<uint32_t>(payload.size() / kPrefixBytes);
    FIRN_RETURN_IF_ERROR(writer->Write(FrameKind::kPrefixes, count, payload, stop));
    stats_.done_bytes += payload.size();
    payload.clear();
    return Status::Ok();
  };
  for (uint64_t prefix = 0; merge.Next(&prefix); ++prefixes_) {
    payload.resize(payload.size() + kPrefixBytes);
    StoreBe(payload.data() + payload.size() - kPrefixBytes, prefix);
    if (payload.size() >= kFramePayloadAim) FIRN_RETURN_IF_ERROR(flush());
  }
  return flush();
}

Status WriteHaveJob::DoRun() {
  stats_.phase = Phase::kCopy;
  FrameWriter writer(options_.handle, 0);
  const auto stop = [this] { return CheckStopped(); };
  if (options_.header.size() > kFramePayloadMax) {
    return Status::Error(Code::kInvalidArgument, "the list names more points than it can");
  }
  FIRN_RETURN_IF_ERROR(writer.Write(FrameKind::kHeader, 0, BytesOf(options_.header), stop));
  if (options_.records) FIRN_RETURN_IF_ERROR(WritePrefixes(&writer));
  uint8_t end[kStreamCountsBytes];
  StreamCounts{prefixes_, prefixes_ * kPrefixBytes}.Encode(end);
  return writer.Write(FrameKind::kEnd, 0, end, stop);
}

Status ReadHaveJob::DoRun() {
  stats_.phase = Phase::kCopy;
  FrameReader reader(handle_);
  const auto stop = [this] { return CheckStopped(); };
  Frame frame;
  FIRN_RETURN_IF_ERROR(reader.Read(&frame, stop));
  if (frame.header.kind != FrameKind::kHeader || frame.header.count != 0) {
    return CorruptStream("the file is no list of what a repository has");
  }
  list_->header.assign(frame.payload.begin(), frame.payload.end());
  for (;;) {
    FIRN_RETURN_IF_ERROR(reader.Read(&frame, stop));
    if (frame.header.kind == FrameKind::kEnd) break;
    const size_t count = frame.payload.size() / kPrefixBytes;
    if (frame.header.kind != FrameKind::kPrefixes || frame.payload.size() % kPrefixBytes != 0 ||
        count != frame.header.count || list_->prefixes.size() + count > kPrefixesMax) {
      return CorruptStream("a list holds a frame that it can't");
    }
    for (size_t i = 0; i < count; ++i) {
      const auto prefix = LoadBe<uint64_t>(&frame.payload[i * kPrefixBytes]);
      if (!list_->prefixes.empty() && prefix <= list_->prefixes.back()) {
        return CorruptStream("a list is not in order");
      }
      list_->prefixes.push_back(prefix);
    }
  }
  FIRN_ASSIGN_OR_RETURN(const StreamCounts counts, StreamCounts::Decode(frame.payload));
  if (counts.records == list_->prefixes.size()) return Status::Ok();
  return CorruptStream("a list does not hold as many records as it says");
}

}  // namespace firn
