// The source side of a job: which segments hold data, and their bytes, read ahead.
//
// A SegmentPlan hands out the segments of all disks in order and is shared by the workers. Each
// worker has a SegmentReader, which keeps all of its buffers being filled while the worker chews on
// one: the buffers are the read-ahead, the memory bound and the backpressure in one. Segments that
// the disk knows to be holes are never seen.
//
// Where a disk has a base, the plan hands out what the base has and what changed instead, and the
// reader's owner chooses for each segment what is to be read, before it takes a place in the queue.
#ifndef FIRN_PIPELINE_SEGMENT_READER_H_
#define FIRN_PIPELINE_SEGMENT_READER_H_

#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "chunk/page.h"
#include "chunk/rechunker.h"
#include "disk/disk.h"
#include "pipeline/disk_base.h"
#include "pipeline/segment_place.h"
#include "pipeline/worker_io.h"

namespace firn {

// Thread-safe.
class SegmentPlan {
 public:
  // `on_segment` is told of each segment before it is handed out, and `on_disk_end` when a disk has
  // no more; both in order, under the plan's lock.
  struct Observer {
    std::function<void(const SegmentPlace&)> on_segment;
    std::function<void(uint32_t disk)> on_disk_end;
  };
  // `bases` stand beside `disks`, null where there is none; or there are none at all.
  explicit SegmentPlan(std::vector<const Disk*> disks, Observer observer = {},
                       std::vector<DiskBase*> bases = {})
      : disks_(std::move(disks)), observer_(std::move(observer)), bases_(std::move(bases)) {
    bases_.resize(disks_.size());
  }

  Result<std::optional<SegmentPlace>> Next();
  const Disk& disk(uint32_t i) const { return *disks_[i]; }
  // Null if the disk has none.
  DiskBase* base(uint32_t i) const { return bases_[i]; }

 private:
  Result<std::optional<SegmentPlace>> NextOfDisk();

  const std::vector<const Disk*> disks_;
  const Observer observer_;
  std::vector<DiskBase*> bases_;
  std::mutex mutex_;
  uint32_t disk_ = 0;
  uint64_t segment_ = 0;  // of that disk: not yet handed out
};

// The allocated bytes of a disk in whole segments, as the allocation tables have it: what a full
// read will go through.
Result<uint64_t> PresentSegmentBytes(const Disk& disk);

// A segment in memory. Pages not `present` are holes and their memory holds anything.
struct Segment {
  SegmentPlace place;
  uint8_t* data = nullptr;
  PageSet present;
  IoGroup io;  // the reads; after that the holder's to use for writes from `data`
  // What makes the new leaf of the old one; null where the segment is read as a whole.
  std::unique_ptr<Rechunker> rechunker;
};

class SegmentReader {
 public:
  // Looks at a segment before anything of it is read. True if it is to be read: as a whole, or what
  // the rechunker that it has been given wants. False if it is done with.
  using Chooser = std::function<Result<bool>(Segment*)>;

  // `memory` holds at least one segment, page-aligned; it must outlive the reader and what is in
  // flight.
  SegmentReader(SegmentPlan* plan, WorkerIo* io, std::span<uint8_t> memory, JobStats* stats,
                StageClock* clock);

  // Without one, every segment is read as a whole.
  void set_chooser(Chooser chooser) { chooser_ = std::move(chooser); }

  // The next segment, with all that was to be read of it; null at the end. It is the caller's until
  // Release or ReadMore. REQUIRES: fewer than buffers() segments are unreleased.
  Result<Segment*> Next();
  // Reads `pages` as well; Next gives the segment again when they are there, after those that are
  // being read already.
  Status ReadMore(Segment* segment, const PageSet& pages);
  void Release(Segment* segment) { free_.push_back(segment); }
  size_t buffers() const { return segments_.size(); }

 private:
  Status Fill();
  Status Start(Segment* segment);
  Status StartPages(const PageSet& pages, Segment* segment);
  Status StartRange(uint64_t from, uint64_t to, Segment* segment);
  Status StartExtent(const Extent& extent, uint64_t begin, Segment* segment);

  SegmentPlan* const plan_;
  WorkerIo* const io_;
  JobStats* const stats_;
  StageClock* const clock_;
  Chooser chooser_;
  std::vector<Segment> segments_;
  std::vector<Segment*> free_;
  std::deque<Segment*> reading_;
  std::vector<Extent> extents_;
  bool ended_ = false;
};

}  // namespace firn

#endif  // FIRN_PIPELINE_SEGMENT_READER_H_
