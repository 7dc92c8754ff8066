#include "disk/vhdx_header.h"

#include <gtest/gtest.h>

#include "disk/vhdx_image_test_util.h"

namespace firn {
namespace {

using namespace image_test;  // NOLINT: test support

class VhdxHeaderTest : public ::testing::Test {
 protected:
  VhdxHeaderTest() { image_.AddBlock(2, 2); }

  void Refused(Code code, const std::string& finding) {
    image_.WriteTo(path_);
    ExpectRefused(path_, code, finding);
  }

  // Opens and reads the block; EXPECTs the finding, if one is named.
  void Reads(const std::string& finding = "") {
    image_.WriteTo(path_);
    const auto disk = MustOpen(path_);
    ASSERT_NE(disk, nullptr);
    ExpectSameBytes(ReadRange(*disk, 2 * kMiB, kMiB), Pattern(2, 2 * kMiB, kMiB));
    if (!finding.empty()) {
      EXPECT_TRUE(HasFinding(disk->layers()[0], finding)) << finding;
    }
    data_write_guid_ = disk->layers()[0].data_write_guid;
  }

  void BreakHeader(int copy) { image_.Patch(vhdx::kHeaderOffsets[copy] + 100, {1}); }
  void BreakRegionTable(int copy) { image_.Patch(vhdx::kRegionTableOffsets[copy] + 9000, {1}); }
  // Gives one header copy another id, to tell which one was used.
  void MarkHeader(int copy) {
    image_.ChangeHeader(
        copy, [](Bytes& bytes) { std::ranges::copy(MakeGuid(0xEE), bytes.begin() + 32); });
  }

