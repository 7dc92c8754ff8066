#include "codec/record.h"

#include <lz4.h>
#include <zstd.h>

#include <cstring>

#include "core/core_test_util.h"
#include "core/crc32c.h"

namespace firn {
namespace {

using Bytes = std::vector<uint8_t>;
using test::Must;

struct EncodedRecord {
  RecordHeader header;
  Bytes bytes;  // the whole record
  std::span<const uint8_t> stored() const { return std::span(bytes).subspan(kRecordHeaderBytes); }
};

class RecordTest : public ::testing::Test {
 protected:
  RecordTest() : id_key_(random_.Id()), keys_(id_key_), decoder_(keys_) {}

  Id IdOf(RecordClass record_class, std::span<const uint8_t> content) const {
    const Key& key = record_class == RecordClass::kChunk ? keys_.chunk
                     : record_class == RecordClass::kMap ? keys_.map
                                                         : keys_.object;
    return Blake3Keyed(key, content);
  }
  EncodedRecord Encode(RecordEncoder* encoder, std::span<const uint8_t> content,
                       RecordClass record_class = RecordClass::kChunk) {
    // Room is what the format promises and no byte more: the rest is watched.
    const size_t room = RecordBytesMax(static_cast<uint32_t>(content.size()));
    EncodedRecord record;
    record.bytes.assign(room + 64, 0xA5);
    record.header =
        encoder->Encode(record_class, IdOf(record_class, content), content, record.bytes.data());
    for (size_t i = room; i < record.bytes.size(); ++i) EXPECT_EQ(record.bytes[i], 0xA5);
    record.bytes.resize(kRecordHeaderBytes + record.header.stored_length);
    return record;
  }
  Result<Bytes> Decode(std::span<const uint8_t> record) {
    FIRN_ASSIGN_OR_RETURN(RecordHeader header, RecordHeader::Decode(record.data()));
    Bytes content(header.raw_length);
    FIRN_RETURN_IF_ERROR(decoder_.Decode(header, record.subspan(kRecordHeaderBytes), content));
    return content;
  }
  // `share` of 256 bytes are random, the rest repeats.
  Bytes Compressible(size_t length, unsigned share = 64) {
    Bytes bytes = random_.Bytes(length);
    for (size_t i = 0; i < length; ++i) {
      if (i % 256 >= share) bytes[i] = static_cast<uint8_t>(i % 7);
    }
    return bytes;
  }
  // A record with the given stored bytes, its checksums right.
  Bytes Forge(RecordHeader header, std::span<const uint8_t> stored) {
    header.stored_length = static_cast<uint32_t>(stored.size());
    header.stored_crc = Crc32c(stored);
    Bytes record(kRecordHeaderBytes);
    header.Encode(record.data());
    record.insert(record.end(), stored.begin(), stored.end());
    return record;
  }

