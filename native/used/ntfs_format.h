// Where things lie in NTFS 3. All integers are little-endian. There is no public specification; the
// names follow ntfs-3g's layout.h.
#ifndef FIRN_USED_NTFS_FORMAT_H_
#define FIRN_USED_NTFS_FORMAT_H_

#include <cstdint>

namespace firn::ntfs {

// Update sequences protect each of these, whatever the sector size.
inline constexpr uint32_t kFixupBytes = 512;

namespace boot {
inline constexpr uint64_t kBytes = 512;
inline constexpr uint32_t kName = 3;
inline constexpr uint32_t kSectorBytes = 0x0B;
inline constexpr uint32_t kClusterSectors = 0x0D;
inline constexpr uint32_t kSectors = 0x28;
inline constexpr uint32_t kMftCluster = 0x30;
inline constexpr uint32_t kRecordSize = 0x40;
inline constexpr uint32_t kCodeSectors = 16;  // that $Boot takes
}  // namespace boot

namespace record {
inline constexpr uint32_t kBytesMin = 512;
inline constexpr uint32_t kBytesMax = 4096;
inline constexpr uint32_t kFixupOffset = 0x04;
inline constexpr uint32_t kFixupCount = 0x06;
inline constexpr uint32_t kSequence = 0x10;
inline constexpr uint32_t kLinks = 0x12;
inline constexpr uint32_t kFirstAttribute = 0x14;
inline constexpr uint32_t kFlags = 0x16;
inline constexpr uint32_t kUsed = 0x18;
inline constexpr uint32_t kBase = 0x20;
inline constexpr uint32_t kNumber = 0x2C;  // in records with their fixups at 0x30, NTFS 3.1
inline constexpr uint32_t kHeaderBytes = 0x30;
inline constexpr uint16_t kInUse = 1;
inline constexpr uint16_t kDirectory = 2;
}  // namespace record

namespace attribute {
inline constexpr uint32_t kLength = 0x04;
inline constexpr uint32_t kNonResident = 0x08;
inline constexpr uint32_t kNameLength = 0x09;
inline constexpr uint32_t kFlags = 0x0C;
inline constexpr uint32_t kResidentHeader = 0x18;
inline constexpr uint32_t kValueLength = 0x10;
inline constexpr uint32_t kValueOffset = 0x14;
inline constexpr uint32_t kNonResidentHeader = 0x40;
inline constexpr uint32_t kFirstVcn = 0x10;
inline constexpr uint32_t kLastVcn = 0x18;
inline constexpr uint32_t kRunsOffset = 0x20;
inline constexpr uint32_t kAllocated = 0x28;
inline constexpr uint32_t kSize = 0x30;
inline constexpr uint32_t kInitialized = 0x38;

inline constexpr uint32_t kTypeList = 0x20;
inline constexpr uint32_t kTypeFileName = 0x30;
inline constexpr uint32_t kTypeVolumeInformation = 0x70;
inline constexpr uint32_t kTypeData = 0x80;
inline constexpr uint32_t kTypeEnd = 0xFFFFFFFF;
}  // namespace attribute

namespace number {
inline constexpr uint64_t kMft = 0;
inline constexpr uint64_t kLogFile = 2;
inline constexpr uint64_t kVolume = 3;
inline constexpr uint64_t kRoot = 5;
inline constexpr uint64_t kBitmap = 6;
inline constexpr uint64_t kFirstUser = 16;
}  // namespace number

// The low 48 bits of a file reference are the record's number, the others its sequence.
inline constexpr uint64_t kReferenceMask = 0xFFFFFFFFFFFF;

}  // namespace firn::ntfs

#endif  // FIRN_USED_NTFS_FORMAT_H_
