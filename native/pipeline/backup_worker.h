// One core's part of a backup. See backup_job.h.
#ifndef FIRN_PIPELINE_BACKUP_WORKER_H_
#define FIRN_PIPELINE_BACKUP_WORKER_H_

#include <memory>
#include <optional>
#include <vector>

#include "chunk/map_format.h"
#include "codec/seal.h"
#include "io/aligned_buffer.h"
#include "pipeline/backup_job.h"
#include "pipeline/memory_plan.h"
#include "pipeline/segment_reader.h"
#include "pipeline/stripe_writer.h"

namespace firn {

// What the workers of a backup share; all of it is thread-safe or constant while they run.
struct BackupJob::Shared {
  explicit Shared(const RepositoryView& view) : keys(view.keys()) {}

  RepositoryKeys keys;
  ChunkingParameters chunking;
  BackupMemory memory;
  std::vector<std::unique_ptr<Disk>> disks;
  std::vector<const std::vector<ByteRange>*> skipped;  // beside disks, and theirs; null: nothing is
  // Null when nothing is stored, as are registry and packs.
  std::unique_ptr<ChunkIndex> index;
  std::vector<std::unique_ptr<MapBuilder>> maps;  // beside disks
  std::unique_ptr<PackFiles> base_packs;          // null when nothing is stored
  std::vector<std::unique_ptr<DiskBase>> bases;   // beside disks; null where there is none
  std::unique_ptr<SegmentPlan> plan;
  std::unique_ptr<ChunkRegistry> registry;
  std::unique_ptr<PackWriter> packs;
  NonceCounter nonces = 0;  // of this attempt's records
};

class BackupWorker {
 public:
  static Result<std::unique_ptr<BackupWorker>> Create(BackupJob* job);

  // Takes segments from the plan until there are none.
  Status Run();
  // Encodes, names and, unless it is known, stores a map object.
  Result<Id> StoreMap(std::span<const uint8_t> bytes);
  Status StoreNodes(uint32_t disk);
  Status Flush();

 private:
  explicit BackupWorker(BackupJob* job)
      : job_(job), shared_(job->shared_.get()), clock_(&job->stats_) {}
  Result<bool> Choose(Segment* segment);
  bool KeepChunks(const MapLeaf& leaf, PageSet* changed);
  Status ProcessSegment(const Segment& segment);
  Result<bool> ProcessChanges(Segment* segment);
  Status AddLeaf(const SegmentPlace& place, const MapLeaf& leaf);
  Result<Id> StoreChunk(std::span<const uint8_t> content);
  Status StoreRecord(PackClass pack_class, RecordClass record_class, const Id& id,
                     std::span<const uint8_t> content);

  BackupJob* const job_;
  BackupJob::Shared* const shared_;
  StageClock clock_;
  // Before the I/O that uses it, so that it outlives it.
  AlignedBuffer memory_;
  std::unique_ptr<WorkerIo> io_;
  std::unique_ptr<SegmentReader> reader_;
  std::unique_ptr<StripeWriter> stripes_;
  std::unique_ptr<RecordEncoder> encoder_;
  std::unique_ptr<RecordSealer> sealer_;  // null unless the repository is sealed
  std::unique_ptr<MapReader> base_maps_;  // null when nothing is stored
};

}  // namespace firn

#endif  // FIRN_PIPELINE_BACKUP_WORKER_H_
