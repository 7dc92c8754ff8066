// Page-aligned, content-defined chunking: docs/repository-format.md section 4.
//
// A SegmentWalker goes once over one segment and yields its runs in order: holes (all neighbouring
// zero pages as one) and chunks. The walk is lazy, so that the caller hashes and compresses each
// chunk while it is still in the cache that the walk has just filled. Nothing is allocated; not
// thread-safe; the segment's memory must stay as it is while the walker lives.
//
// Boundaries are looked for at page boundaries only, because file systems place content there: as
// much deduplication as a byte-wise rolling hash for a tenth of the work.
#ifndef FIRN_CHUNK_CHUNKER_H_
#define FIRN_CHUNK_CHUNKER_H_

#include <cstdint>

#include "chunk/page.h"
#include "core/status.h"

namespace firn {

struct ChunkingParameters {
  bool fixed = false;  // chunks end at multiples of max_pages and nowhere else
  uint32_t min_pages = 8;
  uint32_t average_pages = 16;
  uint32_t max_pages = 64;
  uint64_t seed = 0;

  // min <= average <= max, max at most a segment, and for fixed a divisor of it.
  Status Check() const;
  // A page cuts when its hash is at most this.
  uint64_t CutLimit() const;
};

// Whether a chunk of `length` pages ends after `page` (its number in the segment), whose bytes are
// `data`; `cut_limit` is the parameters'. What follows the page may end the chunk as well.
bool PageCuts(const ChunkingParameters& parameters, uint64_t cut_limit, const uint8_t* data,
              uint32_t page, uint32_t length);

struct SegmentRun {
  uint32_t first_page = 0;
  uint32_t pages = 0;
  bool hole = false;
};

class SegmentWalker {
 public:
  // `present` says which pages to look at; the others are holes, whatever the memory holds.
  SegmentWalker(const ChunkingParameters& parameters, const uint8_t* segment,
                const PageSet& present)
      : parameters_(parameters),
        cut_limit_(parameters.CutLimit()),
        segment_(segment),
        present_(present) {}

  // False when the segment has been walked.
  bool Next(SegmentRun* run);

 private:
  bool IsHole(uint32_t page) const;
  bool Cuts(uint32_t page, uint32_t length) const;

  const ChunkingParameters& parameters_;
  const uint64_t cut_limit_;
  const uint8_t* const segment_;
  const PageSet& present_;
  uint32_t page_ = 0;
  bool hole_ahead_ = false;  // page_ is known to be a hole already
};

}  // namespace firn

#endif  // FIRN_CHUNK_CHUNKER_H_
