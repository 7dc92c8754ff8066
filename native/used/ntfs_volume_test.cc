// An $MFT in so many pieces that it needs an attribute list, as on large and old volumes. ntfs-3g
// does not get there in a test's time, so a volume is changed into one by hand, and ntfs-3g's
// programs say whether that is right.

#include "used/ntfs_volume.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "used/ntfs_record.h"
#include "used/ntfs_test_util.h"
#include "used/used_test_util.h"

namespace firn {
namespace {

using namespace used_test;     // NOLINT: test support
using image_test::MustOpen;    // NOLINT
using image_test::TestFolder;  // NOLINT

constexpr uint64_t kSize = 24 * kMiB;
constexpr uint64_t kExtension = 15;  // a reserved record, which NTFS uses for this as well
constexpr uint32_t kList = 0x20;
constexpr uint32_t kData = 0x80;

class FragmentedMftTest : public ::testing::Test {
 protected:
  void SetUp() override {
    FIRN_NEED_NTFS_3G();
    image_ = folder_ / "ntfs.raw";
    ASSERT_TRUE(MakeNtfs(image_, kSize));
    ASSERT_TRUE(InNtfs(folder_, image_,
                       "mkdir d; for i in $(seq 300); do echo $i > d/a_name_of_a_file_$i; done; "
                       "head -c 3000000 /dev/urandom > a; head -c 900000 /dev/urandom > b; rm b"));
    bytes_.Write(0, image_test::ReadAll(*MustOpen(image_)));
    mft_ = LoadLe<uint64_t>(bytes_.Read(0x30, 8).data()) * 4096;
  }

  // A record's head and attributes, without fixups.
  struct Parts {
    Bytes head;
    std::vector<Bytes> attributes;
  };
  Parts Take(uint64_t number) const {
    Bytes record = bytes_.Read(mft_ + number * 1024, 1024);
    EXPECT_TRUE(ApplyFixups(record));
    const uint16_t first = LoadLe<uint16_t>(&record[0x14]);
    Parts parts{Bytes(record.begin(), record.begin() + first), {}};
    for (size_t at = first; LoadLe<uint32_t>(&record[at]) != ~0u;) {
      const uint32_t length = LoadLe<uint32_t>(&record[at + 4]);
      const auto begin = record.begin() + static_cast<ptrdiff_t>(at);
      parts.attributes.emplace_back(begin, begin + static_cast<ptrdiff_t>(length));
      at += length;
    }
    return parts;
  }
  void Put(uint64_t number, const Parts& parts) {
    Bytes record = parts.head;
    for (const Bytes& attribute : parts.attributes) {
      record.insert(record.end(), attribute.begin(), attribute.end());
    }
    record.insert(record.end(), {0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0});
    ASSERT_LE(record.size(), 510u * 2);
    StoreLe<uint32_t>(&record[0x18], static_cast<uint32_t>(record.size()));
    record.resize(1024);
    const size_t fixups = LoadLe<uint16_t>(&record[4]);
    for (size_t i = 1; i <= 2; ++i) {
      std::memcpy(&record[fixups + 2 * i], &record[512 * i - 2], 2);
      std::memcpy(&record[512 * i - 2], &record[fixups], 2);
    }
    bytes_.Write(mft_ + number * 1024, record);
  }

  static Bytes DataPiece(const Bytes& whole, const std::vector<NtfsRun>& runs) {
    Bytes piece(whole.begin(), whole.begin() + 0x40);
    uint64_t lcn = 0;
    for (const NtfsRun& run : runs) {
      Bytes encoded(1 + 4 + 8);
      encoded[0] = 0x84;
      StoreLe<uint32_t>(&encoded[1], static_cast<uint32_t>(run.length));
      StoreLe<uint64_t>(&encoded[5], run.lcn - lcn);
      lcn = run.lcn;
      piece.insert(piece.end(), encoded.begin(), encoded.end());
    }
    piece.push_back(0);
    piece.resize(RoundUp(piece.size(), 8));
    StoreLe<uint32_t>(&piece[4], static_cast<uint32_t>(piece.size()));
    StoreLe<uint64_t>(&piece[0x10], runs.front().vcn);
    StoreLe<uint64_t>(&piece[0x18], runs.back().vcn + runs.back().length - 1);
    StoreLe<uint16_t>(&piece[0x20], 0x40);
    if (runs.front().vcn > 0) std::fill_n(&piece[0x28], 24, uint8_t{0});
    return piece;
  }

