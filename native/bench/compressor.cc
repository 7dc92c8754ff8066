#include "bench/compressor.h"

#include <lz4.h>
#include <zstd.h>

#include "codec/lz4_encoder.h"

namespace firn {

namespace {

// The segment is the largest thing that is ever compressed at once.
constexpr size_t kInputMax = 8 * 1024 * 1024;

class Lz4Compressor final : public Compressor {
 public:
  Lz4Compressor(int acceleration, size_t input_bytes_max)
      : encoder_(acceleration), out_(Lz4Encoder::BlockBytesMax(input_bytes_max)) {}

  std::span<const uint8_t> Compress(std::span<const uint8_t> input) override {
    return {out_.data(), encoder_.Encode(input, out_)};
  }

  bool Decompress(std::span<const uint8_t> stored, std::span<uint8_t> out) override {
    const int length = LZ4_decompress_safe(
        reinterpret_cast<const char*>(stored.data()), reinterpret_cast<char*>(out.data()),
        static_cast<int>(stored.size()), static_cast<int>(out.size()));
    return length >= 0 && static_cast<size_t>(length) == out.size();
  }

 private:
  Lz4Encoder encoder_;
  std::vector<uint8_t> out_;
};

class ZstdCompressor final : public Compressor {
 public:
  ZstdCompressor(int level, size_t input_bytes_max)
      : level_(level),
        context_(ZSTD_createCCtx()),
        reader_(ZSTD_createDCtx()),
        out_(ZSTD_compressBound(input_bytes_max)) {}
  ~ZstdCompressor() override {
    ZSTD_freeCCtx(context_);
    ZSTD_freeDCtx(reader_);
  }
  ZstdCompressor(const ZstdCompressor&) = delete;
  ZstdCompressor& operator=(const ZstdCompressor&) = delete;

  std::span<const uint8_t> Compress(std::span<const uint8_t> input) override {
    const size_t length =
        ZSTD_compressCCtx(context_, out_.data(), out_.size(), input.data(), input.size(), level_);
    return {out_.data(), ZSTD_isError(length) != 0 ? 0 : length};
  }

  bool Decompress(std::span<const uint8_t> stored, std::span<uint8_t> out) override {
    return ZSTD_decompressDCtx(reader_, out.data(), out.size(), stored.data(), stored.size()) ==
           out.size();
  }

 private:
  const int level_;
  ZSTD_CCtx* const context_;
  ZSTD_DCtx* const reader_;
  std::vector<uint8_t> out_;
};

}  // namespace

Result<std::unique_ptr<Compressor>> Compressor::Create(const CompressionOptions& options,
                                                       size_t input_bytes_max) {
  const auto invalid = [](const char* what) { return Status::Error(Code::kInvalidArgument, what); };
  if (input_bytes_max == 0 || input_bytes_max > kInputMax) return invalid("input is 1 B to 8 MiB");
  if (options.codec == Codec::kLz4) {
    if (options.level < 1 || options.level > 64) return invalid("LZ4's acceleration is 1 to 64");
    return std::unique_ptr<Compressor>(new Lz4Compressor(options.level, input_bytes_max));
  }
  if (options.codec == Codec::kZstd) {
    if (options.level < -7 || options.level > 19) return invalid("zstd's level is -7 to 19");
    return std::unique_ptr<Compressor>(new ZstdCompressor(options.level, input_bytes_max));
  }
  return invalid("there is nothing to compress with");
}

}  // namespace firn
