#include "chunk/chunker.h"

#if defined(__x86_64__)
#define XXH_DISPATCH_DISABLE_REPLACE  // the plain functions are wanted here
#include <xxh_x86dispatch.h>
#else
#include <xxhash.h>
#endif

#include <algorithm>
#include <cstring>
#include <numeric>
#include <tuple>

#include "core/core_test_util.h"
#include "io/aligned_buffer.h"

namespace firn {

bool operator==(const SegmentRun& a, const SegmentRun& b) {
  return std::tie(a.first_page, a.pages, a.hole) == std::tie(b.first_page, b.pages, b.hole);
}

namespace {

using Runs = std::vector<SegmentRun>;
__extension__ using Wide = unsigned __int128;

// The format page's threshold, as it stands there: floor(2^64 / (average - min + 1)).
Wide Threshold(const ChunkingParameters& parameters) {
  return (Wide{1} << 64) / (parameters.average_pages - parameters.min_pages + 1);
}

bool ReferenceCuts(const ChunkingParameters& parameters, const uint8_t* page) {
  return XXH3_64bits_withSeed(page, kPageBytes, parameters.seed) < Threshold(parameters);
}

// Section 4 of the format page, word for word and with no eye on speed.
Runs ReferenceWalk(const ChunkingParameters& parameters, const uint8_t* segment,
                   const PageSet& present) {
  Runs runs;
  uint32_t open = 0;  // length of the chunk that is open
  for (uint32_t page = 0; page < kSegmentPages; ++page) {
    const uint8_t* data = segment + size_t{page} * kPageBytes;
    const bool hole = !present.Has(page) ||
                      std::all_of(data, data + kPageBytes, [](uint8_t byte) { return byte == 0; });
    if (hole) {
      open = 0;
      if (runs.empty() || !runs.back().hole) runs.push_back({page, 0, true});
      ++runs.back().pages;
      continue;
    }
    if (open == 0) runs.push_back({page, 0, false});
    ++runs.back().pages;
    ++open;
    const bool closes = parameters.fixed
                            ? (page + 1) % parameters.max_pages == 0
                            : open == parameters.max_pages ||
                                  (open >= parameters.min_pages && ReferenceCuts(parameters, data));
    if (closes) open = 0;
  }
  return runs;
}

Runs Walk(const ChunkingParameters& parameters, const uint8_t* segment, const PageSet& present) {
  SegmentWalker walker(parameters, segment, present);
  Runs runs;
  SegmentRun run;
  while (walker.Next(&run)) runs.push_back(run);
  EXPECT_FALSE(walker.Next(&run)) << "went on after its end";
  return runs;
}

ChunkingParameters Content(uint32_t min, uint32_t average, uint32_t max, uint64_t seed = 99) {
  return {.min_pages = min, .average_pages = average, .max_pages = max, .seed = seed};
}

ChunkingParameters Fixed(uint32_t pages) {
  return {.fixed = true, .min_pages = pages, .average_pages = pages, .max_pages = pages};
}

class ChunkerTest : public ::testing::Test {
 protected:
  ChunkerTest() : memory_(test::Must(AlignedBuffer::Allocate(kSegmentBytes))) {}

  uint8_t* page(uint32_t i) { return memory_.data() + size_t{i} * kPageBytes; }

  // A page with the property asked for; any, where every page cuts (average = min) and none has the
  // other.
  std::vector<uint8_t> FindPage(const ChunkingParameters& parameters, bool cuts) {
    const bool all_cut = parameters.average_pages == parameters.min_pages;
    while (true) {
      std::vector<uint8_t> bytes = random_.Bytes(kPageBytes);
      if (all_cut || ReferenceCuts(parameters, bytes.data()) == cuts) return bytes;
    }
  }

