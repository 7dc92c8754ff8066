// Goal: the life of an image that is being written: its names, its ends, its errors; the same for
// every format.

#include "disk/disk_writer.h"

#include <gtest/gtest.h>

#include <fstream>
#include <iterator>
#include <string>
#include <thread>
#include <vector>

#include "disk/disk_writer_testing.h"

namespace firn::testing {

namespace {

struct Format {
  const char* name;
  DiskFormat format;
  DiskKind kind;
};

void PrintTo(const Format& value, std::ostream* out) { *out << value.name; }

CreateDiskOptions OptionsFor(const Format& format, uint64_t size = 10 * kMiB) {
  CreateDiskOptions options;
  options.identity.format = format.format;
  options.identity.kind = format.kind;
  options.identity.size = size;
  return options;
}

void PutFile(const std::string& path, const std::string& text) { std::ofstream(path) << text; }

std::string GetFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return std::string(std::istreambuf_iterator<char>(file), {});
}

class EveryFormat : public ::testing::TestWithParam<Format> {
 protected:
  const TemporaryFolder folder_;
  const std::string path_ = folder_ / "disk.img";
  const std::vector<uint8_t> bytes_ = std::vector<uint8_t>(8192, 0xA5);
};

INSTANTIATE_TEST_SUITE_P(
    Formats, EveryFormat,
    ::testing::Values(Format{"Raw", DiskFormat::kRaw, DiskKind::kFixed},
                      Format{"FixedVhd", DiskFormat::kVhd, DiskKind::kFixed},
                      Format{"DynamicVhd", DiskFormat::kVhd, DiskKind::kDynamic},
                      Format{"FixedVhdx", DiskFormat::kVhdx, DiskKind::kFixed},
                      Format{"DynamicVhdx", DiskFormat::kVhdx, DiskKind::kDynamic}),
    [](const auto& instance) { return std::string(instance.param.name); });

TEST_P(EveryFormat, HasItsFinalNameOnlyAfterFinish) {
  auto writer = MustCreate(path_, OptionsFor(GetParam()));
  ASSERT_TRUE(writer);
  ExpectOk(writer->Write(4096, bytes_));
  const std::vector<std::string> names = folder_.Names();
  ASSERT_EQ(names.size(), 1u);
  EXPECT_TRUE(names[0].starts_with(".disk.img.firn-partial-")) << names[0];
  ExpectOk(writer->Finish());
  EXPECT_EQ(folder_.Names(), std::vector<std::string>{"disk.img"});
}

TEST_P(EveryFormat, LeavesNothingWhenAbandonedOrDestroyed) {
  auto writer = MustCreate(path_, OptionsFor(GetParam()));
  ExpectOk(writer->Write(0, bytes_));
  writer->Abandon();
  EXPECT_TRUE(folder_.Names().empty());
  writer = MustCreate(path_, OptionsFor(GetParam()));
  ExpectOk(writer->Write(0, bytes_));
  writer.reset();
  EXPECT_TRUE(folder_.Names().empty());
}

TEST_P(EveryFormat, RefusesANameThatIsTaken) {
  PutFile(path_, "precious");
  auto writer = DiskWriter::Create(FileSystem::Default(), path_, OptionsFor(GetParam()));
  ASSERT_FALSE(writer.ok());
  EXPECT_EQ(writer.status().code(), Code::kExists);
  EXPECT_EQ(folder_.Names(), std::vector<std::string>{"disk.img"});
  EXPECT_EQ(GetFile(path_), "precious");
}

TEST_P(EveryFormat, RefusesANameThatWasTakenWhileItWasWritten) {
  auto writer = MustCreate(path_, OptionsFor(GetParam()));
  PutFile(path_, "precious");
  EXPECT_EQ(writer->Finish().code(), Code::kExists);
  EXPECT_EQ(folder_.Names(), std::vector<std::string>{"disk.img"});
  EXPECT_EQ(GetFile(path_), "precious");
}

TEST_P(EveryFormat, ReplacesAnOldFileOnlyInFinish) {
  PutFile(path_, "precious");
  CreateDiskOptions options = OptionsFor(GetParam());
  options.overwrite = true;
  auto writer = MustCreate(path_, options);
  ExpectOk(writer->Write(0, bytes_));
  EXPECT_EQ(GetFile(path_), "precious");
  ExpectOk(writer->Finish());
  EXPECT_NE(GetFile(path_), "precious");
  EXPECT_EQ(folder_.Names(), std::vector<std::string>{"disk.img"});
}

TEST_P(EveryFormat, IsClosedAfterFinishAndAfterAbandon) {
  auto writer = MustCreate(path_, OptionsFor(GetParam()));
  ExpectOk(writer->Finish());
  std::vector<TargetExtent> extents;
  EXPECT_EQ(writer->MapWrite(0, 4096, &extents).code(), Code::kInvalidArgument);
  EXPECT_EQ(writer->MarkZero(0, 4096).code(), Code::kInvalidArgument);
  EXPECT_EQ(writer->Finish().code(), Code::kInvalidArgument);
  EXPECT_EQ(writer->payload_file(), nullptr);
  EXPECT_EQ(writer->buffered_file(), nullptr);
  writer->Abandon();
  EXPECT_EQ(folder_.Names(), std::vector<std::string>{"disk.img"});
}

TEST_P(EveryFormat, RefusesRangesThatAreNotItsSectors) {
  auto writer = MustCreate(path_, OptionsFor(GetParam()));
  std::vector<TargetExtent> extents;
  const uint64_t size = writer->identity().size;
  EXPECT_EQ(writer->MapWrite(size, 512, &extents).code(), Code::kInvalidArgument);
  EXPECT_EQ(writer->MapWrite(size - 512, 1024, &extents).code(), Code::kInvalidArgument);
  EXPECT_EQ(writer->MapWrite(512, UINT64_MAX, &extents).code(), Code::kInvalidArgument);
  EXPECT_EQ(writer->MapWrite(100, 512, &extents).code(), Code::kInvalidArgument);
  EXPECT_EQ(writer->MapWrite(0, 100, &extents).code(), Code::kInvalidArgument);
  EXPECT_TRUE(extents.empty());
  ExpectOk(writer->MapWrite(size, 0, &extents));
  EXPECT_TRUE(extents.empty());
}

TEST_P(EveryFormat, AnswersWithOneExtentForWhatIsOnePieceOfTheFile) {
  auto writer = MustCreate(path_, OptionsFor(GetParam()));
  std::vector<TargetExtent> extents;
  ExpectOk(writer->MapWrite(0, kMiB, &extents));
  ExpectOk(writer->MapWrite(kMiB, kMiB, &extents));
  ASSERT_EQ(extents.size(), 1u);
  EXPECT_EQ(extents[0].offset, 0u);
  EXPECT_EQ(extents[0].length, 2 * kMiB);
}

TEST_P(EveryFormat, KeepsThePayloadAlignedAsTheDiskIs) {
  auto writer = MustCreate(path_, OptionsFor(GetParam(), 100 * kMiB));
  for (uint64_t offset : {50 * kMiB, 4096 * uint64_t{3}, 99 * kMiB + 8192, 7 * kMiB}) {
    std::vector<TargetExtent> extents;
    ExpectOk(writer->MapWrite(offset, 4096, &extents));
    ASSERT_EQ(extents.size(), 1u);
    EXPECT_TRUE(IsAligned(extents[0].file_offset, 4096)) << offset;
  }
}

TEST_P(EveryFormat, GivesThreadsThatMapTheSameBlocksTheSamePlaces) {
  auto writer = MustCreate(path_, OptionsFor(GetParam(), 200 * kMiB));
  constexpr uint64_t kStep = 512 * kKiB;
  const uint64_t steps = writer->identity().size / kStep;
  constexpr uint64_t kStrides[] = {
      1, 3, 7, 9};  // prime to the number of steps: each thread has its own order
  ASSERT_EQ(steps, 400u);
  std::vector<std::vector<TargetExtent>> places(std::size(kStrides));
  std::vector<std::thread> threads;
  for (size_t thread = 0; thread < places.size(); ++thread) {
    threads.emplace_back([&, thread] {
      for (uint64_t step = 0; step < steps; ++step) {
        const uint64_t offset = step * kStrides[thread] % steps * kStep;
        std::vector<TargetExtent> extents;
        Status status = writer->MapWrite(offset, kStep, &extents);
        if (status.ok())
          places[thread].insert(places[thread].end(), extents.begin(), extents.end());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  auto by_offset = [](const TargetExtent& a, const TargetExtent& b) { return a.offset < b.offset; };
  std::vector<uint64_t> file_offsets;
  for (auto& extents : places) std::ranges::sort(extents, by_offset);
  ASSERT_EQ(places[0].size(), steps);
  for (size_t i = 0; i < steps; ++i) {
    file_offsets.push_back(places[0][i].file_offset);
    for (const auto& extents : places) {
      ASSERT_EQ(extents.size(), steps);
      EXPECT_EQ(extents[i].file_offset, places[0][i].file_offset);
    }
  }
  std::ranges::sort(file_offsets);
  for (size_t i = 1; i < steps; ++i) EXPECT_GE(file_offsets[i] - file_offsets[i - 1], kStep);
}

TEST_P(EveryFormat, TakesTheIdGivenToIt) {
  CreateDiskOptions options = OptionsFor(GetParam());
  ASSERT_TRUE(GuidFromString("00112233-4455-6677-8899-aabbccddeeff", &options.identity.disk_id));
  auto writer = MustCreate(path_, options);
  if (GetParam().format == DiskFormat::kRaw) {
    EXPECT_EQ(writer->identity().disk_id, Guid{});
  } else {
    EXPECT_EQ(writer->identity().disk_id, options.identity.disk_id);
    auto other = MustCreate(folder_ / "other", OptionsFor(GetParam()));
    EXPECT_NE(other->identity().disk_id, Guid{});
  }
}

TEST_P(EveryFormat, RefusesSectorSizesThatNoDiskHas) {
  CreateDiskOptions options = OptionsFor(GetParam());
  options.identity.logical_sector_size = 2048;
  auto writer = DiskWriter::Create(FileSystem::Default(), path_, options);
  EXPECT_EQ(writer.status().code(), Code::kInvalidArgument);
  EXPECT_TRUE(folder_.Names().empty());
}

TEST_P(EveryFormat, SaysWhereItsFolderIsMissing) {
  auto writer =
      DiskWriter::Create(FileSystem::Default(), folder_ / "no/such/disk", OptionsFor(GetParam()));
  EXPECT_EQ(writer.status().code(), Code::kNotFound);
  writer = DiskWriter::Create(FileSystem::Default(), folder_.path() + "/", OptionsFor(GetParam()));
  EXPECT_EQ(writer.status().code(), Code::kInvalidArgument);
}

TEST(RawWriter, MakesASparseFileOfExactlyTheDisksSize) {
  TemporaryFolder folder;
  const std::string path = folder / "disk.raw";
  const uint64_t size = 8 * kGiB + 1000;
  auto writer = MustCreate(path, OptionsFor({"", DiskFormat::kRaw, DiskKind::kFixed}, size));
  DiskModel model(size);
  // The disk may end inside a sector.
  WriteBoth(writer.get(), &model, size - 1000, std::vector<uint8_t>(1000, 1));
  WriteBoth(writer.get(), &model, 4 * kGiB, std::vector<uint8_t>(4096, 2));
  ExpectOk(writer->Finish());
  EXPECT_EQ(std::filesystem::file_size(path), size);
  EXPECT_EQ(FirnDifference(path, model, model.Windows()), "");
  auto file = FileSystem::Default().Open(path, {});
  ASSERT_TRUE(file.ok());
  auto data = (*file)->NextData(0);
  ASSERT_TRUE(data.ok() && *data);
  if ((*data)->begin == 0 && (*data)->end == size) GTEST_SKIP() << "no holes in " << folder.path();
  EXPECT_GT((*data)->begin, 3 * kGiB);
}

TEST(RawWriter, CanNotHaveAParent) {
  TemporaryFolder folder;
  auto writer = DiskWriter::Create(FileSystem::Default(), folder / "disk.raw",
                                   OptionsFor({"", DiskFormat::kRaw, DiskKind::kDifferencing}));
  EXPECT_EQ(writer.status().code(), Code::kUnsupported);
}

TEST(RandomGuid, IsOfVersion4AndNeverTheSame) {
  const Guid guid = RandomGuid();
  EXPECT_EQ(GuidToString(guid)[14], '4');
  EXPECT_NE(std::string("89ab").find(GuidToString(guid)[19]), std::string::npos);
  EXPECT_NE(guid, RandomGuid());
}

TEST(FileNameOf, IsThePartAfterTheLastSeparator) {
  EXPECT_EQ(FileNameOf("a/b/c.vhdx"), "c.vhdx");
  EXPECT_EQ(FileNameOf("c.vhdx"), "c.vhdx");
  EXPECT_EQ(FileNameOf("/c.vhdx"), "c.vhdx");
  EXPECT_EQ(FileNameOf("a/"), "");
}

}  // namespace

}  // namespace firn::testing
