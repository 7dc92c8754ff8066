#include "used/ext4_journal.h"

#include <algorithm>
#include <span>
#include <vector>

#include "core/bytes.h"
#include "used/ext4_format.h"

namespace firn {
namespace {

Status Bad(const std::string& why) { return Keep(keep::kInconsistent, "the journal " + why); }

// The block that holds the first block of a file: down the leftmost branch of its extents.
Result<uint64_t> FirstBlockByExtents(const VolumeReader& volume, const Ext4Super& super,
                                     std::vector<uint8_t> node) {
  for (uint16_t above = ext4::extent::kDepthMax + 1; above > 0;) {
    const uint16_t entries = LoadLe<uint16_t>(&node[2]);
    const uint16_t depth = LoadLe<uint16_t>(&node[6]);
    if (LoadLe<uint16_t>(&node[0]) != ext4::extent::kMagic || entries == 0 || depth >= above) {
      return Bad("has a broken extent tree");
    }
    const uint8_t* entry = &node[ext4::extent::kEntryBytes];
    if (LoadLe<uint32_t>(entry) != 0) return Bad("does not begin with a block");
    if (depth == 0) {
      const uint16_t length = LoadLe<uint16_t>(entry + 4);
      if (length == 0 || length > 32768) return Bad("has an extent that was never written");
      return uint64_t{LoadLe<uint16_t>(entry + 6)} << 32 | LoadLe<uint32_t>(entry + 8);
    }
    const uint64_t child =
        uint64_t{LoadLe<uint16_t>(entry + 8)} << 32 | LoadLe<uint32_t>(entry + 4);
    if (child >= super.blocks) return Bad("has a broken extent tree");
    FIRN_ASSIGN_OR_RETURN(node,
                          volume.Read(child * super.block_bytes, uint64_t{super.block_bytes}));
    above = depth;
  }
  return Bad("has a broken extent tree");
}

}  // namespace

Status CheckExt4JournalIsEmpty(const VolumeReader& volume, const Ext4Layout& layout) {
  const Ext4Super& super = layout.super;
  if ((super.compat & ext4::compat::kHasJournal) == 0) return Status::Ok();
  const uint64_t inode_at = layout.groups[0].inode_table * super.block_bytes +
                            uint64_t{ext4::kJournalInode - 1} * super.inode_bytes;
  FIRN_ASSIGN_OR_RETURN(const std::vector<uint8_t> inode,
                        volume.Read(inode_at, uint64_t{super.inode_bytes}));
  constexpr uint16_t kTypeMask = 0xF000;
  constexpr uint16_t kRegular = 0x8000;
  if ((LoadLe<uint16_t>(&inode[ext4::inode::kMode]) & kTypeMask) != kRegular) {
    return Bad("is no file");
  }
  const auto map = std::span<const uint8_t>(inode).subspan(ext4::inode::kBlocks, 60);
  uint64_t block = LoadLe<uint32_t>(map.data());
  if ((LoadLe<uint32_t>(&inode[ext4::inode::kFlags]) & ext4::inode::kFlagExtents) != 0) {
    FIRN_ASSIGN_OR_RETURN(block, FirstBlockByExtents(volume, super, {map.begin(), map.end()}));
  }
  if (block == 0 || block >= super.blocks) return Bad("does not begin with a block");
  FIRN_ASSIGN_OR_RETURN(const std::vector<uint8_t> head,
                        volume.Read(block * super.block_bytes, uint64_t{super.block_bytes}));
  const uint32_t type = LoadBe<uint32_t>(&head[ext4::journal::kBlockType]);
  if (LoadBe<uint32_t>(&head[0]) != ext4::journal::kMagic || (type != 3 && type != 4)) {
    return Bad("has no superblock");
  }
  if (LoadBe<uint32_t>(&head[ext4::journal::kStart]) != 0) {
    return Keep(keep::kDirty, "the journal has transactions that were not replayed");
  }
  if (LoadBe<uint32_t>(&head[ext4::journal::kError]) != 0) {
    return Keep(keep::kDirty, "the journal knows of an error");
  }
  return Status::Ok();
}

}  // namespace firn
