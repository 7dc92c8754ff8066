#include "pipeline/unused_search.h"

#include <algorithm>

namespace firn {

namespace {

// Ranges of all disks of a machine together: 32 MiB. A number that followed the memory would let
// the same disks give other maps on other computers.
constexpr uint64_t kRangesMax = uint64_t{2} << 20;
// What looking at one disk takes at most, ranges not counted: two windows of NTFS's bitmap.
constexpr uint64_t kSearchBytes = 72 * kMiB;

Status FindOne(const SearchContext& context, uint64_t max_ranges, SearchedDisk* disk) {
  UsedOptions options;
  options.quiesced = disk->options.quiesced;
  options.skip_page_files = disk->options.skip_page_files;
  options.keep_shadow_copies = disk->options.keep_shadow_copies;
  options.max_ranges = max_ranges;
  options.cancelled = &context.cancelled;
  options.read_bytes = &context.stats.read_bytes;
  context.stats.source.Begin();
  Result<UsedMap> map = FindUsed(*disk->disk, options);
  context.stats.source.End();
  if (!map.ok()) return std::move(map).TakeStatus();
  disk->map = std::move(*map);
  return Status::Ok();
}

}  // namespace

Status FindUnused(const SearchContext& context, std::vector<SearchedDisk>* disks) {
  const size_t count = disks->size();
  if (count == 0) return Status::Ok();
  const uint64_t at_once = std::min<uint64_t>(std::max(1u, context.workers), count);
  const auto threads =
      static_cast<uint32_t>(std::clamp<uint64_t>(context.memory_bytes / kSearchBytes, 1, at_once));
  std::atomic<size_t> next = 0;
  const auto search = [&](uint32_t) -> Status {
    for (size_t i = next++; i < count; i = next++) {
      if (context.cancelled) return Status::Error(Code::kAborted, "cancelled");
      FIRN_RETURN_IF_ERROR(FindOne(context, kRangesMax / count, &(*disks)[i]));
    }
    return Status::Ok();
  };
  FIRN_RETURN_IF_ERROR(context.run(threads, search));
  const bool is_hibernated =
      std::ranges::any_of(*disks, [](const SearchedDisk& disk) { return IsHibernated(disk.map); });
  for (SearchedDisk& disk : *disks) {
    if (!is_hibernated || IsHibernated(disk.map)) continue;
    Withdraw(&disk.map, "hibernated",
             "another disk of this machine holds the image of a hibernated system");
  }
  return Status::Ok();
}

Status UnusedJob::DoRun() {
  std::vector<std::unique_ptr<Disk>> opened;
  std::vector<SearchedDisk> searched;
  for (const Source& source : sources_) {
    OpenDiskOptions open = source.open;
    open.direct = false;
    FIRN_ASSIGN_OR_RETURN(std::unique_ptr<Disk> disk, Disk::Open(fs_, source.path, open));
    searched.push_back({disk.get(), source.options, {}});
    opened.push_back(std::move(disk));
  }
  stats_.phase = Phase::kSearch;
  FIRN_RETURN_IF_ERROR(
      FindUnused({.workers = tuning_.workers,
                  .memory_bytes = tuning_.memory_bytes,
                  .cancelled = cancelled(),
                  .stats = stats_,
                  .run = [this](auto count, const auto& work) { return RunWorkers(count, work); }},
                 &searched));
  for (const auto& disk : opened) FIRN_RETURN_IF_ERROR(disk->CheckUnchanged());
  for (SearchedDisk& disk : searched) maps_.push_back(std::move(disk.map));
  return Status::Ok();
}

}  // namespace firn
