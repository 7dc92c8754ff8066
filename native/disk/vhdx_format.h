// The VHDX container as it stands on disk: constants, field offsets, BAT arithmetic, checksums
// (MS-VHDX v20240423).
//
// Shared by the reader and the writer. Pure functions, safe from any thread; nothing here does I/O
// or checks policy. All offsets and lengths are bytes, all integers little-endian. Structures are
// described by field offsets instead of packed structs, because every field is read from hostile
// bytes through LoadLe and a struct would invite reading it without a bounds check.
#ifndef FIRN_DISK_VHDX_FORMAT_H_
#define FIRN_DISK_VHDX_FORMAT_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "core/bytes.h"

namespace firn::vhdx {

// --- File map (MS-VHDX 2.2) ---
inline constexpr uint64_t kAlignment = kMiB;  // of the log, of regions and of blocks
inline constexpr uint64_t kHeaderSectionBytes = kMiB;
inline constexpr uint64_t kFileIdOffset = 0;
inline constexpr uint64_t kHeaderOffsets[2] = {64 * kKiB, 128 * kKiB};
inline constexpr uint64_t kRegionTableOffsets[2] = {192 * kKiB, 256 * kKiB};
inline constexpr uint64_t kRegionTablesEnd = 320 * kKiB;

// --- File type identifier (2.2.1) ---
inline constexpr std::string_view kFileSignature = "vhdxfile";
inline constexpr size_t kCreatorOffset = 8;
inline constexpr size_t kCreatorBytes = 512;
inline constexpr size_t kFileIdBytes = kCreatorOffset + kCreatorBytes;

// --- Header (2.2.2): 4 KiB, two copies ---
namespace header {
inline constexpr size_t kBytes = 4096;
inline constexpr std::string_view kSignature = "head";
inline constexpr size_t kChecksum = 4;
inline constexpr size_t kSequenceNumber = 8;
inline constexpr size_t kFileWriteGuid = 16;
inline constexpr size_t kDataWriteGuid = 32;
inline constexpr size_t kLogGuid = 48;
inline constexpr size_t kLogVersion = 64;
inline constexpr size_t kVersion = 66;
inline constexpr size_t kLogLength = 68;
inline constexpr size_t kLogOffset = 72;
inline constexpr uint16_t kSupportedVersion = 1;
inline constexpr uint16_t kSupportedLogVersion = 0;
}  // namespace header

// --- Region table (2.2.3): 64 KiB, two copies ---
namespace region {
inline constexpr size_t kTableBytes = 64 * kKiB;
inline constexpr std::string_view kSignature = "regi";
inline constexpr size_t kChecksum = 4;
inline constexpr size_t kEntryCount = 8;
inline constexpr uint32_t kEntryCountMax = 2047;
inline constexpr size_t kEntries = 16;
inline constexpr size_t kEntryBytes = 32;
// Inside an entry.
inline constexpr size_t kEntryGuid = 0;
inline constexpr size_t kEntryFileOffset = 16;
inline constexpr size_t kEntryLength = 24;
inline constexpr size_t kEntryFlags = 28;
inline constexpr uint32_t kRequired = 1;
}  // namespace region

// --- Metadata region (2.6) ---
namespace metadata {
inline constexpr size_t kTableBytes = 64 * kKiB;
inline constexpr std::string_view kSignature = "metadata";
inline constexpr size_t kEntryCount = 10;  // u16
inline constexpr uint32_t kEntryCountMax = 2047;
inline constexpr size_t kEntries = 32;
inline constexpr size_t kEntryBytes = 32;
// Inside an entry. The item's offset counts from the start of the metadata region.
inline constexpr size_t kEntryId = 0;
inline constexpr size_t kEntryOffset = 16;
inline constexpr size_t kEntryLength = 20;
inline constexpr size_t kEntryFlags = 24;
inline constexpr uint32_t kIsUser = 1;
inline constexpr uint32_t kIsVirtualDisk = 2;
inline constexpr uint32_t kIsRequired = 4;
inline constexpr uint64_t kItemOffsetMin = kTableBytes;
inline constexpr uint32_t kItemLengthMax = kMiB;
inline constexpr uint64_t kRegionLengthMax = 128 * kMiB;

// File parameters.
inline constexpr size_t kFileParametersBytes = 8;
inline constexpr uint32_t kLeaveBlocksAllocated = 1;
inline constexpr uint32_t kHasParent = 2;
}  // namespace metadata

// --- Parent locator (2.6.2.6) ---
namespace locator {
inline constexpr size_t kHeaderBytes = 20;
inline constexpr size_t kType = 0;
inline constexpr size_t kKeyValueCount = 18;  // u16
inline constexpr uint32_t kKeyValueCountMax = 256;
inline constexpr size_t kEntryBytes = 12;
// Inside an entry; offsets count from the start of the item, lengths are bytes of UTF-16LE.
inline constexpr size_t kEntryKeyOffset = 0;
inline constexpr size_t kEntryValueOffset = 4;
inline constexpr size_t kEntryKeyLength = 8;     // u16
inline constexpr size_t kEntryValueLength = 10;  // u16

inline constexpr std::string_view kParentLinkage = "parent_linkage";
inline constexpr std::string_view kParentLinkage2 = "parent_linkage2";
inline constexpr std::string_view kRelativePath = "relative_path";
inline constexpr std::string_view kVolumePath = "volume_path";
inline constexpr std::string_view kAbsolutePath = "absolute_win32_path";
}  // namespace locator

// --- Log (2.3) ---
namespace log {
inline constexpr uint64_t kSectorBytes = 4096;
inline constexpr uint64_t kLengthMax = kGiB;
inline constexpr std::string_view kEntrySignature = "loge";
inline constexpr size_t kEntryHeaderBytes = 64;
inline constexpr size_t kChecksum = 4;
inline constexpr size_t kEntryLength = 8;
inline constexpr size_t kTail = 12;
inline constexpr size_t kSequenceNumber = 16;
inline constexpr size_t kDescriptorCount = 24;
inline constexpr size_t kLogGuid = 32;
inline constexpr size_t kFlushedFileOffset = 48;
inline constexpr size_t kLastFileOffset = 56;

inline constexpr size_t kDescriptorBytes = 32;
inline constexpr std::string_view kZeroSignature = "zero";
inline constexpr std::string_view kDataSignature = "desc";
inline constexpr size_t kTrailingBytes = 4;  // 4 bytes, data descriptors
inline constexpr size_t kLeadingBytes = 8;   // 8 bytes, data descriptors
inline constexpr size_t kZeroLength = 8;     // u64, zero descriptors
inline constexpr size_t kFileOffset = 16;
inline constexpr size_t kDescriptorSequence = 24;

inline constexpr std::string_view kSectorSignature = "data";
inline constexpr size_t kSectorSequenceHigh = 4;
inline constexpr size_t kSectorBody = 8;  // 4084 bytes
inline constexpr size_t kSectorSequenceLow = 4092;
inline constexpr size_t kLeadingCount = 8;
inline constexpr size_t kTrailingCount = 4;
}  // namespace log

// --- GUIDs, as they stand on disk ---
inline constexpr Guid kBatRegion = {0x66, 0x77, 0xc2, 0x2d, 0x23, 0xf6, 0x00, 0x42,
                                    0x9d, 0x64, 0x11, 0x5e, 0x9b, 0xfd, 0x4a, 0x08};
inline constexpr Guid kMetadataRegion = {0x06, 0xa2, 0x7c, 0x8b, 0x90, 0x47, 0x9a, 0x4b,
                                         0xb8, 0xfe, 0x57, 0x5f, 0x05, 0x0f, 0x88, 0x6e};
inline constexpr Guid kFileParameters = {0x37, 0x67, 0xa1, 0xca, 0x36, 0xfa, 0x43, 0x4d,
                                         0xb3, 0xb6, 0x33, 0xf0, 0xaa, 0x44, 0xe7, 0x6b};
inline constexpr Guid kVirtualDiskSize = {0x24, 0x42, 0xa5, 0x2f, 0x1b, 0xcd, 0x76, 0x48,
                                          0xb2, 0x11, 0x5d, 0xbe, 0xd8, 0x3b, 0xf4, 0xb8};
inline constexpr Guid kVirtualDiskId = {0xab, 0x12, 0xca, 0xbe, 0xe6, 0xb2, 0x23, 0x45,
                                        0x93, 0xef, 0xc3, 0x09, 0xe0, 0x00, 0xc7, 0x46};
inline constexpr Guid kLogicalSectorSize = {0x1d, 0xbf, 0x41, 0x81, 0x6f, 0xa9, 0x09, 0x47,
                                            0xba, 0x47, 0xf2, 0x33, 0xa8, 0xfa, 0xab, 0x5f};
inline constexpr Guid kPhysicalSectorSize = {0xc7, 0x48, 0xa3, 0xcd, 0x5d, 0x44, 0x71, 0x44,
                                             0x9c, 0xc9, 0xe9, 0x88, 0x52, 0x51, 0xc5, 0x56};
inline constexpr Guid kParentLocator = {0x2d, 0x5f, 0xd3, 0xa8, 0x0b, 0xb3, 0x4d, 0x45,
                                        0xab, 0xf7, 0xd3, 0xd8, 0x48, 0x34, 0xab, 0x0c};
inline constexpr Guid kParentLocatorType = {0xb7, 0xef, 0x4a, 0xb0, 0x9e, 0xd1, 0x81, 0x4a,
                                            0xb7, 0x89, 0x25, 0xb8, 0xe9, 0x44, 0x59, 0x13};
// Not in the specification; Microsoft's own code writes it while a file is not finished, and
// refuses to open such a file.
inline constexpr Guid kIncompleteFile = {0xf0, 0x85, 0xcc, 0x71, 0x69, 0x1b, 0x28, 0x4e,
                                         0x95, 0x58, 0xc3, 0xbf, 0x83, 0xae, 0x75, 0xd3};
// Known and harmless: geometry and the label area of persistent memory.
inline constexpr Guid kChsParameters = {0xbc, 0xd7, 0x02, 0xda, 0x3a, 0x3d, 0x3c, 0x42,
                                        0xac, 0x88, 0x2a, 0x36, 0xab, 0x21, 0x47, 0x9b};
inline constexpr Guid kPmemLabelArea = {0x8a, 0xae, 0xe1, 0x10, 0x7e, 0x4b, 0x69, 0x41,
                                        0xa4, 0x0f, 0xcd, 0x70, 0xde, 0x92, 0x83, 0x93};

// --- Limits ---
inline constexpr uint64_t kVirtualSizeMax = 64 * kTiB;
inline constexpr uint64_t kBlockSizeMin = kMiB;
inline constexpr uint64_t kBlockSizeMax = 256 * kMiB;
// 2^28 MiB; the format could say 2^44 MiB, which overflows byte offsets.
inline constexpr uint64_t kFileOffsetEnd = 256 * kTiB;
inline constexpr uint64_t kSectorBitmapBytes = kMiB;
inline constexpr uint64_t kSectorsPerChunk = uint64_t{1} << 23;

// --- BAT (2.5) ---
inline constexpr size_t kBatEntryBytes = 8;
inline constexpr uint64_t kBatStateMask = 7;
inline constexpr uint64_t kBatReservedMask = 0xFFFF8;
inline constexpr uint64_t kBatOffsetMask = ~uint64_t{0xFFFFF};

enum class PayloadState : uint8_t {
  kNotPresent = 0,
  kUndefined = 1,
  kZero = 2,
  kUnmapped = 3,
  kReserved4 = 4,
  kReserved5 = 5,
  kFullyPresent = 6,
  kPartiallyPresent = 7,
};
enum class BitmapState : uint8_t { kNotPresent = 0, kPresent = 6 };

constexpr PayloadState PayloadStateOf(uint64_t entry) {
  return static_cast<PayloadState>(entry & kBatStateMask);
}
constexpr uint64_t BatOffsetOf(uint64_t entry) { return entry & kBatOffsetMask; }
constexpr uint64_t BatReservedOf(uint64_t entry) { return entry & kBatReservedMask; }

// REQUIRES: offset is a multiple of 1 MiB.
constexpr uint64_t MakeBatEntry(PayloadState state, uint64_t offset) {
  return offset | static_cast<uint64_t>(state);
}
constexpr uint64_t MakeBitmapEntry(BitmapState state, uint64_t offset) {
  return offset | static_cast<uint64_t>(state);
}

// Where things stand in the BAT of one disk.
struct BatLayout {
  uint64_t virtual_size = 0;
  uint64_t block_size = 0;
  uint64_t sector_size = 0;  // logical
  uint64_t chunk_ratio = 0;  // payload blocks per sector bitmap block
  uint64_t payload_blocks = 0;
  uint64_t chunks = 0;   // sector bitmap blocks of a differencing disk
  uint64_t entries = 0;  // that the BAT must hold

