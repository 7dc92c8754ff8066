#include "used/ntfs_state.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "core/bytes.h"
#include "used/ntfs_format.h"

namespace firn {
namespace {

Status Bad(const std::string& why) { return Keep(keep::kInconsistent, why); }

bool IsFilledWith(std::span<const uint8_t> bytes, uint8_t value) {
  return std::ranges::all_of(bytes, [value](uint8_t byte) { return byte == value; });
}

// --- The log ---

constexpr uint32_t kLogPageBytes = 4096;
constexpr uint64_t kLogHeadBytes = 64 * kKiB;

struct RestartPage {
  uint64_t lsn = 0;
  bool clean = false;
};

std::optional<RestartPage> ParseRestartPage(std::span<uint8_t> page) {
  // "CHKD" instead would say that chkdsk was here and the volume not mounted since.
  if (std::memcmp(page.data(), "RSTR", 4) != 0 || !ApplyFixups(page)) return {};
  constexpr uint32_t kSystemPageBytes = 0x10;
  constexpr uint32_t kAreaOffset = 0x18;
  constexpr uint32_t kAreaBytes = 0x30;
  if (LoadLe<uint32_t>(&page[kSystemPageBytes]) != kLogPageBytes) return {};
  const uint32_t area = LoadLe<uint16_t>(&page[kAreaOffset]);
  if (area % 8 != 0 || area < 0x30 || !RangeInside(area, kAreaBytes, ntfs::kFixupBytes - 2)) {
    return {};
  }
  constexpr uint16_t kNobody = 0xFFFF;
  constexpr uint16_t kVolumeClean = 2;
  RestartPage restart;
  restart.lsn = LoadLe<uint64_t>(&page[area]);
  const uint16_t clients_in_use = LoadLe<uint16_t>(&page[area + 0x0C]);
  const uint16_t flags = LoadLe<uint16_t>(&page[area + 0x0E]);
  restart.clean = clients_in_use == kNobody || (flags & kVolumeClean) != 0;
  return restart;
}

// --- Shadow copies (libyal, "Volume Shadow Snapshot (VSS) format") ---

constexpr uint64_t kShadowHeaderAt = 0x1E00;
constexpr uint64_t kCatalogBlockBytes = 16 * kKiB;
constexpr uint64_t kCatalogEntryBytes = 128;
constexpr size_t kCatalogBlocksMax = 1024;  // 512 shadow copies need nine
constexpr uint8_t kShadowId[16] = {0x6B, 0x87, 0x08, 0x38, 0x76, 0xC1, 0x48, 0x4E,
                                   0xB7, 0xAE, 0x04, 0x04, 0x6E, 0x6C, 0xC7, 0x52};

bool IsShadowHeader(std::span<const uint8_t> bytes, uint32_t type) {
  return std::memcmp(bytes.data(), kShadowId, sizeof kShadowId) == 0 &&
         LoadLe<uint32_t>(&bytes[20]) == type;
}

Status HasShadowCopies(const std::string& why) { return Keep(keep::kShadowCopies, why); }

// Every entry of the catalog has to be an empty one.
Status CheckCatalog(const VolumeReader& reader, uint64_t offset) {
  std::set<uint64_t> seen;
  while (offset != 0) {
    if (!seen.insert(offset).second || seen.size() > kCatalogBlocksMax) {
      return HasShadowCopies("the catalog of shadow copies has no end");
    }
    FIRN_ASSIGN_OR_RETURN(const std::vector<uint8_t> block,
                          reader.Read(offset, kCatalogBlockBytes));
    if (!IsShadowHeader(block, 2)) {
      return HasShadowCopies("the catalog of shadow copies is unreadable");
    }
    for (uint64_t at = kCatalogEntryBytes; at < block.size(); at += kCatalogEntryBytes) {
      if (LoadLe<uint64_t>(&block[at]) > 1) {
        return HasShadowCopies("the volume has shadow copies, which use clusters that are free");
      }
    }
    offset = LoadLe<uint64_t>(&block[40]);
  }
  return Status::Ok();
}

}  // namespace

Status CheckNtfsVolumeFlags(const NtfsVolume& volume) {
  FIRN_ASSIGN_OR_RETURN(const NtfsLoadedRecord loaded, volume.Load(ntfs::number::kVolume));
  const NtfsAttribute* information = loaded.record.Find(ntfs::attribute::kTypeVolumeInformation);
  if (information == nullptr || !information->resident || information->value.size() < 12) {
    return Bad("the volume has no information about itself");
  }
  if (information->value[8] != 3) {
    return Keep(keep::kUnknownFeature, "the volume is of another version of NTFS than 3");
  }
  const uint16_t flags = LoadLe<uint16_t>(&information->value[10]);
  if ((flags & 1) != 0) return Keep(keep::kDirty, "the volume is marked dirty");
  // No short names are made: a setting, not a state.
  constexpr uint16_t kNoShortNames = 0x80;
  if ((flags & ~kNoShortNames) != 0)
    return Keep(keep::kDirty, "the volume has work pending, such as chkdsk");
  return Status::Ok();
}

Status CheckNtfsLog(const NtfsVolume& volume, bool quiesced) {
  FIRN_ASSIGN_OR_RETURN(const NtfsLoadedRecord loaded, volume.Load(ntfs::number::kLogFile));
  FIRN_ASSIGN_OR_RETURN(const NtfsStream stream, volume.OpenData(loaded, ntfs::number::kLogFile));
  if (stream.initialized < kLogHeadBytes) return Bad("the log is too short");
  std::vector<uint8_t> head(kLogHeadBytes);
  FIRN_RETURN_IF_ERROR(volume.Read(stream, 0, head));
  if (IsFilledWith(head, 0xFF)) return Status::Ok();  // to be set up at the next mount
  const auto first = ParseRestartPage(std::span(head).first(kLogPageBytes));
  const auto second = ParseRestartPage(std::span(head).subspan(kLogPageBytes, kLogPageBytes));
  if (!first || !second) return Bad("the log's restart pages are not as they should be");
  if (quiesced) return Status::Ok();
  // Equal ones have to agree.
  const bool clean =
      (first->lsn < second->lsn || first->clean) && (second->lsn < first->lsn || second->clean);
  if (clean) return Status::Ok();
  return Keep(keep::kDirty,
              "the volume is mounted or was not unmounted cleanly, and was not frozen "
              "for this backup");
}

Status CheckNoShadowCopies(const VolumeReader& reader) {
  FIRN_ASSIGN_OR_RETURN(const std::vector<uint8_t> header,
                        reader.Read(kShadowHeaderAt, uint64_t{512}));
  if (std::memcmp(header.data(), kShadowId, 4) != 0) return Status::Ok();
  if (!IsShadowHeader(header, 1)) {
    return HasShadowCopies("the volume may have shadow copies, but what says so is unreadable");
  }
  constexpr uint32_t kVolumeId = 64;
  constexpr uint32_t kStoreId = 80;
  constexpr uint8_t kNone[16] = {};
  if (std::memcmp(&header[kStoreId], kNone, 16) != 0 &&
      std::memcmp(&header[kStoreId], &header[kVolumeId], 16) != 0) {
    return HasShadowCopies("the volume's shadow copies are kept on another volume");
  }
  const uint64_t catalog = LoadLe<uint64_t>(&header[48]);
  return CheckCatalog(reader, catalog);
}

Status CheckHibernationFile(std::span<const uint8_t> head) {
  const auto begins = [head](const char* word) { return std::memcmp(head.data(), word, 4) == 0; };
  if (IsFilledWith(head, 0)) return Status::Ok();
  if (begins("wake") || begins("WAKE")) return Status::Ok();  // resumed; the image is spent
  if (begins("hibr") || begins("HIBR")) {
    return Keep(keep::kHibernated,
                "the machine is hibernated, or was shut down for a fast startup");
  }
  return Keep(keep::kHibernated, "hiberfil.sys does not say whether the machine is hibernated");
}

}  // namespace firn
