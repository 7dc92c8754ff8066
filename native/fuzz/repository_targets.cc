// What a repository and a stream are made of: packs, index runs, maps, frames.
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "chunk/map_format.h"
#include "codec/hash.h"
#include "core/crc32c.h"
#include "fuzz/fuzz_input.h"
#include "fuzz/fuzz_target.h"
#include "fuzz/memory_file_system.h"
#include "index/chunk_index.h"
#include "pack/pack_reader.h"
#include "pipeline/pack_verifier.h"
#include "stream/frame_io.h"
#include "stream/receive_job.h"

namespace firn::fuzz {
namespace {

constexpr char kRoot[] = "/repository";

bool Sealed(Input input) { return !input.empty() && (input[0] & kUnsealed) == 0; }
std::vector<uint8_t> Body(Input input) {
  return input.empty() ? std::vector<uint8_t>() : std::vector(input.begin() + 1, input.end());
}

SparseImage ImageOf(std::span<const uint8_t> bytes) {
  SparseImage image;
  image.Write(0, bytes);
  image.Resize(bytes.size());
  return image;
}

// --- Packs ---

// The header's and the content's checksums of whatever looks like a record.
void SealRecords(std::span<uint8_t> bytes) {
  for (size_t at = 0; at + kRecordHeaderBytes <= bytes.size(); ++at) {
    if (std::memcmp(&bytes[at], "FIRR", 4) != 0) continue;
    const uint32_t stored = LoadLe<uint32_t>(&bytes[at + 12]);
    if (RangeInside(at + kRecordHeaderBytes, stored, bytes.size())) {
      StoreLe(&bytes[at + 56], Crc32c(bytes.subspan(at + kRecordHeaderBytes, stored)));
    }
    StoreLe(&bytes[at + 60], Crc32c(bytes.subspan(at, 60)));
  }
}

void SealPack(std::vector<uint8_t>* pack) {
  std::vector<uint8_t>& bytes = *pack;
  SealRecords(bytes);
  for (size_t at = 0; at + kStripeHeaderBytes <= bytes.size(); at += kPackAlignment) {
    if (std::memcmp(&bytes[at], "FIRNPACK", 8) != 0) continue;
    StoreLe(&bytes[at + 60], Crc32c(std::span(bytes).subspan(at, 60)));
  }
  if (bytes.size() < kPackTrailerBytes) return;
  uint8_t* trailer = bytes.data() + bytes.size() - kPackTrailerBytes;
  StoreLe<uint64_t>(trailer + 24, bytes.size());
  const uint64_t footer = LoadLe<uint64_t>(trailer + 16);
  if (footer <= bytes.size() - kPackTrailerBytes) {
    const Id hash =
        Blake3(std::span(bytes).subspan(footer, bytes.size() - kPackTrailerBytes - footer));
    std::copy(hash.begin(), hash.end(), trailer + 32);
  }
  StoreLe(trailer + 92, Crc32c({trailer, 92}));
}

void DecodeRecords(File* file, const PackTable& table) {
  RecordDecoder decoder{RepositoryKeys(Key{})};
  for (const PackRecord& record : table.records) {
    uint8_t encoded[kRecordHeaderBytes];
    if (!file->ReadAt(record.offset, encoded).ok()) continue;
    const Result<RecordHeader> header = RecordHeader::Decode(encoded);
    if (!header.ok()) continue;
    std::vector<uint8_t> stored(header->stored_length);
    if (!file->ReadAt(uint64_t{record.offset} + kRecordHeaderBytes, stored).ok()) continue;
    std::vector<uint8_t> content(header->raw_length);
    (void)decoder.Decode(*header, stored, content);
  }
}

// --- Index runs ---

void SealIndex(std::vector<uint8_t>* run) {
  std::vector<uint8_t>& bytes = *run;
  if (bytes.size() < kIndexHeaderBytes + kIndexHashBytes) return;
  StoreLe(&bytes[124], Crc32c(std::span(bytes).first(124)));
  const size_t hashed = bytes.size() - kIndexHashBytes;
  const Id hash = Blake3(std::span(bytes).first(hashed));
  std::ranges::copy(hash, bytes.begin() + static_cast<ptrdiff_t>(hashed));
}

void LookUpAll(const IndexRun& run, ChunkIndex* index) {
  const uint64_t count = std::min<uint64_t>(run.entries(), 64);
  for (uint64_t i = 0; i < count; ++i) {
    const IndexEntry entry = run.Entry(i);
    const IndexRun::Range range = run.Find(entry.id);
    FIRN_FUZZ_CHECK(range.first <= range.last && range.last <= run.entries());
    for (const ChunkPlace& place : index->FindAll(entry.id)) (void)index->pack_name(place.pack);
    (void)index->Rely(entry.id);
    (void)index->RelyOnChunk(entry.id, entry.raw_length);
  }
  (void)index->ReliedPacks();
}

// --- Maps ---

void CheckCanonical(Input body, const std::vector<uint8_t>& encoded) {
  FIRN_FUZZ_CHECK(std::ranges::equal(body, encoded));
}

// --- Streams ---

// Numbers the frames and chains their hashes.
void SealFrames(std::span<uint8_t> bytes) {
  Id previous{};
  uint64_t sequence = 0;
  for (size_t at = 0; at + kFrameHeaderBytes <= bytes.size();) {
    Result<FrameHeader> header = FrameHeader::Decode(&bytes[at]);
    if (!header.ok()) return;
    header->sequence = sequence++;
    if (!RangeInside(at + kFrameHeaderBytes, header->payload_bytes, bytes.size())) return;
    const auto payload = bytes.subspan(at + kFrameHeaderBytes, header->payload_bytes);
    SealRecords(payload);
    header->hash = previous = FrameHash(previous, *header, payload);
    header->Encode(&bytes[at]);
    at += kFrameHeaderBytes + header->payload_bytes;
  }
}

// An unnamed file, as a channel reads descriptors.
class TemporaryFile {
 public:
  explicit TemporaryFile(std::span<const uint8_t> bytes) : file_(std::tmpfile()) {
    FIRN_FUZZ_CHECK(file_ != nullptr);
    // fwrite() may not be given the null pointer of an empty span.
    FIRN_FUZZ_CHECK(bytes.empty() ||
                    std::fwrite(bytes.data(), 1, bytes.size(), file_) == bytes.size());
    Rewind();
  }
  ~TemporaryFile() { std::fclose(file_); }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;
  void Rewind() {
    std::fflush(file_);
    lseek(fileno(file_), 0, SEEK_SET);
  }
  StreamHandle handle() const { return fileno(file_); }

