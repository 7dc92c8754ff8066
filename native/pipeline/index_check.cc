#include "pipeline/index_check.h"

#include <algorithm>
#include <set>
#include <tuple>

namespace firn {

namespace {

bool IsSamePlace(const IndexEntry& entry, const PackRecord& record) {
  return entry.offset == record.offset && entry.stored_length == record.stored_length &&
         entry.raw_length == record.raw_length && entry.record_class == record.record_class;
}

}  // namespace

IndexCheck::IndexCheck(const ChunkIndex& index, const std::vector<PackName>& packs) {
  const std::set<PackName> wanted(packs.begin(), packs.end());
  for (const auto& run : index.runs()) {
    const std::vector<IndexPack>& named = run->packs();
    const bool concerns = std::any_of(named.begin(), named.end(), [&](const IndexPack& pack) {
      return wanted.contains(pack.name);
    });
    if (!concerns) continue;
    std::vector<uint64_t> entries(named.size());
    for (uint64_t i = 0; i < run->entries(); ++i) {
      const uint32_t pack = run->Entry(i).pack;
      if (pack < entries.size()) ++entries[pack];
    }
    for (uint32_t pack = 0; pack < named.size(); ++pack) {
      if (!wanted.contains(named[pack].name)) continue;
      rows_[named[pack].name].push_back({run.get(), pack, entries[pack]});
    }
  }
}

void IndexCheck::Check(const PackName& name, const PackTable& table, const Report& report) const {
  const auto rows = rows_.find(name);
  if (rows == rows_.end()) return;  // its writer is at work, or died
  size_t reports = 0;
  for (const Row& row : rows->second) {
    CheckRow(row, name, table, [&](Problem problem) {
      if (reports++ < kReportsMax) report(std::move(problem));
    });
  }
}

void IndexCheck::CheckRow(const Row& row, const PackName& name, const PackTable& table,
                          const Report& report) const {
  const std::string object = "index/" + FileNameOf(row.run->path());
  const auto tell = [&](const char* what, std::optional<Id> id, bool misleads) {
    Problem problem{Status::Error(Code::kCorruptIndex, what).At(object), object, id, {}, {}};
    if (misleads) problem.pack = name;
    report(std::move(problem));
  };
  const IndexPack& named = row.run->packs()[row.pack];
  if (named.hash != table.hash || named.file_bytes != table.file_bytes) {
    tell("the index run knows a pack by another hash or size", {}, false);
  }
  std::set<Id> known;
  uint64_t matched = 0;
  for (const PackRecord& record : table.records) {
    known.insert(record.id);
    const IndexRun::Range range = row.run->Find(record.id);
    bool has_place = false, has_entry = false;
    for (uint64_t i = range.first; i < range.last; ++i) {
      const IndexEntry entry = row.run->Entry(i);
      if (entry.pack != row.pack) continue;
      has_entry = true;
      has_place |= IsSamePlace(entry, record);
      ++matched;
    }
    if (!has_entry) tell("the index run lacks a record of a pack that it names", record.id, false);
    if (has_entry && !has_place)
      tell("the index run has a record at a wrong place", record.id, true);
  }
  if (matched == row.entries) return;
  for (uint64_t i = 0; i < row.run->entries(); ++i) {
    const IndexEntry entry = row.run->Entry(i);
    if (entry.pack != row.pack || known.contains(entry.id)) continue;
    tell("the index run has a record that the pack does not have", entry.id, true);
  }
}

std::vector<IndexEntry> IndexCheck::EntriesOf(const PackName& name) const {
  std::vector<IndexEntry> entries;
  const auto rows = rows_.find(name);
  if (rows == rows_.end()) return entries;
  for (const Row& row : rows->second) {
    for (uint64_t i = 0; i < row.run->entries(); ++i) {
      const IndexEntry entry = row.run->Entry(i);
      if (entry.pack == row.pack) entries.push_back(entry);
    }
  }
  const auto key = [](const IndexEntry& entry) { return std::tie(entry.offset, entry.id); };
  std::sort(entries.begin(), entries.end(),
            [&](const IndexEntry& a, const IndexEntry& b) { return key(a) < key(b); });
  const auto same = [&](const IndexEntry& a, const IndexEntry& b) { return key(a) == key(b); };
  entries.erase(std::unique(entries.begin(), entries.end(), same), entries.end());
  return entries;
}

}  // namespace firn
