// The superblock and the group descriptors of ext2, ext3 or ext4, read and checked.
//
// For one thread. What these functions return was checked against the volume: every block number
// lies inside it, and no two groups claim the same block for their metadata.
#ifndef FIRN_USED_EXT4_LAYOUT_H_
#define FIRN_USED_EXT4_LAYOUT_H_

#include <array>
#include <cstdint>
#include <vector>

#include "core/status.h"
#include "used/byte_range.h"
#include "used/volume_reader.h"

namespace firn {

struct Ext4Super {
  uint32_t compat = 0;
  uint32_t incompat = 0;
  uint32_t read_only_compat = 0;
  uint32_t block_bytes = 0;
  uint32_t cluster_blocks = 1;  // more than 1 with BIGALLOC
  uint64_t blocks = 0;
  uint64_t first_data_block = 0;
  uint64_t free_blocks = 0;
  uint32_t group_blocks = 0;
  uint32_t group_inodes = 0;
  uint32_t inode_bytes = 0;
  uint32_t descriptor_bytes = 0;
  uint32_t reserved_gdt_blocks = 0;
  uint64_t first_meta_bg = 0;
  uint32_t journal_inode = 0;
  uint32_t checksum_seed = 0;
  std::array<uint8_t, 16> uuid{};
  std::array<uint32_t, 2> backup_groups{};
  uint64_t groups = 0;

  bool HasMetadataChecksums() const;
  bool HasDescriptorChecksums() const;
  uint32_t group_clusters() const { return group_blocks / cluster_blocks; }
  uint64_t descriptors_per_block() const { return block_bytes / descriptor_bytes; }
  uint64_t inode_table_blocks() const;
  uint64_t GroupBegin(uint64_t group) const { return first_data_block + group * group_blocks; }
  // The last group may be short.
  uint64_t GroupEnd(uint64_t group) const;
};

struct Ext4Group {
  uint64_t block_bitmap = 0;
  uint64_t inode_bitmap = 0;
  uint64_t inode_table = 0;
  uint32_t free_clusters = 0;
  uint32_t bitmap_checksum = 0;  // 16 bits of it in descriptors of 32 bytes
  bool block_uninit = false;     // the bitmap was never written: only metadata is in use
};

struct Ext4Layout {
  Ext4Super super;
  std::vector<Ext4Group> groups;
  // Blocks of all groups' metadata: copies of the superblock and the descriptors, bitmaps, inode
  // tables. In order, not overlapping.
  std::vector<ByteRange> metadata;
};

// Keep if the file system is not clean, or anything in it is unknown, wrong or too large.
Result<Ext4Layout> ReadExt4Layout(const VolumeReader& volume);

}  // namespace firn

#endif  // FIRN_USED_EXT4_LAYOUT_H_
