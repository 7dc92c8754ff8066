// A disk of which what holds nothing worth keeping is not there: skipped ranges are holes.
//
// Whatever reads a disk through this one backs up, copies and verifies the same masked content, so
// a comparison with the source has to look through a UsedDisk of the same map. Safe for concurrent
// use, as every Disk is.
#ifndef FIRN_USED_USED_DISK_H_
#define FIRN_USED_USED_DISK_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "disk/disk.h"
#include "used/used.h"

namespace firn {

class UsedDisk final : public Disk {
 public:
  // REQUIRES: skipped is as FindUsed returns it for this disk.
  UsedDisk(std::unique_ptr<Disk> disk, std::vector<ByteRange> skipped)
      : disk_(std::move(disk)), skipped_(std::move(skipped)) {}

  const std::vector<ByteRange>& skipped() const { return skipped_; }

  const DiskIdentity& identity() const override { return disk_->identity(); }
  const std::vector<LayerInfo>& layers() const override { return disk_->layers(); }
  Status Map(uint64_t offset, uint64_t length, std::vector<Extent>* extents) const override;
  Result<uint64_t> NextPresent(uint64_t offset) const override;
  Status CheckUnchanged() const override { return disk_->CheckUnchanged(); }

 private:
  const std::unique_ptr<Disk> disk_;
  const std::vector<ByteRange> skipped_;
};

}  // namespace firn

#endif  // FIRN_USED_USED_DISK_H_
