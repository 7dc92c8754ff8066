#include "addon/driver.h"

#include "addon/convert.h"
#include "addon/session.h"
#include "disk/tracking_state.h"
#ifdef _WIN32
#include "disk/virtdisk_win.h"
#endif

namespace firn::addon {

namespace {

#ifndef _WIN32
Status NoDriver(const std::string& path) {
  return Status::Error(Code::kUnsupported, "only Windows has a driver for virtual disks").At(path);
}

Result<TrackingState> AskTrackingState(const std::string& path) { return NoDriver(path); }

Result<LayerChanges> QueryTrackedChanges(const std::string& path, const std::string&) {
  return NoDriver(path);
}
#endif

}  // namespace

Result<std::unique_ptr<Disk>> OpenThroughDriver(const std::string& path) {
#ifdef _WIN32
  return OpenAttachedDisk(WinFileSystem::Default(), path);
#else
  return NoDriver(path);
#endif
}

Napi::Value AskDriverTracking(const Napi::CallbackInfo& info) {
  auto result = std::make_shared<TrackingState>();
  return RunAsync(
      info.Env(),
      [path = StringArgument(info, 0), result]() -> Status {
        FIRN_ASSIGN_OR_RETURN(*result, AskTrackingState(path));
        return Status::Ok();
      },
      [result](Napi::Env env) -> Napi::Value {
        Napi::Object object = Napi::Object::New(env);
        object.Set("enabled", result->enabled);
        object.Set("newerChanges", result->newer_changes);
        object.Set("mostRecentId", result->most_recent_id);
        return object;
      });
}

Napi::Value QueryDriverChanges(const Napi::CallbackInfo& info) {
  auto result = std::make_shared<LayerChanges>();
  return RunAsync(
      info.Env(),
      [path = StringArgument(info, 0), id = StringArgument(info, 1), result]() -> Status {
        FIRN_ASSIGN_OR_RETURN(*result, QueryTrackedChanges(path, id));
        return Status::Ok();
      },
      [result](Napi::Env env) -> Napi::Value { return FromLayerChanges(env, *result); });
}

}  // namespace firn::addon
