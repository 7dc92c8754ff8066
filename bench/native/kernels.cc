// firn_kernels: what the kernels of the data plane cost, one by one, on one thread.
//
// The input is FIRN_BENCH_DATA (the first 8 MiB of any file, a disk image for example) or else this
// program's own code, repeated: real machine code, compressible as programs are. Sizes are those at
// which Firn calls the kernels: a page, chunks between the minimum and the maximum, a segment.
// Bytes per second count input. A kernel that walks a segment sees memory of the size of the
// second-level cache or beyond; one that takes chunks goes through the whole input chunk by chunk,
// as the pipeline does.
//
//   firn_kernels --benchmark_filter=Blake3
#include <benchmark/benchmark.h>
#include <lz4.h>
#include <unistd.h>
#include <zstd.h>

#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "chunk/chunker.h"
#include "chunk/page.h"
#include "chunk/zero.h"
#include "codec/hash.h"
#include "codec/record.h"
#include "core/crc32c.h"
#include "index/index_run.h"
#include "io/aligned_buffer.h"
#include "io/file.h"

namespace firn {
namespace {

constexpr int64_t kIndexEntries = 1 << 20;

[[noreturn]] void Die(const char* what, const Status& status) {
  std::fprintf(stderr, "%s: %s\n", what, status.ToString().c_str());
  std::exit(1);
}

// One segment of real bytes, loaded once.
std::span<const uint8_t> Input() {
  static AlignedBuffer* const buffer = [] {
    const char* path = std::getenv("FIRN_BENCH_DATA");
    Result<std::unique_ptr<File>> file =
        FileSystem::Default().Open(path != nullptr ? path : "/proc/self/exe", OpenOptions{});
    if (!file.ok()) Die("FIRN_BENCH_DATA", file.status());
    Result<AlignedBuffer> memory = AlignedBuffer::Allocate(kSegmentBytes);
    if (!memory.ok()) Die("memory", memory.status());
    Result<size_t> length = (*file)->ReadSome(0, memory->span());
    if (!length.ok()) Die("FIRN_BENCH_DATA", length.status());
    if (*length < kPageBytes) Die("FIRN_BENCH_DATA", Status::Error(Code::kRead, "too short"));
    for (size_t filled = *length; filled < kSegmentBytes; ++filled) {
      memory->data()[filled] = memory->data()[filled - *length];
    }
    return new AlignedBuffer(std::move(*memory));
  }();
  return {buffer->data(), buffer->size()};
}

// Hands out the input's chunks of one size in turn, for ever.
class Chunks {
 public:
  explicit Chunks(int64_t size) : size_(static_cast<size_t>(size)) {}
  std::span<const uint8_t> Next() {
    if (offset_ + size_ > Input().size()) offset_ = 0;
    offset_ += size_;
    return Input().subspan(offset_ - size_, size_);
  }

 private:
  const size_t size_;
  size_t offset_ = 0;
};

void CountBytes(benchmark::State& state, size_t bytes_each) {
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations()) *
                          static_cast<int64_t>(bytes_each));
}

void BM_Memcpy(benchmark::State& state) {
  std::vector<uint8_t> target(kSegmentBytes);
  Chunks chunks(state.range(0));
  for (auto _ : state) {
    const std::span<const uint8_t> chunk = chunks.Next();
    std::memcpy(target.data(), chunk.data(), chunk.size());
    benchmark::ClobberMemory();
  }
  CountBytes(state, static_cast<size_t>(state.range(0)));
}
BENCHMARK(BM_Memcpy)->Arg(64 << 10)->Arg(8 << 20);

// Zero pages are read to their end; pages of data are left at the first block that is not zero.
void BM_ZeroScanOfZeros(benchmark::State& state) {
  const std::vector<uint8_t> zeros(static_cast<size_t>(state.range(0)));
  for (auto _ : state) {
    for (size_t at = 0; at < zeros.size(); at += kPageBytes) {
      benchmark::DoNotOptimize(IsZero(zeros.data() + at, kPageBytes));
    }
  }
  CountBytes(state, zeros.size());
}
BENCHMARK(BM_ZeroScanOfZeros)->Arg(64 << 10)->Arg(8 << 20);

