// Incremental chunking: a segment's new runs from its old ones and the pages that changed.
//
// The result is what a full walk of the new content would give, run by run, and as few pages as
// possible are read for it. A Rechunker says which pages it wants; its owner reads them and calls
// Advance; that repeats until it is done. The first batch holds every page that must be read
// whatever the pages say (the changed ones, and the old chunks they lie in), so that most segments
// are done after it. Not thread-safe; sizes and positions are pages of the segment.
//
// What makes it right, and what a shorter rule gets wrong:
//
// - The owner names every page whose content differs, partial ones and those that a resize adds or
//   takes away included; naming more is only slower.
// - A base boundary is the first page of an old run, any page of an old hole, or the segment's end.
//   An old chunk that ends before data ends there whatever comes later; one that ends before a hole
//   may grow when the hole becomes data, so the walk starts at that chunk then.
// - The walk goes on past the changed pages until no chunk is open before an unchanged page that is
//   a base boundary: a full walk and the old one are in the same state there, and agree from there
//   to the next change. A change that the walk reaches is part of it.
#ifndef FIRN_CHUNK_RECHUNKER_H_
#define FIRN_CHUNK_RECHUNKER_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "chunk/chunker.h"
#include "chunk/map_format.h"

namespace firn {

// What a walk asks of the pages that were read for it.
class PageContent {
 public:
  virtual ~PageContent() = default;
  virtual bool IsZero(uint32_t page) const = 0;
  // As PageCuts.
  virtual bool Cuts(uint32_t page, uint32_t length) const = 0;
};

// The pages of a segment in memory. Those not in `present` are zero, whatever the memory holds.
class SegmentContent final : public PageContent {
 public:
  SegmentContent(const ChunkingParameters& parameters, const uint8_t* segment,
                 const PageSet& present)
      : parameters_(parameters),
        cut_limit_(parameters.CutLimit()),
        segment_(segment),
        present_(present) {}
  bool IsZero(uint32_t page) const override;
  bool Cuts(uint32_t page, uint32_t length) const override;

 private:
  const ChunkingParameters& parameters_;
  const uint64_t cut_limit_;
  const uint8_t* const segment_;
  const PageSet& present_;
};

// A run of the new leaf. The pages of a new chunk have all been read; it has no id yet.
struct RechunkedRun {
  uint32_t first_page = 0;
  bool is_new = false;
  LeafRun run;
};

class Rechunker {
 public:
  // `base` are the runs of the old leaf (one hole if there was none), `changed` the pages that may
  // differ from it. `segment_pages` is less than a segment's in tests alone.
  // REQUIRES: the runs' pages sum up to segment_pages, and no two holes are neighbours.
  Rechunker(const ChunkingParameters& parameters, const std::vector<LeafRun>& base,
            const PageSet& changed, uint32_t segment_pages = kSegmentPages);

  // The pages to read before the next Advance; none has been wanted before. May be empty.
  const PageSet& wanted() const { return wanted_; }

  // Goes on, all pages that were ever wanted having been read. True when it is done; false when
  // wanted() has more.
  bool Advance(const PageContent& content);

  // The new leaf. REQUIRES: Advance has said true.
  const std::vector<RechunkedRun>& runs() const { return runs_; }

 private:
  bool Start(const PageContent& content);
  bool Walk(const PageContent& content);
  std::optional<uint32_t> SoftChunkBefore(uint32_t page) const;
  void PlanFirstBatch();
  void Want(uint32_t begin, uint32_t end);
  size_t RunAt(uint32_t page) const;
  uint32_t EndOf(size_t run) const { return starts_[run] + base_[run].pages; }
  bool IsBoundary(uint32_t page) const;
  uint32_t NextChanged(uint32_t page) const;
  void CloseChunk();
  void AppendHole(uint32_t first_page, uint32_t pages);
  void AppendBase(uint32_t begin, uint32_t end);

  const ChunkingParameters parameters_;
  const std::vector<LeafRun> base_;
  const PageSet changed_;
  const uint32_t segment_pages_;
  std::vector<uint32_t> starts_;  // first pages, beside base_
  PageSet wanted_;
  PageSet asked_;  // all that was ever wanted

  uint32_t position_ = 0;  // the new leaf is known up to here, between walks
  bool walking_ = false;
  uint32_t page_ = 0;          // the walk's next page
  uint32_t chunk_start_ = 0;   // of the open chunk
  uint32_t chunk_length_ = 0;  // 0: none is open
  std::vector<RechunkedRun> runs_;
};

}  // namespace firn

#endif  // FIRN_CHUNK_RECHUNKER_H_
