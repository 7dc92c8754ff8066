// NTFS as mkntfs and ntfs-3g make it. (No volume written by Windows is at hand; what only Windows
// writes, such as a log in use, is made by hand here.)

#include "used/ntfs.h"

#include <gtest/gtest.h>

#include <filesystem>
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

UsedMap FindIn(const std::string& image, const UsedOptions& options = {}) {
  const auto disk = MustOpen(image);
  return disk == nullptr ? UsedMap{} : Find(*disk, options);
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

class NtfsClusterTest : public ::testing::TestWithParam<uint32_t> {};

TEST_P(NtfsClusterTest, SkipsExactlyWhatIsFreeAndRestoresTheSameFiles) {
  FIRN_NEED_NTFS_3G();
  TestFolder folder;
  const std::string image = folder / "ntfs.raw";
  constexpr uint64_t kSize = 64 * kMiB;
  const uint64_t cluster = GetParam();
  ASSERT_TRUE(MakeNtfs(image, kSize, "-c " + std::to_string(cluster)));
  ASSERT_TRUE(InNtfs(folder, image, FillCommands(16, cluster)));
  const uint64_t clusters = (kSize - 512) / cluster;
  const std::vector<ByteRange> free = FreeByNtfscat(image, cluster, clusters);
  const UsedMap map = FindIn(image);
  ExpectWellFormed(map);
  ASSERT_EQ(map.partitions.size(), 1u);
  EXPECT_EQ(map.partitions[0].reason, "");
  EXPECT_EQ(map.partitions[0].file_system, "ntfs");
  EXPECT_EQ(map.skipped, WholePages(free));
  EXPECT_GT(map.skipped_bytes, 20 * kMiB);
  EXPECT_EQ(map.partitions[0].used_bytes + TotalOf(free), clusters * cluster);

  const std::string restored = folder / "restored.raw";
  Restore(image, map, restored);
  const std::string content = ContentByNtfs3g(folder, image);
  EXPECT_GT(content.size(), 50000u);
  EXPECT_EQ(ContentByNtfs3g(folder, restored), content);
  EXPECT_TRUE(Quietly(WithSystemPath("ntfsfix -n '" + restored + "'")));
  EXPECT_EQ(Output(WithSystemPath("ntfscluster -i '" + restored + "'")),
            Output(WithSystemPath("ntfscluster -i '" + image + "'")));
}

INSTANTIATE_TEST_SUITE_P(Sizes, NtfsClusterTest, ::testing::Values(512u, 1024u, 4096u, 65536u));

TEST(NtfsTest, HalfOfTheDataDeletedCostsNoMoreThanWhatIsLeft) {
  FIRN_NEED_NTFS_3G();
  TestFolder folder;
  const std::string image = folder / "ntfs.raw";
  constexpr uint64_t kSize = 256 * kMiB;
  ASSERT_TRUE(MakeNtfs(image, kSize));
  ASSERT_TRUE(
      InNtfs(folder, image, "for i in $(seq 300); do head -c 600000 /dev/urandom > f$i; done"));
  const UsedMap before = FindIn(image);
  ASSERT_TRUE(InNtfs(folder, image, "rm f*[02468]"));
  const UsedMap map = FindIn(image);
  EXPECT_EQ(map.partitions[0].reason, "");
  EXPECT_GT(map.skipped_bytes, before.skipped_bytes + 80 * kMiB);
  const uint64_t used = kSize - TotalOf(FreeByNtfscat(image, 4096, (kSize - 512) / 4096));
  EXPECT_LE(CopiedBytes(map), used + used / 20);
  EXPECT_LE(CopiedBytes(map) + map.read_bytes, used + used / 20);
}

TEST(NtfsTest, AVolumeOfManySmallFilesWithAFragmentedTableIsUnderstood) {
  FIRN_NEED_NTFS_3G();
  TestFolder folder;
  const std::string image = folder / "ntfs.raw";
  ASSERT_TRUE(MakeNtfs(image, 24 * kMiB, "-c 512 -z 1"));
  // Free space in single clusters makes the $MFT grow in many pieces.
  ASSERT_TRUE(InNtfs(folder, image,
                     "head -c 18000000 /dev/zero > big; sync; "
                     "for i in $(seq 400); do echo $i > s$i; head -c 900 /dev/zero > p$i; done; "
                     "rm big; for i in $(seq 1 2 400); do rm p$i; done; "
                     "for i in $(seq 3000); do echo $i > n$i; done"));
  const UsedMap map = FindIn(image);
  ExpectWellFormed(map);
  EXPECT_EQ(map.partitions[0].reason, "");
  EXPECT_EQ(map.skipped, WholePages(FreeByNtfscat(image, 512, (24 * kMiB - 512) / 512)));
}

// --- Page and hibernation files ---

class NtfsPageFileTest : public ::testing::Test {
 protected:
  void SetUp() override {
    FIRN_NEED_NTFS_3G();
    image_ = folder_ / "ntfs.raw";
    ASSERT_TRUE(MakeNtfs(image_, 48 * kMiB));
  }
  UsedMap After(const std::string& commands, const UsedOptions& options = {}) {
    EXPECT_TRUE(InNtfs(folder_, image_, commands));
    return FindIn(image_, options);
  }
  TestFolder folder_;
  std::string image_;
};

TEST_F(NtfsPageFileTest, PageFilesInTheRootAreLeftOutAndNothingElse) {
  const UsedMap map = After(
      "head -c 6000000 /dev/urandom > pagefile.sys; head -c 1000000 /dev/urandom > swapfile.sys; "
      "mkdir d; head -c 2000000 /dev/urandom > d/pagefile.sys; head -c 2000000 /dev/urandom > x");
  ExpectWellFormed(map);
  EXPECT_EQ(map.partitions[0].reason, "");
  EXPECT_EQ(map.partitions[0].page_file_bytes, RoundUp(6000000, 4096) + RoundUp(1000000, 4096));
  const std::string restored = folder_ / "restored.raw";
  Restore(image_, map, restored);
  EXPECT_EQ(Output(WithSystemPath("ntfscat '" + restored + "' pagefile.sys")),
            std::string(6000000, '\0'));
  for (const std::string name : {"d/pagefile.sys", "x"}) {
    const auto content = Output(WithSystemPath("ntfscat '" + image_ + "' " + name));
    ASSERT_TRUE(content.has_value());
    EXPECT_EQ(content->size(), 2000000u);
    EXPECT_TRUE(Output(WithSystemPath("ntfscat '" + restored + "' " + name)) == content);
  }
  UsedOptions options;
  options.skip_page_files = false;
  const UsedMap with = FindIn(image_, options);
  EXPECT_EQ(with.partitions[0].page_file_bytes, 0u);
  EXPECT_GE(map.skipped_bytes, with.skipped_bytes + 6 * kMiB);
}

TEST_F(NtfsPageFileTest, APageFileThatIsMoreThanThatIsAnOrdinaryFile) {
  // A second name, holes, and a directory.
  EXPECT_EQ(After("head -c 3000000 /dev/urandom > pagefile.sys; ln pagefile.sys other")
                .partitions[0]
                .page_file_bytes,
            0u);
  EXPECT_EQ(After("rm other pagefile.sys; truncate -s 9M swapfile.sys; printf x >> swapfile.sys")
                .partitions[0]
                .page_file_bytes,
            0u);
  EXPECT_EQ(After("mkdir pagefile.sys").partitions[0].page_file_bytes, 0u);
}

TEST_F(NtfsPageFileTest, AHibernatedMachineKeepsTheVolume) {
  // ntfs-3g does not touch a hibernated volume again, so each is a new one. What the last four say
  // nobody knows.
  for (const std::string commands :
       {"(printf hibr; head -c 5000000 /dev/urandom) > hiberfil.sys",
        "(printf HIBR; head -c 5000000 /dev/urandom) > HiberFil.sys",
        "(printf RSTR; head -c 5000000 /dev/urandom) > hiberfil.sys", "echo hibr > hiberfil.sys",
        "truncate -s 5M hiberfil.sys; printf x >> hiberfil.sys",
        "head -c 5000000 /dev/zero > hiberfil.sys; ln hiberfil.sys other"}) {
    ASSERT_TRUE(MakeNtfs(image_, 48 * kMiB));
    ExpectKept(After(commands), "hibernated");
    UsedOptions options;
    options.quiesced = true;
    options.skip_page_files = false;
    ExpectKept(FindIn(image_, options), "hibernated");
  }
}

TEST_F(NtfsPageFileTest, AnInactiveHibernationFileIsLeftOut) {
  const UsedMap zero = After("head -c 5000000 /dev/zero > hiberfil.sys");
  EXPECT_EQ(zero.partitions[0].page_file_bytes, RoundUp(5000000, 4096));
  const UsedMap wake = After("(printf wake; head -c 4999996 /dev/urandom) > hiberfil.sys");
  EXPECT_EQ(wake.partitions[0].page_file_bytes, RoundUp(5000000, 4096));
  EXPECT_EQ(After("rm hiberfil.sys; : > hiberfil.sys").partitions[0].reason, "");
}

// --- State, and lies ---

class NtfsHostileTest : public ::testing::Test {
 protected:
  static constexpr uint64_t kSize = 24 * kMiB;
  void SetUp() override {
    FIRN_NEED_NTFS_3G();
    const std::string image = folder_ / "ntfs.raw";
    ASSERT_TRUE(MakeNtfs(image, kSize));
    ASSERT_TRUE(InNtfs(folder_, image, "head -c 5000000 /dev/urandom > a; echo hello > b"));
    bytes_.Write(0, image_test::ReadAll(*MustOpen(image)));
    mft_ = LoadLe<uint64_t>(bytes_.Read(0x30, 8).data()) * 4096;
    ASSERT_GT(Find(bytes_).skipped_bytes, 8 * kMiB);
  }
  template <typename T>
  static void Put(SparseBytes* disk, uint64_t offset, T value) {
    Bytes bytes(sizeof value);
    StoreLe<T>(bytes.data(), value);
    disk->Write(offset, bytes);
  }
  template <typename T>
  UsedMap With(uint64_t offset, T value) {
    // Changed and put back, as copying the disk takes longer than the search.
    const Bytes before = bytes_.Read(offset, sizeof value);
    Put<T>(&bytes_, offset, value);
    UsedMap map = Find(bytes_);
    bytes_.Write(offset, before);
    return map;
  }
  uint64_t Record(uint64_t number) const { return mft_ + number * 1024; }
  // The first attribute of a type in a record, as an offset in the volume.
  uint64_t Attribute(uint64_t number, uint32_t type) const {
    const Bytes record = bytes_.Read(Record(number), 1024);
    uint64_t at = LoadLe<uint16_t>(&record[0x14]);
    while (LoadLe<uint32_t>(&record[at]) != type) {
      if (LoadLe<uint32_t>(&record[at]) == ~0u) return 0;
      at += LoadLe<uint32_t>(&record[at + 4]);
    }
    return Record(number) + at;
  }
  // The first run of a record's data, by bytes.
  uint64_t DataAt(uint64_t number) const {
    const uint64_t attribute = Attribute(number, 0x80);
    const uint64_t runs = attribute + LoadLe<uint16_t>(bytes_.Read(attribute + 0x20, 2).data());
    const Bytes run = bytes_.Read(runs, 16);
    uint64_t lcn = 0;
    for (int i = run[0] >> 4; i > 0; --i) {
      lcn = lcn << 8 | run[static_cast<size_t>((run[0] & 0xF) + i)];
    }
    return lcn * 4096;
  }
  uint64_t VolumeFlags() const { return Attribute(3, 0x70) + 0x18 + 0x0A; }

  // A log as Windows has it: two restart pages.
  SparseBytes WithLog(uint64_t first_lsn, uint16_t first_clients, uint16_t first_flags,
                      uint64_t second_lsn, uint16_t second_clients, uint16_t second_flags) const {
    SparseBytes disk = bytes_;
    const auto page = [](uint64_t lsn, uint16_t clients, uint16_t flags) {
      Bytes bytes(4096);
      std::memcpy(bytes.data(), "RSTR", 4);
      StoreLe<uint16_t>(&bytes[4], 0x1E);
      StoreLe<uint16_t>(&bytes[6], 9);
      StoreLe<uint32_t>(&bytes[0x10], 4096);
      StoreLe<uint32_t>(&bytes[0x14], 4096);
      StoreLe<uint16_t>(&bytes[0x18], 0x30);
      StoreLe<uint16_t>(&bytes[0x1C], 1);
      StoreLe<uint64_t>(&bytes[0x30], lsn);
      StoreLe<uint16_t>(&bytes[0x38], 1);
      StoreLe<uint16_t>(&bytes[0x3A], 0xFFFF);
      StoreLe<uint16_t>(&bytes[0x3C], clients);
      StoreLe<uint16_t>(&bytes[0x3E], flags);
      for (size_t i = 0; i <= 8; ++i)
        StoreLe<uint16_t>(&bytes[0x1E + 2 * i], static_cast<uint16_t>(i == 0 ? 7 : 0));
      for (size_t i = 1; i <= 8; ++i) StoreLe<uint16_t>(&bytes[i * 512 - 2], 7);
      return bytes;
    };
    disk.Write(DataAt(2), page(first_lsn, first_clients, first_flags));
    disk.Write(DataAt(2) + 4096, page(second_lsn, second_clients, second_flags));
    return disk;
  }

  TestFolder folder_;
  SparseBytes bytes_;
  uint64_t mft_ = 0;
};

TEST_F(NtfsHostileTest, ADirtyVolumeOrOneWithWorkPendingIsCopied) {
  for (const int flags : {0x1, 0x2, 0x4, 0x8, 0x10, 0x20, 0x40, 0x4000, 0x8000, 0x81}) {
    ExpectKept(With<uint16_t>(VolumeFlags(), static_cast<uint16_t>(flags)), "dirty");
  }
  EXPECT_GT(With<uint16_t>(VolumeFlags(), 0x80).skipped_bytes, 8 * kMiB);  // no short names
  ExpectKept(With<uint8_t>(VolumeFlags() - 2, 1), "unknown-feature");      // NT 4
}

TEST_F(NtfsHostileTest, ALogInUseIsBelievedOnlyOfAFrozenVolume) {
  constexpr uint16_t kNobody = 0xFFFF;
  UsedOptions quiesced;
  quiesced.quiesced = true;
  // Mounted: a client in use, not marked clean.
  ExpectKept(Find(WithLog(10, 0, 0, 9, kNobody, 2)), "dirty");
  ExpectKept(Find(WithLog(9, kNobody, 2, 10, 0, 0)), "dirty");
  ExpectKept(Find(WithLog(10, kNobody, 2, 10, 0, 0)), "dirty");
  EXPECT_GT(Find(WithLog(10, 0, 0, 9, 0, 0), quiesced).skipped_bytes, 8 * kMiB);
  // Unmounted.
  EXPECT_GT(Find(WithLog(10, 0, 2, 9, 0, 0)).skipped_bytes, 8 * kMiB);
  EXPECT_GT(Find(WithLog(10, kNobody, 0, 10, kNobody, 0)).skipped_bytes, 8 * kMiB);
}

TEST_F(NtfsHostileTest, ALogThatIsDamagedIsNeverBelieved) {
  UsedOptions quiesced;
  quiesced.quiesced = true;
  for (const uint64_t place : {0u, 6u, 0x10u, 0x18u, 510u, 1022u, 4096u, 4096u + 510u}) {
    SparseBytes disk = WithLog(10, 0xFFFF, 2, 9, 0xFFFF, 2);
    Put<uint8_t>(&disk, DataAt(2) + place, 0xEE);
    ExpectKept(Find(disk, quiesced), "inconsistent");
  }
  SparseBytes disk = bytes_;  // was empty, of FF
  Put<uint8_t>(&disk, DataAt(2) + 5000, 0);
  ExpectKept(Find(disk, quiesced), "inconsistent");
}

TEST_F(NtfsHostileTest, ShadowCopiesKeepTheVolumeUnlessTheyAreGivenUp) {
  const Bytes id = {0x6B, 0x87, 0x08, 0x38, 0x76, 0xC1, 0x48, 0x4E,
                    0xB7, 0xAE, 0x04, 0x04, 0x6E, 0x6C, 0xC7, 0x52};
  const auto with = [&](uint64_t catalog, uint64_t entry, uint64_t next) {
    SparseBytes disk = bytes_;
    disk.Write(0x1E00, id);
    Put<uint32_t>(&disk, 0x1E00 + 16, 1);
    Put<uint32_t>(&disk, 0x1E00 + 20, 1);
    Put<uint64_t>(&disk, 0x1E00 + 48, catalog);
    constexpr uint64_t kCatalog = 20 * kMiB;
    disk.Write(kCatalog, id);
    Put<uint32_t>(&disk, kCatalog + 16, 1);
    Put<uint32_t>(&disk, kCatalog + 20, 2);
    Put<uint64_t>(&disk, kCatalog + 40, next);
    Put<uint64_t>(&disk, kCatalog + 128 * 5, entry);
    return disk;
  };
  EXPECT_GT(Find(with(0, 0, 0)).skipped_bytes, 8 * kMiB);
  EXPECT_GT(Find(with(20 * kMiB, 1, 0)).skipped_bytes, 8 * kMiB);
  ExpectKept(Find(with(20 * kMiB, 2, 0)), "shadow-copies");
  ExpectKept(Find(with(20 * kMiB, 3, 0)), "shadow-copies");
  ExpectKept(Find(with(20 * kMiB, 0, 20 * kMiB)), "shadow-copies");  // comes back to itself
  ExpectKept(Find(with(16 * kMiB, 0, 0)), "shadow-copies");          // nothing there
  ExpectKept(Find(with(~uint64_t{0}, 0, 0)), "inconsistent");
  UsedOptions options;
  options.keep_shadow_copies = false;
  EXPECT_GT(Find(with(20 * kMiB, 2, 0), options).skipped_bytes, 8 * kMiB);
}

TEST_F(NtfsHostileTest, AnImpossibleBootSectorIsCopied) {
  ExpectKept(With<uint16_t>(0x0B, 0), "inconsistent");
  ExpectKept(With<uint16_t>(0x0B, 513), "inconsistent");
  for (const int sectors : {0, 3, 0x70, 0x81, 0xC0, 0xF0}) {
    ExpectKept(With<uint8_t>(0x0D, static_cast<uint8_t>(sectors)), "inconsistent");
  }
  ExpectKept(With<uint64_t>(0x28, kSize / 512 + 1), "inconsistent");
  ExpectKept(With<uint64_t>(0x28, ~uint64_t{0}), "inconsistent");
  ExpectKept(With<uint64_t>(0x28, 0), "inconsistent");
  ExpectKept(With<uint64_t>(0x30, ~uint64_t{0}), "inconsistent");
  ExpectKept(With<uint64_t>(0x30, 0), "inconsistent");
  for (const int size : {0, 0x7F, 0x80, 0xE0, 0xFF}) {
    ExpectKept(With<uint8_t>(0x40, static_cast<uint8_t>(size)), "inconsistent");
  }
}

TEST_F(NtfsHostileTest, ABitmapThatCallsAFilesClustersFreeIsNotBelieved) {
  const uint64_t bitmap = DataAt(6);
  uint64_t tried = 0;
  for (uint64_t i = 0; i < kSize / 4096 / 8; ++i) {
    const uint8_t byte = bytes_.Read(bitmap + i, 1)[0];
    for (int bit = 0; bit < 8 && tried < 1500; ++bit) {
      if ((byte >> bit & 1) == 0 ||
          (i * 8 + static_cast<uint64_t>(bit)) * 4096 + 4096 > kSize - 512)
        continue;
      const UsedMap map = With<uint8_t>(bitmap + i, static_cast<uint8_t>(byte ^ (1 << bit)));
      ASSERT_EQ(map.skipped_bytes, 0u) << i << " " << bit;
      ++tried;
    }
  }
  EXPECT_GT(tried, 1000u);
}

TEST_F(NtfsHostileTest, ADamagedRecordKeepsTheVolume) {
  for (const uint64_t number : {0u, 2u, 3u, 6u, 7u, 9u, 64u}) {
    ExpectKept(With<uint8_t>(Record(number), 'B'), "inconsistent");
    ExpectKept(With<uint8_t>(Record(number) + 511, 0x99), "inconsistent");
    ExpectKept(With<uint32_t>(Record(number) + 0x2C, 12345), "inconsistent");
    ExpectKept(With<uint32_t>(Record(number) + 0x18, ~0u), "inconsistent");
    ExpectKept(With<uint16_t>(Record(number) + 0x14, 0xFFF8), "inconsistent");
  }
}

TEST_F(NtfsHostileTest, TwoFilesWithTheSameClustersKeepTheVolume) {
  // The second name of the clusters of $Boot: $UpCase's runs are made to begin at cluster 0.
  const uint64_t attribute = Attribute(10, 0x80);
  const uint64_t runs = attribute + LoadLe<uint16_t>(bytes_.Read(attribute + 0x20, 2).data());
  SparseBytes disk = bytes_;
  const Bytes run = disk.Read(runs, 8);
  ASSERT_NE(run[0], 0);
  disk.Write(runs + 1 + (run[0] & 0xF), Bytes(run[0] >> 4));
  ExpectKept(Find(disk), "inconsistent");
}

TEST_F(NtfsHostileTest, AVolumeCutShortIsCopied) {
  for (const uint64_t size : {kSize - 512, kSize / 2, 200 * kKiB, 64 * kKiB}) {
    SparseBytes cut = bytes_;
    cut.Resize(size);
    const UsedMap map = Find(cut);
    // The backup boot sector is not part of what the volume counts.
    EXPECT_EQ(map.skipped_bytes == 0, size < kSize - 512) << size;
  }
}

}  // namespace
}  // namespace firn
