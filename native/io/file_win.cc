// File on Windows. The file system is in file_system_win.cc.

#include "io/file_win.h"

#include <algorithm>

#include "core/bytes.h"
#include "io/aligned_buffer.h"
#include "io/open_file_win.h"

namespace firn {

namespace {

// A multiple of every sector size. Unbuffered, the whole of a transfer is locked in memory at once.
constexpr size_t kTransferMax = 64 * kMiB;

// What a file system or a device says that has no such function.
bool IsNotOffered(DWORD error) {
  return error == ERROR_INVALID_FUNCTION || error == ERROR_NOT_SUPPORTED ||
         error == ERROR_CALL_NOT_IMPLEMENTED || error == ERROR_INVALID_PARAMETER;
}

class WinFile final : public File {
 public:
  WinFile(std::string path, const WinCalls& calls, OpenedFile opened)
      : File(std::move(path), opened.direct, opened.alignment),
        calls_(calls),
        handle_(std::move(opened.handle)),
        device_bytes_(opened.device_bytes) {}

  Result<size_t> ReadSome(uint64_t offset, std::span<uint8_t> out) override {
    if (!device_bytes_) return ReadUpToTheEnd(offset, out);
    // A device has no end that a read would stop at, and nothing but whole sectors.
    const uint64_t left = *device_bytes_ - std::min(offset, *device_bytes_);
    out = out.first(static_cast<size_t>(std::min<uint64_t>(out.size(), left)));
    const bool aligned = IsAligned(offset | out.size(), alignment_.offset) &&
                         IsAligned(static_cast<uint64_t>(reinterpret_cast<uintptr_t>(out.data())),
                                   alignment_.memory);
    return aligned ? ReadUpToTheEnd(offset, out) : ReadThroughBuffer(offset, out);
  }

  Status WriteAt(uint64_t offset, std::span<const uint8_t> bytes) override {
    for (size_t done = 0; done < bytes.size();) {
      // The calls take no const pointer for either direction; a write only reads from it.
      int64_t put =
          TransferBlocking(calls_, handle_.get(), false, const_cast<uint8_t*>(bytes.data()) + done,
                           std::min(bytes.size() - done, kTransferMax), offset + done);
      if (put == 0) put = -ERROR_DISK_FULL;
      if (put < 0) {
        return Status::FromOs(Code::kWrite, "write", path_, static_cast<int>(-put))
            .At(path_, offset + done);
      }
      done += static_cast<size_t>(put);
    }
    return Status::Ok();
  }

  Result<uint64_t> Size() override {
    if (device_bytes_) return *device_bytes_;
    FIRN_ASSIGN_OR_RETURN(const FILE_STANDARD_INFO info, StandardInfo());
    return static_cast<uint64_t>(info.EndOfFile.QuadPart);
  }

  Status Truncate(uint64_t size) override {
    FILE_END_OF_FILE_INFO info{};
    info.EndOfFile.QuadPart = static_cast<LONGLONG>(size);
    if (calls_.set_information(handle_.get(), FileEndOfFileInfo, &info, sizeof info)) {
      return Status::Ok();
    }
    return LastError(Code::kWrite, "truncate", path_);
  }

  Status MakeSparse() override {
    FILE_SET_SPARSE_BUFFER sparse{TRUE};
    DWORD bytes = 0;
    const DWORD error = Control(FSCTL_SET_SPARSE, {&sparse, sizeof sparse}, {nullptr, 0}, &bytes);
    if (error == ERROR_SUCCESS || IsNotOffered(error)) return Status::Ok();
    return Status::FromOs(Code::kWrite, "make sparse", path_, static_cast<int>(error));
  }

  // The space is reserved and not declared valid. SetFileValidData would save NTFS the zeros before
  // a write that does not begin where the valid data ends; but it takes a privilege, and shows what
  // others have deleted from the volume to whoever opens a file that was never finished.
  Status Preallocate(uint64_t offset, uint64_t length) override {
    FIRN_ASSIGN_OR_RETURN(const FILE_STANDARD_INFO now, StandardInfo());
    FILE_ALLOCATION_INFO wanted{};
    wanted.AllocationSize.QuadPart = static_cast<LONGLONG>(offset + length);
    // To set less than there is would cut the file off.
    if (wanted.AllocationSize.QuadPart <= now.AllocationSize.QuadPart ||
        wanted.AllocationSize.QuadPart <= now.EndOfFile.QuadPart) {
      return Status::Ok();
    }
    if (calls_.set_information(handle_.get(), FileAllocationInfo, &wanted, sizeof wanted)) {
      return Status::Ok();
    }
    if (!IsNotOffered(GetLastError())) return LastError(Code::kWrite, "preallocate", path_);
    return Status::Error(Code::kUnsupported, "this file system can't reserve space")
        .During("preallocate")
        .At(path_);
  }

