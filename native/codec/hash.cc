#include "codec/hash.h"

#include <blake3.h>

namespace firn {

namespace {

Id Finish(blake3_hasher* hasher, std::span<const uint8_t> bytes) {
  Id id;
  blake3_hasher_update(hasher, bytes.data(), bytes.size());
  blake3_hasher_finalize(hasher, id.data(), id.size());
  return id;
}

// BLAKE3 finds out what the CPU can do at its first call, without synchronisation: make that call
// before there are threads.
[[maybe_unused]] const Id kFirstCall = [] {
  blake3_hasher hasher;
  blake3_hasher_init(&hasher);
  return Finish(&hasher, {});
}();

}  // namespace

Id Blake3(std::span<const uint8_t> bytes) {
  blake3_hasher hasher;
  blake3_hasher_init(&hasher);
  return Finish(&hasher, bytes);
}

Id Blake3Keyed(const Key& key, std::span<const uint8_t> bytes) {
  blake3_hasher hasher;
  blake3_hasher_init_keyed(&hasher, key.data());
  return Finish(&hasher, bytes);
}

Key Blake3DeriveKey(const char* context, const Key& key) {
  blake3_hasher hasher;
  blake3_hasher_init_derive_key(&hasher, context);
  return Finish(&hasher, key);
}

RepositoryKeys::RepositoryKeys(const Key& id_key, std::shared_ptr<const SealKeys> sealing)
    : chunk(id_key),
      map(Blake3DeriveKey("firn 2026-11 map id", id_key)),
      object(Blake3DeriveKey("firn 2026-11 object id", id_key)),
      cut_seed(LoadLe<uint64_t>(Blake3DeriveKey("firn 2026-11 cut seed", id_key).data())),
      seal(std::move(sealing)) {}

}  // namespace firn
