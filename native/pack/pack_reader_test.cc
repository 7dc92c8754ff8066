#include "pack/pack_reader.h"

#include <algorithm>
#include <filesystem>
#include <thread>

#include "pack/pack_test_util.h"

namespace firn {
namespace {

using Bytes = std::vector<uint8_t>;
using test::Must;
using test::StripeFiller;

class PackReaderTest : public ::testing::Test {
 protected:
  PackReaderTest() : keys_(random_.Id()), name_{test::RandomRun(&random_), 0, 0} {}

  // One pack of these contents.
  void WritePack(const std::vector<Bytes>& contents, const CompressionOptions& compression,
                 size_t stripe_bytes = 64 * kKiB) {
    auto writer = packs_.Writer(name_.run, kGiB);
    StripeFiller filler(writer.get(), PackClass::kData, compression, stripe_bytes);
    for (const Bytes& content : contents) {
      FIRN_ASSERT_OK(filler.Add(Blake3Keyed(keys_.chunk, content), content));
    }
    FIRN_ASSERT_OK(filler.Flush());
    FIRN_ASSERT_OK(writer->Close());
    ASSERT_EQ(packs_.tables().size(), 1u);
  }
  std::vector<Bytes> RandomContents(size_t count, size_t bytes_max) {
    std::vector<Bytes> contents;
    for (size_t i = 0; i < count; ++i)
      contents.push_back(random_.Bytes(random_.Between(1, bytes_max)));
    return contents;
  }
  std::string path() const { return packs_.PathOf(name_); }
  const PackTable& table() const { return packs_.tables().at(name_); }
  PackTable Scan() { return Must(ScanPackRecords(test::OpenToRead(path()).get())); }

  static void ExpectSameRecords(const std::vector<PackRecord>& found,
                                const std::vector<PackRecord>& expected) {
    ASSERT_EQ(found.size(), expected.size());
    for (size_t i = 0; i < found.size(); ++i) {
      EXPECT_EQ(found[i].id, expected[i].id);
      EXPECT_EQ(found[i].offset, expected[i].offset);
      EXPECT_EQ(found[i].stored_length, expected[i].stored_length);
      EXPECT_EQ(found[i].raw_length, expected[i].raw_length);
      EXPECT_EQ(found[i].record_class, expected[i].record_class);
      EXPECT_EQ(found[i].codec, expected[i].codec);
    }
  }

