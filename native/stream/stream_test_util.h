// For tests: streams in files, and two repositories that are siblings.
#ifndef FIRN_STREAM_STREAM_TEST_UTIL_H_
#define FIRN_STREAM_STREAM_TEST_UTIL_H_

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "pipeline/repository_test_util.h"
#ifdef _WIN32
#include "io/handle_win.h"
#endif
#include "stream/frame_io.h"
#include "stream/receive_job.h"
#include "stream/send_job.h"
#include "stream/whole_job.h"

namespace firn::test {

inline Status NeverStop() { return Status::Ok(); }

// An open file as a stream's handle.
class StreamFile {
 public:
#ifdef _WIN32
  // As other programs open files: with a position, which Firn's own have not.
  explicit StreamFile(const std::string& path, Access access = Access::kRead)
      : file_(CreateFileW(Must(WidePath(path)).c_str(),
                          access == Access::kRead ? GENERIC_READ : GENERIC_READ | GENERIC_WRITE,
                          FILE_SHARE_READ | FILE_SHARE_WRITE, nullptr,
                          access == Access::kRead ? OPEN_EXISTING : CREATE_ALWAYS, 0, nullptr)) {}
  StreamHandle handle() const { return reinterpret_cast<StreamHandle>(file_.get()); }

 private:
  ScopedHandle file_;
#else
  explicit StreamFile(const std::string& path, Access access = Access::kRead)
      : file_(Must(FileSystem::Default().Open(path, {.access = access}))) {}
  StreamHandle handle() const { return file_->native_handle(); }

 private:
  std::unique_ptr<File> file_;
#endif
};

struct SendOutcome {
  Status status;
  std::shared_ptr<SendStream> stream;
};

inline std::shared_ptr<SendStream> NewSend(std::optional<StreamHandle> handle,
                                           const std::vector<std::vector<Id>>& points,
                                           uint64_t bytes_per_second = 0) {
  std::vector<SendPoint> rows;
  for (const std::vector<Id>& roots : points) rows.push_back({"{\"point\":true}", roots});
  return std::make_shared<SendStream>(handle, bytes_per_second, "{\"header\":true}",
                                      std::move(rows));
}

inline SendOptions SendOptionsFor(const TestRepository& repository,
                                  std::shared_ptr<SendStream> stream) {
  SendOptions options;
  options.repository = repository.View();
  options.stream = std::move(stream);
  return options;
}

// Sends points, each with these roots, to a new file.
inline SendOutcome SendToFile(const TestRepository& repository, const std::string& path,
                              const std::vector<std::vector<Id>>& points) {
  const StreamFile file(path, Access::kCreateAlways);
  auto stream = NewSend(file.handle(), points);
  SendJob job(FileSystem::Default(), SmallTuning(), SendOptionsFor(repository, stream));
  Status status = job.Run();
  return {std::move(status), stream};
}

struct ReceiveOutcome {
  Status status;
  StreamCounts received, stored;
  uint64_t adopted = 0;
  bool ended = false;
  size_t sections = 0;  // read to their ends
};

// Receives all sections of an open stream, as the control plane does but for sealing.
inline ReceiveOutcome ReceiveFrom(const TestRepository& repository, StreamHandle handle,
                                  FileSystem& fs = FileSystem::Default(), bool adopt = false) {
  ReceiveOutcome outcome;
  static Random random(77);
  auto stream = std::make_shared<ReceiveStream>(handle);
  OpenStreamJob open(fs, SmallTuning(), stream);
  outcome.status = open.Run();
  while (outcome.status.ok() && !stream->ended()) {
    ReceiveOptions options;
    options.repository = repository.View();
    options.stream = stream;
    options.adopt = adopt && outcome.sections == 0;
    random.Fill(options.run);
    ReceiveJob job(fs, SmallTuning(), options);
    outcome.status = job.Run();
    if (!outcome.status.ok()) break;
    outcome.received.records += job.result().received.records;
    outcome.received.bytes += job.result().received.bytes;
    outcome.stored.records += job.result().stored.records;
    outcome.stored.bytes += job.result().stored.bytes;
    outcome.adopted += job.result().adopted_packs;
    if (!stream->ended()) ++outcome.sections;
  }
  outcome.ended = stream->ended();
  return outcome;
}

inline ReceiveOutcome ReceiveFile(const TestRepository& repository, const std::string& path,
                                  FileSystem& fs = FileSystem::Default(), bool adopt = false) {
  const StreamFile file(path);
  return ReceiveFrom(repository, file.handle(), fs, adopt);
}

inline Status CheckWhole(const TestRepository& repository, const std::vector<WholeMap>& maps,
                         std::shared_ptr<WholeMaps> known = std::make_shared<WholeMaps>(),
                         std::vector<PackName>* packs = nullptr) {
  WholeJob job(FileSystem::Default(), SmallTuning(), {repository.View(), maps, std::move(known)});
  Status status = job.Run();
  if (packs != nullptr) *packs = job.packs();
  return status;
}

}  // namespace firn::test

#endif  // FIRN_STREAM_STREAM_TEST_UTIL_H_
