// ext2, ext3 and ext4 as mke2fs and debugfs make them, with what dumpe2fs and e2fsck say of them.

#include "used/ext4.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <regex>
#include <sstream>
#include <string>
#include <vector>

#include "used/used.h"
#include "used/used_test_util.h"

namespace firn {
namespace {

using namespace used_test;     // NOLINT: test support
using image_test::MustOpen;    // NOLINT
using image_test::TestFolder;  // NOLINT

#define FIRN_NEED_E2FSPROGS()                                                       \
  if (!HasProgram("mke2fs") || !HasProgram("debugfs") || !HasProgram("dumpe2fs")) { \
    GTEST_SKIP() << "mke2fs, debugfs or dumpe2fs (e2fsprogs) is not installed";     \
  }

// A folder of files of many sizes, all different, in `folder`/tree.
std::string MakeTree(const TestFolder& folder, uint64_t total) {
  const std::string tree = folder.MakeFolder("tree");
  test::Random random(3);
  uint64_t written = 0;
  for (int i = 0; written < total; ++i) {
    const std::string inner = tree + "/d" + std::to_string(i % 7);
    std::filesystem::create_directories(inner);
    const uint64_t size = random.Between(1, random.OneIn(4) ? 2 * kMiB : 60 * kKiB);
    const Bytes bytes = random.Bytes(size);
    std::ofstream file(inner + "/f" + std::to_string(i), std::ios::binary);
    file.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(size));
    written += size;
  }
  return tree;
}

bool MakeFileSystem(const std::string& image, uint64_t size, const std::string& options,
                    const std::string& tree) {
  std::filesystem::remove(image);
  std::ofstream(image).close();
  std::filesystem::resize_file(image, size);
  return Quietly(WithSystemPath("mke2fs -F -q " + options + " -d '" + tree + "' '" + image + "'"));
}

// The blocks that dumpe2fs lists as free, in bytes.
std::vector<ByteRange> FreeByDumpe2fs(const std::string& image) {
  const std::string text = Output(WithSystemPath("dumpe2fs '" + image + "'")).value_or("");
  std::smatch match;
  std::regex_search(text, match, std::regex("Block size: +([0-9]+)"));
  const uint64_t block = std::stoull(match.str(1));
  // It names a cluster by its first block.
  const bool has_clusters = std::regex_search(text, match, std::regex("Cluster size: +([0-9]+)"));
  const uint64_t cluster = has_clusters ? std::stoull(match.str(1)) : block;
  std::vector<ByteRange> free;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    const std::string name = "  Free blocks: ";
    if (line.rfind(name, 0) != 0) continue;
    std::istringstream items(line.substr(name.size()));
    for (std::string item; std::getline(items, item, ',');) {
      const size_t dash = item.find('-');
      if (item.find_first_of("0123456789") == std::string::npos) continue;
      const uint64_t first = std::stoull(item);
      const uint64_t last = dash == std::string::npos ? first : std::stoull(item.substr(dash + 1));
      if (!free.empty() && free.back().end == first * block) {
        free.back().end = last * block + cluster;
      } else {
        free.push_back({first * block, last * block + cluster});
      }
    }
  }
  return free;
}

std::vector<ByteRange> WholePages(const std::vector<ByteRange>& ranges) {
  SkipList list(uint64_t{1} << 40);
  for (const ByteRange& range : ranges) list.Add(range.begin, range.end);
  return list.Take();
}

uint64_t TotalOf(const std::vector<ByteRange>& ranges) {
  uint64_t total = 0;
  for (const ByteRange& range : ranges) total += range.length();
  return total;
}

// Names, sizes and digests of all files, read by debugfs.
std::string ContentByDebugfs(const TestFolder& folder, const std::string& image) {
  const std::string out = folder.MakeFolder("dump");
  EXPECT_TRUE(Quietly(WithSystemPath("debugfs -R 'rdump / " + out + "' '" + image + "'")));
  const std::string digests =
      Output("cd '" + out + "' && find . -type f | LC_ALL=C sort | xargs sha256sum").value_or("");
  std::filesystem::remove_all(out);
  return digests;
}

