// File and FileSystem on Windows, with the system's calls exchangeable.
//
// Every file is opened for overlapped I/O and for sharing with everybody: what is being backed up
// belongs to Hyper-V, which must be able to go on reading, merging and deleting it while it is
// looked at, and Firn's own files are opened twice (buffered and unbuffered). Whoever opened a file
// without sharing makes opening it fail with kFileInUse, which is worth trying again.
#ifndef FIRN_IO_FILE_WIN_H_
#define FIRN_IO_FILE_WIN_H_

#include <memory>
#include <string>

#include "io/calls_win.h"
#include "io/file.h"
#include "io/handle_win.h"
#include "io/io_queue_win.h"

namespace firn {

// FileRenameInfoEx, which headers declare for Windows 10 1607 and later alone.
inline constexpr auto kFileRenameInfoEx = static_cast<FILE_INFO_BY_HANDLE_CLASS>(22);

class WinFileSystem final : public FileSystem {
 public:
  explicit WinFileSystem(const WinCalls& calls) : calls_(calls), server_(calls) {}

  // As FileSystem::Default.
  static WinFileSystem& Default();

  // A read-only File over a handle of a device that something else opened for overlapped I/O
  // (virtdisk.dll): `size` bytes that are read in whole sectors. What is not aligned goes through a
  // buffer in File's own calls; in a queue it must be aligned.
  Result<std::unique_ptr<File>> Adopt(std::string path, ScopedHandle handle, uint64_t size,
                                      uint32_t sector_bytes);

  Result<std::unique_ptr<File>> Open(const std::string& path, const OpenOptions& options) override;
  Result<std::unique_ptr<MappedFile>> Map(const std::string& path) override;
  Status Rename(const std::string& from, const std::string& to) override;
  Status RenameNew(const std::string& from, const std::string& to) override;
  Status Remove(const std::string& path) override;
  Status CreateDirectory(const std::string& path) override;
  Status SyncDirectory(const std::string& path) override;
  bool Exists(const std::string& path) override;
  Result<std::string> RealPath(const std::string& path) override;
  Result<uint64_t> FreeBytes(const std::string& path) override;
  Result<std::vector<std::string>> List(const std::string& path) override;
  Result<std::unique_ptr<IoQueue>> NewQueue(const IoQueueOptions& options) override;

 private:
  Status Move(const std::string& from, const std::string& to, DWORD flags);
  bool ReplaceOpenFile(const std::wstring& from, const std::wstring& to);
  Result<ScopedHandle> OpenHandle(const std::string& path, const OpenOptions& options,
                                  bool* direct);
  Status CheckNotALink(const std::string& path, const OpenOptions& options, ScopedHandle* handle,
                       DWORD flags);

  const WinCalls& calls_;
  CompletionServer server_;
};

// One blocking transfer on a handle that was opened for overlapped I/O and may have joined a
// completion port, which hears nothing of it. Bytes moved, 0 at the end of the file, or the error
// negated.
int64_t TransferBlocking(const WinCalls& calls, HANDLE file, bool is_read, uint8_t* data,
                         size_t length, uint64_t offset);

}  // namespace firn

#endif  // FIRN_IO_FILE_WIN_H_
