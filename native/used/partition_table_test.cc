// Partition tables, tried with swap spaces in the partitions: what was understood shows in what is
// skipped.

#include "used/partition_table.h"

#include <gtest/gtest.h>

#include <vector>

#include "used/used.h"
#include "used/used_test_util.h"

namespace firn {
namespace {

using namespace used_test;  // NOLINT: test support

constexpr uint64_t kHead = 64 * kKiB;  // of a swap space, which stays
constexpr uint32_t kMiBSectors = 2048;

SparseBytes DiskOf(uint64_t size) {
  SparseBytes disk;
  disk.Resize(size);
  return disk;
}

void ExpectTableRefused(const UsedMap& map, const std::string& code) {
  ExpectWellFormed(map);
  EXPECT_EQ(map.reason_code, code) << map.reason;
  EXPECT_TRUE(map.partitions.empty());
  EXPECT_TRUE(map.skipped.empty());
}

// Two primary partitions, and two logical ones in an extended one.
SparseBytes MbrDisk() {
  SparseBytes disk = DiskOf(64 * kMiB);
  WriteBootRecord(&disk, 0,
                  {{0x82, 1 * kMiBSectors, 4 * kMiBSectors},
                   {0x83, 5 * kMiBSectors, 4 * kMiBSectors},
                   {0x0F, 16 * kMiBSectors, 40 * kMiBSectors}});
  WriteBootRecord(
      &disk, 16 * kMiBSectors,
      {{0x82, kMiBSectors, 8 * kMiBSectors}, {0x05, 20 * kMiBSectors, 12 * kMiBSectors}});
  WriteBootRecord(&disk, 36 * kMiBSectors, {{0x82, kMiBSectors, 8 * kMiBSectors}});
  WriteSwap(&disk, 1 * kMiB, 4 * kMiB);
  WriteSwap(&disk, 17 * kMiB, 8 * kMiB);
  WriteSwap(&disk, 37 * kMiB, 8 * kMiB);
  return disk;
}

TEST(PartitionTableTest, PrimaryAndLogicalPartitionsOfAnMbrAreFound) {
  const UsedMap map = Find(MbrDisk());
  ExpectWellFormed(map);
  EXPECT_EQ(map.table, "mbr");
  ASSERT_EQ(map.partitions.size(), 4u);
  EXPECT_EQ(map.partitions[0].type, "mbr 82");
  EXPECT_EQ(map.partitions[0].file_system, "swap");
  EXPECT_EQ(map.partitions[1].reason_code, "unknown-file-system");
  EXPECT_EQ(map.skipped, (std::vector<ByteRange>{{kMiB + kHead, 5 * kMiB},
                                                 {17 * kMiB + kHead, 25 * kMiB},
                                                 {37 * kMiB + kHead, 45 * kMiB}}));
}

TEST(PartitionTableTest, AChainOfLogicalPartitionsThatComesBackToItselfIsRefused) {
  SparseBytes disk = MbrDisk();
  WriteBootRecord(
      &disk, 36 * kMiBSectors,
      {{0x82, kMiBSectors, 8 * kMiBSectors}, {0x05, 20 * kMiBSectors, 12 * kMiBSectors}});
  ExpectTableRefused(Find(disk), "partition-table");
}

TEST(PartitionTableTest, ALogicalPartitionOutsideItsContainerIsRefused) {
  SparseBytes disk = MbrDisk();
  WriteBootRecord(&disk, 36 * kMiBSectors, {{0x82, kMiBSectors, 24 * kMiBSectors}});
  ExpectTableRefused(Find(disk), "partition-table");
}

TEST(PartitionTableTest, ABootRecordInsideAPartitionIsRefused) {
  SparseBytes disk = MbrDisk();
  WriteBootRecord(
      &disk, 16 * kMiBSectors,
      {{0x82, kMiBSectors, 21 * kMiBSectors}, {0x05, 20 * kMiBSectors, 12 * kMiBSectors}});
  WriteBootRecord(&disk, 36 * kMiBSectors, {{0x82, 2 * kMiBSectors, 6 * kMiBSectors}});
  ExpectTableRefused(Find(disk), "partition-table");
}

TEST(PartitionTableTest, OverlappingPartitionsAreRefused) {
  SparseBytes disk = MbrDisk();
  WriteBootRecord(&disk, 0,
                  {{0x82, 1 * kMiBSectors, 4 * kMiBSectors}, {0x83, 4 * kMiBSectors, kMiBSectors}});
  ExpectTableRefused(Find(disk), "partition-table");
  WriteBootRecord(
      &disk, 0,
      {{0x82, 1 * kMiBSectors, 16 * kMiBSectors}, {0x0F, 16 * kMiBSectors, 40 * kMiBSectors}});
  ExpectTableRefused(Find(disk), "partition-table");
}

TEST(PartitionTableTest, APartitionThatReachesBehindTheDiskIsRefused) {
  SparseBytes disk = MbrDisk();
  WriteBootRecord(
      &disk, 0,
      {{0x82, 1 * kMiBSectors, 4 * kMiBSectors}, {0x83, 60 * kMiBSectors, 4 * kMiBSectors + 1}});
  ExpectTableRefused(Find(disk), "partition-table");
  WriteBootRecord(&disk, 0, {{0x82, 64 * kMiBSectors, 4 * kMiBSectors}});
  ExpectTableRefused(Find(disk), "partition-table");
}

TEST(PartitionTableTest, ADiskThatIsBothPartitionedAndAFileSystemIsRefused) {
  SparseBytes disk = MbrDisk();
  disk.Write(1024 + 0x38, Bytes{0x53, 0xEF});
  ExpectTableRefused(Find(disk), "ambiguous");
}

TEST(PartitionTableTest, ADiskWithoutATableIsOneVolume) {
  SparseBytes disk = DiskOf(16 * kMiB);
  WriteSwap(&disk, 0, 16 * kMiB);
  const UsedMap map = Find(disk);
  EXPECT_EQ(map.table, "none");
  EXPECT_EQ(map.skipped, (std::vector<ByteRange>{{kHead, 16 * kMiB}}));
}

SparseBytes GptDisk(uint32_t sector_bytes = 512) {
  SparseBytes disk = DiskOf(64 * kMiB);
  const uint64_t mib = kMiB / sector_bytes;
  WriteGpt(&disk, {{kLinuxType, 20 * mib, 30 * mib - 1}, {kSwapType, 4 * mib, 12 * mib - 1}},
           sector_bytes);
  WriteSwap(&disk, 4 * kMiB, 8 * kMiB);
  return disk;
}

TEST(PartitionTableTest, PartitionsOfAGptAreFoundAtEitherSectorSize) {
  for (const uint32_t sector_bytes : {512u, 4096u}) {
    const SparseBytes disk = GptDisk(sector_bytes);
    const UsedMap map = Find(MemoryDisk(disk, sector_bytes));
    ExpectWellFormed(map);
    EXPECT_EQ(map.table, "gpt") << map.reason;
    ASSERT_EQ(map.partitions.size(), 2u);
    EXPECT_EQ(map.partitions[0].type, kSwapType);
    EXPECT_EQ(map.partitions[1].offset, 20 * kMiB);
    EXPECT_EQ(map.skipped, (std::vector<ByteRange>{{4 * kMiB + kHead, 12 * kMiB}}));
  }
}

TEST(PartitionTableTest, AGptReadAtTheWrongSectorSizeIsRefused) {
  const SparseBytes disk = GptDisk(4096);
  ExpectTableRefused(Find(MemoryDisk(disk, 512)), "partition-table");
}

TEST(PartitionTableTest, AnyChangedByteInEitherHalfOfAGptIsRefused) {
  const SparseBytes whole = GptDisk();
  const uint64_t end = 64 * kMiB;
  std::vector<uint64_t> places = {1024 + 40, 1024 + 128 + 32, end - 512 - 16384 + 40};
  for (uint64_t i = 0; i < 92; ++i) places.insert(places.end(), {512 + i, end - 512 + i});
  for (const uint64_t place : places) {
    SparseBytes disk = whole;
    Bytes byte = disk.Read(place, 1);
    byte[0] ^= 0x10;
    disk.Write(place, byte);
    const UsedMap map = Find(disk);
    EXPECT_TRUE(map.skipped.empty()) << place;
    EXPECT_FALSE(map.reason_code.empty()) << place;
  }
}

TEST(PartitionTableTest, AHybridMbrOrAMissingOneIsAmbiguous) {
  SparseBytes disk = GptDisk();
  WriteBootRecord(&disk, 0, {{0xEE, 1, 100}, {0x82, 4 * kMiBSectors, 8 * kMiBSectors}});
  ExpectTableRefused(Find(disk), "ambiguous");
  disk.Write(0, Bytes(512));
  ExpectTableRefused(Find(disk), "ambiguous");
  WriteBootRecord(&disk, 0, {{0x82, 4 * kMiBSectors, 8 * kMiBSectors}});
  ExpectTableRefused(Find(disk), "ambiguous");
}

TEST(PartitionTableTest, AGptWhosePartitionsOverlapOrLeaveTheUsableSectorsIsRefused) {
  for (const TestGptPartition& partition :
       {TestGptPartition{kSwapType, 8 * kMiBSectors, 12 * kMiBSectors},
        TestGptPartition{kSwapType, 10, 4 * kMiBSectors - 1},
        TestGptPartition{kSwapType, 60 * kMiBSectors, 64 * kMiBSectors - 1},
        TestGptPartition{kSwapType, 60 * kMiBSectors, 50 * kMiBSectors},
        TestGptPartition{kSwapType, 60 * kMiBSectors, ~uint64_t{0}}}) {
    SparseBytes disk = DiskOf(64 * kMiB);
    WriteGpt(&disk, {{kSwapType, 4 * kMiBSectors, 12 * kMiBSectors - 1}, partition});
    WriteSwap(&disk, 4 * kMiB, 8 * kMiB);
    ExpectTableRefused(Find(disk), "partition-table");
  }
}

TEST(PartitionTableTest, ADiskOf64TiBIsNoTrouble) {
  SparseBytes disk = DiskOf(64 * kTiB);
  const uint64_t tib = kTiB / 512;
  WriteGpt(&disk, {{kSwapType, tib, 2 * tib - 1}, {kLinuxType, 3 * tib, 60 * tib}});
  WriteSwap(&disk, kTiB, kTiB);
  const UsedMap map = Find(disk);
  ExpectWellFormed(map);
  EXPECT_EQ(map.skipped_bytes, kTiB - kHead);
  EXPECT_LT(map.read_bytes, 2 * kMiB);
}

TEST(PartitionTableTest, ADiskTooSmallForATableIsCopied) {
  for (const uint64_t size : {0u, 1u, 511u, 512u, 1023u}) {
    SparseBytes disk = DiskOf(size);
    EXPECT_TRUE(Find(disk).skipped.empty());
  }
}

// --- What a partition holds ---

UsedMap FindSwapWith(uint64_t offset, std::string_view signature) {
  SparseBytes disk = DiskOf(16 * kMiB);
  WriteSwap(&disk, 0, 16 * kMiB);
  disk.Write(offset, Bytes(signature.begin(), signature.end()));
  return Find(disk);
}

TEST(SignaturesTest, AVolumeWithASecondSignatureIsCopied) {
  using namespace std::string_view_literals;
  ExpectKept(FindSwapWith(0, "LUKS\xBA\xBE"sv), "encrypted");
  ExpectKept(FindSwapWith(0, "XFSB"sv), "unknown-file-system");
  ExpectKept(FindSwapWith(512, "LABELONE"sv), "opaque");
  ExpectKept(FindSwapWith(0x10040, "_BHRfS_M"sv), "unknown-file-system");
  ExpectKept(FindSwapWith(4096, "\xFC\x4E\x2B\xA9"sv), "opaque");
  ExpectKept(FindSwapWith(16 * kMiB - 64 * kKiB, "\xFC\x4E\x2B\xA9"sv), "opaque");
  ExpectKept(FindSwapWith(16 * kMiB - 8 * kKiB, "\xFC\x4E\x2B\xA9"sv), "opaque");
  ExpectKept(FindSwapWith(160 * kKiB, "\x0C\xB1\xBA\0\0\0\0\0"sv), "opaque");
  ExpectKept(FindSwapWith(160 * kKiB, "\0\0\0\0\0\xBA\xB1\x0C"sv), "opaque");
  ExpectKept(FindSwapWith(1024 + 0x38, "\x53\xEF"sv), "ambiguous");
}

TEST(SignaturesTest, ABitLockerVolumeIsCopied) {
  SparseBytes disk = DiskOf(16 * kMiB);
  Bytes sector(512);
  std::memcpy(&sector[3], "-FVE-FS-", 8);
  disk.Write(0, sector);
  ExpectKept(Find(disk), "encrypted");
}

TEST(SignaturesTest, APartitionOfAnotherTypeThanItsContentIsCopied) {
  SparseBytes disk = DiskOf(64 * kMiB);
  WriteBootRecord(&disk, 0, {{0x8E, kMiBSectors, 16 * kMiBSectors}});
  WriteSwap(&disk, kMiB, 16 * kMiB);
  ExpectKept(Find(disk), "wrong-type");
}

TEST(LinuxSwapTest, AHibernationImageKeepsTheWholeDisk) {
  SparseBytes disk = MbrDisk();
  const std::string_view signature("S1SUSPEND\0", 10);
  disk.Write(17 * kMiB + 4086, Bytes(signature.begin(), signature.end()));
  const UsedMap map = Find(disk);
  ExpectWellFormed(map);
  EXPECT_EQ(map.skipped_bytes, 0u);
  EXPECT_EQ(map.partitions[0].reason_code, "hibernated");
  EXPECT_EQ(map.partitions[1].reason_code, "unknown-file-system");
  EXPECT_EQ(map.partitions[2].reason_code, "hibernated");
}

TEST(LinuxSwapTest, ASwapSpaceThatIsNotAsItShouldBeIsCopied) {
  const auto with = [](uint64_t offset, uint32_t value) {
    SparseBytes disk = DiskOf(16 * kMiB);
    WriteSwap(&disk, 0, 16 * kMiB);
    Bytes bytes(4);
    StoreLe<uint32_t>(bytes.data(), value);
    disk.Write(offset, bytes);
    return Find(disk);
  };
  ExpectKept(with(1024, 2), "unknown-feature");
  ExpectKept(with(1028, 4096), "inconsistent");
  ExpectKept(with(1028, ~0u), "inconsistent");
  ExpectKept(with(1028, 3), "inconsistent");
  ExpectKept(with(1032, 1), "unknown-feature");
  EXPECT_EQ(with(1028, 1023).skipped_bytes, 4 * kMiB - kHead);
}

}  // namespace
}  // namespace firn
