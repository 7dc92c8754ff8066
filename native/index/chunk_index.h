// Where is this chunk? All index runs of a repository together.
//
// Only packs that were listed count: what an index run says of a pack that is gone is forgotten.
// Condemned packs (about to be collected) can be read from but are never relied on. Nor are copies
// that were found damaged: they are read only where there is no other. Lookups are safe from
// several threads, also while AddRun takes in another run.
#ifndef FIRN_INDEX_CHUNK_INDEX_H_
#define FIRN_INDEX_CHUNK_INDEX_H_

#include <atomic>
#include <map>
#include <memory>
#include <optional>
#include <shared_mutex>
#include <string>
#include <vector>

#include "index/index_run.h"

namespace firn {

struct ChunkPlace {
  uint32_t pack = 0;  // position in ChunkIndex::packs()
  uint32_t offset = 0;
  uint32_t stored_length = 0;
  uint32_t raw_length = 0;
  RecordClass record_class = RecordClass::kChunk;
};

// Copies that were found damaged, by a scrub: records of one pack. docs/repository-format.md
// section 11.
struct PackDamage {
  PackName pack;
  bool whole = false;   // every record of the pack, whatever `ids` says
  std::vector<Id> ids;  // none: the pack is damaged where no record is
};

struct RepositoryListing {
  std::string root;                     // the folder
  std::optional<Key> index_key;         // of a sealed repository: SealedIndexKey
  std::vector<std::string> index_runs;  // file names in index/
  std::vector<PackName> packs;          // that exist
  std::vector<PackName> condemned;
  std::vector<PackDamage> damaged;  // a pack may be in it more than once
};

class ChunkIndex {
 public:
  static Result<std::unique_ptr<ChunkIndex>> Open(FileSystem& fs, const RepositoryListing& listing);

  // A place of the record: the one that FindAll has first.
  std::optional<ChunkPlace> Find(const Id& id) const;
  // Every place of it in a listed pack, for when one turns out to be damaged: first those not known
  // to be, and of these those in packs that are not condemned.
  std::vector<ChunkPlace> FindAll(const Id& id) const;

  // Whether the copy of this record in this pack, or the pack, was found damaged.
  bool IsDamaged(uint32_t pack, const Id& id) const;
  bool HasDamage(uint32_t pack) const;

  // Whether a pack that is not condemned holds it undamaged, as far as is known. That pack is
  // remembered as relied on.
  bool Rely(const Id& id);
  // The same for a chunk of known length, which something other than its content names: a record of
  // another kind or length does not count.
  bool RelyOnChunk(const Id& id, uint32_t raw_length);
  // The packs that Rely and RelyOnChunk have answered with, of those that were listed.
  std::vector<PackName> ReliedPacks() const;

  // Takes in an index run that was just written, with the packs it names.
  Status AddRun(const std::string& file_name);

  const std::string& root() const { return root_; }
  const std::optional<Key>& index_key() const { return index_key_; }
  FileSystem& file_system() const { return fs_; }
  // Every pack that some run names and the listing has. Grows with AddRun only.
  PackName pack_name(uint32_t pack) const;
  uint64_t entries() const;
  const std::vector<std::unique_ptr<IndexRun>>& runs() const { return runs_; }

 private:
  struct Pack {
    PackName name;
    bool condemned = false;
    bool damaged = false;  // damage_ has it
  };
  // Positions of a run's packs in packs_; kAbsent for those not listed.
  static constexpr uint32_t kAbsent = ~uint32_t{0};

  ChunkIndex(FileSystem& fs, std::string root, const std::optional<Key>& index_key)
      : fs_(fs), root_(std::move(root)), index_key_(index_key) {}
  void Insert(std::unique_ptr<IndexRun> run);
  void AddDamage(const PackDamage& damage);
  bool IsDamagedIn(uint32_t pack, const Id& id) const;
  // What a writer may rely on: not condemned, and not known to be damaged.
  bool IsGood(uint32_t pack, const Id& id) const;
  void RelyOn(uint32_t pack);
  // Calls `visit(place)` for each place in a listed pack, newest run first, until it returns false.
  template <typename Visit>
  void ForEachPlace(const Id& id, Visit visit) const;
  std::optional<ChunkPlace> FindGood(const Id& id) const;

  FileSystem& fs_;
  const std::string root_;
  const std::optional<Key> index_key_;
  mutable std::shared_mutex mutex_;
  std::vector<std::unique_ptr<IndexRun>> runs_;
  std::vector<std::vector<uint32_t>> run_packs_;  // beside runs_
  std::vector<Pack> packs_;
  std::map<PackName, uint32_t> pack_positions_;
  std::map<uint32_t, PackDamage> damage_;        // by position; ids ascending
  std::unique_ptr<std::atomic<bool>[]> relied_;  // for the packs that were listed
  size_t listed_packs_ = 0;
};

}  // namespace firn

#endif  // FIRN_INDEX_CHUNK_INDEX_H_
