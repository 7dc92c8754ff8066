#include "disk/vhdx_header.h"

#include <algorithm>
#include <array>
#include <optional>

#include "disk/vhdx_format.h"

namespace firn {
namespace {

using HeaderBytes = std::array<uint8_t, vhdx::header::kBytes>;

bool IsIntactHeader(const HeaderBytes& bytes) {
  return vhdx::HasSignature(bytes, vhdx::header::kSignature) &&
         vhdx::ChecksumMatches(bytes, vhdx::header::kChecksum);
}

uint64_t SequenceOf(const HeaderBytes& bytes) {
  return LoadLe<uint64_t>(bytes.data() + vhdx::header::kSequenceNumber);
}

// Which copy is current (MS-VHDX 2.2.2.1), or nothing if neither is intact.
std::optional<size_t> CurrentCopy(const std::array<HeaderBytes, 2>& copies, LayerInfo* info) {
  const bool intact[2] = {IsIntactHeader(copies[0]), IsIntactHeader(copies[1])};
  for (size_t i = 0; i < 2; ++i) {
    if (intact[i] || !intact[1 - i]) continue;
    Warn(info, i == 0 ? "header-1-bad" : "header-2-bad",
         "header " + std::to_string(i + 1) + " is damaged; the other one is used",
         vhdx::kHeaderOffsets[i]);
  }
  if (!intact[0] && !intact[1]) return std::nullopt;
  if (!intact[0]) return 1;
  if (!intact[1]) return 0;

  const uint64_t sequence[2] = {SequenceOf(copies[0]), SequenceOf(copies[1])};
  if (sequence[0] != sequence[1]) return sequence[0] > sequence[1] ? 0 : 1;
  // The specification calls this no header at all, yet some programs write it. Two equal copies
  // leave nothing to choose.
  if (copies[0] == copies[1]) {
    AddFinding(info, DiskFinding::Severity::kInfo, "headers-equal",
               "both headers are the same, with the same sequence number", vhdx::kHeaderOffsets[0]);
  } else {
    Warn(info, "header-tie",
         "the headers differ but have the same sequence number; the first one is used",
         vhdx::kHeaderOffsets[0]);
  }
  return 0;
}

VhdxHeader ParseHeader(const HeaderBytes& bytes) {
  VhdxHeader header;
  header.sequence_number = SequenceOf(bytes);
  header.file_write_guid = vhdx::LoadGuid(bytes.data() + vhdx::header::kFileWriteGuid);
  header.data_write_guid = vhdx::LoadGuid(bytes.data() + vhdx::header::kDataWriteGuid);
  header.log_guid = vhdx::LoadGuid(bytes.data() + vhdx::header::kLogGuid);
  header.log_offset = LoadLe<uint64_t>(bytes.data() + vhdx::header::kLogOffset);
  header.log_length = LoadLe<uint32_t>(bytes.data() + vhdx::header::kLogLength);
  return header;
}

Status CheckLogPlace(const VhdxHeader& header, uint64_t file_bytes, uint64_t at, LayerInfo* info) {
  if (header.log_length == 0) {
    if (vhdx::IsZeroGuid(header.log_guid)) return Status::Ok();
    return Invalid(info, "log-place", "the header names a log to replay that has no length", at);
  }
  if (!IsAligned(header.log_offset, vhdx::kAlignment) ||
      !IsAligned(header.log_length, vhdx::kAlignment) ||
      header.log_offset < vhdx::kHeaderSectionBytes) {
    return Invalid(info, "log-place",
                   "the header's log (" + std::to_string(header.log_length) + " bytes at " +
                       std::to_string(header.log_offset) + ") is not at a place for a log",
                   at);
  }
  if (header.log_length > vhdx::log::kLengthMax) {
    return Refuse(info, Code::kUnsupported, "log-too-long",
                  "the log is longer than 1 GiB: " + std::to_string(header.log_length) + " bytes",
                  at);
  }
  if (!RangeInside(header.log_offset, header.log_length, file_bytes)) {
    return Truncated(info, "log-place",
                     "the log (" + std::to_string(header.log_length) + " bytes at " +
                         std::to_string(header.log_offset) + ") reaches past the end of the file",
                     at);
  }
  return Status::Ok();
}

// --- Region tables ---

using TableBytes = std::vector<uint8_t>;

bool IsIntactTable(const TableBytes& bytes) {
  return vhdx::HasSignature(bytes, vhdx::region::kSignature) &&
         vhdx::ChecksumMatches(bytes, vhdx::region::kChecksum) &&
         LoadLe<uint32_t>(bytes.data() + vhdx::region::kEntryCount) <= vhdx::region::kEntryCountMax;
}

struct ChosenTable {
  TableBytes bytes;
  uint64_t offset = 0;
};

Result<ChosenTable> ReadRegionTable(const MetadataReader& reader, LayerInfo* info) {
  std::array<TableBytes, 2> copies;
  for (size_t i = 0; i < 2; ++i) {
    copies[i].resize(vhdx::region::kTableBytes);
    FIRN_RETURN_IF_ERROR(reader.ReadAt(vhdx::kRegionTableOffsets[i], copies[i]));
  }
  const bool intact[2] = {IsIntactTable(copies[0]), IsIntactTable(copies[1])};
  if (!intact[0] && !intact[1]) {
    return Invalid(info, "region-tables-bad", "both region tables are damaged",
                   vhdx::kRegionTableOffsets[0]);
  }
  for (size_t i = 0; i < 2; ++i) {
    if (intact[i]) continue;
    Warn(info, i == 0 ? "region-table-1-bad" : "region-table-2-bad",
         "region table " + std::to_string(i + 1) + " is damaged; the other one is used",
         vhdx::kRegionTableOffsets[i]);
  }
  if (intact[0] && intact[1] && copies[0] != copies[1]) {
    Warn(info, "region-tables-differ", "the region tables differ; the first one is used",
         vhdx::kRegionTableOffsets[0]);
  }
  const size_t chosen = intact[0] ? 0 : 1;
  return ChosenTable{std::move(copies[chosen]), vhdx::kRegionTableOffsets[chosen]};
}

std::string Describe(const VhdxRegion& region) {
  return "region " + GuidToString(region.id) + " (" + std::to_string(region.length) + " bytes at " +
         std::to_string(region.offset) + ")";
}

Status CheckRegionPlace(const VhdxRegion& region, uint64_t file_bytes, uint64_t at,
                        LayerInfo* info) {
  if (region.length == 0 || region.offset < vhdx::kHeaderSectionBytes ||
      !IsAligned(region.offset, vhdx::kAlignment) || !IsAligned(region.length, vhdx::kAlignment)) {
    return Invalid(info, "region-place", Describe(region) + " is not at a place for a region", at);
  }
  if (!RangeInside(region.offset, region.length, file_bytes)) {
    return Truncated(info, "region-place", Describe(region) + " reaches past the end of the file",
                     at);
  }
  return Status::Ok();
}

Status CheckNoOverlap(const VhdxRegions& regions, const VhdxHeader& header, uint64_t at,
                      LayerInfo* info) {
  std::vector<VhdxRegion> sorted = regions.all;
  sorted.push_back({Guid{}, header.log_offset, header.log_length});
  std::ranges::sort(sorted, {}, &VhdxRegion::offset);
  for (size_t i = 1; i < sorted.size(); ++i) {
    const VhdxRegion& before = sorted[i - 1];
    if (before.length > 0 && sorted[i].length > 0 &&
        before.offset + before.length > sorted[i].offset) {
      return Invalid(
          info, "region-overlap",
          Describe(before) + " overlaps " + Describe(sorted[i]) + " (a zero id is the log)", at);
    }
  }
  return Status::Ok();
}

}  // namespace

Status ReadVhdxFileId(File& file, uint64_t file_bytes, LayerInfo* info) {
  if (file_bytes < vhdx::kHeaderSectionBytes) {
    return Truncated(info, "file-too-short",
                     "the file is shorter than the 1 MiB that every VHDX starts with", file_bytes);
  }
  std::array<uint8_t, vhdx::kFileIdBytes> id;
  FIRN_RETURN_IF_ERROR(file.ReadAt(vhdx::kFileIdOffset, id));
  if (!vhdx::HasSignature(id, vhdx::kFileSignature)) {
    return Invalid(info, "no-signature", "the file does not start with the signature of a VHDX",
                   vhdx::kFileIdOffset);
  }
  std::string creator;
  for (size_t i = vhdx::kCreatorOffset; i < id.size(); i += 2) {
    const auto unit = LoadLe<uint16_t>(id.data() + i);
    if (unit == 0) break;
    creator.push_back(unit < 0x80 ? static_cast<char>(unit) : '?');
  }
  info->creator = Printable(creator);
  return Status::Ok();
}

Result<VhdxHeader> ReadVhdxHeader(File& file, uint64_t file_bytes, LayerInfo* info) {
  std::array<HeaderBytes, 2> copies;
  for (size_t i = 0; i < 2; ++i) {
    FIRN_RETURN_IF_ERROR(file.ReadAt(vhdx::kHeaderOffsets[i], copies[i]));
  }
  const std::optional<size_t> current = CurrentCopy(copies, info);
  const uint64_t at = vhdx::kHeaderOffsets[current.value_or(0)];
  if (!current) return Invalid(info, "headers-bad", "both headers are damaged", at);

  const HeaderBytes& bytes = copies[*current];
  const auto version = LoadLe<uint16_t>(bytes.data() + vhdx::header::kVersion);
  if (version != vhdx::header::kSupportedVersion) {
    return Refuse(info, Code::kUnsupported, "version",
                  "VHDX version " + std::to_string(version) + " is not supported", at);
  }
  const VhdxHeader header = ParseHeader(bytes);
  const auto log_version = LoadLe<uint16_t>(bytes.data() + vhdx::header::kLogVersion);
  if (log_version != vhdx::header::kSupportedLogVersion && !vhdx::IsZeroGuid(header.log_guid)) {
    return Refuse(info, Code::kUnsupported, "log-version",
                  "there is a log to replay, of version " + std::to_string(log_version) +
                      ", which is not supported",
                  at);
  }
  info->data_write_guid = GuidToString(header.data_write_guid);
  info->log.offset = header.log_offset;
  info->log.length = header.log_length;
  if (header.log_length > 0) info->log.state = LogInfo::State::kClean;
  FIRN_RETURN_IF_ERROR(CheckLogPlace(header, file_bytes, at, info));
  return header;
}

Result<VhdxRegions> ReadVhdxRegions(const MetadataReader& reader, const VhdxHeader& header,
                                    LayerInfo* info) {
  FIRN_ASSIGN_OR_RETURN(const ChosenTable table, ReadRegionTable(reader, info));
  const auto count = LoadLe<uint32_t>(table.bytes.data() + vhdx::region::kEntryCount);
  VhdxRegions regions;
  bool has_bat = false;
  bool has_metadata = false;
  for (uint32_t i = 0; i < count; ++i) {
    const size_t within = vhdx::region::kEntries + i * vhdx::region::kEntryBytes;
    const uint8_t* entry = table.bytes.data() + within;
    const uint64_t at = table.offset + within;
    VhdxRegion region;
    region.id = vhdx::LoadGuid(entry + vhdx::region::kEntryGuid);
    region.offset = LoadLe<uint64_t>(entry + vhdx::region::kEntryFileOffset);
    region.length = LoadLe<uint32_t>(entry + vhdx::region::kEntryLength);
    const auto flags = LoadLe<uint32_t>(entry + vhdx::region::kEntryFlags);

    if ((flags & ~vhdx::region::kRequired) != 0) {
      return Invalid(info, "region-flags", Describe(region) + " has reserved flags set", at);
    }
    if (std::ranges::find(regions.all, region.id, &VhdxRegion::id) != regions.all.end()) {
      return Invalid(info, "region-twice", Describe(region) + " is listed twice", at);
    }
    const bool is_bat = region.id == vhdx::kBatRegion;
    const bool is_metadata = region.id == vhdx::kMetadataRegion;
    if (!is_bat && !is_metadata && (flags & vhdx::region::kRequired) != 0) {
      return Refuse(info, Code::kUnsupported, "unknown-region",
                    Describe(region) + " is required to be understood, and is not known", at);
    }
    FIRN_RETURN_IF_ERROR(CheckRegionPlace(region, reader.bytes(), at, info));
    if (is_bat) regions.bat = region, has_bat = true;
    if (is_metadata) regions.metadata = region, has_metadata = true;
    regions.all.push_back(region);
  }
  if (!has_bat || !has_metadata) {
    return Invalid(info, "region-missing",
                   has_bat ? "there is no metadata region" : "there is no BAT region",
                   table.offset);
  }
  FIRN_RETURN_IF_ERROR(CheckNoOverlap(regions, header, table.offset, info));
  return regions;
}

}  // namespace firn
