#include "index/chunk_index.h"

#include <algorithm>
#include <mutex>

namespace firn {

Result<std::unique_ptr<ChunkIndex>> ChunkIndex::Open(FileSystem& fs,
                                                     const RepositoryListing& listing) {
  std::unique_ptr<ChunkIndex> index(new ChunkIndex(fs, listing.root, listing.index_key));
  for (const PackName& name : listing.packs) {
    index->pack_positions_.emplace(name, static_cast<uint32_t>(index->packs_.size()));
    index->packs_.push_back({.name = name});
  }
  for (const PackName& name : listing.condemned) {
    auto place = index->pack_positions_.find(name);
    if (place != index->pack_positions_.end()) index->packs_[place->second].condemned = true;
  }
  for (const PackDamage& damage : listing.damaged) index->AddDamage(damage);
  for (auto& [pack, damage] : index->damage_) std::sort(damage.ids.begin(), damage.ids.end());
  index->listed_packs_ = index->packs_.size();
  index->relied_ = std::make_unique<std::atomic<bool>[]>(index->listed_packs_);
  for (const std::string& name : listing.index_runs) {
    FIRN_ASSIGN_OR_RETURN(
        std::unique_ptr<IndexRun> run,
        IndexRun::Open(fs, JoinPath(JoinPath(listing.root, "index"), name), listing.index_key));
    // Where others must not decide what is taken for stored, the whole run is read before it is
    // believed: a second for each ten million chunks.
    if (listing.index_key) FIRN_RETURN_IF_ERROR(run->CheckHash());
    index->Insert(std::move(run));
  }
  return index;
}

void ChunkIndex::AddDamage(const PackDamage& damage) {
  auto place = pack_positions_.find(damage.pack);
  if (place == pack_positions_.end()) return;
  packs_[place->second].damaged = true;
  PackDamage& known = damage_[place->second];
  known.pack = damage.pack;
  known.whole |= damage.whole;
  known.ids.insert(known.ids.end(), damage.ids.begin(), damage.ids.end());
}

// REQUIRES: mutex_ held exclusively, or nobody else has the index yet.
void ChunkIndex::Insert(std::unique_ptr<IndexRun> run) {
  std::vector<uint32_t> positions;
  positions.reserve(run->packs().size());
  for (const IndexPack& pack : run->packs()) {
    auto place = pack_positions_.find(pack.name);
    positions.push_back(place == pack_positions_.end() ? kAbsent : place->second);
  }
  run_packs_.push_back(std::move(positions));
  runs_.push_back(std::move(run));
}

Status ChunkIndex::AddRun(const std::string& file_name) {
  FIRN_ASSIGN_OR_RETURN(
      std::unique_ptr<IndexRun> run,
      IndexRun::Open(fs_, JoinPath(JoinPath(root_, "index"), file_name), index_key_));
  std::unique_lock lock(mutex_);
  for (const IndexPack& pack : run->packs()) {
    auto [place, inserted] =
        pack_positions_.emplace(pack.name, static_cast<uint32_t>(packs_.size()));
    if (inserted) packs_.push_back({.name = pack.name});
  }
  Insert(std::move(run));
  return Status::Ok();
}

// REQUIRES: mutex_ held.
template <typename Visit>
void ChunkIndex::ForEachPlace(const Id& id, Visit visit) const {
  // All at once rather than one after the other: what is new is looked for in every run.
  for (const auto& run : runs_) run->Prefetch(id);
  // Newest first: what a run wrote itself is what it meets again most.
  for (size_t r = runs_.size(); r-- > 0;) {
    const IndexRun& run = *runs_[r];
    if (!run.MayContain(id)) continue;
    const IndexRun::Range range = run.Find(id);
    for (uint64_t i = range.first; i < range.last; ++i) {
      const IndexEntry entry = run.Entry(i);
      if (entry.pack >= run_packs_[r].size()) continue;  // a damaged run: not believed
      const uint32_t pack = run_packs_[r][entry.pack];
      if (pack == kAbsent) continue;
      if (!visit(ChunkPlace{pack, entry.offset, entry.stored_length, entry.raw_length,
                            entry.record_class})) {
        return;
      }
    }
  }
}

// REQUIRES: mutex_ held.
bool ChunkIndex::IsDamagedIn(uint32_t pack, const Id& id) const {
  if (!packs_[pack].damaged) return false;
  const PackDamage& damage = damage_.at(pack);
  return damage.whole || std::binary_search(damage.ids.begin(), damage.ids.end(), id);
}

// REQUIRES: mutex_ held.
bool ChunkIndex::IsGood(uint32_t pack, const Id& id) const {
  return !packs_[pack].condemned && !IsDamagedIn(pack, id);
}

// REQUIRES: mutex_ held.
std::optional<ChunkPlace> ChunkIndex::FindGood(const Id& id) const {
  std::optional<ChunkPlace> found;
  ForEachPlace(id, [&](const ChunkPlace& place) {
    if (IsGood(place.pack, id)) found = place;
    return !found;
  });
  return found;
}

bool ChunkIndex::IsDamaged(uint32_t pack, const Id& id) const {
  std::shared_lock lock(mutex_);
  return IsDamagedIn(pack, id);
}

bool ChunkIndex::HasDamage(uint32_t pack) const {
  std::shared_lock lock(mutex_);
  return packs_[pack].damaged;
}

std::optional<ChunkPlace> ChunkIndex::Find(const Id& id) const {
  {
    std::shared_lock lock(mutex_);
    if (auto place = FindGood(id)) return place;
  }
  const std::vector<ChunkPlace> places = FindAll(id);
  if (places.empty()) return std::nullopt;
  return places.front();
}

std::vector<ChunkPlace> ChunkIndex::FindAll(const Id& id) const {
  std::shared_lock lock(mutex_);
  std::vector<ChunkPlace> places;
  ForEachPlace(id, [&](const ChunkPlace& place) {
    places.push_back(place);
    return true;
  });
  const auto rank = [&](const ChunkPlace& place) {
    return (IsDamagedIn(place.pack, id) ? 2 : 0) + (packs_[place.pack].condemned ? 1 : 0);
  };
  std::stable_sort(places.begin(), places.end(),
                   [&](const ChunkPlace& a, const ChunkPlace& b) { return rank(a) < rank(b); });
  return places;
}

bool ChunkIndex::Rely(const Id& id) {
  std::shared_lock lock(mutex_);
  const auto place = FindGood(id);
  if (!place) return false;
  RelyOn(place->pack);
  return true;
}

bool ChunkIndex::RelyOnChunk(const Id& id, uint32_t raw_length) {
  std::shared_lock lock(mutex_);
  const auto place = FindGood(id);
  if (!place || place->record_class != RecordClass::kChunk || place->raw_length != raw_length) {
    return false;
  }
  RelyOn(place->pack);
  return true;
}

// REQUIRES: mutex_ held.
void ChunkIndex::RelyOn(uint32_t pack) {
  if (pack < listed_packs_) relied_[pack].store(true, std::memory_order_relaxed);
}

std::vector<PackName> ChunkIndex::ReliedPacks() const {
  std::shared_lock lock(mutex_);
  std::vector<PackName> names;
  for (size_t i = 0; i < listed_packs_; ++i) {
    if (relied_[i].load(std::memory_order_relaxed)) names.push_back(packs_[i].name);
  }
  return names;
}

PackName ChunkIndex::pack_name(uint32_t pack) const {
  std::shared_lock lock(mutex_);
  return packs_[pack].name;
}

uint64_t ChunkIndex::entries() const {
  std::shared_lock lock(mutex_);
  uint64_t total = 0;
  for (const auto& run : runs_) total += run->entries();
  return total;
}

}  // namespace firn
