#include "codec/lz4_encoder.h"

namespace firn {

size_t Lz4Encoder::Encode(std::span<const uint8_t> input, std::span<uint8_t> out) {
  // A clean table is quicker than LZ4_resetStream_fast, after which each candidate is checked for
  // being of an earlier input.
  LZ4_initStream(&stream_, sizeof stream_);
  const int length = LZ4_compress_fast_continue(
      &stream_, reinterpret_cast<const char*>(input.data()), reinterpret_cast<char*>(out.data()),
      static_cast<int>(input.size()), static_cast<int>(out.size()), acceleration_);
  return static_cast<size_t>(length);
}

}  // namespace firn
