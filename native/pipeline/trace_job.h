// Trace: what do the points lose with these records?
//
// For each record: can any copy be read? If not, which maps need it, and for which bytes of their
// disks? Each map object is read once, whatever the number of points that share it, unless it leads
// to something lost. Memory grows with the different map objects, 32 bytes each.
#ifndef FIRN_PIPELINE_TRACE_JOB_H_
#define FIRN_PIPELINE_TRACE_JOB_H_

#include <map>
#include <memory>
#include <unordered_set>
#include <vector>

#include "pipeline/job.h"
#include "pipeline/map_reader.h"

namespace firn {

struct TraceOptions {
  RepositoryView repository;
  std::vector<Id> roots;
  std::vector<Id> ids;
};

// What a disk loses with a record. Bytes are of pages; ranges of map objects span what they
// describe, with its holes.
struct TracedLoss {
  static constexpr size_t kRangesMax = 16;
  struct Range {
    uint64_t offset = 0;
    uint64_t length = 0;
  };
  Id root{};
  std::vector<Range> ranges;  // the first kRangesMax
  uint64_t range_count = 0;
  uint64_t bytes = 0;
};

struct TracedRecord {
  Id id{};
  bool is_readable = false;  // some copy of it is whole: nothing is lost
  std::vector<TracedLoss> losses;
};

class TraceJob final : public Job {
 public:
  TraceJob(FileSystem& fs, const Tuning& tuning, TraceOptions options)
      : Job(fs, tuning), options_(std::move(options)) {}
  // As many as ids were given, in their order.
  const std::vector<TracedRecord>& records() const { return records_; }

 private:
  struct IdHash {
    size_t operator()(const Id& id) const { return LoadLe<size_t>(id.data()); }
  };
  Status DoRun() override;
  void FindLost();
  Status Walk(const Id& root);
  // True if nothing below is lost.
  Result<bool> WalkNode(const Id& root, const MapRoot::Node& row, uint64_t disk_bytes);
  bool WalkLeaf(const Id& root, const MapNode::Leaf& row, uint64_t segment, uint64_t disk_bytes);
  // True if the record is one of the lost ones.
  bool Note(const Id& id, const Id& root, TracedLoss::Range range, uint64_t bytes);

  const TraceOptions options_;
  std::unique_ptr<ChunkIndex> index_;
  std::unique_ptr<PackFiles> packs_;
  std::unique_ptr<MapReader> maps_;
  std::map<Id, TracedRecord*> lost_;
  std::unordered_set<Id, IdHash> clean_;  // nodes and leaves that lead to nothing lost
  std::vector<TracedRecord> records_;
};

}  // namespace firn

#endif  // FIRN_PIPELINE_TRACE_JOB_H_