 private:
  std::FILE* const file_;
};

}  // namespace

void RunPack(Input input) {
  std::vector<uint8_t> bytes = Body(input);
  if (Sealed(input)) SealPack(&bytes);
  MemoryFileSystem files;
  const PackName name;
  const std::string path = std::string(kRoot) + "/" + name.RelativePath();
  files.Add(path, ImageOf(bytes));
  const std::unique_ptr<File> file = std::move(*files.Open(path, {}));
  const Result<PackTable> table = ReadPackTable(file.get());
  if (table.ok()) {
    for (const PackRecord& record : table->records) {
      FIRN_FUZZ_CHECK(RangeInside(uint64_t{record.offset} + kRecordHeaderBytes,
                                  record.stored_length, table->footer_offset));
    }
    DecodeRecords(file.get(), *table);
  }
  const Result<PackTable> scanned = ScanPackRecords(file.get());
  FIRN_FUZZ_CHECK(scanned.ok());
  DecodeRecords(file.get(), *scanned);

  JobStats stats;
  uint64_t problems = 0;
  PackVerifierJob job;
  job.fs = &files;
  job.tuning.io = IoMode::kBuffered;
  job.stats = &stats;
  job.root = kRoot;
  job.report = [&](Problem) { ++problems; };
  Pace pace(0);
  job.pace = &pace;
  FIRN_FUZZ_CHECK((*PackVerifier::Create(&job))->Verify(name).ok());
  FIRN_FUZZ_CHECK(table.ok() || problems > 0);
}

void RunIndex(Input input) {
  std::vector<uint8_t> bytes = Body(input);
  if (Sealed(input)) SealIndex(&bytes);
  MemoryFileSystem files;
  files.Add(std::string(kRoot) + "/index/run", ImageOf(bytes));
  const auto run = IndexRun::Open(files, std::string(kRoot) + "/index/run");
  if (!run.ok()) return;
  const bool verified = (*run)->Verify().ok();
  RepositoryListing listing;
  listing.root = kRoot;
  listing.index_runs = {"run"};
  for (const IndexPack& pack : (*run)->packs()) {
    if (listing.packs.size() == 16) break;
    listing.packs.push_back(pack.name);
  }
  Result<std::unique_ptr<ChunkIndex>> index = ChunkIndex::Open(files, listing);
  if (!index.ok()) return;
  LookUpAll(**run, index->get());
  if (!verified) return;
  // A whole run finds what is in it.
  for (uint64_t i = 0; i < std::min<uint64_t>((*run)->entries(), 16); ++i) {
    const IndexRun::Range range = (*run)->Find((*run)->Entry(i).id);
    FIRN_FUZZ_CHECK(range.first <= i && i < range.last);
  }
}

void RunMap(Input input) {
  if (input.empty()) return;
  const Input body = input.subspan(1);
  if (const Result<MapRoot> root = DecodeRoot(body); root.ok()) {
    CheckCanonical(body, EncodeRoot(*root));
  }
  if (const Result<MapNode> node = DecodeNode(body); node.ok()) {
    CheckCanonical(body, EncodeNode(*node));
  }
  ChunkingParameters parameters;
  parameters.fixed = (input[0] & kOption1) != 0;
  if (const Result<MapLeaf> leaf = DecodeLeaf(body, parameters); leaf.ok()) {
    CheckCanonical(body, EncodeLeaf(*leaf));
  }
}

void RunStream(Input input) {
  std::vector<uint8_t> bytes = Body(input);
  if (Sealed(input)) SealFrames(bytes);
  TemporaryFile file(bytes);
  FrameReader reader(file.handle());
  const auto stop = [] { return Status::Ok(); };
  for (Frame frame; reader.Read(&frame, stop).ok();) {
    FIRN_FUZZ_CHECK(frame.payload.size() <= kFramePayloadMax);
    if (frame.header.kind == FrameKind::kEnd) (void)StreamCounts::Decode(frame.payload);
  }
  file.Rewind();
  MemoryFileSystem files;
  OpenStreamJob job(files, Tuning(), std::make_shared<ReceiveStream>(file.handle()));
  (void)job.Run();
}

}  // namespace firn::fuzz