  static Bytes ListEntry(const Bytes& attribute, uint64_t record, uint16_t sequence) {
    Bytes entry(32);
    std::copy_n(attribute.begin(), 4, entry.begin());
    entry[4] = 32;
    entry[6] = attribute[9];
    entry[7] = 26;
    if (attribute[8] != 0) std::copy_n(&attribute[0x10], 8, &entry[8]);
    StoreLe<uint64_t>(&entry[16], record | uint64_t{sequence} << 48);
    std::copy_n(&attribute[0x0E], 2, &entry[24]);
    return entry;
  }

  // Moves what lies behind the $MFT's first clusters to an extension record.
  void Split() {
    Parts base = Take(0);
    Parts extension = Take(kExtension);
    const uint16_t sequence = LoadLe<uint16_t>(&extension.head[0x10]);
    StoreLe<uint64_t>(&extension.head[0x20], uint64_t{1} << 48);
    StoreLe<uint16_t>(&extension.head[0x12], 0);
    extension.attributes.clear();
    Bytes list(0x18);
    for (Bytes& attribute : base.attributes) {
      const bool is_data = LoadLe<uint32_t>(attribute.data()) == kData;
      if (!is_data) {
        const Bytes entry = ListEntry(attribute, 0, 1);
        list.insert(list.end(), entry.begin(), entry.end());
        continue;
      }
      NtfsAttribute parsed;
      parsed.last_vcn = LoadLe<uint64_t>(&attribute[0x18]);
      parsed.mapping = std::span(attribute).subspan(LoadLe<uint16_t>(&attribute[0x20]));
      const auto runs = DecodeNtfsRuns(parsed, kSize / 4096);
      ASSERT_TRUE(runs && !runs->empty());
      // The first run's first part stays: it has the extension record in it.
      constexpr uint64_t kStays = 5;
      std::vector<NtfsRun> rest = *runs;
      ASSERT_GT(rest[0].length, kStays);
      rest[0] = {kStays, rest[0].lcn + kStays, rest[0].length - kStays, false};
      extension.attributes.push_back(DataPiece(attribute, rest));
      attribute = DataPiece(attribute, {{0, (*runs)[0].lcn, kStays, false}});
      const Bytes first = ListEntry(attribute, 0, 1);
      const Bytes second = ListEntry(extension.attributes[0], kExtension, sequence);
      list.insert(list.end(), first.begin(), first.end());
      list.insert(list.end(), second.begin(), second.end());
    }
    StoreLe<uint32_t>(&list[0], kList);
    StoreLe<uint32_t>(&list[4], static_cast<uint32_t>(list.size()));
    StoreLe<uint32_t>(&list[0x10], static_cast<uint32_t>(list.size() - 0x18));
    StoreLe<uint16_t>(&list[0x14], 0x18);
    StoreLe<uint16_t>(&list[0x0E], 30);
    base.attributes.insert(base.attributes.begin() + 1, list);
    Put(0, base);
    Put(kExtension, extension);
    // The mirror has the first four records.
    const uint64_t mirror = LoadLe<uint64_t>(bytes_.Read(0x38, 8).data()) * 4096;
    bytes_.Write(mirror, bytes_.Read(mft_, 4096));
  }

