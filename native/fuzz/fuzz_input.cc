#include "fuzz/fuzz_input.h"

#include <algorithm>

namespace firn::fuzz {
namespace {

constexpr uint8_t kSizeTag = 0x80;
constexpr size_t kPatchMax = 0xFFFF;
constexpr size_t kZerosThatPart = 48;     // between two patches
constexpr size_t kPayloadRun = 8 * kKiB;  // longer ones without such zeros are payload
constexpr size_t kPayloadKept = 256;      // of each end

using Random = std::minstd_rand;

uint64_t Below(Random* random, uint64_t bound) {
  return (uint64_t{(*random)()} << 31 ^ (*random)()) % bound;
}

// What limits are made of.
uint64_t Extreme(Random* random) {
  static constexpr uint64_t kValues[] = {0,
                                         1,
                                         2,
                                         3,
                                         6,
                                         7,
                                         8,
                                         255,
                                         256,
                                         511,
                                         512,
                                         4095,
                                         4096,
                                         65535,
                                         65536,
                                         kMiB,
                                         2 * kMiB,
                                         kGiB,
                                         kTiB,
                                         64 * kTiB,
                                         0x7FFFFFFF,
                                         0x80000000,
                                         0xFFFFFFFF,
                                         uint64_t{1} << 32,
                                         (uint64_t{1} << 63) - 1,
                                         uint64_t{1} << 63,
                                         ~uint64_t{0}};
  const uint64_t value = kValues[Below(random, std::size(kValues))];
  switch (Below(random, 4)) {
    case 0:
      return value + 1;
    case 1:
      return value - 1;
    default:
      return value;
  }
}

// A number of 1 to 8 bytes, at a place where structures have such numbers.
void ChangeNumber(Random* random, std::vector<uint8_t>* bytes) {
  const size_t width = size_t{1} << Below(random, 4);
  if (bytes->size() < width) return;
  const size_t at = Below(random, bytes->size() / width) * width;
  uint64_t value = 0;
  std::memcpy(&value, &(*bytes)[at], width);
  switch (Below(random, 4)) {
    case 0:
      value ^= uint64_t{1} << Below(random, width * 8);
      break;
    case 1:
      value += Below(random, 17) - 8;
      break;
    default:
      value = Extreme(random);
  }
  // VHD and ext4's journal are big-endian.
  if (Below(random, 4) == 0) value = SwapBytes(value) >> (64 - 8 * width);
  std::memcpy(&(*bytes)[at], &value, width);
}

void MovePatch(Random* random, Patch* patch) {
  static constexpr uint64_t kSteps[] = {16, 512, 4096, 64 * kKiB, kMiB, 2 * kMiB};
  const uint64_t step = kSteps[Below(random, std::size(kSteps))];
  const bool back = Below(random, 2) == 0 && patch->offset >= step;
  patch->offset = back ? patch->offset - step : patch->offset + step;
}

void ChangeSize(Random* random, FuzzInput* input) {
  std::optional<uint64_t>& size = input->sizes[Below(random, kFilesMax)];
  const uint64_t old = size.value_or(0);
  switch (Below(random, 4)) {
    case 0:
      size = Below(random, kImageBytesMax);
      break;
    case 1:
      size = old > 512 ? old - 512 : 512;
      break;
    case 2:
      size = RoundUp(old + 1, kMiB);
      break;
    default:
      size = old + Below(random, 1024);
  }
}

// Bytes of one patch over those of another.
void Splice(Random* random, const Patch& from, Patch* to) {
  if (from.bytes.empty() || to->bytes.empty()) return;
  const size_t source = Below(random, from.bytes.size());
  const size_t target = Below(random, to->bytes.size());
  const size_t count =
      1 + Below(random, std::min(from.bytes.size() - source, to->bytes.size() - target));
  std::copy_n(from.bytes.begin() + static_cast<ptrdiff_t>(source), count,
              to->bytes.begin() + static_cast<ptrdiff_t>(target));
}

}  // namespace

FuzzInput FuzzInput::Decode(std::span<const uint8_t> bytes) {
  FuzzInput input;
  if (bytes.empty()) return input;
  input.flags = bytes[0];
  for (size_t at = 1; at + 7 <= bytes.size();) {
    const uint8_t tag = bytes[at];
    const auto file = static_cast<uint8_t>(tag % kFilesMax);
    const uint64_t number = LoadLe<uint32_t>(&bytes[at + 1]);
    const uint16_t rest = LoadLe<uint16_t>(&bytes[at + 5]);
    at += 7;
    if ((tag & kSizeTag) != 0) {
      input.sizes[file] = number * 512 + rest;
      continue;
    }
    const size_t count = std::min<size_t>(rest, bytes.size() - at);
    const auto begin = bytes.begin() + static_cast<ptrdiff_t>(at);
    input.patches.push_back(
        {file, number * kPlaceUnit, {begin, begin + static_cast<ptrdiff_t>(count)}});
    at += count;
  }
  return input;
}

std::vector<uint8_t> FuzzInput::Encode() const {
  std::vector<uint8_t> bytes = {flags};
  const auto record = [&](uint8_t tag, uint64_t number, size_t rest) {
    uint8_t header[7] = {tag};
    StoreLe(&header[1], static_cast<uint32_t>(number));
    StoreLe(&header[5], static_cast<uint16_t>(rest));
    bytes.insert(bytes.end(), header, header + sizeof header);
  };
  for (uint8_t file = 0; file < kFilesMax; ++file) {
    if (sizes[file]) {
      record(static_cast<uint8_t>(kSizeTag + file), *sizes[file] / 512, *sizes[file] % 512);
    }
  }
  for (const Patch& patch : patches) {
    const size_t count = std::min(patch.bytes.size(), kPatchMax);
    record(patch.file, patch.offset / kPlaceUnit, count);
    bytes.insert(bytes.end(), patch.bytes.begin(),
                 patch.bytes.begin() + static_cast<ptrdiff_t>(count));
  }
  return bytes;
}

std::array<SparseImage, kFilesMax> FuzzInput::Build() const {
  std::array<SparseImage, kFilesMax> images;
  for (const Patch& patch : patches) {
    if (patch.offset + patch.bytes.size() > kImageBytesMax) continue;
    images[patch.file].Write(patch.offset, patch.bytes);
  }
  for (size_t file = 0; file < kFilesMax; ++file) {
    if (sizes[file]) images[file].Resize(std::min(*sizes[file], kImageBytesMax));
  }
  return images;
}

void FuzzInput::Add(uint8_t file, const SparseImage& image) {
  sizes[file] = image.size();
  std::optional<uint64_t> begin;  // of the run
  uint64_t end = 0;               // behind its last byte that is not zero
  const auto finish = [&] {
    if (!begin) return;
    const auto keep = [&](uint64_t from, uint64_t to) {
      for (uint64_t at = RoundDown(from, kPlaceUnit); at < to; at += kPatchMax / 16 * 16) {
        const uint64_t count = std::min<uint64_t>(to - at, kPatchMax / 16 * 16);
        patches.push_back({file, at, image.Read(at, count)});
      }
    };
    if (end - *begin <= kPayloadRun) {
      keep(*begin, end);
    } else {
      keep(*begin, *begin + kPayloadKept);
      keep(end - kPayloadKept, end);
    }
    begin.reset();
  };
  uint64_t at = 0;
  while (const auto page = image.NextPage(at)) {
    const std::vector<uint8_t> bytes = image.Read(page->first, page->second - page->first);
    for (size_t i = 0; i < bytes.size(); ++i) {
      if (bytes[i] == 0) continue;
      const uint64_t here = page->first + i;
      if (begin && here - end >= kZerosThatPart) finish();
      if (!begin) begin = here;
      end = here + 1;
    }
    at = page->second;
  }
  finish();
}

void Mutate(FuzzInput* input, uint32_t seed, MutateBytes mutate_bytes) {
  Random random(seed);
  for (uint64_t times = 1 + Below(&random, 3); times > 0; --times) {
    if (input->patches.empty()) input->patches.push_back({0, 0, {0}});
    Patch& patch = input->patches[Below(&random, input->patches.size())];
    switch (Below(&random, 16)) {
      case 0:
        MovePatch(&random, &patch);
        break;
      case 1:
        ChangeSize(&random, input);
        break;
      case 2:
        input->flags = static_cast<uint8_t>(input->flags ^ 1 << Below(&random, 4));
        break;
      case 3: {
        Patch copy = patch;
        MovePatch(&random, &copy);
        input->patches.push_back(std::move(copy));
        break;
      }
      case 4:
        Splice(&random, input->patches[Below(&random, input->patches.size())], &patch);
        break;
      case 5: {
        // A byte where there was none.
        Patch fresh{patch.file, patch.offset, {static_cast<uint8_t>(random())}};
        fresh.offset += Below(&random, 256) * kPlaceUnit;
        input->patches.push_back(std::move(fresh));
        break;
      }
      case 6:
      case 7:
      case 8: {
        const size_t size = patch.bytes.size();
        const size_t max = std::min(size + 32, kPatchMax);
        patch.bytes.resize(max);
        patch.bytes.resize(mutate_bytes(patch.bytes.data(), std::min(size, max), max));
        break;
      }
      default:
        ChangeNumber(&random, &patch.bytes);
    }
  }
}

}  // namespace firn::fuzz
