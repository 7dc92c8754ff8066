// Points from one repository into its sibling: what arrives is whole, what is sent is sent once,
// and what breaks, lies or fails leaves nothing that a point could be sealed on by mistake.

#include <chrono>
#include <set>
#include <thread>

#include "io/fault_file_system.h"
#include "stream/stream_test_util.h"

namespace firn {
namespace {

using test::CheckWhole;
using test::DiskContent;
using test::IsOk;
using test::Random;
using test::ReceiveFile;
using test::ReceiveOutcome;
using test::SendOptionsFor;
using test::SendToFile;
using test::StreamFile;
using test::TestFolder;
using test::TestRepository;

constexpr uint64_t kDiskBytes = 24 * kMiB;

// Two disks that share most of their data, each a point.
class Transfer : public ::testing::Test {
 protected:
  Transfer() {
    Random random(5);
    first_.Scatter(&random, 30);
    second_ = first_;
    for (int i = 0; i < 20; ++i) second_.Set(random.Below(2000), random.Bytes(kPageBytes));
    first_root_ = BackUp(first_);
    second_root_ = BackUp(second_);
  }

  Id BackUp(const DiskContent& content) {
    const std::string path = folder_ / "disk.raw";
    content.WriteRaw(path);
    const auto outcome = source_.Backup({path});
    test::Must(outcome.status);
    return outcome.root();
  }
  std::string Sent() {
    const std::string path = folder_ / "stream";
    test::Must(SendToFile(source_, path, points()).status);
    return path;
  }
  static void Nap() { std::this_thread::sleep_for(std::chrono::milliseconds(1)); }
  std::vector<std::vector<Id>> points() const { return {{first_root_}, {second_root_}}; }
  std::vector<WholeMap> maps() const {
    return {{first_root_, kDiskBytes}, {second_root_, kDiskBytes}};
  }
  void ExpectArrived(const TestRepository& target) const {
    FIRN_EXPECT_OK(CheckWhole(target, maps()));
    EXPECT_EQ(target.Problems({first_root_, second_root_}), "");
    EXPECT_EQ(target.RestoreDifference(first_root_, first_), "");
    EXPECT_EQ(target.RestoreDifference(second_root_, second_), "");
  }

