#include "used/ext4_layout.h"

#include <algorithm>
#include <span>
#include <string>

#include "core/bytes.h"
#include "used/crc.h"
#include "used/ext4_format.h"
#include "used/ext4_super.h"

namespace firn {
namespace {

namespace gd = ext4::descriptor;

Status Bad(const std::string& why) { return Keep(keep::kInconsistent, why); }

bool IsPowerOf(uint64_t value, uint64_t base) {
  uint64_t power = base;
  while (power < value) power *= base;
  return power == value;
}

bool HasSuperblock(const Ext4Super& super, uint64_t group) {
  if (group == 0) return true;
  if ((super.compat & ext4::compat::kSparseSuper2) != 0) {
    return group == super.backup_groups[0] || group == super.backup_groups[1];
  }
  if ((super.read_only_compat & ext4::read_only_compat::kSparseSuper) == 0) return true;
  return group == 1 || IsPowerOf(group, 3) || IsPowerOf(group, 5) || IsPowerOf(group, 7);
}

uint64_t DescriptorBlocks(const Ext4Super& super) {
  return DivideUp(super.groups, super.descriptors_per_block());
}

bool HasMetaBg(const Ext4Super& super) { return (super.incompat & ext4::incompat::kMetaBg) != 0; }

// How many blocks of descriptors lie behind the superblock and each of its copies.
uint64_t ClassicDescriptorBlocks(const Ext4Super& super) {
  return HasMetaBg(super) ? super.first_meta_bg : DescriptorBlocks(super);
}

uint64_t DescriptorBlockAt(const Ext4Super& super, uint64_t index) {
  if (index < ClassicDescriptorBlocks(super)) return super.first_data_block + 1 + index;
  const uint64_t group = index * super.descriptors_per_block();
  return super.GroupBegin(group) + (HasSuperblock(super, group) ? 1 : 0);
}

// The superblock, descriptors and blocks reserved for more of them at the start of a group
// (ext4_num_base_meta_blocks).
ByteRange BaseMetadata(const Ext4Super& super, uint64_t group) {
  const bool has_super = HasSuperblock(super, group);
  uint64_t blocks = has_super ? 1 : 0;
  const uint64_t per_block = super.descriptors_per_block();
  if (!HasMetaBg(super) || group / per_block < super.first_meta_bg) {
    if (has_super) blocks += ClassicDescriptorBlocks(super) + super.reserved_gdt_blocks;
  } else {
    // The descriptors of a meta group lie in its first, second and last group.
    const uint64_t place = group % per_block;
    if (place <= 1 || place == per_block - 1) blocks += 1;
  }
  const uint64_t begin = super.GroupBegin(group);
  return {begin, std::min(begin + blocks, super.GroupEnd(group))};
}

Status CheckDescriptorChecksum(const Ext4Super& super, uint32_t group,
                               std::span<const uint8_t> bytes) {
  if (!super.HasDescriptorChecksums()) return Status::Ok();
  uint8_t number[4];
  StoreLe<uint32_t>(number, group);
  constexpr uint32_t kBehind = gd::kChecksum + 2;
  constexpr uint8_t kNone[2] = {0, 0};
  uint16_t expected = 0;
  if (super.HasMetadataChecksums()) {
    uint32_t crc = Ext4Crc32c(super.checksum_seed, number);
    crc = Ext4Crc32c(crc, bytes.first(gd::kChecksum));
    crc = Ext4Crc32c(crc, kNone);
    crc = Ext4Crc32c(crc, bytes.subspan(kBehind));
    expected = static_cast<uint16_t>(crc);
  } else {
    expected = Crc16(super.uuid, 0xFFFF);
    expected = Crc16(number, expected);
    expected = Crc16(bytes.first(gd::kChecksum), expected);
    expected = Crc16(bytes.subspan(kBehind), expected);
  }
  if (LoadLe<uint16_t>(&bytes[gd::kChecksum]) == expected) return Status::Ok();
  return Bad("a group descriptor does not match its checksum");
}

Result<Ext4Group> ParseGroup(const Ext4Super& super, uint32_t number,
                             std::span<const uint8_t> bytes) {
  FIRN_RETURN_IF_ERROR(CheckDescriptorChecksum(super, number, bytes));
  const bool is_wide = bytes.size() >= gd::kBytes64;
  const auto block = [&](uint32_t offset) {
    const uint64_t high = is_wide ? LoadLe<uint32_t>(&bytes[gd::kHigh + offset]) : 0;
    return high << 32 | LoadLe<uint32_t>(&bytes[offset]);
  };
  const auto halves = [&](uint32_t low, uint32_t high) {
    const uint32_t upper = is_wide ? LoadLe<uint16_t>(&bytes[high]) : 0u;
    return upper << 16 | LoadLe<uint16_t>(&bytes[low]);
  };
  Ext4Group group;
  group.block_bitmap = block(gd::kBlockBitmap);
  group.inode_bitmap = block(gd::kInodeBitmap);
  group.inode_table = block(gd::kInodeTable);
  group.free_clusters = halves(gd::kFreeBlocks, gd::kFreeBlocksHigh);
  group.bitmap_checksum = halves(gd::kBitmapChecksum, gd::kBitmapChecksumHigh);
  const uint16_t flags = LoadLe<uint16_t>(&bytes[gd::kFlags]);
  // Without checksums the flags are not defined, and the kernel does not look at them.
  group.block_uninit = super.HasDescriptorChecksums() && (flags & gd::kBlockUninit) != 0;
  return group;
}

Status ReadGroups(const VolumeReader& volume, Ext4Layout* layout) {
  const Ext4Super& super = layout->super;
  if (HasMetaBg(super) && super.first_meta_bg > DescriptorBlocks(super)) {
    return Bad("the first meta block group is not there");
  }
  std::vector<uint8_t> block(super.block_bytes);
  layout->groups.reserve(super.groups);
  for (uint64_t i = 0; i < DescriptorBlocks(super); ++i) {
    FIRN_RETURN_IF_ERROR(volume.Read(DescriptorBlockAt(super, i) * super.block_bytes, block));
    for (uint64_t j = 0; j < super.descriptors_per_block(); ++j) {
      if (layout->groups.size() == super.groups) break;
      const auto bytes = std::span<const uint8_t>(block).subspan(j * super.descriptor_bytes,
                                                                 super.descriptor_bytes);
      FIRN_ASSIGN_OR_RETURN(const Ext4Group group,
                            ParseGroup(super, static_cast<uint32_t>(layout->groups.size()), bytes));
      layout->groups.push_back(group);
    }
  }
  return Status::Ok();
}

Status CollectMetadata(Ext4Layout* layout) {
  const Ext4Super& super = layout->super;
  const bool is_flexible = (super.incompat & ext4::incompat::kFlexBg) != 0;
  std::vector<ByteRange>& ranges = layout->metadata;
  ranges.reserve(layout->groups.size() * 4);
  for (uint64_t i = 0; i < layout->groups.size(); ++i) {
    const Ext4Group& group = layout->groups[i];
    // Without FLEX_BG a group's metadata lies in the group.
    const uint64_t begin = is_flexible ? super.first_data_block : super.GroupBegin(i);
    const uint64_t end = is_flexible ? super.blocks : super.GroupEnd(i);
    const auto add = [&](uint64_t block, uint64_t count) {
      if (block < begin || !RangeInside(block, count, end)) return false;
      ranges.push_back({block, block + count});
      return true;
    };
    if (!add(group.block_bitmap, 1) || !add(group.inode_bitmap, 1) ||
        !add(group.inode_table, super.inode_table_blocks())) {
      return Bad("a group's metadata lies outside the file system");
    }
    const ByteRange base = BaseMetadata(super, i);
    if (base.length() > 0) ranges.push_back(base);
  }
  std::ranges::sort(ranges, {}, &ByteRange::begin);
  size_t kept = 0;
  for (size_t i = 1; i < ranges.size(); ++i) {
    if (ranges[i].begin < ranges[kept].end) return Bad("two groups' metadata overlap");
    if (ranges[i].begin == ranges[kept].end) {
      ranges[kept].end = ranges[i].end;
    } else {
      ranges[++kept] = ranges[i];
    }
  }
  ranges.resize(kept + 1);
  return Status::Ok();
}

}  // namespace

Result<Ext4Layout> ReadExt4Layout(const VolumeReader& volume) {
  Ext4Layout layout;
  FIRN_ASSIGN_OR_RETURN(layout.super, ReadExt4Super(volume));
  FIRN_RETURN_IF_ERROR(ReadGroups(volume, &layout));
  FIRN_RETURN_IF_ERROR(CollectMetadata(&layout));
  return layout;
}

}  // namespace firn
