#include "used/gpt.h"

#include <algorithm>
#include <cstring>
#include <span>

#include "core/bytes.h"
#include "used/crc.h"

namespace firn {
namespace {

constexpr char kSignature[] = "EFI PART";
constexpr uint32_t kHeaderBytes = 92;
constexpr uint32_t kEntryBytesMax = 4096;
constexpr uint64_t kArrayBytesMax = kMiB;  // Windows and others use 16 KiB

struct Header {
  uint64_t my_sector = 0;
  uint64_t other_sector = 0;
  uint64_t first_usable = 0;
  uint64_t last_usable = 0;
  Guid disk_id{};
  uint64_t array_sector = 0;
  uint32_t entries = 0;
  uint32_t entry_bytes = 0;
  uint32_t array_crc = 0;
};

Status Bad(const std::string& why) { return Keep(keep::kPartitionTable, "the GPT " + why); }

Result<Header> ReadHeader(const VolumeReader& disk, uint32_t sector_bytes, uint64_t sector) {
  const uint64_t sectors = disk.size() / sector_bytes;
  if (sector >= sectors) return Bad("names a header outside the disk");
  FIRN_ASSIGN_OR_RETURN(std::vector<uint8_t> bytes,
                        disk.Read(sector * sector_bytes, uint64_t{sector_bytes}));
  if (std::memcmp(bytes.data(), kSignature, 8) != 0) return Bad("lacks one of its headers");
  const uint32_t header_bytes = LoadLe<uint32_t>(&bytes[12]);
  if (header_bytes < kHeaderBytes || header_bytes > sector_bytes) {
    return Bad("has a header of a wrong size");
  }
  const uint32_t crc = LoadLe<uint32_t>(&bytes[16]);
  StoreLe<uint32_t>(&bytes[16], 0);
  if (Crc32(std::span(bytes).first(header_bytes)) != crc) {
    return Bad("has a header that does not match its checksum");
  }
  Header header;
  header.my_sector = LoadLe<uint64_t>(&bytes[24]);
  header.other_sector = LoadLe<uint64_t>(&bytes[32]);
  header.first_usable = LoadLe<uint64_t>(&bytes[40]);
  header.last_usable = LoadLe<uint64_t>(&bytes[48]);
  std::copy_n(&bytes[56], 16, header.disk_id.begin());
  header.array_sector = LoadLe<uint64_t>(&bytes[72]);
  header.entries = LoadLe<uint32_t>(&bytes[80]);
  header.entry_bytes = LoadLe<uint32_t>(&bytes[84]);
  header.array_crc = LoadLe<uint32_t>(&bytes[88]);
  if (header.my_sector != sector) return Bad("has a header that belongs elsewhere");
  if (header.first_usable > header.last_usable || header.last_usable >= sectors) {
    return Bad("counts on more sectors than the disk has");
  }
  const bool entry_ok = header.entry_bytes >= 128 && header.entry_bytes <= kEntryBytesMax &&
                        (header.entry_bytes & (header.entry_bytes - 1)) == 0;
  if (!entry_ok || uint64_t{header.entries} * header.entry_bytes > kArrayBytesMax) {
    return Bad("has entries of a strange size or number");
  }
  return header;
}

Result<std::vector<uint8_t>> ReadArray(const VolumeReader& disk, uint32_t sector_bytes,
                                       const Header& header) {
  const uint64_t bytes = uint64_t{header.entries} * header.entry_bytes;
  if (header.array_sector > disk.size() / sector_bytes ||
      !RangeInside(header.array_sector * sector_bytes, bytes, disk.size())) {
    return Bad("has its entries outside the disk");
  }
  FIRN_ASSIGN_OR_RETURN(std::vector<uint8_t> array,
                        disk.Read(header.array_sector * sector_bytes, bytes));
  if (Crc32(array) != header.array_crc) return Bad("has entries that do not match their checksum");
  return array;
}

bool SaysTheSame(const Header& a, const Header& b) {
  return a.other_sector == b.my_sector && b.other_sector == a.my_sector &&
         a.first_usable == b.first_usable && a.last_usable == b.last_usable &&
         a.disk_id == b.disk_id && a.entries == b.entries && a.entry_bytes == b.entry_bytes &&
         a.array_crc == b.array_crc;
}

}  // namespace

Result<bool> HasGptSignature(const VolumeReader& disk, uint32_t sector_bytes) {
  uint8_t signature[8];
  FIRN_RETURN_IF_ERROR(disk.Read(sector_bytes, signature));
  return std::memcmp(signature, kSignature, sizeof signature) == 0;
}

Result<std::vector<Partition>> ReadGpt(const VolumeReader& disk, uint32_t sector_bytes) {
  FIRN_ASSIGN_OR_RETURN(const Header header, ReadHeader(disk, sector_bytes, 1));
  FIRN_ASSIGN_OR_RETURN(const Header other, ReadHeader(disk, sector_bytes, header.other_sector));
  if (header.other_sector <= header.last_usable || !SaysTheSame(header, other)) {
    return Bad("and its backup do not say the same");
  }
  FIRN_ASSIGN_OR_RETURN(const std::vector<uint8_t> array, ReadArray(disk, sector_bytes, header));
  FIRN_ASSIGN_OR_RETURN(const std::vector<uint8_t> copy, ReadArray(disk, sector_bytes, other));
  if (array != copy) return Bad("and its backup do not say the same");
  const uint64_t array_sectors = DivideUp(array.size(), sector_bytes);
  if (header.array_sector <= header.my_sector ||
      header.array_sector + array_sectors > header.first_usable ||
      other.array_sector <= header.last_usable ||
      other.array_sector + array_sectors > other.my_sector) {
    return Bad("has usable sectors where its own structures lie");
  }

  std::vector<Partition> partitions;
  for (uint64_t at = 0; at < array.size(); at += header.entry_bytes) {
    Partition partition;
    partition.scheme = Partition::Scheme::kGpt;
    std::copy_n(&array[at], 16, partition.gpt_type.begin());
    if (partition.gpt_type == Guid{}) continue;
    const uint64_t first = LoadLe<uint64_t>(&array[at + 32]);
    const uint64_t last = LoadLe<uint64_t>(&array[at + 40]);
    if (first < header.first_usable || last > header.last_usable || first > last) {
      return Bad("has a partition outside its usable sectors");
    }
    partition.range = {first * sector_bytes, (last + 1) * sector_bytes};
    partitions.push_back(partition);
  }
  return partitions;
}

}  // namespace firn
