#include "pack/pack_writer.h"

#include <algorithm>
#include <set>
#include <thread>

#include "io/fault_file_system.h"
#include "pack/pack_test_util.h"

namespace firn {
namespace {

using test::Must;
using test::StripeFiller;

class PackWriterTest : public ::testing::Test {
 protected:
  PackWriterTest() : keys_(random_.Id()), run_(test::RandomRun(&random_)) {}

  Id IdOf(PackClass pack_class, std::span<const uint8_t> content) const {
    return Blake3Keyed(pack_class == PackClass::kData ? keys_.chunk : keys_.map, content);
  }
  Status AddRandom(StripeFiller* filler, test::Random* random, PackClass pack_class,
                   std::set<Id>* ids) {
    std::vector<uint8_t> content = random->Bytes(random->Between(1, 16 * kKiB));
    std::fill_n(content.begin(), random->Below(content.size()), uint8_t{0});
    const Id id = IdOf(pack_class, content);
    ids->insert(id);
    return filler->Add(id, content);
  }

  static Id HashOfHeaders(const PackTable& table, const PackStripe& stripe,
                          std::span<const uint8_t> bytes) {
    std::vector<uint8_t> headers(bytes.begin(), bytes.begin() + kStripeHeaderBytes);
    for (const PackRecord& record : table.records) {
      if (record.offset < stripe.offset || record.offset >= stripe.offset + stripe.length) continue;
      const auto header = bytes.subspan(record.offset - stripe.offset, kRecordHeaderBytes);
      headers.insert(headers.end(), header.begin(), header.end());
    }
    return Blake3(headers);
  }

  // Reads a pack from the file alone and holds it against itself, record by record and stripe by
  // stripe.
  void ExpectWhole(const PackName& name, std::set<Id>* ids) {
    auto file = test::OpenToRead(packs_.PathOf(name));
    const PackTable table = Must(ReadPackTable(file.get()));
    const PackTable& announced = packs_.tables().at(name);
    EXPECT_EQ(table.hash, announced.hash);
    EXPECT_EQ(table.file_bytes, announced.file_bytes);
    EXPECT_EQ(table.file_bytes, Must(file->Size()));
    ASSERT_EQ(table.records.size(), announced.records.size());
    std::optional<PackClass> pack_class;
    for (const PackStripe& stripe : table.stripes) {
      std::vector<uint8_t> bytes(stripe.length);
      FIRN_ASSERT_OK(file->ReadAt(stripe.offset, bytes));
      EXPECT_EQ(HashOfHeaders(table, stripe, bytes), stripe.hash);
      const StripeHeader header = Must(StripeHeader::Decode(bytes));
      EXPECT_EQ(header.name, name);
      EXPECT_EQ(header.offset, stripe.offset);
      EXPECT_EQ(header.pack_class, pack_class.value_or(header.pack_class));
      pack_class = header.pack_class;
    }
    RecordDecoder decoder(keys_);
    uint32_t end = 0;
    for (const PackRecord& record : table.records) {
      EXPECT_GE(record.offset, end) << "out of order";
      end = record.offset + kRecordHeaderBytes + record.stored_length;
      std::vector<uint8_t> bytes(kRecordHeaderBytes + record.stored_length);
      FIRN_ASSERT_OK(file->ReadAt(record.offset, bytes));
      const RecordHeader header = Must(RecordHeader::Decode(bytes.data()));
      EXPECT_EQ(header.id, record.id);
      EXPECT_EQ(header.record_class == RecordClass::kChunk, *pack_class == PackClass::kData);
      std::vector<uint8_t> content(record.raw_length);
      FIRN_EXPECT_OK(decoder.Decode(header, std::span(bytes).subspan(kRecordHeaderBytes), content));
      EXPECT_TRUE(ids->insert(record.id).second) << "twice";
    }
  }

