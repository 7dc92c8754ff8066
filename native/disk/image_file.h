// A disk image while it is being written: a file under a temporary name that takes its final one
// when it is whole.
//
// The temporary name is ".NAME.firn-partial-<16 hex digits>" in the folder of the final one, so
// that the last step is a rename inside one file system and a left-over is recognised by its name.
// Owned by one writer. The handles may be used from several threads; everything else here is for
// one thread at a time.
//
// There are two handles because payload goes past the kernel's cache and tables through it. The
// kernel keeps both views equal as long as the two do not write inside the same 4 KiB page at the
// same time.
#ifndef FIRN_DISK_IMAGE_FILE_H_
#define FIRN_DISK_IMAGE_FILE_H_

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "core/bytes.h"
#include "core/status.h"
#include "io/file.h"

namespace firn {

class ImageFile {
 public:
  // Creates the temporary file. kExists if `path` is there and `overwrite` is false. `file_system`
  // must outlive the image.
  static Result<std::unique_ptr<ImageFile>> Create(FileSystem& file_system, const std::string& path,
                                                   bool overwrite, bool direct);
  ~ImageFile() { Abandon(); }
  ImageFile(const ImageFile&) = delete;
  ImageFile& operator=(const ImageFile&) = delete;

  // Null once committed or abandoned.
  File* payload() { return direct_ ? direct_.get() : buffered_.get(); }
  File* buffered() { return buffered_.get(); }
  const std::string& path() const { return path_; }
  const std::string& temporary_path() const { return temporary_path_; }

  // Makes the file at least `end` bytes long, in large steps: writes that extend a file are
  // serialised by the kernel, writes inside it are not. SetSize trims what this left over.
  Status GrowTo(uint64_t end);
  // Makes the file exactly `size` bytes long.
  Status SetSize(uint64_t size);
  // Sets aside space for [offset, offset + length) where the file system can.
  Status Reserve(uint64_t offset, uint64_t length);
  Status WriteAt(uint64_t offset, std::span<const uint8_t> bytes) {
    return buffered_->WriteAt(offset, bytes);
  }

  // Makes the file durable, closes it, renames it, makes the name durable. kExists if the final
  // name was taken meanwhile and `overwrite` is false. On an error nothing of this image is left,
  // with one exception: if it replaced an older file and only the last step failed, the new one,
  // whole and durable, stays.
  Status Commit();
  // Closes and removes the temporary file. Does nothing after Commit.
  void Abandon();

 private:
  ImageFile(FileSystem& file_system, std::string path, std::string temporary_path, bool overwrite)
      : file_system_(file_system),
        path_(std::move(path)),
        temporary_path_(std::move(temporary_path)),
        overwrite_(overwrite) {}

  void RemoveQuietly(const std::string& path);

  FileSystem& file_system_;
  const std::string path_;
  const std::string temporary_path_;
  const bool overwrite_;
  std::unique_ptr<File> buffered_;
  std::unique_ptr<File> direct_;  // null: payload goes through the buffered handle too
  uint64_t size_ = 0;             // as last set here; payload writes stay below it
};

// A random (version 4) GUID, in the byte order of Microsoft's structures.
Guid RandomGuid();

}  // namespace firn

#endif  // FIRN_DISK_IMAGE_FILE_H_