UsedMap FindIn(const std::string& image, const UsedOptions& options = {}) {
  const auto disk = MustOpen(image);
  return disk == nullptr ? UsedMap{} : Find(*disk, options);
}

struct Variant {
  const char* name;
  const char* options;
  const char* file_system;
  uint64_t size = 48 * kMiB;
};

class Ext4VariantTest : public ::testing::TestWithParam<Variant> {};

TEST_P(Ext4VariantTest, SkipsExactlyWhatIsFreeAndRestoresTheSameFiles) {
  FIRN_NEED_E2FSPROGS();
  TestFolder folder;
  const Variant& variant = GetParam();
  const std::string image = folder / "ext.raw";
  const std::string tree = MakeTree(folder, 8 * kMiB);
  if (!MakeFileSystem(image, variant.size, variant.options, tree)) {
    GTEST_SKIP() << "this mke2fs does not know " << variant.options;
  }
  const std::vector<ByteRange> free = FreeByDumpe2fs(image);
  const UsedMap map = FindIn(image);
  ExpectWellFormed(map);
  ASSERT_EQ(map.partitions.size(), 1u);
  EXPECT_EQ(map.partitions[0].reason, "");
  EXPECT_EQ(map.partitions[0].file_system, variant.file_system);
  EXPECT_GT(map.skipped_bytes, variant.size / 4);
  EXPECT_EQ(map.skipped, WholePages(free));
  // mke2fs may leave the last odd blocks unused.
  EXPECT_LE(variant.size - (map.partitions[0].used_bytes + TotalOf(free)), 4 * kKiB);

  const std::string restored = folder / "restored.raw";
  Restore(image, map, restored);
  EXPECT_TRUE(Quietly(WithSystemPath("e2fsck -fn '" + restored + "'")));
  const std::string content = ContentByDebugfs(folder, image);
  EXPECT_GT(content.size(), 1000u);
  EXPECT_EQ(ContentByDebugfs(folder, restored), content);
}

INSTANTIATE_TEST_SUITE_P(
    Kinds, Ext4VariantTest,
    ::testing::Values(
        Variant{"Ext4", "-t ext4", "ext4"}, Variant{"Ext2", "-t ext2", "ext2"},
        Variant{"Ext3", "-t ext3", "ext3"}, Variant{"Ext2Blocks1K", "-t ext2 -b 1024", "ext2"},
        Variant{"Ext4Blocks1K", "-t ext4 -b 1024", "ext4"},
        Variant{"Ext4Blocks2K", "-t ext4 -b 2048", "ext4"},
        Variant{"Ext4Wide", "-t ext4 -O 64bit", "ext4"},
        Variant{"Ext4Narrow", "-t ext4 -O ^64bit", "ext4"},
        Variant{"Ext4NarrowChecksums", "-t ext4 -O ^64bit,metadata_csum -b 1024", "ext4"},
        Variant{"Ext4OldChecksums", "-t ext4 -O ^metadata_csum,uninit_bg,^64bit -b 1024", "ext4"},
        Variant{"Ext4OldChecksumsWide", "-t ext4 -O ^metadata_csum,uninit_bg,64bit -b 1024",
                "ext4"},
        Variant{"Ext4NoChecksums", "-t ext4 -O ^metadata_csum,^uninit_bg -b 1024", "ext4"},
        Variant{"Ext4NoFlex", "-t ext4 -O ^flex_bg -b 1024", "ext4"},
        Variant{"Ext4Flex4", "-t ext4 -G 4 -b 1024", "ext4"},
        Variant{"Ext4SmallGroups", "-t ext4 -b 1024 -g 1024", "ext4"},
        Variant{"Ext4Meta", "-t ext4 -O meta_bg,^resize_inode -b 1024 -g 512", "ext4"},
        Variant{"Ext4MetaNarrow", "-t ext4 -O meta_bg,^resize_inode,^64bit -b 1024 -g 512", "ext4"},
        Variant{"Ext4Sparse2", "-t ext4 -O sparse_super2 -b 1024", "ext4"},
        Variant{"Ext4NoSparse", "-t ext4 -O ^sparse_super,^resize_inode -b 1024", "ext4"},
        Variant{"Ext4Bigalloc", "-t ext4 -b 4096 -O bigalloc -C 65536", "ext4"},
        Variant{"Ext4NoJournal", "-t ext4 -O ^has_journal", "ext4"},
        Variant{"Ext4Seed", "-t ext4 -O metadata_csum_seed", "ext4"},
        Variant{"Ext4ShortLastGroup", "-t ext4 -b 1024", "ext4", 43 * kMiB - 3 * kKiB}),
    [](const auto& test) { return std::string(test.param.name); });

