#include "addon/convert.h"

namespace firn::addon {

namespace {

[[noreturn]] void ThrowWrong(Napi::Env env, const char* name, const char* expected) {
  throw Napi::TypeError::New(env, std::string("native option '") + name + "' is not " + expected);
}

template <size_t N>
std::array<uint8_t, N> GetHex(const Napi::Object& object, const char* name) {
  std::array<uint8_t, N> bytes;
  if (!FromHex(GetString(object, name), bytes)) ThrowWrong(object.Env(), name, "hexadecimal");
  return bytes;
}

template <size_t N>
std::array<uint8_t, N> GetBytes(const Napi::Object& object, const char* name) {
  const Napi::Value value = object.Get(name);
  if (!value.IsTypedArray() || value.As<Napi::TypedArray>().ByteLength() != N ||
      value.As<Napi::TypedArray>().TypedArrayType() != napi_uint8_array) {
    ThrowWrong(object.Env(), name, "so many bytes");
  }
  std::array<uint8_t, N> bytes;
  std::copy_n(value.As<Napi::Uint8Array>().Data(), N, bytes.begin());
  return bytes;
}

template <typename T, size_t N>
T GetChoice(const Napi::Object& object, const char* name,
            const std::pair<const char*, T> (&choices)[N]) {
  const std::string value = GetString(object, name);
  for (const auto& [text, choice] : choices) {
    if (value == text) return choice;
  }
  ThrowWrong(object.Env(), name, "one of its choices");
}

// Calls `add` for each object of an array.
template <typename Add>
void ForEachObject(const Napi::Array& array, Add add) {
  for (uint32_t i = 0; i < array.Length(); ++i) {
    const Napi::Value value = array[i];
    if (!value.IsObject()) ThrowWrong(array.Env(), "list", "a list of objects");
    add(value.As<Napi::Object>());
  }
}

// { pack, records? }
PackDamage ToPackDamage(const Napi::Object& object) {
  PackDamage damage;
  Result<PackName> pack = PackName::Parse(GetString(object, "pack"));
  if (!pack.ok()) ThrowWrong(object.Env(), "pack", "a pack's name");
  damage.pack = *pack;
  damage.whole = object.Get("records").IsUndefined();
  if (damage.whole) return damage;
  for (const std::string& id : GetStrings(object, "records")) {
    damage.ids.push_back(ToId(object.Env(), id));
  }
  return damage;
}

// { root, skipsUnused, ranges: [offset, length][] }
BackupBase ToBackupBase(const Napi::Object& object) {
  BackupBase base;
  base.root = ToId(object.Env(), GetString(object, "root"));
  base.skips_unused = GetBool(object, "skipsUnused");
  const Napi::Array ranges = GetArray(object, "ranges");
  base.changed.reserve(ranges.Length());
  for (uint32_t i = 0; i < ranges.Length(); ++i) {
    // A list of many numbers: each lives only as long as it is looked at.
    const Napi::HandleScope scope(object.Env());
    const Napi::Value pair = ranges[i];
    if (!pair.IsArray()) ThrowWrong(object.Env(), "ranges", "a list of pairs");
    base.changed.push_back(
        {GetUint(pair.As<Napi::Object>(), "0"), GetUint(pair.As<Napi::Object>(), "1")});
  }
  return base;
}

UnusedOptions ToUnusedOptions(const Napi::Object& object) {
  UnusedOptions options;
  options.quiesced = GetBool(object, "quiesced");
  options.keep_shadow_copies = GetBool(object, "keepShadowCopies");
  options.skip_page_files = GetBool(object, "skipPageFiles");
  return options;
}

}  // namespace

Napi::Object ObjectArgument(const Napi::CallbackInfo& info, size_t i) {
  if (info.Length() <= i || !info[i].IsObject()) {
    throw Napi::TypeError::New(info.Env(), "an options object is missing");
  }
  return info[i].As<Napi::Object>();
}

std::string StringArgument(const Napi::CallbackInfo& info, size_t i) {
  if (info.Length() <= i || !info[i].IsString()) {
    throw Napi::TypeError::New(info.Env(), "a string argument is missing");
  }
  return info[i].As<Napi::String>().Utf8Value();
}

std::string GetString(const Napi::Object& object, const char* name) {
  const Napi::Value value = object.Get(name);
  if (!value.IsString()) ThrowWrong(object.Env(), name, "a string");
  return value.As<Napi::String>().Utf8Value();
}

uint64_t GetUint(const Napi::Object& object, const char* name) {
  const Napi::Value value = object.Get(name);
  if (!value.IsNumber()) ThrowWrong(object.Env(), name, "a number");
  const double number = value.As<Napi::Number>().DoubleValue();
  if (!(number >= 0 && number <= 9007199254740991.0)) {
    ThrowWrong(object.Env(), name, "a whole number");
  }
  return static_cast<uint64_t>(number);
}

bool GetBool(const Napi::Object& object, const char* name) {
  const Napi::Value value = object.Get(name);
  if (!value.IsBoolean()) ThrowWrong(object.Env(), name, "true or false");
  return value.As<Napi::Boolean>().Value();
}

Napi::Object GetObject(const Napi::Object& object, const char* name) {
  const Napi::Value value = object.Get(name);
  if (!value.IsObject()) ThrowWrong(object.Env(), name, "an object");
  return value.As<Napi::Object>();
}

Napi::Array GetArray(const Napi::Object& object, const char* name) {
  const Napi::Value value = object.Get(name);
  if (!value.IsArray()) ThrowWrong(object.Env(), name, "a list");
  return value.As<Napi::Array>();
}

std::vector<std::string> GetStrings(const Napi::Object& object, const char* name) {
  const Napi::Array array = GetArray(object, name);
  std::vector<std::string> strings;
  for (uint32_t i = 0; i < array.Length(); ++i) {
    const Napi::Value value = array[i];
    if (!value.IsString()) ThrowWrong(object.Env(), name, "a list of strings");
    strings.push_back(value.As<Napi::String>().Utf8Value());
  }
  return strings;
}

std::vector<PackName> GetPackNames(const Napi::Object& object, const char* name) {
  std::vector<PackName> packs;
  for (const std::string& text : GetStrings(object, name)) {
    Result<PackName> pack = PackName::Parse(text);
    if (!pack.ok()) ThrowWrong(object.Env(), name, "a list of pack names");
    packs.push_back(*pack);
  }
  return packs;
}

Id ToId(Napi::Env env, const std::string& hex) {
  Id id;
  if (!FromHex(hex, id)) ThrowWrong(env, "id", "64 hexadecimal digits");
  return id;
}

OpenDiskOptions ToOpenDiskOptions(const Napi::Object& object) {
  OpenDiskOptions options;
  options.parent_folders = GetStrings(object, "parentFolders");
  options.parents = GetStrings(object, "parents");
  if (!GetString(object, "format").empty()) {
    options.format = GetChoice<DiskFormat>(
        object, "format",
        {{"raw", DiskFormat::kRaw}, {"vhd", DiskFormat::kVhd}, {"vhdx", DiskFormat::kVhdx}});
  }
  return options;
}

DiskIdentity ToDiskIdentity(const Napi::Object& object) {
  DiskIdentity identity;
  identity.format = GetChoice<DiskFormat>(
      object, "format",
      {{"raw", DiskFormat::kRaw}, {"vhd", DiskFormat::kVhd}, {"vhdx", DiskFormat::kVhdx}});
  identity.kind = GetChoice<DiskKind>(object, "kind",
                                      {{"fixed", DiskKind::kFixed},
                                       {"dynamic", DiskKind::kDynamic},
                                       {"differencing", DiskKind::kDifferencing}});
  identity.size = GetUint(object, "sizeBytes");
  identity.block_size = static_cast<uint32_t>(GetUint(object, "blockBytes"));
  identity.logical_sector_size = static_cast<uint32_t>(GetUint(object, "logicalSectorBytes"));
  identity.physical_sector_size = static_cast<uint32_t>(GetUint(object, "physicalSectorBytes"));
  const std::string disk_id = GetString(object, "diskId");
  if (!disk_id.empty() && !GuidFromString(disk_id, &identity.disk_id)) {
    ThrowWrong(object.Env(), "diskId", "a GUID");
  }
  return identity;
}

// { runKey?, runs: { run, key, publicTail }[], locked }
std::shared_ptr<const SealKeys> ToSealKeys(const Napi::Object& object) {
  SealKeys::Options options;
  if (!object.Get("runKey").IsUndefined()) options.run_key = GetBytes<32>(object, "runKey");
  ForEachObject(GetArray(object, "runs"), [&](const Napi::Object& row) {
    options.runs[GetHex<16>(row, "run")] = {GetBytes<32>(row, "key"),
                                            GetBytes<16>(row, "publicTail")};
  });
  options.locked = GetBool(object, "locked");
  return std::make_shared<SealKeys>(std::move(options));
}

RepositoryView ToRepositoryView(const Napi::Object& object) {
  RepositoryView view;
  view.listing.root = GetString(object, "root");
  view.listing.index_runs = GetStrings(object, "indexRuns");
  view.listing.packs = GetPackNames(object, "packs");
  view.listing.condemned = GetPackNames(object, "condemned");
  ForEachObject(GetArray(object, "damaged"), [&](const Napi::Object& row) {
    view.listing.damaged.push_back(ToPackDamage(row));
  });
  view.id_key = GetHex<32>(object, "idKey");
  const Napi::Object chunking = GetObject(object, "chunking");
  view.chunking.fixed = GetChoice<bool>(chunking, "scheme", {{"content", false}, {"fixed", true}});
  view.chunking.min_pages = static_cast<uint32_t>(GetUint(chunking, "minPages"));
  view.chunking.average_pages = static_cast<uint32_t>(GetUint(chunking, "averagePages"));
  view.chunking.max_pages = static_cast<uint32_t>(GetUint(chunking, "maxPages"));
  view.chunking.seed = RepositoryKeys(view.id_key).cut_seed;
  if (!object.Get("seal").IsUndefined()) {
    view.seal = ToSealKeys(GetObject(object, "seal"));
    if (!view.seal->is_locked()) view.listing.index_key = SealedIndexKey(view.id_key);
  }
  return view;
}

Tuning ToTuning(const Napi::Object& object) {
  Tuning tuning;
  tuning.workers = static_cast<uint32_t>(GetUint(object, "workers"));
  tuning.memory_bytes = GetUint(object, "memoryBytes");
  tuning.bytes_per_second = GetUint(object, "bytesPerSecond");
  tuning.io = GetChoice<IoMode>(
      object, "io",
      {{"auto", IoMode::kAuto}, {"direct", IoMode::kDirect}, {"buffered", IoMode::kBuffered}});
  tuning.backend = GetChoice<IoBackend>(
      object, "backend",
      {{"auto", IoBackend::kAuto}, {"uring", IoBackend::kUring}, {"threads", IoBackend::kThreads}});
  return tuning;
}

BackupOptions ToBackupOptions(const Napi::Object& object) {
  BackupOptions options;
  options.repository = ToRepositoryView(GetObject(object, "repository"));
  ForEachObject(GetArray(object, "disks"), [&](const Napi::Object& disk) {
    BackupDisk row{GetString(disk, "path"), ToOpenDiskOptions(GetObject(disk, "open"))};
    if (!disk.Get("base").IsUndefined()) row.base = ToBackupBase(GetObject(disk, "base"));
    if (!disk.Get("unused").IsUndefined()) {
      row.unused = ToUnusedOptions(GetObject(disk, "unused"));
    }
    options.disks.push_back(std::move(row));
  });
  options.run = GetHex<16>(object, "run");
  options.attempt = static_cast<uint32_t>(GetUint(object, "attempt"));
  options.compression.codec = GetChoice<Codec>(
      object, "codec", {{"raw", Codec::kRaw}, {"lz4", Codec::kLz4}, {"zstd", Codec::kZstd}});
  const Napi::Value level = object.Get("level");
  if (!level.IsNumber()) ThrowWrong(object.Env(), "level", "a number");
  options.compression.level = level.As<Napi::Number>().Int32Value();
  options.store = GetBool(object, "store");
  return options;
}

std::vector<UnusedJob::Source> ToUnusedSources(const Napi::Object& object) {
  std::vector<UnusedJob::Source> sources;
  ForEachObject(GetArray(object, "disks"), [&](const Napi::Object& disk) {
    sources.push_back({GetString(disk, "path"), ToOpenDiskOptions(GetObject(disk, "open")),
                       ToUnusedOptions(GetObject(disk, "unused"))});
  });
  return sources;
}

RestoreOptions ToRestoreOptions(const Napi::Object& object) {
  RestoreOptions options;
  options.repository = ToRepositoryView(GetObject(object, "repository"));
  const bool overwrite = GetBool(object, "overwrite");
  ForEachObject(GetArray(object, "disks"), [&](const Napi::Object& disk) {
    RestoreDisk row;
    row.root = ToId(disk.Env(), GetString(disk, "root"));
    row.path = GetString(disk, "path");
    row.create.identity = ToDiskIdentity(GetObject(disk, "identity"));
    row.create.overwrite = overwrite;
    options.disks.push_back(std::move(row));
  });
  return options;
}

CopyOptions ToCopyOptions(const Napi::Object& object) {
  CopyOptions options;
  const Napi::Object source = GetObject(object, "source");
  options.source_path = GetString(source, "path");
  options.source = ToOpenDiskOptions(GetObject(source, "open"));
  const Napi::Object target = GetObject(object, "target");
  options.target_path = GetString(target, "path");
  options.target.identity = ToDiskIdentity(GetObject(target, "identity"));
  options.target.parent_path = GetString(target, "parentPath");
  options.target.overwrite = GetBool(object, "overwrite");
  return options;
}

VerifyOptions ToVerifyOptions(const Napi::Object& object) {
  VerifyOptions options;
  options.repository = ToRepositoryView(GetObject(object, "repository"));
  for (const std::string& root : GetStrings(object, "roots")) {
    options.roots.push_back(ToId(object.Env(), root));
  }
  options.read_data = GetBool(object, "readData");
  return options;
}

RepairOptions ToRepairOptions(const Napi::Object& object) {
  RepairOptions options;
  options.repository = ToRepositoryView(GetObject(object, "repository"));
  options.run = GetHex<16>(object, "run");
  options.attempt = static_cast<uint32_t>(GetUint(object, "attempt"));
  return options;
}

}  // namespace firn::addon
