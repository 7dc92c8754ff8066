// The addon's functions; src/engine/binding.ts is their declaration and their documentation.
//
// Thin by rule: convert, start, convert back. What happens lives in native/pipeline and
// native/disk.

#include <napi.h>

#include <map>
#include <thread>

#include "addon/bench.h"
#include "addon/collect.h"
#include "addon/convert.h"
#include "addon/driver.h"
#include "addon/scrub.h"
#include "addon/session.h"
#include "addon/stream.h"
#include "disk/disk_writer.h"
#include "io/core_files.h"
#include "io/io_queue.h"
#include "pipeline/map_disk.h"

namespace firn::addon {

namespace {

constexpr size_t kReadBytesMax = 64 * kMiB;

uint64_t UintArgument(const Napi::CallbackInfo& info, size_t i) {
  if (info.Length() <= i || !info[i].IsNumber() || info[i].As<Napi::Number>().DoubleValue() < 0) {
    throw Napi::TypeError::New(info.Env(), "a number argument is missing");
  }
  return static_cast<uint64_t>(info[i].As<Napi::Number>().DoubleValue());
}

Napi::Value Version(const Napi::CallbackInfo& info) {
  return Napi::String::New(info.Env(), FIRN_VERSION);
}

Napi::Value Cpu(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  Napi::Array features = Napi::Array::New(env);
#if defined(__x86_64__)
  const std::pair<const char*, bool> known[] = {
      {"sse4.2", __builtin_cpu_supports("sse4.2") != 0},
      {"avx2", __builtin_cpu_supports("avx2") != 0},
      {"avx512f", __builtin_cpu_supports("avx512f") != 0},
      {"avx512vl", __builtin_cpu_supports("avx512vl") != 0},
  };
  for (const auto& [name, present] : known) {
    if (present) features[features.Length()] = Napi::String::New(env, name);
  }
#endif
  Napi::Object cpu = Napi::Object::New(env);
  cpu.Set("cores", Napi::Number::New(env, std::thread::hardware_concurrency()));
  cpu.Set("features", features);
  cpu.Set("uring", FileSystem::Default().NewQueue({.depth = 1, .backend = IoBackend::kUring}).ok());
  return cpu;
}

Napi::Value ForbidCore(const Napi::CallbackInfo& info) {
  return Napi::Boolean::New(info.Env(), ForbidCoreFiles());
}

Napi::Value HashBytes(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  if (info.Length() != 2 || !info[1].IsTypedArray()) {
    throw Napi::TypeError::New(env, "blake3 takes a key or null, and bytes");
  }
  const auto data = info[1].As<Napi::Uint8Array>();
  const std::span<const uint8_t> bytes(data.Data(), data.ByteLength());
  Id id;
  if (info[0].IsNull()) {
    id = Blake3(bytes);
  } else {
    const auto given = info[0].As<Napi::Uint8Array>();
    Key key;
    if (given.ByteLength() != key.size()) throw Napi::TypeError::New(env, "a key has 32 bytes");
    std::copy_n(given.Data(), key.size(), key.data());
    id = Blake3Keyed(key, bytes);
  }
  return Napi::Buffer<uint8_t>::Copy(env, id.data(), id.size());
}

Napi::Value InspectDiskFile(const Napi::CallbackInfo& info) {
  auto result = std::make_shared<Inspection>();
  return RunAsync(
      info.Env(),
      [path = StringArgument(info, 0), options = ToOpenDiskOptions(ObjectArgument(info, 1)),
       result]() -> Status {
        FIRN_ASSIGN_OR_RETURN(*result, InspectDisk(FileSystem::Default(), path, options));
        return Status::Ok();
      },
      [result](Napi::Env env) -> Napi::Value { return FromInspection(env, *result); });
}

// { identity, read(offset, length), close() } over anything with Read and a size.
template <typename Source>
Napi::Object WrapDisk(Napi::Env env, std::shared_ptr<Source> source, const DiskIdentity& identity) {
  // close() lets go of the source; a read that is under way holds it until it is done.
  auto holder = std::make_shared<std::shared_ptr<Source>>(std::move(source));
  Napi::Object object = Napi::Object::New(env);
  object.Set("identity", FromIdentity(env, identity));
  const auto read = [holder, size = identity.size](const Napi::CallbackInfo& call) -> Napi::Value {
    const uint64_t offset = UintArgument(call, 0);
    const uint64_t length = UintArgument(call, 1);
    auto bytes = std::make_shared<std::vector<uint8_t>>();
    return RunAsync(
        call.Env(),
        [disk = *holder, offset, length, size, bytes]() -> Status {
          if (!disk) return Status::Error(Code::kInvalidArgument, "the disk is closed");
          if (length > kReadBytesMax || !RangeInside(offset, length, size)) {
            return Status::Error(Code::kInvalidArgument, "the range is outside the disk");
          }
          bytes->resize(length);
          return disk->Read(offset, *bytes);
        },
        [bytes](Napi::Env inner) -> Napi::Value {
          return Napi::Buffer<uint8_t>::Copy(inner, bytes->data(), bytes->size());
        });
  };
  object.Set("read", Napi::Function::New(env, read));
  object.Set("close",
             Napi::Function::New(env, [holder](const Napi::CallbackInfo&) { holder->reset(); }));
  return object;
}

Napi::Value OpenDiskFile(const Napi::CallbackInfo& info) {
  auto disk = std::make_shared<std::shared_ptr<Disk>>();
  OpenDiskOptions options = ToOpenDiskOptions(ObjectArgument(info, 1));
  options.direct = false;
  return RunAsync(
      info.Env(),
      [path = StringArgument(info, 0), options, disk]() -> Status {
        FIRN_ASSIGN_OR_RETURN(std::unique_ptr<Disk> opened,
                              Disk::Open(FileSystem::Default(), path, options));
        *disk = std::move(opened);
        return Status::Ok();
      },
      [disk](Napi::Env env) -> Napi::Value { return WrapDisk(env, *disk, (*disk)->identity()); });
}

Napi::Value OpenDriverDisk(const Napi::CallbackInfo& info) {
  auto disk = std::make_shared<std::shared_ptr<Disk>>();
  return RunAsync(
      info.Env(),
      [path = StringArgument(info, 0), disk]() -> Status {
        FIRN_ASSIGN_OR_RETURN(std::unique_ptr<Disk> opened, OpenThroughDriver(path));
        *disk = std::move(opened);
        return Status::Ok();
      },
      [disk](Napi::Env env) -> Napi::Value { return WrapDisk(env, *disk, (*disk)->identity()); });
}

Napi::Value ReadChangesOfLayers(const Napi::CallbackInfo& info) {
  auto result = std::make_shared<LayerChanges>();
  LayerChangesOptions options;
  options.open = ToOpenDiskOptions(ObjectArgument(info, 1));
  options.open.direct = false;
  options.layers = static_cast<uint32_t>(std::min<uint64_t>(UintArgument(info, 2), UINT32_MAX));
  options.base_linkage = StringArgument(info, 3);
  return RunAsync(
      info.Env(),
      [path = StringArgument(info, 0), options, result]() -> Status {
        FIRN_ASSIGN_OR_RETURN(*result, ReadLayerChanges(FileSystem::Default(), path, options));
        return Status::Ok();
      },
      [result](Napi::Env env) -> Napi::Value { return FromLayerChanges(env, *result); });
}

Napi::Value OpenMap(const Napi::CallbackInfo& info) {
  auto disk = std::make_shared<std::shared_ptr<MapDisk>>();
  return RunAsync(
      info.Env(),
      [view = ToRepositoryView(ObjectArgument(info, 0)),
       root = ToId(info.Env(), StringArgument(info, 1)), disk]() -> Status {
        FIRN_ASSIGN_OR_RETURN(std::unique_ptr<MapDisk> opened,
                              MapDisk::Open(FileSystem::Default(), view, root));
        *disk = std::move(opened);
        return Status::Ok();
      },
      [disk](Napi::Env env) -> Napi::Value {
        DiskIdentity identity;
        identity.size = (*disk)->size();
        return WrapDisk(env, *disk, identity);
      });
}

Napi::Value CreateDisk(const Napi::CallbackInfo& info) {
  CreateDiskOptions options;
  options.identity = ToDiskIdentity(ObjectArgument(info, 1));
  options.parent_path = StringArgument(info, 2);
  options.overwrite = info[3].ToBoolean();
  return RunAsync(
      info.Env(),
      [path = StringArgument(info, 0), options]() -> Status {
        FIRN_ASSIGN_OR_RETURN(std::unique_ptr<DiskWriter> writer,
                              DiskWriter::Create(FileSystem::Default(), path, options));
        return writer->Finish();
      },
      [](Napi::Env env) { return env.Undefined(); });
}

struct PackTotals {
  uint64_t file_bytes = 0, entries = 0, stored_bytes = 0, raw_bytes = 0;
};

struct IndexTotals {
  uint64_t entries = 0;
  std::map<std::string, PackTotals> packs;
};

Status CountIndex(const RepositoryView& view, IndexTotals* totals) {
  FIRN_ASSIGN_OR_RETURN(std::unique_ptr<ChunkIndex> index,
                        ChunkIndex::Open(FileSystem::Default(), view.listing));
  totals->entries = index->entries();
  for (const auto& run : index->runs()) {
    std::vector<PackTotals*> rows;
    for (const IndexPack& pack : run->packs()) {
      PackTotals* row = &totals->packs[pack.name.ToString()];
      *row = PackTotals{.file_bytes = pack.file_bytes};
      rows.push_back(row);
    }
    for (uint64_t i = 0; i < run->entries(); ++i) {
      const IndexEntry entry = run->Entry(i);
      if (entry.pack >= rows.size()) continue;
      ++rows[entry.pack]->entries;
      rows[entry.pack]->stored_bytes += entry.stored_length + kRecordHeaderBytes;
      rows[entry.pack]->raw_bytes += entry.raw_length;
    }
  }
  return Status::Ok();
}

Napi::Value IndexInfo(const Napi::CallbackInfo& info) {
  auto totals = std::make_shared<IndexTotals>();
  return RunAsync(
      info.Env(),
      [view = ToRepositoryView(ObjectArgument(info, 0)), totals] {
        return CountIndex(view, totals.get());
      },
      [totals](Napi::Env env) -> Napi::Value {
        Napi::Array packs = Napi::Array::New(env);
        for (const auto& [name, pack] : totals->packs) {
          Napi::Object row = Napi::Object::New(env);
          row.Set("name", name);
          row.Set("fileBytes", static_cast<double>(pack.file_bytes));
          row.Set("entries", static_cast<double>(pack.entries));
          row.Set("storedBytes", static_cast<double>(pack.stored_bytes));
          row.Set("rawBytes", static_cast<double>(pack.raw_bytes));
          packs[packs.Length()] = row;
        }
        Napi::Object object = Napi::Object::New(env);
        object.Set("entries", static_cast<double>(totals->entries));
        object.Set("packs", packs);
        return object;
      });
}

Napi::Value StartBackup(const Napi::CallbackInfo& info) {
  const Napi::Object options = ObjectArgument(info, 0);
  auto job = std::make_shared<BackupJob>(
      FileSystem::Default(), ToTuning(GetObject(options, "tuning")), ToBackupOptions(options));
  return StartSession(info.Env(), job,
                      [job](Napi::Env env) { return FromBackupResult(env, job->result()); });
}

Napi::Value StartFindUnused(const Napi::CallbackInfo& info) {
  const Napi::Object options = ObjectArgument(info, 0);
  auto job = std::make_shared<UnusedJob>(
      FileSystem::Default(), ToTuning(GetObject(options, "tuning")), ToUnusedSources(options));
  return StartSession(info.Env(), job, [job](Napi::Env env) {
    Napi::Object result = Napi::Object::New(env);
    result.Set("disks", MakeArray(env, job->maps(),
                                  [&](const UsedMap& map) { return FromUsedMap(env, map); }));
    return result;
  });
}

Napi::Value StartRestore(const Napi::CallbackInfo& info) {
  const Napi::Object options = ObjectArgument(info, 0);
  auto job = std::make_shared<RestoreJob>(
      FileSystem::Default(), ToTuning(GetObject(options, "tuning")), ToRestoreOptions(options));
  return StartSession(info.Env(), job, [](Napi::Env env) { return Napi::Object::New(env); });
}

Napi::Value StartCopy(const Napi::CallbackInfo& info) {
  const Napi::Object options = ObjectArgument(info, 0);
  auto job = std::make_shared<CopyJob>(
      FileSystem::Default(), ToTuning(GetObject(options, "tuning")), ToCopyOptions(options));
  return StartSession(info.Env(), job, [](Napi::Env env) { return Napi::Object::New(env); });
}

Napi::Value StartVerify(const Napi::CallbackInfo& info) {
  const Napi::Object options = ObjectArgument(info, 0);
  auto job = std::make_shared<VerifyJob>(
      FileSystem::Default(), ToTuning(GetObject(options, "tuning")), ToVerifyOptions(options));
  return StartSession(info.Env(), job,
                      [job](Napi::Env env) { return FromVerifyResult(env, job->result()); });
}

Napi::Value StartRepairIndex(const Napi::CallbackInfo& info) {
  const Napi::Object options = ObjectArgument(info, 0);
  auto job = std::make_shared<RepairJob>(
      FileSystem::Default(), ToTuning(GetObject(options, "tuning")), ToRepairOptions(options));
  return StartSession(info.Env(), job,
                      [job](Napi::Env env) { return FromRepairResult(env, job->result()); });
}

Napi::Object Initialize(Napi::Env env, Napi::Object exports) {
  const std::pair<const char*, Napi::Value (*)(const Napi::CallbackInfo&)> functions[] = {
      {"version", Version},
      {"cpu", Cpu},
      {"blake3", HashBytes},
      {"inspectDisk", InspectDiskFile},
      {"openDisk", OpenDiskFile},
      {"createDisk", CreateDisk},
      {"openDriverDisk", OpenDriverDisk},
      {"driverTracking", AskDriverTracking},
      {"driverChanges", QueryDriverChanges},
      {"layerChanges", ReadChangesOfLayers},
      {"openMap", OpenMap},
      {"indexInfo", IndexInfo},
      {"startBackup", StartBackup},
      {"startFindUnused", StartFindUnused},
      {"startRestore", StartRestore},
      {"startCopy", StartCopy},
      {"startVerify", StartVerify},
      {"startRepairIndex", StartRepairIndex},
      {"startMark", StartMark},
      {"startRescue", StartRescue},
      {"startMergeIndex", StartMergeIndex},
      {"releaseMark", ReleaseMark},
      {"newSendStream", NewSendStream},
      {"startSend", StartSend},
      {"startOpenStream", StartOpenStream},
      {"startReceive", StartReceive},
      {"newWholeMaps", NewWholeMaps},
      {"startCheckWhole", StartCheckWhole},
      {"startWriteHave", StartWriteHave},
      {"startReadHave", StartReadHave},
      {"newPipe", NewPipeEnds},
      {"forbidCoreFiles", ForbidCore},
      {"startScrub", StartScrub},
      {"startTrace", StartTrace},
      {"startIoScan", StartIoScan},
      {"startStageScan", StartStageScan},
      {"startMakeData", StartMakeData},
      {"newKernel", NewKernel},
      {"blake3Implementations", ListBlake3},
      {"benchData", FillBenchData},
  };
  for (const auto& [name, function] : functions) {
    exports.Set(name, Napi::Function::New(env, function, name));
  }
  return exports;
}

}  // namespace

NODE_API_MODULE(firn, Initialize)

}  // namespace firn::addon