TEST(Ext4Test, HalfOfTheDataDeletedCostsNoMoreThanWhatIsLeft) {
  FIRN_NEED_E2FSPROGS();
  TestFolder folder;
  const std::string image = folder / "ext.raw";
  const std::string tree = MakeTree(folder, 150 * kMiB);
  ASSERT_TRUE(MakeFileSystem(image, 256 * kMiB, "-t ext4 -J size=4", tree));
  const UsedMap before = FindIn(image);
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(tree)) {
    if (entry.is_regular_file()) files.push_back(entry.path());
  }
  // Folders are listed in no order, and how much half of the files is depends on which.
  std::ranges::sort(files);
  std::ofstream script(folder / "script");
  for (size_t i = 0; i < files.size(); i += 2) {
    script << "rm /" << std::filesystem::relative(files[i], tree).string() << "\n";
  }
  script.close();
  ASSERT_TRUE(Quietly(WithSystemPath("debugfs -w -f '" + folder / "script" + "' '" + image + "'")));
  ASSERT_TRUE(Quietly(WithSystemPath("e2fsck -fn '" + image + "'")));
  const UsedMap map = FindIn(image);
  EXPECT_EQ(map.partitions[0].reason, "");
  EXPECT_GT(map.skipped_bytes, before.skipped_bytes + 50 * kMiB);
  const uint64_t used = 256 * kMiB - TotalOf(FreeByDumpe2fs(image));
  EXPECT_EQ(map.partitions[0].used_bytes, used);
  EXPECT_LE(CopiedBytes(map), used + used / 20);
  EXPECT_LE(CopiedBytes(map) + map.read_bytes, used + used / 20);
}

TEST(Ext4Test, APartitionOffThePageGridIsSkippedByWholePagesOnly) {
  FIRN_NEED_E2FSPROGS();
  TestFolder folder;
  const std::string image = folder / "ext.raw";
  ASSERT_TRUE(MakeFileSystem(image, 32 * kMiB, "-t ext4", MakeTree(folder, 4 * kMiB)));
  const auto volume = MustOpen(image);
  SparseBytes disk;
  constexpr uint64_t kStart = 63 * 512;
  disk.Write(kStart, image_test::ReadAll(*volume));
  disk.Resize(40 * kMiB);
  WriteBootRecord(&disk, 0, {{0x83, 63, 32 * kMiB / 512}});
  const UsedMap map = Find(disk);
  ExpectWellFormed(map);
  std::vector<ByteRange> free = FreeByDumpe2fs(image);
  for (ByteRange& range : free) range = {range.begin + kStart, range.end + kStart};
  EXPECT_EQ(map.skipped, WholePages(free));
  EXPECT_GT(map.skipped_bytes, 8 * kMiB);
}

// One small image, and a way to change single fields of it.
class Ext4HostileTest : public ::testing::Test {
 protected:
  void SetUp() override {
    FIRN_NEED_E2FSPROGS();
    image_ = folder_ / "ext.raw";
    ASSERT_TRUE(MakeFileSystem(image_, 32 * kMiB, "-t ext3 -b 1024 -J size=1",
                               MakeTree(folder_, 4 * kMiB)));
    const auto disk = MustOpen(image_);
    bytes_.Write(0, image_test::ReadAll(*disk));
    ASSERT_GT(Find(bytes_).skipped_bytes, 8 * kMiB);
  }
  template <typename T>
  UsedMap With(uint64_t offset, T value) {
    const Bytes before = bytes_.Read(offset, sizeof value);
    Bytes bytes(sizeof value);
    StoreLe<T>(bytes.data(), value);
    bytes_.Write(offset, bytes);
    UsedMap map = Find(bytes_);
    bytes_.Write(offset, before);
    return map;
  }
  template <typename T>
  T At(uint64_t offset) const {
    return LoadLe<T>(bytes_.Read(offset, sizeof(T)).data());
  }
  static constexpr uint64_t kSuper = 1024;
  static constexpr uint64_t kDescriptors = 2048;

