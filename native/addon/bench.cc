#include "addon/bench.h"

#include "addon/convert.h"
#include "addon/session.h"
#include "bench/bench_data.h"
#include "bench/io_scan.h"
#include "bench/kernel.h"
#include "bench/stage_scan.h"
#include "chunk/page.h"

namespace firn::addon {

namespace {

constexpr uint64_t kDataBytesMax = 64 * kMiB;
constexpr double kNsPerSecond = 1e9;

double GetShare(const Napi::Object& object, const char* name) {
  const Napi::Value value = object.Get(name);
  if (!value.IsNumber()) throw Napi::TypeError::New(object.Env(), "a share is not a number");
  return value.As<Napi::Number>().DoubleValue();
}

uint32_t GetCount(const Napi::Object& object, const char* name) {
  return static_cast<uint32_t>(std::min<uint64_t>(GetUint(object, name), UINT32_MAX));
}

BenchData ToBenchData(const Napi::Object& object) {
  return {.seed = GetUint(object, "seed"),
          .entropy = GetShare(object, "entropy"),
          .duplicates = GetShare(object, "duplicates")};
}

CompressionOptions ToCompression(const Napi::Object& object) {
  const std::string codec = GetString(object, "codec");
  const auto level = static_cast<int>(GetCount(object, "level"));
  if (codec == "raw") return {Codec::kRaw, level};
  return {codec == "zstd" ? Codec::kZstd : Codec::kLz4, level};
}

[[noreturn]] void Throw(Napi::Env env, const Status& status) {
  throw Napi::Error(env, FromStatus(env, status));
}

IoScanOptions ToIoScanOptions(const Napi::Object& object) {
  using Kind = IoScanOptions::Kind;
  const std::string kind = GetString(object, "kind");
  IoScanOptions options;
  options.kind = kind == "write" ? Kind::kWrite : kind == "map" ? Kind::kMap : Kind::kFile;
  options.path = GetString(object, "path");
  options.open = ToOpenDiskOptions(GetObject(object, "open"));
  options.file_bytes = GetUint(object, "fileBytes");
  options.block_bytes = GetCount(object, "blockBytes");
  options.depth = GetCount(object, "depth");
  options.direct = GetBool(object, "direct");
  options.cold = GetBool(object, "cold");
  options.position = GetUint(object, "position");
  options.warm_up_ms = GetUint(object, "warmUpMs");
  options.run_ms = GetUint(object, "runMs");
  options.slice_ms = GetUint(object, "sliceMs");
  options.data = ToBenchData(GetObject(object, "data"));
  return options;
}

Napi::Object FromLatency(Napi::Env env, const LatencyHistogram& latency) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("count", Number(env, latency.count()));
  object.Set("meanNs", Napi::Number::New(env, latency.mean()));
  object.Set("minNs", Number(env, latency.min()));
  object.Set("maxNs", Number(env, latency.max()));
  object.Set("buckets",
             MakeArray(env, latency.Buckets(), [&](const LatencyHistogram::Bucket& bucket) {
               Napi::Array pair = Napi::Array::New(env, 2);
               pair[0u] = Number(env, bucket.upper_ns);
               pair[1u] = Number(env, bucket.count);
               return pair;
             }));
  return object;
}

Napi::Object FromIoScan(Napi::Env env, const IoScanResult& result) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("bytes", Number(env, result.bytes));
  object.Set("elapsedSeconds",
             Napi::Number::New(env, static_cast<double>(result.elapsed_ns) / kNsPerSecond));
  object.Set("syncSeconds",
             Napi::Number::New(env, static_cast<double>(result.sync_ns) / kNsPerSecond));
  object.Set("latency", FromLatency(env, result.latency));
  object.Set("slices",
             MakeArray(env, result.slices, [&](uint64_t bytes) { return Number(env, bytes); }));
  object.Set("planBytes", Number(env, result.plan_bytes));
  object.Set("position", Number(env, result.position));
  object.Set("direct", result.direct);
  object.Set("cut", result.is_cut);
  object.Set("backend", result.backend);
  return object;
}

