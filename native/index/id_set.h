// A set of ids for many threads: which chunks has this run met that no index run knows yet?
//
// Thread-safe; 64 shards, so that workers seldom meet. Open addressing without per-entry
// allocation: 32 bytes an id and at most twice that in slack. The all-zero id marks an empty slot;
// no content has it that anyone could find.
#ifndef FIRN_INDEX_ID_SET_H_
#define FIRN_INDEX_ID_SET_H_

#include <array>
#include <cstdint>
#include <mutex>
#include <span>
#include <vector>

#include "core/bytes.h"

namespace firn {

class IdSet {
 public:
  // True if the id was not in the set.
  bool Insert(const Id& id);
  void Erase(const Id& id);

 private:
  struct Shard {
    std::mutex mutex;
    std::vector<Id> slots;
    size_t count = 0;

    size_t Slot(const Id& id) const;
    void Grow();
  };
  Shard& ShardOf(const Id& id) { return shards_[id[0] & 63]; }

  std::array<Shard, 64> shards_;
};

}  // namespace firn

#endif  // FIRN_INDEX_ID_SET_H_