  AlignedBuffer memory_;
  test::Random random_{51};
};

TEST(ChunkingParametersTest, OutOfRangeIsRefused) {
  FIRN_EXPECT_OK(ChunkingParameters{}.Check());
  FIRN_EXPECT_OK(Content(1, 1, 1).Check());
  FIRN_EXPECT_OK(Content(1, 1024, 2048).Check());
  FIRN_EXPECT_OK(Fixed(2048).Check());
  FIRN_EXPECT_OK(Fixed(1).Check());
  for (const ChunkingParameters& bad :
       {Content(0, 16, 64), Content(17, 16, 64), Content(8, 65, 64), Content(8, 16, 2049), Fixed(0),
        Fixed(3), Fixed(4096), Content(~0u, ~0u, ~0u)}) {
    EXPECT_EQ(bad.Check().code(), Code::kInvalidArgument) << bad.min_pages;
  }
}

TEST(ChunkingParametersTest, TheCutLimitIsTheFormatsThresholdForEverySpread) {
  for (uint32_t spread = 0; spread < kSegmentPages; ++spread) {
    const ChunkingParameters parameters = Content(1, 1 + spread, kSegmentPages);
    // A hash is at most the limit exactly when it is below the threshold.
    ASSERT_EQ(Wide{parameters.CutLimit()} + 1, Threshold(parameters)) << spread;
  }
}

TEST_F(ChunkerTest, WalksRandomSegmentsAsTheFormatSays) {
  const std::vector<ChunkingParameters> all = {Content(8, 16, 64),
                                               Content(1, 1, 1),
                                               Content(1, 2, 3),
                                               Content(4, 4, 9),
                                               Content(2, 600, 2048),
                                               Content(64, 64, 64),
                                               Content(1, 16, 2048),
                                               Fixed(1),
                                               Fixed(16),
                                               Fixed(64),
                                               Fixed(2048)};
  for (const ChunkingParameters& parameters : all) {
    for (int round = 0; round < 8; ++round) {
      PageSet present;
      // Stretches of one kind, so that long chunks and long holes come up.
      for (uint32_t i = 0; i < kSegmentPages;) {
        const auto end = static_cast<uint32_t>(
            std::min<uint64_t>(kSegmentPages, i + 1 + random_.Below(random_.OneIn(4) ? 400 : 9)));
        const uint64_t kind = random_.Below(3);
        for (; i < end; ++i) {
          if (kind != 2) present.Add(i);
          if (kind == 1) {
            std::memset(page(i), 0, kPageBytes);
          } else {
            random_.Fill({page(i), 16});
            page(i)[4095] = 1;
          }
        }
      }
      ASSERT_EQ(Walk(parameters, memory_.data(), present),
                ReferenceWalk(parameters, memory_.data(), present))
          << parameters.min_pages << "/" << parameters.average_pages << "/" << parameters.max_pages;
    }
  }
}

// All sequences of up to seven pages over {zero, not there, cutting, not cutting}, at the segment's
// start and at its end.
TEST_F(ChunkerTest, WalksEverySmallCaseAsTheFormatSays) {
  constexpr uint32_t kPages = 7;
  const std::vector<ChunkingParameters> all = {Content(1, 2, 2), Content(1, 2, 3), Content(2, 3, 3),
                                               Content(2, 4, 5), Content(3, 4, 4), Fixed(2)};
  const std::vector<uint8_t> zero(kPageBytes);
  for (const ChunkingParameters& parameters : all) {
    const std::vector<uint8_t> cutting = FindPage(parameters, true);
    const std::vector<uint8_t> other = FindPage(parameters, false);
    for (uint32_t start : {0u, kSegmentPages - kPages}) {
      for (uint32_t word = 0; word < 1u << (2 * kPages); ++word) {
        PageSet present;
        for (uint32_t i = 0; i < kPages; ++i) {
          const uint32_t kind = word >> (2 * i) & 3;
          if (kind != 3) present.Add(start + i);
          const auto& bytes = kind == 0 ? zero : kind == 2 ? other : cutting;
          std::memcpy(page(start + i), bytes.data(), kPageBytes);
        }
        ASSERT_EQ(Walk(parameters, memory_.data(), present),
                  ReferenceWalk(parameters, memory_.data(), present))
            << "word " << word << " at " << start << " min " << parameters.min_pages;
      }
    }
  }
}

TEST_F(ChunkerTest, ChunksStayWithinTheirBoundsAndRunsFillTheSegment) {
  random_.Fill(memory_.span());
  PageSet all;
  all.AddRange(0, kSegmentPages);
  const ChunkingParameters parameters = Content(8, 16, 64);
  const Runs runs = Walk(parameters, memory_.data(), all);
  uint32_t pages = 0;
  for (size_t i = 0; i < runs.size(); ++i) {
    EXPECT_EQ(runs[i].first_page, pages);
    EXPECT_LE(runs[i].pages, 64u);
    if (i + 1 < runs.size()) {
      EXPECT_GE(runs[i].pages, 8u);
    }
    pages += runs[i].pages;
  }
  EXPECT_EQ(pages, kSegmentPages);
  EXPECT_NEAR(static_cast<double>(kSegmentPages) / static_cast<double>(runs.size()), 16, 3);
}

TEST_F(ChunkerTest, NoMatterHowZerosAreKnownTheRunsAreTheSame) {
  const ChunkingParameters parameters = Content(2, 3, 5);
  for (int round = 0; round < 20; ++round) {
    PageSet all, least, some;
    all.AddRange(0, kSegmentPages);
    std::vector<bool> zero(kSegmentPages);
    for (uint32_t i = 0; i < kSegmentPages; ++i) {
      zero[i] = random_.OneIn(3);
      if (!zero[i]) {
        random_.Fill({page(i), kPageBytes});
        least.Add(i);
      } else {
        std::memset(page(i), 0, kPageBytes);
      }
      if (!zero[i] || random_.OneIn(2)) some.Add(i);
    }
    const Runs expected = ReferenceWalk(parameters, memory_.data(), all);
    ASSERT_EQ(Walk(parameters, memory_.data(), all), expected);
    ASSERT_EQ(Walk(parameters, memory_.data(), some), expected);
    // What is not there may hold anything.
    for (uint32_t i = 0; i < kSegmentPages; ++i) {
      if (zero[i]) std::memset(page(i), 0xAB, kPageBytes);
    }
    ASSERT_EQ(Walk(parameters, memory_.data(), least), expected);
  }
}

TEST_F(ChunkerTest, ASegmentOfNothingIsOneHole) {
  std::memset(memory_.data(), 0xFF, kSegmentBytes);
  const Runs hole = {{0, kSegmentPages, true}};
  EXPECT_EQ(Walk(Content(8, 16, 64), memory_.data(), PageSet{}), hole);
  std::memset(memory_.data(), 0, kSegmentBytes);
  PageSet all;
  all.AddRange(0, kSegmentPages);
  EXPECT_EQ(Walk(Fixed(16), memory_.data(), all), hole);
}

TEST_F(ChunkerTest, ContentThatMovedByPagesIsCutAlikeAgain) {
  const ChunkingParameters parameters = Content(8, 16, 64);
  random_.Fill(memory_.span());
  PageSet all;
  all.AddRange(0, kSegmentPages);
  const auto contents = [&] {
    std::vector<std::vector<uint8_t>> chunks;
    for (const SegmentRun& run : Walk(parameters, memory_.data(), all)) {
      chunks.emplace_back(page(run.first_page),
                          page(run.first_page) + size_t{run.pages} * kPageBytes);
    }
    std::sort(chunks.begin(), chunks.end());
    return chunks;
  };
  const auto before = contents();
  std::memmove(page(3), page(0), size_t{kSegmentPages - 3} * kPageBytes);
  const auto after = contents();
  std::vector<std::vector<uint8_t>> common;
  std::set_intersection(before.begin(), before.end(), after.begin(), after.end(),
                        std::back_inserter(common));
  EXPECT_GT(common.size() * 10, before.size() * 7);
}

}  // namespace
}  // namespace firn
