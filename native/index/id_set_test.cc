#include "index/id_set.h"

#include <atomic>
#include <set>
#include <thread>

#include "core/core_test_util.h"

namespace firn {
namespace {

TEST(IdSetTest, AnswersLikeASetUnderInsertsAndErases) {
  test::Random random(131);
  IdSet ids;
  std::set<Id> model;
  std::vector<Id> pool;
  for (int i = 0; i < 3000; ++i) pool.push_back(random.Id());
  for (int i = 0; i < 60'000; ++i) {
    const Id& id = pool[random.Below(pool.size())];
    // Phases that mostly grow and phases that mostly shrink.
    if (random.Below(10) < (i / 10'000 % 2 == 0 ? 7u : 3u)) {
      ASSERT_EQ(ids.Insert(id), model.insert(id).second);
    } else {
      ids.Erase(id);
      model.erase(id);
    }
  }
  for (const Id& id : pool) ASSERT_EQ(ids.Insert(id), !model.contains(id));
}

// All in one shard, with homes so near to each other and to the table's end that probes wrap
// around.
TEST(IdSetTest, AnswersLikeASetWhenEverythingCollides) {
  test::Random random(132);
  for (uint64_t spread : {1, 2, 5, 64}) {
    IdSet ids;
    std::set<Id> model;
    std::vector<Id> pool;
    for (int i = 0; i < 40; ++i) {
      Id id = random.Id();
      id[0] = 5;
      StoreLe<uint64_t>(&id[8], ~uint64_t{0} - random.Below(spread));
      pool.push_back(id);
    }
    for (int i = 0; i < 20'000; ++i) {
      const Id& id = pool[random.Below(pool.size())];
      if (random.OneIn(2)) {
        ASSERT_EQ(ids.Insert(id), model.insert(id).second);
      } else {
        ids.Erase(id);
        model.erase(id);
      }
    }
    for (const Id& id : pool) ASSERT_EQ(ids.Insert(id), !model.contains(id));
  }
}

TEST(IdSetTest, ErasingWhatIsNotThereDoesNothing) {
  test::Random random(133);
  IdSet ids;
  const Id id = random.Id();
  ids.Erase(id);
  EXPECT_TRUE(ids.Insert(id));
  ids.Erase(random.Id());
  EXPECT_FALSE(ids.Insert(id));
}

TEST(IdSetTest, OfManyThreadsThatInsertAnIdExactlyOneWins) {
  test::Random random(134);
  constexpr int kThreads = 6, kIds = 20'000;
  std::vector<Id> pool;
  for (int i = 0; i < kIds; ++i) pool.push_back(random.Id());
  IdSet ids;
  std::vector<std::atomic<int>> winners(kIds);
  std::vector<std::thread> threads;
  for (size_t t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (size_t i = 0; i < kIds; ++i) {
        const size_t pick = (i + t * 17) % kIds;
        if (ids.Insert(pool[pick])) ++winners[pick];
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const auto& winner : winners) ASSERT_EQ(winner, 1);
}

}  // namespace
}  // namespace firn
