// The compressors themselves, without records around them. One thread each.
#ifndef FIRN_BENCH_COMPRESSOR_H_
#define FIRN_BENCH_COMPRESSOR_H_

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "codec/record.h"
#include "core/status.h"

namespace firn {

class Compressor {
 public:
  // For inputs of at most `input_bytes_max`. kInvalidArgument for raw or a level that there is not.
  static Result<std::unique_ptr<Compressor>> Create(const CompressionOptions& options,
                                                    size_t input_bytes_max);
  virtual ~Compressor() = default;
  // The compressed bytes, which live until the next call.
  virtual std::span<const uint8_t> Compress(std::span<const uint8_t> input) = 0;
  // Decompresses what Compress gave; false if that can't be. REQUIRES: `out` is as long as the
  // input was.
  virtual bool Decompress(std::span<const uint8_t> stored, std::span<uint8_t> out) = 0;
};

}  // namespace firn

#endif  // FIRN_BENCH_COMPRESSOR_H_
