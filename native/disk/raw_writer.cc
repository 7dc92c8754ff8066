#include "disk/raw_writer.h"

#include "disk/image_writer.h"

namespace firn {

namespace {

class RawWriter final : public LinearWriter {
 public:
  RawWriter(const DiskIdentity& identity, std::unique_ptr<ImageFile> image)
      : LinearWriter(identity, std::move(image), 0) {}

 private:
  // The length is set again because an unbuffered write of the last page may have rounded it up.
  Status WriteTables() override { return image().SetSize(identity().size); }
};

}  // namespace

Result<std::unique_ptr<DiskWriter>> CreateRawWriter(FileSystem& file_system,
                                                    const std::string& path,
                                                    const CreateDiskOptions& options) {
  DiskIdentity identity = options.identity;
  if (identity.kind == DiskKind::kDifferencing) {
    return Status::Error(Code::kUnsupported, "a raw image can't have a parent").At(path);
  }
  identity.kind = DiskKind::kFixed;
  identity.block_size = 0;
  identity.disk_id = {};
  FIRN_ASSIGN_OR_RETURN(std::unique_ptr<ImageFile> image,
                        ImageFile::Create(file_system, path, options.overwrite, options.direct));
  FIRN_RETURN_IF_ERROR(image->buffered()->MakeSparse());
  FIRN_RETURN_IF_ERROR(image->SetSize(identity.size));
  return std::unique_ptr<DiskWriter>(new RawWriter(identity, std::move(image)));
}

}  // namespace firn
