#include "pipeline/collect_index.h"

#include <bit>

namespace firn {

namespace {

uint64_t RecordBytes(const IndexEntry& entry) {
  return uint64_t{kRecordHeaderBytes} + entry.stored_length;
}

// The copy that counts: the one in the pack that is live for the largest part, so that the packs
// that are worth keeping gather what is needed and the others become waste.
template <typename Accept>
const LiveIndex::Copy* OwnerOf(std::span<const LiveIndex::Copy> copies,
                               const std::vector<CollectPack>& packs, Accept accept) {
  const LiveIndex::Copy* owner = nullptr;
  const auto share = [&](const LiveIndex::Copy& copy) {
    const CollectPack& pack = packs[copy.pack];
    return static_cast<double>(pack.live_bytes) / static_cast<double>(pack.record_bytes);
  };
  const auto is_better = [&](const LiveIndex::Copy& a, const LiveIndex::Copy& b) {
    if (share(a) != share(b)) return share(a) > share(b);
    if (packs[a.pack].live_bytes != packs[b.pack].live_bytes) {
      return packs[a.pack].live_bytes > packs[b.pack].live_bytes;
    }
    return a.pack < b.pack;
  };
  for (const LiveIndex::Copy& copy : copies) {
    if (!packs[copy.pack].stays() || !accept(copy)) continue;
    if (owner == nullptr || is_better(copy, *owner)) owner = &copy;
  }
  return owner;
}

}  // namespace

IndexRun::Range LiveIndex::Table::Find(const Id& id) const {
  if (run != nullptr) {
    if (!run->MayContain(id)) return {};
    return run->Find(id);
  }
  const auto less = [](const IndexEntry& entry, const Id& wanted) { return entry.id < wanted; };
  const auto first = std::lower_bound(entries.begin(), entries.end(), id, less);
  auto last = first;
  while (last != entries.end() && last->id == id) ++last;
  return {static_cast<uint64_t>(first - entries.begin()),
          static_cast<uint64_t>(last - entries.begin())};
}

uint32_t LiveIndex::Table::PackOf(uint64_t row) const {
  const uint32_t pack = Entry(row).pack;
  if (run == nullptr) return pack;
  return pack < positions.size() ? positions[pack] : kAbsent;
}

uint64_t LiveIndex::Table::NextLive(uint64_t row) const {
  while (row < rows) {
    const uint64_t word = live[row / 64].load(std::memory_order_relaxed) >> (row % 64);
    if (word != 0) return row + static_cast<uint64_t>(std::countr_zero(word));
    row = (row / 64 + 1) * 64;
  }
  return rows;
}

void LiveIndex::Table::AllocateBits() {
  live = std::make_unique<std::atomic<uint64_t>[]>(DivideUp(rows, 64));
}

Result<std::unique_ptr<LiveIndex>> LiveIndex::Open(FileSystem& fs, const RepositoryListing& listing,
                                                   const std::vector<PackName>& victims) {
  std::unique_ptr<LiveIndex> live(new LiveIndex());
  FIRN_ASSIGN_OR_RETURN(live->index_, ChunkIndex::Open(fs, listing));
  for (const PackName& name : listing.packs) {
    live->positions_.emplace(name, static_cast<uint32_t>(live->packs_.size()));
    live->packs_.emplace_back().name = name;
  }
  for (const PackName& name : listing.condemned) {
    const uint32_t pack = live->Position(name);
    if (pack != kAbsent) live->packs_[pack].condemned = true;
  }
  for (const PackName& name : victims) {
    const uint32_t pack = live->Position(name);
    if (pack != kAbsent) live->packs_[pack].victim = true;
  }
  // Both number the listed packs as they are listed.
  for (uint32_t pack = 0; pack < live->packs_.size(); ++pack) {
    live->packs_[pack].damaged = live->index_->HasDamage(pack);
  }
  for (const auto& run : live->index_->runs()) {
    FIRN_RETURN_IF_ERROR(run->Verify());
    live->AddRun(*run);
  }
  return live;
}

uint32_t LiveIndex::Position(const PackName& name) const {
  const auto place = positions_.find(name);
  return place == positions_.end() ? kAbsent : place->second;
}

void LiveIndex::AddRun(const IndexRun& run) {
  Table& table = tables_.emplace_back();
  table.run = &run;
  table.rows = run.entries();
  table.AllocateBits();
  // A pack that an earlier run has named is counted there.
  std::vector<bool> counts;
  for (const IndexPack& row : run.packs()) {
    const uint32_t position = Position(row.name);
    table.positions.push_back(position);
    counts.push_back(position != kAbsent && !packs_[position].named);
    if (position == kAbsent) continue;
    packs_[position].named = packs_[position].known = true;
    packs_[position].file_bytes = row.file_bytes;
  }
  for (uint64_t i = 0; i < table.rows; ++i) {
    const IndexEntry entry = run.Entry(i);
    if (!counts[entry.pack]) continue;  // Verify has checked its bounds
    CollectPack& pack = packs_[table.positions[entry.pack]];
    ++pack.records;
    pack.record_bytes += RecordBytes(entry);
    pack.is_map = entry.record_class == RecordClass::kMap;
  }
}

void LiveIndex::SetUnnamed(std::vector<IndexEntry> entries) {
  std::sort(entries.begin(), entries.end(), [](const IndexEntry& a, const IndexEntry& b) {
    return a.id != b.id ? a.id < b.id : a.pack < b.pack;
  });
  for (const IndexEntry& entry : entries) {
    CollectPack& pack = packs_[entry.pack];
    ++pack.records;
    pack.record_bytes += RecordBytes(entry);
    pack.is_map = entry.record_class == RecordClass::kMap;
  }
  Table& table = tables_.emplace_back();
  table.entries = std::move(entries);
  table.rows = table.entries.size();
  table.AllocateBits();
}

LiveIndex::Found LiveIndex::Mark(const Id& id) {
  Found found = Found::kNowhere;
  for (Table& table : tables_) {
    const IndexRun::Range range = table.Find(id);
    for (uint64_t row = range.first; row < range.last; ++row) {
      if (table.PackOf(row) == kAbsent) continue;
      const uint64_t bit = uint64_t{1} << (row % 64);
      const uint64_t before = table.live[row / 64].fetch_or(bit, std::memory_order_relaxed);
      // Whoever sets the first copy's bit is the one who marked the id.
      if (found == Found::kNowhere) found = (before & bit) == 0 ? Found::kNew : Found::kBefore;
    }
  }
  return found;
}

void LiveIndex::Account() {
  ForEachLive([this](const Id&, std::span<const Copy> copies) {
    for (const Copy& copy : copies) packs_[copy.pack].live_bytes += RecordBytes(EntryOf(copy));
  });
  ForEachLive([this](const Id& id, std::span<const Copy> copies) {
    const auto is_whole = [&](const Copy& copy) { return IsWhole(id, copy); };
    if (std::none_of(copies.begin(), copies.end(), is_whole)) {
      for (const Copy& copy : copies) packs_[copy.pack].unhealed = true;
    }
    if (const Copy* owner = OwnerOf(copies, packs_, is_whole)) {
      ++packs_[owner->pack].owned_records;
      packs_[owner->pack].owned_bytes += RecordBytes(EntryOf(*owner));
      return;
    }
    for (const Copy& copy : copies) packs_[copy.pack].needed = true;
  });
}

void LiveIndex::Choose(const Copy& copy) {
  Table& table = tables_[copy.table];
  if (table.chosen.empty()) table.chosen.resize(DivideUp(table.rows, 64));
  table.chosen[copy.row / 64] |= uint64_t{1} << (copy.row % 64);
}

bool LiveIndex::IsChosen(const Id& id, uint32_t pack) const {
  for (const Table& table : tables_) {
    if (table.chosen.empty()) continue;
    const IndexRun::Range range = table.Find(id);
    for (uint64_t row = range.first; row < range.last; ++row) {
      if ((table.chosen[row / 64] >> (row % 64) & 1) != 0 && table.PackOf(row) == pack) return true;
    }
  }
  return false;
}

}  // namespace firn