  // Sector bitmap slots stand after every `chunk_ratio` payload slots in every type of disk.
  constexpr uint64_t PayloadIndex(uint64_t block) const { return block + block / chunk_ratio; }
  constexpr uint64_t BitmapIndex(uint64_t chunk) const {
    return chunk * (chunk_ratio + 1) + chunk_ratio;
  }
  constexpr bool IsBitmapIndex(uint64_t index) const {
    return index % (chunk_ratio + 1) == chunk_ratio;
  }
  // The payload block at `index`, or the next one after a bitmap slot.
  constexpr uint64_t BlockAtOrAfter(uint64_t index) const {
    return index - index / (chunk_ratio + 1);
  }
  constexpr uint64_t ChunkOf(uint64_t block) const { return block / chunk_ratio; }
  // Bytes of block `block` that belong to the disk; less than block_size only in the last one.
  constexpr uint64_t BytesInBlock(uint64_t block) const {
    const uint64_t start = block * block_size;
    return virtual_size - start < block_size ? virtual_size - start : block_size;
  }
  // Where block `block`'s bits start in its chunk's sector bitmap, in bits. Bit i is bit i % 8
  // (least significant first) of byte i / 8.
  constexpr uint64_t FirstBit(uint64_t block) const {
    return block % chunk_ratio * (block_size / sector_size);
  }
};

// REQUIRES: sizes were checked (ValidBlockSize, ValidSectorSize, 0 < virtual_size <=
// kVirtualSizeMax).
constexpr BatLayout MakeBatLayout(uint64_t virtual_size, uint64_t block_size, uint64_t sector_size,
                                  bool has_parent) {
  BatLayout layout;
  layout.virtual_size = virtual_size;
  layout.block_size = block_size;
  layout.sector_size = sector_size;
  layout.chunk_ratio = kSectorsPerChunk * sector_size / block_size;
  layout.payload_blocks = DivideUp(virtual_size, block_size);
  layout.chunks = DivideUp(layout.payload_blocks, layout.chunk_ratio);
  layout.entries = has_parent
                       ? layout.chunks * (layout.chunk_ratio + 1)
                       : layout.payload_blocks + (layout.payload_blocks - 1) / layout.chunk_ratio;
  return layout;
}

constexpr bool ValidBlockSize(uint64_t bytes) {
  return bytes >= kBlockSizeMin && bytes <= kBlockSizeMax && (bytes & (bytes - 1)) == 0;
}
constexpr bool ValidSectorSize(uint64_t bytes) { return bytes == 512 || bytes == 4096; }

// --- Checksums: CRC-32C of the whole structure with its checksum field taken as zero ---

// REQUIRES: checksum_offset + 4 <= structure.size().
uint32_t StructureChecksum(std::span<const uint8_t> structure, size_t checksum_offset);
bool ChecksumMatches(std::span<const uint8_t> structure, size_t checksum_offset);
// Computes the checksum and stores it.
void SealChecksum(std::span<uint8_t> structure, size_t checksum_offset);

// --- Strings ---
bool HasSignature(std::span<const uint8_t> bytes, std::string_view signature);
Guid LoadGuid(const uint8_t* p);
bool IsZeroGuid(const Guid& guid);

// UTF-16LE to UTF-8; nothing if the length is odd, a surrogate stands alone or a NUL occurs.
std::optional<std::string> Utf16LeToUtf8(std::span<const uint8_t> bytes);
// UTF-8 to UTF-16LE bytes, without NUL; nothing if it is not UTF-8.
std::optional<std::string> Utf8ToUtf16Le(std::string_view text);

}  // namespace firn::vhdx

#endif  // FIRN_DISK_VHDX_FORMAT_H_
