#include "disk/vhdx_metadata.h"

#include <algorithm>
#include <optional>
#include <set>

#include "disk/vhdx_format.h"

namespace firn {
namespace {

struct Item {
  Guid id{};
  uint64_t offset = 0;  // in the region
  uint32_t length = 0;
  uint32_t flags = 0;
  uint64_t entry_offset = 0;  // of its table entry in the file, for messages
};

std::string Describe(const Item& item) {
  return "metadata item " + GuidToString(item.id) + " (" + std::to_string(item.length) +
         " bytes at " + std::to_string(item.offset) + " of the region)";
}

bool IsKnown(const Guid& id) {
  static constexpr Guid kKnown[] = {
      vhdx::kFileParameters,    vhdx::kVirtualDiskSize,    vhdx::kVirtualDiskId,
      vhdx::kLogicalSectorSize, vhdx::kPhysicalSectorSize, vhdx::kParentLocator,
      vhdx::kChsParameters,     vhdx::kPmemLabelArea,
  };
  return std::ranges::find(kKnown, id) != std::end(kKnown);
}

Status CheckItem(const Item& item, const VhdxRegion& region, LayerInfo* info) {
  const bool is_user = (item.flags & vhdx::metadata::kIsUser) != 0;
  const bool is_required = (item.flags & vhdx::metadata::kIsRequired) != 0;
  constexpr uint32_t kFlags =
      vhdx::metadata::kIsUser | vhdx::metadata::kIsVirtualDisk | vhdx::metadata::kIsRequired;
  if ((item.flags & ~kFlags) != 0 || (is_user && is_required) || vhdx::IsZeroGuid(item.id)) {
    return Invalid(info, "metadata-flags", Describe(item) + " has an impossible id or flags",
                   item.entry_offset);
  }
  if (!is_user && item.id == vhdx::kIncompleteFile) {
    return Invalid(info, "incomplete-file",
                   "the file is marked as unfinished: its creation or conversion never ended",
                   item.entry_offset);
  }
  if (!is_user && is_required && !IsKnown(item.id)) {
    return Refuse(info, Code::kUnsupported, "unknown-metadata",
                  Describe(item) + " is required to be understood, and is not known",
                  item.entry_offset);
  }
  if (item.length == 0) return Status::Ok();
  if (item.length > vhdx::metadata::kItemLengthMax ||
      item.offset < vhdx::metadata::kItemOffsetMin ||
      !RangeInside(item.offset, item.length, region.length)) {
    return Invalid(info, "metadata-place", Describe(item) + " does not lie in the region",
                   item.entry_offset);
  }
  return Status::Ok();
}

Status CheckNoOverlap(std::vector<Item> items, LayerInfo* info) {
  std::erase_if(items, [](const Item& item) { return item.length == 0; });
  std::ranges::sort(items, {}, &Item::offset);
  for (size_t i = 1; i < items.size(); ++i) {
    if (items[i - 1].offset + items[i - 1].length > items[i].offset) {
      return Invalid(info, "metadata-overlap",
                     Describe(items[i - 1]) + " overlaps " + Describe(items[i]),
                     items[i].entry_offset);
    }
  }
  return Status::Ok();
}

Result<std::vector<Item>> ReadTable(const MetadataReader& reader, const VhdxRegion& region,
                                    LayerInfo* info) {
  if (region.length > vhdx::metadata::kRegionLengthMax) {
    return Invalid(info, "metadata-region", "the metadata region is longer than 128 MiB",
                   region.offset);
  }
  std::vector<uint8_t> table(vhdx::metadata::kTableBytes);
  FIRN_RETURN_IF_ERROR(reader.ReadAt(region.offset, table));
  const uint32_t count = LoadLe<uint16_t>(table.data() + vhdx::metadata::kEntryCount);
  if (!vhdx::HasSignature(table, vhdx::metadata::kSignature) ||
      count > vhdx::metadata::kEntryCountMax) {
    return Invalid(info, "metadata-table", "the metadata table is damaged", region.offset);
  }
  std::vector<Item> items;
  std::set<std::pair<Guid, bool>> seen;
  for (uint32_t i = 0; i < count; ++i) {
    const size_t within = vhdx::metadata::kEntries + i * vhdx::metadata::kEntryBytes;
    const uint8_t* entry = table.data() + within;
    Item item;
    item.id = vhdx::LoadGuid(entry + vhdx::metadata::kEntryId);
    item.offset = LoadLe<uint32_t>(entry + vhdx::metadata::kEntryOffset);
    item.length = LoadLe<uint32_t>(entry + vhdx::metadata::kEntryLength);
    item.flags = LoadLe<uint32_t>(entry + vhdx::metadata::kEntryFlags);
    item.entry_offset = region.offset + within;
    FIRN_RETURN_IF_ERROR(CheckItem(item, region, info));
    if (!seen.emplace(item.id, (item.flags & vhdx::metadata::kIsUser) != 0).second) {
      return Invalid(info, "metadata-twice", Describe(item) + " is listed twice",
                     item.entry_offset);
    }
    items.push_back(item);
  }
  FIRN_RETURN_IF_ERROR(CheckNoOverlap(items, info));
  return items;
}

// Fetches the system items by id.
class ItemReader {
 public:
  ItemReader(const MetadataReader& reader, const VhdxRegion& region, std::vector<Item> items,
             LayerInfo* info)
      : reader_(reader), region_(region), items_(std::move(items)), info_(info) {}

