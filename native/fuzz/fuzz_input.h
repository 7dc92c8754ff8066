// What a fuzzer's bytes mean to the targets that read images: up to four files, each a size and
// patches of bytes in a file of zeros.
//
// An image of some megabytes is thereby an input of some hundred bytes, and a mutation changes what
// is read instead of a payload that nobody looks at. Every input means something; Encode and Decode
// agree on what.
//
//   flags u8 | records
//   size record   0x80 + file u8 | units of 512 bytes u32 | more bytes u16
//   patch record  file u8 | place in units of 16 bytes u32 | length u16 | bytes
#ifndef FIRN_FUZZ_FUZZ_INPUT_H_
#define FIRN_FUZZ_FUZZ_INPUT_H_

#include <array>
#include <cstdint>
#include <optional>
#include <random>
#include <span>
#include <vector>

#include "core/bytes.h"
#include "fuzz/sparse_image.h"

namespace firn::fuzz {

inline constexpr size_t kFilesMax = 4;
inline constexpr uint64_t kImageBytesMax = 256 * kMiB;
inline constexpr uint64_t kPlaceUnit = 16;

// Flags. With kUnsealed checksums stay as they are in the input; otherwise the target computes them
// anew, as nothing else would get past the first of them.
inline constexpr uint8_t kUnsealed = 1;
inline constexpr uint8_t kOption1 = 2;
inline constexpr uint8_t kOption2 = 4;
inline constexpr uint8_t kOption3 = 8;

struct Patch {
  uint8_t file = 0;
  uint64_t offset = 0;  // a multiple of kPlaceUnit
  std::vector<uint8_t> bytes;
};

struct FuzzInput {
  uint8_t flags = 0;
  std::array<std::optional<uint64_t>, kFilesMax> sizes;
  std::vector<Patch> patches;

  static FuzzInput Decode(std::span<const uint8_t> bytes);
  std::vector<uint8_t> Encode() const;

  // The files; those that nothing is said of are empty.
  std::array<SparseImage, kFilesMax> Build() const;

  // Says what `image` holds. Of long runs without zeros, which are payload, only the ends are kept.
  void Add(uint8_t file, const SparseImage& image);
};

// Changes one thing, in a way that keeps the records apart: numbers to extremes, patches to other
// places, bytes by `mutate_bytes`, which changes up to `size` bytes in place and returns how many
// there are now, at most `max`.
using MutateBytes = size_t (*)(uint8_t* bytes, size_t size, size_t max);
void Mutate(FuzzInput* input, uint32_t seed, MutateBytes mutate_bytes);

}  // namespace firn::fuzz

#endif  // FIRN_FUZZ_FUZZ_INPUT_H_
