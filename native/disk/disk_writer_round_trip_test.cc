// Goal: what is written through a DiskWriter is what every reader reads. Method: seeded random
// writes to an image and to a model in memory, then the image is read by Firn and by tools that
// know nothing of Firn. Each case names its seed when it fails.

#include <gtest/gtest.h>

#include <ostream>
#include <string>
#include <vector>

#include "disk/disk_writer_testing.h"
#include "io/aligned_buffer.h"

namespace firn::testing {

namespace {

struct Case {
  const char* name;
  DiskFormat format;
  DiskKind kind;
  uint32_t block_size;
  uint32_t sector_size;
  uint64_t size;
};

void PrintTo(const Case& value, std::ostream* out) { *out << value.name; }

DiskIdentity IdentityOf(const Case& value) {
  DiskIdentity identity;
  identity.format = value.format;
  identity.kind = value.kind;
  identity.size = value.size;
  identity.block_size = value.block_size;
  identity.logical_sector_size = value.sector_size;
  identity.physical_sector_size = 4096;
  return identity;
}

// A range of whole sectors, chosen to hit edges: of blocks, of the disk, and within.
Window RandomRange(Random* random, const DiskIdentity& identity) {
  const uint64_t sector = identity.logical_sector_size;
  const uint64_t sectors = identity.size / sector;
  const uint64_t block = identity.block_size == 0 ? 2 * kMiB : identity.block_size;
  uint64_t first = random->Below(sectors);
  uint64_t count = 1 + random->Below(random->OneIn(4) ? 4 * kMiB / sector : 40);
  if (random->OneIn(3)) {  // across the start of a block
    first = random->Below(DivideUp(identity.size, block)) * block / sector;
    const uint64_t before = random->Below(20);
    first -= std::min(first, before);
    count += before;
  } else if (random->OneIn(4) && block <= 8 * kMiB) {  // a whole block
    first = random->Below(DivideUp(identity.size, block)) * block / sector;
    count = block / sector;
  } else if (random->OneIn(6)) {  // the end of the disk
    first = sectors - std::min(sectors, count);
  }
  return {first * sector, std::min(count, sectors - first) * sector};
}

// As the data plane does it: whole pages, unbuffered, to where MapWrite says.
void WriteToPayloadFile(DiskWriter* writer, DiskModel* model, const Window& range,
                        const std::vector<uint8_t>& bytes) {
  auto buffer = AlignedBuffer::Allocate(bytes.size());
  ASSERT_TRUE(buffer.ok());
  std::ranges::copy(bytes, buffer->data());
  std::vector<TargetExtent> extents;
  ExpectOk(writer->MapWrite(range.offset, range.length, &extents));
  uint64_t covered = range.offset;
  for (const TargetExtent& extent : extents) {
    ASSERT_EQ(extent.offset, covered);
    ASSERT_TRUE(IsAligned(extent.file_offset, 4096));
    ExpectOk(writer->payload_file()->WriteAt(
        extent.file_offset, buffer->span().subspan(extent.offset - range.offset, extent.length)));
    covered += extent.length;
  }
  ASSERT_EQ(covered, range.offset + range.length);
  model->Write(range.offset, bytes);
}

void RandomWrites(Random* random, int count, bool mark_zero, DiskWriter* writer, DiskModel* model) {
  for (int i = 0; i < count; ++i) {
    Window range = RandomRange(random, writer->identity());
    if (mark_zero && random->OneIn(4)) {
      ExpectOk(writer->MarkZero(range.offset, range.length));
      model->Zero(range.offset, range.length);
      continue;
    }
    const uint64_t page_begin = RoundUp(range.offset, 4096);
    const uint64_t page_end = RoundDown(range.offset + range.length, 4096);
    if (page_begin < page_end && random->OneIn(2)) {
      range = {page_begin, page_end - page_begin};
      WriteToPayloadFile(writer, model, range, random->Bytes(range.length));
    } else {
      WriteBoth(writer, model, range.offset, random->Bytes(range.length));
    }
  }
}

void ExpectRefereesAgree(const std::string& path, const DiskIdentity& identity,
                         const DiskModel& model) {
  const bool vhdx = identity.format == DiskFormat::kVhdx;
  const std::string type = vhdx ? "vhdx" : "vhd";
  // What QEMU 7.2 says of other sector sizes: "Unsupported logical sector size".
  if (HaveQemu() && identity.logical_sector_size == 512) {
    EXPECT_EQ(QemuDifference(path, vhdx ? "vhdx" : "vpc", model, model.Whole()), "");
    if (vhdx) {
      EXPECT_TRUE(Succeeds("qemu-img check -f vhdx " + Quoted(path)));
    }
  }
  if (HaveSevenZip() && SevenZipTakes(identity)) {
    EXPECT_EQ(SevenZipDifference(path, type, model), "");
  }
  if (HaveLibvhdi()) {
    EXPECT_EQ(LibvhdiDifference({path}, model, model.Whole()), "");
  }
}

constexpr DiskFormat kRaw = DiskFormat::kRaw;
constexpr DiskFormat kVhd = DiskFormat::kVhd;
constexpr DiskFormat kVhdx = DiskFormat::kVhdx;
constexpr DiskKind kFixed = DiskKind::kFixed;
constexpr DiskKind kDynamic = DiskKind::kDynamic;

const Case kCases[] = {
    {"Raw", kRaw, kFixed, 0, 512, 30 * kMiB + 512},
    {"RawWith4KiBSectors", kRaw, kFixed, 0, 4096, 30 * kMiB + 4096},
    {"FixedVhd", kVhd, kFixed, 0, 512, 30 * kMiB + 512},
    {"DynamicVhd", kVhd, kDynamic, 0, 512, 30 * kMiB + 512},
    {"DynamicVhdOfSmallBlocks", kVhd, kDynamic, 512 * kKiB, 512, 20 * kMiB + 512 * 3},
    {"FixedVhdx", kVhdx, kFixed, 0, 512, 70 * kMiB + 1024},
    {"FixedVhdxOf1MiBBlocks", kVhdx, kFixed, kMiB, 512, 30 * kMiB + 512},
    {"FixedVhdxWith4KiBSectors", kVhdx, kFixed, 2 * kMiB, 4096, 30 * kMiB + 8192},
    {"DynamicVhdx", kVhdx, kDynamic, 0, 512, 100 * kMiB + 1024},
    {"DynamicVhdxOf1MiBBlocks", kVhdx, kDynamic, kMiB, 512, 30 * kMiB + 512 * 7},
    {"DynamicVhdxOfWholeBlocks", kVhdx, kDynamic, 2 * kMiB, 512, 32 * kMiB},
    {"DynamicVhdxOf256MiBBlocks", kVhdx, kDynamic, 256 * kMiB, 512, 300 * kMiB},
    {"DynamicVhdxWith4KiBSectors", kVhdx, kDynamic, 2 * kMiB, 4096, 30 * kMiB + 8192},
    {"DynamicVhdxOfOneSector", kVhdx, kDynamic, 0, 512, 512},
};

class RoundTrip : public ::testing::TestWithParam<Case> {};

TEST_P(RoundTrip, ReadsBackWhatWasWritten) {
  for (uint64_t seed : {1, 2, 3}) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    TemporaryFolder folder;
    const std::string path = folder / (GetParam().format == kRaw   ? "disk.raw"
                                       : GetParam().format == kVhd ? "disk.vhd"
                                                                   : "disk.vhdx");
    CreateDiskOptions options;
    options.identity = IdentityOf(GetParam());
    options.direct = seed != 3;
    Random random(seed);
    DiskModel model(options.identity.size);
    auto writer = MustCreate(path, options);
    ASSERT_TRUE(writer);
    RandomWrites(&random, 30, false, writer.get(), &model);
    const DiskIdentity identity = writer->identity();
    ExpectOk(writer->Finish());
    EXPECT_EQ(FirnDifference(path, model, model.Whole()), "");
    if (identity.format == kRaw && HaveCommand("cat")) {
      EXPECT_EQ(StreamDifference("cat " + Quoted(path), model, model.Whole()), "");
    } else if (identity.format != kRaw) {
      ExpectRefereesAgree(path, identity, model);
    }
    if (HasFailure()) break;
  }
}

INSTANTIATE_TEST_SUITE_P(Formats, RoundTrip, ::testing::ValuesIn(kCases),
                         [](const auto& instance) { return std::string(instance.param.name); });

struct ChainCase {
  const char* name;
  uint32_t sector_size;
  uint64_t size;
  std::vector<uint32_t> block_sizes;  // base first
};

void PrintTo(const ChainCase& value, std::ostream* out) { *out << value.name; }

const ChainCase kChains[] = {
    {"ChildOfDefaultSizes", 512, 70 * kMiB + 1024, {0, 0}},
    {"SmallBlocksOverLarge", 512, 100 * kMiB + 512 * 6, {32 * kMiB, kMiB}},
    {"LargeBlocksOverSmall", 512, 70 * kMiB, {kMiB, 32 * kMiB}},
    {"ThreeLayers", 512, 40 * kMiB + 512, {4 * kMiB, kMiB, 2 * kMiB}},
    {"FourLayersOfEqualBlocks", 512, 20 * kMiB, {2 * kMiB, 2 * kMiB, 2 * kMiB, 2 * kMiB}},
    {"FourKiBSectors", 4096, 40 * kMiB + 8192, {2 * kMiB, 2 * kMiB, kMiB}},
};

class ChainRoundTrip : public ::testing::TestWithParam<ChainCase> {};

TEST_P(ChainRoundTrip, ReadsBackWhatWasWrittenToEachLayer) {
  for (uint64_t seed : {1, 2, 3}) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    TemporaryFolder folder;
    Random random(seed);
    DiskModel model(GetParam().size);
    std::vector<std::string> chain;  // child first
    for (uint32_t block_size : GetParam().block_sizes) {
      CreateDiskOptions options;
      options.identity.format = kVhdx;
      options.identity.kind = chain.empty() ? kDynamic : DiskKind::kDifferencing;
      options.identity.size = GetParam().size;
      options.identity.block_size = block_size;
      options.identity.logical_sector_size = GetParam().sector_size;
      options.identity.physical_sector_size = 4096;
      if (!chain.empty()) options.parent_path = chain.front();
      chain.insert(chain.begin(), folder / ("layer" + std::to_string(chain.size()) + ".vhdx"));
      auto writer = MustCreate(chain.front(), options);
      ASSERT_TRUE(writer);
      const bool mark_zero = chain.size() > 1 && seed != 3;
      RandomWrites(&random, 25, mark_zero, writer.get(), &model);
      const DiskIdentity identity = writer->identity();
      ExpectOk(writer->Finish());
      EXPECT_EQ(FirnDifference(chain.front(), model, model.Whole()), "");
      if (HaveSevenZip() && SevenZipTakes(identity)) {
        EXPECT_EQ(SevenZipDifference(chain.front(), "vhdx", model), "");
      }
      if (HaveLibvhdi() && seed == 3) {
        EXPECT_EQ(LibvhdiDifference(chain, model, model.Whole()), "");
      }
    }
    if (HasFailure()) break;
  }
}

INSTANTIATE_TEST_SUITE_P(Chains, ChainRoundTrip, ::testing::ValuesIn(kChains),
                         [](const auto& instance) { return std::string(instance.param.name); });

TEST(Referees, AreInstalledSoThatTheRoundTripsMeanSomething) {
  if (HaveQemu() && HaveSevenZip() && HaveLibvhdi()) return;
  GTEST_SKIP()
      << "not all of qemu-img, 7zz and pyvhdi are installed: the round trips were read back "
         "by Firn and by those that are";
}

}  // namespace

}  // namespace firn::testing