  TestFolder folder_;
  // The same seed gives the same id key.
  TestRepository source_{1};
  DiskContent first_{kDiskBytes}, second_{kDiskBytes};
  Id first_root_{}, second_root_{};
};

TEST_F(Transfer, BringsPointsWholeAndEachRecordOnce) {
  const std::string path = folder_ / "stream";
  const auto sent = SendToFile(source_, path, points());
  FIRN_ASSERT_OK(sent.status);
  TestRepository target(1);
  const ReceiveOutcome outcome = ReceiveFile(target, path);
  FIRN_ASSERT_OK(outcome.status);
  EXPECT_TRUE(outcome.ended);
  EXPECT_EQ(outcome.sections, 2u);
  EXPECT_EQ(outcome.received, sent.stream->total());
  EXPECT_EQ(outcome.stored, sent.stream->total());
  ExpectArrived(target);
  uint64_t records = 0;
  for (const std::string& name : source_.View().listing.index_runs) {
    records += test::Must(IndexRun::Open(FileSystem::Default(), source_.root() + "/index/" + name))
                   ->entries();
  }
  EXPECT_EQ(sent.stream->total().records, records);
}

TEST_F(Transfer, CountsBeforeItSends) {
  auto counted = test::NewSend(std::nullopt, points());
  SendJob job(FileSystem::Default(), test::SmallTuning(), SendOptionsFor(source_, counted));
  FIRN_ASSERT_OK(job.Run());
  const auto sent = SendToFile(source_, folder_ / "stream", points());
  EXPECT_EQ(counted->total(), sent.stream->total());
  EXPECT_EQ(counted->stream_bytes(), 0u);
}

TEST_F(Transfer, StoresNothingThatIsThereAlready) {
  const std::string path = Sent();
  TestRepository target(1);
  FIRN_ASSERT_OK(ReceiveFile(target, path).status);
  const auto before = target.Files();
  const ReceiveOutcome again = ReceiveFile(target, path);
  FIRN_ASSERT_OK(again.status);
  EXPECT_EQ(again.stored, StreamCounts{});
  EXPECT_EQ(target.Files(), before);
}

TEST_F(Transfer, LeavesOutWhatTheTargetHas) {
  TestRepository target(1);
  test::Must(SendToFile(source_, folder_ / "one", {{first_root_}}).status);
  FIRN_ASSERT_OK(ReceiveFile(target, folder_ / "one").status);
  const StreamFile file(folder_ / "two", Access::kCreateAlways);
  auto stream = test::NewSend(file.handle(), points());
  SendOptions options = SendOptionsFor(source_, stream);
  options.target = target.View().listing;
  FIRN_ASSERT_OK(SendJob(FileSystem::Default(), test::SmallTuning(), options).Run());
  EXPECT_LT(stream->total().records, 60u);
  EXPECT_GT(stream->skipped_records(), stream->total().records);
  const ReceiveOutcome outcome = ReceiveFile(target, folder_ / "two");
  FIRN_ASSERT_OK(outcome.status);
  EXPECT_EQ(outcome.stored, outcome.received);
  ExpectArrived(target);
}

TEST_F(Transfer, LeavesOutWhatAListNames) {
  TestRepository target(1);
  test::Must(SendToFile(source_, folder_ / "one", {{first_root_}}).status);
  FIRN_ASSERT_OK(ReceiveFile(target, folder_ / "one").status);
  const std::string list = folder_ / "have";
  {
    const StreamFile file(list, Access::kCreateAlways);
    WriteHaveJob job(FileSystem::Default(), test::SmallTuning(),
                     {target.View(), file.handle(), "{}", true});
    FIRN_ASSERT_OK(job.Run());
    EXPECT_GT(job.prefixes(), 50u);
  }
  const StreamFile file(list);
  ReadHaveJob read(FileSystem::Default(), test::SmallTuning(), file.handle());
  FIRN_ASSERT_OK(read.Run());
  EXPECT_EQ(read.list()->header, "{}");
  StreamCounts by_records, by_roots;
  for (bool roots : {false, true}) {
    const std::string path = folder_ / (roots ? "by roots" : "by records");
    const StreamFile out(path, Access::kCreateAlways);
    auto stream = test::NewSend(out.handle(), points());
    SendOptions options = SendOptionsFor(source_, stream);
    if (roots) {
      options.have_roots = {first_root_, Random(3).Id()};
    } else {
      options.have = read.list();
    }
    FIRN_ASSERT_OK(SendJob(FileSystem::Default(), test::SmallTuning(), options).Run());
    (roots ? by_roots : by_records) = stream->total();
  }
  EXPECT_EQ(by_roots, by_records);
  EXPECT_LT(by_roots.records, 60u);
  FIRN_ASSERT_OK(ReceiveFile(target, folder_ / "by roots").status);
  ExpectArrived(target);
}

TEST_F(Transfer, SealsNothingOnAStreamThatLeftOutWhatIsNotThere) {
  const StreamFile out(folder_ / "stream", Access::kCreateAlways);
  auto stream = test::NewSend(out.handle(), points());
  SendOptions options = SendOptionsFor(source_, stream);
  options.have_roots = {first_root_};
  FIRN_ASSERT_OK(SendJob(FileSystem::Default(), test::SmallTuning(), options).Run());
  TestRepository target(1);
  FIRN_ASSERT_OK(ReceiveFile(target, folder_ / "stream").status);
  EXPECT_EQ(CheckWhole(target, maps()).code(), Code::kChunkMissing);
  EXPECT_EQ(CheckWhole(target, {maps()[1]}).code(), Code::kChunkMissing);
}

TEST_F(Transfer, KeepsWhatArrivedWholeWhenTheStreamBreaksAnywhere) {
  const std::string path = Sent();
  const std::vector<uint8_t> whole = test::ReadWholeFile(path);
  Random random(8);
  uint64_t kept_before = 0;
  for (int step = 1; step <= 6; ++step) {
    const size_t length = whole.size() * static_cast<size_t>(step) / 7 + random.Below(1000);
    const std::string cut = folder_ / "cut";
    test::WriteWholeFile(cut, std::span(whole).first(length));
    TestRepository target(1);
    EXPECT_EQ(ReceiveFile(target, cut).status.code(), Code::kStreamTruncated);
    EXPECT_FALSE(CheckWhole(target, maps()).ok());
    EXPECT_FALSE(target.HasPartialFiles());
    const ReceiveOutcome again = ReceiveFile(target, path);
    FIRN_ASSERT_OK(again.status);
    const uint64_t kept = again.received.bytes - again.stored.bytes;
    // All but the frame that was cut, of about a mebibyte, and what stands between frames.
    EXPECT_GE(kept + 4 * kMiB, length);
    EXPECT_GE(kept, kept_before);
    kept_before = kept;
    ExpectArrived(target);
  }
  EXPECT_GT(kept_before, 0u);
}

TEST_F(Transfer, FindsPacksAgainThatNoIndexRunNames) {
  const std::string path = Sent();
  TestRepository target(1);
  FIRN_ASSERT_OK(ReceiveFile(target, path).status);
  for (const std::string& name : target.View().listing.index_runs) {
    std::filesystem::remove(target.root() + "/index/" + name);
  }
  const ReceiveOutcome again = ReceiveFile(target, path, FileSystem::Default(), true);
  FIRN_ASSERT_OK(again.status);
  EXPECT_GT(again.adopted, 0u);
  EXPECT_EQ(again.stored, StreamCounts{});
  ExpectArrived(target);
}

TEST_F(Transfer, GoesOnInTheSameStreamWhateverReadMissedAPack) {
  FaultFileSystem counting(FileSystem::Default(), {.kind = FaultPlan::Kind::kRead});
  const auto expected = SendToFile(source_, folder_ / "expected", points());
  {
    auto stream = test::NewSend(std::nullopt, points());
    SendJob job(counting, test::SmallTuning(), SendOptionsFor(source_, stream));
    FIRN_ASSERT_OK(job.Run());
  }
  const std::string path = folder_ / "stream";
  for (uint64_t n = 1; n <= counting.calls() + 20; ++n) {
    StreamCounts total;
    {
      const StreamFile file(path, Access::kCreateAlways);
      auto stream = test::NewSend(file.handle(), points());
      FaultFileSystem faulty(
          FileSystem::Default(),
          {.kind = FaultPlan::Kind::kRead, .fail_at = n, .code = Code::kPackMissing});
      const Status first =
          SendJob(faulty, test::SmallTuning(), SendOptionsFor(source_, stream)).Run();
      if (!first.ok()) {
        ASSERT_EQ(first.code(), Code::kPackMissing) << n;
        FIRN_ASSERT_OK(
            SendJob(FileSystem::Default(), test::SmallTuning(), SendOptionsFor(source_, stream))
                .Run());
      }
      total = stream->total();
    }
    EXPECT_EQ(total, expected.stream->total()) << n;
    if (n % 5 != 0) continue;
    TestRepository target(1);
    FIRN_ASSERT_OK(ReceiveFile(target, path).status) << n;
    ExpectArrived(target);
  }
}

TEST_F(Transfer, SendsAnotherCopyOfARecordThatIsDamaged) {
  // The same content once more, by a run that knows of no other: each record has two copies.
  const std::set<PackName> before = [&] {
    const auto packs = source_.View().listing.packs;
    return std::set<PackName>(packs.begin(), packs.end());
  }();
  const std::string disk = folder_ / "disk.raw";
  second_.WriteRaw(disk);
  BackupOptions options = source_.Options({disk});
  options.repository.listing.index_runs.clear();
  FIRN_ASSERT_OK(TestRepository::Run(options).status);
  for (const PackName& pack : source_.View().listing.packs) {
    if (before.contains(pack)) continue;
    const std::string file = source_.root() + "/" + pack.RelativePath();
    test::FlipBit(file, (kStripeHeaderBytes + kRecordHeaderBytes + 3) * 8);
  }
  TestRepository target(1);
  FIRN_ASSERT_OK(ReceiveFile(target, Sent()).status);
  ExpectArrived(target);
}

TEST_F(Transfer, RefusesToSendARecordOfWhichNoCopyIsGood) {
  for (const PackName& pack : source_.View().listing.packs) {
    test::FlipBit(source_.root() + "/" + pack.RelativePath(),
                  (kStripeHeaderBytes + kRecordHeaderBytes + 3) * 8);
  }
  EXPECT_EQ(SendToFile(source_, folder_ / "stream", points()).status.code(), Code::kCorruptChunk);
}

TEST_F(Transfer, KeepsWhatIsDurableWhenTheTargetIsFull) {
  const std::string path = Sent();
  FaultFileSystem counting(FileSystem::Default(), {.kind = FaultPlan::Kind::kWrite});
  {
    TestRepository target(1);
    FIRN_ASSERT_OK(ReceiveFile(target, path, counting).status);
  }
  ASSERT_GT(counting.calls(), 5u);
  for (uint64_t n = 1; n <= counting.calls(); ++n) {
    TestRepository target(1);
    FaultFileSystem full(FileSystem::Default(), {.kind = FaultPlan::Kind::kWrite,
                                                 .fail_at = n,
                                                 .persistent = true,
                                                 .code = Code::kDiskFull});
    const ReceiveOutcome outcome = ReceiveFile(target, path, full);
    if (outcome.status.ok()) continue;  // other runs of it may need fewer writes
    EXPECT_EQ(outcome.status.code(), Code::kDiskFull) << n;
    EXPECT_FALSE(target.HasPartialFiles()) << n;
    FIRN_ASSERT_OK(ReceiveFile(target, path, FileSystem::Default(), true).status) << n;
    FIRN_EXPECT_OK(CheckWhole(target, maps())) << n;
  }
}

TEST_F(Transfer, EndsSoonWhenItIsCancelledAtEitherEnd) {
  const auto [input, output] = test::Must(NewPipe());
  auto sending = test::NewSend(output, points());
  SendJob sender(FileSystem::Default(), test::SmallTuning(), SendOptionsFor(source_, sending));
  Status sent;
  // Nobody reads: once the first records are in the pipe, and what comes before them, the sender
  // gets no further than the pipe is long.
  std::thread thread([&] { sent = sender.Run(); });
  while (sender.stats().done_bytes == 0 && sender.stats().phase != Phase::kDone) Nap();
  sender.Cancel();
  thread.join();
  EXPECT_EQ(sent.code(), Code::kAborted);
  TestRepository target(1);
  auto receiving = std::make_shared<ReceiveStream>(input);
  OpenStreamJob open(FileSystem::Default(), test::SmallTuning(), receiving);
  FIRN_ASSERT_OK(open.Run());
  ReceiveOptions options;
  options.repository = target.View();
  options.stream = receiving;
  ReceiveJob receiver(FileSystem::Default(), test::SmallTuning(), options);
  Status received;
  // Nor does the stream ever end.
  std::thread other([&] { received = receiver.Run(); });
  while (receiver.stats().read_bytes == 0 && receiver.stats().phase != Phase::kDone) Nap();
  receiver.Cancel();
  other.join();
  EXPECT_EQ(received.code(), Code::kAborted);
}

TEST_F(Transfer, ForgetsWhatItFoundWholeWhenAPackOfItIsCondemned) {
  TestRepository target(1);
  FIRN_ASSERT_OK(ReceiveFile(target, Sent()).status);
  auto known = std::make_shared<WholeMaps>();
  std::vector<PackName> packs;
  FIRN_ASSERT_OK(CheckWhole(target, maps(), known, &packs));
  EXPECT_EQ(packs, target.View().listing.packs);
  target.Condemn(packs.front());
  EXPECT_EQ(CheckWhole(target, maps(), known).code(), Code::kChunkMissing);
}

TEST_F(Transfer, FindsAMapThatIsOfAnotherSizeThanItsPointSays) {
  TestRepository target(1);
  FIRN_ASSERT_OK(ReceiveFile(target, Sent()).status);
  EXPECT_EQ(CheckWhole(target, {{first_root_, kDiskBytes + kPageBytes}}).code(),
            Code::kCorruptObject);
}

// Streams that an attacker makes: every frame has its right hash.
class HostileStream : public ::testing::Test {
 protected:
  // A record with this content, under its right id unless told otherwise.
  std::vector<uint8_t> Record(RecordClass record_class, const std::vector<uint8_t>& content,
                              std::optional<Id> id = {}) {
    auto encoder = test::Must(RecordEncoder::Create({.codec = Codec::kLz4}));
    const RepositoryKeys keys(target_.id_key());
    const Key& key = record_class == RecordClass::kMap ? keys.map : keys.chunk;
    std::vector<uint8_t> bytes(RecordBytesMax(static_cast<uint32_t>(content.size())));
    const RecordHeader header = encoder->Encode(
        record_class, id.value_or(Blake3Keyed(key, content)), content, bytes.data());
    bytes.resize(kRecordHeaderBytes + header.stored_length);
    return bytes;
  }
  struct Part {
    FrameKind kind;
    uint32_t count;
    std::vector<uint8_t> payload;
  };
  static std::vector<uint8_t> Counts(uint64_t records, uint64_t bytes) {
    std::vector<uint8_t> encoded(kStreamCountsBytes);
    StreamCounts{records, bytes}.Encode(encoded.data());
    return encoded;
  }
  Code Receive(const std::vector<Part>& parts) {
    const std::string path = folder_ / "stream";
    {
      const StreamFile file(path, Access::kCreateAlways);
      FrameWriter writer(file.handle(), 0);
      for (const Part& part : parts) {
        test::Must(writer.Write(part.kind, part.count, part.payload, test::NeverStop));
      }
    }
    return ReceiveFile(target_, path).status.code();
  }
  // A stream of one section with one frame of records.
  Code ReceiveRecords(uint32_t count, const std::vector<uint8_t>& records) {
    return Receive({{FrameKind::kHeader, 1, {}},
                    {FrameKind::kPoint, 0, {}},
                    {FrameKind::kRecords, count, records},
                    {FrameKind::kSectionEnd, 0, Counts(count, records.size())},
                    {FrameKind::kEnd, 0, Counts(count, records.size())}});
  }

