#include "used/signatures.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/bytes.h"

namespace firn {
namespace {

using namespace std::string_view_literals;

struct Signature {
  uint64_t offset;
  std::string_view bytes;
  const char* name;
  const char* reason;
};

// Formats whose free space is not known here, and containers that hold another format.
constexpr Signature kForeign[] = {
    {3, "-FVE-FS-"sv, "BitLocker", keep::kEncrypted},
    {0, "LUKS\xBA\xBE"sv, "LUKS", keep::kEncrypted},
    {3, "ReFS"sv, "ReFS", keep::kOpaque},
    {3, "EXFAT   "sv, "exFAT", keep::kUnknownFileSystem},
    {3, "MSDOS"sv, "FAT", keep::kUnknownFileSystem},
    {3, "MSWIN4.1"sv, "FAT", keep::kUnknownFileSystem},
    {54, "FAT1"sv, "FAT", keep::kUnknownFileSystem},
    {82, "FAT32   "sv, "FAT32", keep::kUnknownFileSystem},
    {0, "XFSB"sv, "XFS", keep::kUnknownFileSystem},
    {0x10040, "_BHRfS_M"sv, "btrfs", keep::kUnknownFileSystem},
    {0x10034, "ReIsEr"sv, "ReiserFS", keep::kUnknownFileSystem},
    {0x2034, "ReIsEr"sv, "ReiserFS", keep::kUnknownFileSystem},
    {0x8000, "JFS1"sv, "JFS", keep::kUnknownFileSystem},
    {0, "hsqs"sv, "SquashFS", keep::kUnknownFileSystem},
    {0x8001, "CD001"sv, "ISO 9660", keep::kUnknownFileSystem},
    {0, "LABELONE"sv, "LVM", keep::kOpaque},
    {512, "LABELONE"sv, "LVM", keep::kOpaque},
    {1024, "LABELONE"sv, "LVM", keep::kOpaque},
    {1536, "LABELONE"sv, "LVM", keep::kOpaque},
    {0, "\xFC\x4E\x2B\xA9"sv, "Linux RAID", keep::kOpaque},
    {4096, "\xFC\x4E\x2B\xA9"sv, "Linux RAID", keep::kOpaque},
    {4096 + 24, "\xC6\x85\x73\xF6"sv, "bcache", keep::kOpaque},
    {32, "ORCLDISK"sv, "Oracle ASM", keep::kOpaque},
    {0, "bluestore block device"sv, "Ceph", keep::kOpaque},
    {4086, "S1SUSPEND"sv, "a Linux hibernation image", keep::kHibernated},
    {4086, "S2SUSPEND"sv, "a Linux hibernation image", keep::kHibernated},
    {4086, "ULSUSPEND"sv, "a Linux hibernation image", keep::kHibernated},
    {4086, "LINHIB0001"sv, "a Linux hibernation image", keep::kHibernated},
};

constexpr uint64_t kHeadBytes = 68 * kKiB;  // all of the above

bool Has(std::span<const uint8_t> head, uint64_t offset, std::string_view bytes) {
  return RangeInside(offset, bytes.size(), head.size()) &&
         std::memcmp(&head[offset], bytes.data(), bytes.size()) == 0;
}

Status Foreign(const Signature& signature) {
  return Keep(signature.reason, std::string("there is the signature of ") + signature.name);
}

// Linux RAID keeps its superblock near the end in its versions 0.90 and 1.0, so that the members of
// a mirror look like plain file systems, and the first member of a stripe like half of one.
Status CheckNoRaidAtTheEnd(const VolumeReader& volume) {
  const uint64_t size = volume.size();
  if (size < 256 * kKiB) return Status::Ok();
  const uint64_t places[] = {RoundDown(size, 64 * kKiB) - 64 * kKiB,
                             RoundDown(RoundDown(size, 512) - 8 * kKiB, 4 * kKiB)};
  for (const uint64_t place : places) {
    uint8_t magic[4];
    FIRN_RETURN_IF_ERROR(volume.Read(place, magic));
    if (LoadLe<uint32_t>(magic) == 0xA92B4EFC || LoadBe<uint32_t>(magic) == 0xA92B4EFC) {
      return Keep(keep::kOpaque, "there is the signature of Linux RAID");
    }
  }
  return Status::Ok();
}

// ZFS labels have a ring of uberblocks at 128 KiB.
Status CheckNoZfs(const VolumeReader& volume) {
  if (volume.size() < 256 * kKiB) return Status::Ok();
  FIRN_ASSIGN_OR_RETURN(const std::vector<uint8_t> ring,
                        volume.Read(128 * kKiB, uint64_t{128 * kKiB}));
  for (uint64_t at = 0; at < ring.size(); at += kKiB) {
    constexpr uint64_t kMagic = 0x00BAB10C;
    if (LoadLe<uint64_t>(&ring[at]) == kMagic || LoadBe<uint64_t>(&ring[at]) == kMagic) {
      return Keep(keep::kOpaque, "there is the signature of ZFS");
    }
  }
  return Status::Ok();
}

bool HasGptType(const Partition& partition, std::span<const std::string_view> types) {
  return std::ranges::any_of(types, [&](std::string_view text) {
    Guid guid;
    return GuidFromString(text, &guid) && guid == partition.gpt_type;
  });
}

// Basic data and Windows recovery.
constexpr std::string_view kNtfsTypes[] = {"ebd0a0a2-b9e5-4433-87c0-68b6b72699c7",
                                           "de94bba4-06d1-4d40-a16a-bfd50179d6ac"};
// Linux data, basic data (older partitioning programs), and the discoverable partitions: root
// (x86-64, x86, ARM64), /usr (x86-64), /home, /srv, /var, /var/tmp, the extended boot loader's.
constexpr std::string_view kExtTypes[] = {
    "0fc63daf-8483-4772-8e79-3d69d8477de4", "ebd0a0a2-b9e5-4433-87c0-68b6b72699c7",
    "4f68bce3-e8cd-4db1-96e7-fbcaf984b709", "44479540-f297-41b2-9af7-d131d5f0458a",
    "b921b045-1df0-41c3-af44-4c6f280d3fae", "8484680c-9521-48c6-9c11-b0720656f69e",
    "933ac7e1-2eb4-4f13-b844-0e14e2aef915", "3b8f8425-20e0-4f3b-907f-1a25a76f98e8",
    "4d21b016-b534-45c2-a9fb-5c16e091fd2d", "7ec6f557-3bc5-4aca-b293-16ef5df639d1",
    "bc13c2ff-59e6-4262-a352-b275fd6f7172"};
constexpr std::string_view kSwapTypes[] = {"0657fd6d-a4ab-43c4-84e5-0933c84b4f4f"};

bool TypeAllows(const Partition& partition, VolumeKind kind) {
  if (partition.scheme == Partition::Scheme::kNone) return true;
  const bool is_gpt = partition.scheme == Partition::Scheme::kGpt;
  const uint8_t type = partition.mbr_type;
  switch (kind) {
    case VolumeKind::kNtfs:  // and the hidden and the recovery partition
      return is_gpt ? HasGptType(partition, kNtfsTypes)
                    : type == 0x07 || type == 0x17 || type == 0x27;
    case VolumeKind::kExt:
      return is_gpt ? HasGptType(partition, kExtTypes) : type == 0x83;
    case VolumeKind::kSwap:
      return is_gpt ? HasGptType(partition, kSwapTypes) : type == 0x82;
  }
  return false;
}

}  // namespace

Result<VolumeKind> IdentifyVolume(const VolumeReader& volume, const Partition& partition) {
  if (volume.size() < 64 * kKiB) {
    return Keep(keep::kUnknownFileSystem, "it is too small to be worth a look");
  }
  FIRN_ASSIGN_OR_RETURN(const std::vector<uint8_t> head,
                        volume.Read(0, std::min(kHeadBytes, volume.size())));
  std::optional<VolumeKind> kind;
  uint32_t found = 0;
  if (Has(head, 3, "NTFS    ")) kind = VolumeKind::kNtfs, ++found;
  if (Has(head, kKiB + 0x38, "\x53\xEF")) kind = VolumeKind::kExt, ++found;
  if (Has(head, 4086, "SWAPSPACE2")) kind = VolumeKind::kSwap, ++found;
  // An NTFS boot sector's code may hold anything that a signature in there would be.
  const bool is_ntfs = kind == VolumeKind::kNtfs;
  for (const Signature& signature : kForeign) {
    const bool in_boot_code = is_ntfs && signature.offset >= 54 && signature.offset < 8 * kKiB &&
                              signature.bytes.size() < 6;
    if (!in_boot_code && Has(head, signature.offset, signature.bytes)) return Foreign(signature);
  }
  if (found == 0) {
    return Keep(keep::kUnknownFileSystem, "no file system is known by what it begins with");
  }
  if (found > 1) {
    return Keep(keep::kAmbiguous, "there are the signatures of more than one file system");
  }
  FIRN_RETURN_IF_ERROR(CheckNoRaidAtTheEnd(volume));
  FIRN_RETURN_IF_ERROR(CheckNoZfs(volume));
  if (!TypeAllows(partition, *kind)) {
    return Keep(keep::kWrongType,
                "the partition's type is not one of the file system that its "
                "content looks like");
  }
  return *kind;
}

}  // namespace firn
