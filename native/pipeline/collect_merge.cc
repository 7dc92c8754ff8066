#include "pipeline/collect_merge.h"

#include <algorithm>
#include <cstdio>
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
  std::vector<IndexEntry> entries;
  for (size_t first = 0; first < sources.size();) {
    const IndexRun& run = *sources[first].run;
    std::vector<uint32_t> positions(run.packs().size(), LiveIndex::kAbsent);
    for (; first < sources.size() && sources[first].run == &run; ++first) {
      positions[sources[first].pack] = static_cast<uint32_t>(packs.size());
      packs.push_back(run.packs()[sources[first].pack]);
    }
    for (uint64_t row = 0; row < run.entries(); ++row) {
      IndexEntry entry = run.Entry(row);
      if (entry.pack >= positions.size() || positions[entry.pack] == LiveIndex::kAbsent) continue;
      entry.pack = positions[entry.pack];
      entries.push_back(entry);
    }
  }
  char tail[32];
  std::snprintf(tail, sizeof tail, "-%04x-%08zx.idx", options_.attempt, written_.size());
  const std::string name = ToHex(options_.run) + tail;
  const std::string path = JoinPath(JoinPath(options_.root, "index"), name);
  FIRN_RETURN_IF_ERROR(WriteIndexRun(fs_, path, packs, &entries));
  written_.push_back(name);
  return Status::Ok();
}

}  // namespace firn
