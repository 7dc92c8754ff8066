// The front and the end of a VHD: footer, dynamic header, parent locators (Virtual Hard Disk Image
// Format 1.0).
//
// Everything is checked before it is returned. Functions report to a LayerInfo and only read.
#ifndef FIRN_DISK_VHD_HEADER_H_
#define FIRN_DISK_VHD_HEADER_H_

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "core/bytes.h"
#include "core/status.h"
#include "disk/layer.h"
#include "disk/vhd_format.h"
#include "io/file.h"

namespace firn {

struct VhdFooter {
  std::array<uint8_t, vhd::footer::kBytes> bytes{};
  vhd::Type type = vhd::Type::kFixed;
  uint64_t virtual_size = 0;
  uint64_t data_offset = 0;  // of the dynamic header
  Guid uuid{};
  uint64_t payload_end = 0;  // where the footer starts, or the file ends if its footer is lost
};

struct VhdDynamicHeader {
  uint64_t table_offset = 0;
  uint32_t block_size = 0;
  uint32_t blocks = 0;  // of the disk; the table may have room for more
  Guid parent_uuid{};
  std::vector<ParentReference::Location> parent_locations;
};

// The footer at the end, or its copy at the start where that is damaged.
Result<VhdFooter> ReadVhdFooter(File& file, uint64_t file_bytes, LayerInfo* info);

// The footer at the end of the file, or at the start if that is damaged; false if neither is
// intact. Sets bytes and payload_end only.
Result<bool> FindVhdFooter(File& file, uint64_t file_bytes, LayerInfo* info, VhdFooter* footer);

// REQUIRES: footer is not of a fixed disk.
Result<VhdDynamicHeader> ReadVhdDynamicHeader(File& file, const VhdFooter& footer, LayerInfo* info);

// Footer UUIDs are big-endian, unlike GUIDs elsewhere.
std::string VhdUuidToString(const Guid& uuid);

}  // namespace firn

#endif  // FIRN_DISK_VHD_HEADER_H_