  TestFolder folder_;
  std::string image_;
  SparseBytes bytes_;
};

TEST_F(Ext4HostileTest, AFileSystemNotAtRestIsCopied) {
  const uint32_t incompat = At<uint32_t>(kSuper + 0x60);
  ExpectKept(With<uint32_t>(kSuper + 0x60, incompat | 0x4), "dirty");  // journal to be replayed
  ExpectKept(With<uint16_t>(kSuper + 0x3A, 0), "dirty");               // mounted without a journal
  ExpectKept(With<uint16_t>(kSuper + 0x3A, 3), "dirty");               // errors
  ExpectKept(With<uint16_t>(kSuper + 0x3A, 5), "dirty");               // orphans being cleaned up
  ExpectKept(With<uint32_t>(kSuper + 0x194, 1), "dirty");              // errors counted
}

TEST_F(Ext4HostileTest, AJournalThatSaysOtherwiseThanTheSuperblockKeepsTheVolume) {
  const std::string text =
      Output(WithSystemPath("debugfs -R 'bmap <8> 0' '" + image_ + "'")).value_or("0");
  const uint64_t journal = std::stoull(text) * 1024;
  ASSERT_GT(journal, 0u);
  ExpectKept(With<uint32_t>(journal + 0x1C, 0x01000000), "dirty");
  ExpectKept(With<uint32_t>(journal + 0x20, 0x01000000), "dirty");
  ExpectKept(With<uint32_t>(journal, 0), "inconsistent");
  ExpectKept(With<uint32_t>(kSuper + 0xE0, 0), "unknown-feature");  // on another device
}

TEST_F(Ext4HostileTest, UnknownFeaturesAreCopied) {
  for (const uint64_t field : {0x5Cu, 0x60u, 0x64u}) {
    const uint32_t features = At<uint32_t>(kSuper + field);
    ExpectKept(With<uint32_t>(kSuper + field, features | 0x40000000), "unknown-feature");
  }
  const uint32_t read_only = At<uint32_t>(kSuper + 0x64);
  ExpectKept(With<uint32_t>(kSuper + 0x64, read_only | 0x4000),
             "unknown-feature");                                                   // shared blocks
  ExpectKept(With<uint32_t>(kSuper + 0x64, read_only | 0x80), "unknown-feature");  // snapshots
  ExpectKept(With<uint32_t>(kSuper + 0x4C, 2), "unknown-feature");
}

TEST_F(Ext4HostileTest, ImpossibleGeometryIsCopied) {
  ExpectKept(With<uint32_t>(kSuper + 0x18, 7), "inconsistent");    // block size
  ExpectKept(With<uint32_t>(kSuper + 0x18, ~0u), "inconsistent");  // block size
  ExpectKept(With<uint32_t>(kSuper + 0x04, ~0u), "inconsistent");  // blocks
  ExpectKept(With<uint32_t>(kSuper + 0x04, 32 * 1024 + 1), "inconsistent");
  ExpectKept(With<uint32_t>(kSuper + 0x04, 0), "inconsistent");
  ExpectKept(With<uint32_t>(kSuper + 0x14, 0), "inconsistent");  // first data block
  ExpectKept(With<uint32_t>(kSuper + 0x20, 0), "inconsistent");  // blocks in a group
  ExpectKept(With<uint32_t>(kSuper + 0x20, 8), "inconsistent");
  ExpectKept(With<uint32_t>(kSuper + 0x20, ~0u), "inconsistent");
  ExpectKept(With<uint32_t>(kSuper + 0x28, 0), "inconsistent");  // inodes in a group
  ExpectKept(With<uint16_t>(kSuper + 0x58, 0), "inconsistent");  // inode size
  ExpectKept(With<uint16_t>(kSuper + 0x58, 0x8000), "inconsistent");
  ExpectKept(With<uint16_t>(kSuper + 0xCE, 0xFFFF), "inconsistent");  // reserved descriptors
  ExpectKept(With<uint16_t>(kSuper + 0x5A, 1), "inconsistent");       // a superblock's copy
}

