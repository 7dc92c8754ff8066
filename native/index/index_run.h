// Index runs: immutable sorted tables from ids to places in packs. docs/repository-format.md
// section 7.
//
// An IndexRun is memory-mapped and safe for concurrent lookups. Opening checks the header and the
// sections' bounds and reads no entry; every value that an entry gives is checked when it is used,
// and Verify checks the hash of all bytes. What lookups learn of the places of ids is kept, an
// eighth of a byte for each entry at most.
#ifndef FIRN_INDEX_INDEX_RUN_H_
#define FIRN_INDEX_INDEX_RUN_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/status.h"
#include "io/file.h"
#include "pack/pack_format.h"

namespace firn {

inline constexpr uint32_t kIndexHeaderBytes = 128;
inline constexpr uint32_t kIndexPackBytes = 64;
inline constexpr uint32_t kIndexEntryBytes = 48;
inline constexpr uint32_t kIndexFilterBlockBytes = 64;
inline constexpr uint32_t kIndexHashBytes = 32;

struct IndexPack {
  PackName name;
  uint64_t file_bytes = 0;
  Id hash{};
};

// Where a record lies. `pack` counts from 0 in the table that it came with.
struct IndexEntry {
  Id id{};
  uint32_t pack = 0;
  uint32_t offset = 0;
  uint32_t stored_length = 0;
  uint32_t raw_length = 0;
  RecordClass record_class = RecordClass::kChunk;
};

class IndexRun {
 public:
  // `key` is that of a sealed repository's index runs (SealedIndexKey).
  static Result<std::unique_ptr<IndexRun>> Open(FileSystem& fs, const std::string& path,
                                                const std::optional<Key>& key = std::nullopt);

  const std::string& path() const { return path_; }
  const std::vector<IndexPack>& packs() const { return packs_; }
  uint64_t entries() const { return entries_; }
  IndexEntry Entry(uint64_t i) const;

  // False: certainly not here. True: look.
  bool MayContain(const Id& id) const;
  // Has the memory fetched meanwhile that MayContain will look at.
  void Prefetch(const Id& id) const;
  // [first, last) of the entries with this id.
  struct Range {
    uint64_t first = 0;
    uint64_t last = 0;
  };
  Range Find(const Id& id) const;

  // Reads everything: the hash, the order, every entry's bounds.
  Status Verify() const;
  // The hash alone. With a key it tells that a holder of the key wrote it: kTampered.
  Status CheckHash() const;

 private:
  IndexRun(std::string path, std::unique_ptr<MappedFile> file, const std::optional<Key>& key)
      : path_(std::move(path)), key_(key), file_(std::move(file)), bytes_(file_->bytes()) {}
  Status ReadHeader();
  const uint8_t* IdAt(uint64_t i) const { return entry_bytes_ + i * kIndexEntryBytes; }
  uint64_t Guess(const Id& id) const;
  void PrefetchAround(uint64_t guess) const;
  uint64_t LowerBound(const Id& id, Range within, uint64_t guess) const;
  uint64_t FindFirst(const Id& id) const;
  void LearnStarts(uint64_t prefix, uint64_t near_by) const;

  const std::string path_;
  const std::optional<Key> key_;
  const std::unique_ptr<MappedFile> file_;
  const std::span<const uint8_t> bytes_;
  std::vector<IndexPack> packs_;
  uint64_t entries_ = 0;
  const uint8_t* entry_bytes_ = nullptr;
  const uint8_t* filter_ = nullptr;
  uint64_t filter_blocks_ = 0;
  // Where the ids of each prefix, the first prefix_bits_ bits, start: kUnknown until one of them
  // was looked for. Lookups then touch the mapped file once instead of three times.
  static constexpr uint32_t kUnknown = ~uint32_t{0};
  int prefix_bits_ = 0;
  std::unique_ptr<std::atomic<uint32_t>[]> starts_;
};

// Sorts the entries and writes them as an index run under `path`: durable, then named (kExists if
// taken), the folder synced. `entries` name packs by position in `packs`. Entries that are equal in
// id and pack are written once.
Status WriteIndexRun(FileSystem& fs, const std::string& path, std::span<const IndexPack> packs,
                     std::vector<IndexEntry>* entries,
                     const std::optional<Key>& key = std::nullopt);

// Calls its argument for each entry, by id and then by pack, none of them twice; the same each
// time.
using IndexEntrySource =
    std::function<Status(const std::function<Status(const IndexEntry&)>& visit)>;

// The same for entries that are not in memory: the source is gone through three times.
Status WriteSortedIndexRun(FileSystem& fs, const std::string& path,
                           std::span<const IndexPack> packs, const IndexEntrySource& source,
                           const std::optional<Key>& key = std::nullopt);

}  // namespace firn

#endif  // FIRN_INDEX_INDEX_RUN_H_
