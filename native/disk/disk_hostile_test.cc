// Images that are cut off or damaged at random must end in an error or in the same bytes, and never
// in a crash or a hang.
//
// The loops are seeded and short enough for every run; under sanitizers they are what finds a read
// past a buffer.

#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <random>

#include "disk/vhd_image_test_util.h"
#include "disk/vhdx_image_test_util.h"
#include "io/fault_file_system.h"

namespace firn {
namespace {

using namespace image_test;  // NOLINT: test support
using vhdx::PayloadState;

constexpr uint64_t kDiskBytes = 4 * kMiB + 512;

// Two layers, a dirty log, a partly present block, a bitmap.
struct Pair {
  VhdxImage parent;
  VhdxImage child;
};

Pair MakePair() {
  Pair pair{VhdxImage({.virtual_size = kDiskBytes, .data_write_guid = MakeGuid(0xAA)}),
            VhdxImage({.virtual_size = kDiskBytes,
                       .locator = LocatorFor("parent.vhdx", MakeGuid(0xAA)),
                       .data_write_guid = MakeGuid(0xBB),
                       .log_guid = MakeGuid(0x4C)})};
  pair.parent.AddBlock(0, 1);
  pair.parent.AddBlock(4, 2);
  VhdxImage& child = pair.child;
  const uint64_t bitmap = child.AddBitmap(0);
  child.AddBlock(0, 3, PayloadState::kPartiallyPresent);
  child.SetPresent(100, 500);
  const uint64_t late = child.AddBlock(2, 4);
  child.SetState(2, PayloadState::kNotPresent);
  LogEntrySpec spec;
  spec.sequence_number = 0x100000005;
  spec.flushed_file_offset = child.end();
  spec.last_file_offset = child.end();
  spec.descriptors.push_back(
      child.BatPageWith(2, vhdx::MakeBatEntry(PayloadState::kFullyPresent, late)));
  LogDescriptor zero;
  zero.target = bitmap + 512 * kKiB;
  zero.zero_length = 64 * kKiB;
  spec.descriptors.push_back(zero);
  child.PutLogEntry(kMiB - 4096, [&] {
    spec.tail = kMiB - 4096;
    return spec;
  }());
  return pair;
}

// Opens and reads all of it in every way there is. True if that went well; the bytes are left in
// `content`.
bool Survives(const std::string& path, Bytes* content) {
  Inspect(path);
  const auto disk = OpenDisk(path);
  if (!disk.ok()) return false;
  // A damaged size may be anything up to 64 TiB.
  const uint64_t length = std::min<uint64_t>((*disk)->size(), 16 * kMiB);
  content->assign(length, 0);
  bool whole = (*disk)->Read(0, *content).ok();
  uint64_t position = 0;
  for (int i = 0; i < 50 && position < (*disk)->size(); ++i) {
    const Result<uint64_t> next = (*disk)->NextPresent(position);
    if (!next.ok()) return false;
    EXPECT_GE(*next, position);
    EXPECT_LE(*next, (*disk)->size());
    position = *next + 300 * kKiB;
  }
  whole = (*disk)->CheckUnchanged().ok() && whole;
  return whole && (*disk)->size() == length;
}

class HostileTest : public ::testing::Test {
 protected:
  // Cuts the file at each length from long to short and EXPECTs an error, or the bytes as they
  // were.
  void CutEverywhere(const std::string& path, const std::vector<uint64_t>& interesting) {
    Bytes original;
    ASSERT_TRUE(Survives(path, &original));
    std::vector<uint64_t> lengths;
    const uint64_t size = std::filesystem::file_size(path);
    for (const uint64_t place : interesting) {
      for (const int64_t delta : {-4096, -512, -1, 0, 1, 512}) {
        const auto length = static_cast<int64_t>(place) + delta;
        if (length >= 0 && static_cast<uint64_t>(length) < size) {
          lengths.push_back(static_cast<uint64_t>(length));
        }
      }
    }
    for (uint64_t length = 0; length < size; length += 333 * kKiB) lengths.push_back(length);
    std::ranges::sort(lengths, std::ranges::greater());
    for (const uint64_t length : lengths) {
      std::filesystem::resize_file(path, length);
      Bytes content;
      if (Survives(path, &content)) {
        EXPECT_TRUE(content == original) << "cut at " << length;
      }
    }
  }

