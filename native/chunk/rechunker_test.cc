#include "chunk/rechunker.h"

#include <algorithm>
#include <cstring>
#include <set>
#include <string>

#include "chunk/rechunk_rule_test_util.h"
#include "core/core_test_util.h"
#include "io/aligned_buffer.h"

namespace firn {
namespace {

using test::FullLeaf;
using test::Pages;
using test::Reading;
using test::Rule;
using test::RunOf;

ChunkingParameters Content(uint32_t min, uint32_t max) {
  return {.min_pages = min, .average_pages = max, .max_pages = max};
}

ChunkingParameters Fixed(uint32_t pages) {
  return {.fixed = true, .min_pages = pages, .average_pages = pages, .max_pages = pages};
}

std::string ToString(const std::vector<LeafRun>& runs) {
  std::string text;
  for (const LeafRun& run : runs) {
    text += run.hole ? "." : ToHex(run.id).substr(0, 4) + ":";
    text += std::to_string(run.pages) + " ";
  }
  return text;
}

// Pages that are only there once they were asked for.
class AskedContent final : public PageContent {
 public:
  AskedContent(const ChunkingParameters& parameters, const Pages& pages)
      : parameters_(parameters), pages_(pages) {}
  void Read(const PageSet& wanted) {
    EXPECT_TRUE(!wanted.empty() || reads_ == 0) << "a read of nothing";
    if (!wanted.empty()) ++reads_;
    for (uint32_t i = 0; i < pages_.size(); ++i) {
      if (!wanted.Has(i)) continue;
      EXPECT_FALSE(read_.Has(i)) << "read twice: " << i;
      read_.Add(i);
    }
  }
  bool IsZero(uint32_t page) const override {
    EXPECT_TRUE(read_.Has(page)) << page;
    return pages_[page] == '.';
  }
  bool Cuts(uint32_t page, uint32_t length) const override {
    EXPECT_TRUE(read_.Has(page)) << page;
    return test::Cuts(parameters_, pages_, page, length);
  }
  const PageSet& read() const { return read_; }
  uint32_t reads() const { return reads_; }

