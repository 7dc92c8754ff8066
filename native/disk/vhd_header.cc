#include "disk/vhd_header.h"

#include <algorithm>
#include <iterator>
#include <optional>

#include "disk/vhdx_format.h"

namespace firn {
namespace {

using FooterBytes = std::array<uint8_t, vhd::footer::kBytes>;

constexpr uint32_t kLocatorBytesMax = 64 * kKiB;

bool IsIntactFooter(const FooterBytes& bytes) {
  return vhdx::HasSignature(bytes, vhd::footer::kSignature) &&
         vhd::ChecksumMatches(bytes, vhd::footer::kChecksum);
}

bool IsFixed(const FooterBytes& bytes) {
  return LoadBe<uint32_t>(bytes.data() + vhd::footer::kType) ==
         static_cast<uint32_t>(vhd::Type::kFixed);
}

// The footer of `length` bytes at the end of the file; what early writers left out of it is zero.
Result<std::optional<FooterBytes>> ReadTailFooter(File& file, uint64_t file_bytes, size_t length) {
  FooterBytes bytes{};
  if (file_bytes < length) return std::optional<FooterBytes>();
  FIRN_RETURN_IF_ERROR(file.ReadAt(file_bytes - length, std::span(bytes).first(length)));
  if (!IsIntactFooter(bytes)) return std::optional<FooterBytes>();
  return std::optional<FooterBytes>(bytes);
}

std::string CreatorOf(const FooterBytes& bytes) {
  const auto text = [&](size_t offset) {
    std::string word =
        Printable(std::string_view(reinterpret_cast<const char*>(bytes.data()) + offset, 4));
    while (!word.empty() && (word.back() == ' ' || word.back() == '?')) word.pop_back();
    return word;
  };
  const auto version = LoadBe<uint32_t>(bytes.data() + vhd::footer::kCreatorVersion);
  return text(vhd::footer::kCreatorApp) + " " + std::to_string(version >> 16) + "." +
         std::to_string(version & 0xFFFF) + " (" + text(vhd::footer::kCreatorHost) + ")";
}

bool Overlaps(uint64_t a, uint64_t a_length, uint64_t b, uint64_t b_length) {
  return a < b + b_length && b < a + a_length;
}

std::optional<std::string> ParentName(std::span<const uint8_t> header) {
  std::vector<uint8_t> little_endian;
  for (size_t i = 0; i < vhd::dynamic_header::kParentNameBytes; i += 2) {
    const uint8_t* unit = header.data() + vhd::dynamic_header::kParentName + i;
    if (unit[0] == 0 && unit[1] == 0) break;
    little_endian.push_back(unit[1]);
    little_endian.push_back(unit[0]);
  }
  if (little_endian.empty()) return std::nullopt;
  return vhdx::Utf16LeToUtf8(little_endian);
}

// The path that a locator holds; nothing if it is damaged.
Result<std::optional<std::string>> ReadLocator(File& file, const uint8_t* locator,
                                               uint64_t file_bytes) {
  uint64_t space = LoadBe<uint32_t>(locator + vhd::dynamic_header::kLocatorSpace);
  if (space < vhd::kSectorBytes) space *= vhd::kSectorBytes;
  const auto length = LoadBe<uint32_t>(locator + vhd::dynamic_header::kLocatorLength);
  const auto offset = LoadBe<uint64_t>(locator + vhd::dynamic_header::kLocatorOffset);
  if (length == 0 || length > space || length > kLocatorBytesMax ||
      !RangeInside(offset, length, file_bytes)) {
    return std::optional<std::string>();
  }
  std::vector<uint8_t> bytes(length);
  FIRN_RETURN_IF_ERROR(file.ReadAt(offset, bytes));
  return vhdx::Utf16LeToUtf8(bytes);
}

// The places where the parent may be, in the order to look.
Result<std::vector<ParentReference::Location>> ReadLocators(File& file, uint64_t file_bytes,
                                                            std::span<const uint8_t> header,
                                                            uint64_t at, LayerInfo* info) {
  std::vector<ParentReference::Location> relative;
  std::vector<ParentReference::Location> absolute;
  for (size_t i = 0; i < vhd::dynamic_header::kLocatorCount; ++i) {
    const size_t within = vhd::dynamic_header::kLocators + i * vhd::dynamic_header::kLocatorBytes;
    const uint8_t* locator = header.data() + within;
    const auto code = LoadBe<uint32_t>(locator + vhd::dynamic_header::kLocatorCode);
    if (code != vhd::kLocatorRelative && code != vhd::kLocatorAbsolute) continue;
    FIRN_ASSIGN_OR_RETURN(const std::optional<std::string> path,
                          ReadLocator(file, locator, file_bytes));
    if (!path) {
      Warn(info, "parent-locator", "a parent locator is damaged and ignored", at + within);
      continue;
    }
    const bool is_relative = code == vhd::kLocatorRelative;
    auto& places = is_relative ? relative : absolute;
    places.push_back({is_relative ? "W2ru" : "W2ku", *path, is_relative});
  }
  std::ranges::move(absolute, std::back_inserter(relative));
  if (const std::optional<std::string> name = ParentName(header)) {
    relative.push_back({"parent_name", *name, false});
  }
  return relative;
}

Status CheckTable(const VhdDynamicHeader& header, uint32_t table_entries, const VhdFooter& footer,
                  LayerInfo* info) {
  const uint64_t at = footer.data_offset;
  if (header.block_size < vhd::kBlockSizeMin || header.block_size > vhd::kBlockSizeMax ||
      (header.block_size & (header.block_size - 1)) != 0) {
    return Invalid(info, "block-size",
                   "the block size " + std::to_string(header.block_size) +
                       " is not a power of two from 512 KiB to 256 MiB",
                   at + vhd::dynamic_header::kBlockSize);
  }
  if (footer.virtual_size > vhd::kVirtualSizeMax) {
    return Invalid(info, "virtual-size",
                   "the disk size " + std::to_string(footer.virtual_size) +
                       " is more than a dynamic VHD holds",
                   at);
  }
  const uint64_t blocks = DivideUp(footer.virtual_size, header.block_size);
  if (table_entries < blocks) {
    return Invalid(info, "bat-too-short",
                   "the BAT has " + std::to_string(table_entries) + " entries, but the disk has " +
                       std::to_string(blocks) + " blocks",
                   at + vhd::dynamic_header::kMaxTableEntries);
  }
  const uint64_t table_bytes = blocks * vhd::kBatEntryBytes;
  if (!RangeInside(header.table_offset, table_bytes, footer.payload_end)) {
    return Truncated(info, "bat-place", "the BAT reaches past the end of the file",
                     at + vhd::dynamic_header::kTableOffset);
  }
  if (header.table_offset < vhd::footer::kBytes ||
      Overlaps(header.table_offset, table_bytes, at, vhd::dynamic_header::kBytes)) {
    return Invalid(info, "bat-place", "the BAT lies over the headers",
                   at + vhd::dynamic_header::kTableOffset);
  }
  return Status::Ok();
}

}  // namespace

std::string VhdUuidToString(const Guid& uuid) {
  Guid mixed = uuid;
  std::reverse(mixed.begin(), mixed.begin() + 4);
  std::reverse(mixed.begin() + 4, mixed.begin() + 6);
  std::reverse(mixed.begin() + 6, mixed.begin() + 8);
  return GuidToString(mixed);
}

Result<bool> FindVhdFooter(File& file, uint64_t file_bytes, LayerInfo* info, VhdFooter* footer) {
  for (const size_t length : {vhd::footer::kBytes, vhd::footer::kOldBytes}) {
    FIRN_ASSIGN_OR_RETURN(const std::optional<FooterBytes> tail,
                          ReadTailFooter(file, file_bytes, length));
    if (!tail) continue;
    footer->bytes = *tail;
    footer->payload_end = file_bytes - length;
    if (length == vhd::footer::kOldBytes) {
      AddFinding(info, DiskFinding::Severity::kInfo, "old-footer",
                 "the footer is 511 bytes long, as early versions wrote it", footer->payload_end);
    }
    break;
  }
  const bool has_tail = footer->payload_end != 0;
  // In a fixed disk the guest's own bytes stand at the start, and may look like anything.
  if (has_tail && IsFixed(footer->bytes)) return true;

  FooterBytes copy{};
  if (file_bytes >= copy.size()) FIRN_RETURN_IF_ERROR(file.ReadAt(0, copy));
  const bool has_copy = IsIntactFooter(copy) && !IsFixed(copy);
  if (has_tail) {
    if (!has_copy) {
      Warn(info, "footer-copy-bad", "the copy of the footer at the start is damaged", 0);
    } else if (copy != footer->bytes) {
      Warn(info, "footers-differ", "the footer and its copy differ; the one at the end is used", 0);
    }
    return true;
  }
  if (!has_copy) return false;
  Warn(info, "footer-bad", "the footer is missing or damaged; its copy at the start is used",
       file_bytes >= copy.size() ? file_bytes - copy.size() : 0);
  footer->bytes = copy;
  footer->payload_end = file_bytes;
  return true;
}

Result<VhdFooter> ReadVhdFooter(File& file, uint64_t file_bytes, LayerInfo* info) {
  VhdFooter footer;
  FIRN_ASSIGN_OR_RETURN(const bool found, FindVhdFooter(file, file_bytes, info, &footer));
  const uint64_t at = footer.payload_end;
  if (!found) {
    return Invalid(info, "footers-bad",
                   "the file has no intact VHD footer, neither at its end nor at its start", at);
  }
  const uint8_t* bytes = footer.bytes.data();
  const auto version = LoadBe<uint32_t>(bytes + vhd::footer::kVersion);
  if (version >> 16 != vhd::footer::kSupportedVersion >> 16) {
    return Refuse(info, Code::kUnsupported, "version",
                  "VHD version " + std::to_string(version >> 16) + " is not supported", at);
  }
  const auto type = LoadBe<uint32_t>(bytes + vhd::footer::kType);
  if (type < static_cast<uint32_t>(vhd::Type::kFixed) ||
      type > static_cast<uint32_t>(vhd::Type::kDifferencing)) {
    return Invalid(info, "disk-type", "disk type " + std::to_string(type) + " is reserved", at);
  }
  footer.type = static_cast<vhd::Type>(type);
  footer.virtual_size = LoadBe<uint64_t>(bytes + vhd::footer::kCurrentSize);
  footer.data_offset = LoadBe<uint64_t>(bytes + vhd::footer::kDataOffset);
  std::copy_n(bytes + vhd::footer::kUuid, footer.uuid.size(), footer.uuid.begin());
  info->creator = CreatorOf(footer.bytes);
  info->data_write_guid = VhdUuidToString(footer.uuid);
  if (footer.virtual_size == 0 || footer.virtual_size % vhd::kSectorBytes != 0) {
    return Invalid(info, "virtual-size",
                   "the disk size " + std::to_string(footer.virtual_size) +
                       " is not a whole number of sectors",
                   at);
  }
  if (footer.type == vhd::Type::kFixed && footer.virtual_size > footer.payload_end) {
    return Truncated(info, "payload-truncated",
                     "the disk is " + std::to_string(footer.virtual_size) +
                         " bytes long, but the file holds only " +
                         std::to_string(footer.payload_end) + " of them",
                     at);
  }
  return footer;
}

Result<VhdDynamicHeader> ReadVhdDynamicHeader(File& file, const VhdFooter& footer,
                                              LayerInfo* info) {
  const uint64_t at = footer.data_offset;
  if (at < vhd::footer::kBytes) {
    return Invalid(info, "dynamic-header-place", "the dynamic header lies over the footer's copy",
                   at);
  }
  if (!RangeInside(at, vhd::dynamic_header::kBytes, footer.payload_end)) {
    return Truncated(info, "dynamic-header-place",
                     "the dynamic header reaches past the end of the file", at);
  }
  std::array<uint8_t, vhd::dynamic_header::kBytes> bytes;
  FIRN_RETURN_IF_ERROR(file.ReadAt(at, bytes));
  if (!vhdx::HasSignature(bytes, vhd::dynamic_header::kSignature) ||
      !vhd::ChecksumMatches(bytes, vhd::dynamic_header::kChecksum)) {
    return Invalid(info, "dynamic-header-bad", "the dynamic header is damaged", at);
  }
  const auto version = LoadBe<uint32_t>(bytes.data() + vhd::dynamic_header::kVersion);
  if (version >> 16 != vhd::dynamic_header::kSupportedVersion >> 16) {
    return Refuse(info, Code::kUnsupported, "version",
                  "dynamic header version " + std::to_string(version >> 16) + " is not supported",
                  at);
  }
  VhdDynamicHeader header;
  header.table_offset = LoadBe<uint64_t>(bytes.data() + vhd::dynamic_header::kTableOffset);
  header.block_size = LoadBe<uint32_t>(bytes.data() + vhd::dynamic_header::kBlockSize);
  const auto entries = LoadBe<uint32_t>(bytes.data() + vhd::dynamic_header::kMaxTableEntries);
  FIRN_RETURN_IF_ERROR(CheckTable(header, entries, footer, info));
  header.blocks = static_cast<uint32_t>(DivideUp(footer.virtual_size, header.block_size));
  if (footer.type == vhd::Type::kDifferencing) {
    std::copy_n(bytes.data() + vhd::dynamic_header::kParentUuid, header.parent_uuid.size(),
                header.parent_uuid.begin());
    FIRN_ASSIGN_OR_RETURN(header.parent_locations,
                          ReadLocators(file, footer.payload_end, bytes, at, info));
  }
  return header;
}

}  // namespace firn
