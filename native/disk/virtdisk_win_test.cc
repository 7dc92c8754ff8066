// What Firn asks of virtdisk.dll and makes of its answers, against a stand-in for it
// (disk/virtdisk_stand_in). That the driver itself answers so is known from its documentation
// alone.

#include "disk/virtdisk_win.h"

#include <cstdio>

#include "disk/image_test_util.h"
#include "io/folder_test_util.h"

namespace firn {
namespace {

using test::Must;
using Range = LayerChanges::Range;
using Ranges = std::vector<Range>;

class VirtDiskTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const HMODULE library = LoadLibraryExW(L"virtdisk.dll", nullptr, LOAD_LIBRARY_SEARCH_SYSTEM32);
    if (library == nullptr || GetProcAddress(library, "FirnStandIn") == nullptr) {
      GTEST_SKIP() << "virtdisk.dll is not the stand-in for it";
    }
  }

  // A disk of random bytes, and what the driver says of it.
  std::string Make(uint64_t size, const std::string& script) {
    content_ = random_.Bytes(size);
    const std::string path = folder_ / "disk.avhdx";
    test::WriteWholeFile(path, content_);
    const std::string text = "size " + std::to_string(size) + "\n" + script;
    test::WriteWholeFile(path + ".stand-in",
                         {reinterpret_cast<const uint8_t*>(text.data()), text.size()});
    return path;
  }

  test::TestFolder folder_;
  test::Random random_{61};
  std::vector<uint8_t> content_;
};

