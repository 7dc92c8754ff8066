#include "pack/pack_format.h"

#include <algorithm>
#include <cstdio>
#include <cstring>

#include "core/crc32c.h"

namespace firn {

namespace {

constexpr char kStripeMagic[] = "FIRNPACK";
constexpr char kFooterMagic[] = "FIRNFOOT";
constexpr size_t kMagicBytes = 8;
constexpr uint16_t kVersion = 1;

Status Corrupt(const char* what) { return Status::Error(Code::kCorruptPack, what).DataLoss(); }

bool AllZero(std::span<const uint8_t> bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](uint8_t byte) { return byte == 0; });
}

void EncodeRecordRow(const PackRecord& record, uint8_t* out) {
  std::memcpy(out, record.id.data(), record.id.size());
  StoreLe(out + 32, record.offset);
  StoreLe(out + 36, record.stored_length);
  StoreLe(out + 40, record.raw_length);
  out[44] = static_cast<uint8_t>(record.record_class);
  out[45] = static_cast<uint8_t>(record.codec);
  out[46] = record.flags;
  out[47] = 0;
}

PackRecord DecodeRecordRow(const uint8_t* bytes) {
  PackRecord record;
  std::memcpy(record.id.data(), bytes, record.id.size());
  record.offset = LoadLe<uint32_t>(bytes + 32);
  record.stored_length = LoadLe<uint32_t>(bytes + 36);
  record.raw_length = LoadLe<uint32_t>(bytes + 40);
  record.record_class = static_cast<RecordClass>(bytes[44]);
  record.codec = static_cast<Codec>(bytes[45]);
  record.flags = bytes[46];
  return record;
}

bool RecordRowIsValid(const uint8_t* bytes, uint64_t footer_offset) {
  const PackRecord record = DecodeRecordRow(bytes);
  const bool known =
      bytes[44] >= 1 && bytes[44] <= 3 && bytes[45] <= 2 && bytes[46] <= 1 && bytes[47] == 0;
  return known && record.raw_length <= kRecordContentMax &&
         record.stored_length <= kRecordContentMax &&
         RangeInside(record.offset, uint64_t{kRecordHeaderBytes} + record.stored_length,
                     footer_offset);
}

}  // namespace

std::string PackName::ToString() const {
  char tail[32];
  std::snprintf(tail, sizeof tail, "/%04x-%08x", attempt, sequence);
  return ToHex(run) + tail;
}

std::string PackName::RelativePath() const { return "packs/" + ToString() + ".pack"; }

Result<PackName> PackName::Parse(std::string_view text) {
  PackName name;
  std::array<uint8_t, 2> attempt;
  std::array<uint8_t, 4> sequence;
  const bool valid = text.size() == 46 && text[32] == '/' && text[37] == '-' &&
                     FromHex(text.substr(0, 32), name.run) &&
                     FromHex(text.substr(33, 4), attempt) && FromHex(text.substr(38, 8), sequence);
  if (!valid) return Status::Error(Code::kInvalidArgument, "not the name of a pack");
  name.attempt = LoadBe<uint16_t>(attempt.data());
  name.sequence = LoadBe<uint32_t>(sequence.data());
  return name;
}

void StripeHeader::Encode(uint8_t* out) const {
  std::memset(out, 0, kStripeHeaderBytes);
  std::memcpy(out, kStripeMagic, kMagicBytes);
  StoreLe(out + 8, kVersion);
  out[10] = static_cast<uint8_t>(pack_class);
  StoreLe(out + 12, name.attempt);
  StoreLe(out + 16, name.sequence);
  StoreLe(out + 20, offset);
  std::memcpy(out + 24, name.run.data(), name.run.size());
  std::memcpy(out + 40, public_tail.data(), public_tail.size());
  StoreLe(out + 60, Crc32c({out, 60}));
}

Result<StripeHeader> StripeHeader::Decode(std::span<const uint8_t> bytes) {
  if (bytes.size() < kStripeHeaderBytes ||
      std::memcmp(bytes.data(), kStripeMagic, kMagicBytes) != 0) {
    return Corrupt("no stripe of a pack begins here");
  }
  if (LoadLe<uint32_t>(&bytes[60]) != Crc32c(bytes.first(60))) {
    return Corrupt("a stripe's header does not match its checksum");
  }
  if (LoadLe<uint16_t>(&bytes[8]) > kVersion) {
    return Status::Error(Code::kVersion, "a pack of a newer format version");
  }
  StripeHeader header;
  header.pack_class = static_cast<PackClass>(bytes[10]);
  header.name.attempt = LoadLe<uint32_t>(&bytes[12]);
  header.name.sequence = LoadLe<uint32_t>(&bytes[16]);
  header.offset = LoadLe<uint32_t>(&bytes[20]);
  std::memcpy(header.name.run.data(), &bytes[24], header.name.run.size());
  std::memcpy(header.public_tail.data(), &bytes[40], header.public_tail.size());
  if (LoadLe<uint16_t>(&bytes[8]) != kVersion || bytes[10] < 1 || bytes[10] > 2 || bytes[11] != 0 ||
      !AllZero(bytes.subspan(56, 4))) {
    return Corrupt("a stripe's header holds values that no stripe has");
  }
  return header;
}

