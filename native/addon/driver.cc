#include "addon/driver.h"

#include "addon/convert.h"
#include "addon/session.h"
#ifdef _WIN32
#include "disk/virtdisk_win.h"
#endif

namespace firn::addon {

namespace {

struct Tracking {
  bool enabled = false;
  bool newer_changes = false;
  std::string most_recent_id;
};

#ifdef _WIN32
Result<Tracking> AskTracking(const std::string& path) {
  FIRN_ASSIGN_OR_RETURN(TrackingState state, AskTrackingState(path));
  return Tracking{state.enabled, state.newer_changes, std::move(state.most_recent_id)};
}
#else
Status NoDriver(const std::string& path) {
  return Status::Error(Code::kUnsupported, "only Windows has a driver for virtual disks").At(path);
}

Result<Tracking> AskTracking(const std::string& path) { return NoDriver(path); }

Result<LayerChanges> QueryTrackedChanges(const std::string& path, const std::string&) {
  return NoDriver(path);
}
#endif

std::string StringAt(const Napi::CallbackInfo& info, size_t i) {
  if (info.Length() <= i || !info[i].IsString()) {
    throw Napi::TypeError::New(info.Env(), "a string argument is missing");
  }
  return info[i].As<Napi::String>().Utf8Value();
}

}  // namespace

Result<std::unique_ptr<Disk>> OpenThroughDriver(const std::string& path) {
#ifdef _WIN32
  return OpenAttachedDisk(WinFileSystem::Default(), path);
#else
  return NoDriver(path);
#endif
}

Napi::Value AskDriverTracking(const Napi::CallbackInfo& info) {
  auto result = std::make_shared<Tracking>();
  return RunAsync(
      info.Env(),
      [path = StringAt(info, 0), result]() -> Status {
        FIRN_ASSIGN_OR_RETURN(*result, AskTracking(path));
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
      [path = StringAt(info, 0), id = StringAt(info, 1), result]() -> Status {
        FIRN_ASSIGN_OR_RETURN(*result, QueryTrackedChanges(path, id));
        return Status::Ok();
      },
      [result](Napi::Env env) -> Napi::Value { return FromLayerChanges(env, *result); });
}

}  // namespace firn::addon
