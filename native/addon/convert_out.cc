#include "addon/convert.h"

namespace firn::addon {

namespace {

Napi::Array FromPackNames(Napi::Env env, const std::vector<PackName>& packs) {
  return MakeArray(env, packs,
                   [&](const PackName& pack) { return Napi::String::New(env, pack.ToString()); });
}

Napi::Array FromStrings(Napi::Env env, const std::vector<std::string>& strings) {
  return MakeArray(env, strings,
                   [&](const std::string& text) { return Napi::String::New(env, text); });
}

void SetFailure(Napi::Object object, const Status& status) {
  Napi::Env env = object.Env();
  object.Set("code", CodeName(status.code()));
  if (!status.op().empty()) object.Set("op", status.op());
  if (!status.path().empty()) object.Set("path", status.path());
  if (status.offset()) object.Set("offset", Number(env, *status.offset()));
  if (status.os_code() != 0) object.Set("osCode", Napi::Number::New(env, status.os_code()));
  object.Set("retryable", status.retryable());
  object.Set("dataLoss", status.data_loss());
}

Napi::Object FromFailure(Napi::Env env, const Status& status) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("message", status.message());
  SetFailure(object, status);
  return object;
}

Napi::Object FromFinding(Napi::Env env, const DiskFinding& finding) {
  static constexpr const char* kSeverities[] = {"info", "warning", "error"};
  Napi::Object object = Napi::Object::New(env);
  object.Set("severity", kSeverities[static_cast<size_t>(finding.severity)]);
  object.Set("code", finding.code);
  object.Set("message", finding.message);
  if (finding.offset) object.Set("offset", Number(env, *finding.offset));
  return object;
}

Napi::Object FromLog(Napi::Env env, const LogInfo& log) {
  static constexpr const char* kStates[] = {"none", "clean", "replayed"};
  Napi::Object object = Napi::Object::New(env);
  object.Set("state", kStates[static_cast<size_t>(log.state)]);
  object.Set("entries", Number(env, log.entries));
  object.Set("pages", Number(env, log.pages));
  object.Set("offset", Number(env, log.offset));
  object.Set("lengthBytes", Number(env, log.length));
  return object;
}

Napi::Object FromLayer(Napi::Env env, const LayerInfo& layer) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("path", layer.path);
  object.Set("identity", FromIdentity(env, layer.identity));
  object.Set("fileBytes", Number(env, layer.file_bytes));
  object.Set("creator", layer.creator);
  object.Set("dataWriteGuid", layer.data_write_guid);
  object.Set("parentLinkage", layer.parent_linkage);
  object.Set("parentLocator", MakeArray(env, layer.parent_locator, [&](const auto& entry) {
               Napi::Array pair = Napi::Array::New(env, 2);
               pair[0u] = Napi::String::New(env, entry.first);
               pair[1u] = Napi::String::New(env, entry.second);
               return pair;
             }));
  object.Set("log", FromLog(env, layer.log));
  Napi::Object blocks = Napi::Object::New(env);
  blocks.Set("total", Number(env, layer.blocks));
  blocks.Set("full", Number(env, layer.blocks_full));
  blocks.Set("partial", Number(env, layer.blocks_partial));
  blocks.Set("zero", Number(env, layer.blocks_zero));
  object.Set("blocks", blocks);
  object.Set("findings", MakeArray(env, layer.findings, [&](const DiskFinding& finding) {
               return FromFinding(env, finding);
             }));
  return object;
}

Napi::Object FromProblem(Napi::Env env, const Problem& problem) {
  Napi::Object object = FromFailure(env, problem.status);
  if (!problem.object.empty()) object.Set("object", problem.object);
  if (problem.id) object.Set("id", ToHex(*problem.id));
  if (problem.pack) object.Set("pack", problem.pack->ToString());
  object.Set("roots", MakeArray(env, problem.roots, [&](const Id& root) {
               return Napi::String::New(env, ToHex(root));
             }));
  return object;
}

Napi::Object FromPartition(Napi::Env env, const UsedPartition& partition) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("offset", Number(env, partition.offset));
  object.Set("sizeBytes", Number(env, partition.length));
  object.Set("type", partition.type);
  object.Set("fileSystem", partition.file_system);
  object.Set("usedBytes", Number(env, partition.used_bytes));
  object.Set("skippedBytes", Number(env, partition.skipped_bytes));
  object.Set("pageFileBytes", Number(env, partition.page_file_bytes));
  if (!partition.reason_code.empty()) {
    object.Set("reasonCode", partition.reason_code);
    object.Set("reason", partition.reason);
  }
  return object;
}

}  // namespace

Napi::Object FromUsedMap(Napi::Env env, const UsedMap& map) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("rules", Napi::Number::New(env, kUsedRules));
  object.Set("table", map.table);
  object.Set("skippedBytes", Number(env, map.skipped_bytes));
  object.Set("droppedBytes", Number(env, map.dropped_bytes));
  object.Set("readBytes", Number(env, map.read_bytes));
  if (!map.reason_code.empty()) {
    object.Set("reasonCode", map.reason_code);
    object.Set("reason", map.reason);
  }
  object.Set("partitions", MakeArray(env, map.partitions, [&](const UsedPartition& partition) {
               return FromPartition(env, partition);
             }));
  return object;
}

