// Damaged file systems, by fixed seeds: nothing crashes or reads outside the disk, and nothing is
// skipped that the whole file system's own tool calls in use.

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <string>
#include <vector>

#include "used/ntfs_test_util.h"
#include "used/used.h"
#include "used/used_test_util.h"

namespace firn {
namespace {

using namespace used_test;     // NOLINT: test support
using image_test::MustOpen;    // NOLINT
using image_test::TestFolder;  // NOLINT

constexpr uint64_t kSize = 16 * kMiB;

// A file system in memory and what is free in it, by the word of another program.
struct Target {
  SparseBytes bytes;
  std::vector<ByteRange> free;
  std::vector<ByteRange> metadata;  // where damage is worth doing
};

bool IsFree(const Target& target, const ByteRange& range) {
  return std::ranges::any_of(target.free, [&](const ByteRange& free) {
    return free.begin <= range.begin && range.end <= free.end;
  });
}

// Damages a few places, looks, and puts them back.
void Damage(Target* target, test::Random* random, int round, uint32_t* refused) {
  SparseBytes& bytes = target->bytes;
  std::vector<std::pair<uint64_t, Bytes>> before;
  for (uint64_t i = random->Between(1, random->OneIn(3) ? 8 : 1); i > 0; --i) {
    const ByteRange& area = target->metadata[random->Below(target->metadata.size())];
    const uint64_t place = random->Between(area.begin, area.end - 8);
    before.emplace_back(place, bytes.Read(place, 8));
    Bytes changed = before.back().second;
    switch (random->Below(4)) {
      case 0:
      case 1:
        changed[0] = static_cast<uint8_t>(changed[0] ^ (1 << random->Below(8)));
        break;
      case 2:
        changed[0] = static_cast<uint8_t>(random->Next());
        break;
      default: {
        constexpr uint64_t kExtremes[] = {0, 1, 0x7FFFFFFF, 0xFFFFFFFF, ~uint64_t{0}, 1ull << 63};
        StoreLe<uint64_t>(changed.data(), kExtremes[random->Below(std::size(kExtremes))]);
      }
    }
    bytes.Write(place, changed);
  }
  const UsedMap map = Find(bytes, {.quiesced = random->OneIn(2), .skip_page_files = true});
  ExpectWellFormed(map);
  *refused += map.skipped.empty() ? 1 : 0;
  for (const ByteRange& range : map.skipped) {
    EXPECT_TRUE(IsFree(*target, range)) << "round " << round << " skips [" << range.begin << ", "
                                        << range.end << "), which is in use";
  }
  std::ranges::reverse(before);
  for (const auto& [place, old] : before) bytes.Write(place, old);
}

void DamageOften(Target* target, uint64_t seed, int rounds) {
  if (test::RunningUnderSanitizer()) rounds /= 10;
  ASSERT_GT(Find(target->bytes).skipped_bytes, kMiB);
  test::Random random(seed);
  uint32_t refused = 0;
  for (int round = 0; round < rounds && !::testing::Test::HasFailure(); ++round) {
    Damage(target, &random, round, &refused);
  }
  // Enough of it has to be noticed, and not all of it, or the test tries nothing.
  EXPECT_GT(refused, static_cast<uint32_t>(rounds) / 20);
  EXPECT_LT(refused, static_cast<uint32_t>(rounds));
  for (int i = 0; i < 60; ++i) {
    SparseBytes cut = target->bytes;
    cut.Resize(random.OneIn(3) ? random.Below(256 * kKiB) : random.Below(kSize));
    const UsedMap map = Find(cut);
    ExpectWellFormed(map);
    // A volume without its end is not one.
    EXPECT_TRUE(map.skipped.empty() || cut.size() >= kSize - 64 * kKiB) << cut.size();
  }
}

// `free` of a file system of which what is skipped whole is known to be right by other tests, and
// which dumpe2fs is asked about here.
Target MakeExt4(const TestFolder& folder, const std::string& options) {
  Target target;
  const std::string image = folder / "ext.raw";
  const std::string tree = folder.MakeFolder("tree");
  test::Random random(5);
  for (int i = 0; i < 40; ++i) {
    const Bytes content = random.Bytes(random.Between(1, 200000));
    std::ofstream file(tree + "/f" + std::to_string(i), std::ios::binary);
    file.write(reinterpret_cast<const char*>(content.data()),
               static_cast<std::streamsize>(content.size()));
  }
  std::ofstream(image).close();
  std::filesystem::resize_file(image, kSize);
  // Checksums of 16 bits are made of the UUID as well, and now and then one fits what is damaged:
  // with a UUID by chance there would be no fixed seed.
  EXPECT_TRUE(
      Quietly(WithSystemPath("mke2fs -F -q -b 1024 -U 6669726e-0000-4000-8000-000000000001 " +
                             options + " -d '" + tree + "' '" + image + "'")));
  target.bytes.Write(0, image_test::ReadAll(*MustOpen(image)));
  // testb answers for each block, one line each.
  std::ofstream script(folder / "script");
  for (uint64_t block = 1; block < kSize / 1024; ++block) script << "testb " << block << "\n";
  script.close();
  const std::string answers =
      Output(WithSystemPath("debugfs -f '" + folder / "script" + "' '" + image + "'")).value_or("");
  uint64_t at = 0;
  for (uint64_t block = 1; block < kSize / 1024; ++block) {
    const std::string free = "Block " + std::to_string(block) + " not in use";
    at = answers.find("Block " + std::to_string(block) + " ", at);
    if (at == std::string::npos) break;
    if (answers.compare(at, free.size(), free) != 0) continue;
    if (!target.free.empty() && target.free.back().end == block * 1024) {
      target.free.back().end += 1024;
    } else {
      target.free.push_back({block * 1024, (block + 1) * 1024});
    }
  }
  // Superblock and descriptors; the bitmaps; the journal's inode.
  target.metadata = {{1024, 2048}, {1024, 2048}, {2048, 2048 + 256}, {2048, 2048 + 256}};
  for (int group = 0; group < 2; ++group) {
    const uint64_t step = options.find("64bit") != std::string::npos ? 64 : 32;
    const Bytes descriptor = target.bytes.Read(2048 + static_cast<uint64_t>(group) * step, 12);
    const uint64_t bitmap = uint64_t{LoadLe<uint32_t>(&descriptor[0])} * 1024;
    const uint64_t table = uint64_t{LoadLe<uint32_t>(&descriptor[8])} * 1024;
    target.metadata.push_back({bitmap, bitmap + 1024});
    target.metadata.push_back({table, table + 2560});
  }
  return target;
}

class Ext4FuzzTest : public ::testing::TestWithParam<const char*> {};

TEST_P(Ext4FuzzTest, DamageNeverMakesBlocksInUseDisappear) {
  if (!HasProgram("mke2fs") || !HasProgram("debugfs")) {
    GTEST_SKIP() << "mke2fs and debugfs (e2fsprogs) are not installed";
  }
  TestFolder folder;
  Target target = MakeExt4(folder, GetParam());
  ASSERT_FALSE(target.free.empty());
  DamageOften(&target, 21, 2000);
}

INSTANTIATE_TEST_SUITE_P(Kinds, Ext4FuzzTest,
                         ::testing::Values("-t ext2 -O ^sparse_super,^resize_inode -g 1024",
                                           "-t ext3 -J size=1",
                                           "-t ext4 -J size=1 -O ^metadata_csum,uninit_bg,^64bit",
                                           "-t ext4 -J size=1 -O metadata_csum,64bit -g 2048"));

TEST(NtfsFuzzTest, DamageNeverMakesClustersInUseDisappear) {
  FIRN_NEED_NTFS_3G();
  TestFolder folder;
  const std::string image = folder / "ntfs.raw";
  ASSERT_TRUE(MakeNtfs(image, kSize));
  ASSERT_TRUE(InNtfs(folder, image,
                     "mkdir many; for i in $(seq 120); do echo $i > many/a_long_enough_name_$i; "
                     "done; for i in $(seq 30); do head -c $((i * 7919)) /dev/urandom > f$i; done; "
                     "rm f*3; head -c 900000 /dev/urandom > pagefile.sys; "
                     "head -c 500000 /dev/zero > hiberfil.sys; head -c 700000 /dev/urandom > z"));
  Target target;
  target.bytes.Write(0, image_test::ReadAll(*MustOpen(image)));
  const uint64_t clusters = (kSize - 512) / 4096;
  target.free = FreeByNtfscat(image, 4096, clusters);
  // What page files hold counts as free too; skip_page_files = false shows where they are.
  const UsedMap whole = Find(target.bytes);
  UsedOptions options;
  options.skip_page_files = false;
  EXPECT_EQ(whole.partitions[0].page_file_bytes, RoundUp(900000, 4096) + RoundUp(500000, 4096));
  const UsedMap with_page_files = Find(target.bytes, options);
  EXPECT_EQ(with_page_files.skipped, target.free);
  EXPECT_EQ(whole.skipped_bytes - with_page_files.skipped_bytes,
            whole.partitions[0].page_file_bytes);
  target.free = whole.skipped;
  const uint64_t mft = LoadLe<uint64_t>(target.bytes.Read(0x30, 8).data()) * 4096;
  target.metadata = {
      {0, 96}, {mft, mft + 16 * 1024}, {mft + 24 * 1024, mft + 250 * 1024}, {mft, mft + 7 * 1024}};
  // $Bitmap: where its bytes are found.
  const std::string bits = Output(WithSystemPath("ntfscat -i 6 '" + image + "'")).value_or("");
  for (uint64_t at = 0; at + 4096 <= kSize; at += 4096) {
    const Bytes page = target.bytes.Read(at, 512);
    if (std::equal(page.begin(), page.end(), bits.begin(),
                   [](uint8_t a, char b) { return a == static_cast<uint8_t>(b); })) {
      target.metadata.push_back({at, at + clusters / 8});
    }
  }
  ASSERT_GT(target.metadata.size(), 4u);
  DamageOften(&target, 22, 2500);
}

TEST(PartitionFuzzTest, DamagedTablesNeverMakeAnythingOutsideAVolumeDisappear) {
  test::Random random(23);
  for (int round = 0; round < 4000; ++round) {
    SparseBytes disk;
    disk.Resize(64 * kMiB);
    if (random.OneIn(2)) {
      WriteGpt(&disk, {{kSwapType, 8192, 16383}, {kLinuxType, 16384, 65535}});
    } else {
      WriteBootRecord(&disk, 0, {{0x82, 8192, 8192}, {0x05, 20480, 40960}});
      WriteBootRecord(&disk, 20480, {{0x82, 2048, 8192}, {0x05, 16384, 16384}});
      WriteBootRecord(&disk, 36864, {{0x82, 2048, 8192}});
      WriteSwap(&disk, 22528 * 512, 4 * kMiB);
      WriteSwap(&disk, 38912 * 512, 4 * kMiB);
    }
    WriteSwap(&disk, 4 * kMiB, 4 * kMiB);
    constexpr ByteRange kSwaps[] = {
        {4 * kMiB, 8 * kMiB}, {22528 * 512, 30720 * 512}, {38912 * 512, 47104 * 512}};
    constexpr uint64_t kPlaces[] = {446,
                                    512,
                                    1024,
                                    20480 * 512 + 446,
                                    64 * kMiB - 512,
                                    64 * kMiB - 16896,
                                    36864 * 512 + 446,
                                    4 * kMiB + 1024};
    for (uint64_t i = random.Between(1, 4); i > 0; --i) {
      const uint64_t place = kPlaces[random.Below(std::size(kPlaces))] + random.Below(64);
      Bytes byte = disk.Read(place, 1);
      byte[0] = static_cast<uint8_t>(byte[0] ^ (1 << random.Below(8)));
      disk.Write(place, byte);
    }
    const UsedMap map = Find(disk);
    ExpectWellFormed(map);
    for (const ByteRange& range : map.skipped) {
      EXPECT_TRUE(std::ranges::any_of(kSwaps, [&](const ByteRange& swap) {
        return swap.begin + 64 * kKiB <= range.begin && range.end <= swap.end;
      })) << round;
    }
  }
}

}  // namespace
}  // namespace firn
