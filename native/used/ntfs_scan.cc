#include "used/ntfs_scan.h"

#include <algorithm>
#include <string>
#include <string_view>

#include "core/bytes.h"
#include "used/bitmap.h"
#include "used/ntfs_format.h"

namespace firn {
namespace {

constexpr uint64_t kBatchBytes = kMiB;
// Three files of Windows' own; more have to be a trick.
constexpr size_t kPageFileRunsMax = 1 << 16;
// Records that were never written are few. A table of nothing but zeros costs a hostile disk no
// space, and would cost hours here.
constexpr uint64_t kEmptyRecordsMax = 1 << 16;

Status Bad(const std::string& why) { return Keep(keep::kInconsistent, why); }

enum class Special : uint8_t { kNone, kPageFile, kHibernationFile };

// By the value of a $FILE_NAME: parent, times, sizes, flags, and the name's length at 64.
Special SpecialName(std::span<const uint8_t> value) {
  constexpr size_t kNameAt = 66;
  if (value.size() < kNameAt) return Special::kNone;
  const size_t length = value[64];
  const uint64_t parent = LoadLe<uint64_t>(value.data()) & ntfs::kReferenceMask;
  if (parent != ntfs::number::kRoot || value.size() < kNameAt + length * 2) return Special::kNone;
  std::string name;
  for (size_t i = 0; i < length; ++i) {
    const uint16_t unit = LoadLe<uint16_t>(&value[kNameAt + i * 2]);
    if (unit >= 0x80) return Special::kNone;
    const char c = static_cast<char>(unit);
    name.push_back(c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c);
  }
  if (name == "hiberfil.sys") return Special::kHibernationFile;
  return name == "pagefile.sys" || name == "swapfile.sys" ? Special::kPageFile : Special::kNone;
}

}  // namespace

Status NtfsScan::Claim(uint64_t first, std::span<uint8_t> claimed) {
  first_ = first;
  claimed_ = claimed;
  empty_records_ = 0;
  const uint64_t record_bytes = volume_.record_bytes();
  std::vector<uint8_t> batch(kBatchBytes);
  for (uint64_t number = 0; number < volume_.records();) {
    const uint64_t count = std::min(kBatchBytes / record_bytes, volume_.records() - number);
    const std::span<uint8_t> bytes(batch.data(), count * record_bytes);
    FIRN_RETURN_IF_ERROR(volume_.ReadMft(number, bytes));
    for (uint64_t i = 0; i < count; ++i) {
      FIRN_RETURN_IF_ERROR(ClaimRecord(number + i, bytes.subspan(i * record_bytes, record_bytes)));
    }
    number += count;
  }
  page_files_known_ = true;
  return Status::Ok();
}

Status NtfsScan::ClaimRecord(uint64_t number, std::span<uint8_t> bytes) {
  const auto is_zero = [](uint8_t byte) { return byte == 0; };
  if (bytes[0] == 0 && std::ranges::all_of(bytes, is_zero)) {
    if (++empty_records_ <= kEmptyRecordsMax) return Status::Ok();
    return Keep(keep::kLimits, "the $MFT is mostly empty");
  }
  if (!ApplyFixups(bytes)) return Bad("record " + std::to_string(number) + " is torn");
  const std::optional<NtfsRecord> record = ParseNtfsRecord(bytes, number);
  if (!record) return Bad("record " + std::to_string(number) + " is malformed");
  for (const NtfsAttribute& attribute : record->attributes) {
    if (!attribute.resident) FIRN_RETURN_IF_ERROR(ClaimAttribute(attribute));
  }
  if (!page_files_known_ && record->in_use() && number >= ntfs::number::kFirstUser) {
    NotePageFile(*record);
  }
  return Status::Ok();
}

Status NtfsScan::ClaimAttribute(const NtfsAttribute& attribute) {
  const auto runs = DecodeNtfsRuns(attribute, volume_.clusters());
  if (!runs) return Bad("a file's clusters can't be told");
  for (const NtfsRun& run : *runs) {
    const uint64_t window_end = first_ + claimed_.size() * 8;
    const uint64_t begin = std::max(run.lcn, first_);
    const uint64_t end = std::min(run.lcn + run.length, window_end);
    if (run.hole || begin >= end) continue;
    if (AnyBitSet(claimed_, begin - first_, end - first_)) {
      return Bad("two files claim the same clusters");
    }
    SetBits(claimed_, begin - first_, end - first_);
  }
  return Status::Ok();
}

// Only a plain file under its one name whose clusters are all in its base record is taken for a
// page file; any other is an ordinary file and copied. A hibernation file that is not plain is
// worse: nobody can tell what is in it.
void NtfsScan::NotePageFile(const NtfsRecord& record) {
  Special special = Special::kNone;
  for (const NtfsAttribute& attribute : record.attributes) {
    if (attribute.type != ntfs::attribute::kTypeFileName || !attribute.resident) continue;
    special = std::max(special, SpecialName(attribute.value));
  }
  if (special == Special::kNone) return;
  const bool is_hibernation = special == Special::kHibernationFile;
  const NtfsAttribute* data = record.Find(ntfs::attribute::kTypeData);
  const bool is_file = record.base == 0 && (record.flags & ntfs::record::kDirectory) == 0;
  if (is_file && data != nullptr && data->resident && data->value.empty()) return;
  std::optional<std::vector<NtfsRun>> runs;
  const bool is_plain = is_file && data != nullptr && !data->resident && data->flags == 0 &&
                        record.links == 1 && data->first_vcn == 0 &&
                        record.Find(ntfs::attribute::kTypeList) == nullptr;
  if (is_plain) runs = DecodeNtfsRuns(*data, volume_.clusters());
  const bool is_whole = runs && data->allocated / volume_.cluster_bytes() == data->last_vcn + 1 &&
                        data->size <= data->allocated &&
                        std::ranges::none_of(*runs, &NtfsRun::hole) &&
                        page_files_.runs.size() + runs->size() <= kPageFileRunsMax;
  if (!is_whole) {
    page_files_.hibernation_unclear |= is_hibernation;
    return;
  }
  if (runs->empty()) return;
  if (is_hibernation) {
    // There can be only one.
    page_files_.hibernation_unclear |= page_files_.hibernation_cluster.has_value();
    page_files_.hibernation_cluster = runs->front().lcn;
  }
  page_files_.runs.insert(page_files_.runs.end(), runs->begin(), runs->end());
}

}  // namespace firn
