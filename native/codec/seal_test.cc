#include "codec/seal.h"

#include <set>
#include <thread>

#include "core/core_test_util.h"
#include "core/crc32c.h"

namespace firn {
namespace {

using Bytes = std::vector<uint8_t>;
using test::Must;

std::shared_ptr<const SealKeys> FullKeys(const Key& run_key) {
  SealKeys::Options options;
  options.run_key = run_key;
  return std::make_shared<SealKeys>(std::move(options));
}

class SealTest : public ::testing::Test {
 protected:
  SealTest() : seal_(FullKeys(random_.Id())), keys_(id_key_, seal_), decoder_(keys_) {
    random_.Fill(writer_.run);
    sealer_ = Must(RecordSealer::Create(*seal_, writer_, &counter_));
  }

  // A sealed record, header and all.
  Bytes Sealed(std::span<const uint8_t> content, RecordSealer* sealer = nullptr) {
    auto encoder = Must(RecordEncoder::Create({}));
    Bytes record(RecordBytesMax(static_cast<uint32_t>(content.size())));
    RecordHeader header = encoder->Encode(RecordClass::kChunk, Blake3Keyed(keys_.chunk, content),
                                          content, record.data());
    EXPECT_TRUE((sealer == nullptr ? sealer_.get() : sealer)->Seal(&header, record.data()).ok());
    record.resize(kRecordHeaderBytes + header.stored_length);
    return record;
  }

  Result<Bytes> Open(std::span<const uint8_t> record, const RecordWriter& writer) {
    FIRN_ASSIGN_OR_RETURN(RecordHeader header, RecordHeader::Decode(record.data()));
    Bytes content(header.raw_length);
    FIRN_RETURN_IF_ERROR(
        decoder_.Decode(header, record.subspan(kRecordHeaderBytes), content, writer));
    return content;
  }

  // Makes both checksums of a record right again: what somebody does who changes it on purpose.
  static void MendChecksums(Bytes* record) {
    StoreLe(record->data() + 56, Crc32c(std::span(*record).subspan(kRecordHeaderBytes)));
    StoreLe(record->data() + 60, Crc32c(std::span(*record).first(60)));
  }

