// Replay in memory. Every log here is written by the test's own encoder; a real one of Windows is
// in disk_samples_test.cc.

#include "disk/vhdx_log.h"

#include <gtest/gtest.h>

#include "disk/vhdx_image_test_util.h"

namespace firn {
namespace {

using namespace image_test;  // NOLINT: test support
using vhdx::PayloadState;

const Guid kLog = MakeGuid(0x4C);

uint64_t Present(uint64_t offset) {
  return vhdx::MakeBatEntry(PayloadState::kFullyPresent, offset);
}

class VhdxLogTest : public ::testing::Test {
 protected:
  VhdxLogTest() : image_(VhdxOptions{.log_guid = kLog}) {
    // Space with data that only the log brings into the table.
    for (uint64_t block = 0; block < 4; ++block) {
      blocks_.push_back(image_.AddBlock(block, block));
      image_.SetState(block, PayloadState::kNotPresent);
    }
  }

  // An entry that makes block `block` present.
  LogEntrySpec Present1(uint64_t sequence_number, uint64_t block, uint32_t tail) {
    LogEntrySpec spec;
    spec.sequence_number = sequence_number;
    spec.tail = tail;
    spec.descriptors.push_back(image_.BatPageWith(block, firn::Present(blocks_[block])));
    return spec;
  }

  std::unique_ptr<Disk> Open() {
    image_.WriteTo(path_);
    return MustOpen(path_);
  }
  void Refused(Code code, const std::string& finding) {
    image_.WriteTo(path_);
    ExpectRefused(path_, code, finding);
  }

  // EXPECTs that exactly `block` holds data.
  void ExpectOnlyBlock(const Disk& disk, uint64_t block) {
    Expected expected(8 * kMiB);
    expected.Fill(block, block * kMiB, kMiB);
    ExpectSameBytes(ReadAll(disk), expected.bytes());
  }