// Counts pages: how soon a page turns out not to be zero.
void BM_ZeroScanOfData(benchmark::State& state) {
  for (auto _ : state) {
    for (size_t at = 0; at < kSegmentBytes; at += kPageBytes) {
      benchmark::DoNotOptimize(IsZero(Input().data() + at, kPageBytes));
    }
  }
  state.SetItemsProcessed(static_cast<int64_t>(state.iterations()) * kSegmentPages);
}
BENCHMARK(BM_ZeroScanOfData);

// Zero scan and page hashes together: all that finding a segment's chunks takes.
void BM_CutSegment(benchmark::State& state) {
  ChunkingParameters parameters;
  parameters.seed = RepositoryKeys(Key{}).cut_seed;
  PageSet present;
  present.AddRange(0, kSegmentPages);
  uint64_t chunks = 0;
  for (auto _ : state) {
    SegmentWalker walker(parameters, Input().data(), present);
    SegmentRun run;
    while (walker.Next(&run)) chunks += run.hole ? 0 : 1;
  }
  CountBytes(state, kSegmentBytes);
  state.counters["chunks"] = static_cast<double>(chunks) / static_cast<double>(state.iterations());
}
BENCHMARK(BM_CutSegment);

void BM_Blake3Keyed(benchmark::State& state) {
  const RepositoryKeys keys(Key{});
  Chunks chunks(state.range(0));
  for (auto _ : state) benchmark::DoNotOptimize(Blake3Keyed(keys.chunk, chunks.Next()));
  CountBytes(state, static_cast<size_t>(state.range(0)));
}
BENCHMARK(BM_Blake3Keyed)->RangeMultiplier(2)->Range(4 << 10, 256 << 10);

void BM_Crc32c(benchmark::State& state) {
  Chunks chunks(state.range(0));
  for (auto _ : state) benchmark::DoNotOptimize(Crc32c(chunks.Next()));
  CountBytes(state, static_cast<size_t>(state.range(0)));
}
BENCHMARK(BM_Crc32c)->Arg(4 << 10)->Arg(64 << 10);

// What the encoder does with a chunk: compress, choose, checksum, header. `level` is zstd's, or
// LZ4's acceleration.
void EncodeRecords(benchmark::State& state, Codec codec, int level) {
  Result<std::unique_ptr<RecordEncoder>> encoder = RecordEncoder::Create({codec, level});
  if (!encoder.ok()) Die("encoder", encoder.status());
  std::vector<uint8_t> out(RecordBytesMax(static_cast<uint32_t>(state.range(0))));
  Chunks chunks(state.range(0));
  uint64_t stored = 0;
  for (auto _ : state) {
    stored +=
        (*encoder)->Encode(RecordClass::kChunk, Id{}, chunks.Next(), out.data()).stored_length;
  }
  CountBytes(state, static_cast<size_t>(state.range(0)));
  state.counters["ratio"] =
      static_cast<double>(state.iterations() * state.range(0)) / static_cast<double>(stored);
}

void BM_EncodeRaw(benchmark::State& state) { EncodeRecords(state, Codec::kRaw, 0); }
BENCHMARK(BM_EncodeRaw)->Arg(64 << 10);

void BM_EncodeLz4(benchmark::State& state) { EncodeRecords(state, Codec::kLz4, 1); }
BENCHMARK(BM_EncodeLz4)->Arg(32 << 10)->Arg(64 << 10)->Arg(256 << 10);

void BM_EncodeZstd(benchmark::State& state) {
  EncodeRecords(state, Codec::kZstd, static_cast<int>(state.range(1)));
}
BENCHMARK(BM_EncodeZstd)->ArgsProduct({{64 << 10}, {-3, -1, 1, 3}});

