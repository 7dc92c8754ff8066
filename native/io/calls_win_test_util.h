// For tests: the table of the system's calls (io/calls_win.h) with members that a test replaces by
// functions of its own, which may call the real ones.
#ifndef FIRN_IO_CALLS_WIN_TEST_UTIL_H_
#define FIRN_IO_CALLS_WIN_TEST_UTIL_H_

#include <functional>
#include <mutex>
#include <set>
#include <vector>

#include "core/core_test_util.h"
#include "io/calls_win.h"

namespace firn::test {

// One may exist at a time. Replace members before the first call through the table, and not while
// calls are under way.
class TestCalls {
 public:
  TestCalls() {
    EXPECT_EQ(active_, nullptr);
    active_ = this;
  }
  ~TestCalls() { active_ = nullptr; }
  TestCalls(const TestCalls&) = delete;
  TestCalls& operator=(const TestCalls&) = delete;

  template <typename Call>
  struct Signature;
  template <typename R, typename... Arguments>
  struct Signature<R(WINAPI*)(Arguments...)> {
    using Function = std::function<R(Arguments...)>;
  };
  template <auto kMember>
  using FunctionOf = typename Signature<
      std::remove_cvref_t<decltype(std::declval<const WinCalls&>().*kMember)>>::Function;

  FunctionOf<& WinCalls::create_file> create_file = ::CreateFileW;
  FunctionOf<& WinCalls::read_file> read_file = ::ReadFile;
  FunctionOf<& WinCalls::write_file> write_file = ::WriteFile;
  FunctionOf<& WinCalls::get_overlapped_result> get_overlapped_result = ::GetOverlappedResult;
  FunctionOf<& WinCalls::get_completions> get_completions = ::GetQueuedCompletionStatusEx;
  FunctionOf<& WinCalls::cancel_io> cancel_io = ::CancelIoEx;
  FunctionOf<& WinCalls::device_io_control> device_io_control = ::DeviceIoControl;
  FunctionOf<& WinCalls::flush> flush = ::FlushFileBuffers;
  FunctionOf<& WinCalls::set_information> set_information = ::SetFileInformationByHandle;
  FunctionOf<& WinCalls::get_information> get_information = ::GetFileInformationByHandleEx;
  FunctionOf<& WinCalls::move_file> move_file = ::MoveFileExW;

  const WinCalls& table() const {
    static constexpr WinCalls kTable = {
        &Forward<&TestCalls::create_file, decltype(WinCalls::create_file)>::Call,
        &Forward<&TestCalls::read_file, decltype(WinCalls::read_file)>::Call,
        &Forward<&TestCalls::write_file, decltype(WinCalls::write_file)>::Call,
        &Forward<&TestCalls::get_overlapped_result,
                 decltype(WinCalls::get_overlapped_result)>::Call,
        &Forward<&TestCalls::get_completions, decltype(WinCalls::get_completions)>::Call,
        &Forward<&TestCalls::cancel_io, decltype(WinCalls::cancel_io)>::Call,
        &Forward<&TestCalls::device_io_control, decltype(WinCalls::device_io_control)>::Call,
        &Forward<&TestCalls::flush, decltype(WinCalls::flush)>::Call,
        &Forward<&TestCalls::set_information, decltype(WinCalls::set_information)>::Call,
        &Forward<&TestCalls::get_information, decltype(WinCalls::get_information)>::Call,
        &Forward<&TestCalls::move_file, decltype(WinCalls::move_file)>::Call};
    return kTable;
  }

 private:
  template <auto kMember, typename Call>
  struct Forward;
  template <auto kMember, typename R, typename... Arguments>
  struct Forward<kMember, R(WINAPI*)(Arguments...)> {
    static R WINAPI Call(Arguments... arguments) { return (active_->*kMember)(arguments...); }
  };

