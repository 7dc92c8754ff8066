#include "codec/hash.h"

#include <cstring>
#include <string_view>

#include "core/core_test_util.h"

namespace firn {
namespace {

Key KeyOf(std::string_view text) {
  Key key{};
  std::memcpy(key.data(), text.data(), key.size());
  return key;
}

// 0, 1, ..., 250, 0, 1, ...: the input of BLAKE3's published test vectors.
std::vector<uint8_t> VectorInput(size_t length) {
  std::vector<uint8_t> bytes(length);
  for (size_t i = 0; i < length; ++i) bytes[i] = static_cast<uint8_t>(i % 251);
  return bytes;
}

TEST(HashTest, GivesBlake3sPublishedVectors) {
  EXPECT_EQ(ToHex(Blake3({})), "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262");
  EXPECT_EQ(ToHex(Blake3(VectorInput(1))),
            "2d3adedff11b61f14c886e35afa036736dcd87a74d27b5c1510225d0f592e213");
  EXPECT_EQ(ToHex(Blake3(VectorInput(1024))),
            "42214739f095a406f3fc83deb889744ac00df831c10daa55189b5d121c855af7");
  const Key key = KeyOf("whats the Elvish word for friend");
  EXPECT_EQ(ToHex(Blake3Keyed(key, {})),
            "92b2b75604ed3c761f9d6f62392c8a9227ad0ea3f09573e783f1498a4ed60d26");
}

TEST(HashTest, KeysAndContextsSeparate) {
  test::Random random(71);
  const std::vector<uint8_t> bytes = random.Bytes(10'000);
  const Key one = random.Id(), two = random.Id();
  EXPECT_NE(Blake3Keyed(one, bytes), Blake3Keyed(two, bytes));
  EXPECT_NE(Blake3Keyed(one, bytes), Blake3(bytes));
  EXPECT_NE(Blake3DeriveKey("a", one), Blake3DeriveKey("b", one));
  EXPECT_NE(Blake3DeriveKey("a", one), Blake3DeriveKey("a", two));
}

TEST(HashTest, ARepositorysKeysComeFromItsIdKeyAsTheFormatSays) {
  test::Random random(72);
  const Key id_key = random.Id();
  const RepositoryKeys keys(id_key);
  EXPECT_EQ(keys.chunk, id_key);
  EXPECT_EQ(keys.map, Blake3DeriveKey("firn 2026-11 map id", id_key));
  EXPECT_EQ(keys.object, Blake3DeriveKey("firn 2026-11 object id", id_key));
  const Key seed = Blake3DeriveKey("firn 2026-11 cut seed", id_key);
  EXPECT_EQ(keys.cut_seed, LoadLe<uint64_t>(seed.data()));
}

}  // namespace
}  // namespace firn
