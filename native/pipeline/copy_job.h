// Copy: one disk image into another, of any format, with no repository between.
//
// The bytes go from the source's file to the target's through one buffer: a segment is read, its
// non-zero pages are written from the same memory, and the buffer is free again when the writes are
// done. Zero pages are left as holes.
#ifndef FIRN_PIPELINE_COPY_JOB_H_
#define FIRN_PIPELINE_COPY_JOB_H_

#include <memory>
#include <string>

#include "disk/disk.h"
#include "disk/disk_writer.h"
#include "pipeline/job.h"
#include "pipeline/segment_reader.h"

namespace firn {

struct CopyOptions {
  std::string source_path;
  OpenDiskOptions source;
  std::string target_path;
  CreateDiskOptions target;
};

class CopyJob final : public Job {
 public:
  CopyJob(FileSystem& fs, const Tuning& tuning, CopyOptions options)
      : Job(fs, tuning), options_(std::move(options)) {}

 private:
  Status DoRun() override;
  Status RunWorker(SegmentPlan* plan, DiskWriter* target, uint64_t memory_bytes);

  const CopyOptions options_;
};

}  // namespace firn

#endif  // FIRN_PIPELINE_COPY_JOB_H_