  TestFolder folder_;
  const std::string path_ = folder_ / "disk.vhdx";
  VhdxImage image_;
  std::string data_write_guid_;
};

TEST_F(VhdxHeaderTest, AFileThatIsNotAVhdxIsRefused) {
  image_.Patch(0, {'V'});
  Refused(Code::kDiskInvalid, "no-signature");
}

TEST_F(VhdxHeaderTest, TheHeaderWithTheGreaterSequenceNumberIsCurrent) {
  MarkHeader(1);
  Reads();
  EXPECT_EQ(data_write_guid_, GuidToString(MakeGuid(0xEE)));
  image_.ChangeHeader(0, [](Bytes& bytes) { StoreLe<uint64_t>(bytes.data() + 8, ~uint64_t{0}); });
  Reads();
  EXPECT_EQ(data_write_guid_, GuidToString(MakeGuid(0xD0)));
}

TEST_F(VhdxHeaderTest, OneDamagedHeaderIsSurvived) {
  MarkHeader(1);
  BreakHeader(1);
  Reads("header-2-bad");
  EXPECT_EQ(data_write_guid_, GuidToString(MakeGuid(0xD0)));
}

TEST_F(VhdxHeaderTest, TheFirstHeaderMayBeTheDamagedOne) {
  MarkHeader(1);
  BreakHeader(0);
  Reads("header-1-bad");
  EXPECT_EQ(data_write_guid_, GuidToString(MakeGuid(0xEE)));
}

TEST_F(VhdxHeaderTest, TwoDamagedHeadersAreRefused) {
  BreakHeader(0);
  BreakHeader(1);
  Refused(Code::kDiskInvalid, "headers-bad");
}

TEST_F(VhdxHeaderTest, EqualHeadersAreOneHeader) {
  image_.Patch(vhdx::kHeaderOffsets[1], image_.file().Read(vhdx::kHeaderOffsets[0], 4096));
  Reads("headers-equal");
}

TEST_F(VhdxHeaderTest, DifferentHeadersWithOneSequenceNumberReadWithAWarning) {
  image_.ChangeHeader(1, [](Bytes& bytes) { StoreLe<uint64_t>(bytes.data() + 8, 7); });
  MarkHeader(1);
  Reads("header-tie");
  EXPECT_EQ(data_write_guid_, GuidToString(MakeGuid(0xD0)));
}

TEST_F(VhdxHeaderTest, ANewerVersionIsUnsupported) {
  image_.ChangeHeader(1, [](Bytes& bytes) { StoreLe<uint16_t>(bytes.data() + 66, 2); });
  Refused(Code::kUnsupported, "version");
}

TEST_F(VhdxHeaderTest, TheLogVersionMattersOnlyWithALogToReplay) {
  image_.ChangeHeader(1, [](Bytes& bytes) { StoreLe<uint16_t>(bytes.data() + 64, 1); });
  Reads();
  image_.ChangeHeader(1, [](Bytes& bytes) { bytes[48] = 1; });
  Refused(Code::kUnsupported, "log-version");
}

TEST_F(VhdxHeaderTest, ALogAtAnImpossiblePlaceIsRefused) {
  struct Case {
    uint64_t offset;
    uint32_t length;
    Code code;
  };
  const Case cases[] = {
      {kMiB + 4096, kMiB, Code::kDiskInvalid},
      {0, kMiB, Code::kDiskInvalid},
      {kMiB, 4096, Code::kDiskInvalid},
      {900 * kMiB, kMiB, Code::kDiskTruncated},
      {~uint64_t{0} - kMiB + 1, kMiB, Code::kDiskTruncated},
  };
  for (const Case& c : cases) {
    image_.ChangeHeader(1, [&](Bytes& bytes) {
      StoreLe<uint32_t>(bytes.data() + 68, c.length);
      StoreLe<uint64_t>(bytes.data() + 72, c.offset);
    });
    Refused(c.code, "log-place");
  }
  image_.ChangeHeader(1, [&](Bytes& bytes) {
    StoreLe<uint32_t>(bytes.data() + 68, 2048 * uint32_t{kMiB});
    StoreLe<uint64_t>(bytes.data() + 72, kMiB);
  });
  Refused(Code::kUnsupported, "log-too-long");
}

TEST_F(VhdxHeaderTest, ALogOverARegionIsRefused) {
  image_.ChangeHeader(
      1, [&](Bytes& bytes) { StoreLe<uint64_t>(bytes.data() + 72, image_.bat_offset()); });
  Refused(Code::kDiskInvalid, "region-overlap");
}

TEST_F(VhdxHeaderTest, NoLogAtAllIsFineUnlessItIsToBeReplayed) {
  image_.ChangeHeader(1, [&](Bytes& bytes) {
    StoreLe<uint32_t>(bytes.data() + 68, 0);
    StoreLe<uint64_t>(bytes.data() + 72, 0);
  });
  Reads();
  image_.ChangeHeader(1, [](Bytes& bytes) { bytes[48] = 1; });
  Refused(Code::kDiskInvalid, "log-place");
}

TEST_F(VhdxHeaderTest, EitherRegionTableCanBeDamaged) {
  BreakRegionTable(0);
  Reads("region-table-1-bad");
  BreakRegionTable(1);
  Refused(Code::kDiskInvalid, "region-tables-bad");
}

TEST_F(VhdxHeaderTest, ADamagedSecondRegionTableIsOnlyAWarning) {
  BreakRegionTable(1);
  Reads("region-table-2-bad");
}

TEST_F(VhdxHeaderTest, RegionTablesThatDifferAreAWarning) {
  image_.ChangeRegionTable(1, [](Bytes& bytes) { bytes[40000] = 1; });
  Reads("region-tables-differ");
}

TEST_F(VhdxHeaderTest, RegionsAreRequiredWhateverTheirFlagSays) {
  image_.ChangeBothRegionTables([](Bytes& bytes) {
    StoreLe<uint32_t>(bytes.data() + 44, 0);
    StoreLe<uint32_t>(bytes.data() + 76, 0);
  });
  Reads();
  image_.ChangeBothRegionTables([](Bytes& bytes) { StoreLe<uint32_t>(bytes.data() + 8, 1); });
  Refused(Code::kDiskInvalid, "region-missing");
}

TEST_F(VhdxHeaderTest, AnUnknownRegionIsRefusedOnlyIfItIsRequired) {
  const uint64_t offset = image_.Reserve(kMiB);
  const auto add = [&](uint32_t flags) {
    image_.ChangeBothRegionTables([&](Bytes& bytes) {
      StoreLe<uint32_t>(bytes.data() + 8, 3);
      std::ranges::copy(MakeGuid(0x99), bytes.begin() + 80);
      StoreLe<uint64_t>(bytes.data() + 96, offset);
      StoreLe<uint32_t>(bytes.data() + 104, kMiB);
      StoreLe<uint32_t>(bytes.data() + 108, flags);
    });
  };
  add(0);
  Reads();
  add(1);
  Refused(Code::kUnsupported, "unknown-region");
  add(2);
  Refused(Code::kDiskInvalid, "region-flags");
}

TEST_F(VhdxHeaderTest, SpaceOfAnUnknownRegionIsNoPlaceForABlock) {
  image_.ChangeBothRegionTables([&](Bytes& bytes) {
    StoreLe<uint32_t>(bytes.data() + 8, 3);
    std::ranges::copy(MakeGuid(0x99), bytes.begin() + 80);
    StoreLe<uint64_t>(bytes.data() + 96, image_.end() - kMiB);  // where the block lies
    StoreLe<uint32_t>(bytes.data() + 104, kMiB);
  });
  Refused(Code::kDiskInvalid, "bat-overlap");
}

TEST_F(VhdxHeaderTest, RegionsAtImpossiblePlacesAreRefused) {
  const auto move = [&](uint64_t offset, uint32_t length) {
    image_.ChangeBothRegionTables([&](Bytes& bytes) {
      StoreLe<uint64_t>(bytes.data() + 32, offset);
      StoreLe<uint32_t>(bytes.data() + 40, length);
    });
  };
  for (const auto& [offset, length] : std::vector<std::pair<uint64_t, uint32_t>>{
           {0, kMiB}, {3 * kMiB, 0}, {3 * kMiB + 4096, kMiB}, {3 * kMiB, 4096}}) {
    move(offset, length);
    Refused(Code::kDiskInvalid, "region-place");
  }
  move(900 * kMiB, kMiB);
  Refused(Code::kDiskTruncated, "region-place");
  move(RoundDown(~uint64_t{0}, kMiB), kMiB);
  Refused(Code::kDiskTruncated, "region-place");
  move(image_.metadata_offset(), kMiB);
  Refused(Code::kDiskInvalid, "region-overlap");
  move(VhdxImage::kLogOffset, kMiB);
  Refused(Code::kDiskInvalid, "region-overlap");
}

TEST_F(VhdxHeaderTest, ARegionThatIsListedTwiceIsRefused) {
  image_.ChangeBothRegionTables(
      [](Bytes& bytes) { std::ranges::copy(vhdx::kMetadataRegion, bytes.begin() + 16); });
  Refused(Code::kDiskInvalid, "region-twice");
}

TEST_F(VhdxHeaderTest, ACountThatTheTableCannotHoldIsDamage) {
  image_.ChangeBothRegionTables(
      [](Bytes& bytes) { StoreLe<uint32_t>(bytes.data() + 8, 0xFFFFFFFF); });
  Refused(Code::kDiskInvalid, "region-tables-bad");
}

}  // namespace
}  // namespace firn
