#include "index/chunk_index.h"

#include <mutex>

namespace firn {

Result<std::unique_ptr<ChunkIndex>> ChunkIndex::Open(FileSystem& fs,
                                                     const RepositoryListing& listing) {
  std::unique_ptr<ChunkIndex> index(new ChunkIndex(fs, listing.root));
  for (const PackName& name : listing.packs) {
    index->pack_positions_.emplace(name, static_cast<uint32_t>(index->packs_.size()));
    index->packs_.push_back({name, false});
  }
  for (const PackName& name : listing.condemned) {
    auto place = index->pack_positions_.find(name);
    if (place != index->pack_positions_.end()) index->packs_[place->second].condemned = true;
  }
  index->listed_packs_ = index->packs_.size();
  index->relied_ = std::make_unique<std::atomic<bool>[]>(index->listed_packs_);
  for (const std::string& name : listing.index_runs) {
    FIRN_ASSIGN_OR_RETURN(std::unique_ptr<IndexRun> run,
                          IndexRun::Open(fs, JoinPath(JoinPath(listing.root, "index"), name)));
    index->Insert(std::move(run));
  }
  return index;
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
  FIRN_ASSIGN_OR_RETURN(std::unique_ptr<IndexRun> run,
                        IndexRun::Open(fs_, JoinPath(JoinPath(root_, "index"), file_name)));
  std::unique_lock lock(mutex_);
  for (const IndexPack& pack : run->packs()) {
    auto [place, inserted] =
        pack_positions_.emplace(pack.name, static_cast<uint32_t>(packs_.size()));
    if (inserted) packs_.push_back({pack.name, false});
  }
  Insert(std::move(run));
  return Status::Ok();
}

template <typename Accept>
std::optional<ChunkPlace> ChunkIndex::FindAccepted(const Id& id, Accept accept) const {
  // Newest first: what a run wrote itself is what it meets again most.
  for (size_t r = runs_.size(); r-- > 0;) {
    const IndexRun& run = *runs_[r];
    if (!run.MayContain(id)) continue;
    const IndexRun::Range range = run.Find(id);
    for (uint64_t i = range.first; i < range.last; ++i) {
      const IndexEntry entry = run.Entry(i);
      if (entry.pack >= run_packs_[r].size()) continue;  // a damaged run: not believed
      const uint32_t pack = run_packs_[r][entry.pack];
      if (pack == kAbsent || !accept(packs_[pack])) continue;
      return ChunkPlace{pack, entry.offset, entry.stored_length, entry.raw_length,
                        entry.record_class};
    }
  }
  return std::nullopt;
}

std::optional<ChunkPlace> ChunkIndex::Find(const Id& id) const {
  std::shared_lock lock(mutex_);
  auto place = FindAccepted(id, [](const Pack& pack) { return !pack.condemned; });
  if (!place) place = FindAccepted(id, [](const Pack&) { return true; });
  return place;
}

bool ChunkIndex::Rely(const Id& id) {
  std::shared_lock lock(mutex_);
  const auto place = FindAccepted(id, [](const Pack& pack) { return !pack.condemned; });
  if (!place) return false;
  RelyOn(place->pack);
  return true;
}

bool ChunkIndex::RelyOnChunk(const Id& id, uint32_t raw_length) {
  std::shared_lock lock(mutex_);
  const auto place = FindAccepted(id, [](const Pack& pack) { return !pack.condemned; });
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
