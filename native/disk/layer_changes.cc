#include "disk/layer_changes.h"

#include <algorithm>
#include <memory>

#include "disk/layer.h"
#include "disk/layer_chain.h"

namespace firn {
namespace {

constexpr uint64_t kPage = 4096;
// So much of the disk is looked at in one go; it bounds what the runs of a window take.
constexpr uint64_t kWindowPages = 32768;

// Ranges of pages, given in the order of their beginnings; the nearest are joined when there are
// too many.
class RangeList {
 public:
  explicit RangeList(uint32_t max_ranges) : max_ranges_(std::max<uint32_t>(1, max_ranges)) {}

  void Add(uint64_t begin, uint64_t end) {
    if (!pages_.empty() && begin < pages_.back().end + least_gap_) {
      pages_.back().end = std::max(pages_.back().end, end);
      return;
    }
    pages_.push_back({begin, end});
    while (pages_.size() > max_ranges_) Thin();
  }

  std::vector<LayerChanges::Range> Take(uint64_t disk_bytes) const {
    std::vector<LayerChanges::Range> ranges;
    ranges.reserve(pages_.size());
    for (const Pages& pages : pages_) {
      const uint64_t offset = pages.begin * kPage;
      ranges.push_back({offset, std::min(pages.end * kPage, disk_bytes) - offset});
    }
    return ranges;
  }

 private:
  struct Pages {
    uint64_t begin = 0;
    uint64_t end = 0;
  };

  // Doubling the gap that is closed keeps the cost of all calls together linear in the ranges.
  void Thin() {
    least_gap_ *= 2;
    size_t kept = 0;
    for (size_t i = 1; i < pages_.size(); ++i) {
      if (pages_[i].begin - pages_[kept].end < least_gap_) {
        pages_[kept].end = pages_[i].end;
      } else {
        pages_[++kept] = pages_[i];
      }
    }
    pages_.resize(kept + 1);
  }

  const uint32_t max_ranges_;
  uint64_t least_gap_ = 1;  // ranges that are nearer than this are one
  std::vector<Pages> pages_;
};

using Layers = std::vector<std::unique_ptr<Layer>>;

Status CheckBase(const Layers& layers, const LayerChangesOptions& options) {
  const Layer& child = *layers.front();
  if (options.layers == 0 || layers.size() <= options.layers) {
    return Status::Error(Code::kUnsupported,
                         "the chain has " + std::to_string(layers.size()) +
                             " layers, and those asked for must lie on another one")
        .At(child.path());
  }
  if (child.identity().format != DiskFormat::kVhdx) {
    return Status::Error(Code::kUnsupported, "only the layers of a VHDX tell what changed")
        .At(child.path());
  }
  const Layer& base = *layers[options.layers];
  const std::string linkage = base.LinkageToString(base.linkage_id());
  if (linkage == options.base_linkage) return Status::Ok();
  return Status::Error(Code::kParentMismatch, "its id is " + linkage + ", not " +
                                                  Printable(options.base_linkage) +
                                                  ": it was altered, or is another file")
      .At(base.path());
}

// Marks the pages of the window that the layer holds itself, and says whether there are any.
Status MarkPages(const Layer& layer, uint64_t first_page, std::vector<bool>* pages,
                 std::vector<LayerRun>* runs, bool* any) {
  const uint64_t begin = first_page * kPage;
  const uint64_t end = std::min(layer.size(), begin + pages->size() * kPage);
  if (begin >= end) return Status::Ok();
  runs->clear();
  FIRN_RETURN_IF_ERROR(layer.Map(begin, end - begin, runs));
  for (const LayerRun& run : *runs) {
    if (run.kind == LayerRun::Kind::kParent || run.length == 0) continue;
    *any = true;
    const uint64_t from = run.offset / kPage - first_page;
    const uint64_t to = (run.offset + run.length - 1) / kPage - first_page + 1;
    std::fill(pages->begin() + static_cast<ptrdiff_t>(from),
              pages->begin() + static_cast<ptrdiff_t>(to), true);
  }
  return Status::Ok();
}

void AddMarked(const std::vector<bool>& pages, uint64_t first_page, RangeList* ranges) {
  for (auto at = pages.begin(); at != pages.end();) {
    const auto begin = std::find(at, pages.end(), true);
    if (begin == pages.end()) return;
    const auto end = std::find(begin, pages.end(), false);
    ranges->Add(first_page + static_cast<uint64_t>(begin - pages.begin()),
                first_page + static_cast<uint64_t>(end - pages.begin()));
    at = end;
  }
}

}  // namespace

Result<LayerChanges> ReadLayerChanges(FileSystem& file_system, const std::string& path,
                                      const LayerChangesOptions& options) {
  LayerChain chain(file_system, options.open);
  FIRN_RETURN_IF_ERROR(chain.Open(path));
  const Layers& layers = chain.layers();
  FIRN_RETURN_IF_ERROR(CheckBase(layers, options));

  uint64_t shortest = layers.front()->size();
  uint64_t longest = shortest;
  for (uint32_t i = 0; i <= options.layers; ++i) {
    shortest = std::min(shortest, layers[i]->size());
    longest = std::max(longest, layers[i]->size());
  }
  RangeList ranges(options.max_ranges);
  std::vector<LayerRun> runs;
  const uint64_t compared = DivideUp(shortest, kPage);
  std::vector<bool> pages(std::min(kWindowPages, compared), false);
  for (uint64_t page = 0; page < compared; page += kWindowPages) {
    pages.resize(std::min(kWindowPages, compared - page));
    bool any = false;
    for (uint32_t i = 0; i < options.layers; ++i) {
      FIRN_RETURN_IF_ERROR(MarkPages(*layers[i], page, &pages, &runs, &any));
    }
    // Of a large disk little changes: windows without a mark are neither searched nor cleared.
    if (!any) continue;
    AddMarked(pages, page, &ranges);
    std::fill(pages.begin(), pages.end(), false);
  }
  // What lies past the end of one of them was cut off or came new in between.
  if (shortest < longest) ranges.Add(shortest / kPage, DivideUp(longest, kPage));
  for (uint32_t i = 0; i <= options.layers; ++i) {
    FIRN_RETURN_IF_ERROR(layers[i]->CheckUnchanged());
  }
  return LayerChanges{layers.front()->identity(), ranges.Take(longest)};
}

}  // namespace firn
