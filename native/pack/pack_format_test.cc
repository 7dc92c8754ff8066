#include "pack/pack_format.h"

#include <cstring>

#include "core/core_test_util.h"
#include "core/crc32c.h"

namespace firn {
namespace {

using Bytes = std::vector<uint8_t>;

class PackFormatTest : public ::testing::Test {
 protected:
  PackFormatTest() { random_.Fill(name_.run); }

  PackTable RandomTable(size_t records) {
    PackTable table;
    uint32_t offset = 0;
    for (size_t i = 0; i < records;) {
      PackStripe stripe{offset, 0, random_.Id()};
      uint64_t used = kStripeHeaderBytes;
      for (uint64_t left = random_.Between(1, 9); left > 0 && i < records; --left, ++i) {
        const auto stored = static_cast<uint32_t>(random_.Below(5000));
        table.records.push_back({random_.Id(), static_cast<uint32_t>(offset + used), stored,
                                 static_cast<uint32_t>(random_.Below(kRecordContentMax)),
                                 RecordClass::kChunk, Codec::kLz4, 0});
        used += kRecordHeaderBytes + stored;
      }
      stripe.length = static_cast<uint32_t>(RoundUp(used, kPackAlignment));
      offset += stripe.length;
      table.stripes.push_back(stripe);
    }
    table.footer_offset = offset;
    return table;
  }

  static Result<PackTable> Decode(uint64_t footer_offset, std::span<const uint8_t> footer) {
    FIRN_ASSIGN_OR_RETURN(PackTrailer trailer, DecodePackTrailer(footer.last(kPackTrailerBytes),
                                                                 footer_offset + footer.size()));
    return DecodePackFooter(trailer, footer);
  }

  // Makes hash and checksum right again after a change.
  static void Reseal(Bytes* footer) {
    uint8_t* trailer = footer->data() + footer->size() - kPackTrailerBytes;
    const Id hash = Blake3({footer->data(), footer->size() - kPackTrailerBytes});
    std::memcpy(trailer + 32, hash.data(), hash.size());
    StoreLe(trailer + 92, Crc32c({trailer, 92}));
  }

