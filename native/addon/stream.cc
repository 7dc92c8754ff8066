// What a stream has come to stays native, behind an External that JavaScript hands from call to
// call.

#include "addon/stream.h"

#ifdef _WIN32
#include "io/system_win.h"
#endif

#include "addon/convert.h"
#include "addon/session.h"
#include "stream/have_list.h"
#include "stream/receive_job.h"
#include "stream/send_job.h"
#include "stream/whole_job.h"

namespace firn::addon {

namespace {

#ifdef _WIN32
// Node exports libuv, but neither its headers nor an import library for it come with those of
// Node-API.
template <typename Call>
Call FromLibuv(const char* name) {
  return reinterpret_cast<Call>(
      reinterpret_cast<void*>(GetProcAddress(GetModuleHandleW(nullptr), name)));
}
#endif

// JavaScript has descriptors everywhere; Windows has handles below them.
StreamHandle HandleOf(const Napi::Object& object) {
  const auto descriptor = static_cast<int>(GetUint(object, "fd"));
#ifdef _WIN32
  const auto get = FromLibuv<HANDLE (*)(int)>("uv_get_osfhandle");
  return reinterpret_cast<StreamHandle>(get == nullptr ? INVALID_HANDLE_VALUE : get(descriptor));
#else
  return descriptor;
#endif
}

// For node:fs to close.
int DescriptorOf(StreamHandle handle) {
#ifdef _WIN32
  const auto open = FromLibuv<int (*)(HANDLE)>("uv_open_osfhandle");
  return open == nullptr ? -1 : open(reinterpret_cast<HANDLE>(handle));
#else
  return static_cast<int>(handle);
#endif
}

template <typename Kept>
Napi::Value Keep(Napi::Env env, std::shared_ptr<Kept> kept) {
  using Holder = std::shared_ptr<Kept>;
  return Napi::External<Holder>::New(env, new Holder(std::move(kept)),
                                     [](Napi::Env, Holder* holder) { delete holder; });
}

// REQUIRES: the member is what Keep<Kept> made; src/engine/binding.ts gives each kind a type.
template <typename Kept>
std::shared_ptr<Kept> KeptOf(const Napi::Object& object, const char* name) {
  const Napi::Value value = object.Get(name);
  if (!value.IsExternal()) {
    throw Napi::TypeError::New(object.Env(), std::string("native option '") + name + "' is gone");
  }
  return *value.As<Napi::External<std::shared_ptr<Kept>>>().Data();
}

std::vector<Id> IdsOf(const Napi::Object& object, const char* name) {
  std::vector<Id> ids;
  for (const std::string& text : GetStrings(object, name)) ids.push_back(ToId(object.Env(), text));
  return ids;
}

Napi::Value BytesFrom(Napi::Env env, const std::string& text) {
  return Napi::Buffer<char>::Copy(env, text.data(), text.size());
}

Napi::Value FromCounts(Napi::Env env, const StreamCounts& counts) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("records", Number(env, counts.records));
  object.Set("bytes", Number(env, counts.bytes));
  return object;
}

Napi::Object FromSend(Napi::Env env, const SendStream& stream) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("sent", FromCounts(env, stream.total()));
  object.Set("skipped", FromCounts(env, {stream.skipped_records(), stream.skipped_bytes()}));
  object.Set("streamBytes", Number(env, stream.stream_bytes()));
  return object;
}

Napi::Object FromReceive(Napi::Env env, const ReceiveResult& result, const ReceiveStream& stream) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("packs", MakeArray(env, result.packs, [&](const PackName& pack) {
               return Napi::String::New(env, pack.ToString());
             }));
  object.Set("indexRuns", MakeArray(env, result.index_runs, [&](const std::string& name) {
               return Napi::String::New(env, name);
             }));
  object.Set("received", FromCounts(env, result.received));
  object.Set("stored", FromCounts(env, result.stored));
  object.Set("adoptedPacks", Number(env, result.adopted_packs));
  object.Set("streamBytes", Number(env, stream.bytes()));
  object.Set("ended", stream.ended());
  return object;
}

}  // namespace

Napi::Value NewSendStream(const Napi::CallbackInfo& info) {
  const Napi::Object object = ObjectArgument(info, 0);
  std::vector<SendPoint> points;
  const Napi::Array array = GetArray(object, "points");
  for (uint32_t i = 0; i < array.Length(); ++i) {
    const Napi::HandleScope scope(info.Env());
    const auto point = Napi::Value(array[i]).As<Napi::Object>();
    points.push_back({GetString(point, "json"), IdsOf(point, "roots")});
  }
  std::optional<StreamHandle> handle;
  if (!object.Get("fd").IsUndefined()) handle = HandleOf(object);
  return Keep(info.Env(),
              std::make_shared<SendStream>(handle, GetUint(object, "bytesPerSecond"),
                                           GetString(object, "header"), std::move(points)));
}

