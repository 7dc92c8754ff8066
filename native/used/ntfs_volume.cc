#include "used/ntfs_volume.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "core/bytes.h"
#include "used/ntfs_format.h"

namespace firn {
namespace {

constexpr uint64_t kClusterBytesMax = 2 * kMiB;
constexpr uint64_t kClustersMax = uint64_t{1} << 32;
// An attribute list names each piece of a fragmented file; Windows stops at 256 KiB.
constexpr uint64_t kListBytesMax = 256 * kKiB;
constexpr size_t kRunsMax = 1 << 20;  // of one system file, 32 MiB of memory

Status Bad(const std::string& why) { return Keep(keep::kInconsistent, why); }

// Sizes are a count, or the negative of a power of two.
uint64_t DecodeSize(uint8_t code, uint64_t unit) {
  if (code < 0x80) return code * unit;
  const uint32_t power = 256u - code;
  return power > 31 ? 0 : uint64_t{1} << power;
}

// Appends a piece that continues the stream; its sizes are the first piece's.
Status Append(const NtfsAttribute& piece, uint64_t clusters, NtfsStream* stream) {
  if (piece.resident || piece.flags != 0) return Bad("a system file is stored in an unknown way");
  const uint64_t next =
      stream->runs.empty() ? 0 : stream->runs.back().vcn + stream->runs.back().length;
  const auto runs = DecodeNtfsRuns(piece, clusters);
  if (!runs || runs->empty() || piece.first_vcn != next) {
    return Bad("a system file's clusters can't be told");
  }
  if (std::ranges::any_of(*runs, &NtfsRun::hole)) return Bad("a system file has holes");
  if (stream->runs.size() + runs->size() > kRunsMax) {
    return Keep(keep::kLimits, "a system file is in too many pieces");
  }
  if (next == 0) {
    stream->size = piece.size;
    stream->initialized = piece.initialized;
  }
  stream->runs.insert(stream->runs.end(), runs->begin(), runs->end());
  return Status::Ok();
}

Status CheckSizes(const NtfsStream& stream, uint64_t cluster_bytes) {
  uint64_t allocated = 0;
  if (stream.runs.empty() ||
      !CheckedMul(stream.runs.back().vcn + stream.runs.back().length, cluster_bytes, &allocated) ||
      stream.size > allocated || stream.initialized > stream.size) {
    return Bad("a system file's size is not that of its clusters");
  }
  return Status::Ok();
}

}  // namespace

Result<std::unique_ptr<NtfsVolume>> NtfsVolume::Open(const VolumeReader& reader) {
  std::unique_ptr<NtfsVolume> volume(new NtfsVolume(reader));
  uint64_t mft_cluster = 0;
  FIRN_RETURN_IF_ERROR(volume->ReadBootSector(&mft_cluster));
  FIRN_RETURN_IF_ERROR(volume->OpenMft(mft_cluster));
  return volume;
}

Status NtfsVolume::ReadBootSector(uint64_t* mft_cluster) {
  namespace boot = ntfs::boot;
  FIRN_ASSIGN_OR_RETURN(const std::vector<uint8_t> bytes, reader_.Read(0, boot::kBytes));
  if (std::memcmp(&bytes[boot::kName], "NTFS    ", 8) != 0 || bytes[510] != 0x55 ||
      bytes[511] != 0xAA) {
    return Bad("the boot sector is not NTFS's");
  }
  sector_bytes_ = LoadLe<uint16_t>(&bytes[boot::kSectorBytes]);
  const bool sector_ok = sector_bytes_ == 512 || sector_bytes_ == 1024 || sector_bytes_ == 2048 ||
                         sector_bytes_ == 4096;
  if (!sector_ok) return Bad("the boot sector has an impossible sector size");
  const uint8_t code = bytes[boot::kClusterSectors];
  const uint64_t cluster_sectors = code <= 0x80 ? code : DecodeSize(code, 1);
  const uint64_t cluster_bytes = cluster_sectors * sector_bytes_;
  if (cluster_bytes == 0 || (cluster_bytes & (cluster_bytes - 1)) != 0 ||
      cluster_bytes > kClusterBytesMax) {
    return Bad("the boot sector has an impossible cluster size");
  }
  cluster_bytes_ = static_cast<uint32_t>(cluster_bytes);
  const uint64_t sectors = LoadLe<uint64_t>(&bytes[boot::kSectors]);
  if (sectors > reader_.size() / sector_bytes_) {
    return Bad("the file system is larger than its partition");
  }
  clusters_ = sectors / cluster_sectors;
  if (clusters_ > kClustersMax) return Bad("the file system has too many clusters");
  const uint64_t record_bytes = DecodeSize(bytes[boot::kRecordSize], cluster_bytes);
  if (record_bytes < ntfs::record::kBytesMin || record_bytes > ntfs::record::kBytesMax ||
      (record_bytes & (record_bytes - 1)) != 0) {
    return Bad("the boot sector has an impossible record size");
  }
  record_bytes_ = static_cast<uint32_t>(record_bytes);
  *mft_cluster = LoadLe<uint64_t>(&bytes[boot::kMftCluster]);
  if (*mft_cluster >= clusters_) return Bad("the $MFT lies outside the volume");
  return Status::Ok();
}

Status NtfsVolume::OpenMft(uint64_t mft_cluster) {
  // Enough to load the $MFT's own record.
  mft_.runs = {{0, mft_cluster, DivideUp(record_bytes_, cluster_bytes_), false}};
  mft_.size = mft_.initialized = record_bytes_;
  FIRN_ASSIGN_OR_RETURN(const NtfsLoadedRecord loaded, Load(ntfs::number::kMft));
  const NtfsAttribute* data = loaded.record.Find(ntfs::attribute::kTypeData);
  if (data == nullptr) return Bad("the $MFT has no data");
  NtfsStream stream;
  FIRN_RETURN_IF_ERROR(Append(*data, clusters_, &stream));
  if (stream.runs[0].hole || stream.runs[0].lcn != mft_cluster) {
    return Bad("the $MFT lies elsewhere than the boot sector says");
  }
  // The other pieces are named in records that lie in this first one.
  const uint64_t initialized = stream.initialized;
  const uint64_t known = (stream.runs.back().vcn + stream.runs.back().length) * cluster_bytes_;
  mft_ = stream;
  mft_.initialized = std::min(initialized, known);
  if (loaded.record.Find(ntfs::attribute::kTypeList) != nullptr) {
    FIRN_RETURN_IF_ERROR(AppendPieces(loaded, ntfs::number::kMft, &stream));
  }
  mft_ = std::move(stream);
  FIRN_RETURN_IF_ERROR(CheckSizes(mft_, cluster_bytes_));
  if (records() < ntfs::number::kFirstUser) return Bad("the $MFT is too short");
  return Status::Ok();
}

Result<NtfsLoadedRecord> NtfsVolume::Load(uint64_t number) const {
  if (number >= records()) return Bad("a record lies outside the $MFT");
  NtfsLoadedRecord loaded;
  loaded.bytes.resize(record_bytes_);
  FIRN_RETURN_IF_ERROR(ReadMft(number, loaded.bytes));
  if (!ApplyFixups(loaded.bytes)) return Bad("record " + std::to_string(number) + " is torn");
  std::optional<NtfsRecord> record = ParseNtfsRecord(loaded.bytes, number);
  if (!record || !record->in_use()) {
    return Bad("record " + std::to_string(number) + " is malformed or not in use");
  }
  loaded.record = std::move(*record);
  return loaded;
}

Result<NtfsStream> NtfsVolume::OpenData(const NtfsLoadedRecord& base, uint64_t number) const {
  if (base.record.base != 0) return Bad("a system file's record is not its base");
  NtfsStream stream;
  if (const NtfsAttribute* data = base.record.Find(ntfs::attribute::kTypeData)) {
    FIRN_RETURN_IF_ERROR(Append(*data, clusters_, &stream));
  }
  if (base.record.Find(ntfs::attribute::kTypeList) != nullptr) {
    FIRN_RETURN_IF_ERROR(AppendPieces(base, number, &stream));
  }
  FIRN_RETURN_IF_ERROR(CheckSizes(stream, cluster_bytes_));
  return stream;
}

// Follows the attribute list to the pieces of the data behind those that `stream` has.
Status NtfsVolume::AppendPieces(const NtfsLoadedRecord& base, uint64_t number,
                                NtfsStream* stream) const {
  FIRN_ASSIGN_OR_RETURN(const std::vector<uint8_t> list,
                        ReadList(*base.record.Find(ntfs::attribute::kTypeList)));
  constexpr uint64_t kEntryBytes = 26;
  const uint64_t own = number | uint64_t{base.record.sequence} << 48;
  for (uint64_t place = 0; place < list.size();) {
    if (!RangeInside(place, kEntryBytes, list.size())) return Bad("an attribute list is torn");
    const uint8_t* entry = &list[place];
    const uint16_t length = LoadLe<uint16_t>(entry + 4);
    if (length < kEntryBytes || !RangeInside(place, length, list.size())) {
      return Bad("an attribute list is malformed");
    }
    place += length;
    const bool is_data = LoadLe<uint32_t>(entry) == ntfs::attribute::kTypeData && entry[6] == 0;
    const uint64_t reference = LoadLe<uint64_t>(entry + 16);
    if (!is_data || reference == own) continue;
    FIRN_ASSIGN_OR_RETURN(const NtfsLoadedRecord piece, Load(reference & ntfs::kReferenceMask));
    if (piece.record.base != own || piece.record.sequence != reference >> 48) {
      return Bad("an attribute list names a record of another file");
    }
    const uint64_t first_vcn = LoadLe<uint64_t>(entry + 8);
    const NtfsAttribute* found = nullptr;
    for (const NtfsAttribute& attribute : piece.record.attributes) {
      const bool fits = attribute.type == ntfs::attribute::kTypeData && !attribute.named &&
                        !attribute.resident && attribute.first_vcn == first_vcn;
      if (fits) found = &attribute;
    }
    if (found == nullptr) return Bad("an attribute list names a piece that is not there");
    FIRN_RETURN_IF_ERROR(Append(*found, clusters_, stream));
  }
  return Status::Ok();
}

Result<std::vector<uint8_t>> NtfsVolume::ReadList(const NtfsAttribute& list) const {
  if (list.resident) return std::vector<uint8_t>(list.value.begin(), list.value.end());
  NtfsStream stream;
  FIRN_RETURN_IF_ERROR(Append(list, clusters_, &stream));
  FIRN_RETURN_IF_ERROR(CheckSizes(stream, cluster_bytes_));
  if (stream.size > kListBytesMax || stream.initialized != stream.size) {
    return Bad("an attribute list is too long");
  }
  std::vector<uint8_t> bytes(stream.size);
  FIRN_RETURN_IF_ERROR(Read(stream, 0, bytes));
  return bytes;
}

Status NtfsVolume::Read(const NtfsStream& stream, uint64_t offset, std::span<uint8_t> out) const {
  if (!RangeInside(offset, out.size(), stream.initialized)) {
    return Bad("a system file ends before its content does");
  }
  const auto behind = std::ranges::upper_bound(stream.runs, offset / cluster_bytes_, {},
                                               [](const NtfsRun& r) { return r.vcn; });
  size_t index = static_cast<size_t>(behind - stream.runs.begin()) - 1;  // the first VCN is 0
  for (uint64_t done = 0; done < out.size(); ++index) {
    if (index >= stream.runs.size()) return Bad("a system file ends before its content does");
    const NtfsRun& run = stream.runs[index];
    const uint64_t in_run = offset + done - run.vcn * cluster_bytes_;
    const uint64_t count = std::min(run.length * cluster_bytes_ - in_run, out.size() - done);
    FIRN_RETURN_IF_ERROR(reader_.Read(run.lcn * cluster_bytes_ + in_run, out.subspan(done, count)));
    done += count;
  }
  return Status::Ok();
}

}  // namespace firn
