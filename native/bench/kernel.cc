#include "bench/kernel.h"

#include <cstring>

#include "bench/compressor.h"
#include "chunk/chunker.h"
#include "chunk/page.h"
#include "chunk/zero.h"
#include "codec/aead.h"
#include "codec/hash.h"
#include "core/bytes.h"
#include "core/crc32c.h"

#if defined(__x86_64__) || defined(_M_X64)
#define FIRN_BLAKE3_DISPATCHES
// What BLAKE3's dispatcher may use: bits of its enum cpu_feature. It fills this in at its first
// call, and reads it at each (cmake/third_party.cmake makes it visible).
extern "C" int g_cpu_features;
#endif

namespace firn {

namespace {

using Bytes = std::vector<uint8_t>;
using Body = std::function<uint64_t()>;

// Keeps the compiler from leaving out work whose result nobody looks at.
template <typename T>
void Use(const T& value) {
#if defined(__GNUC__)
  asm volatile("" : : "r,m"(value) : "memory");
#else
  static volatile T sink;
  sink = value;
#endif
}

#ifdef FIRN_BLAKE3_DISPATCHES
struct Blake3Set {
  const char* name;
  int needs;    // must be among the processor's
  int allowed;  // what is left switched on
};
constexpr int kSse2 = 1, kSsse3 = 2, kSse41 = 4, kAvx = 8, kAvx2 = 16, kAvx512 = 32 | 64;
constexpr Blake3Set kBlake3Sets[] = {
    {"portable", 0, 0},
    {"sse2", kSse2, kSse2},
    {"sse4.1", kSse41, kSse2 | kSsse3 | kSse41},
    {"avx2", kAvx2, kSse2 | kSsse3 | kSse41 | kAvx | kAvx2},
    {"avx512", kAvx512, kSse2 | kSsse3 | kSse41 | kAvx | kAvx2 | kAvx512},
};

int Blake3Features() {
  static const int features = [] {
    Blake3({});
    return g_cpu_features;
  }();
  return features;
}

class Blake3Mask {
 public:
  explicit Blake3Mask(int allowed) { g_cpu_features = Blake3Features() & allowed; }
  ~Blake3Mask() { g_cpu_features = Blake3Features(); }
  Blake3Mask(const Blake3Mask&) = delete;
  Blake3Mask& operator=(const Blake3Mask&) = delete;
};
#endif

template <typename Work>
void ForEachChunk(std::span<const uint8_t> input, size_t chunk_bytes, Work work) {
  for (size_t at = 0; at < input.size(); at += chunk_bytes) work(input.subspan(at, chunk_bytes));
}

Result<Body> MakeMemcpy(const KernelOptions& options, Bytes input) {
  return Body([input = std::move(input), out = Bytes(options.chunk_bytes),
               chunk_bytes = options.chunk_bytes]() mutable {
    ForEachChunk(input, chunk_bytes, [&](std::span<const uint8_t> chunk) {
      std::memcpy(out.data(), chunk.data(), chunk.size());
      Use(out.data());
    });
    return uint64_t{input.size()};
  });
}

template <bool (*kScan)(const uint8_t*, size_t)>
Result<Body> MakeZeroScan(const KernelOptions&, Bytes input) {
  return Body([zeros = Bytes(input.size())] {
    for (size_t at = 0; at < zeros.size(); at += kPageBytes) {
      Use(kScan(zeros.data() + at, kPageBytes));
    }
    return uint64_t{zeros.size()};
  });
}

Result<Body> MakeCut(const KernelOptions&, Bytes input) {
  ChunkingParameters parameters;
  parameters.seed = RepositoryKeys(Key{}).cut_seed;
  return Body([input = std::move(input), parameters] {
    for (size_t at = 0; at < input.size(); at += kSegmentBytes) {
      const size_t length = std::min<size_t>(kSegmentBytes, input.size() - at);
      PageSet present;
      present.AddRange(0, static_cast<uint32_t>(length / kPageBytes));
      SegmentWalker walker(parameters, input.data() + at, present);
      SegmentRun run;
      while (walker.Next(&run)) Use(run.first_page);
    }
    return uint64_t{input.size()};
  });
}

Result<Body> MakeCrc(const KernelOptions& options, Bytes input) {
  return Body([input = std::move(input), chunk_bytes = options.chunk_bytes] {
    ForEachChunk(input, chunk_bytes, [](std::span<const uint8_t> chunk) { Use(Crc32c(chunk)); });
    return uint64_t{input.size()};
  });
}

Result<Body> MakeBlake3(const KernelOptions& options, Bytes input) {
  Body hash = [input = std::move(input), keys = RepositoryKeys(Key{}),
               chunk_bytes = options.chunk_bytes] {
    ForEachChunk(input, chunk_bytes,
                 [&](std::span<const uint8_t> chunk) { Use(Blake3Keyed(keys.chunk, chunk)[0]); });
    return uint64_t{input.size()};
  };
  if (options.cpu_impl.empty()) return hash;
#ifdef FIRN_BLAKE3_DISPATCHES
  for (const Blake3Set& set : kBlake3Sets) {
    if (options.cpu_impl != set.name || (Blake3Features() & set.needs) != set.needs) continue;
    return Body([hash = std::move(hash), allowed = set.allowed] {
      const Blake3Mask mask(allowed);
      return hash();
    });
  }
#else
  if (options.cpu_impl == Blake3Implementations().front()) return hash;
#endif
  return Status::Error(Code::kInvalidArgument,
                       "BLAKE3 has no implementation " + options.cpu_impl + " here");
}

template <Codec kCodec>
Result<Body> MakeCompress(const KernelOptions& options, Bytes input) {
  FIRN_ASSIGN_OR_RETURN(std::shared_ptr<Compressor> compressor,
                        Compressor::Create({kCodec, options.level}, options.chunk_bytes));
  return Body([input = std::move(input), compressor, chunk_bytes = options.chunk_bytes] {
    uint64_t stored = 0;
    ForEachChunk(input, chunk_bytes, [&](std::span<const uint8_t> chunk) {
      stored += compressor->Compress(chunk).size();
    });
    return stored;
  });
}

template <Codec kCodec>
Result<Body> MakeDecompress(const KernelOptions& options, Bytes input) {
  FIRN_ASSIGN_OR_RETURN(std::shared_ptr<Compressor> compressor,
                        Compressor::Create({kCodec, options.level}, options.chunk_bytes));
  std::vector<Bytes> stored;
  ForEachChunk(input, options.chunk_bytes, [&](std::span<const uint8_t> chunk) {
    const std::span<const uint8_t> bytes = compressor->Compress(chunk);
    stored.emplace_back(bytes.begin(), bytes.end());
  });
  return Body([stored = std::move(stored), compressor, out = Bytes(options.chunk_bytes)]() mutable {
    uint64_t made = 0;
    for (const Bytes& bytes : stored) made += compressor->Decompress(bytes, out) ? out.size() : 0;
    return made;
  });
}

Result<Body> MakeSeal(const KernelOptions& options, Bytes input) {
  FIRN_ASSIGN_OR_RETURN(std::shared_ptr<Aes256Gcm> cipher, Aes256Gcm::Create());
  FIRN_RETURN_IF_ERROR(cipher->SetKey(Key{}));
  // In place and again and again: what is sealed is the last run's result, which costs the same.
  return Body([input = std::move(input), cipher, chunk_bytes = options.chunk_bytes,
               nonce = uint64_t{0}]() mutable {
    for (size_t at = 0; at < input.size(); at += chunk_bytes) {
      Aes256Gcm::Nonce bytes{};
      StoreLe(bytes.data(), ++nonce);
      Aes256Gcm::Tag tag;
      const Status sealed =
          cipher->Seal(bytes, {}, std::span(input).subspan(at, chunk_bytes), &tag);
      if (!sealed.ok()) return uint64_t{0};
    }
    return uint64_t{input.size()};
  });
}

constexpr struct {
  const char* name;
  Result<Body> (*make)(const KernelOptions& options, Bytes input);
} kKernels[] = {
    {"memcpy", MakeMemcpy},
    {"zero-scan", MakeZeroScan<IsZero>},
    {"zero-scan-portable", MakeZeroScan<IsZeroPortable>},
    {"cut", MakeCut},
    {"crc32c", MakeCrc},
    {"blake3", MakeBlake3},
    {"lz4", MakeCompress<Codec::kLz4>},
    {"lz4-decode", MakeDecompress<Codec::kLz4>},
    {"zstd", MakeCompress<Codec::kZstd>},
    {"zstd-decode", MakeDecompress<Codec::kZstd>},
    {"aes-256-gcm", MakeSeal},
};

}  // namespace

Result<std::unique_ptr<Kernel>> Kernel::Create(const KernelOptions& options,
                                               std::span<const uint8_t> input) {
  if (options.chunk_bytes == 0 || !IsAligned(options.chunk_bytes, kPageBytes) ||
      options.chunk_bytes > kSegmentBytes) {
    return Status::Error(Code::kInvalidArgument, "a chunk is 4 KiB to 8 MiB, in whole pages");
  }
  const size_t length = input.size() / options.chunk_bytes * options.chunk_bytes;
  if (length == 0 || length > kInputMax) {
    return Status::Error(Code::kInvalidArgument, "the input is one chunk to 64 MiB");
  }
  for (const auto& [name, make] : kKernels) {
    if (options.name != name) continue;
    const std::span<const uint8_t> whole = input.first(length);
    FIRN_ASSIGN_OR_RETURN(Body body, make(options, Bytes(whole.begin(), whole.end())));
    return std::unique_ptr<Kernel>(new Kernel(std::move(body), length));
  }
  return Status::Error(Code::kInvalidArgument, "there is no kernel " + options.name);
}

std::vector<std::string> Blake3Implementations() {
#ifdef FIRN_BLAKE3_DISPATCHES
  std::vector<std::string> names;
  for (const Blake3Set& set : kBlake3Sets) {
    if ((Blake3Features() & set.needs) == set.needs) names.emplace_back(set.name);
  }
  return names;
#elif defined(__aarch64__) || defined(_M_ARM64)
  return {"neon"};
#else
  return {"portable"};
#endif
}

}  // namespace firn
