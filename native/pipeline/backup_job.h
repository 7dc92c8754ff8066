// Backup: disks in, packs, index runs and map roots out.
//
//   plan -> [reader -> walk, hash, look up, compress -> stripe -> pack] x workers -> index run
//
// Everything in brackets happens on one worker with one segment, so that a chunk is walked, hashed
// and compressed while it is in that core's cache, and no queue or lock stands between the stages.
// While a worker computes, its own ring reads the next segments and writes the last stripes.
// Sealing a point, and all that JavaScript decides, comes after.
#ifndef FIRN_PIPELINE_BACKUP_JOB_H_
#define FIRN_PIPELINE_BACKUP_JOB_H_

#include <memory>
#include <string>
#include <vector>

#include "codec/record.h"
#include "disk/disk.h"
#include "pipeline/chunk_registry.h"
#include "pipeline/job.h"
#include "pipeline/map_builder.h"

namespace firn {

struct BackupDisk {
  std::string path;
  OpenDiskOptions open;
};

struct BackupOptions {
  RepositoryView repository;
  std::vector<BackupDisk> disks;
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
  Status FinishMaps(BackupWorker* worker);
  void KeepFinishedPacks();

  const BackupOptions options_;
  std::unique_ptr<Shared> shared_;
  BackupResult result_;
};

}  // namespace firn

#endif  // FIRN_PIPELINE_BACKUP_JOB_H_
