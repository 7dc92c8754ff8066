// What of a repository is live: one bit for each entry of its index.
//
// A collection marks every id that a point needs, and then asks which packs hold what. A set of ids
// would take memory with the repository; a bit beside each index entry takes an eighth of a byte.
// Packs that no index run names (their writers died, or are at work) are read and stand beside the
// index runs as one more table. All copies of an id are marked, in whatever table and pack they
// are.
//
// Mark is safe from several threads; everything else belongs to one thread at a time. The index
// runs stay mapped, so that what becomes of their files meanwhile does not matter.
#ifndef FIRN_PIPELINE_COLLECT_INDEX_H_
#define FIRN_PIPELINE_COLLECT_INDEX_H_

#include <algorithm>
#include <atomic>
#include <map>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "index/chunk_index.h"
#include "pack/pack_format.h"

namespace firn {

// A listed pack, and what marking has found out about it. Bytes are those of records with their
// headers.
struct CollectPack {
  PackName name;
  bool named = false;      // by an index run
  bool known = false;      // its records are known, from the index or from its own table
  bool condemned = false;  // by anyone but this collection
  bool victim = false;     // of this collection
  bool is_map = false;     // holds map objects
  bool needed = false;     // holds a live record of which no pack that stays has a whole copy
  bool damaged = false;    // a scrub has found damage in it
  bool unhealed = false;   // holds a live record all copies of which are damaged
  uint64_t file_bytes = 0;
  uint64_t records = 0, record_bytes = 0;
  uint64_t live_bytes = 0;
  // Of every live record one copy counts as owned, so that duplicates are waste.
  uint64_t owned_records = 0, owned_bytes = 0;

  // What is in it stays there, and a reader finds it.
  bool stays() const { return named && !condemned && !victim; }
};

class LiveIndex {
 public:
  enum class Found : uint8_t { kNowhere, kBefore, kNew };
  struct Copy {
    uint32_t table = 0;
    uint32_t pack = 0;  // position in packs()
    uint64_t row = 0;   // in the table
  };
  static constexpr uint32_t kAbsent = ~uint32_t{0};

  // `victims` and the listing's condemned packs do not stay. kCorruptIndex if a run is not what its
  // hash says: what is to be deleted is decided by them.
  static Result<std::unique_ptr<LiveIndex>> Open(FileSystem& fs, const RepositoryListing& listing,
                                                 const std::vector<PackName>& victims);

  const ChunkIndex& index() const { return *index_; }
  std::vector<CollectPack>& packs() { return packs_; }
  const std::vector<CollectPack>& packs() const { return packs_; }
  // Position in packs(), or kAbsent.
  uint32_t Position(const PackName& name) const;

  // Takes in packs that no run names. To be called once, before anything is marked; `entries` name
  // packs by position.
  void SetUnnamed(std::vector<IndexEntry> entries);

  Found Mark(const Id& id);

  // Calls `visit(id, copies)` for each live id, ascending, with its copies in listed packs, of
  // which there is one at least.
  template <typename Visit>
  void ForEachLive(Visit visit) const;

  IndexEntry EntryOf(const Copy& copy) const { return tables_[copy.table].Entry(copy.row); }

  // Nobody has found it damaged.
  bool IsWhole(const Id& id, const Copy& copy) const {
    return !packs_[copy.pack].damaged || !index_->IsDamaged(copy.pack, id);
  }

  // Fills in the packs' live and owned bytes and whether they are needed.
  void Account();

  // Notes copies that are to be moved, and asks for them by their packs.
  void Choose(const Copy& copy);
  bool IsChosen(const Id& id, uint32_t pack) const;

 private:
  struct Table {
    const IndexRun* run = nullptr;    // or, without one,
    std::vector<IndexEntry> entries;  // sorted by id
    std::vector<uint32_t> positions;  // of the run's packs in packs_
    uint64_t rows = 0;
    std::unique_ptr<std::atomic<uint64_t>[]> live;
    std::vector<uint64_t> chosen;  // as many bits as live; empty before the first

    IndexEntry Entry(uint64_t row) const { return run ? run->Entry(row) : entries[row]; }
    IndexRun::Range Find(const Id& id) const;
    uint32_t PackOf(uint64_t row) const;
    // The first live row at or after `row`; `rows` if there is none.
    uint64_t NextLive(uint64_t row) const;
    void AllocateBits();
  };

  LiveIndex() = default;
  void AddRun(const IndexRun& run);

  std::unique_ptr<ChunkIndex> index_;
  std::vector<CollectPack> packs_;
  std::map<PackName, uint32_t> positions_;
  std::vector<Table> tables_;
};

template <typename Visit>
void LiveIndex::ForEachLive(Visit visit) const {
  struct Cursor {
    Id id{};
    uint32_t table = 0;
    uint64_t row = 0;
  };
  const auto later = [](const Cursor& a, const Cursor& b) { return b.id < a.id; };
  std::vector<Cursor> heap;
  const auto push = [&](uint32_t table, uint64_t from) {
    const uint64_t row = tables_[table].NextLive(from);
    if (row == tables_[table].rows) return;
    heap.push_back({tables_[table].Entry(row).id, table, row});
    std::push_heap(heap.begin(), heap.end(), later);
  };
  for (uint32_t table = 0; table < tables_.size(); ++table) push(table, 0);
  std::vector<Copy> copies;
  while (!heap.empty()) {
    const Id id = heap.front().id;
    copies.clear();
    while (!heap.empty() && heap.front().id == id) {
      std::pop_heap(heap.begin(), heap.end(), later);
      const Cursor cursor = heap.back();
      heap.pop_back();
      const uint32_t pack = tables_[cursor.table].PackOf(cursor.row);
      const auto same = [pack](const Copy& copy) { return copy.pack == pack; };
      if (pack != kAbsent && std::none_of(copies.begin(), copies.end(), same)) {
        copies.push_back({cursor.table, pack, cursor.row});
      }
      push(cursor.table, cursor.row + 1);
    }
    if (!copies.empty()) visit(id, std::span<const Copy>(copies));
  }
}

}  // namespace firn

#endif  // FIRN_PIPELINE_COLLECT_INDEX_H_
