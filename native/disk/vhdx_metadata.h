// The metadata region of a VHDX: what the disk is, and who its parent is (MS-VHDX 2.6).
//
// Pure functions over a MetadataReader; they only read and report what they find to a LayerInfo.
#ifndef FIRN_DISK_VHDX_METADATA_H_
#define FIRN_DISK_VHDX_METADATA_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "core/bytes.h"
#include "core/status.h"
#include "disk/layer.h"
#include "disk/metadata_reader.h"
#include "disk/vhdx_header.h"

namespace firn {

struct VhdxMetadata {
  uint32_t block_size = 0;
  bool leave_blocks_allocated = false;
  bool has_parent = false;
  uint64_t virtual_size = 0;
  Guid disk_id{};
  uint32_t logical_sector_size = 0;
  uint32_t physical_sector_size = 0;
  std::vector<std::pair<std::string, std::string>> parent_locator;  // all keys, as found
};

// Reads and checks the items that are known; kUnsupported for a required one that is not.
Result<VhdxMetadata> ReadVhdxMetadata(const MetadataReader& reader, const VhdxRegion& region,
                                      LayerInfo* info);

// The keys and values of a parent locator item that stands at `at` in the file.
Result<std::vector<std::pair<std::string, std::string>>> ParseParentLocator(
    std::span<const uint8_t> item, uint64_t at, LayerInfo* info);

// What the locator says, in the specification's order of lookup. Values that are not what their key
// promises are left out, with a warning; kDiskInvalid if no linkage is left to know a parent by.
Result<ParentReference> InterpretParentLocator(
    const std::vector<std::pair<std::string, std::string>>& locator, LayerInfo* info);

}  // namespace firn

#endif  // FIRN_DISK_VHDX_METADATA_H_
