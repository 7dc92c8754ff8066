// FILE records, their attributes and the runs of clusters in them.
//
// Thread-safe: pure functions over bytes. They return false, or nothing, for what is malformed, and
// never look outside the record.
#ifndef FIRN_USED_NTFS_RECORD_H_
#define FIRN_USED_NTFS_RECORD_H_

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/status.h"

namespace firn {

// A piece of an attribute: `length` clusters from `lcn`, or a hole.
struct NtfsRun {
  uint64_t vcn = 0;
  uint64_t lcn = 0;
  uint64_t length = 0;
  bool hole = false;
};

struct NtfsAttribute {
  uint32_t type = 0;
  uint16_t flags = 0;  // compressed, encrypted, sparse
  bool named = false;
  bool resident = true;
  std::span<const uint8_t> value;  // of a resident one
  uint64_t first_vcn = 0;
  uint64_t last_vcn = 0;
  uint64_t allocated = 0;  // bytes; these three only where first_vcn is 0
  uint64_t size = 0;
  uint64_t initialized = 0;
  std::span<const uint8_t> mapping;  // the encoded runs of a non-resident one
};

struct NtfsRecord {
  uint16_t sequence = 0;
  uint16_t links = 0;
  uint16_t flags = 0;
  uint64_t base = 0;  // the file reference of the base record, 0 in a base record
  std::vector<NtfsAttribute> attributes;
  bool in_use() const { return (flags & 1) != 0; }
  const NtfsAttribute* Find(uint32_t type) const;  // the first unnamed one
};

// Undoes the update sequence of a record or log page in place; false where it does not match.
bool ApplyFixups(std::span<uint8_t> bytes);

// A FILE record after its fixups; the result's spans point into `bytes`. A record not in use has no
// attributes. Nothing if it is malformed or belongs elsewhere than at `number`.
std::optional<NtfsRecord> ParseNtfsRecord(std::span<const uint8_t> bytes, uint64_t number);

// The runs of a non-resident attribute on a volume of so many clusters. Nothing if they are
// malformed, lie outside the volume or do not cover first_vcn to last_vcn exactly.
std::optional<std::vector<NtfsRun>> DecodeNtfsRuns(const NtfsAttribute& attribute,
                                                   uint64_t clusters);

}  // namespace firn

#endif  // FIRN_USED_NTFS_RECORD_H_
