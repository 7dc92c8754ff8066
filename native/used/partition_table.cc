#include "used/partition_table.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstring>
#include <set>
#include <span>

#include "used/gpt.h"

namespace firn {
namespace {

constexpr uint32_t kEntriesAt = 446;
constexpr uint32_t kEntryBytes = 16;
constexpr uint8_t kTypeProtective = 0xEE;
constexpr size_t kLogicalMax = 256;

struct MbrEntry {
  uint8_t flag = 0;
  uint8_t type = 0;
  uint64_t first = 0;  // sectors
  uint64_t count = 0;
  bool empty() const { return type == 0; }
  bool extended() const { return type == 0x05 || type == 0x0F || type == 0x85; }
};

using MbrEntries = std::array<MbrEntry, 4>;

Status Bad(const std::string& why) {
  return Keep(keep::kPartitionTable, "the partition table " + why);
}

bool HasBootMark(std::span<const uint8_t> sector) {
  return sector[510] == 0x55 && sector[511] == 0xAA;
}

MbrEntries ParseEntries(std::span<const uint8_t> sector) {
  MbrEntries entries;
  for (size_t i = 0; i < entries.size(); ++i) {
    const uint8_t* entry = &sector[kEntriesAt + i * kEntryBytes];
    entries[i] = {entry[0], entry[4], LoadLe<uint32_t>(entry + 8), LoadLe<uint32_t>(entry + 12)};
  }
  return entries;
}

// Whether an entry could be meant as one, on a disk of so many sectors.
bool IsPlausible(const MbrEntry& entry, uint64_t sectors) {
  return (entry.flag & 0x7F) == 0 && !entry.empty() && entry.first > 0 && entry.count > 0 &&
         RangeInside(entry.first, entry.count, sectors);
}

Partition ToPartition(const MbrEntry& entry, uint64_t base, uint32_t sector_bytes) {
  Partition partition;
  partition.scheme = Partition::Scheme::kMbr;
  partition.mbr_type = entry.type;
  partition.range.begin = (base + entry.first) * sector_bytes;
  partition.range.end = partition.range.begin + entry.count * sector_bytes;
  return partition;
}

// Follows the chain of extended boot records. A link is relative to the container, a partition to
// the record that names it. Appends the records' sectors to `records`.
Status ReadLogical(const VolumeReader& disk, uint32_t sector_bytes, const MbrEntry& container,
                   std::vector<Partition>* partitions, std::vector<uint64_t>* records) {
  std::set<uint64_t> seen;
  uint64_t link = 0;
  while (true) {
    if (!seen.insert(link).second || seen.size() > kLogicalMax) {
      return Bad("has a chain of logical partitions without an end");
    }
    const uint64_t record = container.first + link;
    records->push_back(record);
    FIRN_ASSIGN_OR_RETURN(const std::vector<uint8_t> sector,
                          disk.Read(record * sector_bytes, uint64_t{512}));
    if (!HasBootMark(sector)) return Bad("has a logical partition without a boot record");
    const MbrEntries entries = ParseEntries(sector);
    if (!entries[2].empty() || !entries[3].empty()) {
      return Bad("has an extended boot record with more than two entries");
    }
    if (!entries[0].empty()) {
      const uint64_t room = container.count - link;
      if (!IsPlausible(entries[0], room) || entries[0].extended()) {
        return Bad("has a logical partition outside its container");
      }
      partitions->push_back(ToPartition(entries[0], record, sector_bytes));
    }
    if (entries[1].empty()) return Status::Ok();
    if (!entries[1].extended() || !IsPlausible(entries[1], container.count)) {
      return Bad("has a broken chain of logical partitions");
    }
    link = entries[1].first;
  }
}

Result<std::vector<Partition>> ReadMbr(const VolumeReader& disk, uint32_t sector_bytes,
                                       const MbrEntries& entries) {
  const uint64_t sectors = disk.size() / sector_bytes;
  std::vector<Partition> partitions;
  std::vector<Partition> primary;  // with the container, to see whether they overlap
  const MbrEntry* container = nullptr;
  for (const MbrEntry& entry : entries) {
    if (entry.empty()) continue;
    if (!IsPlausible(entry, sectors)) return Bad("has a partition outside the disk");
    primary.push_back(ToPartition(entry, 0, sector_bytes));
    if (!entry.extended()) {
      partitions.push_back(primary.back());
      continue;
    }
    if (container != nullptr) return Bad("has two extended partitions");
    container = &entry;
  }
  std::vector<uint64_t> records;
  if (container != nullptr) {
    FIRN_RETURN_IF_ERROR(ReadLogical(disk, sector_bytes, *container, &partitions, &records));
  }
  for (const uint64_t record : records) {
    const uint64_t at = record * sector_bytes;
    for (const Partition& partition : partitions) {
      if (at >= partition.range.begin && at < partition.range.end) {
        return Bad("has a boot record inside a partition");
      }
    }
  }
  std::ranges::sort(primary, {}, [](const Partition& p) { return p.range.begin; });
  for (size_t i = 1; i < primary.size(); ++i) {
    if (primary[i].range.begin < primary[i - 1].range.end) return Bad("has overlapping partitions");
  }
  return partitions;
}

// What could be a file system without a partition table, which has a boot sector of its own.
Result<bool> LooksLikeAVolume(const VolumeReader& disk, std::span<const uint8_t> sector) {
  for (const char* name : {"NTFS    ", "-FVE-FS-", "EXFAT   ", "MSDOS5.0", "mkfs.fat"}) {
    if (std::memcmp(&sector[3], name, 8) == 0) return true;
  }
  if (disk.size() < 2 * kKiB) return false;
  uint8_t magic[2];
  FIRN_RETURN_IF_ERROR(disk.Read(kKiB + 0x38, magic));
  return LoadLe<uint16_t>(magic) == 0xEF53;
}

PartitionTable WholeDisk(const VolumeReader& disk) {
  PartitionTable table;
  table.partitions.emplace_back();
  table.partitions.back().range = {0, disk.size()};
  return table;
}

Status SortAndCheck(PartitionTable* table) {
  std::vector<Partition>& partitions = table->partitions;
  std::ranges::sort(partitions, {}, [](const Partition& p) { return p.range.begin; });
  for (size_t i = 1; i < partitions.size(); ++i) {
    if (partitions[i].range.begin < partitions[i - 1].range.end) {
      return Bad("has overlapping partitions");
    }
  }
  return Status::Ok();
}

}  // namespace

std::string Partition::TypeName() const {
  if (scheme == Scheme::kGpt) return GuidToString(gpt_type);
  if (scheme == Scheme::kNone) return "";
  char text[16];
  std::snprintf(text, sizeof text, "mbr %02x", mbr_type);
  return text;
}

Result<PartitionTable> ReadPartitionTable(const VolumeReader& disk, uint32_t sector_bytes) {
  if (disk.size() < uint64_t{2} * sector_bytes) {
    return Keep(keep::kUnknownFileSystem, "the disk is too small to hold a file system");
  }
  FIRN_ASSIGN_OR_RETURN(const std::vector<uint8_t> sector, disk.Read(0, uint64_t{512}));
  FIRN_ASSIGN_OR_RETURN(const bool has_gpt, HasGptSignature(disk, sector_bytes));
  FIRN_ASSIGN_OR_RETURN(const bool is_volume, LooksLikeAVolume(disk, sector));
  const MbrEntries entries = ParseEntries(sector);
  const uint64_t sectors = disk.size() / sector_bytes;
  const auto protects = [](const MbrEntry& entry) { return entry.type == kTypeProtective; };
  const auto plausible = [&](const MbrEntry& entry) { return IsPlausible(entry, sectors); };
  const bool has_mark = HasBootMark(sector);
  const bool has_partitions = has_mark && std::ranges::any_of(entries, plausible);
  const bool has_protective = has_mark && std::ranges::any_of(entries, protects);

  // A volume's boot sector has code where a table's entries would be, so they need not make sense.
  if (is_volume && !has_gpt && !has_partitions) return WholeDisk(disk);
  if (is_volume) {
    return Keep(keep::kAmbiguous,
                "the disk has a partition table, and also a file system as a "
                "whole");
  }
  PartitionTable table;
  if (has_gpt || has_protective) {
    const auto used = [](const MbrEntry& entry) { return !entry.empty(); };
    if (!has_protective || std::ranges::count_if(entries, used) != 1) {
      return Keep(keep::kAmbiguous, "the disk has a GPT and an MBR that says otherwise");
    }
    table.scheme = Partition::Scheme::kGpt;
    FIRN_ASSIGN_OR_RETURN(table.partitions, ReadGpt(disk, sector_bytes));
  } else if (has_partitions) {
    table.scheme = Partition::Scheme::kMbr;
    FIRN_ASSIGN_OR_RETURN(table.partitions, ReadMbr(disk, sector_bytes, entries));
  } else if (has_mark &&
             std::ranges::any_of(entries, [](const MbrEntry& e) { return !e.empty(); })) {
    return Bad("has a partition outside the disk");
  } else {
    return WholeDisk(disk);
  }
  FIRN_RETURN_IF_ERROR(SortAndCheck(&table));
  return table;
}

}  // namespace firn
