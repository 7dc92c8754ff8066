// The bytes of a stream of points: frames. docs/stream-format.md.
//
// A stream is a sequence of frames, each with a header of 64 bytes and a payload. Each header holds
// a hash over the frame and over the hash of the frame before, so that what is missing, moved,
// repeated or changed is found at the frame where it is, before anything in it is used. Pure
// functions; thread-safe.
#ifndef FIRN_STREAM_STREAM_FORMAT_H_
#define FIRN_STREAM_STREAM_FORMAT_H_

#include <cstdint>
#include <span>

#include "core/bytes.h"
#include "core/status.h"

namespace firn {

enum class FrameKind : uint8_t {
  kHeader = 1,      // JSON: what the stream or the list is
  kPoint = 2,       // JSON: a point
  kRecords = 3,     // whole records, back to back
  kSectionEnd = 4,  // StreamCounts: of the section, which is what one point adds to those before
  kEnd = 5,         // StreamCounts: of the whole stream
  kPrefixes = 6,    // ids' first eight bytes, big-endian, ascending
};

inline constexpr uint32_t kFrameHeaderBytes = 64;
// A frame holds at least one record of any size.
inline constexpr uint32_t kFramePayloadMax = 9 * kMiB;
// Writers close a frame when it has so much.
inline constexpr uint32_t kFramePayloadAim = 1 * kMiB;
inline constexpr uint32_t kStreamCountsBytes = 16;

struct FrameHeader {
  FrameKind kind = FrameKind::kHeader;
  uint32_t payload_bytes = 0;
  uint32_t count = 0;  // records or prefixes in it; of a header: points after it; else 0
  uint64_t sequence = 0;
  Id hash{};

  void Encode(uint8_t* out) const;  // kFrameHeaderBytes
  // kCorruptStream unless all of the header is as the format demands; kVersion for a newer one.
  // The hash is not looked at. REQUIRES: kFrameHeaderBytes readable.
  static Result<FrameHeader> Decode(const uint8_t* bytes);
};

// The hash that the header of a frame must have. `previous` is that of the frame before, zeros for
// the first.
Id FrameHash(const Id& previous, const FrameHeader& header, std::span<const uint8_t> payload);

struct StreamCounts {
  uint64_t records = 0;
  uint64_t bytes = 0;  // of records with their headers

  void Encode(uint8_t* out) const;  // kStreamCountsBytes
  static Result<StreamCounts> Decode(std::span<const uint8_t> bytes);
  bool operator==(const StreamCounts&) const = default;
};

Status CorruptStream(const char* what);

}  // namespace firn

#endif  // FIRN_STREAM_STREAM_FORMAT_H_
