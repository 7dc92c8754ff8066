#include "chunk/chunker.h"

#include "chunk/zero.h"

#if defined(__x86_64__)
#include <xxh_x86dispatch.h>
#else
#include <xxhash.h>
#endif

namespace firn {

namespace {

uint64_t PageHash(const uint8_t* page, uint64_t seed) {
#if defined(__x86_64__)
  return XXH3_64bits_withSeed_dispatch(page, kPageBytes, seed);
#else
  return XXH3_64bits_withSeed(page, kPageBytes, seed);
#endif
}

}  // namespace

Status ChunkingParameters::Check() const {
  const bool ordered = min_pages >= 1 && min_pages <= average_pages && average_pages <= max_pages &&
                       max_pages <= kSegmentPages;
  if (!ordered || (fixed && kSegmentPages % max_pages != 0)) {
    return Status::Error(Code::kInvalidArgument, "chunking parameters out of range");
  }
  return Status::Ok();
}

uint64_t ChunkingParameters::CutLimit() const {
  const uint64_t choices = average_pages - min_pages + 1;
  if (choices == 1) return ~uint64_t{0};
  // floor(2^64 / choices) - 1: "hash < T" as "hash <= T - 1".
  const uint64_t threshold = ~uint64_t{0} / choices + (~uint64_t{0} % choices == choices - 1);
  return threshold - 1;
}

bool PageCuts(const ChunkingParameters& parameters, uint64_t cut_limit, const uint8_t* data,
              uint32_t page, uint32_t length) {
  if (parameters.fixed) return (page + 1) % parameters.max_pages == 0;
  if (length == parameters.max_pages) return true;
  if (length < parameters.min_pages) return false;
  return PageHash(data, parameters.seed) <= cut_limit;
}

bool SegmentWalker::IsHole(uint32_t page) const {
  return !present_.Has(page) ||
         IsZero(segment_ + static_cast<size_t>(page) * kPageBytes, kPageBytes);
}

bool SegmentWalker::Cuts(uint32_t page, uint32_t length) const {
  return PageCuts(parameters_, cut_limit_, segment_ + static_cast<size_t>(page) * kPageBytes, page,
                  length);
}

bool SegmentWalker::Next(SegmentRun* run) {
  if (page_ == kSegmentPages) return false;
  run->first_page = page_;
  run->hole = hole_ahead_ || IsHole(page_);
  hole_ahead_ = false;
  if (run->hole) {
    do {
      ++page_;
    } while (page_ < kSegmentPages && IsHole(page_));
    run->pages = page_ - run->first_page;
    return true;
  }
  bool cut = Cuts(page_, 1);
  ++page_;
  while (!cut && page_ < kSegmentPages) {
    if (IsHole(page_)) {
      hole_ahead_ = true;
      break;
    }
    cut = Cuts(page_, page_ - run->first_page + 1);
    ++page_;
  }
  run->pages = page_ - run->first_page;
  return true;
}

}  // namespace firn
