#include "pipeline/repair_job.h"

#include "pack/pack_reader.h"
#include "pipeline/chunk_registry.h"

namespace firn {

std::optional<PackTable> RepairJob::ReadTable(const PackName& name) {
  const std::string path = JoinPath(options_.repository.listing.root, name.RelativePath());
  const auto report = [&](Status status) {
    result_.problems.push_back({std::move(status), name.RelativePath(), {}, {}});
  };
  Result<std::unique_ptr<File>> file = fs_.Open(path, {});
  if (!file.ok()) {
    report(std::move(file).TakeStatus());
    return std::nullopt;
  }
  Result<PackTable> table = ReadPackTable(file->get());
  if (table.ok()) return std::move(*table);
  report(std::move(table).TakeStatus());
  Result<PackTable> scanned = ScanPackRecords(file->get());
  if (scanned.ok()) return std::move(*scanned);
  report(std::move(scanned).TakeStatus());
  return std::nullopt;
}

Status RepairJob::DoRun() {
  RepositoryListing empty;
  empty.root = options_.repository.listing.root;
  empty.index_key = options_.repository.listing.index_key;
  FIRN_ASSIGN_OR_RETURN(std::unique_ptr<ChunkIndex> index, ChunkIndex::Open(fs_, empty));
  ChunkRegistry registry(index.get(), options_.run, options_.attempt,
                         tuning_.memory_bytes / 2 / ChunkRegistry::kEntryBytes);
  registry.set_sync_packs([] { return Status::Ok(); });  // the packs were durable before
  stats_.workers = 1;
  stats_.phase = Phase::kCopy;
  stats_.total_bytes = options_.repository.listing.packs.size();
  for (const PackName& name : options_.repository.listing.packs) {
    FIRN_RETURN_IF_ERROR(CheckStopped());
    std::optional<PackTable> table = ReadTable(name);
    ++stats_.done_bytes;
    if (!table) continue;
    ++result_.packs;
    result_.records += table->records.size();
    FIRN_RETURN_IF_ERROR(registry.AddPack(name, *table));
  }
  stats_.phase = Phase::kFinish;
  FIRN_RETURN_IF_ERROR(registry.Finish());
  result_.index_runs = registry.index_runs();
  return Status::Ok();
}

}  // namespace firn