Napi::Object FromStageScan(Napi::Env env, const StageScanResult& result) {
  const auto seconds = [&](uint64_t ns) {
    return Napi::Number::New(env, static_cast<double>(ns) / kNsPerSecond);
  };
  Napi::Object object = Napi::Object::New(env);
  object.Set("scannedBytes", Number(env, result.scanned_bytes));
  object.Set("dataBytes", Number(env, result.data_bytes));
  object.Set("chunks", Number(env, result.chunks));
  object.Set("uniqueChunks", Number(env, result.unique_chunks));
  object.Set("uniqueBytes", Number(env, result.unique_bytes));
  object.Set("compressedBytes", Number(env, result.compressed_bytes));
  object.Set("scanSeconds", seconds(result.scan_ns));
  object.Set("hashSeconds", seconds(result.hash_ns));
  object.Set("compressSeconds", seconds(result.compress_ns));
  return object;
}

}  // namespace

Napi::Value StartIoScan(const Napi::CallbackInfo& info) {
  const Napi::Object object = ObjectArgument(info, 0);
  auto job = std::make_shared<IoScanJob>(
      FileSystem::Default(), ToTuning(GetObject(object, "tuning")), ToIoScanOptions(object));
  return StartSession(info.Env(), job,
                      [job](Napi::Env env) { return FromIoScan(env, job->result()); });
}

Napi::Value StartStageScan(const Napi::CallbackInfo& info) {
  const Napi::Object object = ObjectArgument(info, 0);
  StageScanOptions options;
  options.path = GetString(object, "path");
  options.open = ToOpenDiskOptions(GetObject(object, "open"));
  options.compression = ToCompression(object);
  options.bytes_max = GetUint(object, "bytesMax");
  auto job = std::make_shared<StageScanJob>(
      FileSystem::Default(), ToTuning(GetObject(object, "tuning")), std::move(options));
  return StartSession(info.Env(), job,
                      [job](Napi::Env env) { return FromStageScan(env, job->result()); });
}

Napi::Value StartMakeData(const Napi::CallbackInfo& info) {
  const Napi::Object object = ObjectArgument(info, 0);
  MakeDataJob::Options options;
  options.path = GetString(object, "path");
  options.bytes = GetUint(object, "bytes");
  options.data = ToBenchData(GetObject(object, "data"));
  auto job = std::make_shared<MakeDataJob>(
      FileSystem::Default(), ToTuning(GetObject(object, "tuning")), std::move(options));
  return StartSession(info.Env(), job, [](Napi::Env env) { return Napi::Object::New(env); });
}

Napi::Value NewKernel(const Napi::CallbackInfo& info) {
  const Napi::Object object = ObjectArgument(info, 0);
  if (info.Length() < 2 || !info[1].IsTypedArray()) {
    throw Napi::TypeError::New(info.Env(), "the input is missing");
  }
  const auto input = info[1].As<Napi::Uint8Array>();
  KernelOptions options;
  options.name = GetString(object, "name");
  options.level = static_cast<int>(GetCount(object, "level"));
  options.cpu_impl = GetString(object, "cpuImpl");
  options.chunk_bytes = GetCount(object, "chunkBytes");
  Result<std::unique_ptr<Kernel>> made =
      Kernel::Create(options, {input.Data(), input.ByteLength()});
  if (!made.ok()) Throw(info.Env(), made.status());
  const std::shared_ptr<Kernel> kernel = std::move(*made);
  Napi::Object result = Napi::Object::New(info.Env());
  result.Set("inputBytes", Number(info.Env(), kernel->input_bytes()));
  result.Set("run", Napi::Function::New(info.Env(), [kernel](const Napi::CallbackInfo& call) {
               return Number(call.Env(), kernel->Run());
             }));
  return result;
}

Napi::Value ListBlake3(const Napi::CallbackInfo& info) {
  return MakeArray(info.Env(), Blake3Implementations(),
                   [&](const std::string& name) { return Napi::String::New(info.Env(), name); });
}

Napi::Value FillBenchData(const Napi::CallbackInfo& info) {
  const Napi::Object object = ObjectArgument(info, 0);
  const uint64_t bytes = GetUint(object, "bytes");
  const BenchData data = ToBenchData(GetObject(object, "data"));
  if (bytes > kDataBytesMax || !IsAligned(bytes, kPageBytes)) {
    Throw(info.Env(), Status::Error(Code::kInvalidArgument, "at most 64 MiB, in whole pages"));
  }
  const Status valid = data.Check();
  if (!valid.ok()) Throw(info.Env(), valid);
  auto buffer = Napi::Buffer<uint8_t>::New(info.Env(), static_cast<size_t>(bytes));
  data.Fill(0, {buffer.Data(), buffer.Length()});
  return buffer;
}

}  // namespace firn::addon
