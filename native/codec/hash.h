// BLAKE3 as the repository uses it: keyed ids, plain hashes, derived keys.
// docs/repository-format.md names the contexts.
//
// All functions are thread-safe and allocate nothing.
#ifndef FIRN_CODEC_HASH_H_
#define FIRN_CODEC_HASH_H_

#include <array>
#include <cstdint>
#include <memory>
#include <span>

#include "core/bytes.h"

namespace firn {

using Key = std::array<uint8_t, 32>;

Id Blake3(std::span<const uint8_t> bytes);
Id Blake3Keyed(const Key& key, std::span<const uint8_t> bytes);
Key Blake3DeriveKey(const char* context, const Key& key);

class SealKeys;

// What a repository's id key makes of itself, and in a sealed repository the keys that records are
// sealed with.
struct RepositoryKeys {
  explicit RepositoryKeys(const Key& id_key, std::shared_ptr<const SealKeys> seal = nullptr);

  Key chunk;                             // ids of chunks
  Key map;                               // ids of map objects
  Key object;                            // ids of object files
  uint64_t cut_seed;                     // of the chunker's page hash
  std::shared_ptr<const SealKeys> seal;  // null: records are not sealed
};

}  // namespace firn

#endif  // FIRN_CODEC_HASH_H_
