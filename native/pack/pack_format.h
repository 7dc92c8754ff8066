// The bytes of a pack that are not records: stripe headers, footer, trailer.
// docs/repository-format.md section 6.
#ifndef FIRN_PACK_PACK_FORMAT_H_
#define FIRN_PACK_PACK_FORMAT_H_

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "codec/record.h"
#include "core/bytes.h"
#include "core/status.h"

namespace firn {

// A pack's name is never used twice: it has its run and attempt in it.
struct PackName {
  RunId run{};
  uint32_t attempt = 0;
  uint32_t sequence = 0;

  RecordWriter writer() const { return {run, attempt}; }
  std::string ToString() const;      // "RUN/ATTEMPT-SEQ"
  std::string RelativePath() const;  // "packs/RUN/ATTEMPT-SEQ.pack"
  static Result<PackName> Parse(std::string_view text);
  auto operator<=>(const PackName&) const = default;
};

enum class PackClass : uint8_t { kData = 1, kMap = 2 };

inline constexpr uint32_t kPackAlignment = 4096;
inline constexpr uint32_t kStripeHeaderBytes = 64;
inline constexpr uint32_t kPackTrailerBytes = 96;
inline constexpr uint32_t kPackRecordBytes = 48;
inline constexpr uint32_t kPackStripeBytes = 40;
inline constexpr uint64_t kPackBytesMax = 2 * kGiB;

// A row of the footer's record table.
struct PackRecord {
  Id id{};
  uint32_t offset = 0;  // of the record's header, in the file
  uint32_t stored_length = 0;
  uint32_t raw_length = 0;
  RecordClass record_class = RecordClass::kChunk;
  Codec codec = Codec::kRaw;
  uint8_t flags = 0;
};

// A row of the footer's stripe table.
struct PackStripe {
  uint32_t offset = 0;
  uint32_t length = 0;  // with its padding
  Id hash{};            // of its header and its records' headers, which have checksums of the rest
};

struct PackTable {
  std::vector<PackRecord> records;
  std::vector<PackStripe> stripes;
  uint64_t footer_offset = 0;
  uint64_t file_bytes = 0;
  Id hash{};  // the pack hash
};

struct StripeHeader {
  PackName name;
  PackClass pack_class = PackClass::kData;
  uint32_t offset = 0;
  // Of a write-only key's run: the second half of its public key. Zeros otherwise.
  std::array<uint8_t, 16> public_tail{};

  void Encode(uint8_t* out) const;  // kStripeHeaderBytes
  static Result<StripeHeader> Decode(std::span<const uint8_t> bytes);
};

// The footer with its trailer, a multiple of kPackAlignment long; sets table->file_bytes and
// table->hash. REQUIRES: table->footer_offset is aligned and follows the last stripe.
std::vector<uint8_t> EncodePackFooter(PackTable* table);

struct PackTrailer {
  uint32_t records = 0;
  uint32_t stripes = 0;
  uint64_t footer_offset = 0;
  uint64_t file_bytes = 0;
  Id hash{};
};

// `bytes` are the last kPackTrailerBytes of a file of `file_bytes`. kCorruptPack unless all is
// consistent.
Result<PackTrailer> DecodePackTrailer(std::span<const uint8_t> bytes, uint64_t file_bytes);

// `footer` is everything from the footer's offset to the end of the file.
Result<PackTable> DecodePackFooter(const PackTrailer& trailer, std::span<const uint8_t> footer);

}  // namespace firn

#endif  // FIRN_PACK_PACK_FORMAT_H_