std::vector<uint8_t> EncodePackFooter(PackTable* table) {
  const size_t tables =
      table->records.size() * kPackRecordBytes + table->stripes.size() * kPackStripeBytes;
  const size_t length = RoundUp(tables + kPackTrailerBytes, kPackAlignment);
  std::vector<uint8_t> footer(length);
  uint8_t* out = footer.data();
  for (const PackRecord& record : table->records) {
    EncodeRecordRow(record, out);
    out += kPackRecordBytes;
  }
  for (const PackStripe& stripe : table->stripes) {
    StoreLe(out, stripe.offset);
    StoreLe(out + 4, stripe.length);
    std::memcpy(out + 8, stripe.hash.data(), stripe.hash.size());
    out += kPackStripeBytes;
  }
  table->file_bytes = table->footer_offset + length;
  table->hash = Blake3({footer.data(), length - kPackTrailerBytes});
  uint8_t* trailer = footer.data() + length - kPackTrailerBytes;
  std::memcpy(trailer, kFooterMagic, kMagicBytes);
  StoreLe(trailer + 8, static_cast<uint32_t>(table->records.size()));
  StoreLe(trailer + 12, static_cast<uint32_t>(table->stripes.size()));
  StoreLe(trailer + 16, table->footer_offset);
  StoreLe(trailer + 24, table->file_bytes);
  std::memcpy(trailer + 32, table->hash.data(), table->hash.size());
  StoreLe(trailer + 92, Crc32c({trailer, 92}));
  return footer;
}

Result<PackTrailer> DecodePackTrailer(std::span<const uint8_t> bytes, uint64_t file_bytes) {
  if (bytes.size() != kPackTrailerBytes ||
      std::memcmp(bytes.data(), kFooterMagic, kMagicBytes) != 0) {
    return Corrupt("the pack has no trailer at its end");
  }
  if (LoadLe<uint32_t>(&bytes[92]) != Crc32c(bytes.first(92))) {
    return Corrupt("the pack's trailer does not match its checksum");
  }
  PackTrailer trailer;
  trailer.records = LoadLe<uint32_t>(&bytes[8]);
  trailer.stripes = LoadLe<uint32_t>(&bytes[12]);
  trailer.footer_offset = LoadLe<uint64_t>(&bytes[16]);
  trailer.file_bytes = LoadLe<uint64_t>(&bytes[24]);
  std::memcpy(trailer.hash.data(), &bytes[32], trailer.hash.size());
  const uint64_t tables =
      uint64_t{trailer.records} * kPackRecordBytes + uint64_t{trailer.stripes} * kPackStripeBytes;
  const uint64_t length = RoundUp(tables + kPackTrailerBytes, kPackAlignment);
  if (trailer.file_bytes != file_bytes || file_bytes > kPackBytesMax || length > file_bytes ||
      trailer.footer_offset != file_bytes - length || !AllZero(bytes.subspan(64, 28))) {
    return Corrupt("the pack's trailer does not agree with the file");
  }
  return trailer;
}

Result<PackTable> DecodePackFooter(const PackTrailer& trailer, std::span<const uint8_t> footer) {
  if (footer.size() != trailer.file_bytes - trailer.footer_offset) {
    return Corrupt("the pack's footer is cut short");
  }
  const auto hashed = footer.first(footer.size() - kPackTrailerBytes);
  if (Blake3(hashed) != trailer.hash) return Corrupt("the pack's footer does not match its hash");
  PackTable table;
  table.footer_offset = trailer.footer_offset;
  table.file_bytes = trailer.file_bytes;
  table.hash = trailer.hash;
  const uint8_t* in = footer.data();
  table.records.reserve(trailer.records);
  for (uint32_t i = 0; i < trailer.records; ++i, in += kPackRecordBytes) {
    if (!RecordRowIsValid(in, trailer.footer_offset)) {
      return Corrupt("the pack's record table holds a row that no pack has");
    }
    table.records.push_back(DecodeRecordRow(in));
  }
  uint64_t expected_offset = 0;
  table.stripes.reserve(trailer.stripes);
  for (uint32_t i = 0; i < trailer.stripes; ++i, in += kPackStripeBytes) {
    PackStripe stripe;
    stripe.offset = LoadLe<uint32_t>(in);
    stripe.length = LoadLe<uint32_t>(in + 4);
    std::memcpy(stripe.hash.data(), in + 8, stripe.hash.size());
    if (stripe.offset != expected_offset || !IsAligned(stripe.length, kPackAlignment) ||
        stripe.length == 0) {
      return Corrupt("the pack's stripes do not follow each other");
    }
    expected_offset += stripe.length;
    table.stripes.push_back(stripe);
  }
  if (expected_offset != trailer.footer_offset ||
      !AllZero({in, static_cast<size_t>(hashed.data() + hashed.size() - in)})) {
    return Corrupt("the pack's stripes do not fill it");
  }
  return table;
}

}  // namespace firn
