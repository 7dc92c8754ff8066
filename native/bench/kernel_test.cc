#include "bench/kernel.h"

#include "bench/bench_data.h"
#include "bench/compressor.h"
#include "codec/hash.h"
#include "core/core_test_util.h"

namespace firn {
namespace {

constexpr uint32_t kChunk = 64 * 1024;

std::vector<uint8_t> Input() {
  std::vector<uint8_t> input(kMiB);
  BenchData{.seed = 2, .entropy = 0.5, .duplicates = 0}.Fill(0, input);
  return input;
}

TEST(Kernel, EachGoesOverAllOfItsInput) {
  for (const char* name : {"memcpy", "zero-scan", "zero-scan-portable", "cut", "crc32c", "blake3",
                           "lz4-decode", "zstd-decode", "aes-256-gcm"}) {
    auto kernel = test::Must(Kernel::Create({.name = name, .level = 1}, Input()));
    EXPECT_EQ(kernel->input_bytes(), kMiB) << name;
    EXPECT_EQ(kernel->Run(), kMiB) << name;
    EXPECT_EQ(kernel->Run(), kMiB) << name;
  }
}

TEST(Kernel, CompressorsTellWhatCameOut) {
  for (const char* name : {"lz4", "zstd"}) {
    auto kernel = test::Must(Kernel::Create({.name = name, .level = 1}, Input()));
    const uint64_t stored = kernel->Run();
    EXPECT_GT(stored, kMiB * 45 / 100) << name;
    EXPECT_LT(stored, kMiB * 65 / 100) << name;
  }
}

TEST(Kernel, EachInstructionSetOfBlake3GivesTheSameHashAndTheBestIsBackAfterwards) {
  const std::vector<uint8_t> input = Input();
  const Id expected = Blake3(input);
  const std::vector<std::string> implementations = Blake3Implementations();
  ASSERT_FALSE(implementations.empty());
  for (const std::string& implementation : implementations) {
    auto kernel = test::Must(Kernel::Create({.name = "blake3", .cpu_impl = implementation}, input));
    EXPECT_EQ(kernel->Run(), kMiB) << implementation;
    EXPECT_EQ(Blake3(input), expected) << implementation;
  }
}

TEST(Kernel, WhatThereIsNotIsRefused) {
  const std::vector<uint8_t> input = Input();
  const std::span<const uint8_t> all(input);
  for (const KernelOptions& options :
       {KernelOptions{.name = "rot13"}, KernelOptions{.name = "memcpy", .chunk_bytes = 100},
        KernelOptions{.name = "memcpy", .chunk_bytes = 16 << 20},
        KernelOptions{.name = "zstd", .level = 99}, KernelOptions{.name = "lz4", .level = 0},
        KernelOptions{.name = "blake3", .cpu_impl = "abacus"}}) {
    EXPECT_EQ(Kernel::Create(options, all).status().code(), Code::kInvalidArgument) << options.name;
  }
  EXPECT_FALSE(Kernel::Create({.name = "memcpy"}, all.first(kChunk - 1)).ok());
}

TEST(Compressor, BytesComeBackAndDamageIsNoticed) {
  const std::vector<uint8_t> input = Input();
  const std::span<const uint8_t> chunk = std::span(input).first(kChunk);
  for (const CompressionOptions& options :
       {CompressionOptions{Codec::kLz4, 1}, CompressionOptions{Codec::kZstd, 3}}) {
    auto compressor = test::Must(Compressor::Create(options, kChunk));
    const std::span<const uint8_t> stored = compressor->Compress(chunk);
    std::vector<uint8_t> out(kChunk);
    EXPECT_TRUE(compressor->Decompress(stored, out));
    EXPECT_TRUE(std::equal(out.begin(), out.end(), chunk.begin()));
    EXPECT_FALSE(compressor->Decompress(stored.first(stored.size() / 2), out));
  }
}

}  // namespace
}  // namespace firn
