// LZ4 blocks, each of an input by itself. Any LZ4 decoder reads them.
//
// Not by LZ4_compress_fast: for inputs below 64 KiB, as most chunks are, that hashes four bytes at
// a time into a table of 16-bit entries. LZ4's compressor for streams hashes five into one of 32
// bits, whose candidates are right more often: on chunks of file systems a sixth more speed for one
// or two percent more bytes, and beyond 64 KiB they are the same. So each input is a stream's
// first.
//
// An encoder belongs to one thread.
#ifndef FIRN_CODEC_LZ4_ENCODER_H_
#define FIRN_CODEC_LZ4_ENCODER_H_

#include <lz4.h>

#include <cstddef>
#include <cstdint>
#include <span>

namespace firn {

class Lz4Encoder {
 public:
  // From 1 (small) to 64 (fast).
  explicit Lz4Encoder(int acceleration) : acceleration_(acceleration) {}

  // What a block of an input takes at most.
  static size_t BlockBytesMax(size_t input_bytes) {
    return static_cast<size_t>(LZ4_compressBound(static_cast<int>(input_bytes)));
  }

  // The block's length, or 0 if LZ4 fails, which it has no reason for. REQUIRES: `out` has room for
  // BlockBytesMax: then LZ4 does not look at how much is left.
  size_t Encode(std::span<const uint8_t> input, std::span<uint8_t> out);

 private:
  const int acceleration_;
  LZ4_stream_t stream_;
};

}  // namespace firn

#endif  // FIRN_CODEC_LZ4_ENCODER_H_