  test::Random random_{91};
  PackName name_{{}, 3, 0xABCDEF};
};

TEST_F(PackFormatTest, ANameGoesThereAndBack) {
  const PackName name{{0x01, 0xFF}, 0x12, 0xAB};
  EXPECT_EQ(name.ToString(), "01ff0000000000000000000000000000/0012-000000ab");
  EXPECT_EQ(name.RelativePath(), "packs/01ff0000000000000000000000000000/0012-000000ab.pack");
  EXPECT_EQ(test::Must(PackName::Parse(name.ToString())), name);
  EXPECT_EQ(test::Must(PackName::Parse(name_.ToString())), name_);
  EXPECT_LT(name, (PackName{{0x01, 0xFF}, 0x12, 0xAC}));
  EXPECT_LT(name, (PackName{{0x02}, 0, 0}));
}

TEST_F(PackFormatTest, WhatIsNotANameIsRefused) {
  const std::string good = "01ff0000000000000000000000000000/0012-000000ab";
  FIRN_EXPECT_OK(PackName::Parse(good));
  for (size_t i = 0; i < good.size(); ++i) {
    for (char bad : {'G', 'F', '/', '-', '.', ' ', '\0', '\\'}) {
      std::string text = good;
      if (text[i] == bad) continue;
      text[i] = bad;
      EXPECT_EQ(PackName::Parse(text).status().code(), Code::kInvalidArgument) << text;
    }
  }
  for (const std::string& text : {std::string(), good + "0", good.substr(1), good + ".pack",
                                  "packs/" + good, "../" + good.substr(3)}) {
    EXPECT_FALSE(PackName::Parse(text).ok()) << text;
  }
}

TEST_F(PackFormatTest, AStripeHeaderGoesThereAndBackAndEveryBitOfItCounts) {
  uint8_t bytes[kStripeHeaderBytes];
  StripeHeader{name_, PackClass::kMap, 8192}.Encode(bytes);
  const StripeHeader back = test::Must(StripeHeader::Decode(bytes));
  EXPECT_EQ(back.name, name_);
  EXPECT_EQ(back.pack_class, PackClass::kMap);
  EXPECT_EQ(back.offset, 8192u);
  EXPECT_EQ(std::memcmp(bytes, "FIRNPACK", 8), 0);
  EXPECT_EQ(LoadLe<uint16_t>(bytes + 8), 1);
  EXPECT_EQ(bytes[10], 2);
  EXPECT_EQ(LoadLe<uint32_t>(bytes + 12), name_.attempt);
  EXPECT_EQ(LoadLe<uint32_t>(bytes + 16), name_.sequence);
  EXPECT_EQ(LoadLe<uint32_t>(bytes + 20), 8192u);
  EXPECT_EQ(std::memcmp(bytes + 24, name_.run.data(), 16), 0);
  for (size_t bit = 0; bit < sizeof bytes * 8; ++bit) {
    bytes[bit / 8] ^= static_cast<uint8_t>(1u << (bit % 8));
    ASSERT_EQ(StripeHeader::Decode(bytes).status().code(), Code::kCorruptPack) << bit;
    bytes[bit / 8] ^= static_cast<uint8_t>(1u << (bit % 8));
  }
  EXPECT_FALSE(StripeHeader::Decode(std::span(bytes).first(63)).ok());
}

TEST_F(PackFormatTest, AStripeHeaderOfValuesThatNoStripeHasIsRefused) {
  const auto code_with = [&](size_t at, uint8_t value) {
    uint8_t bytes[kStripeHeaderBytes];
    StripeHeader{name_, PackClass::kData, 0}.Encode(bytes);
    bytes[at] = value;
    StoreLe(bytes + 60, Crc32c({bytes, 60}));
    return StripeHeader::Decode(bytes).status().code();
  };
  EXPECT_EQ(code_with(8, 0), Code::kCorruptPack);
  EXPECT_EQ(code_with(8, 2), Code::kVersion);
  EXPECT_EQ(code_with(10, 0), Code::kCorruptPack);
  EXPECT_EQ(code_with(10, 3), Code::kCorruptPack);
  EXPECT_EQ(code_with(11, 1), Code::kCorruptPack);
  for (size_t at = 56; at < 60; ++at) EXPECT_EQ(code_with(at, 1), Code::kCorruptPack) << at;
}

TEST_F(PackFormatTest, AFooterGoesThereAndBack) {
  for (size_t records : {0, 1, 7, 82, 83, 84, 500}) {
    PackTable table = RandomTable(records);
    const Bytes footer = EncodePackFooter(&table);
    ASSERT_EQ(footer.size() % kPackAlignment, 0u);
    ASSERT_EQ(table.file_bytes, table.footer_offset + footer.size());
    EXPECT_EQ(table.hash, Blake3(std::span(footer).first(footer.size() - kPackTrailerBytes)));
    const PackTable back = test::Must(Decode(table.footer_offset, footer));
    EXPECT_EQ(back.hash, table.hash);
    EXPECT_EQ(back.file_bytes, table.file_bytes);
    EXPECT_EQ(back.footer_offset, table.footer_offset);
    ASSERT_EQ(back.records.size(), records);
    for (size_t i = 0; i < records; ++i) {
      EXPECT_EQ(back.records[i].id, table.records[i].id);
      EXPECT_EQ(back.records[i].offset, table.records[i].offset);
      EXPECT_EQ(back.records[i].stored_length, table.records[i].stored_length);
      EXPECT_EQ(back.records[i].raw_length, table.records[i].raw_length);
    }
    ASSERT_EQ(back.stripes.size(), table.stripes.size());
    for (size_t i = 0; i < back.stripes.size(); ++i) {
      EXPECT_EQ(back.stripes[i].offset, table.stripes[i].offset);
      EXPECT_EQ(back.stripes[i].length, table.stripes[i].length);
      EXPECT_EQ(back.stripes[i].hash, table.stripes[i].hash);
    }
  }
}

TEST_F(PackFormatTest, EveryFlippedBitOfAFooterIsNoticed) {
  PackTable table = RandomTable(9);
  Bytes footer = EncodePackFooter(&table);
  for (size_t bit = 0; bit < footer.size() * 8; ++bit) {
    footer[bit / 8] ^= static_cast<uint8_t>(1u << (bit % 8));
    ASSERT_EQ(Decode(table.footer_offset, footer).status().code(), Code::kCorruptPack) << bit;
    footer[bit / 8] ^= static_cast<uint8_t>(1u << (bit % 8));
  }
}

TEST_F(PackFormatTest, ATrailerThatDoesNotAgreeWithItsFileIsRefused) {
  PackTable table = RandomTable(9);
  const Bytes footer = EncodePackFooter(&table);
  const auto code_with = [&](size_t at, uint64_t value, uint64_t file_bytes) {
    Bytes trailer(footer.end() - kPackTrailerBytes, footer.end());
    if (at != 0) std::memcpy(&trailer[at], &value, at < 16 ? 4 : 8);
    StoreLe(&trailer[92], Crc32c({trailer.data(), 92}));
    return DecodePackTrailer(trailer, file_bytes).status().code();
  };
  EXPECT_EQ(code_with(0, 0, table.file_bytes), Code::kOk);
  EXPECT_EQ(code_with(0, 0, table.file_bytes + 4096), Code::kCorruptPack);
  EXPECT_EQ(code_with(0, 0, table.file_bytes - 4096), Code::kCorruptPack);
  for (uint64_t hostile : {uint64_t{0}, uint64_t{0x7FFFFFFF}, uint64_t{0xFFFFFFFF}, ~uint64_t{0},
                           ~uint64_t{0} - 4095}) {
    for (size_t at : {8, 12, 16, 24}) {
      const Code code = code_with(at, hostile, table.file_bytes);
      // No record and no stripe fit into the same footer as few of them.
      EXPECT_TRUE(code == Code::kCorruptPack || (code == Code::kOk && hostile == 0 && at < 16))
          << at << " " << hostile;
    }
  }
  EXPECT_EQ(code_with(64, 1, table.file_bytes), Code::kCorruptPack);  // reserved
  EXPECT_EQ(code_with(84, 1, table.file_bytes), Code::kCorruptPack);
}

TEST_F(PackFormatTest, ATableThatNoWriterMakesIsRefused) {
  PackTable table = RandomTable(9);
  const Bytes good = EncodePackFooter(&table);
  const size_t stripes = 9 * kPackRecordBytes;
  const auto code_with = [&](size_t at, uint32_t value) {
    Bytes footer = good;
    StoreLe(&footer[at], value);
    Reseal(&footer);
    return Decode(table.footer_offset, footer).status().code();
  };
  EXPECT_EQ(code_with(0, 77), Code::kOk) << "an id may be anything";
  EXPECT_EQ(code_with(32, static_cast<uint32_t>(table.footer_offset)), Code::kCorruptPack);
  EXPECT_EQ(code_with(32, ~0u), Code::kCorruptPack);
  EXPECT_EQ(code_with(36, ~0u), Code::kCorruptPack);
  EXPECT_EQ(code_with(36, kRecordContentMax + 1), Code::kCorruptPack);
  EXPECT_EQ(code_with(40, kRecordContentMax + 1), Code::kCorruptPack);
  EXPECT_EQ(code_with(stripes, 4096), Code::kCorruptPack);     // does not begin the file
  EXPECT_EQ(code_with(stripes + 4, 0), Code::kCorruptPack);    // empty
  EXPECT_EQ(code_with(stripes + 4, 100), Code::kCorruptPack);  // not padded
  EXPECT_EQ(code_with(stripes + 4, ~0u & ~4095u), Code::kCorruptPack);
  // The gap before the trailer.
  EXPECT_EQ(code_with(good.size() - kPackTrailerBytes - 4, 1), Code::kCorruptPack);
}

TEST_F(PackFormatTest, ARowOfUnknownClassCodecOrFlagsOrWithReservedBitsIsRefused) {
  PackTable table = RandomTable(3);
  const Bytes good = EncodePackFooter(&table);
  const auto code_with = [&](size_t at, uint8_t value) {
    Bytes footer = good;
    footer[at] = value;
    Reseal(&footer);
    return Decode(table.footer_offset, footer).status().code();
  };
  EXPECT_EQ(code_with(44, 2), Code::kOk);
  EXPECT_EQ(code_with(44, 0), Code::kCorruptPack);
  EXPECT_EQ(code_with(44, 4), Code::kCorruptPack);
  EXPECT_EQ(code_with(45, 3), Code::kCorruptPack);
  EXPECT_EQ(code_with(46, 2), Code::kCorruptPack);
  EXPECT_EQ(code_with(47, 1), Code::kCorruptPack);
}

}  // namespace
}  // namespace firn
