// Goal: whatever call fails while an image is written, the outcome is an error and no file, or a
// whole image. Method: count the calls of one good run, then fail each of them in turn.

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "disk/disk_writer_testing.h"
#include "io/fault_file_system.h"

namespace firn::testing {

namespace {

struct Format {
  const char* name;
  DiskFormat format;
  DiskKind kind;
};

void PrintTo(const Format& value, std::ostream* out) { *out << value.name; }

constexpr uint64_t kSize = 40 * kMiB + 512;

// Writes a small image with a bit of everything.
Status WriteImage(FileSystem& file_system, const CreateDiskOptions& options,
                  const std::string& path) {
  FIRN_ASSIGN_OR_RETURN(std::unique_ptr<DiskWriter> writer,
                        DiskWriter::Create(file_system, path, options));
  const std::vector<uint8_t> bytes(8192, 0x5A);
  FIRN_RETURN_IF_ERROR(writer->Write(4096, bytes));
  FIRN_RETURN_IF_ERROR(writer->Write(33 * kMiB, bytes));
  FIRN_RETURN_IF_ERROR(writer->MarkZero(8 * kMiB, 7 * kMiB));
  FIRN_RETURN_IF_ERROR(writer->Write(kSize - 512, std::span(bytes).first(512)));
  return writer->Finish();
}

DiskModel ModelOfImage() {
  DiskModel model(kSize);
  const std::vector<uint8_t> bytes(8192, 0x5A);
  model.Write(4096, bytes);
  model.Write(33 * kMiB, bytes);
  model.Write(kSize - 512, std::span(bytes).first(512));
  return model;
}

class Faults : public ::testing::TestWithParam<Format> {
 protected:
  Faults() {
    options_.identity.format = GetParam().format;
    options_.identity.kind = GetParam().kind;
    options_.identity.size = kSize;
    if (GetParam().kind == DiskKind::kDifferencing) {
      CreateDiskOptions parent = options_;
      parent.identity.kind = DiskKind::kDynamic;
      options_.parent_path = folder_ / "base.vhdx";
      auto writer = MustCreate(options_.parent_path, parent);
      ExpectOk(writer->Finish());
    }
  }

  // The names in the folder but for the parent's.
  std::vector<std::string> Names() const {
    std::vector<std::string> names = folder_.Names();
    std::erase(names, "base.vhdx");
    return names;
  }

