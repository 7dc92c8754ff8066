# The Node addon. cmake-js gives the headers' folders; a plain cmake run (-DFIRN_ADDON=ON) takes them from node_modules.
if(NOT CMAKE_JS_INC)
  set(CMAKE_JS_INC ${FIRN_NODE_MODULES}/node-api-headers/include ${FIRN_NODE_MODULES}/node-addon-api)
endif()

file(GLOB FIRN_ADDON_SOURCES CONFIGURE_DEPENDS native/addon/*.cc)
add_library(firn SHARED ${FIRN_ADDON_SOURCES} ${CMAKE_JS_SRC})
set_target_properties(firn PROPERTIES PREFIX "" SUFFIX ".node")
target_include_directories(firn SYSTEM PRIVATE ${CMAKE_JS_INC})
# Exceptions live in native/addon alone: node-addon-api speaks them.
target_compile_definitions(firn PRIVATE NAPI_VERSION=8 NAPI_CPP_EXCEPTIONS BUILDING_NODE_EXTENSION)
target_link_libraries(firn PRIVATE firn_native firn_warnings ${CMAKE_JS_LIB})

if(FIRN_PORTABLE AND NOT WIN32)
  # Node has an OpenSSL and a C++ library of its own, of other versions: those linked in here are hidden, so that neither side finds the
  # other's. libgcc stays outside: Node needs it too, and linked in it asks for a newer glibc than all the rest.
  target_sources(firn PRIVATE native/addon/linux/arc4random.cc)
  target_link_options(firn PRIVATE -static-libstdc++ -Wl,--as-needed
    -Wl,--version-script=${CMAKE_CURRENT_SOURCE_DIR}/cmake/addon_exports.map)
endif()

if(MINGW)
  # The addon imports from whatever program loads it, which may be node.exe under another name: so its imports are resolved late, by a
  # hook that answers with the running program. The hook that cmake-js brings is for MSVC alone. Node's exports are listed by
  # node-api-headers; no node.lib is downloaded.
  set(NODE_DEF ${FIRN_NODE_MODULES}/node-api-headers/def/node_api.def)
  set(NODE_IMPORTS ${CMAKE_CURRENT_BINARY_DIR}/libnode.a)
  add_custom_command(OUTPUT ${NODE_IMPORTS}
    COMMAND ${CMAKE_DLLTOOL} -m i386:x86-64 -D node.exe -d ${NODE_DEF} --output-delaylib ${NODE_IMPORTS}
    DEPENDS ${NODE_DEF} VERBATIM)
  add_custom_target(firn_node_imports DEPENDS ${NODE_IMPORTS})
  add_dependencies(firn firn_node_imports)
  target_sources(firn PRIVATE native/addon/windows/delay_load_hook.cc)
  target_link_libraries(firn PRIVATE ${NODE_IMPORTS} delayimp)
  target_link_options(firn PRIVATE -Wl,--no-undefined)
elseif(MSVC)
  # Never run (see CMakeLists.txt). cmake-js passes /DELAYLOAD:NODE.EXE to the linker and its hook among CMAKE_JS_SRC, and says from what
  # and to where node.lib is to be made.
  if(CMAKE_JS_NODELIB_DEF AND CMAKE_JS_NODELIB_TARGET)
    execute_process(COMMAND ${CMAKE_AR} /def:${CMAKE_JS_NODELIB_DEF} /out:${CMAKE_JS_NODELIB_TARGET} ${CMAKE_STATIC_LINKER_FLAGS})
  endif()
  target_link_libraries(firn PRIVATE delayimp)
endif()
