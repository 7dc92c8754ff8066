// The VHD container as it stands on disk: constants, field offsets, checksums, geometry (Virtual
// Hard Disk Image Format 1.0).
//
// Shared by the reader and the writer. Pure functions, safe from any thread; nothing here does I/O
// or checks policy. All integers are BIG-endian, offsets and lengths are bytes unless a name says
// sectors, a sector is always 512 bytes.
#ifndef FIRN_DISK_VHD_FORMAT_H_
#define FIRN_DISK_VHD_FORMAT_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "core/bytes.h"

namespace firn::vhd {

inline constexpr uint64_t kSectorBytes = 512;

// --- Footer: the last 512 bytes; dynamic and differencing disks have a copy at offset 0 ---
namespace footer {
inline constexpr size_t kBytes = 512;
inline constexpr size_t kOldBytes = 511;  // as early Virtual PC wrote it
inline constexpr std::string_view kSignature = "conectix";
inline constexpr size_t kFeatures = 8;
inline constexpr size_t kVersion = 12;
inline constexpr size_t kDataOffset = 16;
inline constexpr size_t kTimestamp = 24;  // seconds since 2000-01-01 00:00 UTC
inline constexpr size_t kCreatorApp = 28;
inline constexpr size_t kCreatorVersion = 32;
inline constexpr size_t kCreatorHost = 36;
inline constexpr size_t kOriginalSize = 40;
inline constexpr size_t kCurrentSize = 48;
inline constexpr size_t kGeometry = 56;  // u16 cylinders, u8 heads, u8 sectors per track
inline constexpr size_t kType = 60;
inline constexpr size_t kChecksum = 64;
inline constexpr size_t kUuid = 68;
inline constexpr size_t kSavedState = 84;

inline constexpr uint32_t kFeaturesReserved = 2;  // always set
inline constexpr uint32_t kSupportedVersion = 0x00010000;
inline constexpr uint64_t kNoDataOffset = ~uint64_t{0};
}  // namespace footer

enum class Type : uint32_t { kFixed = 2, kDynamic = 3, kDifferencing = 4 };

// --- Dynamic header, 1024 bytes at the footer's data offset ---
namespace dynamic_header {
inline constexpr size_t kBytes = 1024;
inline constexpr std::string_view kSignature = "cxsparse";
inline constexpr size_t kNextOffset = 8;
inline constexpr size_t kTableOffset = 16;
inline constexpr size_t kVersion = 24;
inline constexpr size_t kMaxTableEntries = 28;
inline constexpr size_t kBlockSize = 32;
inline constexpr size_t kChecksum = 36;
inline constexpr size_t kParentUuid = 40;
inline constexpr size_t kParentTimestamp = 56;
inline constexpr size_t kParentName = 64;  // UTF-16 BIG-endian
inline constexpr size_t kParentNameBytes = 512;
inline constexpr size_t kLocators = 576;
inline constexpr size_t kLocatorCount = 8;
inline constexpr size_t kLocatorBytes = 24;
// Inside a locator.
inline constexpr size_t kLocatorCode = 0;
inline constexpr size_t kLocatorSpace =
    4;  // the specification says sectors, Microsoft writes bytes
inline constexpr size_t kLocatorLength = 8;  // bytes
inline constexpr size_t kLocatorOffset = 16;
inline constexpr uint32_t kSupportedVersion = 0x00010000;
}  // namespace dynamic_header

// Platform codes; the strings behind both are UTF-16 LITTLE-endian without NUL.
inline constexpr uint32_t kLocatorRelative = 0x57327275;  // "W2ru"
inline constexpr uint32_t kLocatorAbsolute = 0x57326B75;  // "W2ku"

// --- BAT and blocks ---
inline constexpr size_t kBatEntryBytes = 4;  // sector number of the block's bitmap
inline constexpr uint32_t kBatAbsent = 0xFFFFFFFF;
inline constexpr uint32_t kDefaultBlockSize = 2 * kMiB;
inline constexpr uint32_t kBlockSizeMin = 512 * kKiB;
inline constexpr uint32_t kBlockSizeMax = 256 * kMiB;
inline constexpr uint64_t kVirtualSizeMax = 2040 * kGiB;

// Of the sector bitmap in front of each block's data. Bit 7 of byte 0 is sector 0.
constexpr uint64_t BitmapBytes(uint64_t block_size) {
  return RoundUp(DivideUp(block_size / kSectorBytes, 8), kSectorBytes);
}

// --- Checksums: one's complement of the sum of all bytes, the checksum field taken as zero ---
uint32_t StructureChecksum(std::span<const uint8_t> structure, size_t checksum_offset);
bool ChecksumMatches(std::span<const uint8_t> structure, size_t checksum_offset);
// Computes the checksum and stores it.
void SealChecksum(std::span<uint8_t> structure, size_t checksum_offset);

// --- Geometry (appendix "CHS Calculation") ---
struct Geometry {
  uint16_t cylinders = 0;
  uint8_t heads = 0;
  uint8_t sectors_per_track = 0;
};
Geometry GeometryOf(uint64_t bytes);

}  // namespace firn::vhd

#endif  // FIRN_DISK_VHD_FORMAT_H_
