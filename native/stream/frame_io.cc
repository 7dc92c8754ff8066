#include "stream/frame_io.h"

#include <algorithm>
#include <chrono>
#include <thread>

#include "pipeline/job_stats.h"

namespace firn {

namespace {

constexpr double kNsPerSecond = 1e9;
// Pieces of a limited stream are so long that a second has several of them.
constexpr uint64_t kPiecesPerSecond = 20;
constexpr size_t kPieceBytesMin = 512;
constexpr auto kNap = std::chrono::milliseconds(20);
constexpr const char* kName = "the stream";

}  // namespace

Result<size_t> RateLimit::Take(size_t bytes, const ByteChannel::Stop& stop) {
  if (bytes_per_second_ == 0) return bytes;
  const size_t piece = std::min<size_t>(
      bytes, std::max<size_t>(kPieceBytesMin, bytes_per_second_ / kPiecesPerSecond));
  const auto rate = static_cast<double>(bytes_per_second_);
  for (;;) {
    const uint64_t now = NowNs();
    if (last_ns_ == 0) last_ns_ = now;
    // What was not used in a second is lost: a stream that stood still does not catch up.
    allowance_ = std::min(allowance_ + rate * static_cast<double>(now - last_ns_) / kNsPerSecond,
                          std::max(rate, static_cast<double>(piece)));
    last_ns_ = now;
    if (allowance_ >= static_cast<double>(piece)) break;
    FIRN_RETURN_IF_ERROR(stop());
    std::this_thread::sleep_for(kNap);
  }
  allowance_ -= static_cast<double>(piece);
  return piece;
}

Status FrameWriter::WriteBytes(std::span<const uint8_t> bytes, const ByteChannel::Stop& stop) {
  while (!bytes.empty()) {
    FIRN_ASSIGN_OR_RETURN(const size_t piece, limit_.Take(bytes.size(), stop));
    FIRN_RETURN_IF_ERROR(channel_.Write(bytes.first(piece), stop));
    bytes_ += piece;
    bytes = bytes.subspan(piece);
  }
  return Status::Ok();
}

Status FrameWriter::Write(FrameKind kind, uint32_t count, std::span<const uint8_t> payload,
                          const ByteChannel::Stop& stop) {
  FrameHeader header;
  header.kind = kind;
  header.payload_bytes = static_cast<uint32_t>(payload.size());
  header.count = count;
  std::lock_guard lock(mutex_);
  FIRN_RETURN_IF_ERROR(failure_);
  header.sequence = sequence_++;
  header.hash = hash_ = FrameHash(hash_, header, payload);
  uint8_t encoded[kFrameHeaderBytes];
  header.Encode(encoded);
  failure_ = WriteBytes(encoded, stop);
  if (failure_.ok()) failure_ = WriteBytes(payload, stop);
  return failure_;
}

Status FrameReader::ReadBytes(std::span<uint8_t> out, const ByteChannel::Stop& stop) {
  FIRN_ASSIGN_OR_RETURN(const size_t got, channel_.Read(out, stop));
  bytes_ += got;
  if (got == out.size()) return Status::Ok();
  return Status::Error(Code::kStreamTruncated, "the stream ends before its end");
}

Status FrameReader::ReadFrame(Frame* frame, const ByteChannel::Stop& stop) {
  frame->offset = bytes_;
  uint8_t encoded[kFrameHeaderBytes];
  FIRN_RETURN_IF_ERROR(ReadBytes(encoded, stop));
  FIRN_ASSIGN_OR_RETURN(frame->header, FrameHeader::Decode(encoded));
  if (frame->header.sequence != sequence_) {
    return CorruptStream("a frame is missing, or out of its place");
  }
  frame->payload.resize(frame->header.payload_bytes);
  FIRN_RETURN_IF_ERROR(ReadBytes(frame->payload, stop));
  if (FrameHash(hash_, frame->header, frame->payload) != frame->header.hash) {
    return CorruptStream("a frame does not match its hash");
  }
  hash_ = frame->header.hash;
  ++sequence_;
  return Status::Ok();
}

Status FrameReader::Read(Frame* frame, const ByteChannel::Stop& stop) {
  if (failure_.ok()) {
    failure_ = ReadFrame(frame, stop);
    const bool placed =
        failure_.code() == Code::kStreamTruncated || failure_.code() == Code::kCorruptStream;
    if (placed) failure_ = std::move(failure_).At(kName, frame->offset);
  }
  return failure_;
}

}  // namespace firn
