// Verify: is every restore point whole?
//
// Two passes, either of which names every defect it meets and goes on. The map pass walks the given
// maps, reads each of their objects and looks up each chunk: nothing is missing and every place
// lies inside its pack. The data pass reads every byte of every pack and of every index run: stripe
// hashes, record checksums, content against ids, tables against both. After it, no bit of a pack or
// an index run has gone unlooked at.
#ifndef FIRN_PIPELINE_VERIFY_JOB_H_
#define FIRN_PIPELINE_VERIFY_JOB_H_

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "index/id_set.h"
#include "pipeline/job.h"
#include "pipeline/map_reader.h"
#include "pipeline/problem.h"

namespace firn {

struct VerifyOptions {
  RepositoryView repository;
  std::vector<Id> roots;
  bool read_data = false;
};

struct VerifyResult {
  static constexpr size_t kProblemsMax = 1000;
  std::vector<Problem> problems;  // the first kProblemsMax
  uint64_t problem_count = 0;
  uint64_t chunks = 0;  // references looked up, in leaves that differ
  uint64_t packs = 0;   // read in whole
  // Damaged copies that a scrub has named before, of records of which another copy was read and is
  // whole. No problems: a collection clears them away.
  uint64_t healed = 0;
};

class VerifyJob final : public Job {
 public:
  VerifyJob(FileSystem& fs, const Tuning& tuning, VerifyOptions options);
  ~VerifyJob() override;
  // After Run has succeeded; problems do not make it fail.
  const VerifyResult& result() const { return result_; }

 private:
  using LeafCheck = std::function<void(const MapLeaf& leaf)>;
  using RecordVisitor = std::function<void(const Id& id)>;
  Status DoRun() override;
  Status CheckPackFiles();
  Status WalkMaps();
  Status WalkMap(const Id& root_id, MapReader* maps, const LeafCheck& check);
  void CheckChunk(const Id& root, const LeafRun& run);
  Status VerifyPacks();
  void SetAsideHealed();
  Status AttributeProblems();
  Status VisitRecords(const Id& root_id, MapReader* maps, const RecordVisitor& visit);
  void AddProblem(Problem problem);

  const VerifyOptions options_;
  const RepositoryKeys keys_;
  std::unique_ptr<ChunkIndex> index_;
  std::unique_ptr<PackFiles> packs_;         // buffered
  std::map<PackName, uint64_t> pack_bytes_;  // of the packs listed; 0 if unreadable
  IdSet seen_leaves_;                        // maps share most of theirs
  std::mutex mutex_;
  VerifyResult result_;
};

}  // namespace firn

#endif  // FIRN_PIPELINE_VERIFY_JOB_H_