  TestFolder folder_;
  TestRepository target_{1};
  Random random_{6};
};

TEST_F(HostileStream, IsReceivedIfItTellsTheTruth) {
  std::vector<uint8_t> records = Record(RecordClass::kChunk, random_.Bytes(2 * kPageBytes));
  const auto map = Record(RecordClass::kMap, random_.Bytes(100));
  records.insert(records.end(), map.begin(), map.end());
  EXPECT_EQ(ReceiveRecords(2, records), Code::kOk);
  EXPECT_EQ(target_.View().listing.packs.size(), 2u);
}

TEST_F(HostileStream, DoesNotGetARecordInUnderAWrongId) {
  const auto page = random_.Bytes(kPageBytes);
  for (RecordClass record_class : {RecordClass::kChunk, RecordClass::kMap}) {
    EXPECT_EQ(ReceiveRecords(1, Record(record_class, page, random_.Id())), Code::kCorruptStream);
  }
  // An id that is right, but for the other class.
  const Id chunk = Blake3Keyed(RepositoryKeys(target_.id_key()).chunk, page);
  EXPECT_EQ(ReceiveRecords(1, Record(RecordClass::kMap, page, chunk)), Code::kCorruptStream);
  EXPECT_TRUE(target_.View().listing.packs.empty());
}

TEST_F(HostileStream, DoesNotGetARecordInThatNoWriterMakes) {
  const uint32_t chunk_max = target_.chunking().max_pages * kPageBytes;
  EXPECT_EQ(ReceiveRecords(1, Record(RecordClass::kChunk, random_.Bytes(kPageBytes + 1))),
            Code::kCorruptStream);
  EXPECT_EQ(ReceiveRecords(1, Record(RecordClass::kChunk, {})), Code::kCorruptStream);
  EXPECT_EQ(ReceiveRecords(1, Record(RecordClass::kChunk, random_.Bytes(chunk_max + kPageBytes))),
            Code::kCorruptStream);
  EXPECT_EQ(ReceiveRecords(1, Record(RecordClass::kMap, random_.Bytes(3 * kMiB))),
            Code::kCorruptStream);
  EXPECT_EQ(ReceiveRecords(1, Record(RecordClass::kObject, random_.Bytes(50))),
            Code::kCorruptStream);
  EXPECT_TRUE(target_.View().listing.packs.empty());
}

TEST_F(HostileStream, IsHeldToItsCountsAndLengths) {
  const auto record = Record(RecordClass::kChunk, random_.Bytes(kPageBytes));
  EXPECT_EQ(ReceiveRecords(2, record), Code::kCorruptStream);
  EXPECT_EQ(ReceiveRecords(0, record), Code::kCorruptStream);
  EXPECT_EQ(ReceiveRecords(1, {record.begin(), record.end() - 1}), Code::kCorruptStream);
  EXPECT_EQ(ReceiveRecords(1, {record.begin(), record.begin() + 63}), Code::kCorruptStream);
  EXPECT_EQ(Receive({{FrameKind::kHeader, ~0u, {}}}), Code::kCorruptStream);
  EXPECT_EQ(Receive({{FrameKind::kHeader, 1, {}},
                     {FrameKind::kPoint, 0, {}},
                     {FrameKind::kSectionEnd, 0, Counts(1, 0)}}),
            Code::kCorruptStream);
  EXPECT_EQ(Receive({{FrameKind::kHeader, 0, {}}, {FrameKind::kEnd, 0, Counts(0, 1)}}),
            Code::kCorruptStream);
  EXPECT_EQ(Receive({{FrameKind::kHeader, 0, {}}, {FrameKind::kEnd, 0, {1, 2, 3}}}),
            Code::kCorruptStream);
}

TEST_F(HostileStream, HasEachFrameInItsPlace) {
  const auto record = Record(RecordClass::kChunk, random_.Bytes(kPageBytes));
  EXPECT_EQ(Receive({{FrameKind::kPoint, 0, {}}}), Code::kCorruptStream);
  EXPECT_EQ(Receive({{FrameKind::kHeader, 1, {}}, {FrameKind::kRecords, 1, record}}),
            Code::kCorruptStream);
  EXPECT_EQ(Receive({{FrameKind::kHeader, 0, {}}, {FrameKind::kRecords, 1, record}}),
            Code::kCorruptStream);
  EXPECT_EQ(Receive({{FrameKind::kHeader, 1, {}},
                     {FrameKind::kPoint, 0, {}},
                     {FrameKind::kEnd, 0, Counts(0, 0)}}),
            Code::kCorruptStream);
  EXPECT_EQ(Receive({{FrameKind::kHeader, 1, {}}}), Code::kStreamTruncated);
}

TEST_F(HostileStream, KeepsWhatWasRightBeforeTheLie) {
  const auto good = Record(RecordClass::kChunk, random_.Bytes(kPageBytes));
  const auto bad = Record(RecordClass::kChunk, random_.Bytes(kPageBytes), random_.Id());
  EXPECT_EQ(Receive({{FrameKind::kHeader, 1, {}},
                     {FrameKind::kPoint, 0, {}},
                     {FrameKind::kRecords, 1, good},
                     {FrameKind::kRecords, 1, bad}}),
            Code::kCorruptStream);
  const auto view = target_.View();
  const auto index = test::Must(ChunkIndex::Open(FileSystem::Default(), view.listing));
  EXPECT_EQ(index->entries(), 1u);
  EXPECT_EQ(target_.Problems({}), "");
}

TEST(HaveList, RefusesAListThatIsNotInOrderOrOfAnotherLength) {
  TestFolder folder;
  const auto read = [&](const std::vector<uint64_t>& prefixes, uint64_t count) {
    const std::string path = folder / "have";
    {
      const StreamFile file(path, Access::kCreateAlways);
      FrameWriter writer(file.handle(), 0);
      test::Must(writer.Write(FrameKind::kHeader, 0, {}, test::NeverStop));
      std::vector<uint8_t> payload(prefixes.size() * 8);
      for (size_t i = 0; i < prefixes.size(); ++i) StoreBe(&payload[i * 8], prefixes[i]);
      test::Must(writer.Write(FrameKind::kPrefixes, static_cast<uint32_t>(prefixes.size()), payload,
                              test::NeverStop));
      uint8_t end[kStreamCountsBytes];
      StreamCounts{count, 0}.Encode(end);
      test::Must(writer.Write(FrameKind::kEnd, 0, end, test::NeverStop));
    }
    const StreamFile file(path);
    return ReadHaveJob(FileSystem::Default(), test::SmallTuning(), file.handle()).Run().code();
  };
  EXPECT_EQ(read({1, 2, 9}, 3), Code::kOk);
  EXPECT_EQ(read({1, 9, 2}, 3), Code::kCorruptStream);
  EXPECT_EQ(read({1, 1, 2}, 3), Code::kCorruptStream);
  EXPECT_EQ(read({1, 2, 9}, 4), Code::kCorruptStream);
}

}  // namespace
}  // namespace firn
