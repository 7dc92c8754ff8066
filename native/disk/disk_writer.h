// A virtual disk being written: restore, copy and the lab's checkpoints.
//
// The image grows under a temporary name beside its final one and gets that name only in Finish,
// after everything is durable; a writer that dies or is destroyed before leaves no file under the
// final name, and removes the temporary one if it can. MapWrite is safe from several threads;
// Create, Finish and Abandon are not.
//
// Like disk.h, it tells where bytes go instead of moving them: MapWrite allocates and answers with
// file ranges, and the caller writes those with unbuffered, queued I/O. Ranges never mapped read
// back as zero (or, in a differencing image, as the parent).
#ifndef FIRN_DISK_DISK_WRITER_H_
#define FIRN_DISK_DISK_WRITER_H_

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/status.h"
#include "disk/disk.h"
#include "io/file.h"

namespace firn {

struct TargetExtent {
  uint64_t offset = 0;  // in the virtual disk
  uint64_t length = 0;
  uint64_t file_offset = 0;
};

struct CreateDiskOptions {
  DiskIdentity identity;    // format, kind, size, block size, sectors, disk id (zero: a random one)
  std::string parent_path;  // differencing only; recorded in the locator, relative and absolute
  bool overwrite = false;   // replace an existing file in Finish; kExists in Create otherwise
  bool direct = true;
};

class DiskWriter {
 public:
  virtual ~DiskWriter() = default;

  static Result<std::unique_ptr<DiskWriter>> Create(FileSystem& fs, const std::string& path,
                                                    const CreateDiskOptions& options);

  virtual const DiskIdentity& identity() const = 0;

  // The file to write payload to: unbuffered where it can be. Its payload offsets are 4 KiB aligned
  // for 4 KiB aligned disk offsets.
  virtual File* payload_file() = 0;
  // The same file, buffered; for unaligned pieces.
  virtual File* buffered_file() = 0;

  // Allocates what [offset, offset + length) needs and appends where it lies. In a differencing
  // image the sectors become present. REQUIRES: the range lies inside the disk; sector-aligned, or
  // ending at the disk's end.
  virtual Status MapWrite(uint64_t offset, uint64_t length, std::vector<TargetExtent>* extents) = 0;

  // Marks whole blocks as explicitly zero where the format can (differencing: hides the parent). A
  // no-op where unmapped is zero.
  virtual Status MarkZero(uint64_t offset, uint64_t length) = 0;

  // Blocking convenience over MapWrite.
  Status Write(uint64_t offset, std::span<const uint8_t> bytes);

  // Writes the tables, makes all durable, gives the file its name. The writer is closed afterwards.
  virtual Status Finish() = 0;

  // Removes the temporary file. Also what the destructor does if Finish has not succeeded.
  virtual void Abandon() = 0;
};

}  // namespace firn

#endif  // FIRN_DISK_DISK_WRITER_H_