  Status Sync() override {
    if (calls_.flush(handle_.get())) return Status::Ok();
    // What was cached may be gone after a flush that failed: a second one proves nothing.
    return LastError(Code::kWrite, "sync", path_).DataLoss();
  }

  Result<std::optional<DataRange>> NextData(uint64_t offset) override {
    FIRN_ASSIGN_OR_RETURN(const uint64_t size, Size());
    if (offset >= size) return std::optional<DataRange>();
    const std::optional<DataRange> rest({offset, size});
    FILE_ALLOCATED_RANGE_BUFFER asked{}, range{};
    asked.FileOffset.QuadPart = static_cast<LONGLONG>(offset);
    asked.Length.QuadPart = static_cast<LONGLONG>(size - offset);
    DWORD bytes = 0;
    const DWORD error = Control(FSCTL_QUERY_ALLOCATED_RANGES, {&asked, sizeof asked},
                                {&range, sizeof range}, &bytes);
    if (error != ERROR_SUCCESS && error != ERROR_MORE_DATA) return rest;
    if (bytes < sizeof range) return std::optional<DataRange>();
    // What comes is not trusted to lie in what was asked for.
    const auto begin = std::max(offset, static_cast<uint64_t>(range.FileOffset.QuadPart));
    uint64_t end = 0;
    if (!CheckedAdd(static_cast<uint64_t>(range.FileOffset.QuadPart),
                    static_cast<uint64_t>(range.Length.QuadPart), &end)) {
      return rest;
    }
    end = std::min(end, size);
    return begin < end ? std::optional<DataRange>({begin, end}) : rest;
  }

  Result<FileIdentity> Identity() override {
    if (device_bytes_) return DeviceIdentity();
    FILE_ID_INFO info{};
    if (calls_.get_information(handle_.get(), FileIdInfo, &info, sizeof info)) {
      return FileIdentity{info.VolumeSerialNumber, LoadLe<uint64_t>(info.FileId.Identifier),
                          LoadLe<uint64_t>(info.FileId.Identifier + 8)};
    }
    // File systems behind older servers have 64 bits of it alone.
    BY_HANDLE_FILE_INFORMATION old{};
    if (!GetFileInformationByHandle(handle_.get(), &old)) {
      return LastError(Code::kRead, "identify", path_);
    }
    return FileIdentity{old.dwVolumeSerialNumber,
                        uint64_t{old.nFileIndexHigh} << 32 | old.nFileIndexLow};
  }

  // Windows has no way to ask what it caches, or to tell it to drop that.
  bool IsCached(uint64_t, uint64_t) override { return false; }
  void DropCache() override {}

  intptr_t native_handle() const override { return reinterpret_cast<intptr_t>(handle_.get()); }

 private:
  struct Memory {
    void* data;
    DWORD bytes;
  };

  Result<size_t> ReadUpToTheEnd(uint64_t offset, std::span<uint8_t> out) {
    size_t done = 0;
    while (done < out.size()) {
      const int64_t got =
          TransferBlocking(calls_, handle_.get(), true, out.data() + done,
                           std::min(out.size() - done, kTransferMax), offset + done);
      if (got < 0) {
        return Status::FromOs(Code::kRead, "read", path_, static_cast<int>(-got))
            .At(path_, offset + done);
      }
      done += static_cast<size_t>(got);
      // An unbuffered read gives parts of a sector at the end of the file alone, and can't be asked
      // to go on from there.
      if (got == 0 || done % alignment_.offset != 0) break;
    }
    return done;
  }

  Result<size_t> ReadThroughBuffer(uint64_t offset, std::span<uint8_t> out) {
    const uint32_t sector = alignment_.offset;
    FIRN_ASSIGN_OR_RETURN(AlignedBuffer buffer, AlignedBuffer::Allocate(std::min<size_t>(
                                                    RoundUp(out.size(), sector) + sector, kMiB)));
    size_t done = 0;
    while (done < out.size()) {
      const uint64_t begin = RoundDown(offset + done, sector);
      const uint64_t end = std::min(RoundUp(offset + out.size(), sector), begin + buffer.size());
      const auto skipped = static_cast<size_t>(offset + done - begin);
      FIRN_ASSIGN_OR_RETURN(
          const size_t got,
          ReadUpToTheEnd(begin, buffer.span().first(static_cast<size_t>(end - begin))));
      if (got <= skipped) break;
      const size_t count = std::min(got - skipped, out.size() - done);
      std::copy_n(buffer.data() + skipped, count, out.data() + done);
      done += count;
    }
    return done;
  }

