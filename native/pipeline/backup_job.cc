#include "pipeline/backup_job.h"

#include "pipeline/backup_worker.h"
#include "used/used_disk.h"

namespace firn {

namespace {

constexpr uint64_t kPackBytes = 64 * kMiB;

}  // namespace

BackupJob::BackupJob(FileSystem& fs, const Tuning& tuning, BackupOptions options)
    : Job(fs, tuning), options_(std::move(options)) {}
BackupJob::~BackupJob() = default;

Status BackupJob::OpenAll() {
  const RepositoryView& repository = options_.repository;
  shared_ = std::make_unique<Shared>(repository);
  shared_->chunking = repository.chunking;
  shared_->chunking.seed = shared_->keys.cut_seed;
  FIRN_RETURN_IF_ERROR(shared_->chunking.Check());
  FIRN_RETURN_IF_ERROR(OpenDisks());
  uint64_t memory_bytes = tuning_.memory_bytes;
  FIRN_RETURN_IF_ERROR(LeaveOutUnused(&memory_bytes));
  shared_->memory = BackupMemory::Plan(memory_bytes, tuning_.workers,
                                       RecordBytesMax(repository.chunking.max_pages * kPageBytes));
  if (options_.store) FIRN_RETURN_IF_ERROR(OpenStore());
  for (size_t i = 0; i < options_.disks.size(); ++i) OpenBase(options_.disks[i], i);
  return MakePlan();
}

Status BackupJob::OpenDisks() {
  for (const BackupDisk& source : options_.disks) {
    OpenDiskOptions open = source.open;
    open.direct = tuning_.io != IoMode::kBuffered;
    FIRN_ASSIGN_OR_RETURN(std::unique_ptr<Disk> disk, Disk::Open(fs_, source.path, open));
    if (disk->size() > kDiskBytesMax) {
      return Status::Error(Code::kUnsupported, "the disk is larger than 64 TiB").At(source.path);
    }
    shared_->disks.push_back(std::move(disk));
    shared_->maps.push_back(std::make_unique<MapBuilder>());
    shared_->skipped.push_back(nullptr);
    shared_->bases.emplace_back();
    result_.disks.emplace_back();
  }
  return Status::Ok();
}

// From here on the disks are seen without what is left out of them. Takes from `memory_bytes` what
// keeps the ranges.
Status BackupJob::LeaveOutUnused(uint64_t* memory_bytes) {
  std::vector<SearchedDisk> searched;
  for (size_t i = 0; i < options_.disks.size(); ++i) {
    if (!options_.disks[i].unused) continue;
    searched.push_back({shared_->disks[i].get(), *options_.disks[i].unused, {}});
  }
  if (searched.empty()) return Status::Ok();
  stats_.phase = Phase::kSearch;
  FIRN_RETURN_IF_ERROR(
      FindUnused({.workers = tuning_.workers,
                  .memory_bytes = tuning_.memory_bytes,
                  .cancelled = cancelled(),
                  .stats = stats_,
                  .run = [this](auto count, const auto& work) { return RunWorkers(count, work); }},
                 &searched));
  size_t next = 0;
  for (size_t i = 0; i < options_.disks.size(); ++i) {
    if (!options_.disks[i].unused) continue;
    UsedMap& map = searched[next++].map;
    const uint64_t bytes = map.skipped.capacity() * sizeof(ByteRange);
    *memory_bytes -= std::min(*memory_bytes, bytes);
    if (!map.skipped.empty()) {
      auto used = std::make_unique<UsedDisk>(std::move(shared_->disks[i]), std::move(map.skipped));
      shared_->skipped[i] = &used->skipped();
      shared_->disks[i] = std::move(used);
    }
    map.skipped.clear();
    result_.disks[i].unused = std::move(map);
  }
  return Status::Ok();
}

Status BackupJob::OpenStore() {
  const RepositoryView& repository = options_.repository;
  FIRN_ASSIGN_OR_RETURN(shared_->index, ChunkIndex::Open(fs_, repository.listing));
  shared_->registry =
      std::make_unique<ChunkRegistry>(shared_->index.get(), options_.run, options_.attempt,
                                      shared_->memory.registry_bytes / ChunkRegistry::kEntryBytes);
  ChunkRegistry* registry = shared_->registry.get();
  shared_->packs = std::make_unique<PackWriter>(
      fs_, repository.listing.root, options_.run, options_.attempt, tuning_.io != IoMode::kBuffered,
      kPackBytes, [registry](const PackName& name, const PackTable& table) {
        return registry->AddPack(name, table);
      });
  if (repository.seal != nullptr) {
    shared_->packs->set_public_tail(repository.seal->PublicTail(options_.run));
  }
  registry->set_sync_packs([packs = shared_->packs.get()] { return packs->SyncNames(); });
  // Map objects are small and lie side by side: the kernel's cache suits them.
  shared_->base_packs = std::make_unique<PackFiles>(fs_, repository.listing.root, false);
  return Status::Ok();
}

// A base that can't be used costs time, not the backup.
void BackupJob::OpenBase(const BackupDisk& source, size_t disk) {
  if (!source.base) return;
  BackupResult::DiskResult& row = result_.disks[disk];
  if (!options_.store) {
    row.base_refused = "nothing is stored: the disk was read as a whole";
    return;
  }
  Result<std::unique_ptr<DiskBase>> base = DiskBase::Open(
      *source.base, *shared_->disks[disk], shared_->skipped[disk], shared_->index.get(),
      shared_->base_packs.get(), shared_->keys, shared_->chunking);
  if (!base.ok()) {
    row.base_refused = base.status().ToString();
    return;
  }
  row.changed_bytes = (*base)->changed_bytes();
  shared_->bases[disk] = std::move(*base);
}

Status BackupJob::MakePlan() {
  std::vector<const Disk*> disks;
  std::vector<DiskBase*> bases;
  for (size_t i = 0; i < shared_->disks.size(); ++i) {
    const Disk& disk = *shared_->disks[i];
    DiskBase* base = shared_->bases[i].get();
    FIRN_ASSIGN_OR_RETURN(uint64_t bytes,
                          base ? base->ChangedSegmentBytes() : PresentSegmentBytes(disk));
    stats_.total_bytes += bytes;
    disks.push_back(&disk);
    bases.push_back(base);
  }
  SegmentPlan::Observer observer;
  observer.on_segment = [shared = shared_.get()](const SegmentPlace& place) {
    shared->maps[place.disk]->Expect(place.segment);
  };
  observer.on_disk_end = [shared = shared_.get()](uint32_t disk) {
    shared->maps[disk]->ExpectNoMore();
  };
  shared_->plan =
      std::make_unique<SegmentPlan>(std::move(disks), std::move(observer), std::move(bases));
  return Status::Ok();
}

Status BackupJob::DoRun() {
  FIRN_RETURN_IF_ERROR(OpenAll());
  stats_.phase = Phase::kCopy;
  stats_.workers = shared_->memory.workers;
  stats_.memory_bytes =
      shared_->memory.registry_bytes + shared_->memory.workers * shared_->memory.worker_bytes();
  std::vector<std::unique_ptr<BackupWorker>> workers(shared_->memory.workers);
  Status read = RunWorkers(shared_->memory.workers, [&](uint32_t i) -> Status {
    // Made by the thread that uses it, so that its memory is near that thread's core.
    FIRN_ASSIGN_OR_RETURN(workers[i], BackupWorker::Create(this));
    return workers[i]->Run();
  });
  stats_.phase = Phase::kFinish;
  if (!read.ok()) {
    KeepFinishedPacks();
    return read;
  }
  FIRN_RETURN_IF_ERROR(FinishMaps(workers.front().get()));
  for (const auto& disk : shared_->disks) FIRN_RETURN_IF_ERROR(disk->CheckUnchanged());
  if (!options_.store) return Status::Ok();
  FIRN_RETURN_IF_ERROR(shared_->packs->Close());
  FIRN_RETURN_IF_ERROR(shared_->registry->Finish());
  result_.packs = shared_->registry->packs();
  result_.index_runs = shared_->registry->index_runs();
  result_.relied_packs = shared_->index->ReliedPacks();
  return Status::Ok();
}

// A run that was cancelled or failed has durable packs all the same. Once an index run names them
// the next run finds its chunks there and goes on where this one stopped. Best effort: without it
// they are only garbage.
void BackupJob::KeepFinishedPacks() {
  if (shared_->packs == nullptr || !shared_->packs->SyncNames().ok()) return;
  (void)shared_->registry->Finish();
}

// The nodes that no leaf completed, and the roots.
Status BackupJob::FinishMaps(BackupWorker* worker) {
  for (uint32_t i = 0; i < shared_->disks.size(); ++i) {
    FIRN_RETURN_IF_ERROR(worker->StoreNodes(i));
    const MapRoot root = shared_->maps[i]->Finish(shared_->disks[i]->size());
    BackupResult::DiskResult& row = result_.disks[i];
    row.identity = shared_->disks[i]->identity();
    for (const MapRoot::Node& node : root.nodes) row.data_bytes += node.data_pages * kPageBytes;
    FIRN_ASSIGN_OR_RETURN(row.root, worker->StoreMap(EncodeRoot(root)));
    if (shared_->bases[i]) row.base_refused = shared_->bases[i]->refused();
  }
  return worker->Flush();
}

}  // namespace firn
