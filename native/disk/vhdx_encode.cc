#include "disk/vhdx_encode.h"

#include <algorithm>
#include <cassert>
#include <optional>
#include <span>
#include <string_view>

#include "disk/vhdx_format.h"

namespace firn {

namespace {

using Bytes = std::vector<uint8_t>;

void PutText(Bytes* bytes, size_t offset, std::string_view text) {
  std::ranges::copy(text, bytes->begin() + static_cast<ptrdiff_t>(offset));
}

void PutGuid(Bytes* bytes, size_t offset, const Guid& guid) {
  std::ranges::copy(guid, bytes->begin() + static_cast<ptrdiff_t>(offset));
}

template <std::unsigned_integral T>
Bytes Integer(T value) {
  Bytes bytes(sizeof value);
  StoreLe<T>(bytes.data(), value);
  return bytes;
}

Bytes EncodeIdentifier() {
  Bytes bytes(vhdx::kFileIdBytes);
  PutText(&bytes, 0, vhdx::kFileSignature);
  const std::optional<std::string> creator = vhdx::Utf8ToUtf16Le("Firn " FIRN_VERSION);
  assert(creator && creator->size() <= vhdx::kCreatorBytes);
  PutText(&bytes, vhdx::kCreatorOffset, *creator);
  return bytes;
}

Bytes EncodeHeader(const VhdxHead& head, uint64_t sequence_number) {
  namespace field = vhdx::header;
  Bytes bytes(field::kBytes);
  PutText(&bytes, 0, field::kSignature);
  StoreLe<uint64_t>(&bytes[field::kSequenceNumber], sequence_number);
  PutGuid(&bytes, field::kFileWriteGuid, head.file_write_guid);
  PutGuid(&bytes, field::kDataWriteGuid, head.data_write_guid);
  StoreLe<uint16_t>(&bytes[field::kVersion], field::kSupportedVersion);
  StoreLe<uint32_t>(&bytes[field::kLogLength], kVhdxLogLength);
  StoreLe<uint64_t>(&bytes[field::kLogOffset], kVhdxLogOffset);
  vhdx::SealChecksum(bytes, field::kChecksum);
  return bytes;
}

Bytes EncodeRegionTable(uint64_t bat_length) {
  namespace field = vhdx::region;
  struct Region {
    const Guid& id;
    uint64_t offset;
    uint64_t length;
  };
  const Region regions[] = {{vhdx::kBatRegion, kVhdxBatOffset, bat_length},
                            {vhdx::kMetadataRegion, kVhdxMetadataOffset, kVhdxMetadataLength}};
  Bytes bytes(field::kTableBytes);
  PutText(&bytes, 0, field::kSignature);
  StoreLe<uint32_t>(&bytes[field::kEntryCount], static_cast<uint32_t>(std::size(regions)));
  size_t entry = field::kEntries;
  for (const Region& region : regions) {
    PutGuid(&bytes, entry + field::kEntryGuid, region.id);
    StoreLe<uint64_t>(&bytes[entry + field::kEntryFileOffset], region.offset);
    StoreLe<uint32_t>(&bytes[entry + field::kEntryLength], static_cast<uint32_t>(region.length));
    StoreLe<uint32_t>(&bytes[entry + field::kEntryFlags], field::kRequired);
    entry += field::kEntryBytes;
  }
  vhdx::SealChecksum(bytes, field::kChecksum);
  return bytes;
}

// The table and, right behind it, the items in Windows' order.
Bytes EncodeMetadata(const VhdxHead& head) {
  namespace field = vhdx::metadata;
  const DiskIdentity& identity = head.identity;
  uint32_t parameters = 0;
  if (identity.kind == DiskKind::kFixed) parameters |= field::kLeaveBlocksAllocated;
  if (identity.kind == DiskKind::kDifferencing) parameters |= field::kHasParent;
  Bytes file_parameters(field::kFileParametersBytes);
  StoreLe<uint32_t>(&file_parameters[0], identity.block_size);
  StoreLe<uint32_t>(&file_parameters[4], parameters);

  struct Item {
    const Guid& id;
    uint32_t flags;
    Bytes value;
  };
  constexpr uint32_t kOfFile = field::kIsRequired;
  constexpr uint32_t kOfDisk = field::kIsRequired | field::kIsVirtualDisk;
  std::vector<Item> items;
  items.push_back({vhdx::kFileParameters, kOfFile, std::move(file_parameters)});
  items.push_back({vhdx::kVirtualDiskSize, kOfDisk, Integer<uint64_t>(identity.size)});
  items.push_back(
      {vhdx::kLogicalSectorSize, kOfDisk, Integer<uint32_t>(identity.logical_sector_size)});
  items.push_back(
      {vhdx::kPhysicalSectorSize, kOfDisk, Integer<uint32_t>(identity.physical_sector_size)});
  items.push_back(
      {vhdx::kVirtualDiskId, kOfDisk, Bytes(identity.disk_id.begin(), identity.disk_id.end())});
  if (identity.kind == DiskKind::kDifferencing) {
    items.push_back({vhdx::kParentLocator, kOfFile, head.parent_locator});
  }

  Bytes bytes(field::kTableBytes);
  PutText(&bytes, 0, field::kSignature);
  StoreLe<uint16_t>(&bytes[field::kEntryCount], static_cast<uint16_t>(items.size()));
  size_t entry = field::kEntries;
  for (const Item& item : items) {
    PutGuid(&bytes, entry + field::kEntryId, item.id);
    StoreLe<uint32_t>(&bytes[entry + field::kEntryOffset], static_cast<uint32_t>(bytes.size()));
    StoreLe<uint32_t>(&bytes[entry + field::kEntryLength],
                      static_cast<uint32_t>(item.value.size()));
    StoreLe<uint32_t>(&bytes[entry + field::kEntryFlags], item.flags);
    bytes.insert(bytes.end(), item.value.begin(), item.value.end());
    entry += field::kEntryBytes;
  }
  assert(bytes.size() <= kVhdxMetadataLength);
  return bytes;
}

Status LocatorError(const std::string& key, const char* message) {
  return Status::Error(Code::kInvalidArgument, "parent locator, " + key + ": " + message);
}

}  // namespace

std::vector<FilePart> EncodeVhdxHead(const VhdxHead& head) {
  const Bytes region_table = EncodeRegionTable(head.bat_length);
  std::vector<FilePart> parts;
  parts.push_back({vhdx::kFileIdOffset, EncodeIdentifier()});
  parts.push_back({vhdx::kHeaderOffsets[0], EncodeHeader(head, 1)});
  parts.push_back({vhdx::kHeaderOffsets[1], EncodeHeader(head, 2)});
  parts.push_back({vhdx::kRegionTableOffsets[0], region_table});
  parts.push_back({vhdx::kRegionTableOffsets[1], region_table});
  parts.push_back({kVhdxMetadataOffset, EncodeMetadata(head)});
  return parts;
}

Result<std::vector<uint8_t>> EncodeParentLocator(
    const std::vector<std::pair<std::string, std::string>>& locator) {
  namespace field = vhdx::locator;
  constexpr size_t kStringMax = 0xFFFE;  // an even count of bytes in a u16
  Bytes bytes(field::kHeaderBytes + locator.size() * field::kEntryBytes);
  PutGuid(&bytes, field::kType, vhdx::kParentLocatorType);
  StoreLe<uint16_t>(&bytes[field::kKeyValueCount], static_cast<uint16_t>(locator.size()));
  size_t entry = field::kHeaderBytes;
  for (const auto& [key, value] : locator) {
    const std::optional<std::string> encoded_key = vhdx::Utf8ToUtf16Le(key);
    const std::optional<std::string> encoded_value = vhdx::Utf8ToUtf16Le(value);
    if (!encoded_key || !encoded_value) return LocatorError(key, "not UTF-8");
    if (encoded_key->empty() || encoded_value->empty()) return LocatorError(key, "empty");
    if (encoded_key->size() > kStringMax || encoded_value->size() > kStringMax) {
      return LocatorError(key, "too long");
    }
    StoreLe<uint32_t>(&bytes[entry + field::kEntryKeyOffset], static_cast<uint32_t>(bytes.size()));
    StoreLe<uint16_t>(&bytes[entry + field::kEntryKeyLength],
                      static_cast<uint16_t>(encoded_key->size()));
    bytes.insert(bytes.end(), encoded_key->begin(), encoded_key->end());
    StoreLe<uint32_t>(&bytes[entry + field::kEntryValueOffset],
                      static_cast<uint32_t>(bytes.size()));
    StoreLe<uint16_t>(&bytes[entry + field::kEntryValueLength],
                      static_cast<uint16_t>(encoded_value->size()));
    bytes.insert(bytes.end(), encoded_value->begin(), encoded_value->end());
    entry += field::kEntryBytes;
  }
  return bytes;
}

}  // namespace firn
