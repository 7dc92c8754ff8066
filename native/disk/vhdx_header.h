// The front of a VHDX: file identifier, the two headers, the two region tables (MS-VHDX 2.2).
//
// Everything here is checked before it is returned: offsets, lengths, alignment, overlaps with each
// other and with the log. Functions report what they find to a LayerInfo and are otherwise pure;
// they only read.
#ifndef FIRN_DISK_VHDX_HEADER_H_
#define FIRN_DISK_VHDX_HEADER_H_

#include <cstdint>
#include <vector>

#include "core/bytes.h"
#include "core/status.h"
#include "disk/layer.h"
#include "disk/metadata_reader.h"
#include "io/file.h"

namespace firn {

struct VhdxHeader {
  uint64_t sequence_number = 0;
  Guid file_write_guid{};
  Guid data_write_guid{};
  Guid log_guid{};  // zero: nothing to replay
  uint64_t log_offset = 0;
  uint64_t log_length = 0;
};

struct VhdxRegion {
  Guid id{};
  uint64_t offset = 0;
  uint64_t length = 0;
};

struct VhdxRegions {
  VhdxRegion bat;
  VhdxRegion metadata;
  std::vector<VhdxRegion> all;  // these two and those that are unknown but not required
};

// Checks the signature and length and takes the creator.
Status ReadVhdxFileId(File& file, uint64_t file_bytes, LayerInfo* info);

// The current header. kDiskInvalid if both copies are bad, kUnsupported for a version that is not
// ours.
Result<VhdxHeader> ReadVhdxHeader(File& file, uint64_t file_bytes, LayerInfo* info);

// The regions, read through the log's overlay. kUnsupported for a required region that is not
// known.
Result<VhdxRegions> ReadVhdxRegions(const MetadataReader& reader, const VhdxHeader& header,
                                    LayerInfo* info);

}  // namespace firn

#endif  // FIRN_DISK_VHDX_HEADER_H_
