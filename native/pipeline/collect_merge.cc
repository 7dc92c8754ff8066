#include "pipeline/collect_merge.h"

#include <algorithm>
#include <cstdio>
#include <optional>
#include <set>

namespace firn {

// The packs that remain, each as the first run that names it has it, run by run.
std::vector<MergeJob::Source> MergeJob::Sources() const {
  const std::set<std::string> wanted(options_.index_runs.begin(), options_.index_runs.end());
  std::set<PackName> done(options_.dropped.begin(), options_.dropped.end());
  std::vector<Source> sources;
  for (const auto& run : options_.live->index().runs()) {
    if (!wanted.contains(FileNameOf(run->path()))) continue;
    std::vector<uint64_t> entries(run->packs().size());
    for (uint64_t row = 0; row < run->entries(); ++row) {
      const uint32_t pack = run->Entry(row).pack;
      if (pack < entries.size()) ++entries[pack];
    }
    for (uint32_t pack = 0; pack < entries.size(); ++pack) {
      const PackName& name = run->packs()[pack].name;
      if (options_.live->Position(name) == LiveIndex::kAbsent) continue;
      if (done.insert(name).second) sources.push_back({run.get(), pack, entries[pack]});
    }
  }
  return sources;
}

Status MergeJob::DoRun() {
  stats_.workers = 1;
  stats_.phase = Phase::kCopy;
  const std::vector<Source> sources = Sources();
  for (const Source& source : sources) stats_.total_bytes += source.entries * kIndexEntryBytes;
  for (size_t first = 0; first < sources.size();) {
    FIRN_RETURN_IF_ERROR(CheckStopped());
    uint64_t entries = sources[first].entries;
    size_t end = first + 1;
    while (end < sources.size() && entries + sources[end].entries <= entries_max_) {
      entries += sources[end++].entries;
    }
    FIRN_RETURN_IF_ERROR(WriteRun(std::span(sources).subspan(first, end - first)));
    stats_.done_bytes += entries * kIndexEntryBytes;
    first = end;
  }
  return Status::Ok();
}

// REQUIRES: sources of one run stand side by side.
Status MergeJob::WriteRun(std::span<const Source> sources) {
  std::vector<IndexPack> packs;
  std::vector<MergedRun> runs;
  for (const Source& source : sources) {
    if (runs.empty() || runs.back().run != source.run) {
      runs.push_back({source.run, std::vector(source.run->packs().size(), LiveIndex::kAbsent)});
    }
    runs.back().positions[source.pack] = static_cast<uint32_t>(packs.size());
    packs.push_back(source.run->packs()[source.pack]);
  }
  char tail[32];
  std::snprintf(tail, sizeof tail, "-%04x-%08zx.idx", options_.attempt, written_.size());
  const std::string name = ToHex(options_.run) + tail;
  const std::string path = JoinPath(JoinPath(options_.root, "index"), name);
  const IndexEntrySource source = [&](const auto& visit) { return Merge(runs, visit); };
  FIRN_RETURN_IF_ERROR(
      WriteSortedIndexRun(fs_, path, packs, source, options_.live->index().index_key()));
  written_.push_back(name);
  return Status::Ok();
}

// Gives what the runs have of the packs that are wanted, in the order of a run.
Status MergeJob::Merge(std::span<const MergedRun> runs,
                       const std::function<Status(const IndexEntry&)>& visit) const {
  struct Cursor {
    IndexEntry entry;  // its pack counts in the new run
    size_t run = 0;
    uint64_t row = 0;
  };
  const auto later = [](const Cursor& a, const Cursor& b) {
    return a.entry.id != b.entry.id ? b.entry.id < a.entry.id : b.entry.pack < a.entry.pack;
  };
  std::vector<Cursor> heap;
  const auto push = [&](size_t run, uint64_t row) {
    const auto& [source, positions] = runs[run];
    for (; row < source->entries(); ++row) {
      IndexEntry entry = source->Entry(row);
      if (entry.pack >= positions.size() || positions[entry.pack] == LiveIndex::kAbsent) continue;
      entry.pack = positions[entry.pack];
      heap.push_back({entry, run, row});
      std::push_heap(heap.begin(), heap.end(), later);
      return;
    }
  };
  for (size_t run = 0; run < runs.size(); ++run) push(run, 0);
  std::optional<IndexEntry> last;
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), later);
    const Cursor cursor = heap.back();
    heap.pop_back();
    push(cursor.run, cursor.row + 1);
    const IndexEntry& entry = cursor.entry;
    if (last && last->id == entry.id && last->pack == entry.pack) continue;
    last = entry;
    FIRN_RETURN_IF_ERROR(visit(entry));
  }
  return CheckStopped();
}

}  // namespace firn
