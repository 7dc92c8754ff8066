// Restore: maps in, disk images out, every chunk checked against its id.
//
//   map leaves -> window of chunk references -> sorted by pack and offset -> [read range -> decode,
//   check -> write] x workers
//
// A window is as many references as memory allows (a few hundred thousand, so tens of GiB of disk).
// Sorting it lets each pack be read once, in large pieces, in the order it lies there; the image is
// then written in whatever order the packs give, which costs nothing on a file that is written
// unbuffered and starts out sparse. Space is allocated in disk order beforehand, so that the image
// does not come out scrambled.
#ifndef FIRN_PIPELINE_RESTORE_JOB_H_
#define FIRN_PIPELINE_RESTORE_JOB_H_

#include <memory>
#include <string>
#include <vector>

#include "disk/disk_writer.h"
#include "pipeline/job.h"
#include "pipeline/map_reader.h"

namespace firn {

struct RestoreDisk {
  Id root{};
  std::string path;
  CreateDiskOptions create;  // of the map's size
};

struct RestoreOptions {
  RepositoryView repository;
  std::vector<RestoreDisk> disks;
};

// A chunk that a disk needs at a place.
struct ChunkReference {
  Id id{};
  ChunkPlace place;
  uint64_t first_page = 0;  // of the disk
};

// References that one read of a pack serves.
struct PackRange {
  uint32_t pack = 0;
  uint64_t begin = 0;  // aligned to pages
  uint64_t end = 0;
  size_t first = 0;  // references [first, last) of the window
  size_t last = 0;
};

// Sorts the window and cuts it into ranges of at most `range_bytes_max`, reading over gaps that
// cost less than a seek.
std::vector<PackRange> PlanPackRanges(std::vector<ChunkReference>* window,
                                      uint64_t range_bytes_max);

class RestoreJob final : public Job {
 public:
  RestoreJob(FileSystem& fs, const Tuning& tuning, RestoreOptions options);
  ~RestoreJob() override;

 private:
  friend class RestoreWorker;
  struct Shared;
  Status DoRun() override;
  Status RestoreOne(const RestoreDisk& disk);
  Status AddLeaf(uint64_t segment, const MapLeaf& leaf, uint64_t disk_bytes, DiskWriter* target,
                 std::vector<ChunkReference>* window);
  Status RunWindow(std::vector<ChunkReference>* window, DiskWriter* target);

  const RestoreOptions options_;
  std::unique_ptr<Shared> shared_;
};

}  // namespace firn

#endif  // FIRN_PIPELINE_RESTORE_JOB_H_