void DecodeRecords(benchmark::State& state, Codec codec, int level) {
  const RepositoryKeys keys(Key{});
  Result<std::unique_ptr<RecordEncoder>> encoder = RecordEncoder::Create({codec, level});
  if (!encoder.ok()) Die("encoder", encoder.status());
  const std::span<const uint8_t> content = Input().first(static_cast<size_t>(state.range(0)));
  std::vector<uint8_t> record(RecordBytesMax(static_cast<uint32_t>(content.size())));
  const RecordHeader header = (*encoder)->Encode(
      RecordClass::kChunk, Blake3Keyed(keys.chunk, content), content, record.data());
  const std::span<const uint8_t> stored(record.data() + kRecordHeaderBytes, header.stored_length);
  std::vector<uint8_t> out(content.size());
  RecordDecoder decoder(keys);
  for (auto _ : state) {
    const Status status = decoder.Decode(header, stored, out);
    if (!status.ok()) state.SkipWithError(status.ToString().c_str());
  }
  CountBytes(state, content.size());
}

// With all checks: CRC, decompression, id.
void BM_DecodeLz4(benchmark::State& state) { DecodeRecords(state, Codec::kLz4, 1); }
BENCHMARK(BM_DecodeLz4)->Arg(64 << 10);

void BM_DecodeZstd(benchmark::State& state) { DecodeRecords(state, Codec::kZstd, 1); }
BENCHMARK(BM_DecodeZstd)->Arg(64 << 10);

Id NumberedId(uint64_t number) {
  uint8_t bytes[sizeof number];
  StoreLe(bytes, number);
  return Blake3(bytes);
}

// An index run of kIndexEntries in a temporary folder, made once; the file's name is gone as soon
// as it is mapped.
const IndexRun& TestRun() {
  static IndexRun* const run = [] {
    char folder[] = "/tmp/firn-kernels-XXXXXX";
    if (mkdtemp(folder) == nullptr)
      Die("index", Status::Error(Code::kWrite, "no temporary folder"));
    const std::string path = JoinPath(folder, "run");
    std::vector<IndexEntry> entries(static_cast<size_t>(kIndexEntries));
    for (size_t i = 0; i < entries.size(); ++i) {
      entries[i].id = NumberedId(i);
      entries[i].offset = static_cast<uint32_t>(kPackAlignment + i * 64);
      entries[i].stored_length = kPageBytes;
      entries[i].raw_length = kPageBytes;
    }
    IndexPack pack;
    pack.file_bytes = kPackBytesMax;
    const Status written = WriteIndexRun(FileSystem::Default(), path, {&pack, 1}, &entries);
    if (!written.ok()) Die("index", written);
    Result<std::unique_ptr<IndexRun>> opened = IndexRun::Open(FileSystem::Default(), path);
    if (!opened.ok()) Die("index", opened.status());
    unlink(path.c_str());
    rmdir(folder);
    return opened->release();
  }();
  return *run;
}

// `first`: number of the first id asked for; ids from kIndexEntries on are in no run.
void LookUp(benchmark::State& state, uint64_t first) {
  const IndexRun& run = TestRun();
  std::vector<Id> ids(1 << 16);
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = NumberedId(first + i);
  size_t next = 0;
  uint64_t found = 0;
  for (auto _ : state) {
    const Id& id = ids[next++ % ids.size()];
    if (!run.MayContain(id)) continue;
    const IndexRun::Range range = run.Find(id);
    found += range.last - range.first;
  }
  state.SetItemsProcessed(static_cast<int64_t>(state.iterations()));
  state.counters["found"] = static_cast<double>(found) / static_cast<double>(state.iterations());
}

void BM_IndexHit(benchmark::State& state) { LookUp(state, 0); }
BENCHMARK(BM_IndexHit);

void BM_IndexMiss(benchmark::State& state) { LookUp(state, static_cast<uint64_t>(kIndexEntries)); }
BENCHMARK(BM_IndexMiss);

}  // namespace
}  // namespace firn
