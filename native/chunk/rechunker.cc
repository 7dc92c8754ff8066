#include "chunk/rechunker.h"

#include <algorithm>
#include <cassert>

#include "chunk/zero.h"

namespace firn {

bool SegmentContent::IsZero(uint32_t page) const {
  return !present_.Has(page) ||
         firn::IsZero(segment_ + static_cast<size_t>(page) * kPageBytes, kPageBytes);
}

bool SegmentContent::Cuts(uint32_t page, uint32_t length) const {
  return PageCuts(parameters_, cut_limit_, segment_ + static_cast<size_t>(page) * kPageBytes, page,
                  length);
}

Rechunker::Rechunker(const ChunkingParameters& parameters, const std::vector<LeafRun>& base,
                     const PageSet& changed, uint32_t segment_pages)
    : parameters_(parameters), base_(base), changed_(changed), segment_pages_(segment_pages) {
  starts_.reserve(base_.size());
  uint32_t start = 0;
  for (const LeafRun& run : base_) {
    starts_.push_back(start);
    start += run.pages;
  }
  assert(start == segment_pages_);
  PlanFirstBatch();
}

size_t Rechunker::RunAt(uint32_t page) const {
  return static_cast<size_t>(std::upper_bound(starts_.begin(), starts_.end(), page) -
                             starts_.begin()) -
         1;
}

bool Rechunker::IsBoundary(uint32_t page) const {
  if (page == segment_pages_) return true;
  const size_t run = RunAt(page);
  return base_[run].hole || starts_[run] == page;
}

// At or after `page`; the segment's end if there is none.
uint32_t Rechunker::NextChanged(uint32_t page) const {
  while (page < segment_pages_ && !changed_.Has(page)) ++page;
  return page;
}

void Rechunker::Want(uint32_t begin, uint32_t end) {
  for (uint32_t page = begin; page < end; ++page) {
    if (asked_.Has(page)) continue;
    asked_.Add(page);
    wanted_.Add(page);
  }
}

// A walk that meets a changed page in an old chunk starts at that chunk at the latest, and can't
// end before its end, as there is no base boundary inside.
void Rechunker::PlanFirstBatch() {
  for (uint32_t page = NextChanged(0); page < segment_pages_;) {
    const size_t run = RunAt(page);
    if (!base_[run].hole) {
      Want(starts_[run], EndOf(run));
      page = NextChanged(EndOf(run));
      continue;
    }
    const std::optional<uint32_t> before = SoftChunkBefore(page);
    // Whether it cuts decides about the whole chunk.
    if (before && !parameters_.fixed && page - *before >= parameters_.min_pages) {
      Want(page - 1, page);
    }
    Want(page, page + 1);
    page = NextChanged(page + 1);
  }
}

// The first page of the old chunk that ends where the old hole at `page` begins, if more pages
// could have joined that chunk as far as its length says.
std::optional<uint32_t> Rechunker::SoftChunkBefore(uint32_t page) const {
  const size_t run = RunAt(page);
  if (!base_[run].hole || starts_[run] != page || run == 0) return std::nullopt;
  if (parameters_.fixed) {
    if (page % parameters_.max_pages == 0) return std::nullopt;
  } else if (base_[run - 1].pages >= parameters_.max_pages) {
    return std::nullopt;
  }
  return starts_[run - 1];
}

bool Rechunker::Advance(const PageContent& content) {
  wanted_.Clear();
  while (true) {
    if (!walking_ && !Start(content)) break;
    if (!Walk(content)) return false;
  }
  AppendBase(position_, segment_pages_);
  position_ = segment_pages_;
  return true;
}

// Begins the walk over the next changed page; false if there is none.
bool Rechunker::Start(const PageContent& content) {
  const uint32_t changed = NextChanged(position_);
  if (changed == segment_pages_) return false;
  const size_t run = RunAt(changed);
  uint32_t start = base_[run].hole ? changed : starts_[run];
  const std::optional<uint32_t> before = SoftChunkBefore(changed);
  if (before && !content.IsZero(changed)) {
    const uint32_t length = changed - *before;
    const bool may_cut = !parameters_.fixed && length >= parameters_.min_pages;
    if (!may_cut || !content.Cuts(changed - 1, length)) start = *before;
  }
  AppendBase(position_, start);
  position_ = start;
  page_ = start;
  chunk_length_ = 0;
  walking_ = true;
  return true;
}

// Walks until nothing is left to decide; false if it needs pages for that which were not read.
bool Rechunker::Walk(const PageContent& content) {
  while (page_ < segment_pages_) {
    if (!changed_.Has(page_)) {
      const size_t run = RunAt(page_);
      if (base_[run].hole) CloseChunk();
      if (chunk_length_ == 0 && page_ > position_ && IsBoundary(page_)) break;
      if (!asked_.Has(page_)) {
        Want(page_, EndOf(run));
        return false;
      }
    }
    if (content.IsZero(page_)) {
      CloseChunk();
      AppendHole(page_, 1);
    } else {
      if (chunk_length_ == 0) chunk_start_ = page_;
      ++chunk_length_;
      if (content.Cuts(page_, chunk_length_)) {
        ++page_;
        CloseChunk();
        continue;
      }
    }
    ++page_;
  }
  CloseChunk();
  position_ = page_;
  walking_ = false;
  return true;
}

void Rechunker::CloseChunk() {
  if (chunk_length_ == 0) return;
  runs_.push_back({chunk_start_, true, {static_cast<uint16_t>(chunk_length_), false, {}}});
  chunk_length_ = 0;
}

void Rechunker::AppendHole(uint32_t first_page, uint32_t pages) {
  if (runs_.empty() || !runs_.back().run.hole) runs_.push_back({first_page, false, {0, true, {}}});
  LeafRun& hole = runs_.back().run;
  hole.pages = static_cast<uint16_t>(hole.pages + pages);
}

// Takes over what the base has in [begin, end), which has no changed page and cuts no chunk.
void Rechunker::AppendBase(uint32_t begin, uint32_t end) {
  for (uint32_t page = begin; page < end;) {
    const size_t run = RunAt(page);
    const uint32_t stop = std::min(end, EndOf(run));
    if (base_[run].hole) {
      AppendHole(page, stop - page);
    } else {
      assert(page == starts_[run] && stop == EndOf(run));
      runs_.push_back({page, false, base_[run]});
    }
    page = stop;
  }
}

}  // namespace firn
