// A file system that fails on purpose: the n-th call, reads, writes or syncs, with a chosen error.
//
// Wraps another FileSystem. Counting is over all files and queues and is thread-safe, so a test can
// run an operation once to learn how many calls it makes and then once for each n. After the fault,
// calls work again unless `persistent`, which is what a full disk or a dead device looks like.
#ifndef FIRN_IO_FAULT_FILE_SYSTEM_H_
#define FIRN_IO_FAULT_FILE_SYSTEM_H_

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "io/file.h"
#include "io/io_queue.h"

namespace firn {

struct FaultPlan {
  enum class Kind : uint8_t { kAny, kRead, kWrite, kSync, kName };  // kName: create, rename, remove
  Kind kind = Kind::kAny;
  uint64_t fail_at = 0;     // the n-th call of that kind, from 1; 0 never
  bool persistent = false;  // all later ones too
  Code code = Code::kRead;
};

// The plan and the counters, shared by the file system and everything it opened.
class FaultState {
 public:
  explicit FaultState(FaultPlan plan) : plan_(plan) {}
  // OK, or the fault if it is this call's turn.
  Status Check(FaultPlan::Kind kind, const std::string& path);
  uint64_t calls() const { return calls_.load(); }
  bool fired() const { return fired_.load(); }

 private:
  const FaultPlan plan_;
  std::atomic<uint64_t> calls_ = 0;
  std::atomic<bool> fired_ = false;
};

class FaultFileSystem final : public FileSystem {
 public:
  FaultFileSystem(FileSystem& base, FaultPlan plan)
      : base_(base), state_(std::make_shared<FaultState>(plan)) {}

  // Calls of the plan's kind so far.
  uint64_t calls() const { return state_->calls(); }
  bool fired() const { return state_->fired(); }

  Result<std::unique_ptr<File>> Open(const std::string& path, const OpenOptions& options) override;
  Result<std::unique_ptr<MappedFile>> Map(const std::string& path) override;
  Status Rename(const std::string& from, const std::string& to) override;
  Status RenameNew(const std::string& from, const std::string& to) override;
  Status Remove(const std::string& path) override;
  Status CreateDirectory(const std::string& path) override;
  Status SyncDirectory(const std::string& path) override;
  bool Exists(const std::string& path) override { return base_.Exists(path); }
  Result<std::string> RealPath(const std::string& path) override { return base_.RealPath(path); }
  Result<uint64_t> FreeBytes(const std::string& path) override { return base_.FreeBytes(path); }
  Result<std::vector<std::string>> List(const std::string& path) override;
  Result<std::unique_ptr<IoQueue>> NewQueue(const IoQueueOptions& options) override;

 private:
  FileSystem& base_;
  const std::shared_ptr<FaultState> state_;
};

}  // namespace firn

#endif  // FIRN_IO_FAULT_FILE_SYSTEM_H_