  test::Random random_{111};
  const RepositoryKeys keys_;
  const PackName name_;
  test::PackFolder packs_;
};

TEST_F(PackReaderTest, AScanFindsExactlyTheRecordsOfTheTable) {
  WritePack(RandomContents(150, 3000), {Codec::kLz4, 1});
  ExpectSameRecords(Scan().records, table().records);
}

// Records that begin and end on every side of the scan's window of 4 MiB.
TEST_F(PackReaderTest, AScanFindsRecordsAcrossItsWindows) {
  WritePack(RandomContents(5000, 3500), {Codec::kRaw, 0}, 2 * kMiB);
  ASSERT_GT(table().file_bytes, 8 * kMiB);
  ExpectSameRecords(Scan().records, table().records);
}

TEST_F(PackReaderTest, AScanGetsOverRecordsLargerThanItsWindow) {
  std::vector<Bytes> contents = RandomContents(10, 100);
  contents.push_back(random_.Bytes(8 * kMiB));
  for (Bytes& content : RandomContents(10, 100)) contents.push_back(std::move(content));
  WritePack(contents, {Codec::kRaw, 0}, 9 * kMiB);
  ExpectSameRecords(Scan().records, table().records);
}

TEST_F(PackReaderTest, AScanIsNotFooledByRecordsInsideRecords) {
  // A backup of a repository: chunks that hold whole records of another.
  std::vector<Bytes> contents;
  auto encoder = Must(RecordEncoder::Create({Codec::kRaw, 0}));
  for (int i = 0; i < 20; ++i) {
    const Bytes inner = random_.Bytes(500);
    Bytes outer = random_.Bytes(4096);
    encoder->Encode(RecordClass::kChunk, Blake3Keyed(keys_.chunk, inner), inner,
                    &outer[random_.Below(3000)]);
    contents.push_back(std::move(outer));
  }
  WritePack(contents, {Codec::kRaw, 0});
  ExpectSameRecords(Scan().records, table().records);
}

TEST_F(PackReaderTest, AScanLosesTheDamagedRecordAndNoOther) {
  WritePack(RandomContents(40, 2000), {Codec::kRaw, 0});
  for (size_t damaged = 0; damaged < table().records.size(); ++damaged) {
    const PackRecord& record = table().records[damaged];
    std::vector<PackRecord> expected = table().records;
    expected.erase(expected.begin() + static_cast<ptrdiff_t>(damaged));
    for (uint64_t length : {kRecordHeaderBytes, kRecordHeaderBytes + record.stored_length}) {
      const uint64_t bit = uint64_t{record.offset} * 8 + random_.Below(length * 8);
      test::FlipBit(path(), bit);
      ExpectSameRecords(Scan().records, expected);
      test::FlipBit(path(), bit);
    }
  }
}

TEST_F(PackReaderTest, AHeaderInsideADamagedRecordHidesNoRecordBehindIt) {
  std::vector<Bytes> contents = RandomContents(30, 2000);
  // Claims all that follows it as its own stored bytes.
  RecordHeader liar{.raw_length = 20'000, .stored_length = 20'000};
  liar.id = random_.Id();
  Bytes content = random_.Bytes(4096);
  liar.Encode(&content[1000]);
  contents.insert(contents.begin() + 5, content);
  WritePack(contents, {Codec::kRaw, 0});
  test::FlipBit(path(), uint64_t{table().records[5].offset} * 8);
  std::vector<PackRecord> expected = table().records;
  expected.erase(expected.begin() + 5);
  ExpectSameRecords(Scan().records, expected);
}

TEST_F(PackReaderTest, AScanOfACutPackFindsWhatIsStillWhole) {
  WritePack(RandomContents(40, 2000), {Codec::kRaw, 0});
  const Bytes whole = test::ReadWholeFile(path());
  for (int i = 0; i < 60; ++i) {
    const uint64_t length = random_.Below(whole.size());
    test::WriteWholeFile(path(), std::span(whole).first(length));
    std::vector<PackRecord> expected = table().records;
    std::erase_if(expected, [&](const PackRecord& record) {
      return uint64_t{record.offset} + kRecordHeaderBytes + record.stored_length > length;
    });
    ExpectSameRecords(Scan().records, expected);
  }
}

TEST_F(PackReaderTest, AScanOfAnythingElseFindsNothingAndEnds) {
  std::filesystem::create_directories(std::filesystem::path(path()).parent_path());
  for (size_t size : {0, 1, 3, 63, 64, 65, 4096, 5000}) {
    for (const Bytes& bytes : {Bytes(size), random_.Bytes(size)}) {
      test::WriteWholeFile(path(), bytes);
      EXPECT_TRUE(Scan().records.empty());
    }
  }
  // Magic everywhere, also at the very end.
  for (size_t size : {64, 66, 4096, 4099}) {
    Bytes bytes(size);
    for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<uint8_t>("FIRR"[i % 4]);
    test::WriteWholeFile(path(), bytes);
    EXPECT_TRUE(Scan().records.empty());
  }
}

TEST_F(PackReaderTest, EveryFlippedBitOfAPacksFooterIsNoticed) {
  WritePack(RandomContents(5, 300), {Codec::kRaw, 0});
  for (uint64_t bit = table().footer_offset * 8; bit < table().file_bytes * 8; bit += 7) {
    test::FlipBit(path(), bit);
    const Status status = ReadPackTable(test::OpenToRead(path()).get()).status();
    ASSERT_EQ(status.code(), Code::kCorruptPack) << bit;
    ASSERT_EQ(status.path(), path());
    test::FlipBit(path(), bit);
  }
  FIRN_EXPECT_OK(ReadPackTable(test::OpenToRead(path()).get()));
}

TEST_F(PackReaderTest, APackOfAnotherLengthIsRefused) {
  WritePack(RandomContents(5, 300), {Codec::kRaw, 0});
  const Bytes whole = test::ReadWholeFile(path());
  for (size_t length :
       {size_t{0}, size_t{95}, size_t{96}, size_t{4096}, whole.size() - 4096, whole.size() - 1}) {
    test::WriteWholeFile(path(), std::span(whole).first(length));
    EXPECT_EQ(ReadPackTable(test::OpenToRead(path()).get()).status().code(), Code::kCorruptPack);
  }
  Bytes longer = whole;
  longer.resize(whole.size() + 4096);
  test::WriteWholeFile(path(), longer);
  EXPECT_EQ(ReadPackTable(test::OpenToRead(path()).get()).status().code(), Code::kCorruptPack);
}

TEST_F(PackReaderTest, PackFilesSayWhichPackIsMissing) {
  PackFiles files(FileSystem::Default(), packs_.root(), false);
  const Status status = files.Open(name_).status();
  EXPECT_EQ(status.code(), Code::kPackMissing);
  EXPECT_EQ(status.path(), path());
  EXPECT_TRUE(status.data_loss());
}

TEST_F(PackReaderTest, FilesHandedOutOutliveTheBoundOnOpenOnes) {
  std::vector<PackName> names;
  for (uint32_t i = 0; i < 12; ++i) {
    names.push_back({name_.run, 0, i});
    std::filesystem::create_directories(std::filesystem::path(path()).parent_path());
    test::WriteWholeFile(packs_.PathOf(names.back()), Bytes(64, static_cast<uint8_t>(i)));
  }
  PackFiles files(FileSystem::Default(), packs_.root(), false, 3);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      test::Random random(static_cast<uint64_t>(t));
      std::vector<std::pair<size_t, std::shared_ptr<File>>> held;
      for (int i = 0; i < 200; ++i) {
        const size_t pick = random.Below(names.size());
        held.emplace_back(pick, Must(files.Open(names[pick])));
        if (held.size() > 6) held.erase(held.begin());
        const auto& [index, file] = held[random.Below(held.size())];
        Bytes bytes(64);
        FIRN_EXPECT_OK(file->ReadAt(0, bytes));
        EXPECT_EQ(bytes, Bytes(64, static_cast<uint8_t>(index)));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace firn
