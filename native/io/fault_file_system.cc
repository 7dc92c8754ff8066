#include "io/fault_file_system.h"

namespace firn {

namespace {

using Kind = FaultPlan::Kind;

class FaultFile final : public File {
 public:
  FaultFile(std::unique_ptr<File> base, std::shared_ptr<FaultState> state)
      : File(base->path(), base->direct(), base->alignment()),
        base_(std::move(base)),
        state_(std::move(state)) {}

  Result<size_t> ReadSome(uint64_t offset, std::span<uint8_t> out) override {
    FIRN_RETURN_IF_ERROR(state_->Check(Kind::kRead, path_));
    return base_->ReadSome(offset, out);
  }
  Status WriteAt(uint64_t offset, std::span<const uint8_t> bytes) override {
    FIRN_RETURN_IF_ERROR(state_->Check(Kind::kWrite, path_));
    return base_->WriteAt(offset, bytes);
  }
  Result<uint64_t> Size() override {
    FIRN_RETURN_IF_ERROR(state_->Check(Kind::kRead, path_));
    return base_->Size();
  }
  Status Truncate(uint64_t size) override {
    FIRN_RETURN_IF_ERROR(state_->Check(Kind::kWrite, path_));
    return base_->Truncate(size);
  }
  Status MakeSparse() override {
    FIRN_RETURN_IF_ERROR(state_->Check(Kind::kWrite, path_));
    return base_->MakeSparse();
  }
  Status Preallocate(uint64_t offset, uint64_t length) override {
    FIRN_RETURN_IF_ERROR(state_->Check(Kind::kWrite, path_));
    return base_->Preallocate(offset, length);
  }
  Status Sync() override {
    FIRN_RETURN_IF_ERROR(state_->Check(Kind::kSync, path_));
    return base_->Sync();
  }
  Result<std::optional<DataRange>> NextData(uint64_t offset) override {
    FIRN_RETURN_IF_ERROR(state_->Check(Kind::kRead, path_));
    return base_->NextData(offset);
  }
  Result<FileIdentity> Identity() override { return base_->Identity(); }
  bool IsCached(uint64_t offset, uint64_t length) override {
    return base_->IsCached(offset, length);
  }
  void DropCache() override { base_->DropCache(); }
  intptr_t native_handle() const override { return base_->native_handle(); }

 private:
  const std::unique_ptr<File> base_;
  const std::shared_ptr<FaultState> state_;
};

// Faults of a queue come back as completions, as the kernel's do.
class FaultQueue final : public IoQueue {
 public:
  FaultQueue(std::unique_ptr<IoQueue> base, std::shared_ptr<FaultState> state)
      : base_(std::move(base)), state_(std::move(state)) {}

  void RegisterBuffer(std::span<uint8_t> memory) override { base_->RegisterBuffer(memory); }

  Status Submit(const IoRequest& request) override {
    Kind kind = request.op == IoRequest::Op::kRead ? Kind::kRead : Kind::kWrite;
    Status fault = state_->Check(kind, request.file->path());
    if (fault.ok()) return base_->Submit(request);
    failed_.push_back({request.tag, std::move(fault).At(request.file->path(), request.offset)});
    return Status::Ok();
  }

  Status Wait(uint32_t min_completions, std::vector<IoCompletion>* completions) override {
    const auto failed = static_cast<uint32_t>(failed_.size());
    for (IoCompletion& completion : failed_) completions->push_back(std::move(completion));
    failed_.clear();
    return base_->Wait(min_completions > failed ? min_completions - failed : 0, completions);
  }

  uint32_t in_flight() const override {
    return base_->in_flight() + static_cast<uint32_t>(failed_.size());
  }
  uint32_t depth() const override { return base_->depth(); }
  const char* name() const override { return base_->name(); }

 private:
  const std::unique_ptr<IoQueue> base_;
  const std::shared_ptr<FaultState> state_;
  std::vector<IoCompletion> failed_;
};

}  // namespace

Status FaultState::Check(FaultPlan::Kind kind, const std::string& path) {
  if (plan_.kind != FaultPlan::Kind::kAny && plan_.kind != kind) return Status::Ok();
  const uint64_t call = ++calls_;
  const bool fails =
      plan_.fail_at != 0 && (plan_.persistent ? call >= plan_.fail_at : call == plan_.fail_at);
  if (!fails) return Status::Ok();
  fired_ = true;
  return Status::Error(plan_.code, "injected fault").During("fault").At(path);
}

Result<std::unique_ptr<File>> FaultFileSystem::Open(const std::string& path,
                                                    const OpenOptions& options) {
  const bool creates =
      options.access == Access::kCreateNew || options.access == Access::kCreateAlways;
  FIRN_RETURN_IF_ERROR(state_->Check(creates ? Kind::kName : Kind::kRead, path));
  FIRN_ASSIGN_OR_RETURN(std::unique_ptr<File> file, base_.Open(path, options));
  return std::unique_ptr<File>(new FaultFile(std::move(file), state_));
}

Result<std::unique_ptr<MappedFile>> FaultFileSystem::Map(const std::string& path) {
  FIRN_RETURN_IF_ERROR(state_->Check(Kind::kRead, path));
  return base_.Map(path);
}

Status FaultFileSystem::Rename(const std::string& from, const std::string& to) {
  FIRN_RETURN_IF_ERROR(state_->Check(Kind::kName, to));
  return base_.Rename(from, to);
}

Status FaultFileSystem::RenameNew(const std::string& from, const std::string& to) {
  FIRN_RETURN_IF_ERROR(state_->Check(Kind::kName, to));
  return base_.RenameNew(from, to);
}

Status FaultFileSystem::Remove(const std::string& path) {
  FIRN_RETURN_IF_ERROR(state_->Check(Kind::kName, path));
  return base_.Remove(path);
}

Status FaultFileSystem::CreateDirectory(const std::string& path) {
  FIRN_RETURN_IF_ERROR(state_->Check(Kind::kName, path));
  return base_.CreateDirectory(path);
}

Status FaultFileSystem::SyncDirectory(const std::string& path) {
  FIRN_RETURN_IF_ERROR(state_->Check(Kind::kSync, path));
  return base_.SyncDirectory(path);
}

Result<std::vector<std::string>> FaultFileSystem::List(const std::string& path) {
  FIRN_RETURN_IF_ERROR(state_->Check(Kind::kRead, path));
  return base_.List(path);
}

Result<std::unique_ptr<IoQueue>> FaultFileSystem::NewQueue(const IoQueueOptions& options) {
  FIRN_ASSIGN_OR_RETURN(std::unique_ptr<IoQueue> queue, base_.NewQueue(options));
  return std::unique_ptr<IoQueue>(new FaultQueue(std::move(queue), state_));
}

}  // namespace firn
