// Between JavaScript values and the data plane's: the one place for each.
//
// Everything here runs on the JavaScript thread. TypeScript has validated what comes in
// (src/engine/options.ts); a value of the wrong kind is a programming error there and throws a
// TypeError.
#ifndef FIRN_ADDON_CONVERT_H_
#define FIRN_ADDON_CONVERT_H_

#include <napi.h>

#include <string>
#include <vector>

#include "disk/disk.h"
#include "disk/layer_changes.h"
#include "pipeline/backup_job.h"
#include "pipeline/copy_job.h"
#include "pipeline/job.h"
#include "pipeline/repair_job.h"
#include "pipeline/restore_job.h"
#include "pipeline/unused_search.h"
#include "pipeline/verify_job.h"

namespace firn::addon {

// An argument that must be there.
Napi::Object ObjectArgument(const Napi::CallbackInfo& info, size_t i);
std::string StringArgument(const Napi::CallbackInfo& info, size_t i);

// A member that must be there.
std::string GetString(const Napi::Object& object, const char* name);
uint64_t GetUint(const Napi::Object& object, const char* name);
bool GetBool(const Napi::Object& object, const char* name);
Napi::Object GetObject(const Napi::Object& object, const char* name);
Napi::Array GetArray(const Napi::Object& object, const char* name);
std::vector<std::string> GetStrings(const Napi::Object& object, const char* name);
std::vector<PackName> GetPackNames(const Napi::Object& object, const char* name);

OpenDiskOptions ToOpenDiskOptions(const Napi::Object& object);
DiskIdentity ToDiskIdentity(const Napi::Object& object);
RepositoryView ToRepositoryView(const Napi::Object& object);
Tuning ToTuning(const Napi::Object& object);
BackupOptions ToBackupOptions(const Napi::Object& object);
std::vector<UnusedJob::Source> ToUnusedSources(const Napi::Object& object);
RestoreOptions ToRestoreOptions(const Napi::Object& object);
CopyOptions ToCopyOptions(const Napi::Object& object);
VerifyOptions ToVerifyOptions(const Napi::Object& object);
RepairOptions ToRepairOptions(const Napi::Object& object);
Id ToId(Napi::Env env, const std::string& hex);

// Sizes and counts as numbers: exact below 2^53.
inline Napi::Value Number(Napi::Env env, uint64_t value) {
  return Napi::Number::New(env, static_cast<double>(value));
}

// An array of what `make` makes of each item. Each has a handle scope of its own, as lists may be
// long.
template <typename Items, typename Make>
Napi::Array MakeArray(Napi::Env env, const Items& items, Make make) {
  Napi::Array array = Napi::Array::New(env, items.size());
  uint32_t i = 0;
  for (const auto& item : items) {
    const Napi::HandleScope scope(env);
    array[i++] = make(item);
  }
  return array;
}

// The Error that a promise rejects with: message, and the Status' fields as properties.
Napi::Value FromStatus(Napi::Env env, const Status& status);
Napi::Object FromIdentity(Napi::Env env, const DiskIdentity& identity);
Napi::Object FromInspection(Napi::Env env, const Inspection& inspection);
// [offset, length]
Napi::Array FromRange(Napi::Env env, uint64_t offset, uint64_t length);
Napi::Object FromLayerChanges(Napi::Env env, const LayerChanges& changes);
Napi::Object FromStats(Napi::Env env, const StatsSnapshot& stats);
Napi::Object FromUsedMap(Napi::Env env, const UsedMap& map);
Napi::Object FromBackupResult(Napi::Env env, const BackupResult& result);
Napi::Array FromProblems(Napi::Env env, const std::vector<Problem>& problems);
Napi::Object FromVerifyResult(Napi::Env env, const VerifyResult& result);
Napi::Object FromRepairResult(Napi::Env env, const RepairResult& result);

}  // namespace firn::addon

#endif  // FIRN_ADDON_CONVERT_H_
