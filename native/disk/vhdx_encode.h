// The parts of a VHDX that describe it, as bytes: identifier, headers, region tables, metadata,
// parent locator.
//
// Pure functions, safe from any thread. Where things stand is fixed, as Windows lays out a new
// image.
#ifndef FIRN_DISK_VHDX_ENCODE_H_
#define FIRN_DISK_VHDX_ENCODE_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "core/bytes.h"
#include "core/status.h"
#include "disk/disk.h"

namespace firn {

inline constexpr uint64_t kVhdxLogOffset = 1 * kMiB;
inline constexpr uint64_t kVhdxLogLength = 1 * kMiB;
inline constexpr uint64_t kVhdxMetadataOffset = 2 * kMiB;
inline constexpr uint64_t kVhdxMetadataLength = 1 * kMiB;
inline constexpr uint64_t kVhdxBatOffset = 3 * kMiB;

struct VhdxHead {
  DiskIdentity identity;
  std::vector<uint8_t> parent_locator;  // the encoded item; empty unless differencing
  uint64_t bat_length = 0;              // of the region: a multiple of 1 MiB
  Guid file_write_guid{};
  Guid data_write_guid{};
};

struct FilePart {
  uint64_t file_offset = 0;
  std::vector<uint8_t> bytes;
};

// All of it, in file order, for a clean image (no log). What lies between the parts is zero.
// REQUIRES: the identity is valid for a VHDX.
std::vector<FilePart> EncodeVhdxHead(const VhdxHead& head);

// The parent locator item (MS-VHDX 2.6.2.6) of UTF-8 keys and values. kInvalidArgument if one is
// not UTF-8, is empty or too long.
Result<std::vector<uint8_t>> EncodeParentLocator(
    const std::vector<std::pair<std::string, std::string>>& locator);

}  // namespace firn

#endif  // FIRN_DISK_VHDX_ENCODE_H_
