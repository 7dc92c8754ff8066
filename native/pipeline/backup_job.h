// Backup: disks in, packs, index runs and map roots out.
//
//   unused blocks -> plan -> [reader -> walk, hash, look up, compress -> stripe -> pack] x workers
//                                                                                     -> index run
//
// Everything in brackets happens on one worker with one segment, so that a chunk is walked, hashed
// and compressed while it is in that core's cache, and no queue or lock stands between the stages.
// While a worker computes, its own ring reads the next segments and writes the last stripes.
// Sealing a point, and all that JavaScript decides, comes after.
//
// A disk with a base is backed up incrementally: what did not change is not read from the disk, and
// the root is the same that a full backup would give.
//
// Why an incremental backup still looks up every chunk of the point. The sealing protocol asks for
// the packs of everything that the new point needs: one that is condemned, or gone, before the seal
// means another attempt. That the base is a sealed point protects its packs only while it stays
// sealed, and anyone may forget it while this backup runs. A collector that lists points in pages
// may even miss both, the base because it has gone by then and the new point because it was not
// pending yet; then only the lists of relied packs tell the writer. So the relied packs are
// computed for everything reachable: each leaf of the base is read (0.05 % of the data it stands
// for, mostly in sequence, by all workers while disk reads are in flight) and each of its chunks
// looked up. The commit protocol stays as it is, with no second kind of point and no assumption
// about who forgets what. And a base chunk that no usable pack holds, condemned, collected or lost,
// is found here: its pages count as changed, so it is read from the disk and stored again, where
// taking over nodes unseen would hand the loss on from point to point.
#ifndef FIRN_PIPELINE_BACKUP_JOB_H_
#define FIRN_PIPELINE_BACKUP_JOB_H_

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "codec/record.h"
#include "disk/disk.h"
#include "pipeline/chunk_registry.h"
#include "pipeline/disk_base.h"
#include "pipeline/job.h"
#include "pipeline/map_builder.h"
#include "pipeline/unused_search.h"

namespace firn {

struct BackupDisk {
  std::string path;
  OpenDiskOptions open;
  // Not used where nothing is stored. A base that can't be used makes a full backup, not a failure.
  std::optional<BackupBase> base = std::nullopt;
  // Leaves out what the file systems on the disk do not use: it reads as zero in the point.
  std::optional<UnusedOptions> unused = std::nullopt;
};

struct BackupOptions {
  RepositoryView repository;
  std::vector<BackupDisk> disks;  // of one machine: a hibernated one skips nothing on any of them
  RunId run{};
  uint32_t attempt = 0;
  CompressionOptions compression;
  bool store = true;  // false: only the roots are computed; the repository is not looked at
};

struct BackupResult {
  struct DiskResult {
    Id root{};
    DiskIdentity identity;
    uint64_t data_bytes = 0;  // pages that are not holes
    // With a base: what was said to have changed, in whole pages.
    std::optional<uint64_t> changed_bytes;
    // Why the base, or a part of it, was not used and the disk read instead; "" if it was.
    std::string base_refused;
    // Where unused blocks were to be left out: which were, without the ranges, and why others not.
    std::optional<UsedMap> unused;
  };
  std::vector<DiskResult> disks;
  std::vector<PackName> packs;
  std::vector<std::string> index_runs;
  std::vector<PackName> relied_packs;
};

class BackupWorker;

class BackupJob final : public Job {
 public:
  BackupJob(FileSystem& fs, const Tuning& tuning, BackupOptions options);
  ~BackupJob() override;
  // After Run has succeeded.
  const BackupResult& result() const { return result_; }

 private:
  struct Shared;
  friend class BackupWorker;
  Status DoRun() override;
  Status OpenAll();
  Status OpenDisks();
  Status LeaveOutUnused(uint64_t* memory_bytes);
  Status OpenStore();
  void OpenBase(const BackupDisk& source, size_t disk);
  Status MakePlan();
  Status FinishMaps(BackupWorker* worker);
  void KeepFinishedPacks();

  const BackupOptions options_;
  std::unique_ptr<Shared> shared_;
  BackupResult result_;
};

}  // namespace firn

#endif  // FIRN_PIPELINE_BACKUP_JOB_H_
