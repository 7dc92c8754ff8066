#include "disk/log_overlay.h"

#include <gtest/gtest.h>

#include "disk/image_test_util.h"

namespace firn {
namespace {

using namespace image_test;  // NOLINT: test support

// A file whose first page is a data sector full of sevens.
class LogOverlayTest : public ::testing::Test {
 protected:
  void SetUp() override {
    SparseBytes bytes;
    Bytes sector(4096, 7);
    std::copy_n("data", 4, sector.begin());
    bytes.Write(0, sector);
    bytes.Write(4096, Bytes(16 * 4096, 9));
    bytes.WriteTo(folder_ / "file");
    file_ = std::move(*FileSystem::Default().Open(folder_ / "file", {}));
  }

  Bytes Apply(uint64_t offset, size_t length) {
    Bytes bytes(length, 9);
    const Status status = overlay_.Apply(*file_, offset, bytes);
    EXPECT_TRUE(status.ok()) << status.ToString();
    return bytes;
  }

  LogOverlay::DataPage Page() const {
    LogOverlay::DataPage page;
    page.leading.fill(1);
    page.trailing.fill(2);
    return page;
  }

  TestFolder folder_;
  std::unique_ptr<File> file_;
  LogOverlay overlay_;
};

TEST_F(LogOverlayTest, APageIsBuiltFromDescriptorAndSector) {
  overlay_.SetPage(8192, Page());
  Bytes expected(4096, 7);
  std::fill_n(expected.begin(), 8, uint8_t{1});
  std::fill_n(expected.end() - 4, 4, uint8_t{2});
  EXPECT_EQ(Apply(8192, 4096), expected);
  // A range that holds part of the page, from before it.
  const Bytes around = Apply(8190, 12);
  EXPECT_EQ(around, (Bytes{9, 9, 1, 1, 1, 1, 1, 1, 1, 1, 7, 7}));
  const Bytes behind = Apply(8192 + 4094, 4);
  EXPECT_EQ(behind, (Bytes{2, 2, 9, 9}));
}

TEST_F(LogOverlayTest, WhatComesLaterWins) {
  overlay_.SetPage(4096, Page());
  overlay_.SetZero(0, 8192);
  EXPECT_EQ(Apply(4096, 1)[0], 0);
  EXPECT_EQ(overlay_.page_count(), 0u);
  overlay_.SetPage(4096, Page());
  EXPECT_EQ(Apply(4096, 1)[0], 1);
  EXPECT_EQ(Apply(0, 1)[0], 0);
}

TEST_F(LogOverlayTest, ZeroedRangesThatTouchBecomeOne) {
  overlay_.SetZero(8192, 12288);
  overlay_.SetZero(20480, 24576);
  overlay_.SetZero(4096, 8192);
  EXPECT_EQ(overlay_.zero_range_count(), 2u);
  overlay_.SetZero(0, 65536);
  EXPECT_EQ(overlay_.zero_range_count(), 1u);
  overlay_.SetZero(4096, 8192);
  EXPECT_EQ(overlay_.zero_range_count(), 1u);
  EXPECT_EQ(Apply(0, 65536), Bytes(65536));
  EXPECT_EQ(Apply(65536, 4096), Bytes(4096, 9));
}

TEST_F(LogOverlayTest, TheNextTouchedByteIsFoundFromInsideAndBefore) {
  EXPECT_EQ(overlay_.NextTouched(0), LogOverlay::kNone);
  overlay_.SetZero(8192, 16384);
  overlay_.SetPage(32768, Page());
  EXPECT_EQ(overlay_.NextTouched(0), 8192u);
  EXPECT_EQ(overlay_.NextTouched(9000), 9000u);
  EXPECT_EQ(overlay_.NextTouched(16384), 32768u);
  EXPECT_EQ(overlay_.NextTouched(33000), 33000u);
  EXPECT_EQ(overlay_.NextTouched(36864), LogOverlay::kNone);
  EXPECT_EQ(overlay_.NextData(0), 32768u);
  EXPECT_TRUE(overlay_.Touches(16000, 20000));
  EXPECT_FALSE(overlay_.Touches(16384, 32768));
}

TEST_F(LogOverlayTest, ALogThatMovedMeanwhileIsNoticed) {
  LogOverlay::DataPage page = Page();
  page.sector_offset = 4096;  // not a data sector
  overlay_.SetPage(8192, page);
  Bytes bytes(4096);
  EXPECT_EQ(overlay_.Apply(*file_, 8192, bytes).code(), Code::kSourceChanged);
}

}  // namespace
}  // namespace firn
