// firn_index FOLDER [ENTRIES [RUNS]]: what a large index costs to open and to ask.
//
// Writes a synthetic index into FOLDER unless there is one already, and prints one JSON
// document. The index runs are real ones, of ids that are as random as hashes, in packs of
// kChunksPerPack; by default 50 million chunks in runs of as many as a collection makes. Measured
// in a process of its own, so that nothing of the writing is left in memory but the page cache:
// opening, then one thread's lookups. "Absent" are ids that no run has, as a backup of new data
// asks for; "present" are ids in no order, as one of known data does. Each is asked in one pass
// that touches the index for the first time, and in one after it.
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "bench/thread_clock.h"
#include "core/bytes.h"
#include "index/chunk_index.h"
#include "pipeline/collect_merge.h"

namespace firn {
namespace {

constexpr uint64_t kEntriesDefault = 50'000'000;
constexpr uint64_t kChunksPerPack = 1024;
constexpr uint64_t kLookups = 4'000'000;

double Now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

uint64_t Mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

Id IdOf(uint64_t chunk) {
  Id id;
  for (uint64_t word = 0; word < 4; ++word) StoreLe(&id[word * 8], Mix(chunk * 4 + word));
  return id;
}

PackName NameOf(uint64_t pack) {
  PackName name;
  name.sequence = static_cast<uint32_t>(pack);
  return name;
}

// What a process has in memory, by kind: VmRSS would count the mapped index, too.
uint64_t StatusBytes(const char* key) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with(key))
      return std::strtoull(&line[std::strlen(key) + 1], nullptr, 10) * 1024;
  }
  return 0;
}

Status WriteRuns(const std::string& folder, uint64_t entries, uint64_t runs) {
  std::vector<IndexEntry> rows;
  std::vector<IndexPack> packs;
  uint64_t chunk = 0, pack = 0;
  for (uint64_t run = 0; run < runs; ++run) {
    rows.clear();
    packs.clear();
    for (const uint64_t end = entries * (run + 1) / runs; chunk < end;) {
      packs.push_back({.name = NameOf(pack++), .file_bytes = uint64_t{1} << 26});
      for (uint64_t i = 0; i < kChunksPerPack && chunk < end; ++i, ++chunk) {
        rows.push_back({.id = IdOf(chunk),
                        .pack = static_cast<uint32_t>(packs.size() - 1),
                        .offset = static_cast<uint32_t>(i << 15),
                        .stored_length = 32000,
                        .raw_length = 65536});
      }
    }
    const std::string path = JoinPath(JoinPath(folder, "index"), std::to_string(run) + ".idx");
    FIRN_RETURN_IF_ERROR(WriteIndexRun(FileSystem::Default(), path, packs, &rows));
  }
  return Status::Ok();
}

RepositoryListing List(const std::string& folder, uint64_t entries, uint64_t runs) {
  RepositoryListing listing;
  listing.root = folder;
  uint64_t packs = 0;
  for (uint64_t run = 0; run < runs; ++run) {
    listing.index_runs.push_back(std::to_string(run) + ".idx");
    packs += DivideUp(entries * (run + 1) / runs - entries * run / runs, kChunksPerPack);
  }
  for (uint64_t pack = 0; pack < packs; ++pack) listing.packs.push_back(NameOf(pack));
  return listing;
}

// Lookups a second of this thread's time on a core, so that what else the machine does counts
// little. Ends the process if the index says what is not so.
double Ask(ChunkIndex* index, const std::vector<Id>& ids, bool is_there) {
  const uint64_t start = ThreadCpuNs();
  for (const Id& id : ids) {
    if (index->RelyOnChunk(id, 65536) == is_there) continue;
    std::fprintf(stderr, "firn_index: a lookup gave what is not so\n");
    std::exit(1);
  }
  return static_cast<double>(ids.size()) * 1e9 / static_cast<double>(ThreadCpuNs() - start);
}

Status Measure(const std::string& folder, uint64_t entries, uint64_t runs) {
  const RepositoryListing listing = List(folder, entries, runs);
  const uint64_t private_before = StatusBytes("RssAnon");
  const double start = Now();
  FIRN_ASSIGN_OR_RETURN(std::unique_ptr<ChunkIndex> index,
                        ChunkIndex::Open(FileSystem::Default(), listing));
  const double opened = Now() - start;
  const uint64_t private_bytes = StatusBytes("RssAnon") - private_before;
  std::vector<Id> absent, present;
  for (uint64_t i = 0; i < kLookups; ++i) {
    absent.push_back(IdOf(entries + i));
    present.push_back(IdOf(Mix(i) % entries));
  }
  std::printf("{\n  \"entries\": %" PRIu64 ",\n  \"runs\": %" PRIu64
              ",\n  \"openSeconds\": %.4f,\n",
              index->entries(), runs, opened);
  const double absent_first = Ask(index.get(), absent, false);
  const uint64_t absent_resident = StatusBytes("RssFile");
  const double absent_again = Ask(index.get(), absent, false);
  const double present_first = Ask(index.get(), present, true);
  const double present_again = Ask(index.get(), present, true);
  std::printf("  \"absentFirstPerSecond\": %.0f,\n  \"absentPerSecond\": %.0f,\n", absent_first,
              absent_again);
  std::printf("  \"presentFirstPerSecond\": %.0f,\n  \"presentPerSecond\": %.0f,\n", present_first,
              present_again);
  std::printf("  \"privateBytes\": %" PRIu64 ",\n  \"mappedBytesAfterAbsent\": %" PRIu64
              ",\n  \"mappedBytes\": %" PRIu64 "\n}\n",
              private_bytes, absent_resident, StatusBytes("RssFile"));
  return Status::Ok();
}

int Main(int argc, char** argv) {
  if (argc < 2 || argc > 4) {
    std::fprintf(stderr, "usage: firn_index FOLDER [ENTRIES [RUNS]]\n");
    return 2;
  }
  const std::string folder = argv[1];
  const uint64_t entries = argc > 2 ? std::strtoull(argv[2], nullptr, 10) : kEntriesDefault;
  const uint64_t runs =
      argc > 3 ? std::strtoull(argv[3], nullptr, 10) : DivideUp(entries, MergeJob::kEntriesMax);
  if (entries == 0 || runs == 0 || runs > entries) {
    std::fprintf(stderr, "firn_index: at least one entry in each run\n");
    return 2;
  }
  const bool is_made = std::filesystem::exists(folder + "/index");
  std::filesystem::create_directories(folder + "/index");
  const auto in_child = [&](auto work) {
    const pid_t child = fork();
    if (child == 0) {
      const Status status = work(folder, entries, runs);
      if (!status.ok()) std::fprintf(stderr, "firn_index: %s\n", status.ToString().c_str());
      std::fflush(stdout);
      _exit(status.ok() ? 0 : 1);
    }
    int ended = -1;
    return child > 0 && waitpid(child, &ended, 0) == child && ended == 0;
  };
  return (is_made || in_child(WriteRuns)) && in_child(Measure) ? 0 : 1;
}

}  // namespace
}  // namespace firn

int main(int argc, char** argv) { return firn::Main(argc, argv); }
