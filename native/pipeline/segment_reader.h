// The source side of a job: which segments hold data, and their bytes, read ahead.
//
// A SegmentPlan hands out the segments of all disks in order and is shared by the workers. Each
// worker has a SegmentReader, which keeps all of its buffers being filled while the worker chews on
// one: the buffers are the read-ahead, the memory bound and the backpressure in one. Segments that
// the disk knows to be holes are never seen.
#ifndef FIRN_PIPELINE_SEGMENT_READER_H_
#define FIRN_PIPELINE_SEGMENT_READER_H_

#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "chunk/page.h"
#include "disk/disk.h"
#include "pipeline/worker_io.h"

namespace firn {

struct SegmentPlace {
  uint32_t disk = 0;  // position in the plan's disks
  uint64_t segment = 0;
};

// Thread-safe.
class SegmentPlan {
 public:
  // `on_segment` is told of each segment before it is handed out, and `on_disk_end` when a disk has
  // no more; both in order, under the plan's lock.
  struct Observer {
    std::function<void(const SegmentPlace&)> on_segment;
    std::function<void(uint32_t disk)> on_disk_end;
  };
  explicit SegmentPlan(std::vector<const Disk*> disks, Observer observer = {})
      : disks_(std::move(disks)), observer_(std::move(observer)) {}

  Result<std::optional<SegmentPlace>> Next();
  const Disk& disk(uint32_t i) const { return *disks_[i]; }

 private:
  const std::vector<const Disk*> disks_;
  const Observer observer_;
  std::mutex mutex_;
  uint32_t disk_ = 0;
  uint64_t offset_ = 0;
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
};

class SegmentReader {
 public:
  // `memory` holds at least one segment, page-aligned; it must outlive the reader and what is in
  // flight.
  SegmentReader(SegmentPlan* plan, WorkerIo* io, std::span<uint8_t> memory, JobStats* stats,
                StageClock* clock);

  // The next segment, wholly read; null at the end. It is the caller's until Release.
  // REQUIRES: fewer than buffers() segments are unreleased.
  Result<Segment*> Next();
  void Release(Segment* segment) { free_.push_back(segment); }
  size_t buffers() const { return segments_.size(); }

 private:
  Status Fill();
  Status Start(Segment* segment);
  Status StartExtent(const Extent& extent, uint64_t begin, Segment* segment);

  SegmentPlan* const plan_;
  WorkerIo* const io_;
  JobStats* const stats_;
  StageClock* const clock_;
  std::vector<Segment> segments_;
  std::vector<Segment*> free_;
  std::deque<Segment*> reading_;
  std::vector<Extent> extents_;
  bool ended_ = false;
};

}  // namespace firn

#endif  // FIRN_PIPELINE_SEGMENT_READER_H_