Napi::Value StartSend(const Napi::CallbackInfo& info) {
  const Napi::Object object = ObjectArgument(info, 0);
  SendOptions options;
  options.repository = ToRepositoryView(GetObject(object, "repository"));
  options.stream = KeptOf<SendStream>(object, "stream");
  options.have_roots = IdsOf(object, "haveRoots");
  options.total_bytes = GetUint(object, "totalBytes");
  if (!object.Get("target").IsUndefined()) {
    options.target = ToRepositoryView(GetObject(object, "target")).listing;
  }
  if (!object.Get("have").IsUndefined()) options.have = KeptOf<HaveList>(object, "have");
  const auto stream = options.stream;
  auto job = std::make_shared<SendJob>(FileSystem::Default(), ToTuning(GetObject(object, "tuning")),
                                       std::move(options));
  return StartSession(info.Env(), job, [stream](Napi::Env env) { return FromSend(env, *stream); });
}

Napi::Value StartOpenStream(const Napi::CallbackInfo& info) {
  const Napi::Object object = ObjectArgument(info, 0);
  auto stream = std::make_shared<ReceiveStream>(HandleOf(object));
  auto job = std::make_shared<OpenStreamJob>(FileSystem::Default(),
                                             ToTuning(GetObject(object, "tuning")), stream);
  return StartSession(info.Env(), job, [job, stream](Napi::Env env) {
    Napi::Object result = Napi::Object::New(env);
    result.Set("header", BytesFrom(env, job->header()));
    result.Set("points", MakeArray(env, job->points(),
                                   [&](const std::string& json) { return BytesFrom(env, json); }));
    result.Set("stream", Keep(env, stream));
    return result;
  });
}

Napi::Value StartReceive(const Napi::CallbackInfo& info) {
  const Napi::Object object = ObjectArgument(info, 0);
  ReceiveOptions options;
  options.repository = ToRepositoryView(GetObject(object, "repository"));
  options.stream = KeptOf<ReceiveStream>(object, "stream");
  if (!FromHex(GetString(object, "run"), options.run)) {
    throw Napi::TypeError::New(info.Env(), "expected a run of 32 hexadecimal digits");
  }
  options.adopt = GetBool(object, "adopt");
  options.total_bytes = GetUint(object, "totalBytes");
  const auto stream = options.stream;
  auto job = std::make_shared<ReceiveJob>(
      FileSystem::Default(), ToTuning(GetObject(object, "tuning")), std::move(options));
  return StartSession(info.Env(), job, [job, stream](Napi::Env env) {
    return FromReceive(env, job->result(), *stream);
  });
}

Napi::Value NewWholeMaps(const Napi::CallbackInfo& info) {
  return Keep(info.Env(), std::make_shared<WholeMaps>());
}

Napi::Value StartCheckWhole(const Napi::CallbackInfo& info) {
  const Napi::Object object = ObjectArgument(info, 0);
  WholeOptions options;
  options.repository = ToRepositoryView(GetObject(object, "repository"));
  options.known = KeptOf<WholeMaps>(object, "known");
  const Napi::Array maps = GetArray(object, "maps");
  for (uint32_t i = 0; i < maps.Length(); ++i) {
    const auto map = Napi::Value(maps[i]).As<Napi::Object>();
    options.maps.push_back({ToId(info.Env(), GetString(map, "root")), GetUint(map, "sizeBytes")});
  }
  auto job = std::make_shared<WholeJob>(FileSystem::Default(),
                                        ToTuning(GetObject(object, "tuning")), std::move(options));
  return StartSession(info.Env(), job, [job](Napi::Env env) {
    Napi::Object result = Napi::Object::New(env);
    result.Set("packs", MakeArray(env, job->packs(), [&](const PackName& pack) {
                 return Napi::String::New(env, pack.ToString());
               }));
    return result;
  });
}

Napi::Value StartWriteHave(const Napi::CallbackInfo& info) {
  const Napi::Object object = ObjectArgument(info, 0);
  WriteHaveOptions options;
  options.repository = ToRepositoryView(GetObject(object, "repository"));
  options.handle = HandleOf(object);
  options.header = GetString(object, "header");
  options.records = GetBool(object, "records");
  auto job = std::make_shared<WriteHaveJob>(
      FileSystem::Default(), ToTuning(GetObject(object, "tuning")), std::move(options));
  return StartSession(info.Env(), job, [job](Napi::Env env) {
    Napi::Object result = Napi::Object::New(env);
    result.Set("records", Number(env, job->prefixes()));
    return result;
  });
}

Napi::Value StartReadHave(const Napi::CallbackInfo& info) {
  const Napi::Object object = ObjectArgument(info, 0);
  auto job = std::make_shared<ReadHaveJob>(FileSystem::Default(),
                                           ToTuning(GetObject(object, "tuning")), HandleOf(object));
  return StartSession(info.Env(), job, [job](Napi::Env env) {
    Napi::Object result = Napi::Object::New(env);
    result.Set("header", BytesFrom(env, job->list()->header));
    result.Set("records", Number(env, job->list()->prefixes.size()));
    result.Set("have", Keep(env, job->list()));
    return result;
  });
}

Napi::Value NewPipeEnds(const Napi::CallbackInfo& info) {
  const auto ends = NewPipe();
  if (!ends.ok()) {
    throw Napi::Error(info.Env(), FromStatus(info.Env(), ends.status()).As<Napi::Object>());
  }
  Napi::Array result = Napi::Array::New(info.Env(), 2);
  result[0u] = Napi::Number::New(info.Env(), DescriptorOf(ends->first));
  result[1u] = Napi::Number::New(info.Env(), DescriptorOf(ends->second));
  return result;
}

}  // namespace firn::addon
