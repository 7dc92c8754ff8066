#include "index/index_run.h"

#include <blake3.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "core/crc32c.h"

namespace firn {

namespace {

constexpr char kMagic[] = "FIRNINDX";
constexpr uint16_t kVersion = 1;
constexpr uint64_t kFilterBitsPerEntry = 12;
constexpr uint32_t kRawLengthMask = (1u << 24) - 1;
// So many that a search among them sees a page or two.
constexpr uint64_t kEntriesPerPrefix = 64;

struct Sections {
  uint64_t filter_offset, filter_bytes, entries_offset, file_bytes;
};

Sections LayOut(uint64_t packs, uint64_t entries) {
  Sections sections;
  const uint64_t blocks =
      std::max<uint64_t>(1, DivideUp(entries * kFilterBitsPerEntry, kIndexFilterBlockBytes * 8));
  sections.filter_offset = RoundUp(kIndexHeaderBytes + packs * kIndexPackBytes, 64);
  sections.filter_bytes = blocks * kIndexFilterBlockBytes;
  sections.entries_offset = RoundUp(sections.filter_offset + sections.filter_bytes, 4096);
  sections.file_bytes = sections.entries_offset + entries * kIndexEntryBytes + kIndexHashBytes;
  return sections;
}

// The same part of `whole` as `share` is of 2^64.
uint64_t Part(uint64_t share, uint64_t whole) {
  return static_cast<uint64_t>((static_cast<unsigned __int128>(share) * whole) >> 64);
}

// The eight bits of a filter block that stand for an id, and the block.
struct Probe {
  Probe(const Id& id, uint64_t blocks) {
    block = Part(LoadLe<uint64_t>(&id[0]), blocks);
    const uint64_t b = LoadLe<uint64_t>(&id[8]);
    for (size_t i = 0; i < 7; ++i) bits[i] = static_cast<uint32_t>(b >> (9 * i)) & 511;
    bits[7] = static_cast<uint32_t>(LoadLe<uint64_t>(&id[16])) & 511;
  }
  uint64_t block;
  uint32_t bits[8];
};

Status Corrupt(const char* what) { return Status::Error(Code::kCorruptIndex, what); }

void EncodePack(const IndexPack& pack, uint8_t* out) {
  std::memcpy(out, pack.name.run.data(), 16);
  StoreLe(out + 16, pack.name.attempt);
  StoreLe(out + 20, pack.name.sequence);
  StoreLe(out + 24, pack.file_bytes);
  std::memcpy(out + 32, pack.hash.data(), 32);
}

void EncodeEntry(const IndexEntry& entry, uint8_t* out) {
  std::memcpy(out, entry.id.data(), 32);
  StoreLe(out + 32, entry.pack);
  StoreLe(out + 36, entry.offset);
  StoreLe(out + 40, entry.stored_length);
  StoreLe(out + 44, entry.raw_length | static_cast<uint32_t>(entry.record_class) << 24);
}

// Appends to a file and hashes what it appends.
class HashingWriter {
 public:
  HashingWriter(File* file, const std::optional<Key>& key) : file_(file) {
    if (key) {
      blake3_hasher_init_keyed(&hasher_, key->data());
    } else {
      blake3_hasher_init(&hasher_);
    }
  }

  Status Append(std::span<const uint8_t> bytes) {
    blake3_hasher_update(&hasher_, bytes.data(), bytes.size());
    FIRN_RETURN_IF_ERROR(file_->WriteAt(offset_, bytes));
    offset_ += bytes.size();
    return Status::Ok();
  }
  Status PadTo(uint64_t offset) {
    const std::vector<uint8_t> zeros(offset - offset_);
    return Append(zeros);
  }
  Status AppendHash() {
    uint8_t hash[kIndexHashBytes];
    blake3_hasher_finalize(&hasher_, hash, sizeof hash);
    return Append(hash);
  }