  test::Random random_{101};
  const RepositoryKeys keys_;
  const RunId run_;
  test::PackFolder packs_;
};

TEST_F(PackWriterTest, WhatSeveralThreadsWriteIsReadBackWhole) {
  for (bool direct : {false, true}) {
    const RunId run = test::RandomRun(&random_);
    auto writer = packs_.Writer(run, 150 * kKiB, direct);
    constexpr size_t kThreads = 4;
    std::vector<std::set<Id>> written(kThreads);
    std::vector<std::thread> threads;
    for (size_t t = 0; t < kThreads; ++t) {
      threads.emplace_back([&, t] {
        test::Random random(1000 + t);
        StripeFiller data(writer.get(), PackClass::kData, {Codec::kLz4, 1});
        StripeFiller maps(writer.get(), PackClass::kMap, {Codec::kZstd, 1});
        for (int i = 0; i < 60; ++i) {
          const bool is_map = random.OneIn(5);
          FIRN_EXPECT_OK(AddRandom(is_map ? &maps : &data, &random,
                                   is_map ? PackClass::kMap : PackClass::kData, &written[t]));
        }
        FIRN_EXPECT_OK(data.Flush());
        FIRN_EXPECT_OK(maps.Flush());
      });
    }
    for (std::thread& thread : threads) thread.join();
    FIRN_ASSERT_OK(writer->Close());

    std::set<Id> expected, found;
    for (const auto& ids : written) expected.insert(ids.begin(), ids.end());
    size_t packs = 0;
    for (const auto& [name, table] : packs_.tables()) {
      if (name.run != run) continue;
      ++packs;
      ExpectWhole(name, &found);
    }
    EXPECT_EQ(found, expected);
    EXPECT_GT(packs, 4u) << "no roll-over took place";
    for (const std::string& file : packs_.Files()) EXPECT_FALSE(file.ends_with(".partial")) << file;
  }
}

TEST_F(PackWriterTest, PacksRollOverAtTheirSizeAndAreCountedUp) {
  auto writer = packs_.Writer(run_, 200 * kKiB, false, 7);
  StripeFiller filler(writer.get(), PackClass::kData, {Codec::kRaw, 0});
  for (int i = 0; i < 100; ++i) {
    const std::vector<uint8_t> content = random_.Bytes(10'000);
    FIRN_ASSERT_OK(filler.Add(IdOf(PackClass::kData, content), content));
  }
  FIRN_ASSERT_OK(filler.Flush());
  FIRN_ASSERT_OK(writer->Close());
  ASSERT_GE(packs_.tables().size(), 5u);
  uint32_t sequence = 0;
  for (const auto& [name, table] : packs_.tables()) {
    EXPECT_EQ(name.run, run_);
    EXPECT_EQ(name.attempt, 7u);
    EXPECT_EQ(name.sequence, sequence++);
    EXPECT_LE(table.footer_offset, 200 * kKiB);
  }
  EXPECT_EQ(packs_.Files().size(), packs_.tables().size());
}

TEST_F(PackWriterTest, ARunWithoutRecordsLeavesNothing) {
  FIRN_EXPECT_OK(packs_.Writer(run_, kMiB)->Close());
  EXPECT_TRUE(packs_.Files().empty());
  EXPECT_TRUE(packs_.tables().empty());
}

TEST_F(PackWriterTest, AnAbortedRunKeepsWhatWasFinishedAndNothingElse) {
  std::set<Id> ids, found;
  {
    auto writer = packs_.Writer(run_, 100 * kKiB);
    StripeFiller filler(writer.get(), PackClass::kData, {Codec::kRaw, 0});
    for (int i = 0; i < 40; ++i) {
      FIRN_ASSERT_OK(AddRandom(&filler, &random_, PackClass::kData, &ids));
    }
    // A stripe that has its place and is never written.
    FIRN_ASSERT_OK(AddRandom(&filler, &random_, PackClass::kData, &ids));
    FIRN_ASSERT_OK(writer->Place(PackClass::kData, filler.stripe()));
    const std::vector<std::string> files = packs_.Files();
    EXPECT_TRUE(std::ranges::any_of(files, [](const auto& f) { return f.ends_with(".partial"); }));
  }
  ASSERT_FALSE(packs_.tables().empty());
  EXPECT_EQ(packs_.Files().size(), packs_.tables().size());
  for (const auto& [name, table] : packs_.tables()) ExpectWhole(name, &found);
  EXPECT_TRUE(std::ranges::includes(ids, found));
}

TEST_F(PackWriterTest, APackThatIsThereIsNeverReplaced) {
  const std::vector<uint8_t> first = random_.Bytes(1000), second = random_.Bytes(1000);
  const PackName name{run_, 0, 0};
  {
    auto writer = packs_.Writer(run_, kMiB);
    StripeFiller filler(writer.get(), PackClass::kData, {Codec::kRaw, 0});
    FIRN_ASSERT_OK(filler.Add(IdOf(PackClass::kData, first), first));
    FIRN_ASSERT_OK(filler.Flush());
    FIRN_ASSERT_OK(writer->Close());
  }
  const std::vector<uint8_t> before = test::ReadWholeFile(packs_.PathOf(name));
  {
    auto writer = packs_.Writer(run_, kMiB);
    StripeFiller filler(writer.get(), PackClass::kData, {Codec::kRaw, 0});
    FIRN_ASSERT_OK(filler.Add(IdOf(PackClass::kData, second), second));
    FIRN_ASSERT_OK(filler.Flush());
    EXPECT_EQ(writer->Close().code(), Code::kExists);
  }
  EXPECT_EQ(test::ReadWholeFile(packs_.PathOf(name)), before);
  EXPECT_EQ(packs_.Files().size(), 1u);
}

// Nothing stands under a final name unless it is whole, wherever the run fails.
TEST_F(PackWriterTest, WhereverItFailsNoIncompletePackHasAName) {
  using Kind = FaultPlan::Kind;
  for (Kind kind : {Kind::kWrite, Kind::kSync, Kind::kName}) {
    for (uint64_t n = 1;; ++n) {
      const RunId run = test::RandomRun(&random_);
      FaultFileSystem fs(FileSystem::Default(), {.kind = kind, .fail_at = n, .code = Code::kWrite});
      Status status;
      {
        auto writer = packs_.Writer(run, 100 * kKiB, false, 0, fs);
        StripeFiller filler(writer.get(), PackClass::kData, {Codec::kRaw, 0});
        for (int i = 0; i < 25 && status.ok(); ++i) {
          const std::vector<uint8_t> content = random_.Bytes(10'000);
          status = filler.Add(IdOf(PackClass::kData, content), content);
        }
        if (status.ok()) status = filler.Flush();
        if (status.ok()) status = writer->Close();
      }
      EXPECT_EQ(status.ok(), !fs.fired());
      if (!status.ok()) {
        EXPECT_EQ(status.code(), Code::kWrite);
      }
      for (const std::string& path : packs_.Files()) {
        if (path.find(ToHex(run)) == std::string::npos) continue;
        ASSERT_TRUE(path.ends_with(".pack")) << path;
        std::set<Id> ids;
        auto file = test::OpenToRead(packs_.root() + "/" + path);
        FIRN_EXPECT_OK(ReadPackTable(file.get()));
      }
      if (!fs.fired()) break;
      ASSERT_LT(n, 200u);
    }
  }
}

}  // namespace
}  // namespace firn
