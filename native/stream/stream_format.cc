#include "stream/stream_format.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "codec/hash.h"
#include "core/crc32c.h"

namespace firn {

namespace {

constexpr uint8_t kMagic[4] = {'F', 'I', 'R', 'S'};
constexpr uint8_t kVersion = 1;
constexpr size_t kHashedBytes = 24;  // of the header
constexpr size_t kHashOffset = 24;
constexpr size_t kReservedOffset = 56;
constexpr size_t kCrcOffset = 60;

}  // namespace

Status CorruptStream(const char* what) { return Status::Error(Code::kCorruptStream, what); }

void FrameHeader::Encode(uint8_t* out) const {
  std::memset(out, 0, kFrameHeaderBytes);
  std::memcpy(out, kMagic, sizeof kMagic);
  out[4] = kVersion;
  out[5] = static_cast<uint8_t>(kind);
  StoreLe(out + 8, payload_bytes);
  StoreLe(out + 12, count);
  StoreLe(out + 16, sequence);
  std::memcpy(out + kHashOffset, hash.data(), hash.size());
  StoreLe(out + kCrcOffset, Crc32c({out, kCrcOffset}));
}

Result<FrameHeader> FrameHeader::Decode(const uint8_t* bytes) {
  if (std::memcmp(bytes, kMagic, sizeof kMagic) != 0) {
    return CorruptStream("no frame of a stream begins here");
  }
  if (LoadLe<uint32_t>(bytes + kCrcOffset) != Crc32c({bytes, kCrcOffset})) {
    return CorruptStream("a frame's header does not match its checksum");
  }
  if (bytes[4] > kVersion) {
    return Status::Error(Code::kVersion, "a stream of a newer format version");
  }
  FrameHeader header;
  header.kind = static_cast<FrameKind>(bytes[5]);
  header.payload_bytes = LoadLe<uint32_t>(bytes + 8);
  header.count = LoadLe<uint32_t>(bytes + 12);
  header.sequence = LoadLe<uint64_t>(bytes + 16);
  std::memcpy(header.hash.data(), bytes + kHashOffset, header.hash.size());
  const bool known = bytes[4] == kVersion && bytes[5] >= 1 && bytes[5] <= 6 &&
                     LoadLe<uint16_t>(bytes + 6) == 0 &&
                     LoadLe<uint32_t>(bytes + kReservedOffset) == 0;
  const bool counts = header.kind == FrameKind::kRecords || header.kind == FrameKind::kPrefixes ||
                      header.kind == FrameKind::kHeader;
  if (!known || header.payload_bytes > kFramePayloadMax || (!counts && header.count != 0)) {
    return CorruptStream("a frame's header holds values that no frame has");
  }
  return header;
}

Id FrameHash(const Id& previous, const FrameHeader& header, std::span<const uint8_t> payload) {
  // The hash of the payload first, so that nothing has to be copied to stand in one piece.
  const Id content = Blake3(payload);
  uint8_t encoded[kFrameHeaderBytes];
  header.Encode(encoded);
  uint8_t bytes[sizeof(Id) + kHashedBytes + sizeof(Id)];
  std::copy(previous.begin(), previous.end(), bytes);
  std::copy_n(encoded, kHashedBytes, bytes + sizeof(Id));
  std::copy(content.begin(), content.end(), bytes + sizeof(Id) + kHashedBytes);
  return Blake3(bytes);
}

void StreamCounts::Encode(uint8_t* out) const {
  StoreLe(out, records);
  StoreLe(out + 8, bytes);
}

Result<StreamCounts> StreamCounts::Decode(std::span<const uint8_t> encoded) {
  if (encoded.size() != kStreamCountsBytes) return CorruptStream("an end of the wrong size");
  return StreamCounts{LoadLe<uint64_t>(encoded.data()), LoadLe<uint64_t>(encoded.data() + 8)};
}

}  // namespace firn
