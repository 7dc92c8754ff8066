#include <bit>
#include <vector>

#include "core/bytes.h"
#include "io/file_win.h"
#include "io/io_queue_transfer.h"
#include "io/open_file_win.h"
#include "io/windows_path.h"

namespace firn {

namespace {

constexpr DWORD kShareAll = FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE;
// Were the name a pipe's, its server could otherwise act as whoever opened it.
constexpr DWORD kNoImpersonation = SECURITY_SQOS_PRESENT | SECURITY_ANONYMOUS;

class WinMappedFile final : public MappedFile {
 public:
  WinMappedFile(const void* memory, size_t size) : memory_(memory), size_(size) {}
  ~WinMappedFile() override {
    if (memory_ != nullptr) UnmapViewOfFile(memory_);
  }
  std::span<const uint8_t> bytes() const override {
    return {static_cast<const uint8_t*>(memory_), size_};
  }
  void AdviseRandom() override {}  // said when it was opened

 private:
  const void* const memory_;
  const size_t size_;
};

Status NotAFile(const std::string& path) {
  return Status::Error(Code::kInvalidArgument, "neither a regular file nor a block device")
      .During("open")
      .At(path);
}

DWORD AccessOf(const OpenOptions& options) {
  return options.access == Access::kRead ? GENERIC_READ : GENERIC_READ | GENERIC_WRITE;
}

DWORD DispositionOf(const OpenOptions& options) {
  switch (options.access) {
    case Access::kCreateNew:
      return CREATE_NEW;
    case Access::kCreateAlways:
      // To create and truncate in one does not go together with opening a link itself.
      return options.no_follow ? OPEN_ALWAYS : CREATE_ALWAYS;
    default:
      return OPEN_EXISTING;
  }
}

bool IsSectorSize(uint64_t bytes) {
  return std::has_single_bit(bytes) && bytes >= 512 && bytes <= 64 * kKiB;
}

// What unbuffered I/O demands of this file, as its volume says; the page size, which every volume
// takes, where it does not say.
IoAlignment DirectAlignment(const WinCalls& calls, HANDLE file, const std::wstring& wide) {
  uint32_t sector = 4096;
  FILE_STORAGE_INFO storage{};
  std::wstring volume(wide.size() + 2, L'\0');
  DWORD per_cluster = 0, per_sector = 0, free = 0, total = 0;
  if (calls.get_information(file, FileStorageInfo, &storage, sizeof storage)) {
    if (IsSectorSize(storage.LogicalBytesPerSector)) sector = storage.LogicalBytesPerSector;
  } else if (GetVolumePathNameW(wide.c_str(), volume.data(), static_cast<DWORD>(volume.size())) &&
             GetDiskFreeSpaceW(volume.c_str(), &per_cluster, &per_sector, &free, &total) &&
             IsSectorSize(per_sector)) {
    sector = per_sector;
  }
  uint32_t memory = sector;
  FILE_ALIGNMENT_INFO device{};
  if (calls.get_information(file, FileAlignmentInfo, &device, sizeof device) &&
      IsSectorSize(uint64_t{device.AlignmentRequirement} + 1)) {
    memory = std::max<uint32_t>(memory, device.AlignmentRequirement + 1);  // it is a mask
  }
  return {memory, sector};
}

// Size and sectors of what is a device. False for everything else.
bool AskDevice(const WinCalls& calls, OpenedFile* opened) {
  GET_LENGTH_INFORMATION length{};
  DISK_GEOMETRY geometry{};
  DWORD bytes = 0;
  if (ControlBlocking(calls, opened->handle.get(), IOCTL_DISK_GET_LENGTH_INFO, nullptr, 0, &length,
                      sizeof length, &bytes) != ERROR_SUCCESS ||
      bytes < sizeof length || length.Length.QuadPart < 0) {
    return false;
  }
  const bool known =
      ControlBlocking(calls, opened->handle.get(), IOCTL_DISK_GET_DRIVE_GEOMETRY, nullptr, 0,
                      &geometry, sizeof geometry, &bytes) == ERROR_SUCCESS &&
      bytes >= sizeof geometry && IsSectorSize(geometry.BytesPerSector);
  const uint32_t sector = known ? geometry.BytesPerSector : 4096;
  opened->device_bytes = static_cast<uint64_t>(length.Length.QuadPart);
  opened->direct = true;
  opened->alignment = {sector, sector};
  return true;
}

bool IsLink(DWORD attributes, DWORD tag) {
  return (attributes & FILE_ATTRIBUTE_REPARSE_POINT) != 0 && IsReparseTagNameSurrogate(tag);
}

bool IsFolder(const std::wstring& wide) {
  const DWORD attributes = GetFileAttributesW(wide.c_str());
  return attributes != INVALID_FILE_ATTRIBUTES && (attributes & FILE_ATTRIBUTE_DIRECTORY) != 0;
}

}  // namespace

FileSystem& FileSystem::Default() { return WinFileSystem::Default(); }

WinFileSystem& WinFileSystem::Default() {
  static WinFileSystem* file_system = new WinFileSystem(SystemCalls());
  return *file_system;
}

// With no_follow the last component itself is opened, be it a link or not. What is a reparse point
// but no link (a deduplicated or a tiered file) must be opened through its filter to be read.
Status WinFileSystem::CheckNotALink(const std::string& path, const OpenOptions& options,
                                    ScopedHandle* handle, DWORD flags) {
  FILE_ATTRIBUTE_TAG_INFO info{};
  if (!calls_.get_information(handle->get(), FileAttributeTagInfo, &info, sizeof info)) {
    return Status::Ok();  // a device, or a file system without links
  }
  if (IsLink(info.FileAttributes, info.ReparseTag)) {
    return Status::Error(Code::kAccessDenied, "a symbolic link is not followed here")
        .During("open")
        .At(path);
  }
  if ((info.FileAttributes & FILE_ATTRIBUTE_REPARSE_POINT) == 0) return Status::Ok();
  FIRN_ASSIGN_OR_RETURN(const std::wstring wide, WidePath(path));
  ScopedHandle through(
      calls_.create_file(wide.c_str(), AccessOf(options), kShareAll, nullptr, OPEN_EXISTING,
                         flags & ~static_cast<DWORD>(FILE_FLAG_OPEN_REPARSE_POINT), nullptr));
  if (!through.ok()) return LastError(Code::kRead, "open", path);
  FILE_ID_INFO raw{}, real{};
  if (!calls_.get_information(handle->get(), FileIdInfo, &raw, sizeof raw) ||
      !calls_.get_information(through.get(), FileIdInfo, &real, sizeof real) ||
      std::memcmp(&raw, &real, sizeof raw) != 0) {
    return Status::Error(Code::kAccessDenied, "the file was replaced while it was being opened")
        .During("open")
        .At(path);
  }
  *handle = std::move(through);
  return Status::Ok();
}

Result<ScopedHandle> WinFileSystem::OpenHandle(const std::string& path, const OpenOptions& options,
                                               bool* direct) {
  FIRN_ASSIGN_OR_RETURN(const std::wstring wide, WidePath(path));
  DWORD flags = FILE_ATTRIBUTE_NORMAL | FILE_FLAG_OVERLAPPED | kNoImpersonation;
  if (options.no_follow) flags |= FILE_FLAG_OPEN_REPARSE_POINT;
  if (*direct) flags |= FILE_FLAG_NO_BUFFERING;
  ScopedHandle handle(calls_.create_file(wide.c_str(), AccessOf(options), kShareAll, nullptr,
                                         DispositionOf(options), flags, nullptr));
  if (!handle.ok() && *direct &&
      (GetLastError() == ERROR_INVALID_PARAMETER || GetLastError() == ERROR_NOT_SUPPORTED)) {
    *direct = false;
    return OpenHandle(path, options, direct);
  }
  if (!handle.ok()) {
    const DWORD error = GetLastError();
    // Windows denies access to a folder that is opened as a file.
    if (error == ERROR_ACCESS_DENIED && IsFolder(wide)) return NotAFile(path);
    return Status::FromOs(Code::kRead, "open", path, static_cast<int>(error));
  }
  if (GetFileType(handle.get()) != FILE_TYPE_DISK) return NotAFile(path);
  if (options.no_follow) FIRN_RETURN_IF_ERROR(CheckNotALink(path, options, &handle, flags));
  return handle;
}

Result<std::unique_ptr<File>> WinFileSystem::Open(const std::string& path,
                                                  const OpenOptions& options) {
  OpenedFile opened;
  opened.direct = options.direct;
  FIRN_ASSIGN_OR_RETURN(opened.handle, OpenHandle(path, options, &opened.direct));
  const HANDLE handle = opened.handle.get();
  FILE_STANDARD_INFO info{};
  if (calls_.get_information(handle, FileStandardInfo, &info, sizeof info)) {
    if (info.Directory) return NotAFile(path);
    if (opened.direct) {
      FIRN_ASSIGN_OR_RETURN(const std::wstring wide, WidePath(path));
      opened.alignment = DirectAlignment(calls_, handle, wide);
    }
  } else if (!AskDevice(calls_, &opened)) {
    return NotAFile(path);
  }
  FIRN_RETURN_IF_ERROR(server_.Join(handle, path));
  std::unique_ptr<File> file = NewWinFile(path, calls_, std::move(opened));
  if (options.access == Access::kCreateAlways && options.no_follow) {
    FIRN_RETURN_IF_ERROR(file->Truncate(0));
  }
  return file;
}

Result<std::unique_ptr<File>> WinFileSystem::Adopt(std::string path, ScopedHandle handle,
                                                   uint64_t size, uint32_t sector_bytes) {
  if (!IsSectorSize(sector_bytes)) {
    return Status::Error(Code::kUnsupported,
                         "sectors of " + std::to_string(sector_bytes) + " bytes can't be read")
        .At(path);
  }
  FIRN_RETURN_IF_ERROR(server_.Join(handle.get(), path));
  OpenedFile opened;
  opened.handle = std::move(handle);
  opened.direct = true;
  opened.alignment = {sector_bytes, sector_bytes};
  opened.device_bytes = size;
  return NewWinFile(std::move(path), calls_, std::move(opened));
}

Result<std::unique_ptr<MappedFile>> WinFileSystem::Map(const std::string& path) {
  FIRN_ASSIGN_OR_RETURN(const std::wstring wide, WidePath(path));
  const ScopedHandle file(calls_.create_file(wide.c_str(), GENERIC_READ, kShareAll, nullptr,
                                             OPEN_EXISTING,
                                             FILE_FLAG_RANDOM_ACCESS | kNoImpersonation, nullptr));
  if (!file.ok()) return LastError(Code::kRead, "open", path);
  LARGE_INTEGER size{};
  if (!GetFileSizeEx(file.get(), &size)) return LastError(Code::kRead, "stat", path);
  if (size.QuadPart == 0) return std::unique_ptr<MappedFile>(new WinMappedFile(nullptr, 0));
  const ScopedHandle mapping(CreateFileMappingW(file.get(), nullptr, PAGE_READONLY, 0, 0, nullptr));
  if (!mapping.ok()) return LastError(Code::kRead, "map", path);
  const void* memory = MapViewOfFile(mapping.get(), FILE_MAP_READ, 0, 0, 0);
  if (memory == nullptr) return LastError(Code::kRead, "map", path);
  return std::unique_ptr<MappedFile>(new WinMappedFile(memory, static_cast<size_t>(size.QuadPart)));
}

// Written through: it has reached the disk when the call returns, which is all the durability that
// Windows offers for names.
Status WinFileSystem::Move(const std::string& from, const std::string& to, DWORD flags) {
  FIRN_ASSIGN_OR_RETURN(const std::wstring wide_from, WidePath(from));
  FIRN_ASSIGN_OR_RETURN(const std::wstring wide_to, WidePath(to));
  if (calls_.move_file(wide_from.c_str(), wide_to.c_str(), flags | MOVEFILE_WRITE_THROUGH)) {
    return Status::Ok();
  }
  const DWORD error = GetLastError();
  const bool may_be_open = error == ERROR_ACCESS_DENIED || error == ERROR_SHARING_VIOLATION;
  if (may_be_open && (flags & MOVEFILE_REPLACE_EXISTING) != 0 &&
      ReplaceOpenFile(wide_from, wide_to)) {
    return Status::Ok();
  }
  return Status::FromOs(Code::kWrite, "rename", to, static_cast<int>(error));
}

// As POSIX does it: whoever has the old target open keeps it, without a name. NTFS can since
// Windows 10 1607, for those who share deletion; other file systems and older systems refuse.
bool WinFileSystem::ReplaceOpenFile(const std::wstring& from, const std::wstring& to) {
  const ScopedHandle source(
      calls_.create_file(from.c_str(), DELETE | SYNCHRONIZE, kShareAll, nullptr, OPEN_EXISTING,
                         FILE_FLAG_OPEN_REPARSE_POINT | FILE_FLAG_BACKUP_SEMANTICS |
                             FILE_FLAG_WRITE_THROUGH | kNoImpersonation,
                         nullptr));
  if (!source.ok()) return false;
  // The name follows the structure, ended by a zero that its length does not count.
  const size_t name_bytes = to.size() * sizeof(wchar_t);
  std::vector<uint8_t> memory(sizeof(FILE_RENAME_INFO) + name_bytes);
  auto* const info = reinterpret_cast<FILE_RENAME_INFO*>(memory.data());
  info->Flags = FILE_RENAME_FLAG_REPLACE_IF_EXISTS | FILE_RENAME_FLAG_POSIX_SEMANTICS;
  info->FileNameLength = static_cast<DWORD>(name_bytes);
  std::memcpy(info->FileName, to.data(), name_bytes);
  return calls_.set_information(source.get(), kFileRenameInfoEx, info,
                                static_cast<DWORD>(memory.size())) != FALSE;
}

Status WinFileSystem::Rename(const std::string& from, const std::string& to) {
  return Move(from, to, MOVEFILE_REPLACE_EXISTING);
}

Status WinFileSystem::RenameNew(const std::string& from, const std::string& to) {
  return Move(from, to, 0);
}

Status WinFileSystem::Remove(const std::string& path) {
  FIRN_ASSIGN_OR_RETURN(const std::wstring wide, WidePath(path));
  if (DeleteFileW(wide.c_str())) return Status::Ok();
  return LastError(Code::kWrite, "remove", path);
}

Status WinFileSystem::CreateDirectory(const std::string& path) {
  FIRN_ASSIGN_OR_RETURN(const std::wstring wide, WidePath(path));
  if (CreateDirectoryW(wide.c_str(), nullptr)) return Status::Ok();
  return LastError(Code::kWrite, "create folder", path);
}

// NTFS writes changes of names to its log in order, and renames are written through; a flush of the
// folder takes what was created and removed along. Not every file system has such a flush.
Status WinFileSystem::SyncDirectory(const std::string& path) {
  FIRN_ASSIGN_OR_RETURN(const std::wstring wide, WidePath(path));
  const ScopedHandle folder(
      calls_.create_file(wide.c_str(), GENERIC_READ | GENERIC_WRITE, kShareAll, nullptr,
                         OPEN_EXISTING, FILE_FLAG_BACKUP_SEMANTICS | kNoImpersonation, nullptr));
  if (!folder.ok() && GetLastError() == ERROR_ACCESS_DENIED && IsFolder(wide)) return Status::Ok();
  if (!folder.ok()) return LastError(Code::kWrite, "sync folder", path);
  if (calls_.flush(folder.get())) return Status::Ok();
  switch (const DWORD error = GetLastError()) {
    case ERROR_ACCESS_DENIED:
    case ERROR_INVALID_FUNCTION:
    case ERROR_INVALID_HANDLE:
    case ERROR_INVALID_PARAMETER:
    case ERROR_NOT_SUPPORTED:
      return Status::Ok();
    default:
      return Status::FromOs(Code::kWrite, "sync folder", path, static_cast<int>(error));
  }
}

bool WinFileSystem::Exists(const std::string& path) {
  const Result<std::wstring> wide = WidePath(path);
  if (!wide.ok()) return false;
  // Of a file that another holds without sharing, not even the attributes can be had.
  return GetFileAttributesW(wide->c_str()) != INVALID_FILE_ATTRIBUTES ||
         GetLastError() == ERROR_SHARING_VIOLATION;
}

Result<std::string> WinFileSystem::RealPath(const std::string& path) {
  FIRN_ASSIGN_OR_RETURN(const std::wstring wide, WidePath(path));
  const ScopedHandle handle(
      calls_.create_file(wide.c_str(), FILE_READ_ATTRIBUTES, kShareAll, nullptr, OPEN_EXISTING,
                         FILE_FLAG_BACKUP_SEMANTICS | kNoImpersonation, nullptr));
  if (!handle.ok()) return LastError(Code::kRead, "resolve", path);
  // A shadow copy has no drive letter: then the name that the kernel has for it.
  for (const DWORD kind : {VOLUME_NAME_DOS, VOLUME_NAME_NT}) {
    std::wstring name(32'768, L'\0');  // no path is longer
    const DWORD length =
        GetFinalPathNameByHandleW(handle.get(), name.data(), static_cast<DWORD>(name.size()), kind);
    if (length == 0 || length >= name.size()) continue;
    name.resize(length);
    const std::string utf8 = Utf8FromWide(name);
    return kind == VOLUME_NAME_DOS ? WithoutExtendedPrefix(utf8) : R"(\\?\GLOBALROOT)" + utf8;
  }
  return LastError(Code::kRead, "resolve", path);
}

Result<uint64_t> WinFileSystem::FreeBytes(const std::string& path) {
  FIRN_ASSIGN_OR_RETURN(const std::wstring wide, WidePath(path));
  ULARGE_INTEGER bytes{};
  if (GetDiskFreeSpaceExW(wide.c_str(), &bytes, nullptr, nullptr)) return bytes.QuadPart;
  return LastError(Code::kRead, "free space", path);
}

Result<std::vector<std::string>> WinFileSystem::List(const std::string& path) {
  FIRN_ASSIGN_OR_RETURN(const std::wstring folder, WidePath(path));
  const std::wstring pattern = folder + (folder.ends_with(L'\\') ? L"*" : L"\\*");
  WIN32_FIND_DATAW entry{};
  const HANDLE search = FindFirstFileExW(pattern.c_str(), FindExInfoBasic, &entry,
                                         FindExSearchNameMatch, nullptr, FIND_FIRST_EX_LARGE_FETCH);
  std::vector<std::string> names;
  if (search == INVALID_HANDLE_VALUE) {
    const DWORD error = GetLastError();
    // A folder has "." at least; the root of a volume may have nothing.
    if (error == ERROR_FILE_NOT_FOUND && IsFolder(folder)) return names;
    return Status::FromOs(Code::kRead, "list", path, static_cast<int>(error));
  }
  do {
    std::string name = Utf8FromWide(entry.cFileName);
    if (name != "." && name != "..") names.push_back(std::move(name));
  } while (FindNextFileW(search, &entry));
  const DWORD error = GetLastError();
  FindClose(search);
  if (error == ERROR_NO_MORE_FILES) return names;
  return Status::FromOs(Code::kRead, "list", path, static_cast<int>(error));
}

Result<std::unique_ptr<IoQueue>> WinFileSystem::NewQueue(const IoQueueOptions& options) {
  if (options.backend == IoBackend::kThreads) return NewThreadQueue(options.depth);
  if (options.backend == IoBackend::kUring) {
    return Status::Error(Code::kUnsupported, "io_uring is Linux's");
  }
  return NewCompletionQueue(&server_, options.depth);
}

}  // namespace firn
