// Writes points into a stream: their objects, and each record that they need once.
//
// What the other side has is left out: records of a list, maps that both sides know, or whatever a
// target's index names. Records go as they stand in packs, with their headers and stored bytes held
// against their checksums; the receiver recomputes their ids. A damaged copy is replaced by another
// one where there is one.
//
// A SendStream outlives the jobs that write it: when a collection moves packs under a job, it fails
// with what is missing, and the next one, on a new listing, goes on in the same place. What has
// been sent is a bit beside each index entry (LiveIndex), so that memory does not grow with the
// stream; the maps' leaves that have been walked are a set of at most a share of the memory.
#ifndef FIRN_STREAM_SEND_JOB_H_
#define FIRN_STREAM_SEND_JOB_H_

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "index/id_set.h"
#include "pipeline/collect_index.h"
#include "pipeline/job.h"
#include "pipeline/map_reader.h"
#include "stream/frame_io.h"
#include "stream/have_list.h"

namespace firn {

struct SendPoint {
  std::string json;
  std::vector<Id> roots;
};

// One stream, and how far it is. Belongs to one job at a time.
class SendStream {
 public:
  // Without a handle nothing is written: what a stream would hold is only counted.
  SendStream(std::optional<StreamHandle> handle, uint64_t bytes_per_second, std::string header,
             std::vector<SendPoint> points)
      : header_(std::move(header)), points_(std::move(points)) {
    if (handle) writer_.emplace(*handle, bytes_per_second);
  }

  // Records that were sent, or would be.
  StreamCounts total() const { return {records_, bytes_}; }
  // Bytes of the stream itself.
  uint64_t stream_bytes() const { return writer_ ? writer_->bytes() : 0; }
  uint64_t skipped_records() const { return skipped_records_; }
  uint64_t skipped_bytes() const { return skipped_bytes_; }
  // Points that are in the stream as a whole.
  size_t points_done() const { return next_point_; }

 private:
  friend class SendJob;
  const std::string header_;
  const std::vector<SendPoint> points_;
  std::optional<FrameWriter> writer_;
  bool begun_ = false;
  size_t next_point_ = 0;

  // Of the section under way.
  std::vector<Id> leaves_;
  StreamCounts section_begun_;

  std::unique_ptr<LiveIndex> sent_;  // marks what was sent, and what need not be
  IdSet walked_;                     // leaves
  uint64_t walked_count_ = 0;
  std::mutex mutex_;
  std::vector<Id> lost_;  // marked and not sent: a job failed in between
  std::atomic<uint64_t> records_ = 0, bytes_ = 0, skipped_records_ = 0, skipped_bytes_ = 0;
};

struct SendOptions {
  RepositoryView repository;
  std::shared_ptr<SendStream> stream;
  // What need not be sent: what this index knows in packs that may be relied on,
  std::optional<RepositoryListing> target;
  // what is in this list, and what these maps hold, of those that are here. Both are looked at by
  // the stream's first job alone.
  std::shared_ptr<const HaveList> have;
  std::vector<Id> have_roots;
  uint64_t total_bytes = 0;  // as far as known, for the progress
};

class SendJob final : public Job {
 public:
  SendJob(FileSystem& fs, const Tuning& tuning, SendOptions options);
  ~SendJob() override;

 private:
  class RecordSender;
  Status DoRun() override;
  Status OpenIndex();
  Status MarkHad();
  Status MarkHadMap(const Id& root, MapReader* maps);
  Status Begin();
  Status SendSection(const SendPoint& point);
  Status SendMap(const Id& root, MapReader* maps, RecordSender* sender);
  Status SendChunks();
  Status SendLeaf(const Id& id, MapReader* maps, RecordSender* sender);
  Status WriteFrame(FrameKind kind, uint32_t count, std::span<const uint8_t> payload);
  bool IsWalked(const Id& leaf);

  const SendOptions options_;
  SendStream& stream_;
  const RepositoryKeys keys_;
  LiveIndex* sent_ = nullptr;
  std::unique_ptr<ChunkIndex> target_;
  std::unique_ptr<PackFiles> packs_;
};

}  // namespace firn

#endif  // FIRN_STREAM_SEND_JOB_H_
