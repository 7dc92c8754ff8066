// For tests: segments of a few pages, what a full walk makes of them, and the rule of re-chunking
// in its own words, page by page, right and as one might misread it.
#ifndef FIRN_CHUNK_RECHUNK_RULE_TEST_UTIL_H_
#define FIRN_CHUNK_RECHUNK_RULE_TEST_UTIL_H_

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "chunk/chunker.h"
#include "chunk/map_format.h"

namespace firn::test {

// A page as a letter: '.' is zero, lower case does not cut, upper case does. Other letters are
// other contents.
using Pages = std::string;

inline bool Cuts(const ChunkingParameters& parameters, const Pages& pages, uint32_t page,
                 uint32_t length) {
  if (parameters.fixed) return (page + 1) % parameters.max_pages == 0;
  return length == parameters.max_pages ||
         (length >= parameters.min_pages && pages[page] >= 'A' && pages[page] <= 'Z');
}

// The content of a leaf's run stands in its id, so that leaves with other content differ.
inline LeafRun RunOf(const Pages& pages, uint32_t begin, uint32_t end) {
  LeafRun run{static_cast<uint16_t>(end - begin), pages[begin] == '.', {}};
  if (run.hole) return run;
  uint64_t hash = 1469598103934665603u;
  for (uint32_t i = begin; i < end; ++i) hash = (hash ^ uint8_t(pages[i])) * 1099511628211u;
  std::memcpy(run.id.data(), &hash, sizeof hash);
  return run;
}

// Section 4 of the format page over few pages.
inline std::vector<LeafRun> FullLeaf(const ChunkingParameters& parameters, const Pages& pages) {
  std::vector<LeafRun> runs;
  const auto size = static_cast<uint32_t>(pages.size());
  for (uint32_t begin = 0; begin < size;) {
    uint32_t end = begin + 1;
    if (pages[begin] == '.') {
      while (end < size && pages[end] == '.') ++end;
    } else {
      while (end < size && pages[end] != '.' && !Cuts(parameters, pages, end - 1, end - begin)) {
        ++end;
      }
    }
    runs.push_back(RunOf(pages, begin, end));
    begin = end;
  }
  return runs;
}

// The rule in its own words, page by page; and what one might take it for.
enum class Reading {
  kRight,
  kContainingChunkOnly,  // a chunk that ends before a hole stays as it is
  kEndsAtNextRun,        // a base run's first page ends the walk, a chunk being open or not
  kRunsAlone,            // each run of changes for itself, ending where the next one begins
  kHolesNotJoined,
};

class Rule {
 public:
  Rule(const ChunkingParameters& parameters, const Pages& base, const Pages& now,
       const PageSet& changed, Reading reading = Reading::kRight)
      : parameters_(parameters), now_(now), changed_(changed), reading_(reading), base_(base) {
    for (const LeafRun& run : FullLeaf(parameters, base)) {
      const auto begin = static_cast<uint32_t>(start_.size());
      start_.insert(start_.end(), run.pages, begin);
      end_.insert(end_.end(), run.pages, begin + run.pages);
    }
  }

  std::vector<LeafRun> Leaf() {
    const auto size = static_cast<uint32_t>(now_.size());
    uint32_t position = 0;
    for (uint32_t begin = 0; begin < size; ++begin) {
      if (!changed_.Has(begin) || (begin > 0 && changed_.Has(begin - 1))) continue;
      uint32_t end = begin;
      while (end < size && changed_.Has(end)) ++end;
      if (end <= position) continue;
      position = Walk(position, std::max(begin, position));
      if (position == size) break;
    }
    AppendBase(position, size);
    return runs_;
  }
  const PageSet& read() const { return read_; }

 private:
  bool BaseHole(uint32_t page) const { return base_[page] == '.'; }
  char Read(uint32_t page) {
    read_.Add(page);
    return now_[page];
  }
  uint32_t Begin(uint32_t changed) {
    if (!BaseHole(changed)) return start_[changed];
    if (reading_ == Reading::kContainingChunkOnly) return changed;
    if (start_[changed] != changed || changed == 0) return changed;
    const uint32_t before = start_[changed - 1];
    const uint32_t length = changed - before;
    if (parameters_.fixed ? changed % parameters_.max_pages == 0
                          : length == parameters_.max_pages) {
      return changed;
    }
    if (Read(changed) == '.') return changed;
    if (parameters_.fixed || length < parameters_.min_pages) return before;
    Read(changed - 1);
    return Cuts(parameters_, now_, changed - 1, length) ? changed : before;
  }
  uint32_t Walk(uint32_t position, uint32_t changed) {
    const auto size = static_cast<uint32_t>(now_.size());
    const uint32_t start = Begin(changed);
    AppendBase(position, start);
    uint32_t open = start;  // first page of the open chunk
    uint32_t page = start;
    bool left = false;  // the first run of changes
    const auto close = [&] {
      if (open < page) Append(RunOf(now_, open, page));
      open = page;
    };
    while (page < size) {
      if (!changed_.Has(page)) {
        left = left || page > changed;
        if (BaseHole(page)) close();
        const bool boundary = BaseHole(page) || start_[page] == page;
        const bool ends = open == page || reading_ == Reading::kEndsAtNextRun;
        if (ends && boundary && page > start) {
          close();
          return page;
        }
      } else if (left && reading_ == Reading::kRunsAlone) {
        close();
        return page;
      }
      if (Read(page) == '.') {
        close();
        Append(RunOf(now_, page, page + 1));
        open = ++page;
      } else {
        ++page;
        if (Cuts(parameters_, now_, page - 1, page - open)) close();
      }
    }
    close();
    return size;
  }
  void AppendBase(uint32_t begin, uint32_t end) {
    for (uint32_t page = begin; page < end;) {
      const uint32_t stop = std::min(end, end_[page]);
      Append(RunOf(base_, page, stop));
      page = stop;
    }
  }
  void Append(const LeafRun& run) {
    const bool joins = run.hole && !runs_.empty() && runs_.back().hole;
    if (joins && reading_ != Reading::kHolesNotJoined) {
      runs_.back().pages = static_cast<uint16_t>(runs_.back().pages + run.pages);
    } else {
      runs_.push_back(run);
    }
  }

  const ChunkingParameters& parameters_;
  const Pages& now_;
  const PageSet& changed_;
  const Reading reading_;
  const Pages& base_;
  std::vector<uint32_t> start_, end_;
  std::vector<LeafRun> runs_;
  PageSet read_;
};

}  // namespace firn::test

#endif  // FIRN_CHUNK_RECHUNK_RULE_TEST_UTIL_H_