TEST_F(Ext4HostileTest, AccountsThatDisagreeAreCopied) {
  const uint32_t free = At<uint32_t>(kSuper + 0x0C);
  ExpectKept(With<uint32_t>(kSuper + 0x0C, free + 1), "inconsistent");
  const uint16_t group_free = At<uint16_t>(kDescriptors + 0x0C);
  ExpectKept(With<uint16_t>(kDescriptors + 0x0C, static_cast<uint16_t>(group_free + 1)),
             "inconsistent");
  const uint64_t bitmap = uint64_t{At<uint32_t>(kDescriptors)} * 1024;
  ExpectKept(With<uint8_t>(bitmap + 300, static_cast<uint8_t>(~At<uint8_t>(bitmap + 300))),
             "inconsistent");
  // A bitmap that is all free, its counts made to match: the metadata still says no.
  SparseBytes lying = bytes_;
  lying.Write(bitmap, Bytes(1024));
  Bytes number(4);
  StoreLe<uint32_t>(number.data(), free + 8192 - group_free);
  lying.Write(kSuper + 0x0C, number);
  lying.Write(kDescriptors + 0x0C, Bytes{0x00, 0x20});
  ExpectKept(Find(lying), "inconsistent");
}

TEST_F(Ext4HostileTest, MetadataOutsideTheVolumeOrOnTopOfEachOtherIsCopied) {
  const uint32_t first = At<uint32_t>(kDescriptors);
  for (const uint64_t field : {0x0u, 0x4u, 0x8u}) {
    for (const uint32_t block : {0u, 32u * 1024 - 1, 32u * 1024, ~0u, first}) {
      if (At<uint32_t>(kDescriptors + field) == block) continue;
      ExpectKept(With<uint32_t>(kDescriptors + field, block), "inconsistent");
    }
  }
}

TEST_F(Ext4HostileTest, AVolumeCutShortIsCopied) {
  for (const uint64_t size : {32 * kMiB - 1024, 16 * kMiB, 3 * kMiB, 70 * kKiB, 65 * kKiB}) {
    SparseBytes cut = bytes_;
    cut.Resize(size);
    EXPECT_EQ(Find(cut).skipped_bytes, 0u) << size;
  }
}

TEST(Ext4Test, A64TiBFileSystemThatHasNothingBehindItsSuperblockIsCopiedSoon) {
  SparseBytes disk;
  Bytes super(1024);
  StoreLe<uint32_t>(&super[0x04], 0);
  StoreLe<uint32_t>(&super[0x150], 4);  // 2^34 blocks of 4 KiB
  StoreLe<uint32_t>(&super[0x18], 2);
  StoreLe<uint32_t>(&super[0x1C], 2);
  StoreLe<uint32_t>(&super[0x20], 32768);
  StoreLe<uint32_t>(&super[0x24], 32768);
  StoreLe<uint32_t>(&super[0x28], 1024);
  StoreLe<uint32_t>(&super[0x00], (1u << 19) * 1024);
  StoreLe<uint16_t>(&super[0x38], 0xEF53);
  StoreLe<uint16_t>(&super[0x3A], 1);
  StoreLe<uint32_t>(&super[0x4C], 1);
  StoreLe<uint16_t>(&super[0x58], 256);
  StoreLe<uint32_t>(&super[0x60], 0x280);
  StoreLe<uint16_t>(&super[0xFE], 64);
  disk.Write(1024, super);
  disk.Resize(64 * kTiB);
  const UsedMap map = Find(disk);
  ExpectKept(map, "inconsistent");
  EXPECT_LT(map.read_bytes, 64 * kMiB);
}

TEST(Ext4Test, ACancelledSearchStops) {
  SparseBytes disk;
  disk.Resize(kMiB);
  WriteSwap(&disk, 0, kMiB);
  const std::atomic<bool> cancelled = true;
  UsedOptions options;
  options.cancelled = &cancelled;
  EXPECT_EQ(FindUsed(MemoryDisk(disk), options).status().code(), Code::kAborted);
}

}  // namespace
}  // namespace firn
