#include "used/used.h"

#include <algorithm>
#include <utility>

#include "core/bytes.h"
#include "used/ext4.h"
#include "used/linux_swap.h"
#include "used/ntfs.h"
#include "used/partition_table.h"
#include "used/signatures.h"
#include "used/volume_reader.h"

namespace firn {
namespace {

// Bitmaps of clusters of 512 bytes are a 4096th of a disk, and the $MFT of a volume of small files
// may be all of it; what lies far beyond either is a lie, or not worth reading twice.
uint64_t ReadBudgetFor(uint64_t disk_bytes) {
  return 64 * kMiB + disk_bytes / 2048 + std::min(disk_bytes, 64 * kGiB);
}

class Finder {
 public:
  Finder(const Disk& disk, const UsedOptions& options) : disk_(disk), options_(options) {
    budget_.left = ReadBudgetFor(disk.size());
    budget_.cancelled = options.cancelled;
    budget_.counter = options.read_bytes;
    map_.disk_bytes = disk.size();
  }

  Result<UsedMap> Run() {
    const VolumeReader whole(disk_, {0, disk_.size()}, &budget_);
    Result<PartitionTable> table = ReadPartitionTable(whole, disk_.identity().logical_sector_size);
    if (!table.ok()) {
      const Status status = table.status();
      if (!IsKeep(status)) return status;
      map_.reason_code = status.op();
      map_.reason = status.message();
      map_.read_bytes = budget_.used;
      return std::move(map_);
    }
    map_.table = SchemeName(table->scheme);
    for (const Partition& partition : table->partitions) FIRN_RETURN_IF_ERROR(Visit(partition));
    for (size_t i = 0; i < skipped_.size(); ++i) {
      for (const ByteRange& range : skipped_[i]) map_.partitions[i].skipped_bytes += range.length();
      map_.skipped_bytes += map_.partitions[i].skipped_bytes;
      map_.skipped.insert(map_.skipped.end(), skipped_[i].begin(), skipped_[i].end());
    }
    map_.read_bytes = budget_.used;
    if (IsHibernated(map_)) {
      Withdraw(&map_, keep::kHibernated,
               "another volume of this disk holds the image of a hibernated machine");
    }
    return std::move(map_);
  }

 private:
  static const char* SchemeName(Partition::Scheme scheme) {
    switch (scheme) {
      case Partition::Scheme::kGpt:
        return "gpt";
      case Partition::Scheme::kMbr:
        return "mbr";
      case Partition::Scheme::kNone:
        break;
    }
    return "none";
  }

  Status Visit(const Partition& partition) {
    UsedPartition report;
    report.offset = partition.range.begin;
    report.length = partition.range.length();
    report.type = partition.TypeName();
    SkipList skip(options_.max_ranges - std::min(options_.max_ranges, ranges_));
    const Result<VolumeUse> use = Find(partition, &report, &skip);
    if (!use.ok() && !IsKeep(use.status())) return use.status();
    if (use.ok()) {
      report.used_bytes = use->used_bytes;
      report.page_file_bytes = use->page_file_bytes;
      skipped_.push_back(skip.Take());
      ranges_ += skipped_.back().size();
      map_.dropped_bytes += skip.dropped_bytes();
    } else {
      report.reason_code = use.status().op();
      report.reason = use.status().message();
      skipped_.emplace_back();
    }
    map_.partitions.push_back(std::move(report));
    return Status::Ok();
  }

  Result<VolumeUse> Find(const Partition& partition, UsedPartition* report, SkipList* skip) {
    const VolumeReader volume(disk_, partition.range, &budget_);
    FIRN_ASSIGN_OR_RETURN(const VolumeKind kind, IdentifyVolume(volume, partition));
    switch (kind) {
      case VolumeKind::kNtfs:
        report->file_system = "ntfs";
        return FindUsedInNtfs(volume, options_, skip);
      case VolumeKind::kExt:
        return FindUsedInExt4(volume, skip, &report->file_system);
      case VolumeKind::kSwap:
        report->file_system = "swap";
        return FindUsedInSwap(volume, skip);
    }
    return Keep(keep::kUnknownFileSystem, "no file system is known by what it begins with");
  }

  const Disk& disk_;
  const UsedOptions& options_;
  ReadBudget budget_;
  UsedMap map_;
  std::vector<std::vector<ByteRange>> skipped_;  // of each partition
  uint64_t ranges_ = 0;
};

}  // namespace

Result<UsedMap> FindUsed(const Disk& disk, const UsedOptions& options) {
  return Finder(disk, options).Run();
}

bool IsHibernated(const UsedMap& map) {
  return std::ranges::any_of(map.partitions, [](const UsedPartition& partition) {
    return partition.reason_code == keep::kHibernated;
  });
}

void Withdraw(UsedMap* map, const std::string& code, const std::string& reason) {
  for (UsedPartition& partition : map->partitions) {
    if (!partition.reason_code.empty()) continue;
    partition.reason_code = code;
    partition.reason = reason;
    partition.used_bytes = partition.skipped_bytes = partition.page_file_bytes = 0;
  }
  map->skipped.clear();
  map->skipped.shrink_to_fit();
  map->skipped_bytes = map->dropped_bytes = 0;
}

}  // namespace firn
