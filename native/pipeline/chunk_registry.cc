#include "pipeline/chunk_registry.h"

#include <cstdio>

namespace firn {

Status ChunkRegistry::AddPack(const PackName& name, const PackTable& table) {
  const auto pack = static_cast<uint32_t>(packs_.size());
  packs_.push_back({name, table.file_bytes, table.hash});
  all_packs_.push_back(name);
  for (const PackRecord& record : table.records) {
    entries_.push_back({record.id, pack, record.offset, record.stored_length, record.raw_length,
                        record.record_class});
  }
  if (entries_.size() < entries_max_) return Status::Ok();
  FIRN_RETURN_IF_ERROR(sync_packs_());
  return WriteRun();
}

Status ChunkRegistry::Finish() { return entries_.empty() ? Status::Ok() : WriteRun(); }

Status ChunkRegistry::WriteRun() {
  char tail[32];
  std::snprintf(tail, sizeof tail, "-%04x-%08zx.idx", attempt_, index_runs_.size());
  const std::string name = ToHex(run_) + tail;
  const std::string path = JoinPath(JoinPath(index_->root(), "index"), name);
  FIRN_RETURN_IF_ERROR(
      WriteIndexRun(index_->file_system(), path, packs_, &entries_, index_->index_key()));
  FIRN_RETURN_IF_ERROR(index_->AddRun(name));
  // Found through the index from here on.
  for (const IndexEntry& entry : entries_) claimed_.Erase(entry.id);
  index_runs_.push_back(name);
  entries_.clear();
  packs_.clear();
  return Status::Ok();
}

}  // namespace firn