  const Item* Find(const Guid& id) const {
    for (const Item& item : items_) {
      if (item.id == id && (item.flags & vhdx::metadata::kIsUser) == 0) return &item;
    }
    return nullptr;
  }

  Result<std::vector<uint8_t>> Read(const Item& item) const {
    std::vector<uint8_t> bytes(item.length);
    FIRN_RETURN_IF_ERROR(reader_.ReadAt(region_.offset + item.offset, bytes));
    return bytes;
  }

  // An item that every disk has, of exactly this length.
  Result<std::vector<uint8_t>> ReadExact(const Guid& id, const char* name, size_t length) const {
    const Item* item = Find(id);
    if (item == nullptr) {
      return Invalid(info_, "metadata-missing", std::string("the metadata has no ") + name,
                     region_.offset);
    }
    if (item->length != length) {
      return Invalid(info_, "metadata-length",
                     std::string("the metadata's ") + name + " is " + std::to_string(item->length) +
                         " bytes long instead of " + std::to_string(length),
                     item->entry_offset);
    }
    return Read(*item);
  }

  uint64_t FileOffset(const Item& item) const { return region_.offset + item.offset; }

 private:
  const MetadataReader& reader_;
  const VhdxRegion& region_;
  const std::vector<Item> items_;
  LayerInfo* const info_;
};

Status CheckValues(const VhdxMetadata& metadata, uint64_t at, LayerInfo* info) {
  if (!vhdx::ValidBlockSize(metadata.block_size)) {
    return Invalid(info, "block-size",
                   "the block size " + std::to_string(metadata.block_size) +
                       " is not a power of two from 1 to 256 MiB",
                   at);
  }
  if (!vhdx::ValidSectorSize(metadata.logical_sector_size) ||
      !vhdx::ValidSectorSize(metadata.physical_sector_size)) {
    return Invalid(info, "sector-size",
                   "the sector sizes (" + std::to_string(metadata.logical_sector_size) +
                       " logical, " + std::to_string(metadata.physical_sector_size) +
                       " physical) are not 512 or 4096",
                   at);
  }
  if (metadata.virtual_size == 0 || metadata.virtual_size > vhdx::kVirtualSizeMax ||
      metadata.virtual_size % metadata.logical_sector_size != 0) {
    return Invalid(info, "virtual-size",
                   "the disk size " + std::to_string(metadata.virtual_size) +
                       " is not a whole number of sectors from 1 to 64 TiB",
                   at);
  }
  return Status::Ok();
}

}  // namespace

Result<std::vector<std::pair<std::string, std::string>>> ParseParentLocator(
    std::span<const uint8_t> item, uint64_t at, LayerInfo* info) {
  const auto bad = [&](const std::string& why, uint64_t within) {
    return Invalid(info, "parent-locator", "the parent locator " + why, at + within);
  };
  if (item.size() < vhdx::locator::kHeaderBytes) return bad("is too short", 0);
  if (vhdx::LoadGuid(item.data() + vhdx::locator::kType) != vhdx::kParentLocatorType) {
    return Refuse(info, Code::kUnsupported, "parent-locator",
                  "the parent locator is of a type that is not known", at);
  }
  const uint32_t count = LoadLe<uint16_t>(item.data() + vhdx::locator::kKeyValueCount);
  if (count == 0 || count > vhdx::locator::kKeyValueCountMax) {
    return bad("has " + std::to_string(count) + " entries", vhdx::locator::kKeyValueCount);
  }
  if (vhdx::locator::kHeaderBytes + count * vhdx::locator::kEntryBytes > item.size()) {
    return bad("is too short for its entries", vhdx::locator::kKeyValueCount);
  }
  const auto text = [&](uint64_t offset, uint64_t length) -> std::optional<std::string> {
    if (offset == 0 || length == 0 || !RangeInside(offset, length, item.size())) return {};
    return vhdx::Utf16LeToUtf8(item.subspan(offset, length));
  };
  std::vector<std::pair<std::string, std::string>> locator;
  for (uint32_t i = 0; i < count; ++i) {
    const size_t within = vhdx::locator::kHeaderBytes + i * vhdx::locator::kEntryBytes;
    const uint8_t* entry = item.data() + within;
    const std::optional<std::string> key =
        text(LoadLe<uint32_t>(entry + vhdx::locator::kEntryKeyOffset),
             LoadLe<uint16_t>(entry + vhdx::locator::kEntryKeyLength));
    const std::optional<std::string> value =
        text(LoadLe<uint32_t>(entry + vhdx::locator::kEntryValueOffset),
             LoadLe<uint16_t>(entry + vhdx::locator::kEntryValueLength));
    if (!key || !value) return bad("has an entry that is not well-formed text", within);
    const auto same_key = [&](const auto& other) { return other.first == *key; };
    if (std::ranges::any_of(locator, same_key)) return bad("has the same key twice", within);
    locator.emplace_back(*key, *value);
  }
  return locator;
}

Result<ParentReference> InterpretParentLocator(
    const std::vector<std::pair<std::string, std::string>>& locator, LayerInfo* info) {
  const auto find = [&](std::string_view key) -> const std::string* {
    for (const auto& [name, value] : locator) {
      if (name == key) return &value;
    }
    return nullptr;
  };
  ParentReference reference;
  const std::string* linkage = find(vhdx::locator::kParentLinkage);
  Guid guid{};
  if (linkage == nullptr || !GuidFromString(*linkage, &guid)) {
    return Invalid(info, "parent-linkage", "the parent locator has no valid parent_linkage", 0);
  }
  reference.linkages.push_back(guid);
  // Windows always writes the second linkage; it is zero unless a merge is under way.
  const std::string* second = find(vhdx::locator::kParentLinkage2);
  if (second != nullptr && !GuidFromString(*second, &guid)) {
    Warn(info, "parent-linkage2", "the parent locator's parent_linkage2 is not a GUID");
  } else if (second != nullptr && !vhdx::IsZeroGuid(guid)) {
    reference.linkages.push_back(guid);
  }

  const auto add = [&](std::string_view key, bool relative) {
    const std::string* path = find(key);
    if (path != nullptr) reference.locations.push_back({std::string(key), *path, relative});
  };
  add(vhdx::locator::kRelativePath, true);
  add(vhdx::locator::kVolumePath, false);
  add(vhdx::locator::kAbsolutePath, false);
  if (reference.locations.empty()) {
    Warn(info, "parent-path", "the parent locator has no path");
  }
  return reference;
}

Result<VhdxMetadata> ReadVhdxMetadata(const MetadataReader& reader, const VhdxRegion& region,
                                      LayerInfo* info) {
  FIRN_ASSIGN_OR_RETURN(std::vector<Item> table, ReadTable(reader, region, info));
  const ItemReader items(reader, region, std::move(table), info);
  VhdxMetadata metadata;

  FIRN_ASSIGN_OR_RETURN(const std::vector<uint8_t> parameters,
                        items.ReadExact(vhdx::kFileParameters, "file parameters",
                                        vhdx::metadata::kFileParametersBytes));
  FIRN_ASSIGN_OR_RETURN(const std::vector<uint8_t> size,
                        items.ReadExact(vhdx::kVirtualDiskSize, "disk size", 8));
  FIRN_ASSIGN_OR_RETURN(const std::vector<uint8_t> id,
                        items.ReadExact(vhdx::kVirtualDiskId, "disk id", 16));
  FIRN_ASSIGN_OR_RETURN(const std::vector<uint8_t> logical,
                        items.ReadExact(vhdx::kLogicalSectorSize, "logical sector size", 4));
  FIRN_ASSIGN_OR_RETURN(const std::vector<uint8_t> physical,
                        items.ReadExact(vhdx::kPhysicalSectorSize, "physical sector size", 4));
  metadata.block_size = LoadLe<uint32_t>(parameters.data());
  const auto flags = LoadLe<uint32_t>(parameters.data() + 4);
  metadata.leave_blocks_allocated = (flags & vhdx::metadata::kLeaveBlocksAllocated) != 0;
  metadata.has_parent = (flags & vhdx::metadata::kHasParent) != 0;
  if ((flags & ~(vhdx::metadata::kLeaveBlocksAllocated | vhdx::metadata::kHasParent)) != 0) {
    Warn(info, "file-parameters", "the file parameters have reserved flags set", region.offset);
  }
  metadata.virtual_size = LoadLe<uint64_t>(size.data());
  metadata.disk_id = vhdx::LoadGuid(id.data());
  metadata.logical_sector_size = LoadLe<uint32_t>(logical.data());
  metadata.physical_sector_size = LoadLe<uint32_t>(physical.data());
  FIRN_RETURN_IF_ERROR(CheckValues(metadata, region.offset, info));

  const Item* locator = items.Find(vhdx::kParentLocator);
  if (!metadata.has_parent) {
    if (locator != nullptr) {
      Warn(info, "parent-locator-unused",
           "there is a parent locator, but the disk says that it has no parent",
           locator->entry_offset);
    }
    return metadata;
  }
  if (locator == nullptr) {
    return Invalid(info, "metadata-missing", "the disk has a parent but no parent locator",
                   region.offset);
  }
  FIRN_ASSIGN_OR_RETURN(const std::vector<uint8_t> bytes, items.Read(*locator));
  FIRN_ASSIGN_OR_RETURN(metadata.parent_locator,
                        ParseParentLocator(bytes, items.FileOffset(*locator), info));
  return metadata;
}

}  // namespace firn