 private:
  const ChunkingParameters& parameters_;
  const Pages& pages_;
  PageSet read_;
  uint32_t reads_ = 0;
};

struct Outcome {
  std::vector<LeafRun> leaf;
  PageSet read;
  uint32_t reads = 0;
  std::vector<bool> is_new;
};

Outcome Rechunk(const ChunkingParameters& parameters, const Pages& base, const Pages& now,
                const PageSet& changed) {
  const auto size = static_cast<uint32_t>(base.size());
  Rechunker rechunker(parameters, FullLeaf(parameters, base), changed, size);
  AskedContent content(parameters, now);
  content.Read(rechunker.wanted());
  while (!rechunker.Advance(content)) content.Read(rechunker.wanted());
  Outcome outcome;
  outcome.read = content.read();
  outcome.reads = content.reads();
  uint32_t page = 0;
  for (const RechunkedRun& row : rechunker.runs()) {
    EXPECT_EQ(row.first_page, page);
    page += row.run.pages;
    outcome.leaf.push_back(row.is_new ? RunOf(now, row.first_page, page) : row.run);
    outcome.is_new.push_back(row.is_new);
  }
  return outcome;
}

PageSet SetOf(const std::vector<uint32_t>& pages) {
  PageSet set;
  for (uint32_t page : pages) set.Add(page);
  return set;
}

uint32_t Runs(const PageSet& set, uint32_t size) {
  uint32_t runs = 0;
  for (uint32_t i = 0; i < size; ++i) runs += set.Has(i) && (i == 0 || !set.Has(i - 1)) ? 1 : 0;
  return runs;
}

std::vector<uint8_t> Encoded(const std::vector<LeafRun>& runs) { return EncodeLeaf({runs}); }

// "" if it is the leaf of a full walk and no page was read beyond what the rule reads, but one peek
// for each run of changes.
std::string Difference(const ChunkingParameters& parameters, const Pages& base, const Pages& now,
                       const PageSet& changed) {
  const Outcome outcome = Rechunk(parameters, base, now, changed);
  const std::vector<LeafRun> full = FullLeaf(parameters, now);
  if (Encoded(outcome.leaf) != Encoded(full)) {
    return base + " -> " + now + ": " + ToString(outcome.leaf) + " not " + ToString(full);
  }
  Rule rule(parameters, base, now, changed);
  if (Encoded(rule.Leaf()) != Encoded(full)) return base + " -> " + now + ": the rule is wrong";
  const auto size = static_cast<uint32_t>(base.size());
  uint32_t beyond = 0;
  for (uint32_t i = 0; i < size; ++i) {
    if (rule.read().Has(i) && !outcome.read.Has(i)) return base + " -> " + now + ": not read";
    beyond += outcome.read.Has(i) && !rule.read().Has(i) ? 1 : 0;
  }
  if (beyond > Runs(changed, size)) return base + " -> " + now + ": reads too much";
  return "";
}

const std::vector<ChunkingParameters>& SmallParameters() {
  static const std::vector<ChunkingParameters> all = {
      Content(1, 1), Content(1, 2), Content(1, 3), Content(2, 2), Content(2, 3), Content(2, 5),
      Content(3, 4), Content(1, 8), Fixed(1),      Fixed(2),      Fixed(3)};
  return all;
}

// Every base of `size` pages, every set of changes, every new content of the changed pages, the
// old one included.
void ForEveryCase(uint32_t size, const ChunkingParameters& parameters) {
  const std::string before = ".aA";
  const std::string after = ".bBaA";
  uint32_t bases = 1;
  for (uint32_t i = 0; i < size; ++i) bases *= 3;
  for (uint32_t number = 0; number < bases; ++number) {
    Pages base;
    for (uint32_t rest = number, i = 0; i < size; ++i, rest /= 3) base += before[rest % 3];
    for (uint32_t bits = 0; bits < 1u << size; ++bits) {
      PageSet changed;
      std::vector<uint32_t> places;
      for (uint32_t i = 0; i < size; ++i) {
        if ((bits >> i & 1) == 0) continue;
        changed.Add(i);
        places.push_back(i);
      }
      // A change to what was there is the case of a set that names too much: one in the first
      // changed place is enough of it.
      uint32_t contents = places.empty() ? 1 : 4;
      for (size_t i = 1; i < places.size(); ++i) contents *= 3;
      for (uint32_t content = 0; content < contents; ++content) {
        Pages now = base;
        for (uint32_t rest = content, i = 0; i < places.size(); ++i) {
          const uint32_t choices = i == 0 ? 4 : 3;
          const uint32_t choice = rest % choices;
          rest /= choices;
          if (choice < 3) now[places[i]] = after[choice];
        }
        const std::string difference = Difference(parameters, base, now, changed);
        ASSERT_EQ(difference, "") << "min " << parameters.min_pages << " max "
                                  << parameters.max_pages << " changes " << bits;
      }
    }
  }
}

TEST(RechunkerTest, EverySmallCaseIsAsAFullWalkAndReadsNoMoreThanTheRule) {
  for (const ChunkingParameters& parameters : SmallParameters()) {
    for (uint32_t size = 1; size <= (test::RunningUnderSanitizer() ? 3u : 4u); ++size)
      ForEveryCase(size, parameters);
    if (::testing::Test::HasFatalFailure()) return;
  }
}

TEST(RechunkerTest, EveryCaseOfFiveAndSixPagesIsAsAFullWalk) {
  if (test::RunningUnderSanitizer()) GTEST_SKIP() << "enough cases without a sanitizer";
  for (const ChunkingParameters& parameters : {Content(1, 3), Content(2, 5), Fixed(2)}) {
    ForEveryCase(5, parameters);
    if (::testing::Test::HasFatalFailure()) return;
  }
  ForEveryCase(6, Content(2, 3));
}

TEST(RechunkerTest, RandomSegmentsAreAsAFullWalkHoweverManyPagesChange) {
  test::Random random(311);
  for (int round = 0; round < (test::RunningUnderSanitizer() ? 400 : 4000); ++round) {
    const auto size = static_cast<uint32_t>(random.Between(7, 300));
    const auto max = static_cast<uint32_t>(random.Between(1, 20));
    const ChunkingParameters parameters =
        random.OneIn(4) ? Fixed(max) : Content(static_cast<uint32_t>(random.Between(1, max)), max);
    const uint64_t cutting = random.Between(2, 9);
    const auto page = [&](char first) {
      const auto letter = static_cast<char>(first + random.Below(8));
      return random.OneIn(cutting) ? static_cast<char>(letter - 'a' + 'A') : letter;
    };
    Pages base;
    while (base.size() < size) {
      const uint64_t run = random.Between(1, random.OneIn(3) ? 60 : 5);
      const bool hole = random.OneIn(3);
      for (uint64_t i = 0; i < run && base.size() < size; ++i) base += hole ? '.' : page('a');
    }
    Pages now = base;
    PageSet changed;
    for (uint64_t run = random.Below(random.OneIn(5) ? 40 : 4); run > 0; --run) {
      const auto begin = static_cast<uint32_t>(random.Below(size));
      const uint64_t length = random.Between(1, random.OneIn(4) ? 50 : 3);
      const uint64_t kind = random.Below(4);
      for (uint32_t i = begin; i < begin + length && i < size; ++i) {
        changed.Add(i);
        if (kind == 0) now[i] = '.';
        if (kind == 1 || (kind == 2 && random.OneIn(2))) now[i] = page('j');
      }
    }
    ASSERT_EQ(Difference(parameters, base, now, changed), "") << "round " << round;
  }
}

// --- Readings that fail ---

struct Trap {
  const char* name;
  Reading reading;
  ChunkingParameters parameters;
  Pages base, now;
  std::vector<uint32_t> changed;
};

void PrintTo(const Trap& trap, std::ostream* out) { *out << trap.name; }

class TrapTest : public ::testing::TestWithParam<Trap> {};

// Each case is one that the wrong reading gets wrong, or it would show nothing.
TEST_P(TrapTest, TheWrongReadingFailsAndTheRechunkerDoesNot) {
  const Trap& trap = GetParam();
  const PageSet changed = SetOf(trap.changed);
  const auto full = Encoded(FullLeaf(trap.parameters, trap.now));
  Rule wrong(trap.parameters, trap.base, trap.now, changed, trap.reading);
  EXPECT_NE(Encoded(wrong.Leaf()), full) << "the case is no trap";
  EXPECT_EQ(Difference(trap.parameters, trap.base, trap.now, changed), "");
}

INSTANTIATE_TEST_SUITE_P(
    All, TrapTest,
    ::testing::Values(
        Trap{"AChunkThatEndsBeforeAHoleGrowsIntoIt",
             Reading::kContainingChunkOnly,
             Content(1, 2),
             "a.",
             "ab",
             {1}},
        Trap{"AFixedChunkThatEndsBeforeAHoleGrowsIntoIt",
             Reading::kContainingChunkOnly,
             Fixed(2),
             "a.",
             "ab",
             {1}},
        Trap{"AChunkThatIsOpenGoesOnIntoTheNextRun",
             Reading::kEndsAtNextRun,
             Content(1, 2),
             ".a.",
             "ba.",
             {0, 2}},
        Trap{"AWalkThatReachesTheNextChangeTakesItIn",
             Reading::kRunsAlone,
             Content(2, 6),
             "aaAaaA",
             "baabaA",
             {0, 2, 3}},
        Trap{"HolesThatMeetAreOne", Reading::kHolesNotJoined, Content(1, 2), ".a.", "...", {1}},
        Trap{"AHoleThatIsSplitKeepsBothSides",
             Reading::kHolesNotJoined,
             Content(1, 2),
             "....",
             "..b.",
             {1, 2}}),
    [](const auto& trap) { return std::string(trap.param.name); });

// Where a disk ends inside a page, or what counts as used moves, the page's effective content
// changes though nobody wrote to it: the owner must name it (see DiskBase).
TEST(RechunkerTest, AChangeThatIsNotNamedIsNotSeen) {
  const ChunkingParameters parameters = Content(1, 4);
  const Outcome outcome = Rechunk(parameters, "aaa.", "aab.", PageSet{});
  EXPECT_EQ(Encoded(outcome.leaf), Encoded(FullLeaf(parameters, "aaa.")));
  EXPECT_EQ(Difference(parameters, "aaa.", "aab.", SetOf({2})), "");
}

// --- Reads ---

TEST(RechunkerTest, WithoutChangesNothingIsReadAndAllIsKept) {
  const Pages base = "aaA..aaaaaaA..";
  const Outcome outcome = Rechunk(Content(1, 4), base, base, PageSet{});
  EXPECT_EQ(outcome.reads, 0u);
  EXPECT_EQ(Encoded(outcome.leaf), Encoded(FullLeaf(Content(1, 4), base)));
  EXPECT_EQ(std::ranges::count(outcome.is_new, true), 0);
}

TEST(RechunkerTest, APageThatIsOverwrittenCostsItsChunkInOneRead) {
  const Outcome outcome = Rechunk(Content(2, 8), "aaAaaaAaaA", "aaAabaAaaA", SetOf({4}));
  EXPECT_EQ(outcome.reads, 1u);
  EXPECT_EQ(outcome.read.count(), 4u);
  EXPECT_EQ(outcome.is_new, (std::vector<bool>{false, true, false}));
}

TEST(RechunkerTest, ACutThatIsLostCostsTheNextChunkInASecondRead) {
  const Outcome outcome = Rechunk(Content(2, 8), "aaAaaAaaA", "aabaaAaaA", SetOf({2}));
  EXPECT_EQ(outcome.reads, 2u);
  EXPECT_EQ(outcome.read.count(), 6u);
  EXPECT_EQ(outcome.is_new, (std::vector<bool>{true, false}));
}

TEST(RechunkerTest, TheChunkBeforeAHoleIsReadOnlyIfItMayGrow) {
  // The peek shows that it was cut there anyway.
  Outcome outcome = Rechunk(Content(2, 8), "aaaA..", "aaaAb.", SetOf({4}));
  EXPECT_EQ(outcome.reads, 1u);
  EXPECT_EQ(outcome.read.count(), 2u);
  // The peek shows that it was not.
  outcome = Rechunk(Content(2, 8), "aaaa..", "aaaab.", SetOf({4}));
  EXPECT_EQ(outcome.reads, 2u);
  EXPECT_EQ(outcome.read.count(), 5u);
  // Too short to have been cut: no peek.
  outcome = Rechunk(Content(4, 8), "aaa..", "aaa..", SetOf({3}));
  EXPECT_EQ(outcome.reads, 1u);
  EXPECT_EQ(outcome.read.count(), 1u);
  // Full: nothing can join it.
  outcome = Rechunk(Content(2, 4), "aaaa..", "aaaab.", SetOf({4}));
  EXPECT_EQ(outcome.reads, 1u);
  EXPECT_EQ(outcome.read.count(), 1u);
  // The fixed scheme needs no peek.
  outcome = Rechunk(Fixed(4), "aaaa..", "aaaab.", SetOf({4}));
  EXPECT_EQ(outcome.read.count(), 1u);
  outcome = Rechunk(Fixed(4), "aaa..", "aaab.", SetOf({3}));
  EXPECT_EQ(outcome.read.count(), 4u);
}

TEST(RechunkerTest, AHoleIsNeverRead) {
  const Outcome outcome = Rechunk(Content(1, 8), "aa....aa", "ba....ab", SetOf({0, 7}));
  EXPECT_EQ(outcome.reads, 1u);
  EXPECT_EQ(outcome.read.count(), 4u);
}

// --- Whole segments in memory ---

TEST(RechunkerTest, WholeSegmentsAreAsTheWalkerCutsThem) {
  test::Random random(312);
  AlignedBuffer memory = test::Must(AlignedBuffer::Allocate(kSegmentBytes));
  std::memset(memory.data(), 0, kSegmentBytes);
  const auto page = [&](uint32_t i) { return memory.data() + size_t{i} * kPageBytes; };
  const auto walk = [&](const ChunkingParameters& parameters, const PageSet& present) {
    SegmentWalker walker(parameters, memory.data(), present);
    std::vector<LeafRun> runs;
    SegmentRun run;
    while (walker.Next(&run)) {
      LeafRun row{static_cast<uint16_t>(run.pages), run.hole, {}};
      if (!run.hole) std::memcpy(row.id.data(), page(run.first_page), row.id.size());
      runs.push_back(row);
    }
    return runs;
  };
  const std::vector<ChunkingParameters> all = {
      {}, {.min_pages = 4, .average_pages = 8, .max_pages = 32}, Fixed(16)};
  PageSet everything;
  everything.AddRange(0, kSegmentPages);
  for (const ChunkingParameters& parameters : all) {
    for (uint32_t i = 0; i < kSegmentPages; ++i) {
      random.Fill({page(i), 64});
      if (random.OneIn(50)) std::memset(page(i), 0, kPageBytes);
    }
    std::vector<LeafRun> base = walk(parameters, everything);
    for (int round = 0; round < 25; ++round) {
      PageSet changed;
      for (uint64_t run = random.Between(1, 9); run > 0; --run) {
        const auto begin = static_cast<uint32_t>(random.Below(kSegmentPages));
        const auto end =
            static_cast<uint32_t>(std::min<uint64_t>(kSegmentPages, begin + random.Between(1, 30)));
        const bool zero = random.OneIn(3);
        for (uint32_t i = begin; i < end; ++i) {
          changed.Add(i);
          if (zero) {
            std::memset(page(i), 0, kPageBytes);
          } else {
            random.Fill({page(i), 64});
          }
        }
      }
      Rechunker rechunker(parameters, base, changed);
      PageSet read;
      const SegmentContent content(parameters, memory.data(), read);
      do {
        for (uint32_t i = 0; i < kSegmentPages; ++i) {
          if (rechunker.wanted().Has(i)) read.Add(i);
        }
      } while (!rechunker.Advance(content));
      std::vector<LeafRun> leaf;
      for (const RechunkedRun& row : rechunker.runs()) {
        leaf.push_back(row.run);
        if (row.is_new) std::memcpy(leaf.back().id.data(), page(row.first_page), 32);
      }
      base = walk(parameters, everything);
      ASSERT_EQ(Encoded(leaf), Encoded(base)) << "round " << round;
      ASSERT_LT(read.count(), kSegmentPages);
    }
  }
}

}  // namespace
}  // namespace firn
