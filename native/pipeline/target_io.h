// Writes to a disk image through a worker's queue: unbuffered where the place allows, buffered at
// odd ends.
#ifndef FIRN_PIPELINE_TARGET_IO_H_
#define FIRN_PIPELINE_TARGET_IO_H_

#include <span>
#include <vector>

#include "disk/disk_writer.h"
#include "pipeline/worker_io.h"

namespace firn {

class TargetIo {
 public:
  TargetIo(DiskWriter* target, WorkerIo* io) : target_(target), io_(io) {}

  // Starts writing `bytes`, which must stay until the group is done, to the disk at `offset`. Bytes
  // beyond the disk's end are dropped.
  Status Write(uint64_t offset, std::span<const uint8_t> bytes, IoGroup* group);

 private:
  DiskWriter* const target_;
  WorkerIo* const io_;
  std::vector<TargetExtent> extents_;
};

}  // namespace firn

#endif  // FIRN_PIPELINE_TARGET_IO_H_
