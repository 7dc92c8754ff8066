#include "used/ext4.h"

#include <algorithm>
#include <span>
#include <string>
#include <vector>

#include "core/bytes.h"
#include "used/bitmap.h"
#include "used/crc.h"
#include "used/ext4_format.h"
#include "used/ext4_journal.h"
#include "used/ext4_layout.h"

namespace firn {
namespace {

Status Bad(const std::string& why) { return Keep(keep::kInconsistent, why); }

// Walks the groups in order and collects what is free in them.
class GroupWalk {
 public:
  GroupWalk(const VolumeReader& volume, const Ext4Layout& layout, SkipList* skip)
      : volume_(volume),
        layout_(layout),
        super_(layout.super),
        skip_(skip),
        bits_(layout.super.block_bytes) {}

  Status Run() {
    for (uint64_t i = 0; i < layout_.groups.size(); ++i) FIRN_RETURN_IF_ERROR(Visit(i));
    // Groups count clusters, the superblock blocks.
    if (free_clusters_ * super_.cluster_blocks != super_.free_blocks) {
      return Bad("the groups do not have as many free blocks as the superblock says");
    }
    return Status::Ok();
  }

  uint64_t free_bytes() const { return free_clusters_ * ClusterBytes(); }

 private:
  uint64_t ClusterBytes() const { return uint64_t{super_.cluster_blocks} * super_.block_bytes; }

  Status Visit(uint64_t index) {
    const Ext4Group& group = layout_.groups[index];
    const uint64_t begin = super_.GroupBegin(index);
    const uint64_t clusters = DivideUp(super_.GroupEnd(index) - begin, super_.cluster_blocks);
    if (group.block_uninit) {
      std::ranges::fill(bits_, uint8_t{0});
    } else {
      FIRN_RETURN_IF_ERROR(ReadBitmap(group));
    }
    FIRN_RETURN_IF_ERROR(ApplyMetadata(index, group.block_uninit));
    const uint64_t free = clusters - CountSetBits(bits_, 0, clusters);
    if (free != group.free_clusters) {
      return Bad("a group does not have as many free blocks as its descriptor says");
    }
    free_clusters_ += free;
    for (uint64_t at = 0; at < clusters;) {
      const uint64_t from = FindBit(bits_, at, clusters, false);
      const uint64_t to = FindBit(bits_, from, clusters, true);
      Skip(begin + from * super_.cluster_blocks, begin + to * super_.cluster_blocks);
      at = to;
    }
    return Status::Ok();
  }

  Status ReadBitmap(const Ext4Group& group) {
    FIRN_RETURN_IF_ERROR(volume_.Read(group.block_bitmap * super_.block_bytes, bits_));
    if (!super_.HasMetadataChecksums()) return Status::Ok();
    uint32_t crc = Ext4Crc32c(super_.checksum_seed,
                              std::span<const uint8_t>(bits_).first(super_.group_clusters() / 8));
    if (super_.descriptor_bytes < ext4::descriptor::kBytes64) crc &= 0xFFFF;
    if (crc == group.bitmap_checksum) return Status::Ok();
    return Bad("a block bitmap does not match its checksum");
  }

  // Marks the metadata in a group without a bitmap; in the others it has to be marked.
  Status ApplyMetadata(uint64_t index, bool mark) {
    const std::vector<ByteRange>& metadata = layout_.metadata;
    const uint64_t begin = super_.GroupBegin(index);
    const uint64_t end = super_.GroupEnd(index);
    while (next_ < metadata.size() && metadata[next_].end <= begin) ++next_;
    for (size_t i = next_; i < metadata.size() && metadata[i].begin < end; ++i) {
      const uint64_t from = (std::max(metadata[i].begin, begin) - begin) / super_.cluster_blocks;
      const uint64_t to = DivideUp(std::min(metadata[i].end, end) - begin, super_.cluster_blocks);
      if (mark) {
        SetBits(bits_, from, to);
      } else if (!AllBitsSet(bits_, from, to)) {
        return Bad("a block bitmap calls blocks free that hold the file system's metadata");
      }
    }
    return Status::Ok();
  }

  void Skip(uint64_t begin_block, uint64_t end_block) {
    const uint64_t end = std::min(end_block, super_.blocks);
    if (begin_block >= end) return;
    skip_->Add(volume_.begin() + begin_block * super_.block_bytes,
               volume_.begin() + end * super_.block_bytes);
  }

  const VolumeReader& volume_;
  const Ext4Layout& layout_;
  const Ext4Super& super_;
  SkipList* const skip_;
  std::vector<uint8_t> bits_;
  size_t next_ = 0;  // the first range of metadata that may lie in the next group
  uint64_t free_clusters_ = 0;
};

// As the superblock has it before anything is checked, so that a refusal says of what.
Result<std::string> ReadName(const VolumeReader& volume) {
  FIRN_ASSIGN_OR_RETURN(const std::vector<uint8_t> bytes,
                        volume.Read(ext4::kSuperblockAt, ext4::kSuperblockBytes));
  Ext4Super super;
  super.compat = LoadLe<uint32_t>(&bytes[ext4::superblock::kCompat]);
  super.incompat = LoadLe<uint32_t>(&bytes[ext4::superblock::kIncompat]);
  super.read_only_compat = LoadLe<uint32_t>(&bytes[ext4::superblock::kReadOnlyCompat]);
  const uint32_t only_ext4 =
      ext4::incompat::kExtents | ext4::incompat::k64Bit | ext4::incompat::kFlexBg;
  if ((super.incompat & only_ext4) != 0 || super.HasDescriptorChecksums()) {
    return std::string("ext4");
  }
  return std::string((super.compat & ext4::compat::kHasJournal) != 0 ? "ext3" : "ext2");
}

}  // namespace

Result<VolumeUse> FindUsedInExt4(const VolumeReader& volume, SkipList* skip, std::string* name) {
  FIRN_ASSIGN_OR_RETURN(*name, ReadName(volume));
  FIRN_ASSIGN_OR_RETURN(const Ext4Layout layout, ReadExt4Layout(volume));
  FIRN_RETURN_IF_ERROR(CheckExt4JournalIsEmpty(volume, layout));
  GroupWalk walk(volume, layout, skip);
  FIRN_RETURN_IF_ERROR(walk.Run());
  VolumeUse use;
  use.used_bytes = layout.super.blocks * layout.super.block_bytes - walk.free_bytes();
  return use;
}

}  // namespace firn