TEST_F(VirtDiskTest, AnAttachedDiskIsReadAtAnyOffset) {
  const std::string path = Make(3 * kMiB + 4096, "sector 4096");
  auto disk = Must(OpenAttachedDisk(WinFileSystem::Default(), path));
  EXPECT_EQ(disk->size(), content_.size());
  EXPECT_EQ(disk->identity().format, DiskFormat::kVhdx);
  EXPECT_EQ(disk->identity().kind, DiskKind::kDifferencing);
  EXPECT_EQ(disk->identity().logical_sector_size, 4096u);
  EXPECT_EQ(GuidToString(disk->identity().disk_id), "beca12ab-b2e6-4523-93ef-c309e000c746");
  ASSERT_EQ(disk->layers().size(), 1u);
  EXPECT_EQ(disk->layers()[0].path, path);
  EXPECT_EQ(Must(disk->NextPresent(12345)), 12345u);
  for (const auto& [offset, length] : std::initializer_list<std::pair<uint64_t, size_t>>{
           {0, 1}, {777, 100'000}, {kMiB, 2 * kMiB}, {content_.size() - 5, 5}}) {
    const std::vector<uint8_t> out = image_test::ReadRange(*disk, offset, length);
    EXPECT_EQ(std::memcmp(out.data(), &content_[offset], length), 0) << offset;
  }
  FIRN_EXPECT_OK(disk->CheckUnchanged());
}

TEST_F(VirtDiskTest, AnAttachedDiskIsReadByQueues) {
  auto disk = Must(OpenAttachedDisk(WinFileSystem::Default(), Make(kMiB, "sector 512")));
  std::vector<Extent> extents;
  FIRN_ASSERT_OK(disk->Map(0, disk->size(), &extents));
  ASSERT_EQ(extents.size(), 1u);
  File* const file = extents[0].source->direct;
  EXPECT_EQ(file->alignment().offset, 512u);
  auto queue = Must(WinFileSystem::Default().NewQueue({.depth = 4}));
  std::vector<uint8_t> out(kMiB);
  for (uint64_t i = 0; i < 4; ++i) {
    FIRN_ASSERT_OK(queue->Submit({IoRequest::Op::kRead, file, i * kMiB / 4, &out[i * kMiB / 4],
                                  static_cast<uint32_t>(kMiB / 4), i}));
  }
  std::vector<IoCompletion> completions;
  FIRN_ASSERT_OK(queue->Wait(4, &completions));
  for (const IoCompletion& done : completions) FIRN_EXPECT_OK(done.status);
  EXPECT_EQ(out, content_);
}

TEST_F(VirtDiskTest, ADiskThatIsInUseOrNotThereIsToldSo) {
  const Status in_use =
      OpenAttachedDisk(WinFileSystem::Default(), Make(kMiB, "open-error 32")).status();
  EXPECT_EQ(in_use.code(), Code::kFileInUse) << in_use.ToString();
  EXPECT_TRUE(in_use.retryable());
  const Status refused =
      OpenAttachedDisk(WinFileSystem::Default(), Make(kMiB, "attach-error 5")).status();
  EXPECT_EQ(refused.code(), Code::kAccessDenied);
  EXPECT_EQ(refused.path(), folder_ / "disk.avhdx");
  EXPECT_EQ(OpenAttachedDisk(WinFileSystem::Default(), folder_ / "none.vhdx").status().code(),
            Code::kNotFound);
}

TEST_F(VirtDiskTest, ImpossibleAnswersAreRefused) {
  for (const char* script :
       {"size 0", "size 1000", "sector 777", "sector 0", "size 99999999999999999"}) {
    const Status status = OpenAttachedDisk(WinFileSystem::Default(), Make(kMiB, script)).status();
    EXPECT_EQ(status.code(), Code::kDiskInvalid) << script << ": " << status.ToString();
  }
}

TEST_F(VirtDiskTest, ChangesComeInAsManyQueriesAsItTakes) {
  std::string script = "id rctX:1\nper-query 3\n";
  Ranges expected;
  for (uint64_t i = 0; i < 40; ++i) {
    script += "range " + std::to_string(i * 65536 + 4096) + " 8192\n";
    expected.push_back({i * 65536 + 4096, 8192});
  }
  const LayerChanges changes = Must(QueryTrackedChanges(Make(4 * kMiB, script), "rctX:1"));
  EXPECT_EQ(changes.identity.size, 4 * kMiB);
  EXPECT_EQ(changes.ranges, expected);
}

TEST_F(VirtDiskTest, ChangesAreWholePagesInOrderAndJoined) {
  EXPECT_EQ(Must(QueryTrackedChanges(
                     Make(kMiB + 512,
                          "id a range 8192 4096 range 512 512 range 4096 4096 range 65536 1 "
                          "range 1048576 512 range 300000 0"),
                     "a"))
                .ranges,
            (Ranges{{0, 12288}, {65536, 4096}, {kMiB, 512}}));
  EXPECT_TRUE(Must(QueryTrackedChanges(Make(kMiB, "id a"), "a")).ranges.empty());
}

TEST_F(VirtDiskTest, WhatTrackingCannotTellIsNoEmptyList) {
  for (const char* script :
       {"id other", "id a changes-error 3225026594", "id a stuck", "id a range 1048576 512",
        "id a range 0 1048577", "id a range 18446744073709551615 2"}) {
    const Status status = QueryTrackedChanges(Make(kMiB, script), "a").status();
    EXPECT_EQ(status.code(), Code::kSourceChanged) << script << ": " << status.ToString();
  }
  EXPECT_EQ(QueryTrackedChanges(Make(kMiB, "id a changes-error 5"), "a").status().code(),
            Code::kAccessDenied);
}

TEST_F(VirtDiskTest, TheStateOfTrackingIsToldWithItsNewestId) {
  const TrackingState on = Must(AskTrackingState(Make(kMiB, "id rctX:7 range 0 512")));
  EXPECT_TRUE(on.enabled);
  EXPECT_TRUE(on.newer_changes);
  EXPECT_EQ(on.most_recent_id, "rctX:7");
  const TrackingState off = Must(AskTrackingState(Make(kMiB, "")));
  EXPECT_FALSE(off.enabled);
  EXPECT_FALSE(off.newer_changes);
  EXPECT_EQ(off.most_recent_id, "");
}

// Wine's own library opens no disk and knows no changes.
TEST(VirtDiskWithoutDriverTest, SaysThatItCannot) {
  const HMODULE library = LoadLibraryExW(L"virtdisk.dll", nullptr, LOAD_LIBRARY_SEARCH_SYSTEM32);
  if (library != nullptr && GetProcAddress(library, "QueryChangesVirtualDisk") != nullptr) {
    GTEST_SKIP() << "there is a library that can";
  }
  EXPECT_EQ(QueryTrackedChanges("C:\\disk.vhdx", "a").status().code(), Code::kUnsupported);
  EXPECT_FALSE(OpenAttachedDisk(WinFileSystem::Default(), "C:\\disk.vhdx").ok());
}

}  // namespace
}  // namespace firn