  Result<FILE_STANDARD_INFO> StandardInfo() {
    FILE_STANDARD_INFO info{};
    if (calls_.get_information(handle_.get(), FileStandardInfo, &info, sizeof info)) return info;
    return LastError(Code::kRead, "stat", path_);
  }

  Result<FileIdentity> DeviceIdentity() {
    STORAGE_DEVICE_NUMBER number{};
    DWORD bytes = 0;
    const DWORD error =
        Control(IOCTL_STORAGE_GET_DEVICE_NUMBER, {nullptr, 0}, {&number, sizeof number}, &bytes);
    if (error != ERROR_SUCCESS || bytes < sizeof number) {
      return Status::FromOs(Code::kRead, "identify", path_, static_cast<int>(error));
    }
    // No volume has this serial number and a type of device.
    return FileIdentity{UINT64_MAX - number.DeviceType, number.DeviceNumber,
                        number.PartitionNumber};
  }

  DWORD Control(DWORD code, Memory in, Memory out, DWORD* bytes) {
    return ControlBlocking(calls_, handle_.get(), code, in.data, in.bytes, out.data, out.bytes,
                           bytes);
  }

  const WinCalls& calls_;
  const ScopedHandle handle_;
  const std::optional<uint64_t> device_bytes_;
};

// An event whose lowest bit is set keeps the completion from the port that the file may have
// joined.
class SilentEvent {
 public:
  SilentEvent() : event_(CreateEventW(nullptr, TRUE, FALSE, nullptr)) {}
  bool ok() const { return event_.ok(); }
  HANDLE get() const {
    return reinterpret_cast<HANDLE>(reinterpret_cast<uintptr_t>(event_.get()) | 1);
  }

 private:
  const ScopedHandle event_;
};

// The end of a request that the system took, and its error. The OVERLAPPED is on the caller's
// stack: this does not return before the system has let go of it, whatever becomes of the wait.
DWORD AwaitCompletion(const WinCalls& calls, HANDLE file, OVERLAPPED* overlapped, DWORD* bytes) {
  while (true) {
    if (calls.get_overlapped_result(file, overlapped, bytes, TRUE)) return ERROR_SUCCESS;
    const DWORD error = GetLastError();
    if (HasOverlappedIoCompleted(overlapped)) return error;
    Sleep(1);
  }
}

}  // namespace

int64_t TransferBlocking(const WinCalls& calls, HANDLE file, bool is_read, uint8_t* data,
                         size_t length, uint64_t offset) {
  const SilentEvent event;
  if (!event.ok()) return -static_cast<int64_t>(GetLastError());
  OVERLAPPED overlapped{};
  overlapped.Offset = static_cast<DWORD>(offset);
  overlapped.OffsetHigh = static_cast<DWORD>(offset >> 32);
  overlapped.hEvent = event.get();
  const auto count = static_cast<DWORD>(std::min(length, kTransferMax));
  const BOOL taken = is_read ? calls.read_file(file, data, count, nullptr, &overlapped)
                             : calls.write_file(file, data, count, nullptr, &overlapped);
  DWORD error = taken ? ERROR_SUCCESS : GetLastError();
  DWORD bytes = 0;
  if (taken || error == ERROR_IO_PENDING) {
    error = AwaitCompletion(calls, file, &overlapped, &bytes);
    if (error == ERROR_SUCCESS) return bytes;
  }
  return is_read && error == ERROR_HANDLE_EOF ? 0 : -static_cast<int64_t>(error);
}

DWORD ControlBlocking(const WinCalls& calls, HANDLE file, DWORD code, void* in, DWORD in_bytes,
                      void* out, DWORD out_bytes, DWORD* bytes) {
  const SilentEvent event;
  if (!event.ok()) return GetLastError();
  OVERLAPPED overlapped{};
  overlapped.hEvent = event.get();
  const BOOL taken =
      calls.device_io_control(file, code, in, in_bytes, out, out_bytes, nullptr, &overlapped);
  const DWORD error = taken ? ERROR_SUCCESS : GetLastError();
  // An answer that does not fit is an answer, cut short, whose length is in the OVERLAPPED.
  if (error != ERROR_SUCCESS && error != ERROR_IO_PENDING && error != ERROR_MORE_DATA) return error;
  return AwaitCompletion(calls, file, &overlapped, bytes);
}

std::unique_ptr<File> NewWinFile(std::string path, const WinCalls& calls, OpenedFile opened) {
  return std::make_unique<WinFile>(std::move(path), calls, std::move(opened));
}

}  // namespace firn
