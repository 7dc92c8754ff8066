// What Windows' driver says of a disk's change tracking (Windows Server 2016 and later).
#ifndef FIRN_DISK_TRACKING_STATE_H_
#define FIRN_DISK_TRACKING_STATE_H_

#include <string>

namespace firn {

struct TrackingState {
  bool enabled = false;
  bool newer_changes = false;  // written to since most_recent_id was given
  std::string most_recent_id;  // UTF-8; "" if there is none
};

}  // namespace firn

#endif  // FIRN_DISK_TRACKING_STATE_H_
