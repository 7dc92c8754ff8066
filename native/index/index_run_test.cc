#include "index/index_run.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <set>

#include "core/crc32c.h"
#include "io/fault_file_system.h"
#include "io/folder_test_util.h"

namespace firn {
namespace {

using Bytes = std::vector<uint8_t>;
using test::Must;

class IndexRunTest : public ::testing::Test {
 protected:
  IndexRunTest() {
    RunId run;
    random_.Fill(run);
    for (uint32_t i = 0; i < 5; ++i) packs_.push_back({{run, 2, i}, kGiB, random_.Id()});
  }

  IndexEntry Entry(const Id& id) {
    const auto stored = static_cast<uint32_t>(random_.Below(100'000));
    return {id,
            static_cast<uint32_t>(random_.Below(packs_.size())),
            static_cast<uint32_t>(random_.Below(kGiB - 200'000)),
            stored,
            static_cast<uint32_t>(random_.Below(kRecordContentMax)),
            random_.OneIn(5) ? RecordClass::kMap : RecordClass::kChunk};
  }
  std::vector<IndexEntry> Entries(size_t count) {
    std::vector<IndexEntry> entries;
    for (size_t i = 0; i < count; ++i) entries.push_back(Entry(random_.Id()));
    return entries;
  }
  std::unique_ptr<IndexRun> Write(std::vector<IndexEntry> entries) {
    std::filesystem::remove(path_);
    Must(WriteIndexRun(fs_, path_, packs_, &entries));
    return Must(IndexRun::Open(fs_, path_));
  }

  static void ExpectSame(const IndexEntry& a, const IndexEntry& b) {
    EXPECT_EQ(a.id, b.id);
    EXPECT_EQ(a.pack, b.pack);
    EXPECT_EQ(a.offset, b.offset);
    EXPECT_EQ(a.stored_length, b.stored_length);
    EXPECT_EQ(a.raw_length, b.raw_length);
    EXPECT_EQ(a.record_class, b.record_class);
  }

  // Lookups of what is there and of neighbours of it, held against a map.
  void ExpectFindsLikeAMap(const std::vector<IndexEntry>& entries) {
    std::multimap<Id, uint32_t> model;
    for (const IndexEntry& entry : entries) model.emplace(entry.id, entry.pack);
    auto run = Write(entries);
    FIRN_ASSERT_OK(run->Verify());
    ASSERT_EQ(run->entries(), model.size());
    std::vector<Id> probes = {Id{}, random_.Id()};
    Id ones;
    ones.fill(0xFF);
    probes.push_back(ones);
    for (const IndexEntry& entry : entries) {
      for (int step : {-1, 0, 1}) {
        Id id = entry.id;
        id[31] = static_cast<uint8_t>(id[31] + step);
        probes.push_back(id);
      }
    }
    // Twice: what a first lookup learns helps those after it, to the same end.
    probes.insert(probes.end(), probes.begin(), probes.end());
    for (const Id& id : probes) {
      const IndexRun::Range range = run->Find(id);
      ASSERT_LE(range.first, range.last);
      ASSERT_LE(range.last, run->entries());
      ASSERT_EQ(range.last - range.first, model.count(id));
      if (range.first != range.last) {
        ASSERT_TRUE(run->MayContain(id));
      }
      std::set<uint32_t> found, expected;
      for (uint64_t i = range.first; i < range.last; ++i) {
        ASSERT_EQ(run->Entry(i).id, id);
        found.insert(run->Entry(i).pack);
      }
      const auto [begin, end] = model.equal_range(id);
      for (auto it = begin; it != end; ++it) expected.insert(it->second);
      ASSERT_EQ(found, expected);
    }
  }

  FileSystem& fs_ = FileSystem::Default();
  test::TestFolder folder_;
  test::Random random_{121};
  std::vector<IndexPack> packs_;
  const std::string path_ = folder_ / "a.idx";
};

TEST_F(IndexRunTest, GivesBackWhatWasPutIn) {
  for (size_t count : {0, 1, 2, 100, 20'000}) {
    std::vector<IndexEntry> entries = Entries(count);
    auto run = Write(entries);
    EXPECT_EQ(run->path(), path_);
    ASSERT_EQ(run->packs().size(), packs_.size());
    for (size_t i = 0; i < packs_.size(); ++i) {
      EXPECT_EQ(run->packs()[i].name, packs_[i].name);
      EXPECT_EQ(run->packs()[i].file_bytes, packs_[i].file_bytes);
      EXPECT_EQ(run->packs()[i].hash, packs_[i].hash);
    }
    FIRN_EXPECT_OK(run->Verify());
    std::ranges::sort(entries, {}, &IndexEntry::id);
    ASSERT_EQ(run->entries(), count);
    for (size_t i = 0; i < count; ++i) ExpectSame(run->Entry(i), entries[i]);
  }
}

TEST_F(IndexRunTest, StandsAsTheFormatPageSays) {
  const IndexEntry entry = Entry(random_.Id());
  Write({entry});
  const Bytes bytes = test::ReadWholeFile(path_);
  ASSERT_EQ(bytes.size(), 4096u + 48 + 32);
  EXPECT_EQ(std::memcmp(bytes.data(), "FIRNINDX", 8), 0);
  EXPECT_EQ(LoadLe<uint16_t>(&bytes[8]), 1);
  EXPECT_EQ(LoadLe<uint32_t>(&bytes[12]), packs_.size());
  EXPECT_EQ(LoadLe<uint64_t>(&bytes[16]), 1u);
  EXPECT_EQ(LoadLe<uint64_t>(&bytes[24]), 128 + packs_.size() * 64);
  EXPECT_EQ(LoadLe<uint64_t>(&bytes[32]), 64u);
  EXPECT_EQ(LoadLe<uint64_t>(&bytes[40]), 4096u);
  EXPECT_EQ(LoadLe<uint64_t>(&bytes[48]), bytes.size());
  EXPECT_EQ(LoadLe<uint32_t>(&bytes[124]), Crc32cPortable(std::span(bytes).first(124)));
  // One block: bit i of the probes comes from 9 bits of the id's second u64, the last from the
  // third.
  Bytes filter(64);
  const uint64_t b = LoadLe<uint64_t>(&entry.id[8]), c = LoadLe<uint64_t>(&entry.id[16]);
  for (int i = 0; i < 8; ++i) {
    const uint64_t bit = i < 7 ? b >> (9 * i) & 511 : c & 511;
    filter[bit / 8] = static_cast<uint8_t>(filter[bit / 8] | 1u << (bit % 8));
  }
  EXPECT_EQ(std::memcmp(&bytes[128 + packs_.size() * 64], filter.data(), 64), 0);
  EXPECT_EQ(std::memcmp(&bytes[4096], entry.id.data(), 32), 0);
  EXPECT_EQ(LoadLe<uint32_t>(&bytes[4096 + 32]), entry.pack);
  EXPECT_EQ(LoadLe<uint32_t>(&bytes[4096 + 36]), entry.offset);
  EXPECT_EQ(LoadLe<uint32_t>(&bytes[4096 + 40]), entry.stored_length);
  EXPECT_EQ(LoadLe<uint32_t>(&bytes[4096 + 44]),
            entry.raw_length | static_cast<uint32_t>(entry.record_class) << 24);
  const Id hash = Blake3(std::span(bytes).first(bytes.size() - 32));
  EXPECT_EQ(std::memcmp(&bytes[bytes.size() - 32], hash.data(), 32), 0);
}

TEST_F(IndexRunTest, FindsLikeAMapOverRandomIds) {
  for (size_t count : {0, 1, 2, 3, 50, 5000}) ExpectFindsLikeAMap(Entries(count));
}

// Places are guessed from an id's first bytes: make every guess as bad as can be.
TEST_F(IndexRunTest, FindsLikeAMapWhateverTheIdsBeginWith) {
  const std::vector<std::pair<size_t, uint8_t>> shapes = {
      {8, 0x00}, {8, 0xFF}, {8, 0x77}, {31, 0x00}, {31, 0xFF}, {16, 0x80}, {1, 0xFF}};
  for (const auto& [equal, byte] : shapes) {
    std::map<Id, IndexEntry> entries;
    for (int i = 0; i < 700; ++i) {
      Id id = random_.Id();
      std::fill_n(id.begin(), equal, byte);
      entries[id] = Entry(id);
    }
    std::vector<IndexEntry> list;
    for (const auto& [id, entry] : entries) list.push_back(entry);
    ExpectFindsLikeAMap(list);
  }
  // Two heaps at the ends and nothing between.
  std::vector<IndexEntry> heaps = Entries(400);
  for (size_t i = 0; i < heaps.size(); ++i) std::fill_n(heaps[i].id.begin(), 4, i < 390 ? 0xFF : 0);
  ExpectFindsLikeAMap(heaps);
}

TEST_F(IndexRunTest, AnIdMayStandOnceForEachPack) {
  std::vector<IndexEntry> entries;
  for (int i = 0; i < 50; ++i) {
    const Id id = random_.Id();
    for (uint32_t pack = 0; pack < packs_.size();
         pack += static_cast<uint32_t>(random_.Between(1, 3))) {
      entries.push_back(Entry(id));
      entries.back().pack = pack;
    }
  }
  ExpectFindsLikeAMap(entries);
  std::vector<IndexEntry> twice = entries;
  twice.insert(twice.end(), entries.begin(), entries.end());
  EXPECT_EQ(Write(twice)->entries(), entries.size());
}

TEST_F(IndexRunTest, TheFilterNeverDeniesWhatIsThereAndSeldomAffirmsWhatIsNot) {
  const std::vector<IndexEntry> entries = Entries(30'000);
  auto run = Write(entries);
  for (const IndexEntry& entry : entries) ASSERT_TRUE(run->MayContain(entry.id));
  int wrong = 0;
  constexpr int kProbes = 100'000;
  for (int i = 0; i < kProbes; ++i) wrong += run->MayContain(random_.Id()) ? 1 : 0;
  EXPECT_LT(wrong, kProbes / 50);
}

TEST_F(IndexRunTest, EveryFlippedBitIsNoticed) {
  Write(Entries(20));
  const Bytes good = test::ReadWholeFile(path_);
  for (uint64_t bit = 0; bit < good.size() * 8; bit += bit < 128 * 8 ? 1 : 11) {
    test::FlipBit(path_, bit);
    auto run = IndexRun::Open(fs_, path_);
    const Status status = run.ok() ? (*run)->Verify() : run.status();
    ASSERT_EQ(status.code(), Code::kCorruptIndex) << bit;
    ASSERT_EQ(status.path(), path_);
    test::FlipBit(path_, bit);
  }
}

TEST_F(IndexRunTest, CutOrLongerFilesAreRefused) {
  Write(Entries(300));
  const Bytes good = test::ReadWholeFile(path_);
  for (size_t length = 0; length < good.size(); length += random_.Between(1, 500)) {
    test::WriteWholeFile(path_, std::span(good).first(length));
    ASSERT_EQ(IndexRun::Open(fs_, path_).status().code(), Code::kCorruptIndex) << length;
  }
  Bytes longer = good;
  longer.push_back(0);
  test::WriteWholeFile(path_, longer);
  EXPECT_EQ(IndexRun::Open(fs_, path_).status().code(), Code::kCorruptIndex);
}

TEST_F(IndexRunTest, HostileHeadersAreRefused) {
  Write(Entries(300));
  const Bytes good = test::ReadWholeFile(path_);
  const auto code_with = [&](size_t at, uint64_t value, size_t width) {
    Bytes bytes = good;
    std::memcpy(&bytes[at], &value, width);
    StoreLe(&bytes[124], Crc32c(std::span(bytes).first(124)));
    test::WriteWholeFile(path_, bytes);
    return IndexRun::Open(fs_, path_).status().code();
  };
  EXPECT_EQ(code_with(8, 1, 2), Code::kOk);
  EXPECT_EQ(code_with(8, 2, 2), Code::kVersion);
  for (uint64_t hostile : {uint64_t{0}, uint64_t{1}, uint64_t{0x7FFFFFFF}, uint64_t{0xFFFFFFFF},
                           uint64_t{1} << 63, ~uint64_t{0}, ~uint64_t{0} / 48, ~uint64_t{0} / 12}) {
    EXPECT_EQ(code_with(12, hostile, 4), Code::kCorruptIndex) << hostile;
    for (size_t at : {16, 24, 32, 40, 48}) {
      EXPECT_EQ(code_with(at, hostile, 8), Code::kCorruptIndex) << at << " " << hostile;
    }
  }
}

TEST_F(IndexRunTest, AHeaderWithReservedBytesOrVersionZeroIsRefused) {
  Write(Entries(3));
  const Bytes good = test::ReadWholeFile(path_);
  const auto code_with = [&](size_t at, uint8_t value) {
    Bytes bytes = good;
    bytes[at] = value;
    StoreLe(&bytes[124], Crc32c(std::span(bytes).first(124)));
    test::WriteWholeFile(path_, bytes);
    return IndexRun::Open(fs_, path_).status().code();
  };
  EXPECT_EQ(code_with(8, 0), Code::kCorruptIndex);
  EXPECT_EQ(code_with(10, 1), Code::kCorruptIndex);
  for (size_t at : {56, 57, 100, 123}) EXPECT_EQ(code_with(at, 1), Code::kCorruptIndex) << at;
}

// What Open can't see without reading everything, lookups must survive and Verify must name.
TEST_F(IndexRunTest, EntriesThatNoIndexHasAreSurvivedByLookupsAndNamedByVerify) {
  const std::vector<IndexEntry> entries = Entries(200);
  Write(entries);
  const Bytes good = test::ReadWholeFile(path_);
  const uint64_t entries_offset = LoadLe<uint64_t>(&good[40]);
  for (int i = 0; i < 100; ++i) {
    Bytes bytes = good;
    for (uint64_t j = random_.Between(1, 20); j > 0; --j) {
      const uint64_t at = entries_offset + random_.Below(200) * kIndexEntryBytes;
      random_.Fill(std::span(bytes).subspan(at, random_.OneIn(2) ? 32 : 48));
    }
    const Id hash = Blake3(std::span(bytes).first(bytes.size() - 32));
    std::memcpy(&bytes[bytes.size() - 32], hash.data(), 32);
    test::WriteWholeFile(path_, bytes);
    auto run = Must(IndexRun::Open(fs_, path_));
    for (int again = 0; again < 2; ++again) {
      for (const IndexEntry& entry : entries) {
        const IndexRun::Range range = run->Find(entry.id);
        ASSERT_LE(range.first, range.last);
        ASSERT_LE(range.last, run->entries());
      }
    }
    EXPECT_EQ(run->Verify().code(), Code::kCorruptIndex);
  }
}

TEST_F(IndexRunTest, ANameThatIsTakenIsNotTakenAgain) {
  std::vector<IndexEntry> entries = Entries(10);
  FIRN_ASSERT_OK(WriteIndexRun(fs_, path_, packs_, &entries));
  const Bytes before = test::ReadWholeFile(path_);
  std::vector<IndexEntry> others = Entries(11);
  EXPECT_EQ(WriteIndexRun(fs_, path_, packs_, &others).code(), Code::kExists);
  EXPECT_EQ(test::ReadWholeFile(path_), before);
  EXPECT_EQ(test::FilesBelow(folder_.path()).size(), 1u);
}

TEST_F(IndexRunTest, WhereverWritingFailsNothingIncompleteHasAName) {
  for (FaultPlan::Kind kind :
       {FaultPlan::Kind::kWrite, FaultPlan::Kind::kSync, FaultPlan::Kind::kName}) {
    for (uint64_t n = 1;; ++n) {
      ASSERT_LT(n, 100u);
      std::filesystem::remove(path_);
      FaultFileSystem faulty(fs_, {.kind = kind, .fail_at = n, .code = Code::kDiskFull});
      std::vector<IndexEntry> entries = Entries(40'000);
      const Status status = WriteIndexRun(faulty, path_, packs_, &entries);
      EXPECT_EQ(status.ok(), !faulty.fired());
      for (const std::string& name : test::FilesBelow(folder_.path())) {
        ASSERT_EQ(name, "a.idx");
        FIRN_EXPECT_OK(Must(IndexRun::Open(fs_, path_))->Verify());
      }
      if (!faulty.fired()) break;
      EXPECT_EQ(status.code(), Code::kDiskFull);
    }
  }
}

}  // namespace
}  // namespace firn