  test::Random random_{81};
  const Key id_key_;
  const RepositoryKeys keys_;
  RecordDecoder decoder_;
};

TEST_F(RecordTest, ComesBackWholeOverCodecsLevelsSizesAndClasses) {
  const std::vector<CompressionOptions> all = {{Codec::kRaw, 0},  {Codec::kLz4, 1},
                                               {Codec::kLz4, 64}, {Codec::kZstd, 1},
                                               {Codec::kZstd, 3}, {Codec::kZstd, 9}};
  const std::vector<size_t> sizes = {0, 1, 2, 4, 5, 33, 100, 4095, 4096, 65'536, 262'144};
  for (const CompressionOptions& options : all) {
    auto encoder = Must(RecordEncoder::Create(options));
    for (size_t size : sizes) {
      for (const Bytes& content : {Bytes(size), random_.Bytes(size), Compressible(size)}) {
        for (RecordClass record_class :
             {RecordClass::kChunk, RecordClass::kMap, RecordClass::kObject}) {
          const EncodedRecord record = Encode(encoder.get(), content, record_class);
          ASSERT_EQ(record.header.raw_length, size);
          ASSERT_EQ(record.header.record_class, record_class);
          Result<Bytes> back = Decode(record.bytes);
          FIRN_ASSERT_OK(back);
          ASSERT_EQ(*back, content) << "codec " << static_cast<int>(options.codec) << " " << size;
        }
      }
    }
  }
}

TEST_F(RecordTest, ComesBackWholeAtTheLargestSizes) {
  for (Codec codec : {Codec::kRaw, Codec::kLz4, Codec::kZstd}) {
    auto encoder = Must(RecordEncoder::Create({codec, 1}));
    for (size_t size : {size_t{8 * kMiB}, size_t{kRecordContentMax}}) {
      for (const Bytes& content : {Compressible(size), random_.Bytes(size)}) {
        const EncodedRecord record = Encode(encoder.get(), content);
        ASSERT_LE(record.header.stored_length, kRecordContentMax);
        Result<Bytes> back = Decode(record.bytes);
        FIRN_ASSERT_OK(back);
        ASSERT_EQ(*back, content);
      }
    }
  }
}

TEST_F(RecordTest, OneEncoderServesManyRecordsAlsoAfterItGaveUpOnOne) {
  auto encoder = Must(RecordEncoder::Create({Codec::kLz4, 1}));
  for (int i = 0; i < 200; ++i) {
    const Bytes content = random_.OneIn(2) ? random_.Bytes(random_.Below(70'000))
                                           : Compressible(random_.Below(70'000));
    const EncodedRecord record = Encode(encoder.get(), content);
    ASSERT_EQ(Must(Decode(record.bytes)), content);
  }
}

TEST_F(RecordTest, TheHeaderStandsAsTheFormatPageSays) {
  auto encoder = Must(RecordEncoder::Create({Codec::kZstd, 3}));
  const Bytes content = Compressible(65'536);
  const EncodedRecord record = Encode(encoder.get(), content, RecordClass::kMap);
  const uint8_t* bytes = record.bytes.data();
  EXPECT_EQ(std::memcmp(bytes, "FIRR", 4), 0);
  EXPECT_EQ(bytes[4], 1);
  EXPECT_EQ(bytes[5], 2);
  EXPECT_EQ(bytes[6], 2);
  EXPECT_EQ(bytes[7], 0);
  EXPECT_EQ(LoadLe<uint32_t>(bytes + 8), content.size());
  EXPECT_EQ(LoadLe<uint32_t>(bytes + 12), record.bytes.size() - 64);
  EXPECT_EQ(std::memcmp(bytes + 16, IdOf(RecordClass::kMap, content).data(), 32), 0);
  EXPECT_EQ(LoadLe<uint64_t>(bytes + 48), 0u);
  EXPECT_EQ(LoadLe<uint32_t>(bytes + 56), Crc32cPortable(record.stored()));
  EXPECT_EQ(LoadLe<uint32_t>(bytes + 60), Crc32cPortable({bytes, 60}));
}

TEST_F(RecordTest, AnLz4RecordIsTheRawLengthAndOneLz4Block) {
  auto encoder = Must(RecordEncoder::Create({Codec::kLz4, 1}));
  const Bytes content = Compressible(65'536);
  const EncodedRecord record = Encode(encoder.get(), content);
  ASSERT_EQ(record.header.codec, Codec::kLz4);
  const auto stored = record.stored();
  EXPECT_EQ(LoadLe<uint32_t>(stored.data()), content.size());
  Bytes back(content.size());
  const int length = LZ4_decompress_safe(
      reinterpret_cast<const char*>(stored.data() + 4), reinterpret_cast<char*>(back.data()),
      static_cast<int>(stored.size() - 4), static_cast<int>(back.size()));
  EXPECT_EQ(length, static_cast<int>(content.size()));
  EXPECT_EQ(back, content);
}

TEST_F(RecordTest, AZstdRecordIsOneFrameThatKnowsItsContentSize) {
  auto encoder = Must(RecordEncoder::Create({Codec::kZstd, 3}));
  const Bytes content = Compressible(65'536);
  const EncodedRecord record = Encode(encoder.get(), content);
  ASSERT_EQ(record.header.codec, Codec::kZstd);
  const auto stored = record.stored();
  EXPECT_EQ(ZSTD_getFrameContentSize(stored.data(), stored.size()), content.size());
  EXPECT_EQ(ZSTD_findFrameCompressedSize(stored.data(), stored.size()), stored.size());
}

TEST_F(RecordTest, WhatDoesNotCompressIsStoredRaw) {
  for (Codec codec : {Codec::kRaw, Codec::kLz4, Codec::kZstd}) {
    auto encoder = Must(RecordEncoder::Create({codec, 1}));
    const Bytes content = random_.Bytes(65'536);
    const EncodedRecord record = Encode(encoder.get(), content);
    EXPECT_EQ(record.header.codec, Codec::kRaw);
    EXPECT_EQ(record.header.stored_length, content.size());
    EXPECT_TRUE(std::ranges::equal(record.stored(), content));
  }
}

TEST_F(RecordTest, CompressionIsKeptOnlyIfItSavesThreePercentAtAnySize) {
  for (Codec codec : {Codec::kLz4, Codec::kZstd}) {
    auto encoder = Must(RecordEncoder::Create({codec, 1}));
    int compressed = 0;
    for (size_t size = 1; size < 400; ++size) {
      for (size_t repeated = 0; repeated <= std::min<size_t>(size, 60); ++repeated) {
        Bytes content = random_.Bytes(size);
        std::fill_n(content.begin(), repeated, uint8_t{0});
        const EncodedRecord record = Encode(encoder.get(), content);
        if (record.header.codec == Codec::kRaw) continue;
        ++compressed;
        ASSERT_LE(uint64_t{record.header.stored_length} * 100, uint64_t{size} * 97)
            << "codec " << static_cast<int>(codec) << " size " << size;
      }
    }
    EXPECT_GT(compressed, 100);
  }
}

TEST_F(RecordTest, EveryFlippedBitIsNoticed) {
  for (Codec codec : {Codec::kRaw, Codec::kLz4, Codec::kZstd}) {
    auto encoder = Must(RecordEncoder::Create({codec, 1}));
    EncodedRecord record = Encode(encoder.get(), Compressible(600));
    for (size_t bit = 0; bit < record.bytes.size() * 8; ++bit) {
      const auto mask = static_cast<uint8_t>(1u << (bit % 8));
      record.bytes[bit / 8] ^= mask;
      const Status status = Decode(record.bytes).status();
      ASSERT_EQ(status.code(), Code::kCorruptChunk) << bit;
      ASSERT_TRUE(status.data_loss());
      record.bytes[bit / 8] ^= mask;
    }
    FIRN_EXPECT_OK(Decode(record.bytes));
  }
}

// Without the checksums, which an attacker computes anew: what is left must stop at the id.
TEST_F(RecordTest, DamageWithChecksumsMadeAnewIsStillNoticed) {
  for (Codec codec : {Codec::kRaw, Codec::kLz4, Codec::kZstd}) {
    auto encoder = Must(RecordEncoder::Create({codec, 1}));
    const Bytes content = Compressible(3000);
    const EncodedRecord record = Encode(encoder.get(), content);
    for (int i = 0; i < 2000; ++i) {
      Bytes stored(record.stored().begin(), record.stored().end());
      for (uint64_t flips = random_.Between(1, 4); flips > 0; --flips) {
        stored[random_.Below(stored.size())] ^= static_cast<uint8_t>(random_.Between(1, 255));
      }
      if (random_.OneIn(4)) stored.resize(random_.Below(stored.size()));
      Result<Bytes> back = Decode(Forge(record.header, stored));
      // Another encoding of the same content is no damage.
      if (back.ok()) {
        ASSERT_EQ(*back, content);
      }
    }
  }
}

TEST_F(RecordTest, HostileHeadersAreRefused) {
  auto encoder = Must(RecordEncoder::Create({Codec::kLz4, 1}));
  const EncodedRecord good = Encode(encoder.get(), Compressible(5000));
  const auto code_with = [&](size_t at, uint32_t value, size_t width) {
    Bytes bytes = good.bytes;
    for (size_t i = 0; i < width; ++i) bytes[at + i] = static_cast<uint8_t>(value >> (8 * i));
    StoreLe(&bytes[60], Crc32c({bytes.data(), 60}));
    return RecordHeader::Decode(bytes.data()).status().code();
  };
  EXPECT_EQ(code_with(4, 2, 1), Code::kVersion);
  EXPECT_EQ(code_with(4, 0, 1), Code::kCorruptChunk);
  EXPECT_EQ(code_with(5, 0, 1), Code::kCorruptChunk);
  EXPECT_EQ(code_with(5, 4, 1), Code::kCorruptChunk);
  EXPECT_EQ(code_with(6, 3, 1), Code::kCorruptChunk);
  EXPECT_EQ(code_with(7, 1, 1), Code::kOk);  // sealed
  EXPECT_EQ(code_with(7, 2, 1), Code::kCorruptChunk);
  EXPECT_EQ(code_with(7, 0x80, 1), Code::kCorruptChunk);
  EXPECT_EQ(code_with(48, 1, 1), Code::kCorruptChunk);
  EXPECT_EQ(code_with(8, kRecordContentMax + 1, 4), Code::kCorruptChunk);
  EXPECT_EQ(code_with(12, kRecordContentMax + 1, 4), Code::kCorruptChunk);
  EXPECT_EQ(code_with(12, 0xFFFFFFFF, 4), Code::kCorruptChunk);
  EXPECT_EQ(code_with(8, kRecordContentMax, 4), Code::kOk);
}

TEST_F(RecordTest, LengthsThatDoNotAgreeAreRefused) {
  const Bytes content = Compressible(4096);
  for (Codec codec : {Codec::kRaw, Codec::kLz4, Codec::kZstd}) {
    auto encoder = Must(RecordEncoder::Create({codec, 1}));
    const EncodedRecord good = Encode(encoder.get(), content);
    for (uint32_t raw_length : {0u, 1u, 4095u, 4097u, 65'536u}) {
      RecordHeader header = good.header;
      header.raw_length = raw_length;
      EXPECT_EQ(Decode(Forge(header, good.stored())).status().code(), Code::kCorruptChunk);
    }
    for (size_t stored_length : {size_t{0}, size_t{3}, size_t{4}, good.stored().size() - 1}) {
      EXPECT_EQ(Decode(Forge(good.header, good.stored().first(stored_length))).status().code(),
                Code::kCorruptChunk);
    }
    Bytes longer(good.stored().begin(), good.stored().end());
    longer.push_back(0);
    EXPECT_EQ(Decode(Forge(good.header, longer)).status().code(), Code::kCorruptChunk);
  }
}

// The format has one frame with its content size; a record must not be spread over several or leave
// its size open.
TEST_F(RecordTest, AZstdRecordOfSeveralFramesOrWithoutItsSizeIsRefused) {
  const Bytes content = Compressible(8192);
  RecordHeader header{.codec = Codec::kZstd, .raw_length = 8192};
  header.id = IdOf(RecordClass::kChunk, content);
  Bytes frames(2 * ZSTD_compressBound(4096));
  size_t used = 0;
  for (size_t half : {0, 4096}) {
    used += ZSTD_compress(&frames[used], frames.size() - used, &content[half], 4096, 1);
  }
  frames.resize(used);
  EXPECT_EQ(Decode(Forge(header, frames)).status().code(), Code::kCorruptChunk);

  ZSTD_CCtx* context = ZSTD_createCCtx();
  ZSTD_CCtx_setParameter(context, ZSTD_c_contentSizeFlag, 0);
  Bytes open(ZSTD_compressBound(content.size()));
  open.resize(ZSTD_compress2(context, open.data(), open.size(), content.data(), content.size()));
  ZSTD_freeCCtx(context);
  EXPECT_EQ(Decode(Forge(header, open)).status().code(), Code::kCorruptChunk);
}

TEST_F(RecordTest, ContentOfAnotherIdKeyOrClassIsNotBelieved) {
  auto encoder = Must(RecordEncoder::Create({Codec::kLz4, 1}));
  const Bytes content = Compressible(4096);
  EncodedRecord record = Encode(encoder.get(), content);
  RecordDecoder stranger{RepositoryKeys(random_.Id())};
  Bytes out(content.size());
  EXPECT_EQ(stranger.Decode(record.header, record.stored(), out).code(), Code::kCorruptChunk);
  RecordHeader header = record.header;
  header.record_class = RecordClass::kMap;
  EXPECT_EQ(Decode(Forge(header, record.stored())).status().code(), Code::kCorruptChunk);
}

TEST_F(RecordTest, AnImpossibleLevelIsTheCallersMistake) {
  EXPECT_TRUE(RecordEncoder::Create({Codec::kZstd, 19}).ok());
  // zstd clamps some levels by itself; either answer is clean.
  const Status status = RecordEncoder::Create({Codec::kZstd, 1'000'000}).status();
  EXPECT_TRUE(status.ok() || status.code() == Code::kInvalidArgument);
}

}  // namespace
}  // namespace firn