 private:
  File* const file_;
  blake3_hasher hasher_;
  uint64_t offset_ = 0;
};

std::vector<uint8_t> EncodeHeader(uint32_t packs, uint64_t entries, const Sections& sections) {
  std::vector<uint8_t> header(kIndexHeaderBytes);
  std::memcpy(header.data(), kMagic, 8);
  StoreLe(&header[8], kVersion);
  StoreLe(&header[12], packs);
  StoreLe(&header[16], entries);
  StoreLe(&header[24], sections.filter_offset);
  StoreLe(&header[32], sections.filter_bytes);
  StoreLe(&header[40], sections.entries_offset);
  StoreLe(&header[48], sections.file_bytes);
  StoreLe(&header[124], Crc32c({header.data(), 124}));
  return header;
}

Status WriteSections(File* file, std::span<const IndexPack> packs, const IndexEntrySource& source,
                     const std::optional<Key>& key) {
  uint64_t entries = 0;
  const auto count = [&](const IndexEntry&) {
    ++entries;
    return Status::Ok();
  };
  FIRN_RETURN_IF_ERROR(source(count));
  const Sections sections = LayOut(packs.size(), entries);
  HashingWriter writer(file, key);
  FIRN_RETURN_IF_ERROR(
      writer.Append(EncodeHeader(static_cast<uint32_t>(packs.size()), entries, sections)));
  std::vector<uint8_t> rows(packs.size() * kIndexPackBytes);
  for (size_t i = 0; i < packs.size(); ++i) EncodePack(packs[i], &rows[i * kIndexPackBytes]);
  FIRN_RETURN_IF_ERROR(writer.Append(rows));
  FIRN_RETURN_IF_ERROR(writer.PadTo(sections.filter_offset));

  std::vector<uint8_t> filter(sections.filter_bytes);
  const auto add_to_filter = [&](const IndexEntry& entry) {
    const Probe probe(entry.id, filter.size() / kIndexFilterBlockBytes);
    uint8_t* block = &filter[probe.block * kIndexFilterBlockBytes];
    for (uint32_t bit : probe.bits) {
      block[bit / 8] = static_cast<uint8_t>(block[bit / 8] | 1u << (bit % 8));
    }
    return Status::Ok();
  };
  FIRN_RETURN_IF_ERROR(source(add_to_filter));
  FIRN_RETURN_IF_ERROR(writer.Append(filter));
  FIRN_RETURN_IF_ERROR(writer.PadTo(sections.entries_offset));
  std::vector<uint8_t>().swap(filter);

  constexpr size_t kBatchBytes = size_t{16384} * kIndexEntryBytes;
  rows.clear();
  rows.reserve(kBatchBytes);
  const auto add_row = [&](const IndexEntry& entry) {
    rows.resize(rows.size() + kIndexEntryBytes);
    EncodeEntry(entry, &rows[rows.size() - kIndexEntryBytes]);
    if (rows.size() < kBatchBytes) return Status::Ok();
    Status status = writer.Append(rows);
    rows.clear();
    return status;
  };
  FIRN_RETURN_IF_ERROR(source(add_row));
  FIRN_RETURN_IF_ERROR(writer.Append(rows));
  return writer.AppendHash();
}

}  // namespace

Result<std::unique_ptr<IndexRun>> IndexRun::Open(FileSystem& fs, const std::string& path,
                                                 const std::optional<Key>& key) {
  FIRN_ASSIGN_OR_RETURN(std::unique_ptr<MappedFile> file, fs.Map(path));
  file->AdviseRandom();
  std::unique_ptr<IndexRun> run(new IndexRun(path, std::move(file), key));
  Status status = run->ReadHeader();
  if (!status.ok()) return std::move(status).During("open index run").At(path);
  return run;
}

Status IndexRun::ReadHeader() {
  if (bytes_.size() < kIndexHeaderBytes || std::memcmp(bytes_.data(), kMagic, 8) != 0) {
    return Corrupt("not an index run");
  }
  if (LoadLe<uint32_t>(&bytes_[124]) != Crc32c(bytes_.first(124))) {
    return Corrupt("the index run's header does not match its checksum");
  }
  if (LoadLe<uint16_t>(&bytes_[8]) > kVersion) {
    return Status::Error(Code::kVersion, "an index run of a newer format version");
  }
  const auto reserved = bytes_.subspan(56, 68);
  if (LoadLe<uint16_t>(&bytes_[8]) != kVersion || LoadLe<uint16_t>(&bytes_[10]) != 0 ||
      std::any_of(reserved.begin(), reserved.end(), [](uint8_t byte) { return byte != 0; })) {
    return Corrupt("the index run's header holds values that no index run has");
  }
  const uint64_t packs = LoadLe<uint32_t>(&bytes_[12]);
  entries_ = LoadLe<uint64_t>(&bytes_[16]);
  // Every entry takes 48 bytes, so more than this can't be there, and LayOut can't overflow.
  if (entries_ > bytes_.size() / kIndexEntryBytes || packs > bytes_.size() / kIndexPackBytes) {
    return Corrupt("the index run is shorter than its header says");
  }
  const Sections sections = LayOut(packs, entries_);
  if (LoadLe<uint64_t>(&bytes_[24]) != sections.filter_offset ||
      LoadLe<uint64_t>(&bytes_[32]) != sections.filter_bytes ||
      LoadLe<uint64_t>(&bytes_[40]) != sections.entries_offset ||
      LoadLe<uint64_t>(&bytes_[48]) != sections.file_bytes ||
      sections.file_bytes != bytes_.size()) {
    return Corrupt("the index run's sections do not fill the file");
  }
  packs_.reserve(packs);
  for (uint64_t i = 0; i < packs; ++i) {
    const uint8_t* row = &bytes_[kIndexHeaderBytes + i * kIndexPackBytes];
    IndexPack pack;
    std::memcpy(pack.name.run.data(), row, 16);
    pack.name.attempt = LoadLe<uint32_t>(row + 16);
    pack.name.sequence = LoadLe<uint32_t>(row + 20);
    pack.file_bytes = LoadLe<uint64_t>(row + 24);
    std::memcpy(pack.hash.data(), row + 32, 32);
    packs_.push_back(pack);
  }
  filter_ = &bytes_[sections.filter_offset];
  filter_blocks_ = sections.filter_bytes / kIndexFilterBlockBytes;
  entry_bytes_ = bytes_.data() + sections.entries_offset;
  prefix_bits_ = static_cast<int>(std::bit_width(entries_ / kEntriesPerPrefix));
  if (prefix_bits_ > 0 && entries_ < kUnknown) {
    starts_ = std::make_unique<std::atomic<uint32_t>[]>(size_t{1} << prefix_bits_);
    for (size_t i = 0; i >> prefix_bits_ == 0; ++i)
      starts_[i].store(kUnknown, std::memory_order_relaxed);
  }
  return Status::Ok();
}

IndexEntry IndexRun::Entry(uint64_t i) const {
  const uint8_t* row = IdAt(i);
  IndexEntry entry;
  std::memcpy(entry.id.data(), row, 32);
  entry.pack = LoadLe<uint32_t>(row + 32);
  entry.offset = LoadLe<uint32_t>(row + 36);
  entry.stored_length = LoadLe<uint32_t>(row + 40);
  const uint32_t packed = LoadLe<uint32_t>(row + 44);
  entry.raw_length = packed & kRawLengthMask;
  entry.record_class = static_cast<RecordClass>(packed >> 24);
  return entry;
}

bool IndexRun::MayContain(const Id& id) const {
  const Probe probe(id, filter_blocks_);
  const uint8_t* block = filter_ + probe.block * kIndexFilterBlockBytes;
  for (uint32_t bit : probe.bits) {
    if ((block[bit / 8] >> (bit % 8) & 1) == 0) return false;
  }
  return true;
}

void IndexRun::Prefetch(const Id& id) const {
  const Probe probe(id, filter_blocks_);
  __builtin_prefetch(filter_ + probe.block * kIndexFilterBlockBytes);
  if (starts_ != nullptr) {
    __builtin_prefetch(&starts_[LoadBe<uint64_t>(id.data()) >> (64 - prefix_bits_)]);
  }
}

// Ids are hashes, so an id's place follows from its value, to within some thousand entries of ten
// million, and from the value found there to within the root of that: each look is a page that the
// processor has not seen for long, so few of them count for more than short steps at the end.
// REQUIRES: there are entries.
uint64_t IndexRun::Guess(const Id& id) const {
  constexpr int kCorrections = 2;
  const auto wanted = LoadBe<uint64_t>(id.data());
  uint64_t guess = Part(wanted, entries_);
  for (int i = 0; i < kCorrections; ++i) {
    const auto found = LoadBe<uint64_t>(IdAt(guess));
    if (found < wanted) {
      guess += std::min(Part(wanted - found, entries_), entries_ - 1 - guess);
    } else {
      guess -= std::min(Part(found - wanted, entries_), guess);
    }
  }
  PrefetchAround(guess);
  return guess;
}

// What the short steps will see comes at once rather than one after the other.
void IndexRun::PrefetchAround(uint64_t guess) const {
  constexpr uint64_t kNear = 4;
  constexpr size_t kCacheLineBytes = 64;
  const uint8_t* const end = IdAt(std::min(guess + kNear, entries_));
  for (const uint8_t* at = IdAt(guess - std::min(kNear, guess)); at < end; at += kCacheLineBytes) {
    __builtin_prefetch(at);
  }
}

// The first entry of `within` whose id is not less; from the guess on the search doubles its steps.
uint64_t IndexRun::LowerBound(const Id& id, Range within, uint64_t guess) const {
  const auto less = [&](uint64_t i) { return std::memcmp(IdAt(i), id.data(), 32) < 0; };
  uint64_t low = guess, high = guess;
  for (uint64_t step = 4; low > within.first && !less(low - 1); step *= 2) {
    low -= std::min(step, low - within.first);
  }
  for (uint64_t step = 4; high < within.last && less(high); step *= 2) {
    high += std::min(step, within.last - high);
  }
  while (low < high) {
    const uint64_t middle = low + (high - low) / 2;
    if (less(middle)) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

// Learns where the ids of a prefix start and end from an entry among them, whose pages are at hand.
void IndexRun::LearnStarts(uint64_t prefix, uint64_t near_by) const {
  for (const uint64_t each : {prefix, prefix + 1}) {
    if (each >> prefix_bits_ != 0) continue;  // what is behind the last prefix is known
    if (starts_[each].load(std::memory_order_relaxed) != kUnknown) continue;
    Id first{};
    StoreBe<uint64_t>(first.data(), each << (64 - prefix_bits_));
    const uint64_t start = LowerBound(first, {0, entries_}, near_by);
    starts_[each].store(static_cast<uint32_t>(start), std::memory_order_relaxed);
  }
}

// REQUIRES: there are entries.
uint64_t IndexRun::FindFirst(const Id& id) const {
  const Range all{0, entries_};
  if (starts_ == nullptr) return LowerBound(id, all, Guess(id));
  const auto value = LoadBe<uint64_t>(id.data());
  const uint64_t prefix = value >> (64 - prefix_bits_);
  const bool is_last = (prefix + 1) >> prefix_bits_ != 0;
  const uint64_t first = starts_[prefix].load(std::memory_order_relaxed);
  const uint64_t last = is_last ? entries_ : starts_[prefix + 1].load(std::memory_order_relaxed);
  if (first == kUnknown || last == kUnknown) {
    const uint64_t found = LowerBound(id, all, Guess(id));
    LearnStarts(prefix, found);
    return found;
  }
  if (first >= last) return first;  // no ids, or a damaged run's that are in no order
  const uint64_t guess = first + Part(value << prefix_bits_, last - first);
  PrefetchAround(guess);
  return LowerBound(id, {first, last}, guess);
}

IndexRun::Range IndexRun::Find(const Id& id) const {
  if (entries_ == 0) return {};
  const uint64_t first = FindFirst(id);
  Range range{first, first};
  while (range.last < entries_ && std::memcmp(IdAt(range.last), id.data(), 32) == 0) ++range.last;
  return range;
}

Status IndexRun::CheckHash() const {
  const auto hashed = bytes_.first(bytes_.size() - kIndexHashBytes);
  const Id hash = key_ ? Blake3Keyed(*key_, hashed) : Blake3(hashed);
  if (std::memcmp(hash.data(), bytes_.data() + hashed.size(), kIndexHashBytes) == 0) {
    return Status::Ok();
  }
  if (!key_) return Corrupt("the index run does not match its hash").At(path_);
  return Status::Error(
             Code::kTampered,
             "the index run is not what a writer of this repository made; it can be made again")
      .At(path_);
}

Status IndexRun::Verify() const {
  FIRN_RETURN_IF_ERROR(CheckHash());
  for (uint64_t i = 0; i < entries_; ++i) {
    const IndexEntry entry = Entry(i);
    const bool ordered = i == 0 || std::memcmp(IdAt(i - 1), IdAt(i), 32) <= 0;
    if (!ordered || entry.pack >= packs_.size() ||
        !RangeInside(entry.offset, uint64_t{kRecordHeaderBytes} + entry.stored_length,
                     packs_[entry.pack].file_bytes)) {
      return Corrupt("the index run holds an entry that no index run has")
          .At(path_, static_cast<uint64_t>(IdAt(i) - bytes_.data()));
    }
  }
  return Status::Ok();
}

Status WriteIndexRun(FileSystem& fs, const std::string& path, std::span<const IndexPack> packs,
                     std::vector<IndexEntry>* entries, const std::optional<Key>& key) {
  std::sort(entries->begin(), entries->end(), [](const IndexEntry& a, const IndexEntry& b) {
    return a.id != b.id ? a.id < b.id : a.pack < b.pack;
  });
  entries->erase(std::unique(entries->begin(), entries->end(),
                             [](const IndexEntry& a, const IndexEntry& b) {
                               return a.id == b.id && a.pack == b.pack;
                             }),
                 entries->end());
  const auto source = [entries](const std::function<Status(const IndexEntry&)>& visit) {
    for (const IndexEntry& entry : *entries) FIRN_RETURN_IF_ERROR(visit(entry));
    return Status::Ok();
  };
  return WriteSortedIndexRun(fs, path, packs, source, key);
}

Status WriteSortedIndexRun(FileSystem& fs, const std::string& path,
                           std::span<const IndexPack> packs, const IndexEntrySource& source,
                           const std::optional<Key>& key) {
  const std::string partial = path + ".partial";
  Status status;
  {
    FIRN_ASSIGN_OR_RETURN(std::unique_ptr<File> file,
                          fs.Open(partial, {.access = Access::kCreateAlways}));
    status = WriteSections(file.get(), packs, source, key);
    if (status.ok()) status = file->Sync();
  }
  if (status.ok()) status = fs.RenameNew(partial, path);
  if (!status.ok()) {
    (void)fs.Remove(partial);
    return status;
  }
  return fs.SyncDirectory(DirectoryOf(path));
}

}  // namespace firn
