// Replays inputs through the fuzz targets in every test run, under any compiler: what fuzzing once
// found (findings/TARGET), seeds that few machines can make (seeds/TARGET), and short random ones.
//
// Under a sanitizer this is where a finding that comes back is seen; in any build a broken promise
// ends the test.

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "core/core_test_util.h"
#include "fuzz/fuzz_input.h"
#include "fuzz/fuzz_target.h"

namespace firn::fuzz {
namespace {

using Bytes = std::vector<uint8_t>;

std::vector<Bytes> Committed(const std::string& kind, std::string_view target) {
  const auto folder = std::filesystem::absolute(__FILE__).parent_path() / kind / target;
  std::vector<Bytes> inputs;
  if (!std::filesystem::exists(folder)) return inputs;
  std::vector<std::filesystem::path> paths;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    paths.push_back(entry.path());
  }
  // Folders are listed in no order, and what is made of an input depends on those before it.
  std::ranges::sort(paths);
  for (const std::filesystem::path& path : paths) {
    std::ifstream file(path, std::ios::binary);
    inputs.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
  }
  return inputs;
}

class FuzzTargetTest : public ::testing::TestWithParam<Target> {};

TEST_P(FuzzTargetTest, WhatWasOnceFoundStaysFixed) {
  for (const Bytes& input : Committed("findings", GetParam().name)) GetParam().run(input);
}

TEST_P(FuzzTargetTest, EveryInputMeansSomething) {
  test::Random random(static_cast<uint64_t>(GetParam().name.size()));
  std::vector<Bytes> inputs = Committed("seeds", GetParam().name);
  inputs.push_back({});
  inputs.push_back({0});
  for (int i = 0; i < 50; ++i) inputs.push_back(random.Bytes(random.Between(1, 3000)));
  for (const Bytes& input : inputs) {
    GetParam().run(input);
    if (!GetParam().images) continue;
    // And so does what the mutator makes of it.
    FuzzInput changed = FuzzInput::Decode(input);
    for (int i = 0; i < 20; ++i) {
      Mutate(&changed, static_cast<uint32_t>(random.Next()),
             [](uint8_t*, size_t size, size_t) { return size; });
      GetParam().run(changed.Encode());
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Targets, FuzzTargetTest, ::testing::ValuesIn(kTargets),
                         [](const auto& target) { return std::string(target.param.name); });

TEST(FuzzInputTest, EncodesWhatItDecodes) {
  FuzzInput input;
  input.flags = kOption2;
  input.sizes[1] = 5 * kMiB + 3;
  input.patches = {{1, 64 * kKiB, {1, 2, 3}}, {0, 16, {9}}};
  const FuzzInput again = FuzzInput::Decode(input.Encode());
  EXPECT_EQ(again.flags, kOption2);
  EXPECT_EQ(again.sizes, input.sizes);
  ASSERT_EQ(again.patches.size(), 2u);
  EXPECT_EQ(again.patches[0].file, 1);
  EXPECT_EQ(again.patches[0].offset, 64 * kKiB);
  EXPECT_EQ(again.patches[0].bytes, Bytes({1, 2, 3}));
  const std::array<SparseImage, kFilesMax> images = again.Build();
  EXPECT_EQ(images[1].size(), 5 * kMiB + 3);
  EXPECT_EQ(images[1].Read(64 * kKiB, 4), Bytes({1, 2, 3, 0}));
  EXPECT_EQ(images[0].Read(16, 1), Bytes({9}));
}

TEST(FuzzInputTest, KeepsOfAnImageAllButItsPayload) {
  SparseImage image;
  const Bytes structure = {7, 0, 8};
  image.Write(4096 * 5 + 32, structure);
  image.Write(kMiB, Bytes(64 * kKiB, 0xAB));
  image.Resize(3 * kMiB + 512);
  FuzzInput input;
  input.Add(0, image);
  const SparseImage again = std::move(input.Build()[0]);
  EXPECT_EQ(again.size(), image.size());
  EXPECT_EQ(again.Read(4096 * 5 + 32, 3), structure);
  EXPECT_EQ(again.Read(kMiB, 16), Bytes(16, 0xAB));
  EXPECT_EQ(again.Read(kMiB + 32 * kKiB, 16), Bytes(16));
  EXPECT_LT(input.Encode().size(), 1000u);
}

}  // namespace
}  // namespace firn::fuzz
