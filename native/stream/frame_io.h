// Frames into and out of a byte channel: the chain of hashes, the order, the rate.
//
// FrameWriter is thread-safe: a frame goes out whole, one after the other, and its write is what
// holds back the workers when the other side is slow. FrameReader belongs to one thread at a time.
// Both count what went through and stay usable only until their first failure: what comes after it
// fails, too, because the stream is broken there.
#ifndef FIRN_STREAM_FRAME_IO_H_
#define FIRN_STREAM_FRAME_IO_H_

#include <atomic>
#include <cstdint>
#include <mutex>
#include <span>
#include <vector>

#include "stream/byte_channel.h"
#include "stream/stream_format.h"

namespace firn {

// No more than so many bytes a second, averaged over a second.
class RateLimit {
 public:
  // 0: no limit.
  explicit RateLimit(uint64_t bytes_per_second) : bytes_per_second_(bytes_per_second) {}

  // The piece of `bytes` to send next, after waiting until it may be.
  Result<size_t> Take(size_t bytes, const ByteChannel::Stop& stop);

 private:
  const uint64_t bytes_per_second_;
  uint64_t last_ns_ = 0;
  double allowance_ = 0;  // bytes
};

class FrameWriter {
 public:
  FrameWriter(StreamHandle handle, uint64_t bytes_per_second)
      : channel_(handle), limit_(bytes_per_second) {}

  Status Write(FrameKind kind, uint32_t count, std::span<const uint8_t> payload,
               const ByteChannel::Stop& stop);

  // Of the stream so far, for anyone at any time.
  uint64_t bytes() const { return bytes_; }

 private:
  Status WriteBytes(std::span<const uint8_t> bytes, const ByteChannel::Stop& stop);

  std::mutex mutex_;
  ByteChannel channel_;
  RateLimit limit_;
  Status failure_;
  Id hash_{};
  uint64_t sequence_ = 0;
  std::atomic<uint64_t> bytes_ = 0;
};

struct Frame {
  FrameHeader header;
  uint64_t offset = 0;  // of the frame, in the stream
  std::vector<uint8_t> payload;
};

class FrameReader {
 public:
  explicit FrameReader(StreamHandle handle) : channel_(handle) {}

  // Reads the next frame into `frame`, whose memory is used again. kStreamTruncated when the input
  // ends, kCorruptStream when anything is not as it was written.
  Status Read(Frame* frame, const ByteChannel::Stop& stop);

  uint64_t bytes() const { return bytes_; }

 private:
  Status ReadFrame(Frame* frame, const ByteChannel::Stop& stop);
  Status ReadBytes(std::span<uint8_t> out, const ByteChannel::Stop& stop);

  ByteChannel channel_;
  Status failure_;
  Id hash_{};
  uint64_t sequence_ = 0;
  std::atomic<uint64_t> bytes_ = 0;
};

}  // namespace firn

#endif  // FIRN_STREAM_FRAME_IO_H_
