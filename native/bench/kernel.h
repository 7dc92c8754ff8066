// The kernels of the data plane one by one, as something that can be called again and again.
//
// A Kernel goes over its input chunk by chunk, as the pipeline does, and belongs to one thread.
// Setting it up (contexts, keys, what a decompressor is to decompress) is not part of a run. BLAKE3
// can be held to a smaller instruction set than the processor has; this is done by the library's
// own switch, for the whole process, and only while the kernel runs. Other hashing at that moment
// is slower and still right.
#ifndef FIRN_BENCH_KERNEL_H_
#define FIRN_BENCH_KERNEL_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/status.h"

namespace firn {

struct KernelOptions {
  // "memcpy", "zero-scan", "zero-scan-portable", "cut", "crc32c", "blake3", "lz4", "lz4-decode",
  // "zstd", "zstd-decode", "aes-256-gcm"
  std::string name = {};
  int level = 0;              // zstd's, or LZ4's acceleration
  std::string cpu_impl = {};  // blake3: one of Blake3Implementations, "" for the best
  uint32_t chunk_bytes = 64 * 1024;
};

class Kernel {
 public:
  static constexpr size_t kInputMax = 64 * 1024 * 1024;

  // `input` is copied; it is cut down to whole chunks, and must hold one (zero scans look at zeros
  // of the same length instead). kInvalidArgument for what there is not.
  static Result<std::unique_ptr<Kernel>> Create(const KernelOptions& options,
                                                std::span<const uint8_t> input);

  // Goes over all of the input once. Returns the bytes that came out: compressed bytes for a
  // compressor, else the input's.
  uint64_t Run() { return body_(); }
  // What a run goes over: content, for a decompressor what it makes.
  uint64_t input_bytes() const { return input_bytes_; }

 private:
  Kernel(std::function<uint64_t()> body, uint64_t input_bytes)
      : body_(std::move(body)), input_bytes_(input_bytes) {}

  const std::function<uint64_t()> body_;
  const uint64_t input_bytes_;
};

// The instruction sets that BLAKE3 can use here, slowest first: "portable", "sse2", "sse4.1",
// "avx2", "avx512"; "neon" alone on ARM.
std::vector<std::string> Blake3Implementations();

}  // namespace firn

#endif  // FIRN_BENCH_KERNEL_H_
