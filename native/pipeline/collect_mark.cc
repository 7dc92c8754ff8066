#include "pipeline/collect_mark.h"

namespace firn {

Status MarkJob::DoRun() {
  const RepositoryListing& listing = options_.repository.listing;
  FIRN_RETURN_IF_ERROR(options_.repository.chunking.Check());
  stats_.workers = tuning_.workers;
  FIRN_ASSIGN_OR_RETURN(live_, LiveIndex::Open(fs_, listing, options_.victims));
  // Map objects are small and lie side by side: the kernel's cache suits them.
  packs_ = std::make_unique<PackFiles>(fs_, listing.root, false);
  FIRN_RETURN_IF_ERROR(ReadUnnamed());
  stats_.phase = Phase::kCopy;
  FIRN_RETURN_IF_ERROR(Walk(options_.roots, false));
  FIRN_RETURN_IF_ERROR(Walk(options_.pending_roots, true));
  stats_.phase = Phase::kFinish;
  live_->Account();
  return Status::Ok();
}

// The packs that no run names, as many as there is memory for; the others stay unknown, which keeps
// them from being touched.
Status MarkJob::ReadUnnamed() {
  const uint64_t entries_max = tuning_.memory_bytes / 4 / sizeof(IndexEntry);
  std::vector<IndexEntry> entries;
  std::vector<CollectPack>& packs = live_->packs();
  for (uint32_t i = 0; i < packs.size(); ++i) {
    CollectPack& pack = packs[i];
    if (pack.named || (options_.only_victims && !pack.victim)) continue;
    FIRN_RETURN_IF_ERROR(CheckStopped());
    const std::string path = JoinPath(options_.repository.listing.root, pack.name.RelativePath());
    Result<std::unique_ptr<File>> file = fs_.Open(path, {});
    // Another collection may just have deleted it.
    if (!file.ok() && file.status().code() == Code::kNotFound) continue;
    FIRN_RETURN_IF_ERROR(file.status());
    FIRN_ASSIGN_OR_RETURN(pack.file_bytes, (*file)->Size());
    Result<PackTable> table = ReadPackTable(file->get());
    if (!table.ok()) table = ScanPackRecords(file->get());
    FIRN_RETURN_IF_ERROR(table.status());
    if (entries.size() + table->records.size() > entries_max) continue;
    for (const PackRecord& record : table->records) {
      entries.push_back({record.id, i, record.offset, record.stored_length, record.raw_length,
                         record.record_class});
    }
    pack.known = true;
  }
  live_->SetUnnamed(std::move(entries));
  return Status::Ok();
}

Status MarkJob::Tolerate(Status status, bool is_pending) {
  const bool is_missing =
      status.code() == Code::kChunkMissing || status.code() == Code::kPackMissing;
  if (status.ok() || !is_pending || !is_missing) return status;
  ++missing_;
  return Status::Ok();
}

Status MarkJob::Walk(const std::vector<Id>& roots, bool is_pending) {
  const auto make_reader = [this] {
    return MapReader(&live_->index(), packs_.get(), keys_, options_.repository.chunking);
  };
  std::vector<MapRoot::Node> nodes;
  MapReader maps = make_reader();
  for (const Id& id : roots) {
    FIRN_RETURN_IF_ERROR(CheckStopped());
    if (live_->Mark(id) == LiveIndex::Found::kBefore) continue;
    Result<MapRoot> root = maps.ReadRoot(id);
    FIRN_RETURN_IF_ERROR(Tolerate(root.status(), is_pending));
    if (!root.ok()) continue;
    for (const MapRoot::Node& row : root->nodes) {
      if (live_->Mark(row.id) == LiveIndex::Found::kBefore) continue;
      stats_.total_bytes += uint64_t{row.leaves} * kSegmentBytes;
      nodes.push_back(row);
    }
  }
  std::atomic<size_t> next = 0;
  return RunWorkers(tuning_.workers, [&](uint32_t) -> Status {
    MapReader reader = make_reader();
    for (size_t i = next++; i < nodes.size(); i = next++) {
      FIRN_RETURN_IF_ERROR(WalkNode(nodes[i], &reader, is_pending));
    }
    return Status::Ok();
  });
}

Status MarkJob::WalkNode(const MapRoot::Node& row, MapReader* maps, bool is_pending) {
  Result<MapNode> node = maps->ReadNode(row.id);
  FIRN_RETURN_IF_ERROR(Tolerate(node.status(), is_pending));
  if (!node.ok()) return Status::Ok();
  for (const MapNode::Leaf& leaf_row : node->leaves) {
    FIRN_RETURN_IF_ERROR(CheckStopped());
    stats_.done_bytes += kSegmentBytes;
    if (live_->Mark(leaf_row.id) == LiveIndex::Found::kBefore) continue;
    Result<MapLeaf> leaf = maps->ReadLeaf(leaf_row.id);
    FIRN_RETURN_IF_ERROR(Tolerate(leaf.status(), is_pending));
    if (!leaf.ok()) continue;
    for (const LeafRun& run : leaf->runs) {
      if (run.hole) continue;
      ++stats_.chunks;
      if (live_->Mark(run.id) != LiveIndex::Found::kNowhere) continue;
      if (!is_pending) return MissingRecord(run.id, RecordClass::kChunk);
      ++missing_chunks_;
    }
  }
  return Status::Ok();
}

}  // namespace firn
