// The list of what a repository has, for a sender elsewhere: which records it need not send.
//
// A list is frames like a stream: a header, which is the control plane's JSON and names points, and
// on request the first eight bytes of the id of every record that the index knows. Eight bytes are
// enough to leave a record out: two ids share them once in a few hundred million terabytes, and
// what was left out wrongly is missed before anything is sealed.
#ifndef FIRN_STREAM_HAVE_LIST_H_
#define FIRN_STREAM_HAVE_LIST_H_

#include <memory>
#include <string>
#include <vector>

#include "pipeline/job.h"
#include "stream/frame_io.h"

namespace firn {

// As a number that orders as ids do.
inline uint64_t PrefixOf(const Id& id) { return LoadBe<uint64_t>(id.data()); }

struct HaveList {
  std::string header;
  std::vector<uint64_t> prefixes;  // ascending
};

struct WriteHaveOptions {
  RepositoryView repository;
  StreamHandle handle = 0;
  std::string header;
  bool records = false;  // prefixes, too
};

class WriteHaveJob final : public Job {
 public:
  WriteHaveJob(FileSystem& fs, const Tuning& tuning, WriteHaveOptions options)
      : Job(fs, tuning), options_(std::move(options)) {}
  uint64_t prefixes() const { return prefixes_; }

 private:
  Status DoRun() override;
  Status WritePrefixes(FrameWriter* writer);

  const WriteHaveOptions options_;
  uint64_t prefixes_ = 0;
};

// Reads a whole list into memory: eight bytes a record.
class ReadHaveJob final : public Job {
 public:
  ReadHaveJob(FileSystem& fs, const Tuning& tuning, StreamHandle handle)
      : Job(fs, tuning), handle_(handle), list_(std::make_shared<HaveList>()) {}
  std::shared_ptr<HaveList> list() const { return list_; }

 private:
  Status DoRun() override;

  const StreamHandle handle_;
  const std::shared_ptr<HaveList> list_;
};

}  // namespace firn

#endif  // FIRN_STREAM_HAVE_LIST_H_