  TestFolder folder_;
  std::string image_;
  SparseBytes bytes_;
  uint64_t mft_ = 0;
};

TEST_F(FragmentedMftTest, ItsPiecesAreFoundThroughTheList) {
  const UsedMap before = Find(bytes_);
  ASSERT_GT(before.skipped_bytes, 8 * kMiB);
  const std::string content = ContentByNtfs3g(folder_, image_);
  Split();
  const std::string split = folder_ / "split.raw";
  bytes_.WriteTo(split);
  EXPECT_EQ(ContentByNtfs3g(folder_, split), content);
  const UsedMap map = Find(bytes_);
  EXPECT_EQ(map.partitions[0].reason, "");
  EXPECT_EQ(map.skipped, before.skipped);
  EXPECT_GT(map.read_bytes, before.read_bytes);
}

TEST_F(FragmentedMftTest, AListThatLiesKeepsTheVolume) {
  Split();
  const SparseBytes whole = bytes_;
  const auto with = [&](auto change) {
    bytes_ = whole;
    Parts base = Take(0);
    change(&base.attributes[1]);
    Put(0, base);
    return Find(bytes_);
  };
  const auto entry = [](Bytes* list, uint32_t vcn_is_zero) -> uint8_t* {
    for (size_t at = 0x18; at < list->size(); at += 32) {
      const bool first = LoadLe<uint64_t>(&(*list)[at + 8]) == 0;
      if (LoadLe<uint32_t>(&(*list)[at]) == kData && first == (vcn_is_zero != 0)) {
        return &(*list)[at];
      }
    }
    ADD_FAILURE();
    return nullptr;
  };
  EXPECT_GT(with([](Bytes*) {}).skipped_bytes, 8 * kMiB);
  ExpectKept(with([&](Bytes* l) { StoreLe<uint16_t>(entry(l, 0) + 4, 0); }), "inconsistent");
  ExpectKept(with([&](Bytes* l) { StoreLe<uint16_t>(entry(l, 0) + 4, 2000); }), "inconsistent");
  ExpectKept(with([&](Bytes* l) { StoreLe<uint64_t>(entry(l, 0) + 8, 6); }), "inconsistent");
  ExpectKept(with([&](Bytes* l) { StoreLe<uint64_t>(entry(l, 0) + 16, 14); }), "inconsistent");
  ExpectKept(with([&](Bytes* l) { StoreLe<uint64_t>(entry(l, 0) + 16, ~uint64_t{0}); }),
             "inconsistent");
  // Without the piece the $MFT is too short for its size.
  ExpectKept(with([&](Bytes* l) { StoreLe<uint32_t>(entry(l, 0), 0x90); }), "inconsistent");
}

TEST_F(FragmentedMftTest, AHugeTableOfZerosIsGivenUpSoon) {
  // On a disk of 8 TiB that has nothing behind its first part, $MFT claims 2 TiB and $Bitmap what
  // it has to.
  bytes_.Resize(8 * kTiB);
  Bytes sectors(8);
  StoreLe<uint64_t>(sectors.data(), 8 * kTiB / 512 - 1);
  bytes_.Write(0x28, sectors);
  const auto grow = [&](uint64_t number, uint64_t at, uint64_t length, bool append) {
    Parts parts = Take(number);
    for (Bytes& attribute : parts.attributes) {
      if (LoadLe<uint32_t>(attribute.data()) != kData) continue;
      std::vector<NtfsRun> runs;
      if (append) {
        const uint64_t clusters = LoadLe<uint64_t>(&attribute[0x18]) + 1;
        ASSERT_EQ(attribute[0x40] >> 4, 1);
        runs.push_back({0, mft_ / 4096, clusters, false});
      }
      const uint64_t vcn = append ? runs[0].length : 0;
      runs.push_back({vcn, at / 4096, length / 4096, false});
      attribute = DataPiece(attribute, runs);
      for (const uint64_t field : {0x28u, 0x30u, 0x38u}) {
        StoreLe<uint64_t>(&attribute[field], vcn * 4096 + length);
      }
    }
    Put(number, parts);
  };
  grow(0, 4 * kTiB, 2 * kTiB, true);
  grow(6, 2 * kTiB, 8 * kTiB / 4096 / 8, false);
  const UsedMap map = Find(bytes_);
  ExpectKept(map, "limits");
  EXPECT_LT(map.read_bytes, 256 * kMiB);
}

}  // namespace
}  // namespace firn