  const TemporaryFolder folder_;
  const std::string path_ = folder_ / "disk.img.vhdx";
  CreateDiskOptions options_;
};

INSTANTIATE_TEST_SUITE_P(
    Formats, Faults,
    ::testing::Values(Format{"Raw", DiskFormat::kRaw, DiskKind::kFixed},
                      Format{"FixedVhd", DiskFormat::kVhd, DiskKind::kFixed},
                      Format{"DynamicVhd", DiskFormat::kVhd, DiskKind::kDynamic},
                      Format{"FixedVhdx", DiskFormat::kVhdx, DiskKind::kFixed},
                      Format{"DynamicVhdx", DiskFormat::kVhdx, DiskKind::kDynamic},
                      Format{"DifferencingVhdx", DiskFormat::kVhdx, DiskKind::kDifferencing}),
    [](const auto& instance) { return std::string(instance.param.name); });

TEST_P(Faults, EveryFailedCallEndsInAnErrorAndNoFile) {
  uint64_t calls = 0;
  {
    FaultFileSystem counting(FileSystem::Default(), {});
    ExpectOk(WriteImage(counting, options_, path_));
    calls = counting.calls();
    ASSERT_EQ(Names(), std::vector<std::string>{FileNameOf(path_)});
    ExpectOk(FileSystem::Default().Remove(path_));
  }
  ASSERT_GT(calls, 8u);
  for (uint64_t n = 1; n <= calls; ++n) {
    SCOPED_TRACE("call " + std::to_string(n) + " of " + std::to_string(calls));
    FaultFileSystem failing(FileSystem::Default(),
                            {.kind = FaultPlan::Kind::kAny, .fail_at = n, .code = Code::kWrite});
    Status status = WriteImage(failing, options_, path_);
    ASSERT_TRUE(failing.fired());
    EXPECT_FALSE(status.ok());
    EXPECT_TRUE(Names().empty());
    if (HasFailure()) break;
  }
}

TEST_P(Faults, AFullDiskIsReportedAsSuchAndCleanedUpAfter) {
  FaultFileSystem counting(FileSystem::Default(), {.kind = FaultPlan::Kind::kWrite});
  ExpectOk(WriteImage(counting, options_, path_));
  ExpectOk(FileSystem::Default().Remove(path_));
  for (uint64_t n = 1; n <= counting.calls(); ++n) {
    SCOPED_TRACE("write " + std::to_string(n) + " of " + std::to_string(counting.calls()));
    FaultFileSystem full(FileSystem::Default(), {.kind = FaultPlan::Kind::kWrite,
                                                 .fail_at = n,
                                                 .persistent = true,
                                                 .code = Code::kDiskFull});
    EXPECT_EQ(WriteImage(full, options_, path_).code(), Code::kDiskFull);
    EXPECT_TRUE(Names().empty());
    if (HasFailure()) break;
  }
}

TEST_P(Faults, AFailureWhileReplacingKeepsTheOldFileOrAWholeNewOne) {
  CreateDiskOptions overwrite = options_;
  overwrite.overwrite = true;
  FaultFileSystem counting(FileSystem::Default(), {});
  ExpectOk(WriteImage(counting, overwrite, path_));
  for (uint64_t n = 1; n <= counting.calls(); ++n) {
    SCOPED_TRACE("call " + std::to_string(n) + " of " + std::to_string(counting.calls()));
    FaultFileSystem failing(FileSystem::Default(),
                            {.kind = FaultPlan::Kind::kAny, .fail_at = n, .code = Code::kWrite});
    EXPECT_FALSE(WriteImage(failing, overwrite, path_).ok());
    EXPECT_EQ(Names(), std::vector<std::string>{FileNameOf(path_)});
    if (HasFailure()) break;
  }
  if (GetParam().format != DiskFormat::kVhdx) return;  // a .vhdx name with anything else in it
  const DiskModel model = ModelOfImage();
  EXPECT_EQ(FirnDifference(path_, model, model.Windows()), "");
}

// A caller that made room may ask for the same range again, and what it does not ask for again was
// not allocated.
TEST(FaultsInMapWrite, LeaveTheWriterAsItWas) {
  for (DiskFormat format : {DiskFormat::kVhd, DiskFormat::kVhdx}) {
    TemporaryFolder folder;
    const std::string path = folder / (format == DiskFormat::kVhd ? "disk.vhd" : "disk.vhdx");
    CreateDiskOptions options;
    options.identity.format = format;
    options.identity.kind = DiskKind::kDynamic;
    options.identity.size = kSize;
    FaultFileSystem failing(
        FileSystem::Default(),
        {.kind = FaultPlan::Kind::kWrite, .fail_at = 1, .code = Code::kDiskFull});
    auto writer = DiskWriter::Create(failing, path, options);
    ASSERT_TRUE(writer.ok());
    std::vector<TargetExtent> extents;
    EXPECT_EQ((*writer)->MapWrite(0, kSize, &extents).code(), Code::kDiskFull);
    EXPECT_TRUE(extents.empty());
    DiskModel model(kSize);
    WriteBoth(writer->get(), &model, 34 * kMiB, std::vector<uint8_t>(4096, 9));
    const uint64_t block_size = (*writer)->identity().block_size;
    ExpectOk((*writer)->Finish());
    EXPECT_EQ(FirnDifference(path, model, model.Whole()), "");
    EXPECT_LT(std::filesystem::file_size(path), block_size + 5 * kMiB);
  }
}

}  // namespace

}  // namespace firn::testing