  TestFolder folder_;
  const std::string path_ = folder_ / "disk.vhdx";
  VhdxImage image_;
  std::vector<uint64_t> blocks_;
};

TEST_F(VhdxLogTest, ADirtyLogIsReplayedInMemoryAndTheFileStaysAsItIs) {
  image_.PutLogEntry(0, Present1(1, 2, 0));
  const auto disk = Open();
  ASSERT_NE(disk, nullptr);
  ExpectOnlyBlock(*disk, 2);
  const LogInfo& log = disk->layers()[0].log;
  EXPECT_EQ(log.state, LogInfo::State::kReplayed);
  EXPECT_EQ(log.entries, 1u);
  EXPECT_EQ(log.pages, 1u);
  EXPECT_EQ(log.offset, kMiB);
  EXPECT_EQ(log.length, kMiB);
  EXPECT_TRUE(HasFinding(disk->layers()[0], "log-dirty"));
  EXPECT_EQ(disk->layers()[0].data_write_guid, GuidToString(MakeGuid(0xD0)));
  EXPECT_EQ(disk->NextPresent(0).value(), 2 * kMiB);
  const auto file = FileSystem::Default().Open(path_, {});
  Bytes on_disk(8);
  ASSERT_TRUE((*file)->ReadAt(image_.BatEntryOffset(2), on_disk).ok());
  EXPECT_EQ(on_disk, Bytes(8));
}

TEST_F(VhdxLogTest, ALogThatTheHeaderDoesNotNameIsLeftAlone) {
  image_.PutLogEntry(0, Present1(1, 2, 0));
  for (int copy : {0, 1}) {
    image_.ChangeHeader(copy,
                        [](Bytes& bytes) { std::fill_n(bytes.begin() + 48, 16, uint8_t{0}); });
  }
  const auto disk = Open();
  ASSERT_NE(disk, nullptr);
  EXPECT_EQ(ReadAll(*disk), Bytes(8 * kMiB));
  EXPECT_EQ(disk->layers()[0].log.state, LogInfo::State::kClean);
}

TEST_F(VhdxLogTest, ALogToReplayWithoutAnyEntryIsRefused) {
  Refused(Code::kDiskInvalid, "log-no-sequence");
}

TEST_F(VhdxLogTest, EntriesBeforeTheTailAreNotReplayed) {
  // What the first two say has been done, and overwritten since.
  uint64_t next = image_.PutLogEntry(0, Present1(10, 0, 0));
  next = image_.PutLogEntry(next, Present1(11, 1, 0));
  const auto tail = static_cast<uint32_t>(next);
  next = image_.PutLogEntry(next, Present1(12, 2, tail));
  image_.PutLogEntry(next, Present1(13, 3, tail));
  const auto disk = Open();
  ASSERT_NE(disk, nullptr);
  EXPECT_EQ(disk->layers()[0].log.entries, 2u);
  ExpectOnlyBlock(*disk, 3);  // the page of the last entry holds only its own block
}

TEST_F(VhdxLogTest, EntriesOfEarlierSessionsAreStale) {
  LogEntrySpec stale = Present1(100, 0, 0);
  stale.guid = MakeGuid(0x0D);
  uint64_t next = image_.PutLogEntry(0, stale);
  const auto tail = static_cast<uint32_t>(next);
  next = image_.PutLogEntry(next, Present1(5, 2, tail));
  stale.sequence_number = 6;
  image_.PutLogEntry(next, stale);
  const auto disk = Open();
  ASSERT_NE(disk, nullptr);
  EXPECT_EQ(disk->layers()[0].log.entries, 1u);
  ExpectOnlyBlock(*disk, 2);
}

TEST_F(VhdxLogTest, TheSequenceWithTheGreatestNumberIsActive) {
  image_.PutLogEntry(0, Present1(50, 0, 0));
  image_.PutLogEntry(64 * kKiB, Present1(70, 2, 64 * kKiB));
  image_.PutLogEntry(128 * kKiB, Present1(60, 1, 128 * kKiB));
  const auto disk = Open();
  ASSERT_NE(disk, nullptr);
  ExpectOnlyBlock(*disk, 2);
}

TEST_F(VhdxLogTest, ASequenceWhoseTailLeadsElsewhereIsNoSequence) {
  image_.PutLogEntry(0, Present1(50, 1, 0));
  image_.PutLogEntry(64 * kKiB, Present1(70, 2, 128 * kKiB));
  const auto disk = Open();
  ASSERT_NE(disk, nullptr);
  ExpectOnlyBlock(*disk, 1);
}

TEST_F(VhdxLogTest, AnEntryMayWrapAroundTheEndOfTheRing) {
  // The first entry's descriptors stand at the end of the ring, its data sector at the start.
  const uint64_t start = kMiB - 4096;
  uint64_t next = image_.PutLogEntry(start, Present1(1, 0, start));
  EXPECT_EQ(next, 4096u);
  image_.PutLogEntry(next, Present1(2, 3, start));
  const auto disk = Open();
  ASSERT_NE(disk, nullptr);
  EXPECT_EQ(disk->layers()[0].log.entries, 2u);
  ExpectOnlyBlock(*disk, 3);
}

TEST_F(VhdxLogTest, AFullRingOfSmallEntriesIsSearchedOnce) {
  // Old entries of this session lie ahead of the head: the sequence starts near the end of the
  // ring.
  const uint64_t count = kMiB / 8192;
  for (uint64_t i = 0; i < count; ++i) {
    const bool wrapped = i < count / 2;
    const uint64_t sequence_number = wrapped ? 1000 + count + i : 1000 + i;
    image_.PutLogEntry(i * 8192,
                       Present1(sequence_number, i % 4, static_cast<uint32_t>((count - 3) * 8192)));
  }
  const auto disk = Open();
  ASSERT_NE(disk, nullptr);
  EXPECT_EQ(disk->layers()[0].log.entries, 3 + count / 2);
  ExpectOnlyBlock(*disk, (count / 2 - 1) % 4);
}

TEST_F(VhdxLogTest, AnEntryMayHaveMoreThanOneSectorOfDescriptors) {
  // 126 descriptors fit the first sector; the one that matters stands in the second.
  LogEntrySpec spec;
  for (int i = 0; i < 130; ++i) {
    LogDescriptor zero;
    zero.target = image_.metadata_offset() + 512 * kKiB;
    zero.zero_length = 4096;
    spec.descriptors.push_back(zero);
  }
  spec.descriptors.push_back(image_.BatPageWith(1, Present(blocks_[1])));
  image_.PutLogEntry(0, spec);
  const auto disk = Open();
  ASSERT_NE(disk, nullptr);
  ExpectOnlyBlock(*disk, 1);
}

TEST_F(VhdxLogTest, AnEntryWithoutDescriptorsIsAnEntry) {
  image_.PutLogEntry(0, LogEntrySpec{});
  const auto disk = Open();
  ASSERT_NE(disk, nullptr);
  EXPECT_EQ(disk->layers()[0].log.entries, 1u);
}

TEST_F(VhdxLogTest, ATornEntryEndsTheSequenceBeforeIt) {
  for (const uint64_t torn : {4096 + 2000, 100, 20}) {
    const uint64_t next = image_.PutLogEntry(0, Present1(1, 1, 0));
    Bytes entry = MakeLogEntry(Present1(2, 2, 0));
    entry[torn] = static_cast<uint8_t>(entry[torn] + 1);
    image_.PutLogBytes(next, entry);
    const auto disk = Open();
    ASSERT_NE(disk, nullptr);
    EXPECT_EQ(disk->layers()[0].log.entries, 1u);
    ExpectOnlyBlock(*disk, 1);
  }
}

TEST_F(VhdxLogTest, PartsOfAnotherEntryInsideOneAreNotBelieved) {
  // Checksums are right in all of these; a descriptor or a data sector carries the wrong number or
  // name.
  const auto broken = [&](size_t offset, uint8_t value) {
    const uint64_t next = image_.PutLogEntry(0, Present1(1, 1, 0));
    Bytes entry = MakeLogEntry(Present1(2, 2, 0));
    entry[offset] = value;
    vhdx::SealChecksum(entry, 4);
    image_.PutLogBytes(next, entry);
    const auto disk = Open();
    ASSERT_NE(disk, nullptr);
    EXPECT_EQ(disk->layers()[0].log.entries, 1u) << offset;
    ExpectOnlyBlock(*disk, 1);
  };
  broken(64, 'x');         // the descriptor's signature
  broken(64 + 24, 9);      // its sequence number
  broken(4096, 'x');       // the data sector's signature
  broken(4096 + 4, 9);     // the high half of its sequence number
  broken(4096 + 4092, 9);  // the low half
  broken(27, 0x7F);        // a count of descriptors that does not fit the entry
  broken(10, 0x7F);        // a length past the ring
  broken(9, 0);            // a length of nothing
  broken(13, 1);           // a tail inside a sector
  broken(15, 0x7F);        // a tail past the ring
}

TEST_F(VhdxLogTest, AFileShorterThanTheLogSaysWasDurableIsTruncated) {
  LogEntrySpec spec = Present1(1, 1, 0);
  spec.flushed_file_offset = image_.end() + kMiB;
  image_.PutLogEntry(0, spec);
  Refused(Code::kDiskTruncated, "log-file-truncated");
}

TEST_F(VhdxLogTest, BlocksThatAReplayWouldHaveExtendedTheFileByAreZero) {
  const uint64_t beyond = image_.end();
  LogEntrySpec spec;
  spec.last_file_offset = beyond + kMiB;
  spec.descriptors.push_back(image_.BatPageWith(1, Present(beyond)));
  StoreLe<uint64_t>(spec.descriptors[0].page.data() + image_.BatEntryOffset(0) % 4096,
                    Present(blocks_[0]));
  image_.PutLogEntry(0, spec);
  const auto disk = Open();
  ASSERT_NE(disk, nullptr);
  ExpectOnlyBlock(*disk, 0);
  const std::vector<Extent> extents = MapRange(*disk, kMiB, kMiB);
  ASSERT_EQ(extents.size(), 1u);
  EXPECT_EQ(extents[0].source, nullptr);
}

TEST_F(VhdxLogTest, ABlockMayLieHalfInsideTheFileBeforeAReplay) {
  const uint64_t half = image_.end();
  image_.Patch(half, Pattern(1, kMiB, kMiB / 2));
  LogEntrySpec spec;
  spec.last_file_offset = half + kMiB;
  spec.descriptors.push_back(image_.BatPageWith(1, Present(half)));
  image_.PutLogEntry(0, spec);
  const auto disk = Open();
  ASSERT_NE(disk, nullptr);
  Expected expected(8 * kMiB);
  expected.Fill(1, kMiB, kMiB / 2);
  ExpectSameBytes(ReadAll(*disk), expected.bytes());
}

TEST_F(VhdxLogTest, AFileLengthThatNoVhdxHasIsRefused) {
  LogEntrySpec spec = Present1(1, 1, 0);
  spec.last_file_offset = RoundDown(~uint64_t{0}, kMiB);
  image_.PutLogEntry(0, spec);
  Refused(Code::kDiskInvalid, "log-file-size");
}

TEST_F(VhdxLogTest, RegionTablesMetadataAndBitmapsMayComeFromTheLog) {
  // The tables in the file are damaged; the log holds them whole, as after a crash in the middle of
  // writing them.
  LogEntrySpec spec;
  for (const uint64_t offset : {vhdx::kRegionTableOffsets[0], vhdx::kRegionTableOffsets[1],
                                image_.metadata_offset(), image_.metadata_offset() + 65536}) {
    LogDescriptor page;
    page.target = offset;
    page.page = image_.file().Read(offset, 4096);
    spec.descriptors.push_back(page);
    image_.Patch(offset, Bytes(4096, 0xCC));
  }
  spec.descriptors.push_back(image_.BatPageWith(3, Present(blocks_[3])));
  image_.PutLogEntry(0, spec);
  const auto disk = Open();
  ASSERT_NE(disk, nullptr);
  ExpectOnlyBlock(*disk, 3);
  EXPECT_FALSE(HasFinding(disk->layers()[0], "log-target-unused"));
}

TEST_F(VhdxLogTest, AZeroDescriptorClearsPartOfATable) {
  image_.SetEntry(0, Present(blocks_[0]));
  LogEntrySpec spec;
  LogDescriptor zero;
  zero.target = image_.bat_offset();
  zero.zero_length = kMiB;
  spec.descriptors.push_back(zero);
  image_.PutLogEntry(0, spec);
  const auto disk = Open();
  ASSERT_NE(disk, nullptr);
  EXPECT_EQ(ReadAll(*disk), Bytes(8 * kMiB));
  EXPECT_EQ(disk->NextPresent(0).value(), disk->size());
}

TEST_F(VhdxLogTest, ALogPageInASparseTableIsNotTakenForAHole) {
  // The table of 64 TiB is one hole in the file; only the log says that one block, far out, is
  // there.
  VhdxImage huge({.virtual_size = 64 * kTiB, .log_guid = kLog});
  const uint64_t block = 60 * kTiB / kMiB + 5;
  const uint64_t offset = huge.Reserve(kMiB);
  huge.Patch(offset, Pattern(1, block * kMiB, kMiB));
  LogEntrySpec spec;
  spec.descriptors.push_back(huge.BatPageWith(block, Present(offset)));
  huge.PutLogEntry(0, spec);
  huge.WriteTo(path_);
  const auto disk = MustOpen(path_);
  ASSERT_NE(disk, nullptr);
  EXPECT_EQ(disk->NextPresent(0).value(), block * kMiB);
  ExpectSameBytes(ReadRange(*disk, block * kMiB, kMiB), Pattern(1, block * kMiB, kMiB));
}

TEST_F(VhdxLogTest, TargetsOutsideTheTablesAreRefused) {
  image_.SetEntry(0, Present(blocks_[0]));
  struct Case {
    const char* what;
    uint64_t target, zero_length;
  };
  const Case cases[] = {
      {"the file identifier", 0, 0},
      {"a header", 64 * kKiB, 0},
      {"the last page of the headers", 188 * kKiB, 0},
      {"the log", VhdxImage::kLogOffset + 512 * kKiB, 0},
      {"past the end", image_.end(), 0},
      {"far past the end", RoundDown(~uint64_t{0}, 4096), 0},
      {"inside a page", image_.bat_offset() + 512, 0},
      {"payload", blocks_[0] + 8192, 0},
      {"payload", blocks_[0] + 8192, 4096},
      {"everything", 192 * kKiB, 1 << 30},
      {"everything and more", 192 * kKiB, RoundDown(~uint64_t{0}, 4096)},
      {"a log before the target's end", 512 * kKiB, kMiB},
      {"half pages", image_.bat_offset(), 512},
  };
  for (const Case& c : cases) {
    LogEntrySpec spec;
    LogDescriptor descriptor;
    descriptor.target = c.target;
    descriptor.zero_length = c.zero_length;
    if (c.zero_length == 0) descriptor.page = Bytes(4096, 0);
    spec.descriptors.push_back(descriptor);
    image_.PutLogEntry(0, spec);
    SCOPED_TRACE(c.what);
    Refused(Code::kDiskInvalid, "log-target");
  }
}

TEST_F(VhdxLogTest, AZeroedRangeInFreeSpaceDoesNoHarm) {
  const uint64_t free_space = image_.Reserve(4 * kMiB);
  LogEntrySpec spec = Present1(1, 1, 0);
  LogDescriptor zero;
  zero.target = free_space;
  zero.zero_length = 4 * kMiB;
  spec.descriptors.push_back(zero);
  image_.PutLogEntry(0, spec);
  const auto disk = Open();
  ASSERT_NE(disk, nullptr);
  ExpectOnlyBlock(*disk, 1);
}

TEST_F(VhdxLogTest, PagesForFreeSpaceAreMentioned) {
  LogEntrySpec spec = Present1(1, 1, 0);
  LogDescriptor page;
  page.target = image_.Reserve(kMiB);
  page.page = Bytes(4096, 0);
  spec.descriptors.push_back(page);
  image_.PutLogEntry(0, spec);
  const auto disk = Open();
  ASSERT_NE(disk, nullptr);
  ExpectOnlyBlock(*disk, 1);
  EXPECT_TRUE(HasFinding(disk->layers()[0], "log-target-unused"));
}

TEST_F(VhdxLogTest, ACraftedRingOfOverlappingEntriesIsGivenUpOn) {
  // Each 4 KiB starts an entry that claims almost the whole ring; hashing them all would be
  // quadratic.
  for (uint64_t position = 0; position < kMiB; position += 4096) {
    Bytes entry = MakeLogEntry(LogEntrySpec{});
    StoreLe<uint32_t>(entry.data() + 8, kMiB);
    image_.PutLogBytes(position, entry);
  }
  Refused(Code::kDiskInvalid, "log-crafted");
}

}  // namespace
}  // namespace firn