  inline static TestCalls* active_ = nullptr;
};

// Wine lacks some things of Windows; a test that needs one says so.
inline bool RunningUnderWine() {
  return GetProcAddress(GetModuleHandleW(L"ntdll.dll"), "wine_get_version") != nullptr;
}

// Fails a call the way the system does.
inline BOOL FailWith(DWORD error) {
  SetLastError(error);
  return FALSE;
}

inline uint64_t OffsetOf(const OVERLAPPED& overlapped) {
  return uint64_t{overlapped.OffsetHigh} << 32 | overlapped.Offset;
}

// Makes the system as unkind as Windows may be where Wine is not: unbuffered handles refuse what is
// not aligned to 512 bytes, transfers stop short, completions are late and come in any order.
class HarshSystem {
 public:
  explicit HarshSystem(TestCalls* calls) {
    calls->create_file = [this](LPCWSTR path, DWORD access, DWORD share,
                                LPSECURITY_ATTRIBUTES security, DWORD disposition, DWORD flags,
                                HANDLE model) {
      const HANDLE handle = ::CreateFileW(path, access, share, security, disposition, flags, model);
      std::lock_guard lock(mutex_);
      if ((flags & FILE_FLAG_NO_BUFFERING) != 0) {
        unbuffered_.insert(handle);
      } else {
        unbuffered_.erase(handle);
      }
      return handle;
    };
    calls->read_file = [this](HANDLE file, LPVOID data, DWORD length, LPDWORD done,
                              LPOVERLAPPED overlapped) {
      if (Refuses(file, data, length, *overlapped)) return FailWith(ERROR_INVALID_PARAMETER);
      return ::ReadFile(file, data, Shortened(length), done, overlapped);
    };
    calls->write_file = [this](HANDLE file, LPCVOID data, DWORD length, LPDWORD done,
                               LPOVERLAPPED overlapped) {
      if (Refuses(file, data, length, *overlapped)) return FailWith(ERROR_INVALID_PARAMETER);
      return ::WriteFile(file, data, Shortened(length), done, overlapped);
    };
    calls->get_completions = [this](HANDLE port, LPOVERLAPPED_ENTRY entries, ULONG room,
                                    PULONG count, DWORD, BOOL alertable) {
      return GiveSome(port, entries, room, count, alertable);
    };
  }

 private:
  bool Refuses(HANDLE file, const void* data, DWORD length, const OVERLAPPED& overlapped) {
    std::lock_guard lock(mutex_);
    return unbuffered_.contains(file) &&
           ((OffsetOf(overlapped) | length | reinterpret_cast<uintptr_t>(data)) & 511) != 0;
  }

  DWORD Shortened(DWORD length) {
    std::lock_guard lock(mutex_);
    return length > 8192 && random_.OneIn(3) ? length / 2 / 4096 * 4096 : length;
  }

  BOOL GiveSome(HANDLE port, LPOVERLAPPED_ENTRY entries, ULONG room, PULONG count, BOOL alertable) {
    std::lock_guard lock(completions_mutex_);
    ULONG got = 0;
    // What is held back is given later, be there something new or not.
    if (::GetQueuedCompletionStatusEx(port, entries, room, &got, held_.empty() ? INFINITE : 1,
                                      alertable)) {
      held_.insert(held_.end(), entries, entries + got);
    }
    const size_t give = 1 + completions_random_.Below(std::min<size_t>(held_.size(), room));
    for (*count = 0; *count < give; ++*count) {
      const auto chosen =
          held_.begin() + static_cast<ptrdiff_t>(completions_random_.Below(held_.size()));
      entries[*count] = *chosen;
      held_.erase(chosen);
    }
    return TRUE;
  }

  std::mutex mutex_;
  Random random_{77};
  std::set<HANDLE> unbuffered_;
  std::mutex completions_mutex_;
  Random completions_random_{78};
  std::vector<OVERLAPPED_ENTRY> held_;
};

}  // namespace firn::test

#endif  // FIRN_IO_CALLS_WIN_TEST_UTIL_H_