  test::Random random_{5};
  const Key id_key_ = random_.Id();
  std::shared_ptr<const SealKeys> seal_;
  const RepositoryKeys keys_;
  RecordDecoder decoder_;
  RecordWriter writer_{.attempt = 3};
  NonceCounter counter_ = 0;
  std::unique_ptr<RecordSealer> sealer_;
};

TEST_F(SealTest, TheCipherIsAesGcmAsItsSpecificationHasIt) {
  // Test case 16 of McGrew and Viega, "The Galois/Counter Mode of Operation".
  const auto unhex = [](std::string_view hex) {
    Bytes bytes(hex.size() / 2);
    EXPECT_TRUE(FromHex(hex, bytes));
    return bytes;
  };
  Key key;
  ASSERT_TRUE(FromHex("feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308", key));
  Aes256Gcm::Nonce nonce;
  ASSERT_TRUE(FromHex("cafebabefacedbaddecaf888", nonce));
  const Bytes associated = unhex("feedfacedeadbeeffeedfacedeadbeefabaddad2");
  Bytes bytes = unhex(
      "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6"
      "b5"
      "25b16aedf5aa0de657ba637b39");
  auto cipher = Must(Aes256Gcm::Create());
  ASSERT_TRUE(cipher->SetKey(key).ok());
  Aes256Gcm::Tag tag;
  ASSERT_TRUE(cipher->Seal(nonce, associated, bytes, &tag).ok());
  EXPECT_EQ(
      ToHex(bytes),
      "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056"
      "828838c5f61e6393ba7a0abcc9f662");
  EXPECT_EQ(ToHex(tag), "76fc6ece0f4e1768cddf8853bb2d551b");
}

TEST_F(SealTest, ASealedRecordOpensForItsWriterAndHoldsNothingOfItsContent) {
  const Bytes content(70'000, 0x5A);
  const Bytes record = Sealed(content);
  EXPECT_EQ(Must(Open(record, writer_)), content);
  const Bytes pattern(16, 0x5A);
  EXPECT_EQ(std::search(record.begin(), record.end(), pattern.begin(), pattern.end()),
            record.end());
}

TEST_F(SealTest, EveryFlippedBitIsRefusedWithItsChecksumsMendedToo) {
  const Bytes content = random_.Bytes(300);
  const Bytes record = Sealed(content);
  for (size_t bit = 0; bit < record.size() * 8; ++bit) {
    Bytes flipped = record;
    flipped[bit / 8] ^= static_cast<uint8_t>(1 << (bit % 8));
    EXPECT_FALSE(Open(flipped, writer_).ok()) << "bit " << bit;
    MendChecksums(&flipped);
    if (flipped == record) continue;  // it was in a checksum
    const auto opened = Open(flipped, writer_);
    ASSERT_FALSE(opened.ok()) << "bit " << bit;
    if (bit / 8 >= kRecordHeaderBytes) {
      EXPECT_EQ(opened.status().code(), Code::kTampered);
    }
  }
}

TEST_F(SealTest, ARecordOfAnotherRunAttemptOrRepositoryIsTampered) {
  const Bytes record = Sealed(random_.Bytes(5000));
  RecordWriter other_run = writer_;
  other_run.run[0] ^= 1;
  RecordWriter other_attempt = writer_;
  ++other_attempt.attempt;
  for (const RecordWriter& other : {other_run, other_attempt}) {
    EXPECT_EQ(Open(record, other).status().code(), Code::kTampered);
  }
  RecordDecoder stranger(RepositoryKeys(id_key_, FullKeys(random_.Id())));
  const RecordHeader header = Must(RecordHeader::Decode(record.data()));
  Bytes content(header.raw_length);
  EXPECT_EQ(stranger.Decode(header, std::span(record).subspan(kRecordHeaderBytes), content, writer_)
                .code(),
            Code::kTampered);
}

TEST_F(SealTest, AnUnsealedRecordInASealedRepositoryIsTamperedAndTheOtherWayRoundNeedsAKey) {
  const Bytes content = random_.Bytes(5000);
  auto encoder = Must(RecordEncoder::Create({}));
  Bytes plain(RecordBytesMax(5000));
  const RecordHeader header = encoder->Encode(
      RecordClass::kChunk, Blake3Keyed(keys_.chunk, content), content, plain.data());
  plain.resize(kRecordHeaderBytes + header.stored_length);
  EXPECT_EQ(Open(plain, writer_).status().code(), Code::kTampered);

  RecordDecoder unsealed((RepositoryKeys(id_key_)));
  const Bytes record = Sealed(content);
  const RecordHeader sealed = Must(RecordHeader::Decode(record.data()));
  Bytes out(sealed.raw_length);
  EXPECT_EQ(unsealed.Decode(sealed, std::span(record).subspan(kRecordHeaderBytes), out).code(),
            Code::kKeyRequired);
}

TEST_F(SealTest, AWriteOnlyKeySealsForItsOwnRunAndOpensNoOther) {
  const Bytes record = Sealed(random_.Bytes(5000));
  SealKeys::Options options;
  RunId own{};
  options.runs[own] = {.key = random_.Id()};
  const auto keys = std::make_shared<SealKeys>(std::move(options));
  RecordOpener opener(keys);
  Bytes plain;
  EXPECT_EQ(opener
                .Open(Must(RecordHeader::Decode(record.data())),
                      std::span(record).subspan(kRecordHeaderBytes), writer_, &plain)
                .code(),
            Code::kKeyWriteOnly);
  NonceCounter counter = 0;
  EXPECT_TRUE(RecordSealer::Create(*keys, {own, 0}, &counter).ok());
  EXPECT_EQ(RecordSealer::Create(*keys, writer_, &counter).status().code(), Code::kKeyRequired);
}

TEST_F(SealTest, ThreadsOfOneWriterNeverUseANonceTwice) {
  constexpr int kThreads = 4, kRecords = 500;
  std::vector<std::vector<uint64_t>> nonces(kThreads);
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&, i] {
      auto sealer = Must(RecordSealer::Create(*seal_, writer_, &counter_));
      const Bytes content(100, static_cast<uint8_t>(i));
      for (int j = 0; j < kRecords; ++j) {
        const Bytes record = Sealed(content, sealer.get());
        nonces[static_cast<size_t>(i)].push_back(Must(RecordHeader::Decode(record.data())).nonce);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  std::set<uint64_t> distinct;
  for (const auto& each : nonces) distinct.insert(each.begin(), each.end());
  EXPECT_EQ(distinct.size(), size_t{kThreads * kRecords});
}

TEST_F(SealTest, AttemptsOfARunSealWithDifferentKeys) {
  const RecordWriter next{writer_.run, writer_.attempt + 1};
  EXPECT_NE(*seal_->WriterKey(writer_), *seal_->WriterKey(next));
}

TEST_F(SealTest, ARecordIsUnsealedToWhatItWasBefore) {
  const Bytes content(50'000, 7);
  const Bytes record = Sealed(content);
  RecordOpener opener(seal_);
  Bytes plain;
  ASSERT_TRUE(UnsealRecord(&opener, record, writer_, &plain).ok());
  RecordDecoder decoder((RepositoryKeys(id_key_)));
  const RecordHeader header = Must(RecordHeader::Decode(plain.data()));
  EXPECT_EQ(header.nonce, 0u);
  Bytes out(header.raw_length);
  ASSERT_TRUE(decoder.Decode(header, std::span(plain).subspan(kRecordHeaderBytes), out).ok());
  EXPECT_EQ(out, content);
}

}  // namespace
}  // namespace firn
