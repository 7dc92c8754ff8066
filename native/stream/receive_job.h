// Takes a stream's records into a repository: packs and index runs, no points.
//
// A stream is read in sections, one for each point, by one job each; between them the control plane
// seals. Workers take turns at reading a frame, and each then checks and stores what it has read:
// nothing of a frame is used before its hash was found right, and no record is stored before its
// content was decompressed and its id recomputed. What the repository has is dropped.
//
// When the stream breaks, everything that arrived whole is kept: it is made durable and named by an
// index run before the job fails, and the next one finds it. Packs that a killed process left
// behind without an index run are given one (`adopt`).
#ifndef FIRN_STREAM_RECEIVE_JOB_H_
#define FIRN_STREAM_RECEIVE_JOB_H_

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "codec/seal.h"
#include "io/aligned_buffer.h"
#include "pipeline/chunk_registry.h"
#include "pipeline/job.h"
#include "pipeline/memory_plan.h"
#include "pipeline/stripe_writer.h"
#include "stream/frame_io.h"

namespace firn {

// A stream being read, and how far it is. Belongs to one job at a time.
class ReceiveStream {
 public:
  explicit ReceiveStream(StreamHandle handle) : reader_(handle) {}

  uint64_t bytes() const { return reader_.bytes(); }
  // True when the stream's end was read and agrees with what came before it.
  bool ended() const { return ended_; }

 private:
  friend class OpenStreamJob;
  friend class ReceiveJob;
  FrameReader reader_;
  size_t sections_left_ = 0;
  StreamCounts section_, total_;
  bool ended_ = false;
};

// Reads what stands before the first record: the header, and the points as they were sent.
class OpenStreamJob final : public Job {
 public:
  OpenStreamJob(FileSystem& fs, const Tuning& tuning, std::shared_ptr<ReceiveStream> stream)
      : Job(fs, tuning), stream_(std::move(stream)) {}
  const std::string& header() const { return header_; }
  const std::vector<std::string>& points() const { return points_; }

 private:
  Status DoRun() override;

  const std::shared_ptr<ReceiveStream> stream_;
  std::string header_;
  std::vector<std::string> points_;
};

struct ReceiveOptions {
  RepositoryView repository;
  std::shared_ptr<ReceiveStream> stream;
  RunId run{};
  bool adopt = false;
  uint64_t total_bytes = 0;  // as the stream says, for the progress
};

struct ReceiveResult {
  std::vector<PackName> packs;
  std::vector<std::string> index_runs;
  StreamCounts received, stored;
  uint64_t adopted_packs = 0;
};

class ReceiveJob final : public Job {
 public:
  ReceiveJob(FileSystem& fs, const Tuning& tuning, ReceiveOptions options);
  ~ReceiveJob() override;
  // After Run has succeeded: a section was read to its end, or the stream's end was.
  const ReceiveResult& result() const { return result_; }

 private:
  class Worker;
  Status DoRun() override;
  Status Adopt();
  Status AdoptPacks(std::vector<IndexPack>* packs, std::vector<IndexEntry>* entries);
  // False when the section has ended, or the stream has broken.
  bool NextFrame(Frame* frame);
  Status ReadFrame(Frame* frame, bool* has_ended);
  // The stream can't be believed from here on; what came before is kept.
  void Break(Status status);

  const ReceiveOptions options_;
  ReceiveStream& stream_;
  const RepositoryKeys keys_;
  NonceCounter nonces_ = 0;  // of the records that it seals
  BackupMemory memory_;
  std::unique_ptr<ChunkIndex> index_;
  std::unique_ptr<ChunkRegistry> registry_;
  std::unique_ptr<PackWriter> packs_;
  std::mutex reader_mutex_;
  bool section_ended_ = false;
  Status broken_;
  std::atomic<uint64_t> stored_records_ = 0, stored_bytes_ = 0;
  ReceiveResult result_;
};

}  // namespace firn

#endif  // FIRN_STREAM_RECEIVE_JOB_H_
