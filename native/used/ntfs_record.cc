#include "used/ntfs_record.h"

#include <cstring>

#include "core/bytes.h"
#include "used/ntfs_format.h"

namespace firn {
namespace {

namespace at = ntfs::attribute;

// The attribute at the start of `bytes`, which is exactly its length.
bool ParseAttribute(std::span<const uint8_t> bytes, NtfsAttribute* attribute) {
  attribute->type = LoadLe<uint32_t>(&bytes[0]);
  attribute->resident = bytes[at::kNonResident] == 0;
  attribute->named = bytes[at::kNameLength] != 0;
  attribute->flags = LoadLe<uint16_t>(&bytes[at::kFlags]);
  if (attribute->resident) {
    const uint32_t length = LoadLe<uint32_t>(&bytes[at::kValueLength]);
    const uint32_t offset = LoadLe<uint16_t>(&bytes[at::kValueOffset]);
    if (!RangeInside(offset, length, bytes.size())) return false;
    attribute->value = bytes.subspan(offset, length);
    return true;
  }
  if (bytes[at::kNonResident] != 1 || bytes.size() < at::kNonResidentHeader) return false;
  attribute->first_vcn = LoadLe<uint64_t>(&bytes[at::kFirstVcn]);
  attribute->last_vcn = LoadLe<uint64_t>(&bytes[at::kLastVcn]);
  attribute->allocated = LoadLe<uint64_t>(&bytes[at::kAllocated]);
  attribute->size = LoadLe<uint64_t>(&bytes[at::kSize]);
  attribute->initialized = LoadLe<uint64_t>(&bytes[at::kInitialized]);
  const uint32_t offset = LoadLe<uint16_t>(&bytes[at::kRunsOffset]);
  if (offset < at::kNonResidentHeader || offset >= bytes.size()) return false;
  attribute->mapping = bytes.subspan(offset);
  return true;
}

uint64_t LoadUnsigned(std::span<const uint8_t> bytes) {
  uint64_t value = 0;
  for (size_t i = bytes.size(); i-- > 0;) value = value << 8 | bytes[i];
  return value;
}

// The two's complement of so many bytes, as the 64 bits that have to be added.
uint64_t LoadSigned(std::span<const uint8_t> bytes) {
  uint64_t value = (bytes.back() & 0x80) != 0 ? ~uint64_t{0} : 0;
  for (size_t i = bytes.size(); i-- > 0;) value = value << 8 | bytes[i];
  return value;
}

}  // namespace

const NtfsAttribute* NtfsRecord::Find(uint32_t type) const {
  for (const NtfsAttribute& attribute : attributes) {
    if (attribute.type == type && !attribute.named) return &attribute;
  }
  return nullptr;
}

bool ApplyFixups(std::span<uint8_t> bytes) {
  if (bytes.size() % ntfs::kFixupBytes != 0 || bytes.empty()) return false;
  const size_t blocks = bytes.size() / ntfs::kFixupBytes;
  const size_t offset = LoadLe<uint16_t>(&bytes[ntfs::record::kFixupOffset]);
  const size_t count = LoadLe<uint16_t>(&bytes[ntfs::record::kFixupCount]);
  if (count != blocks + 1 || offset % 2 != 0 || offset < 8 ||
      offset + count * 2 > ntfs::kFixupBytes - 2) {
    return false;
  }
  for (size_t i = 1; i <= blocks; ++i) {
    uint8_t* last = &bytes[i * ntfs::kFixupBytes - 2];
    if (std::memcmp(last, &bytes[offset], 2) != 0) return false;
    std::memcpy(last, &bytes[offset + i * 2], 2);
  }
  return true;
}

std::optional<NtfsRecord> ParseNtfsRecord(std::span<const uint8_t> bytes, uint64_t number) {
  namespace head = ntfs::record;
  if (bytes.size() < head::kBytesMin || std::memcmp(bytes.data(), "FILE", 4) != 0) return {};
  NtfsRecord record;
  record.sequence = LoadLe<uint16_t>(&bytes[head::kSequence]);
  record.links = LoadLe<uint16_t>(&bytes[head::kLinks]);
  record.flags = LoadLe<uint16_t>(&bytes[head::kFlags]);
  record.base = LoadLe<uint64_t>(&bytes[head::kBase]);
  if (!record.in_use()) return record;
  const bool has_number = LoadLe<uint16_t>(&bytes[head::kFixupOffset]) >= head::kHeaderBytes;
  if (has_number && LoadLe<uint32_t>(&bytes[head::kNumber]) != (number & 0xFFFFFFFF)) return {};
  const uint32_t used = LoadLe<uint32_t>(&bytes[head::kUsed]);
  if (used > bytes.size()) return {};
  uint64_t place = LoadLe<uint16_t>(&bytes[head::kFirstAttribute]);
  if (place < head::kHeaderBytes - 8 || place % 8 != 0) return {};
  while (true) {
    if (!RangeInside(place, 4, used)) return {};
    if (LoadLe<uint32_t>(&bytes[place]) == at::kTypeEnd) return record;
    if (!RangeInside(place, at::kResidentHeader, used)) return {};
    const uint32_t length = LoadLe<uint32_t>(&bytes[place + at::kLength]);
    if (length < at::kResidentHeader || length % 8 != 0 || !RangeInside(place, length, used)) {
      return {};
    }
    NtfsAttribute attribute;
    if (!ParseAttribute(bytes.subspan(place, length), &attribute)) return {};
    record.attributes.push_back(attribute);
    place += length;
  }
}

std::optional<std::vector<NtfsRun>> DecodeNtfsRuns(const NtfsAttribute& attribute,
                                                   uint64_t clusters) {
  std::vector<NtfsRun> runs;
  const std::span<const uint8_t> bytes = attribute.mapping;
  uint64_t vcn = attribute.first_vcn;
  uint64_t lcn = 0;
  size_t place = 0;
  while (true) {
    if (place >= bytes.size()) return {};
    const uint8_t header = bytes[place++];
    if (header == 0) break;
    const size_t length_bytes = header & 0xF;
    const size_t lcn_bytes = header >> 4;
    if (length_bytes == 0 || length_bytes > 8 || lcn_bytes > 8 ||
        !RangeInside(place, length_bytes + lcn_bytes, bytes.size())) {
      return {};
    }
    NtfsRun run;
    run.vcn = vcn;
    run.length = LoadUnsigned(bytes.subspan(place, length_bytes));
    place += length_bytes;
    run.hole = lcn_bytes == 0;
    // A hole may be longer than the volume; its end has to stay a number all the same.
    if (run.length == 0 || run.length >> 62 != 0 || !CheckedAdd(vcn, run.length, &vcn)) return {};
    if (!run.hole) {
      lcn += LoadSigned(bytes.subspan(place, lcn_bytes));
      place += lcn_bytes;
      if (!RangeInside(lcn, run.length, clusters)) return {};
      run.lcn = lcn;
    }
    runs.push_back(run);
  }
  // An empty attribute has -1 as its last.
  if (attribute.last_vcn + 1 != vcn) return {};
  return runs;
}

}  // namespace firn
