// Where things lie in ext2, ext3 and ext4 (the kernel's fs/ext4/ext4.h). All integers are
// little-endian, the journal's big-endian.
#ifndef FIRN_USED_EXT4_FORMAT_H_
#define FIRN_USED_EXT4_FORMAT_H_

#include <cstdint>

namespace firn::ext4 {

inline constexpr uint64_t kSuperblockAt = 1024;
inline constexpr uint64_t kSuperblockBytes = 1024;
inline constexpr uint16_t kMagic = 0xEF53;
inline constexpr uint32_t kInodeBytesRev0 = 128;
inline constexpr uint32_t kJournalInode = 8;

namespace superblock {
inline constexpr uint32_t kInodes = 0x00;
inline constexpr uint32_t kBlocksLow = 0x04;
inline constexpr uint32_t kFreeBlocksLow = 0x0C;
inline constexpr uint32_t kFirstDataBlock = 0x14;
inline constexpr uint32_t kLogBlockSize = 0x18;
inline constexpr uint32_t kLogClusterSize = 0x1C;
inline constexpr uint32_t kBlocksPerGroup = 0x20;
inline constexpr uint32_t kClustersPerGroup = 0x24;
inline constexpr uint32_t kInodesPerGroup = 0x28;
inline constexpr uint32_t kMagicAt = 0x38;
inline constexpr uint32_t kState = 0x3A;
inline constexpr uint32_t kRevision = 0x4C;
inline constexpr uint32_t kInodeSize = 0x58;
inline constexpr uint32_t kGroupOfCopy = 0x5A;
inline constexpr uint32_t kCompat = 0x5C;
inline constexpr uint32_t kIncompat = 0x60;
inline constexpr uint32_t kReadOnlyCompat = 0x64;
inline constexpr uint32_t kUuid = 0x68;
inline constexpr uint32_t kReservedGdtBlocks = 0xCE;
inline constexpr uint32_t kJournalInodeNumber = 0xE0;
inline constexpr uint32_t kDescriptorSize = 0xFE;
inline constexpr uint32_t kFirstMetaBg = 0x104;
inline constexpr uint32_t kBlocksHigh = 0x150;
inline constexpr uint32_t kFreeBlocksHigh = 0x158;
inline constexpr uint32_t kChecksumType = 0x175;
inline constexpr uint32_t kErrorCount = 0x194;
inline constexpr uint32_t kBackupGroups = 0x24C;
inline constexpr uint32_t kChecksumSeed = 0x270;
inline constexpr uint32_t kChecksum = 0x3FC;
}  // namespace superblock

namespace state {
inline constexpr uint16_t kValid = 1;
inline constexpr uint16_t kErrors = 2;
}  // namespace state

namespace compat {
inline constexpr uint32_t kHasJournal = 0x4;
inline constexpr uint32_t kResizeInode = 0x10;
inline constexpr uint32_t kSparseSuper2 = 0x200;
// Preallocation, imagic, journal, attributes, resize inode, directory index, sparse_super2, fast
// commit, stable inodes, orphan file.
inline constexpr uint32_t kKnown = 0x3F | kSparseSuper2 | 0x400 | 0x800 | 0x1000;
}  // namespace compat

namespace incompat {
inline constexpr uint32_t kRecover = 0x4;
inline constexpr uint32_t kMetaBg = 0x10;
inline constexpr uint32_t kExtents = 0x40;
inline constexpr uint32_t k64Bit = 0x80;
inline constexpr uint32_t kFlexBg = 0x200;
inline constexpr uint32_t kChecksumSeed = 0x2000;
// File types, MMP, attribute inodes, large directories, inline data, encryption, case folding: none
// of them says where blocks are accounted for.
inline constexpr uint32_t kKnown = 0x2 | kRecover | kMetaBg | kExtents | k64Bit | 0x100 | kFlexBg |
                                   0x400 | kChecksumSeed | 0x4000 | 0x8000 | 0x10000 | 0x20000;
}  // namespace incompat

namespace read_only_compat {
inline constexpr uint32_t kSparseSuper = 0x1;
inline constexpr uint32_t kGdtChecksum = 0x10;
inline constexpr uint32_t kBigalloc = 0x200;
inline constexpr uint32_t kMetadataChecksum = 0x400;
// Large files, directories as trees, huge files, links, inode size, quota, read-only, project
// quota, verity, orphans present. Not snapshots, replicas and shared blocks.
inline constexpr uint32_t kKnown = kSparseSuper | 0x2 | 0x4 | 0x8 | kGdtChecksum | 0x20 | 0x40 |
                                   0x100 | kBigalloc | kMetadataChecksum | 0x1000 | 0x2000 |
                                   0x8000 | 0x10000;
}  // namespace read_only_compat

namespace descriptor {
inline constexpr uint32_t kBytes32 = 32;
inline constexpr uint32_t kBytes64 = 64;
inline constexpr uint32_t kBlockBitmap = 0x00;
inline constexpr uint32_t kInodeBitmap = 0x04;
inline constexpr uint32_t kInodeTable = 0x08;
inline constexpr uint32_t kFreeBlocks = 0x0C;
inline constexpr uint32_t kFlags = 0x12;
inline constexpr uint32_t kBitmapChecksum = 0x18;
inline constexpr uint32_t kChecksum = 0x1E;
inline constexpr uint32_t kHigh = 0x20;  // the high halves of the block numbers, in their order
inline constexpr uint32_t kFreeBlocksHigh = 0x2C;
inline constexpr uint32_t kBitmapChecksumHigh = 0x38;
inline constexpr uint16_t kBlockUninit = 0x2;
}  // namespace descriptor

namespace inode {
inline constexpr uint32_t kMode = 0x00;
inline constexpr uint32_t kFlags = 0x20;
inline constexpr uint32_t kBlocks = 0x28;
inline constexpr uint32_t kFlagExtents = 0x80000;
}  // namespace inode

namespace extent {
inline constexpr uint16_t kMagic = 0xF30A;
inline constexpr uint32_t kEntryBytes = 12;
inline constexpr uint16_t kDepthMax = 5;
}  // namespace extent

namespace journal {
inline constexpr uint32_t kMagic = 0xC03B3998;
inline constexpr uint32_t kBlockType = 0x4;
inline constexpr uint32_t kStart = 0x1C;
inline constexpr uint32_t kError = 0x20;
}  // namespace journal

}  // namespace firn::ext4

#endif  // FIRN_USED_EXT4_FORMAT_H_
