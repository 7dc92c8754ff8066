// A defect that a job found in a repository, and went on after.
#ifndef FIRN_PIPELINE_PROBLEM_H_
#define FIRN_PIPELINE_PROBLEM_H_

#include <optional>
#include <string>
#include <vector>

#include "core/bytes.h"
#include "core/status.h"
#include "pack/pack_format.h"

namespace firn {

struct Problem {
  Status status;
  std::string object;     // relative path of the object concerned, if it is one
  std::optional<Id> id;   // of the record concerned
  std::vector<Id> roots;  // the maps that need it
  // The pack whose copy of the record, or of all records if there is no id, is not what it should
  // be.
  std::optional<PackName> pack{};
};

}  // namespace firn

#endif  // FIRN_PIPELINE_PROBLEM_H_
