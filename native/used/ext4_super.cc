#include "used/ext4_super.h"

#include <algorithm>
#include <cstdio>
#include <span>
#include <string>

#include "core/bytes.h"
#include "used/crc.h"
#include "used/ext4_format.h"

namespace firn {
namespace {

namespace sb = ext4::superblock;

// Bounds memory to some 100 MiB: 64 TiB in blocks of 4 KiB are half as many groups.
constexpr uint64_t kGroupsMax = uint64_t{1} << 20;

Status Bad(const std::string& why) { return Keep(keep::kInconsistent, "the superblock " + why); }

bool IsPowerOfTwo(uint64_t value) { return value != 0 && (value & (value - 1)) == 0; }

Status CheckFeature(uint32_t features, uint32_t known, const char* kind) {
  const uint32_t unknown = features & ~known;
  if (unknown == 0) return Status::Ok();
  char text[80];
  std::snprintf(text, sizeof text, "the file system has unknown %s features (%#x)", kind, unknown);
  return Keep(keep::kUnknownFeature, text);
}

Status CheckFeatures(const Ext4Super& super) {
  FIRN_RETURN_IF_ERROR(CheckFeature(super.incompat, ext4::incompat::kKnown, "incompatible"));
  FIRN_RETURN_IF_ERROR(
      CheckFeature(super.read_only_compat, ext4::read_only_compat::kKnown, "read-only"));
  FIRN_RETURN_IF_ERROR(CheckFeature(super.compat, ext4::compat::kKnown, "compatible"));
  if ((super.compat & ext4::compat::kResizeInode) != 0 &&
      (super.incompat & ext4::incompat::kMetaBg) != 0) {
    return Bad("has both a resize inode and meta block groups");
  }
  return Status::Ok();
}

Status CheckClean(std::span<const uint8_t> bytes, const Ext4Super& super) {
  if ((super.incompat & ext4::incompat::kRecover) != 0) {
    return Keep(keep::kDirty,
                "the file system is mounted or was not unmounted cleanly: its journal "
                "has to be replayed");
  }
  const uint16_t state = LoadLe<uint16_t>(&bytes[sb::kState]);
  if ((state & ext4::state::kErrors) != 0 || LoadLe<uint32_t>(&bytes[sb::kErrorCount]) != 0) {
    return Keep(keep::kDirty, "the file system knows of errors in itself");
  }
  if (state != ext4::state::kValid) {
    return Keep(keep::kDirty, "the file system is mounted or was not unmounted cleanly");
  }
  const bool has_journal = (super.compat & ext4::compat::kHasJournal) != 0;
  if (has_journal && super.journal_inode != ext4::kJournalInode) {
    return Keep(keep::kUnknownFeature, "the file system's journal is on another device");
  }
  return Status::Ok();
}

Status CheckGeometry(const VolumeReader& volume, std::span<const uint8_t> bytes, Ext4Super* super) {
  const uint32_t log_block = LoadLe<uint32_t>(&bytes[sb::kLogBlockSize]);
  if (log_block > 6) return Bad("has an impossible block size");
  super->block_bytes = 1024u << log_block;
  const bool bigalloc = (super->read_only_compat & ext4::read_only_compat::kBigalloc) != 0;
  super->group_blocks = LoadLe<uint32_t>(&bytes[sb::kBlocksPerGroup]);
  uint32_t group_clusters = super->group_blocks;
  if (bigalloc) {
    const uint32_t log_cluster = LoadLe<uint32_t>(&bytes[sb::kLogClusterSize]);
    if (log_cluster < log_block || log_cluster > 20) return Bad("has an impossible cluster size");
    // There the superblock is not in the first block that is accounted for.
    if (log_block == 0) return Keep(keep::kUnknownFeature, "clusters of 1 KiB blocks are not read");
    super->cluster_blocks = 1u << (log_cluster - log_block);
    group_clusters = LoadLe<uint32_t>(&bytes[sb::kClustersPerGroup]);
  }
  const uint32_t bits_max = 8 * super->block_bytes;
  if (group_clusters == 0 || group_clusters > bits_max || group_clusters % 8 != 0 ||
      uint64_t{group_clusters} * super->cluster_blocks != super->group_blocks) {
    return Bad("has groups of an impossible size");
  }
  if (super->first_data_block != (super->block_bytes == 1024 ? 1u : 0u)) {
    return Bad("has its groups begin at the wrong block");
  }
  uint64_t bytes_total = 0;
  if (super->blocks <= super->first_data_block ||
      !CheckedMul(super->blocks, super->block_bytes, &bytes_total) || bytes_total > volume.size()) {
    return Bad("counts more blocks than the volume has");
  }
  super->groups = DivideUp(super->blocks - super->first_data_block, super->group_blocks);
  if (super->groups > kGroupsMax) return Keep(keep::kLimits, "the file system has too many groups");
  return Status::Ok();
}

Status CheckInodes(std::span<const uint8_t> bytes, Ext4Super* super) {
  const bool is_first_revision = LoadLe<uint32_t>(&bytes[sb::kRevision]) == 0;
  super->inode_bytes =
      is_first_revision ? ext4::kInodeBytesRev0 : LoadLe<uint16_t>(&bytes[sb::kInodeSize]);
  if (!IsPowerOfTwo(super->inode_bytes) || super->inode_bytes < ext4::kInodeBytesRev0 ||
      super->inode_bytes > super->block_bytes) {
    return Bad("has an impossible inode size");
  }
  super->group_inodes = LoadLe<uint32_t>(&bytes[sb::kInodesPerGroup]);
  if (super->group_inodes < ext4::kJournalInode || super->group_inodes > 8 * super->block_bytes ||
      super->groups * super->group_inodes != LoadLe<uint32_t>(&bytes[sb::kInodes])) {
    return Bad("has an impossible number of inodes");
  }
  super->descriptor_bytes = ext4::descriptor::kBytes32;
  if ((super->incompat & ext4::incompat::k64Bit) != 0) {
    super->descriptor_bytes = LoadLe<uint16_t>(&bytes[sb::kDescriptorSize]);
    if (!IsPowerOfTwo(super->descriptor_bytes) ||
        super->descriptor_bytes < ext4::descriptor::kBytes64 ||
        super->descriptor_bytes > std::min(super->block_bytes, 1024u)) {
      return Bad("has an impossible descriptor size");
    }
  }
  if (super->reserved_gdt_blocks > super->block_bytes / 4) {
    return Bad("reserves too many blocks for descriptors");
  }
  return Status::Ok();
}

Status CheckChecksum(std::span<const uint8_t> bytes, Ext4Super* super) {
  if (!super->HasMetadataChecksums()) return Status::Ok();
  if (bytes[sb::kChecksumType] != 1) {
    return Keep(keep::kUnknownFeature, "the file system has checksums of an unknown kind");
  }
  if (Ext4Crc32c(~uint32_t{0}, bytes.first(sb::kChecksum)) !=
      LoadLe<uint32_t>(&bytes[sb::kChecksum])) {
    return Bad("does not match its checksum");
  }
  super->checksum_seed = (super->incompat & ext4::incompat::kChecksumSeed) != 0
                             ? LoadLe<uint32_t>(&bytes[sb::kChecksumSeed])
                             : Ext4Crc32c(~uint32_t{0}, super->uuid);
  return Status::Ok();
}

}  // namespace

Result<Ext4Super> ReadExt4Super(const VolumeReader& volume) {
  FIRN_ASSIGN_OR_RETURN(const std::vector<uint8_t> bytes,
                        volume.Read(ext4::kSuperblockAt, ext4::kSuperblockBytes));
  if (LoadLe<uint16_t>(&bytes[sb::kMagicAt]) != ext4::kMagic) return Bad("is not there");
  const uint32_t revision = LoadLe<uint32_t>(&bytes[sb::kRevision]);
  if (revision > 1) return Keep(keep::kUnknownFeature, "the file system is of an unknown revision");
  if (LoadLe<uint16_t>(&bytes[sb::kGroupOfCopy]) != 0) return Bad("is a copy from another group");
  Ext4Super super;
  super.compat = LoadLe<uint32_t>(&bytes[sb::kCompat]);
  super.incompat = LoadLe<uint32_t>(&bytes[sb::kIncompat]);
  super.read_only_compat = LoadLe<uint32_t>(&bytes[sb::kReadOnlyCompat]);
  std::copy_n(&bytes[sb::kUuid], super.uuid.size(), super.uuid.begin());
  // A later revision's features are not known to mean anything in the first.
  if (revision == 0 && (super.compat | super.incompat | super.read_only_compat) != 0) {
    return Bad("has features that its revision does not have");
  }
  FIRN_RETURN_IF_ERROR(CheckFeatures(super));
  FIRN_RETURN_IF_ERROR(CheckChecksum(bytes, &super));

  const bool is_64bit = (super.incompat & ext4::incompat::k64Bit) != 0;
  const auto wide = [&](uint32_t low, uint32_t high) {
    const uint64_t upper = is_64bit ? LoadLe<uint32_t>(&bytes[high]) : 0;
    return upper << 32 | LoadLe<uint32_t>(&bytes[low]);
  };
  super.blocks = wide(sb::kBlocksLow, sb::kBlocksHigh);
  super.free_blocks = wide(sb::kFreeBlocksLow, sb::kFreeBlocksHigh);
  super.first_data_block = LoadLe<uint32_t>(&bytes[sb::kFirstDataBlock]);
  super.journal_inode = LoadLe<uint32_t>(&bytes[sb::kJournalInodeNumber]);
  super.reserved_gdt_blocks = LoadLe<uint16_t>(&bytes[sb::kReservedGdtBlocks]);
  super.first_meta_bg = LoadLe<uint32_t>(&bytes[sb::kFirstMetaBg]);
  super.backup_groups = {LoadLe<uint32_t>(&bytes[sb::kBackupGroups]),
                         LoadLe<uint32_t>(&bytes[sb::kBackupGroups + 4])};
  FIRN_RETURN_IF_ERROR(CheckClean(bytes, super));
  FIRN_RETURN_IF_ERROR(CheckGeometry(volume, bytes, &super));
  FIRN_RETURN_IF_ERROR(CheckInodes(bytes, &super));
  return super;
}

bool Ext4Super::HasMetadataChecksums() const {
  return (read_only_compat & ext4::read_only_compat::kMetadataChecksum) != 0;
}

bool Ext4Super::HasDescriptorChecksums() const {
  return HasMetadataChecksums() || (read_only_compat & ext4::read_only_compat::kGdtChecksum) != 0;
}

uint64_t Ext4Super::inode_table_blocks() const {
  return DivideUp(uint64_t{group_inodes} * inode_bytes, block_bytes);
}

uint64_t Ext4Super::GroupEnd(uint64_t group) const {
  return std::min(GroupBegin(group) + group_blocks, blocks);
}

}  // namespace firn
