#include "disk/image_file.h"

#include <random>

namespace firn {

namespace {

constexpr uint64_t kGrowthStep = 256 * kMiB;

template <size_t kSize>
std::array<uint8_t, kSize> RandomBytes() {
  static_assert(kSize % 4 == 0);
  std::random_device device;  // the operating system's generator, not a seeded one
  std::array<uint8_t, kSize> bytes;
  for (size_t i = 0; i < kSize; i += 4) StoreLe<uint32_t>(&bytes[i], device());
  return bytes;
}

}  // namespace

Guid RandomGuid() {
  Guid guid = RandomBytes<16>();
  guid[7] = static_cast<uint8_t>((guid[7] & 0x0F) | 0x40);  // the third field is little-endian
  guid[8] = static_cast<uint8_t>((guid[8] & 0x3F) | 0x80);
  return guid;
}

Result<std::unique_ptr<ImageFile>> ImageFile::Create(FileSystem& file_system,
                                                     const std::string& path, bool overwrite,
                                                     bool direct) {
  const std::string name = FileNameOf(path);
  if (name.empty()) {
    return Status::Error(Code::kInvalidArgument, "the path names no file")
        .During("create")
        .At(path);
  }
  if (!overwrite && file_system.Exists(path)) {
    return Status::Error(Code::kExists, "the file is there already").During("create").At(path);
  }
  const std::string temporary_path =
      JoinPath(DirectoryOf(path), "." + name + ".firn-partial-" + ToHex(RandomBytes<8>()));
  std::unique_ptr<ImageFile> image(new ImageFile(file_system, path, temporary_path, overwrite));
  OpenOptions open;
  open.access = Access::kCreateNew;
  FIRN_ASSIGN_OR_RETURN(image->buffered_, file_system.Open(temporary_path, open));
  if (direct) {
    open.access = Access::kReadWrite;
    open.direct = true;
    open.no_follow = true;
    FIRN_ASSIGN_OR_RETURN(std::unique_ptr<File> file, file_system.Open(temporary_path, open));
    if (file->direct()) image->direct_ = std::move(file);
  }
  return image;
}

Status ImageFile::GrowTo(uint64_t end) {
  if (end <= size_) return Status::Ok();
  return SetSize(RoundUp(end, kGrowthStep));
}

Status ImageFile::SetSize(uint64_t size) {
  FIRN_RETURN_IF_ERROR(buffered_->Truncate(size));
  size_ = size;
  return Status::Ok();
}

Status ImageFile::Reserve(uint64_t offset, uint64_t length) {
  if (length == 0) return Status::Ok();
  Status status = buffered_->Preallocate(offset, length);
  return status.code() == Code::kUnsupported ? Status::Ok() : status;
}

Status ImageFile::Commit() {
  if (!buffered_) {
    return Status::Error(Code::kInvalidArgument, "the image is closed").During("finish").At(path_);
  }
  Status status = direct_ ? direct_->Sync() : Status::Ok();
  if (status.ok()) status = buffered_->Sync();
  if (!status.ok()) {
    Abandon();
    return status;
  }
  direct_.reset();  // Windows does not rename an open file
  buffered_.reset();
  status = overwrite_ ? file_system_.Rename(temporary_path_, path_)
                      : file_system_.RenameNew(temporary_path_, path_);
  if (!status.ok()) {
    RemoveQuietly(temporary_path_);
    return status;
  }
  status = file_system_.SyncDirectory(DirectoryOf(path_));
  if (!status.ok() && !overwrite_) RemoveQuietly(path_);
  return status;
}

void ImageFile::Abandon() {
  if (!buffered_) return;
  direct_.reset();
  buffered_.reset();
  RemoveQuietly(temporary_path_);
}

void ImageFile::RemoveQuietly(const std::string& path) {
  // What keeps it from going is not what the caller has to hear of: an earlier error, or nothing,
  // brought it here.
  Status ignored = file_system_.Remove(path);
  (void)ignored;
}

}  // namespace firn
