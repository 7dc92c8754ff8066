// Has this chunk been seen? By earlier runs (the index) or by this one.
//
// Thread-safe. A chunk that this run has claimed counts as seen from then on, though it may not be
// in a pack yet: if its writer fails, so does the run. Finished packs are collected into index
// runs; when their entries reach the bound, an index run is written early and takes over from the
// set in memory, so that memory does not grow with the backup.
#ifndef FIRN_PIPELINE_CHUNK_REGISTRY_H_
#define FIRN_PIPELINE_CHUNK_REGISTRY_H_

#include <functional>
#include <mutex>
#include <string>
#include <vector>

#include "index/chunk_index.h"
#include "index/id_set.h"
#include "pack/pack_format.h"

namespace firn {

class ChunkRegistry {
 public:
  // Memory that one entry takes until its index run is written: in the set, and in the list.
  static constexpr uint64_t kEntryBytes = sizeof(Id) * 2 + sizeof(IndexEntry);

  // Makes the names of finished packs durable, before an index run names them.
  using SyncPacks = std::function<Status()>;

  ChunkRegistry(ChunkIndex* index, const RunId& run, uint32_t attempt, uint64_t entries_max)
      : index_(index), run_(run), attempt_(attempt), entries_max_(entries_max) {}
  void set_sync_packs(SyncPacks sync_packs) { sync_packs_ = std::move(sync_packs); }

  // True for the one caller who is to store it.
  bool Claim(const Id& id) {
    if (index_->Rely(id) || !claimed_.Insert(id)) return false;
    // Between the two looks an index run may have taken over what another caller had claimed.
    if (!index_->Rely(id)) return true;
    claimed_.Erase(id);
    return false;
  }

  // Whether a chunk that an earlier map names lies in a pack that a new point may rely on; that
  // pack is remembered as relied on.
  bool Keep(const Id& id, uint32_t raw_length) { return index_->RelyOnChunk(id, raw_length); }

  // A pack is durable and has its name. Called by one thread at a time (PackWriter's receiver).
  Status AddPack(const PackName& name, const PackTable& table);
  // Writes what has not been written. REQUIRES: all packs are added and their names durable.
  Status Finish();

  const std::vector<std::string>& index_runs() const { return index_runs_; }
  const std::vector<PackName>& packs() const { return all_packs_; }

 private:
  Status WriteRun();

  ChunkIndex* const index_;
  const RunId run_;
  const uint32_t attempt_;
  const uint64_t entries_max_;
  SyncPacks sync_packs_;
  IdSet claimed_;
  std::vector<IndexPack> packs_;  // of the run being collected
  std::vector<IndexEntry> entries_;
  std::vector<std::string> index_runs_;
  std::vector<PackName> all_packs_;
};

}  // namespace firn

#endif  // FIRN_PIPELINE_CHUNK_REGISTRY_H_
