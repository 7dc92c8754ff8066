#include "index/id_set.h"

namespace firn {

namespace {

constexpr Id kEmpty{};
constexpr size_t kSlotsMin = 64;

size_t Home(const Id& id, size_t slots) {
  return static_cast<size_t>(LoadLe<uint64_t>(&id[8])) & (slots - 1);
}

}  // namespace

// The id's slot, or the empty one where it would go. REQUIRES: there is an empty slot.
size_t IdSet::Shard::Slot(const Id& id) const {
  size_t slot = Home(id, slots.size());
  while (slots[slot] != kEmpty && slots[slot] != id) slot = (slot + 1) & (slots.size() - 1);
  return slot;
}

void IdSet::Shard::Grow() {
  std::vector<Id> old(slots.empty() ? kSlotsMin : slots.size() * 2, kEmpty);
  old.swap(slots);
  for (const Id& id : old) {
    if (id != kEmpty) slots[Slot(id)] = id;
  }
}

bool IdSet::Insert(const Id& id) {
  Shard& shard = ShardOf(id);
  std::lock_guard lock(shard.mutex);
  if ((shard.count + 1) * 4 > shard.slots.size() * 3) shard.Grow();
  const size_t slot = shard.Slot(id);
  if (shard.slots[slot] == id) return false;
  shard.slots[slot] = id;
  ++shard.count;
  return true;
}

// Linear probing without tombstones: what follows the gap moves up if it may.
void IdSet::Erase(const Id& id) {
  Shard& shard = ShardOf(id);
  std::lock_guard lock(shard.mutex);
  if (shard.slots.empty()) return;
  std::vector<Id>& slots = shard.slots;
  const size_t mask = slots.size() - 1;
  size_t gap = shard.Slot(id);
  if (slots[gap] != id) return;
  for (size_t next = (gap + 1) & mask; slots[next] != kEmpty; next = (next + 1) & mask) {
    const size_t home = Home(slots[next], slots.size());
    const bool stays = ((next - home) & mask) < ((next - gap) & mask);
    if (stays) continue;
    slots[gap] = slots[next];
    gap = next;
  }
  slots[gap] = kEmpty;
  --shard.count;
}

}  // namespace firn
