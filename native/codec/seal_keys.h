// The keys that a repository's records are sealed with. docs/repository-format.md section 12.
//
//   repository's run key  --keyed BLAKE3, run id-->  run's key  --keyed BLAKE3, attempt--> writer's
//   key
//
// A writer's key seals the records of one attempt of one run, and nothing else ever. A write-only
// key has no repository's run key: it knows the keys of its own runs alone, which it made itself,
// and who holds the full key is told of them (`runs`). Immutable and thread-safe; wiped at its end.
#ifndef FIRN_CODEC_SEAL_KEYS_H_
#define FIRN_CODEC_SEAL_KEYS_H_

#include <array>
#include <cstdint>
#include <map>
#include <optional>

#include "codec/hash.h"

namespace firn {

using RunId = std::array<uint8_t, 16>;

// Whose record it is: what its key is derived from.
struct RecordWriter {
  RunId run{};
  uint32_t attempt = 0;
  bool operator==(const RecordWriter&) const = default;
};

// A run of a write-only key. Its id is the first half of its public key.
struct WriteOnlyRun {
  Key key{};
  std::array<uint8_t, 16> public_tail{};  // the second half, which stands in each stripe's header
};

class SealKeys {
 public:
  struct Options {
    std::optional<Key> run_key;  // the repository's; none with a write-only key
    std::map<RunId, WriteOnlyRun> runs;
    // No key at all: stored bytes can be checked, content can't be read.
    bool locked = false;
  };
  explicit SealKeys(Options options) : options_(std::move(options)) {}
  ~SealKeys();
  SealKeys(const SealKeys&) = delete;
  SealKeys& operator=(const SealKeys&) = delete;

  bool is_locked() const { return options_.locked; }
  // No value if these keys can't read what that writer wrote.
  std::optional<Key> WriterKey(const RecordWriter& writer) const;
  // What the stripes of this run say of it: zeros unless it is a write-only key's.
  std::array<uint8_t, 16> PublicTail(const RunId& run) const;

 private:
  Options options_;
};

// The key of the hash at the end of a sealed repository's index runs.
Key SealedIndexKey(const Key& id_key);

}  // namespace firn

#endif  // FIRN_CODEC_SEAL_KEYS_H_