  TestFolder folder_;
};

TEST_F(HostileTest, ACutVhdxIsAnErrorOrWhole) {
  const Pair pair = MakePair();
  pair.parent.WriteTo(folder_ / "parent.vhdx");
  pair.child.WriteTo(folder_ / "child.vhdx");
  std::vector<uint64_t> places = {0,
                                  8,
                                  520,
                                  64 * kKiB,
                                  68 * kKiB,
                                  128 * kKiB,
                                  192 * kKiB,
                                  256 * kKiB,
                                  320 * kKiB,
                                  pair.child.metadata_offset() + 65536,
                                  pair.child.bat_offset() + 64};
  for (uint64_t offset = kMiB; offset <= pair.child.end(); offset += kMiB) places.push_back(offset);
  CutEverywhere(folder_ / "child.vhdx", places);
}

TEST_F(HostileTest, ACutParentIsAnErrorOrWhole) {
  const Pair pair = MakePair();
  pair.parent.WriteTo(folder_ / "parent.vhdx");
  pair.child.WriteTo(folder_ / "child.vhdx");
  Bytes original;
  ASSERT_TRUE(Survives(folder_ / "child.vhdx", &original));
  for (uint64_t length = pair.parent.end() - 512; length > 100 * kKiB; length -= 99 * kKiB) {
    std::filesystem::resize_file(folder_ / "parent.vhdx", length);
    Bytes content;
    if (Survives(folder_ / "child.vhdx", &content)) {
      EXPECT_TRUE(content == original) << "cut at " << length;
    }
  }
}

TEST_F(HostileTest, ACutVhdIsAnErrorOrWhole) {
  VhdImage parent({.virtual_size = kDiskBytes, .uuid = 0x77});
  parent.AddBlock(0, 1);
  parent.WriteTo(folder_ / "parent.vhd");
  VhdImage child({.type = vhd::Type::kDifferencing,
                  .virtual_size = kDiskBytes,
                  .parent_uuid = 0x77,
                  .relative_path = ".\\parent.vhd"});
  const uint64_t first = child.AddBlock(0, 2);
  child.SetPresent(5, 500);
  const uint64_t second = child.AddBlock(2, 3);
  child.SetPresent(2 * 4096, 1);
  child.WriteTo(folder_ / "child.vhd");
  CutEverywhere(folder_ / "child.vhd", {0, 512, 1536, 2048, first, first + 512, second,
                                        second + 1024, child.end(), child.end() + 512});
}

// Flips bytes of the metadata, with checksums made right again half of the time.
void FlipVhdx(std::mt19937_64& random, VhdxImage* image) {
  struct Place {
    uint64_t offset, length;
  };
  const Place places[] = {{0, 64},
                          {64 * kKiB, 80},
                          {128 * kKiB, 80},
                          {192 * kKiB, 112},
                          {256 * kKiB, 112},
                          {2 * kMiB - 4096, 128},  // the log's descriptors
                          {kMiB, 4096},            // its data sector
                          {image->metadata_offset(), 32 + 6 * 32},
                          {image->metadata_offset() + 65536, 500},
                          {image->bat_offset(), 64},
                          {image->BitmapEntryOffset(0), 8}};
  const uint64_t count = 1 + random() % 4;
  for (uint64_t i = 0; i < count; ++i) {
    const Place& place = places[random() % std::size(places)];
    const uint64_t offset = place.offset + random() % place.length;
    Bytes byte = image->file().Read(offset, 1);
    byte[0] = static_cast<uint8_t>(random() % 3 == 0 ? random() : byte[0] ^ 1 << random() % 8);
    image->Patch(offset, byte);
  }
  if (random() % 2 == 0) return;
  for (int copy : {0, 1}) {
    image->ChangeHeader(copy, [](Bytes&) {});
    image->ChangeRegionTable(copy, [](Bytes&) {});
  }
  Bytes entry = image->file().Read(2 * kMiB - 4096, 4096);
  const Bytes sector = image->file().Read(kMiB, 4096);
  entry.insert(entry.end(), sector.begin(), sector.end());
  vhdx::SealChecksum(entry, 4);
  image->PutLogBytes(kMiB - 4096, entry);
}

TEST_F(HostileTest, DamagedVhdxTablesNeverCrashTheReader) {
  const Pair pair = MakePair();
  pair.parent.WriteTo(folder_ / "parent.vhdx");
  pair.child.WriteTo(folder_ / "child.vhdx");
  const auto file =
      FileSystem::Default().Open(folder_ / "child.vhdx", {.access = Access::kReadWrite});
  ASSERT_TRUE(file.ok());
  std::mt19937_64 random(4711);
  int opened = 0;
  for (int round = 0; round < 600; ++round) {
    VhdxImage image = pair.child;
    FlipVhdx(random, &image);
    // Only what was flipped is written: the tables, and the log.
    for (const uint64_t offset : {uint64_t{0}, 2 * kMiB - 4096, kMiB, image.metadata_offset(),
                                  image.metadata_offset() + 65536, image.bat_offset(),
                                  RoundDown(image.BitmapEntryOffset(0), 4096)}) {
      const size_t length = offset == 0 ? 320 * kKiB : 4096;
      ASSERT_TRUE((*file)->WriteAt(offset, image.file().Read(offset, length)).ok());
    }
    Bytes content;
    if (Survives(folder_ / "child.vhdx", &content)) ++opened;
  }
  // If nothing opened or everything did, the loop tests less than it says.
  EXPECT_GT(opened, 20);
  EXPECT_LT(opened, 550);
}

TEST_F(HostileTest, DamagedVhdTablesNeverCrashTheReader) {
  VhdImage parent({.virtual_size = kDiskBytes, .uuid = 0x77});
  parent.WriteTo(folder_ / "parent.vhd");
  VhdImage child({.type = vhd::Type::kDifferencing,
                  .virtual_size = kDiskBytes,
                  .parent_uuid = 0x77,
                  .relative_path = ".\\parent.vhd"});
  const uint64_t block = child.AddBlock(0, 2);
  child.SetPresent(5, 500);
  child.WriteTo(folder_ / "child.vhd");
  const auto file =
      FileSystem::Default().Open(folder_ / "child.vhd", {.access = Access::kReadWrite});
  ASSERT_TRUE(file.ok());
  std::mt19937_64 random(815);
  int opened = 0;
  for (int round = 0; round < 600; ++round) {
    VhdImage image = child;
    for (uint64_t i = 0; i <= random() % 3; ++i) {
      const uint64_t places[] = {random() % 90,
                                 512 + random() % 200,
                                 512 + 576 + random() % 48,
                                 VhdImage::kTable + random() % 12,
                                 block + random() % 64,
                                 image.end() + random() % 90};
      const uint64_t offset = places[random() % std::size(places)];
      Bytes byte = image.file().Read(offset, 1);
      byte[0] = static_cast<uint8_t>(random() % 3 == 0 ? random() : byte[0] ^ 1 << random() % 8);
      image.file().Write(offset, byte);
    }
    if (random() % 2 == 0) {
      image.ChangeHeader([](Bytes&) {});
      for (const uint64_t offset : {uint64_t{0}, image.end()}) {
        Bytes footer = image.file().Read(offset, 512);
        vhd::SealChecksum(footer, 64);
        image.file().Write(offset, footer);
      }
    }
    ASSERT_TRUE((*file)->WriteAt(0, image.file().Read(0, 16 * kKiB)).ok());
    ASSERT_TRUE((*file)->WriteAt(image.end(), image.file().Read(image.end(), 512)).ok());
    Bytes content;
    if (Survives(folder_ / "child.vhd", &content)) ++opened;
  }
  EXPECT_GT(opened, 20);
  EXPECT_LT(opened, 550);
}

TEST_F(HostileTest, AReadThatFailsIsThatErrorAndNoOther) {
  const Pair pair = MakePair();
  pair.parent.WriteTo(folder_ / "parent.vhdx");
  pair.child.WriteTo(folder_ / "child.vhdx");
  Bytes expected;
  ASSERT_TRUE(Survives(folder_ / "child.vhdx", &expected));
  const auto run = [&](uint64_t fail_at, uint64_t* calls) {
    FaultFileSystem faulty(
        FileSystem::Default(),
        {.kind = FaultPlan::Kind::kRead, .fail_at = fail_at, .code = Code::kRead});
    const auto disk = Disk::Open(faulty, folder_ / "child.vhdx", Buffered());
    Status status = disk.status();
    Bytes content(kDiskBytes);
    if (status.ok()) status = (*disk)->Read(0, content);
    *calls = faulty.calls();
    if (status.ok()) {
      EXPECT_TRUE(content == expected);
      EXPECT_FALSE(faulty.fired());
    } else {
      EXPECT_EQ(CodeName(status.code()), CodeName(Code::kRead)) << status.ToString();
    }
  };
  uint64_t calls = 0;
  run(0, &calls);
  ASSERT_GT(calls, 20u);
  for (uint64_t n = 1; n <= calls; ++n) {
    uint64_t ignored = 0;
    run(n, &ignored);
  }
}

TEST_F(HostileTest, FilesOfNoiseAreRefusedOrRaw) {
  std::mt19937_64 random(99);
  for (int round = 0; round < 40; ++round) {
    SparseBytes file;
    Bytes noise(random() % (2 * kMiB) + 1);
    for (uint8_t& byte : noise) byte = static_cast<uint8_t>(random());
    const char* signature = round % 3 == 0 ? "vhdxfile" : round % 3 == 1 ? "conectix" : "";
    if (noise.size() > 8) std::copy_n(signature, std::strlen(signature), noise.begin());
    file.Write(0, noise);
    file.WriteTo(folder_ / "noise.disk");
    Bytes content;
    const bool survives = Survives(folder_ / "noise.disk", &content);
    if (round % 3 == 2) {
      EXPECT_TRUE(survives && content == noise);
    } else if (noise.size() > 8) {
      EXPECT_FALSE(survives);
    }
  }
}

}  // namespace
}  // namespace firn
