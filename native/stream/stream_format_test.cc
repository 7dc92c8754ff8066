// Frames alone: that nothing which is not as it was written gets through, and that bytes flow
// through pipes whatever their modes.

#include <csignal>
#include <thread>

#include "core/crc32c.h"
#include "stream/stream_test_util.h"

#ifndef _WIN32
#include <fcntl.h>
#include <unistd.h>
#endif

namespace firn {
namespace {

using test::NeverStop;
using test::Random;
using test::StreamFile;
using test::TestFolder;

// Three frames of several kinds; returns the stream.
std::vector<uint8_t> WriteFrames(const std::string& path) {
  const StreamFile file(path, Access::kCreateAlways);
  FrameWriter writer(file.handle(), 0);
  Random random(1);
  test::Must(writer.Write(FrameKind::kHeader, 3, random.Bytes(40), NeverStop));
  test::Must(writer.Write(FrameKind::kRecords, 2, random.Bytes(150), NeverStop));
  test::Must(writer.Write(FrameKind::kEnd, 0, random.Bytes(16), NeverStop));
  return test::ReadWholeFile(path);
}

// Frames that can be read before the stream fails.
std::pair<size_t, Status> ReadFrames(const std::string& path, size_t count) {
  const StreamFile file(path);
  FrameReader reader(file.handle());
  Frame frame;
  for (size_t i = 0; i < count; ++i) {
    Status status = reader.Read(&frame, NeverStop);
    if (!status.ok()) return {i, std::move(status)};
  }
  return {count, Status::Ok()};
}

TEST(StreamFormat, ReadsBackTheFramesThatWereWritten) {
  TestFolder folder;
  const std::string path = folder / "stream";
  WriteFrames(path);
  const StreamFile file(path);
  FrameReader reader(file.handle());
  Random random(1);
  Frame frame;
  FIRN_ASSERT_OK(reader.Read(&frame, NeverStop));
  EXPECT_EQ(frame.header.kind, FrameKind::kHeader);
  EXPECT_EQ(frame.header.count, 3u);
  EXPECT_EQ(frame.payload, random.Bytes(40));
  FIRN_ASSERT_OK(reader.Read(&frame, NeverStop));
  EXPECT_EQ(frame.header.kind, FrameKind::kRecords);
  EXPECT_EQ(frame.payload, random.Bytes(150));
  FIRN_ASSERT_OK(reader.Read(&frame, NeverStop));
  EXPECT_EQ(reader.Read(&frame, NeverStop).code(), Code::kStreamTruncated);
}

TEST(StreamFormat, FindsEveryFlippedBitAtItsFrame) {
  TestFolder folder;
  const std::string path = folder / "stream";
  const std::vector<uint8_t> whole = WriteFrames(path);
  const size_t ends[] = {64 + 40, 128 + 190, 192 + 206};
  for (size_t bit = 0; bit < whole.size() * 8; ++bit) {
    test::FlipBit(path, bit);
    const auto [read, status] = ReadFrames(path, 3);
    const size_t frame = static_cast<size_t>(
        std::upper_bound(std::begin(ends), std::end(ends), bit / 8) - std::begin(ends));
    EXPECT_EQ(read, frame) << "bit " << bit;
    EXPECT_TRUE(status.code() == Code::kCorruptStream) << "bit " << bit << status.ToString();
    test::FlipBit(path, bit);
  }
}

TEST(StreamFormat, FindsEveryTruncation) {
  TestFolder folder;
  const std::string path = folder / "stream";
  const std::vector<uint8_t> whole = WriteFrames(path);
  for (size_t length = 0; length < whole.size(); ++length) {
    test::WriteWholeFile(path, std::span(whole).first(length));
    EXPECT_EQ(ReadFrames(path, 3).second.code(), Code::kStreamTruncated) << length;
  }
}

TEST(StreamFormat, FindsFramesThatAreMissingMovedOrRepeated) {
  TestFolder folder;
  const std::string path = folder / "stream";
  const std::vector<uint8_t> whole = WriteFrames(path);
  const auto piece = [&](size_t begin, size_t end) {
    return std::vector<uint8_t>(whole.begin() + static_cast<ptrdiff_t>(begin),
                                whole.begin() + static_cast<ptrdiff_t>(end));
  };
  const auto a = piece(0, 104), b = piece(104, 318), c = piece(318, 398);
  using Order = std::vector<std::vector<uint8_t>>;
  for (const Order& order : {Order{a, c}, Order{b, c}, Order{a, a, b}, Order{a, c, b}}) {
    std::vector<uint8_t> bytes;
    for (const auto& part : order) bytes.insert(bytes.end(), part.begin(), part.end());
    test::WriteWholeFile(path, bytes);
    EXPECT_EQ(ReadFrames(path, order.size()).second.code(), Code::kCorruptStream);
  }
}

// A frame from another stream of the same shape has its own past in its hash.
TEST(StreamFormat, FindsAFrameOfAnotherStream) {
  TestFolder folder;
  const std::string path = folder / "stream";
  std::vector<uint8_t> whole = WriteFrames(path);
  const std::string other = folder / "other";
  {
    const StreamFile file(other, Access::kCreateAlways);
    FrameWriter writer(file.handle(), 0);
    test::Must(writer.Write(FrameKind::kHeader, 3, Random(9).Bytes(40), NeverStop));
    test::Must(writer.Write(FrameKind::kRecords, 2, Random(9).Bytes(150), NeverStop));
  }
  const std::vector<uint8_t> foreign = test::ReadWholeFile(other);
  std::copy(foreign.begin() + 104, foreign.begin() + 318, whole.begin() + 104);
  test::WriteWholeFile(path, whole);
  EXPECT_EQ(ReadFrames(path, 3).second.code(), Code::kCorruptStream);
}

TEST(StreamFormat, RefusesHeadersThatNoWriterMakes) {
  const auto decode = [](const FrameHeader& header, size_t byte = 0, uint8_t value = 0) {
    uint8_t bytes[kFrameHeaderBytes];
    header.Encode(bytes);
    if (byte > 0) bytes[byte] = value;
    // As an attacker would: with a checksum that fits.
    const uint32_t crc = Crc32c({bytes, 60});
    StoreLe(bytes + 60, crc);
    return FrameHeader::Decode(bytes).status().code();
  };
  FrameHeader good{FrameKind::kRecords, 100, 3, 7, {}};
  EXPECT_EQ(decode(good), Code::kOk);
  FrameHeader large = good;
  large.payload_bytes = kFramePayloadMax + 1;
  EXPECT_EQ(decode(large), Code::kCorruptStream);
  FrameHeader counted = good;
  counted.kind = FrameKind::kEnd;
  EXPECT_EQ(decode(counted), Code::kCorruptStream);
  EXPECT_EQ(decode(good, 4, 2), Code::kVersion);
  EXPECT_EQ(decode(good, 5, 0xff), Code::kCorruptStream);
  EXPECT_EQ(decode(good, 5, 7), Code::kCorruptStream);
  EXPECT_EQ(decode(good, 6, 1), Code::kCorruptStream);
  EXPECT_EQ(decode(good, 57, 1), Code::kCorruptStream);
}

#ifndef _WIN32

class StreamPipe : public ::testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    // As Node does for its process.
    std::signal(SIGPIPE, SIG_IGN);
    int ends[2];
    ASSERT_EQ(pipe(ends), 0);
    for (int end : ends) ASSERT_EQ(fcntl(end, F_SETFL, GetParam() ? O_NONBLOCK : 0), 0);
    read_ = ends[0];
    write_ = ends[1];
  }
  void TearDown() override {
    CloseRead();
    if (write_ >= 0) close(write_);
  }
  void CloseRead() {
    if (read_ >= 0) close(std::exchange(read_, -1));
  }
  int read_ = -1, write_ = -1;
};

