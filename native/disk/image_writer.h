// What all writers of disk images share: the identity, the file that grows under a temporary name,
// the order of finishing.
//
// Threads as in disk_writer.h. LinearWriter is all that raw images and the fixed formats need,
// because their payload is one run.
#ifndef FIRN_DISK_IMAGE_WRITER_H_
#define FIRN_DISK_IMAGE_WRITER_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "core/status.h"
#include "disk/disk_writer.h"
#include "disk/image_file.h"

namespace firn {

class ImageWriter : public DiskWriter {
 public:
  const DiskIdentity& identity() const final { return identity_; }
  File* payload_file() final { return image_->payload(); }
  File* buffered_file() final { return image_->buffered(); }
  Status Finish() final;
  void Abandon() final { image_->Abandon(); }

 protected:
  ImageWriter(const DiskIdentity& identity, std::unique_ptr<ImageFile> image)
      : identity_(identity), image_(std::move(image)) {}

  // Writes everything but the payload and gives the file its length. Called once, by Finish, before
  // the file is made durable.
  virtual Status WriteTables() = 0;

  // kInvalidArgument unless [offset, offset + length) is as MapWrite demands and the writer is
  // open.
  Status CheckRange(uint64_t offset, uint64_t length) const;
  ImageFile& image() { return *image_; }

 private:
  const DiskIdentity identity_;
  const std::unique_ptr<ImageFile> image_;
};

// A disk whose bytes lie in the file in order, from `payload_offset` on. REQUIRES: the file has its
// full length already.
class LinearWriter : public ImageWriter {
 public:
  Status MapWrite(uint64_t offset, uint64_t length, std::vector<TargetExtent>* extents) final;
  Status MarkZero(uint64_t offset, uint64_t length) final { return CheckRange(offset, length); }

 protected:
  LinearWriter(const DiskIdentity& identity, std::unique_ptr<ImageFile> image,
               uint64_t payload_offset)
      : ImageWriter(identity, std::move(image)), payload_offset_(payload_offset) {}

 private:
  const uint64_t payload_offset_;
};

// Appends a target, joined to the last one if it continues it in the disk and in the file.
void AppendTarget(const TargetExtent& target, std::vector<TargetExtent>* extents);

}  // namespace firn

#endif  // FIRN_DISK_IMAGE_WRITER_H_