Napi::Value FromStatus(Napi::Env env, const Status& status) {
  Napi::Error error = Napi::Error::New(env, status.message());
  SetFailure(error.Value(), status);
  return error.Value();
}

Napi::Object FromIdentity(Napi::Env env, const DiskIdentity& identity) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("format", FormatName(identity.format));
  object.Set("kind", KindName(identity.kind));
  object.Set("sizeBytes", Number(env, identity.size));
  object.Set("blockBytes", Number(env, identity.block_size));
  object.Set("logicalSectorBytes", Number(env, identity.logical_sector_size));
  object.Set("physicalSectorBytes", Number(env, identity.physical_sector_size));
  object.Set("diskId", GuidToString(identity.disk_id));
  return object;
}

Napi::Object FromInspection(Napi::Env env, const Inspection& inspection) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("layers", MakeArray(env, inspection.layers,
                                 [&](const LayerInfo& layer) { return FromLayer(env, layer); }));
  if (!inspection.error.ok()) object.Set("error", FromFailure(env, inspection.error));
  return object;
}

Napi::Array FromRange(Napi::Env env, uint64_t offset, uint64_t length) {
  Napi::Array pair = Napi::Array::New(env, 2);
  pair[0u] = Number(env, offset);
  pair[1u] = Number(env, length);
  return pair;
}

Napi::Object FromLayerChanges(Napi::Env env, const LayerChanges& changes) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("identity", FromIdentity(env, changes.identity));
  object.Set("ranges", MakeArray(env, changes.ranges, [&](const LayerChanges::Range& range) {
               return FromRange(env, range.offset, range.length);
             }));
  return object;
}

Napi::Object FromStats(Napi::Env env, const StatsSnapshot& stats) {
  static constexpr const char* kPhases[] = {"open", "search", "copy", "finish", "done"};
  Napi::Object object = Napi::Object::New(env);
  object.Set("phase", kPhases[static_cast<size_t>(stats.phase)]);
  object.Set("elapsedSeconds", static_cast<double>(stats.elapsed_ns) / 1e9);
  object.Set("totalBytes", Number(env, stats.total_bytes));
  object.Set("doneBytes", Number(env, stats.done_bytes));
  object.Set("readBytes", Number(env, stats.read_bytes));
  object.Set("zeroBytes", Number(env, stats.zero_bytes));
  object.Set("newBytes", Number(env, stats.new_bytes));
  object.Set("storedBytes", Number(env, stats.stored_bytes));
  object.Set("writtenBytes", Number(env, stats.written_bytes));
  object.Set("chunks", Number(env, stats.chunks));
  object.Set("newChunks", Number(env, stats.new_chunks));
  object.Set("workers", Napi::Number::New(env, stats.workers));
  object.Set("backend", stats.backend);
  object.Set("memoryBytes", Number(env, stats.memory_bytes));
  static constexpr const char* kStageNames[] = {"scan",    "hash",    "compress",
                                                "starved", "blocked", "limited"};
  Napi::Object stages = Napi::Object::New(env);
  static_assert(std::size(kStageNames) == kStages);
  for (size_t i = 0; i < kStages; ++i) stages.Set(kStageNames[i], stats.shares[i]);
  stages.Set("source", stats.source_busy);
  stages.Set("target", stats.target_busy);
  object.Set("stages", stages);
  object.Set("bottleneck", stats.bottleneck);
  return object;
}

Napi::Object FromBackupResult(Napi::Env env, const BackupResult& result) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("disks", MakeArray(env, result.disks, [&](const BackupResult::DiskResult& disk) {
               Napi::Object row = Napi::Object::New(env);
               row.Set("root", ToHex(disk.root));
               row.Set("identity", FromIdentity(env, disk.identity));
               row.Set("dataBytes", Number(env, disk.data_bytes));
               if (disk.changed_bytes) row.Set("changedBytes", Number(env, *disk.changed_bytes));
               if (!disk.base_refused.empty()) row.Set("baseRefused", disk.base_refused);
               if (disk.unused) row.Set("unused", FromUsedMap(env, *disk.unused));
               return row;
             }));
  object.Set("packs", FromPackNames(env, result.packs));
  object.Set("indexRuns", FromStrings(env, result.index_runs));
  object.Set("reliedPacks", FromPackNames(env, result.relied_packs));
  return object;
}

Napi::Array FromProblems(Napi::Env env, const std::vector<Problem>& problems) {
  return MakeArray(env, problems,
                   [&](const Problem& problem) { return FromProblem(env, problem); });
}

Napi::Object FromVerifyResult(Napi::Env env, const VerifyResult& result) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("problems", FromProblems(env, result.problems));
  object.Set("problemCount", Number(env, result.problem_count));
  object.Set("chunks", Number(env, result.chunks));
  object.Set("packs", Number(env, result.packs));
  object.Set("healed", Number(env, result.healed));
  return object;
}

Napi::Object FromRepairResult(Napi::Env env, const RepairResult& result) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("indexRuns", FromStrings(env, result.index_runs));
  object.Set("packs", Number(env, result.packs));
  object.Set("chunks", Number(env, result.records));
  object.Set("problems", FromProblems(env, result.problems));
  return object;
}

}  // namespace firn::addon