TEST_P(StreamPipe, CarriesFramesLargerThanItself) {
  const std::vector<uint8_t> payload = Random(3).Bytes(3 * kMiB + 5);
  std::thread thread([&] {
    FrameWriter writer(write_, 0);
    FIRN_EXPECT_OK(writer.Write(FrameKind::kRecords, 1, payload, NeverStop));
  });
  FrameReader reader(read_);
  Frame frame;
  FIRN_EXPECT_OK(reader.Read(&frame, NeverStop));
  EXPECT_EQ(frame.payload, payload);
  thread.join();
}

TEST_P(StreamPipe, FailsToWriteWhenTheReaderIsGone) {
  FrameWriter writer(write_, 0);
  CloseRead();
  const Status status = writer.Write(FrameKind::kRecords, 1, Random(3).Bytes(kMiB), NeverStop);
  EXPECT_EQ(status.code(), Code::kWrite);
  EXPECT_EQ(status.os_code(), EPIPE);
  // What would come after a broken frame is not written either.
  EXPECT_EQ(writer.Write(FrameKind::kEnd, 0, {}, NeverStop).code(), Code::kWrite);
}

TEST_P(StreamPipe, StopsWaitingWhenItIsTold) {
  int asked = 0;
  const auto stop = [&] {
    return ++asked < 3 ? Status::Ok() : Status::Error(Code::kAborted, "told");
  };
  FrameReader reader(read_);
  Frame frame;
  EXPECT_EQ(reader.Read(&frame, stop).code(), Code::kAborted);
  FrameWriter writer(write_, 0);
  const std::vector<uint8_t> payload = Random(3).Bytes(4 * kMiB);
  std::atomic<bool> told = false;
  std::thread thread([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    told = true;
  });
  const auto when_told = [&] {
    return told ? Status::Error(Code::kAborted, "told") : Status::Ok();
  };
  EXPECT_EQ(writer.Write(FrameKind::kRecords, 1, payload, when_told).code(), Code::kAborted);
  thread.join();
}

INSTANTIATE_TEST_SUITE_P(Modes, StreamPipe, ::testing::Bool(), [](const auto& parameter) {
  return parameter.param ? "NonBlocking" : "Blocking";
});

#endif  // _WIN32

TEST(StreamLimit, LetsNoMoreThroughThanItMay) {
  TestFolder folder;
  const StreamFile file(folder / "stream", Access::kCreateAlways);
  FrameWriter writer(file.handle(), 1'000'000);
  const uint64_t begun = NowNs();
  FIRN_ASSERT_OK(writer.Write(FrameKind::kRecords, 1, Random(3).Bytes(600'000), NeverStop));
  const double seconds = static_cast<double>(NowNs() - begun) / 1e9;
  EXPECT_GE(seconds, 0.55);
}

TEST(StreamLimit, StopsWaitingWhenItIsTold) {
  TestFolder folder;
  const StreamFile file(folder / "stream", Access::kCreateAlways);
  FrameWriter writer(file.handle(), 1000);
  int asked = 0;
  const auto stop = [&] {
    return ++asked < 5 ? Status::Ok() : Status::Error(Code::kAborted, "told");
  };
  EXPECT_EQ(writer.Write(FrameKind::kRecords, 1, Random(3).Bytes(kMiB), stop).code(),
            Code::kAborted);
}

}  // namespace
}  // namespace firn
